"""What all figures share: colours, an empty figure, labelled axes.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart. Nothing here changes the
global state of matplotlib.

Chapter: book/dense.ipynb
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import seaborn as sns
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#777777")
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = COLOURS
# What is above 0 is orange-red and what is below is blue, everywhere. A size without a sign is green, and so
# is a count. White is 0: on a dark page, where colours are swapped, more is further from the paper, too.
SIGNED = LinearSegmentedColormap.from_list("signed", [BLUE, "white", RED])
SIZE = LinearSegmentedColormap.from_list("size", ["white", GREEN, "#003d2b"])
COUNT = LinearSegmentedColormap.from_list("count", ["#a9dfca", GREEN, "#003d2b"])
PERCENT: dict[str, Any] = {"ylabel": "accuracy in %", "ylim": (0, 102)}


INCH = 100  # an inch of a figure is so many pixels wide on a page,
SHARP = 2  # and each of these is drawn as 2 x 2, for sharp screens


class Picture(Figure):
    """A figure that a notebook shows as the last value of a cell, without pyplot or any setting.

    Attributes:
        panels: Where its columns of axes begin and end, from 0 at the left to 1 at the right. On a phone, a
            slider shows these columns one below the other.
    """

    panels: Sequence[float] = (0, 1)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        drawn, packed = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png", dpi=SHARP * INCH, bbox_inches="tight")
        image = Image.open(drawn).convert("RGB")
        # a figure has few colours: with the 256 best of them it looks the same, and takes half of the bytes
        few = image.quantize(256, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
        few.save(packed, "png", optimize=True)
        return packed.getvalue(), {"width": image.width // SHARP, "height": image.height // SHARP}


def figure(
    columns: int = 1,
    rows: int = 1,
    width: float = 7.0,
    height: float = 3.2,
    margins: Mapping[str, float] | None = None,
) -> tuple[Picture, list[Axes]]:
    """Return a figure of `width` x `height` inches on white, and its axes, row by row.

    Matplotlib arranges the axes so that no text overlaps. That takes longer than drawing all the rest of a
    frame, so a slider should give `margins`, as for `Figure.subplots_adjust`, which fix where the axes are.
    """
    fig = Picture(
        figsize=(width, height), layout="constrained" if margins is None else None, facecolor="white"
    )
    fig.panels = [i / columns for i in range(columns + 1)]
    axes = [fig.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for ax in axes:
        sns.despine(ax=ax)
    if margins is not None:
        fig.subplots_adjust(**margins)
    return fig, axes


def even(columns: int, left: float, right: float, **others: float) -> dict[str, float]:
    """Return margins for `figure` with columns of equal width, axes and labels together.

    `left` and `right` are the shares of a column on both sides of its axes. A slider needs such columns,
    because on a phone it cuts its figure between them.
    """
    space = (left + right) / (1 - left - right)
    return {"left": left / columns, "right": 1 - right / columns, "wspace": space, **others}


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
