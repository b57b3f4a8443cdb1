"""A slider for the temperature of a soft mask on your own network.

Chapter: book/soft-masks.ipynb
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from prunebook.book.explore.frames import all_weights, first_images, marker, undecided
from prunebook.book.plots.curves import temperature_curve
from prunebook.book.plots.masks import mask_curve, masked_histogram
from prunebook.book.plots.style import counts, even, figure, moving
from prunebook.book.widgets import FrameSlider
from prunebook.methods.soft import SoftPruning, soft_mask, thresholds
from prunebook.training.data import Data, Split
from prunebook.training.fit import evaluate

TAUS = (10, 3, 1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)  # from high to low, as multiples of std(W)
MARGINS = even(3, left=0.2, right=0.05, bottom=0.18, top=0.9)


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

    def soften(tau: float) -> _Softened:
        return _softened(model, split, k, tau)

    at_stops = {tau: soften(tau) for tau in TAUS}
    fig, show = _picture(list(at_stops.values()))

    def draw(tau: float) -> tuple[Figure, str]:
        shown = at_stops.get(tau) or soften(tau)
        show(shown, tau, len(split))
        return fig, (
            f"tau = {tau:g} x std(W) = {shown.tau:.1e}: {undecided(shown.mask):.1%} of the weights are "
            f"undecided (0.1 < m < 0.9); {shown.accuracy:.1%} of {len(split):,} validation images right."
        )

    span = (min(TAUS), max(TAUS), 0.02)
    return FrameSlider(
        draw,
        TAUS,
        start=TAUS.index(0.01),
        span=span,
        log=True,
        label="tau / std(W)",
        words="{:g} times std(W)",
    )


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


def _picture(line: Sequence[_Softened]) -> tuple[Figure, Callable[[_Softened, float, int], None]]:
    """Draw what stays, and return the figure and the function that shows a softened network in it."""
    first = line[0]
    fig, (left, middle, right) = figure(columns=3, width=9, height=2.9, margins=MARGINS)
    points = torch.linspace(-3 * first.t, 3 * first.t, 301)
    curve = mask_curve(points, points, left, first.t).lines[0]
    blue: Any = masked_histogram(first.weights, first.weights, middle).patches[-1]
    middle.set_ylim(0.5, 2 * first.weights.numel())
    temperature_curve(TAUS, [point.accuracy for point in line], right)
    mark = marker(right)
    moving(curve, left.title, blue)

    def show(shown: _Softened, tau: float, images: int) -> None:
        curve.set_ydata(soft_mask(points, shown.t, shown.tau))
        left.set_title(f"{undecided(shown.mask):.1%} undecided", fontsize=9)
        blue.set_data(counts(shown.mask * shown.weights, torch.tensor(blue.get_data().edges)).numpy())
        mark(tau, shown.accuracy, images)

    return fig, show
