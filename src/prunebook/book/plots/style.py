"""What all figures share: colours, an empty figure, labelled axes.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart. Nothing here changes the
global state of matplotlib.

Chapter: book/dense.ipynb
"""

import io
from collections.abc import Mapping
from typing import Any

import seaborn as sns
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#777777")
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = COLOURS
PERCENT: dict[str, Any] = {"ylabel": "accuracy in %", "ylim": (0, 102)}


class Picture(Figure):
    """A figure that a notebook shows as the last value of a cell, without pyplot or any setting."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
        return buffer.getvalue()


def figure(
    columns: int = 1,
    rows: int = 1,
    width: float = 7.0,
    height: float = 3.2,
    margins: Mapping[str, float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `width` x `height` inches on white, and its axes, row by row.

    Matplotlib arranges the axes so that no text overlaps. That takes longer than drawing all the rest of a
    frame, so a slider should give `margins`, as for `Figure.subplots_adjust`, which fix where the axes are.
    """
    fig = Picture(
        figsize=(width, height), layout="constrained" if margins is None else None, facecolor="white"
    )
    axes = [fig.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for ax in axes:
        sns.despine(ax=ax)
    if margins is not None:
        fig.subplots_adjust(**margins)
    return fig, axes


def finish(ax: Axes, legend: float | None = None, **labels: Any) -> Axes:
    """Set labels and limits as `Axes.set` does, draw a pale grid, and return the axes.

    If `legend` is a font size in points, add a legend of that size, without a frame.
    """
    ax.set(**labels)
    ax.grid(alpha=0.3)
    if legend is not None:
        ax.legend(frameon=False, fontsize=legend)
    return ax


def mark(ax: Axes, x: float, y: float, size: float = 11) -> None:
    """Draw an orange dot, `size` points wide, at the point that the reader has chosen."""
    ax.plot(x, y, "o", color=ORANGE, markersize=size)


def moving(*artists: Artist) -> None:
    """Mark artists that a slider changes. All else in their figure is drawn only once, so its axes stay."""
    for artist in artists:
        artist.set_animated(True)


def counts(values: Tensor, edges: Tensor) -> Tensor:
    """Return how many of the values lie in each of the bins between the edges."""
    return torch.histogram(values.detach().flatten().float().cpu(), edges).hist
