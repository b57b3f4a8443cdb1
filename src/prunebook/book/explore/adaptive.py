"""A slider through a run with adaptive masks, a film of its training.

Chapter: book/adaptive.ipynb
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from prunebook.book.explore.frames import (
    all_kept,
    all_weights,
    first_images,
    flat,
    make_room,
    require_moments,
    scrub,
)
from prunebook.book.plots.curves import path
from prunebook.book.plots.masks import kept_histogram, kept_per_pixel
from prunebook.book.plots.style import counts, even, figure, moving
from prunebook.book.widgets import FrameSlider
from prunebook.methods.adaptive import AdaptivePruning
from prunebook.training.data import Data
from prunebook.training.fit import evaluate

MARGINS = even(2, left=0.21, right=0.08, bottom=0.11, top=0.95, hspace=0.42)


@dataclass(frozen=True)
class AdaptiveMoment:
    """A network with adaptive masks at a moment of its training, reduced to what `explore_run` shows."""

    epoch: float
    accuracy: float
    images: int  # on which it was measured
    r: float
    tau: float
    weights: Tensor
    kept: Tensor
    first: Tensor  # the mask of the first layer


def moment(pruning: AdaptivePruning, data: Data, epoch: float, sample: int = 2000) -> AdaptiveMoment:
    """Return what `explore_run` shows, with the accuracy on the first `sample` validation images.

    Take four in each epoch: `film(lambda epoch: moment(pruning, data, epoch), epochs)`.
    """
    split = first_images(data.valid, sample)
    accuracy = evaluate(pruning.model, split).accuracy
    kept = [mask.cpu() for mask in all_kept(pruning.model)]
    weights = all_weights(pruning.model).cpu()
    now = pruning.r, pruning.tau
    return AdaptiveMoment(epoch, accuracy, len(split), *now, weights, flat(kept), kept[0])


def explore_run(moments: Sequence[AdaptiveMoment]) -> FrameSlider:
    """Return a slider that goes through a run.

    It shows how the share r and the temperature move, which weights are kept at this moment, and how many
    weights each pixel keeps in the first layer.

    Args:
        moments: In order, of a network whose first layer reads images of 28 x 28.

    Raises:
        ValueError: There are no moments.
    """
    require_moments(moments)
    fig, (ratio, tau, weights, pixels) = figure(columns=2, rows=2, width=7, height=4.8, margins=MARGINS)
    epochs = [shown.epoch for shown in moments]
    dots = [
        path(epochs, [shown.r for shown in moments], ratio, epochs[-1], "ratio r").lines[-1],
        path(epochs, [shown.tau for shown in moments], tau, epochs[-1], "temperature tau").lines[-1],
    ]
    tau.set_yscale("log")
    widest = max(moments, key=lambda shown: float(shown.weights.abs().max()))
    parts: Any = kept_histogram(widest.weights, widest.kept, weights).patches
    weights.set_ylim(0.5, len(widest.weights))
    grey, blue = parts
    edges = torch.tensor(grey.get_data().edges)
    (picture,) = kept_per_pixel(moments[0].first, pixels, most=len(moments[0].first)).images
    make_room(pixels, 0.07)
    moving(*dots, grey, blue, picture)

    def draw(shown: AdaptiveMoment) -> tuple[Figure, str]:
        for dot, value in zip(dots, (shown.r, shown.tau), strict=True):
            dot.set_data([shown.epoch], [value])
        grey.set_data(counts(shown.weights, edges).numpy())
        blue.set_data(counts(shown.weights[shown.kept], edges).numpy())
        picture.set_data(shown.first.sum(0).view(28, 28).numpy())
        return fig, (
            f"Epoch {round(shown.epoch, 2):g}: r = {shown.r:.3f}, tau = {shown.tau:.1e}; "
            f"{int(shown.kept.sum()):,} of {shown.kept.numel():,} weights kept; "
            f"{shown.accuracy:.1%} of {shown.images:,} validation images right."
        )

    return scrub(moments, draw)
