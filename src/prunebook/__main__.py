"""The command line: `python -m prunebook --help`."""

import sys

from prunebook.experiments.commands import main

if __name__ == "__main__":
    sys.exit(main())
