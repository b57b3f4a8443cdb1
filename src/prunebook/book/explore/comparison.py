"""A slider for the share of weights kept, which shows the best methods there.

Chapter: book/comparison.ipynb
"""

from matplotlib.figure import Figure
from pandas import DataFrame

from prunebook.book.plots.curves import ranking
from prunebook.book.plots.style import figure
from prunebook.book.widgets import FrameSlider


def explore_frontier(rows: DataFrame) -> FrameSlider:
    """Return a slider for the percentage of weights kept, which shows all methods there, the best on top.

    Args:
        rows: Results on one data set with one number of epochs, with the columns method, density (0..1) and
            test_accuracy (0..1).

    Raises:
        ValueError: There are no rows.
    """
    if rows.empty:
        raise ValueError("rows must hold at least one network, got none")
    most = rows["method"].nunique()

    def draw(percent: float) -> tuple[Figure, str]:
        here = rows[(100 * rows["density"]).round(6) == percent]
        fig, (ax,) = figure(width=7.5, height=1 + 0.24 * most)
        ranking(here, ax)
        ax.set_ylim(-0.7, most - 0.3)
        mean = 100 * here.groupby("method")["test_accuracy"].mean().sort_values(ascending=False)
        best = ", ".join(f"{method} {value:.1f} %" for method, value in mean.head(3).items())
        return fig, f"{percent:g} % kept, the best of {len(mean)}: {best}."

    shares = sorted({round(100 * share, 6) for share in rows["density"]}, reverse=True)
    stops = [int(share) if share == int(share) else share for share in shares]
    return FrameSlider(draw, stops, label="weights kept, in %", start=len(stops) // 2)
