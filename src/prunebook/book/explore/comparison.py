"""A slider for the share of weights kept, which shows the best methods there.

Chapter: book/comparison.ipynb
"""

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from prunebook.book.plots.curves import ranking
from prunebook.book.plots.style import figure
from prunebook.book.widgets import FrameSlider

MARGINS = {"left": 0.4, "right": 0.9, "bottom": 0.1, "top": 0.98}


def explore_frontier(rows: DataFrame) -> FrameSlider:
    """Return a slider for the percentage of weights kept, which shows all methods there, the best on top.

    Between two densities at which a method was measured, its accuracy is taken from the straight line that
    joins them on a logarithmic axis; the readout says so.

    Args:
        rows: Results on one data set with one number of epochs, with the columns method, density (0..1) and
            test_accuracy (0..1).

    Raises:
        ValueError: There are no rows.
    """
    if rows.empty:
        raise ValueError("rows must hold at least one network, got none")
    percent = (100 * rows["density"]).round(6).rename("percent")
    measured = 100 * rows.groupby(["method", percent])["test_accuracy"].agg(["mean", "min", "max"])
    most = rows["method"].nunique()

    def draw(kept: float) -> tuple[Figure, str]:
        near = min(shares, key=lambda share: abs(share - kept))
        kept = near if abs(near - kept) < 0.012 * near else kept  # within half a step of the live slider
        here = _at(measured, kept)
        fig, (ax,) = figure(width=5.6, height=1 + 0.24 * most, margins=MARGINS)
        ranking(here, ax)
        ax.set_ylim(-0.7, most - 0.3)
        if here.empty:
            return fig, f"{kept:g} % kept: no method was measured on both sides."
        mean = here["mean"].sort_values(ascending=False).head(3)
        best = ", ".join(f"{method} {value:.1f} %" for method, value in mean.items())
        between = "" if kept in shares else " (between two measured densities)"
        return fig, f"{kept:g} % kept{between}, the best of {len(here)}: {best}."

    shares = sorted(set(percent), reverse=True)
    stops = [int(share) if share == int(share) else share for share in shares]
    span = (min(stops), max(stops), 0.01)
    return FrameSlider(
        draw,
        stops,
        start=len(stops) // 2,
        span=span,
        log=True,
        label="weights kept, in %",
        words="{:g} % kept",
    )


def _at(measured: DataFrame, kept: float) -> DataFrame:
    """Return mean and range of each method at this percentage, if it lies between two measured ones."""
    found = {}
    for method, line in measured.groupby(level="method"):
        places = line.index.get_level_values("percent")
        if places.min() <= kept <= places.max():
            found[method] = {name: np.interp(np.log(kept), np.log(places), line[name]) for name in line}
    return DataFrame.from_dict(found, orient="index", columns=["mean", "min", "max"])
