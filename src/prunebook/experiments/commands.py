"""The command line: `python -m prunebook --help`.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pandas import DataFrame

from prunebook.experiments import sweep
from prunebook.experiments.adaptive import EXPERIMENTS, adaptive_runs, fill_adaptive
from prunebook.experiments.comparison import (
    DENSITIES,
    EPOCHS,
    METHODS,
    frontier_runs,
    measure,
    runs,
    search_runs,
    validate,
)
from prunebook.experiments.gumbel import fill_gumbel, gumbel_runs
from prunebook.experiments.latency import write_latency
from prunebook.experiments.pruning import fill_pruning, seed_experiment
from prunebook.experiments.recipes import CompareRun
from prunebook.experiments.tables import rows_of
from prunebook.experiments.toy import FIRST_SEED, fill_toy, toy_runs
from prunebook.training.data import SOURCES, DamagedDataError, data_folder, fetch, load_data


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
    latency = commands.add_parser(
        "latency",
        help="measure the table of the chapter on what you gain",
        description="Time 784-1000-1000-500-200-10 on the CPU as it is, with zeros, as CSR and with units "
        "removed, and write the table anew. Takes a minute; leave the machine alone meanwhile.",
    )
    latency.add_argument("--threads", type=int, nargs="+", default=[1], help="how many (default: 1)")
    latency.add_argument("--rounds", type=int, default=100, help="how often each is timed (default 100)")
    _add_table(latency, "latency", _latency)
    _add_compare(commands)
    chosen = parser.parse_args(arguments)
    return int(chosen.run(chosen))


def _add_compare(commands: Any) -> None:
    """Add the commands of the comparison, which run here, on several processes or on a cluster."""
    again = " Started again, it goes on where it stopped: at once, or after a crash."
    compare = commands.add_parser(
        "compare",
        help="compare methods of your choice",
        description="Train LeNet-300-100 by each method at each density from each seed, as the book does, "
        "and print the test accuracies." + again,
        epilog="Methods: " + "; ".join(METHODS) + ". For example: python -m prunebook compare --methods "
        '"magnitude, global, gradual" gumbel --densities 0.02 0.005 --processes 2',
    )
    usual = ["magnitude, global, gradual", "soft mask", "gumbel"]
    compare.add_argument("--methods", nargs="+", choices=METHODS, default=usual, metavar="METHOD")
    compare.add_argument(
        "--densities", nargs="+", type=float, default=[0.02, 0.005], help="shares kept, above 0, up to 1"
    )
    compare.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="which (default: 0 1)")
    compare.add_argument("--epochs", type=int, default=EPOCHS, help=f"of each run (default {EPOCHS})")
    compare.add_argument("--data", choices=sorted(SOURCES), default="mnist")
    compare.add_argument("--table", type=Path, default=Path("compared.csv"), help="the file to fill")
    compare.set_defaults(run=_compare)
    frontier = commands.add_parser(
        "frontier",
        help="fill the table of the chapter that compares the methods",
        description=f"Train {len(frontier_runs())} networks by {len(METHODS)} methods at {len(DENSITIES)} "
        "densities, and write a row for each: some hours on two cores." + again,
    )
    _add_table(frontier, "comparison", _frontier)
    search = commands.add_parser(
        "search",
        help="fill the table that the settings of the comparison are chosen by",
        description="Train each method with six settings, and write its accuracy on validation images, never "
        "on test images." + again,
    )
    _add_table(search, "search", _search)
    for command in (compare, frontier, search):
        sweep.add_executor_options(command)


def _add_table(command: argparse.ArgumentParser, name: str, run: Callable[[argparse.Namespace], int]) -> None:
    table = Path(f"book/results/{name}.csv")
    command.add_argument("--table", type=Path, default=table, help="the file to fill")
    command.set_defaults(run=run)


def _report(new: Iterable[object], runs: Sequence[object], table: Path) -> int:
    """Measure the runs that are missing, and say how many they were."""
    print(f"{len(list(new))} new rows, {len(runs)} in all, in {table}")
    return 0


def _sweep(
    found: Sequence[CompareRun],
    measured: Callable[[CompareRun], dict[str, object]],
    chosen: argparse.Namespace,
) -> int:
    """Measure what is missing where the options say; return 1 where a run failed, now or before."""
    try:
        with sweep.executor_of(chosen) as executor:
            new = list(sweep.sweep(found, chosen.table, measured, executor, chosen.retry))
    except (ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    failed = [row for row in rows_of(found, chosen.table) if row.get("error")]
    for row in failed:
        print(f"{row['method']} at {row['density']}, seed {row['seed']}: {row['error']}", file=sys.stderr)
    return _report(new, found, chosen.table) or int(bool(failed))


def _compare(chosen: argparse.Namespace) -> int:
    try:
        found = runs(chosen.methods, chosen.densities, chosen.seeds, chosen.epochs, chosen.data)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    status = _sweep(found, measure, chosen)
    rows = [row for row in rows_of(found, chosen.table) if not row.get("error")]
    if rows and status < 2:
        table = DataFrame(rows)[["method", "density", "test_accuracy"]].astype({"test_accuracy": float})
        percent = table.assign(test_accuracy=100 * table["test_accuracy"])
        shown = percent.pivot_table("test_accuracy", "method", "density", aggfunc=["mean", "std"]).round(2)
        print(f"\nTest accuracy in %, of {len(chosen.seeds)} seeds:\n{shown}")
    return status


def _frontier(chosen: argparse.Namespace) -> int:
    return _sweep(frontier_runs(), measure, chosen)


def _search(chosen: argparse.Namespace) -> int:
    return _sweep(search_runs(), validate, chosen)


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


def _latency(chosen: argparse.Namespace) -> int:
    rows = write_latency(chosen.table, chosen.threads, chosen.rounds)
    print(f"{rows} rows in {chosen.table}")
    return 0
