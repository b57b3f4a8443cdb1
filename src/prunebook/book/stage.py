"""What the cells of a chapter need besides pruning: set-up, quick runs, stored tables, checks of the text.

Chapter: book/intro.md
"""

import os
import platform
from importlib.metadata import metadata
from pathlib import Path
from typing import TypeVar

import torch
from pandas import DataFrame, Series, isna, read_csv
from pandas.api.types import is_integer, is_numeric_dtype

from prunebook.checks import require_positive
from prunebook.training.data import Data
from prunebook.training.device import device

T = TypeVar("T")


def setup(minutes: float) -> None:
    """Print the versions, the device and how long a chapter takes.

    Args:
        minutes: What the whole chapter takes on one CPU core, above 0.

    Raises:
        ValueError: `minutes` is not above 0.
    """
    require_positive("minutes", minutes)
    where = device()
    chip = f" ({torch.cuda.get_device_name(where)})" if where.type == "cuda" else ""
    takes = f"The chapter takes about {minutes:g} minute{'s' * (minutes != 1)} on one CPU core"
    print(f"{takes}; here: {where}{chip}, torch {torch.__version__}, Python {platform.python_version()}.")  # noqa: T201


def is_quick() -> bool:
    """Return whether `PRUNEBOOK_QUICK=1` asks for a run of some seconds: the same figures in less detail."""
    return os.environ.get("PRUNEBOOK_QUICK", "0") not in ("", "0")


def quick(full: T, small: T) -> T:
    """Return `full`, or `small` in a quick run; for numbers of epochs, seeds or images."""
    return small if is_quick() else full


def table(name: str) -> DataFrame:
    """Return a stored table of long runs, `book/results/{name}.csv`.

    It is read from `results` or `book/results` in the working directory or, if it is in neither, from the
    repository that the package names as its source.

    Raises:
        FileNotFoundError: The table is in none of these places.
    """
    for folder in (Path("results"), Path("book/results")):
        if (folder / f"{name}.csv").is_file():
            return read_csv(folder / f"{name}.csv")
    source = metadata("prunebook")["Project-URL"].split(", ")[1]
    raw = source.replace("https://github.com", "https://raw.githubusercontent.com")
    try:
        return read_csv(f"{raw}/main/book/results/{name}.csv")
    except OSError as error:
        raise FileNotFoundError(f"no table {name!r} in book/results, here or at {source}: {error}") from error


def numbers(frame: DataFrame, digits: int = 1) -> DataFrame:
    """Return a table with its numbers as text, to be read: 7,840 instead of 7840, and 97.4 instead of 97.38.

    Columns of whole numbers have no decimals, the others have `digits` of them. Missing numbers are "-".
    """

    def say(column: Series) -> Series:
        if not is_numeric_dtype(column):
            return column
        places = 0 if (column.dropna() % 1 == 0).all() else digits
        return column.map(lambda value: "-" if isna(value) else f"{value:,.{places}f}")

    return frame.apply(say).rename(index=lambda name: f"{name:,}" if is_integer(name) else name)


def expect(claim: str, holds: bool, data: Data | None = None, name: str = "mnist") -> None:
    """Check a claim of the text, and print it.

    The text is about full training on the data set called `name`. In a quick run, or on other `data`, a claim
    that does not hold is therefore only a note, not an error.

    Raises:
        AssertionError: The claim does not hold, although the run is full and on the right data.
    """
    excuse = is_quick() or (data is not None and data.name != name)
    if not holds and not excuse:
        raise AssertionError(f"The text says: {claim}. This run says otherwise.")
    print(f"{'Checked' if holds else 'Not so in this quick or other-data run'}: {claim}.")  # noqa: T201


def timing(claim: str, holds: bool) -> None:
    """Print whether a claim of the text about time holds here; if it does not, that is never an error.

    How long something takes depends on the machine and on what else it is doing.
    """
    print(f"{'Checked' if holds else 'Not so on this machine, this time'}: {claim}.")  # noqa: T201
