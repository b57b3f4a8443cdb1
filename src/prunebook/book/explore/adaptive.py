"""A slider through a run with adaptive masks, epoch by epoch.

Chapter: book/adaptive.ipynb
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from prunebook.book.explore.frames import all_kept, all_weights, flat, scrub
from prunebook.book.plots.curves import path
from prunebook.book.plots.masks import kept_histogram, kept_per_pixel
from prunebook.book.plots.style import figure
from prunebook.book.widgets import FrameSlider
from prunebook.methods.adaptive import AdaptivePruning

MARGINS = {"left": 0.11, "right": 0.97, "bottom": 0.11, "top": 0.95, "wspace": 0.35, "hspace": 0.42}


@dataclass(frozen=True)
class Moment:
    """A network with adaptive masks at the end of an epoch, reduced to what `explore_run` shows."""

    row: Mapping[str, float]  # of the history: epoch, valid_accuracy
    r: float
    tau: float
    weights: Tensor
    kept: Tensor
    first: Tensor  # the mask of the first layer


def moment(pruning: AdaptivePruning, row: Mapping[str, float]) -> Moment:
    """Return what `explore_run` shows: `fit(on_epoch=lambda row: moments.append(moment(pruning, row)))`."""
    kept = all_kept(pruning.model)
    return Moment(dict(row), pruning.r, pruning.tau, all_weights(pruning.model), flat(kept), kept[0])


def explore_run(moments: Sequence[Moment]) -> FrameSlider:
    """Return a slider that goes through a run, epoch by epoch.

    It shows how the share r and the temperature move, which weights are kept at this epoch, and how many
    weights each pixel keeps in the first layer.

    Args:
        moments: One for each epoch, in order, of a network whose first layer reads images of 28 x 28.

    Raises:
        ValueError: There are no moments.
    """
    return scrub(moments, _draw)


def _draw(shown: Moment, run: Sequence[Moment]) -> tuple[Figure, str]:
    fig, axes = figure(columns=2, rows=2, width=7, height=4.8, margins=MARGINS)
    ratio, tau, weights, pixels = axes
    epoch, epochs = shown.row["epoch"], [other.row["epoch"] for other in run]
    path(epochs, [other.r for other in run], ratio, epoch, "ratio r")
    path(epochs, [other.tau for other in run], tau, epoch, "temperature tau")
    tau.set_yscale("log")
    kept_histogram(shown.weights, shown.kept, weights)
    kept_per_pixel(shown.first, pixels)
    kept, total, accuracy = int(shown.kept.sum()), shown.kept.numel(), shown.row["valid_accuracy"]
    return fig, (
        f"Epoch {epoch:g}: r = {shown.r:.3f}, tau = {shown.tau:.1e}; {kept:,} of {total:,} weights kept; "
        f"{accuracy:.1%} of the validation images right."
    )
