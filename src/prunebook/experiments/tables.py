"""Tables in CSV files: a run gets its row as soon as it ends, and several processes may share a table.

Chapter: book/weights.ipynb
"""

from __future__ import annotations

import csv
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from prunebook.experiments.protocol import Row, Run


def missing(runs: Sequence[Run], path: Path) -> list[Run]:
    """Return the runs that have no row yet."""
    rows = read_rows(path)
    return [run for run in runs if not any(is_row_of(run, row) for row in rows)]


def rows_of(runs: Sequence[Run], path: Path) -> list[Row]:
    """Return the rows of a table that belong to the runs."""
    return [row for row in read_rows(path) if any(is_row_of(run, row) for run in runs)]


def is_row_of(run: Run, row: Row) -> bool:
    """Return whether a row, new or read from a file, belongs to a run; 0 and 0.0 count as equal."""
    return all(
        str(row[name]) == str(value) if isinstance(value, str | bool) else float(str(row[name])) == value
        for name, value in run.columns().items()
    )


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a table, or none if the file does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [dict(row) for row in csv.DictReader(file)]


def append_row(path: Path, run: Run, measured: Row) -> Row:
    """Add the row of a run to a table, unless another process has done so already; return the row.

    A measurement that is itself a list of rows goes into a separate table in the same folder, named after
    its column, where it replaces the rows of the same seed.
    """
    row = run.columns() | measured
    for name, value in measured.items():
        if isinstance(value, list):
            del row[name]
            with rewriting(path.with_name(f"{name}.csv")) as rows:
                rows[:] = [old for old in rows if int(str(old["seed"])) != run.seed]
                rows += [{"seed": run.seed} | part for part in value]
    with rewriting(path) as rows:
        if not any(is_row_of(run, old) for old in rows):
            rows.append(row)
    return row


def drop_errors(runs: Sequence[Run], path: Path) -> None:
    """Remove the rows of the given runs that failed."""
    with rewriting(path) as rows:
        rows[:] = [
            row for row in rows if not row.get("error") or not any(is_row_of(run, row) for run in runs)
        ]


@contextmanager
def rewriting(path: Path) -> Iterator[list[Row]]:
    """Yield the rows of a table to be changed, then write them: a reader finds the old table or the new one.

    The columns are those of all rows, in the order of the longest row. A row that lacks a column is empty
    there. Several processes may use it on one machine; each waits for its turn.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(".csv.partial")
    # the lock is in the temporary folder of this machine, not beside the table
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"prunebook-{name}.lock"):
        rows = read_rows(path)
        yield rows
        with partial_path.open("w", newline="") as file:
            columns = dict.fromkeys(name for row in [max(rows, key=len, default={}), *rows] for name in row)
            writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(partial_path, path)
