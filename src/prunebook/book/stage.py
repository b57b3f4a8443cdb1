"""What the cells of a chapter need besides pruning: where am I, how long may I take, does the text hold.

Chapter: book/intro.md
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import metadata
from pathlib import Path
from typing import TypeVar

import torch
from IPython.core.getipython import get_ipython
from IPython.core.pylabtools import select_figure_formats
from pandas import DataFrame, read_csv

from prunebook.training.data import Data
from prunebook.training.device import device

T = TypeVar("T")


def setup() -> None:
    """Print the versions and the device, and let a figure show itself as the last value of a cell."""
    if (shell := get_ipython()) is not None:
        select_figure_formats(shell, {"png"})
    where = device()
    chip = f" ({torch.cuda.get_device_name(where)})" if where.type == "cuda" else ""
    print(f"Python {platform.python_version()}, torch {torch.__version__}, device {where}{chip}")  # noqa: T201


def is_quick() -> bool:
    """Tell whether `PRUNEBOOK_QUICK=1` asks for a run of seconds, with the same figures, coarser."""
    return os.environ.get("PRUNEBOOK_QUICK", "0") not in ("", "0")


def quick(full: T, small: T) -> T:
    """Return `full`, or `small` in a quick run: for epochs, seeds and numbers of images."""
    return small if is_quick() else full


def table(name: str) -> DataFrame:
    """Read a table of long runs, `book/results/{name}.csv`: here, else from the repository of the package.

    Raises:
        FileNotFoundError: it is in neither place.
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


def expect(claim: str, holds: bool, data: Data | None = None, name: str = "mnist") -> None:
    """Check a claim of the text and print it.

    A claim about trained networks is made for one data set and for full runs. Elsewhere (a quick run, or
    `data` that is not the set called `name`) a claim that does not hold is a note, not an error.

    Raises:
        AssertionError: the claim does not hold, and nothing excuses it.
    """
    excuse = is_quick() or (data is not None and data.name != name)
    if not holds and not excuse:
        raise AssertionError(f"The text says: {claim}. This run says otherwise.")
    print(f"{'Checked' if holds else 'Not so in this quick or other-data run'}: {claim}.")  # noqa: T201
