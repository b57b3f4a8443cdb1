"""Draw the frontier for the README: python book/tools/picture.py."""

from __future__ import annotations

import hashlib
from pathlib import Path

import matplotlib as mpl
from pandas import read_csv
from prunebook import plots
from prunebook.compare import DENSITIES, EPOCHS, MAIN

BOOK = Path(__file__).resolve().parents[1]
TABLES = [BOOK / "results" / f"{name}.csv" for name in ("comparison", "gumbel", "published")]
PICTURE = BOOK / "_static" / "frontier.svg"


def digest() -> str:
    """Return what tells whether the picture is of these tables."""
    return hashlib.sha256(b"".join(table.read_bytes() for table in TABLES)).hexdigest()


def draw() -> None:
    """Draw the picture as the chapter does."""
    compared, long, published = (read_csv(table) for table in TABLES)
    at_once = (
        (compared["data"] == "mnist") & (compared["epochs"] == EPOCHS) & compared["density"].isin(DENSITIES)
    )
    with mpl.rc_context({"svg.hashsalt": "prunebook"}):
        fig, (ax,) = plots.figure(width=8, height=5)
        plots.frontier_of(compared[at_once], long, published, MAIN, ax)
        fig.savefig(PICTURE, metadata={"Date": None, "Description": digest()})


if __name__ == "__main__":
    draw()
