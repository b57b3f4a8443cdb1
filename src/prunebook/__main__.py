"""The command line: `python -m prunebook --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prunebook.adaptive_runs import EXPERIMENTS, adaptive_runs, fill_adaptive
from prunebook.compare import fill_pruning, seed_experiment
from prunebook.data import SOURCES, DamagedDataError, data_folder, fetch, load_data


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
    pruning = commands.add_parser(
        "pruning",
        help="fill the table of the chapters on weights and units",
        description="Train 784-1000-1000-500-200-10 on MNIST once for each seed, prune weights and units at "
        "each k, fine-tune some, and write a row for each. Started again, it goes on where it stopped.",
    )
    pruning.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 on (default 3)")
    pruning.add_argument(
        "--table", type=Path, default=Path("book/results/pruning.csv"), help="the file to fill"
    )
    pruning.set_defaults(run=_pruning)
    adaptive = commands.add_parser(
        "adaptive",
        help="fill the table of the chapter on adaptive pruning",
        description="Train 784-512-512-10 on MNIST with learned ratios, and write a row for each run. "
        "Started again, it goes on where it stopped.",
    )
    adaptive.add_argument(
        "experiments", nargs="*", choices=EXPERIMENTS, default=EXPERIMENTS, help="which (default: all)"
    )
    adaptive.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 on (default 5)")
    adaptive.add_argument(
        "--table", type=Path, default=Path("book/results/adaptive.csv"), help="the file to fill"
    )
    adaptive.set_defaults(run=_adaptive)
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


def _pruning(chosen: argparse.Namespace) -> int:
    runs = [run for seed in range(chosen.seeds) for run in seed_experiment(seed)]
    rows = len(list(fill_pruning(runs, chosen.table, load_data("mnist"))))
    print(f"{rows} new rows, {len(runs)} in all, in {chosen.table}")
    return 0


def _adaptive(chosen: argparse.Namespace) -> int:
    names = list(chosen.experiments)
    runs = [run for name in names for seed in range(chosen.seeds) for run in adaptive_runs(name, seed)]
    rows = len(list(fill_adaptive(runs, chosen.table, load_data("mnist"))))
    print(f"{rows} new rows, {len(runs)} in all, in {chosen.table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
