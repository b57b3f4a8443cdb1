"""The command line: `python -m prunebook --help`.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from prunebook.checks import require_whole
from prunebook.experiments import adaptive, comparison, gumbel, latency, pruning, search, starts, sweep, toy
from prunebook.experiments.protocol import Run, Table
from prunebook.experiments.tables import is_row_of, read_rows, rewriting
from prunebook.training.data import SOURCES, DamagedDataError, data_folder, fetch

TABLES = {
    "pruning": pruning.TABLE,
    "adaptive": adaptive.TABLE,
    "gumbel": gumbel.TABLE,
    "toy": toy.TABLE,
    "compare": comparison.COMPARE,
    "frontier": comparison.FRONTIER,
    "search": search.TABLE,
    "trials": starts.TRIALS,
    "starts": starts.TABLE,
}
TIMES = {"seconds", "cpu_seconds", "ms", "dense_ms"}  # columns that differ each time
WHERE = {"device", "processor", "threads", "versions"}  # if one of these differs, rounding does, too
AGAIN = " Started again, it goes on where it stopped: at once, or after a crash."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    chosen = make_parser().parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except (ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands: one for each table, and `data`, `check` and `latency`."""
    parser = argparse.ArgumentParser(prog="python -m prunebook", description="Tools of The Pruning Book.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = commands.add_parser(
        "data", help="fetch and check a data set", description="Fetch a data set once."
    )
    data.add_argument("name", choices=sorted(SOURCES))
    data.add_argument("--repair", action="store_true", help="download damaged files again")
    data.set_defaults(run=_data)
    for name, table in TABLES.items():
        command = commands.add_parser(name, help=table.help, description=table.description + AGAIN)
        for option, settings in table.options.items():
            command.add_argument(option, **settings)
        if (seeds := table.seeds) is not None:
            about = f"from which seeds (default: {seeds[0]} to {seeds[-1]})"
            command.add_argument(
                "--seeds", type=int, nargs="+", default=list(seeds), metavar="SEED", help=about
            )
        command.add_argument("--table", type=Path, default=table.file, help="the file to fill")
        sweep.add_executor_options(command)
        command.set_defaults(run=partial(_fill, table))
    again = commands.add_parser(
        "check",
        help="train some rows of a table again, and compare",
        description="Draw rows of a stored table, train their networks again, and say what differs. On the "
        "same processor, with as many threads and the same versions, only times may.",
    )
    again.add_argument("name", choices=[name for name in TABLES if name != "compare"])
    again.add_argument("--rows", type=int, default=3, help="how many (default 3)")
    again.add_argument("--draw", type=int, default=None, help="seed of the draw (default: another each time)")
    again.set_defaults(run=_check)
    timed = commands.add_parser(
        "latency",
        help="measure the table of the chapter on what you gain",
        description="Time 784-1000-1000-500-200-10 on the CPU as it is, with zeros, as CSR and with units "
        "removed, and write the table anew. Takes a minute; leave the machine alone meanwhile.",
    )
    timed.add_argument("--threads", type=int, nargs="+", default=[1], help="how many (default: 1)")
    timed.add_argument("--rounds", type=int, default=100, help="how often each is timed (default 100)")
    timed.add_argument("--table", type=Path, default=latency.FILE, help="the file to write")
    timed.set_defaults(run=_latency)
    return parser


def runs_of(table: Table, chosen: argparse.Namespace) -> list[Run]:
    """Return the runs that a command's options ask for."""
    names = [option.strip("-") for option in table.options] + ["seeds"] * (table.seeds is not None)
    return table.runs(**{name: getattr(chosen, name) for name in names})


def _fill(table: Table, chosen: argparse.Namespace) -> int:
    """Measure the runs that have no row yet; return 1 if one of the runs failed, now or earlier."""
    runs = runs_of(table, chosen)
    with sweep.executor_of(chosen.dask) as executor:
        new = list(sweep.sweep(runs, chosen.table, table.measure, executor, chosen.retry))
    stored = read_rows(chosen.table)
    found = [(run, row) for run in runs for row in stored if is_row_of(run, row)]
    failed = [(run, row["error"]) for run, row in found if row.get("error")]
    for run, error in failed:
        which = ", ".join(f"{name}={value}" for name, value in run.columns().items())
        print(f"{which}: {error}", file=sys.stderr)
    print(f"{len(new)} new rows, {len(runs)} in all, in {chosen.table}")
    if table.show and len(found) > len(failed):
        print(table.show([row for _, row in found if not row.get("error")]))
    return int(bool(failed))


def _check(chosen: argparse.Namespace) -> int:
    """Train some stored rows again; return 1 if one differs on the same machine with the same versions."""
    table = TABLES[chosen.name]
    runs, stored = runs_of(table, make_parser().parse_args([chosen.name])), read_rows(table.file)
    found = [(run, row) for run in runs for row in stored if is_row_of(run, row) and not row.get("error")]
    require_whole("rows", chosen.rows, 1, len(found))
    worst = 0
    for run, row in random.Random(chosen.draw).sample(found, chosen.rows):
        new = {name: str(value) for name, value in table.measure(run).items() if not isinstance(value, list)}
        compared = {name: (str(row.get(name)), value) for name, value in new.items() if name not in TIMES}
        other = {name: pair for name, pair in compared.items() if pair[0] != pair[1]}
        elsewhere = WHERE & other.keys()
        worst = max(worst, int(bool(other) and not elsewhere))
        print(", ".join(f"{name}={value}" for name, value in run.columns().items()))
        print("\n".join(f"    {name}: {old}, now {now}" for name, (old, now) in other.items()) or "    equal")
    return worst


def _data(chosen: argparse.Namespace) -> int:
    try:
        fetch(chosen.name, data_folder(), repair=chosen.repair)
    except (ConnectionError, DamagedDataError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{chosen.name}: whole and unaltered in {data_folder()}")
    return 0


def _latency(chosen: argparse.Namespace) -> int:
    rows = [row for n in chosen.threads for row in latency.time_forms(threads=n, rounds=chosen.rounds)]
    with rewriting(chosen.table) as table:
        table[:] = rows
    print(f"{len(rows)} rows in {chosen.table}")
    return 0
