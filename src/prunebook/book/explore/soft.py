"""A slider for the temperature of a soft mask on your own network.

Chapter: book/soft-masks.ipynb
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from prunebook.book.explore.frames import all_weights, first_images, mark_accuracy, undecided
from prunebook.book.plots.curves import temperature_curve
from prunebook.book.plots.masks import mask_curve, masked_histogram
from prunebook.book.plots.style import figure
from prunebook.book.widgets import FrameSlider
from prunebook.methods.soft import SoftPruning, soft_mask, thresholds
from prunebook.training.data import Data, Split
from prunebook.training.fit import evaluate

TAUS = (10, 3, 1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)  # from high to low, as multiples of std(W)
MARGINS = {"left": 0.07, "right": 0.985, "bottom": 0.18, "top": 0.9, "wspace": 0.35}


def explore_tau(model: nn.Module, data: Data, k: float = 90, sample: int = 2000) -> FrameSlider:
    """Return a slider for the temperature of a soft mask with one threshold for all layers.

    It shows how the mask turns from a gentle curve into a step, what it leaves of the weights, and the
    accuracy at each temperature. Nothing is retrained. Accuracy is measured on the first `sample` validation
    images, as the picture says.

    Args:
        model: A network without masks that takes the images of `data`; copies of it are masked.
        data: As `load_data` returns it.
        k: Percentage of the weights below the threshold, 0 to 100.
        sample: Number of validation images, at least 1.

    Raises:
        ValueError: `k` or `sample` is out of range, or the model is masked already.
    """
    split = first_images(data.valid, sample)
    softened = {tau: _softened(model, split, k, tau) for tau in TAUS}

    def draw(tau: float) -> tuple[Figure, str]:
        return _draw(softened[tau], list(softened.values()), tau, len(split))

    return FrameSlider(draw, TAUS, label="tau / std(W)", start=TAUS.index(0.01))


@dataclass(frozen=True)
class _Softened:
    """A copy of the network under a soft mask, reduced to what a frame shows."""

    weights: Tensor
    mask: Tensor
    t: float
    tau: float  # in the units of w^2
    accuracy: float


def _softened(model: nn.Module, split: Split, k: float, tau: float) -> _Softened:
    net = copy.deepcopy(model)
    absolute = SoftPruning(net, k, relative_tau=tau, scope="global").tau
    t, weights = float(thresholds(net)[0].t), all_weights(net)
    return _Softened(weights, soft_mask(weights, t, absolute), t, absolute, evaluate(net, split).accuracy)


def _draw(shown: _Softened, line: Sequence[_Softened], tau: float, images: int) -> tuple[Figure, str]:
    fig, (left, middle, right) = figure(columns=3, width=9.5, height=2.9, margins=MARGINS)
    points, open_ended = torch.linspace(-3 * shown.t, 3 * shown.t, 301), undecided(shown.mask)
    mask_curve(points, soft_mask(points, shown.t, shown.tau), left, shown.t)
    left.set_title(f"{open_ended:.1%} undecided", fontsize=9)
    masked_histogram(shown.weights, shown.mask * shown.weights, middle)
    temperature_curve(TAUS, [point.accuracy for point in line], right)
    mark_accuracy(right, tau, shown.accuracy, images)
    return fig, (
        f"tau = {tau:g} x std(W) = {shown.tau:.1e}: {open_ended:.1%} of the weights are undecided "
        f"(0.1 < m < 0.9); {shown.accuracy:.1%} of {images:,} validation images right."
    )
