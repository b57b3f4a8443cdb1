"""Draw the figure of the README and write its table: python book/tools/picture.py."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import matplotlib as mpl
from pandas import DataFrame, isna, read_csv
from prunebook.book import plots
from prunebook.experiments.comparison import CLOSE, DENSITIES, EPOCHS, MAIN

ROOT = Path(__file__).resolve().parents[2]
TABLES = [ROOT / "book/results" / f"{name}.csv" for name in ("comparison", "gumbel", "published")]
PICTURE, README = ROOT / "book/_static/frontier.svg", ROOT / "README.md"
ROWS = (*MAIN, "iterative, rewinding", "RigL", "SNIP", "unit norm", "gumbel units")


def digest() -> str:
    """Return a hash of the stored tables, which tells whether the picture was drawn from them."""
    return hashlib.sha256(b"".join(table.read_bytes() for table in TABLES)).hexdigest()


def compared() -> DataFrame:
    """Return the rows of the comparison on MNIST with the number of epochs that all methods share."""
    rows = read_csv(TABLES[0])
    at_once = (rows["data"] == "mnist") & (rows["epochs"] == EPOCHS) & rows["density"].isin(DENSITIES)
    return rows[at_once]


def draw() -> None:
    """Draw the picture as the chapter does, and write it to a file."""
    _, long, published = (read_csv(table) for table in TABLES)
    with mpl.rc_context({"svg.hashsalt": "prunebook"}):
        fig, (ax,) = plots.figure(width=8, height=5)
        plots.frontier_of(compared(), long, published, MAIN, ax)
        fig.savefig(PICTURE, metadata={"Date": None, "Description": digest()})


def table() -> str:
    """Return the table of the README: mean test accuracy in percent, by method and density."""
    rows, densities = compared(), (0.05, *CLOSE)
    means = 100 * rows.pivot_table("test_accuracy", "method", "density")
    head = [f"| weights kept | {' | '.join(f'{100 * density:g} %' for density in densities)} |"]
    shown = means.loc[list(ROWS), list(densities)].map(lambda value: "-" if isna(value) else f"{value:.1f}")
    lines = [
        f"| {name} | {' | '.join(values)} |" for name, values in zip(shown.index, shown.values, strict=True)
    ]
    return "\n".join([*head, "|---" * (len(densities) + 1) + "|", *lines])


def write_table() -> None:
    """Replace the table in the README by the new one."""
    text = README.read_text()
    README.write_text(re.sub(r"\| weights kept \|.*?(?=\n\n)", lambda _: table(), text, flags=re.DOTALL))


if __name__ == "__main__":
    draw()
    write_table()
