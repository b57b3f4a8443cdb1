"""The command line: `python -m prunebook --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from prunebook.data import SOURCES, DamagedDataError, data_folder, fetch


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m prunebook", description="Tools of The Pruning Book.")
    commands = parser.add_subparsers(required=True)
    data = commands.add_parser(
        "data", help="fetch and check a data set", description="Fetch a data set once."
    )
    data.add_argument("name", choices=sorted(SOURCES))
    data.add_argument("--repair", action="store_true", help="download damaged files again")
    data.set_defaults(run=_data)
    chosen = parser.parse_args(arguments)
    return int(chosen.run(chosen))


def _data(chosen: argparse.Namespace) -> int:
    try:
        fetch(chosen.name, data_folder(), repair=chosen.repair)
    except (ConnectionError, DamagedDataError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{chosen.name}: whole and unaltered in {data_folder()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
