"""The command line: `python -m prunebook --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from prunebook.adaptive_runs import EXPERIMENTS, adaptive_runs, fill_adaptive
from prunebook.data import SOURCES, DamagedDataError, data_folder, fetch, load_data
from prunebook.gumbel_runs import fill_gumbel, gumbel_runs
from prunebook.pruning_runs import fill_pruning, seed_experiment
from prunebook.toy import FIRST_SEED, fill_toy, toy_runs


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
    _add_table(pruning, "pruning", _pruning)
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
    _add_table(adaptive, "adaptive", _adaptive)
    gumbel = commands.add_parser(
        "gumbel",
        help="fill the table of the chapter on Gumbel-Softmax pruning",
        description="Train LeNet-300-100 on MNIST with Gumbel gates down to 0.15 % of its weights, and the "
        "networks it is compared with; write a row for each. Started again, it goes on where it stopped; "
        "several at once, for other seeds, may fill one table.",
    )
    gumbel.add_argument("--seeds", type=int, nargs="+", default=range(5), help="which (default: 0 to 4)")
    _add_table(gumbel, "gumbel", _gumbel)
    toy = commands.add_parser(
        "toy",
        help="fill the table of the toy in the chapter on pathways",
        description="Prune 4-10-10-2 on the toy of the reference tutorial, train it dense too, write a row "
        "for each. Started again, it goes on where it stopped.",
    )
    toy.add_argument("--seeds", type=int, default=10, help="how many seeds, from 10 on (default 10)")
    _add_table(toy, "toy", _toy)
    chosen = parser.parse_args(arguments)
    return int(chosen.run(chosen))


def _add_table(command: argparse.ArgumentParser, name: str, run: Callable[[argparse.Namespace], int]) -> None:
    table = Path(f"book/results/{name}.csv")
    command.add_argument("--table", type=Path, default=table, help="the file to fill")
    command.set_defaults(run=run)


def _report(new: Iterable[object], runs: Sequence[object], table: Path) -> int:
    """Measure the runs that are missing, and say how many they were."""
    print(f"{len(list(new))} new rows, {len(runs)} in all, in {table}")
    return 0


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
    return _report(fill_pruning(runs, chosen.table, load_data("mnist")), runs, chosen.table)


def _adaptive(chosen: argparse.Namespace) -> int:
    names = list(chosen.experiments)
    runs = [run for name in names for seed in range(chosen.seeds) for run in adaptive_runs(name, seed)]
    return _report(fill_adaptive(runs, chosen.table, load_data("mnist")), runs, chosen.table)


def _gumbel(chosen: argparse.Namespace) -> int:
    runs = [run for seed in chosen.seeds for run in gumbel_runs(seed)]
    return _report(fill_gumbel(runs, chosen.table, load_data("mnist")), runs, chosen.table)


def _toy(chosen: argparse.Namespace) -> int:
    runs = [run for seed in range(FIRST_SEED, FIRST_SEED + chosen.seeds) for run in toy_runs(seed)]
    return _report(fill_toy(runs, chosen.table), runs, chosen.table)


if __name__ == "__main__":
    sys.exit(main())
