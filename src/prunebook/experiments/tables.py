"""Tables of long runs: a row for each run, written as it ends; what was stopped goes on where it stopped.

A run is a frozen dataclass; its fields are the first columns of its row and tell it from the others.

Chapter: book/weights.ipynb
"""

from __future__ import annotations

import csv
import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock
from tqdm.auto import tqdm

Run = TypeVar("Run", bound=Any)


def fill(
    runs: Sequence[Run], path: Path, measure: Callable[[Run], dict[str, object]]
) -> Iterator[dict[str, object]]:
    """Measure the runs that have no row yet, append each row as it is there, and yield it."""
    for run in tqdm(missing(runs, path), unit="run", desc=path.stem):
        if not missing([run], path):
            continue  # another process has been faster
        row = asdict(run) | measure(run)
        append_row(path, row, run)
        yield row


def missing(runs: Sequence[Run], path: Path) -> list[Run]:
    """Return the runs that have no row yet."""
    rows = read_rows(path)
    return [run for run in runs if not any(is_row_of(run, row) for row in rows)]


def is_row_of(run: Any, row: dict[str, object]) -> bool:
    """Tell whether a row, fresh or read from a file, is that of a run; 0 and 0.0 are the same."""
    return all(
        str(row[name]) == str(value) if isinstance(value, str | bool) else float(str(row[name])) == value
        for name, value in asdict(run).items()
    )


def rows_of(runs: Sequence[Run], path: Path) -> list[dict[str, object]]:
    """Return the rows of a table that are those of the runs."""
    return [row for row in read_rows(path) if any(is_row_of(run, row) for run in runs)]


def read_rows(path: Path) -> list[dict[str, object]]:
    """Return the rows of a table, none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [dict(row) for row in csv.DictReader(file)]


def append_row(path: Path, row: dict[str, object], run: Any) -> None:
    """Write the table anew with the row of a run, unless another process has added one meanwhile."""
    rewrite(path, lambda rows: rows if any(is_row_of(run, old) for old in rows) else [*rows, row])


def drop_errors(runs: Sequence[Run], path: Path) -> None:
    """Drop the rows of those of the runs that failed."""

    def fine(row: dict[str, object]) -> bool:
        return not row.get("error") or not any(is_row_of(run, row) for run in runs)

    rewrite(path, lambda rows: [row for row in rows if fine(row)])


def rewrite(path: Path, change: Callable[[list[dict[str, object]]], list[dict[str, object]]]) -> None:
    """Replace the rows of a table by ``change(rows)``, at once: a reader finds the old table or the new one.

    The columns are those of all rows, in the order of the row with most; a row is empty where it lacks one.
    Several processes may do it; each waits for its turn.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(".csv.partial")
    with _turn(path):
        rows = change(read_rows(path))
        with partial_path.open("w", newline="") as file:
            columns = dict.fromkeys(name for row in [max(rows, key=len, default={}), *rows] for name in row)
            writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(partial_path, path)


def _turn(path: Path) -> FileLock:
    """Return the lock of a table: a file in this machine's folder for such, not beside the table."""
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"prunebook-{name}.lock")


def versions() -> str:
    """Return the versions that a row states."""
    return f"python {platform.python_version()}, torch {torch.__version__}"
