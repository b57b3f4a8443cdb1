"""A slider for k: your own network with more and more weights or units set to zero.

Chapter: book/weights.ipynb
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from prunebook.book.explore.frames import all_kept, all_weights, first_images, flat, make_room, marker
from prunebook.book.plots.curves import PLAIN, accuracy_curve
from prunebook.book.plots.masks import kept_histogram, kept_per_pixel, layer_bars
from prunebook.book.plots.style import counts, even, figure, moving
from prunebook.book.widgets import FrameSlider
from prunebook.checks import require_one_of
from prunebook.cover import sparsity
from prunebook.methods.units import prune_units
from prunebook.methods.weights import Scope, prune_weights
from prunebook.shrinking.slicing import shrink
from prunebook.tools.costs import macs
from prunebook.training.data import Data, Split
from prunebook.training.fit import evaluate

SCOPES: dict[str, Scope] = {"each layer": "layer", "all layers together": "global"}
STOPS = (0, 50, 80, 90, 95, 97, 98, 99, 99.5, 99.85)  # the last one leaves 399 weights of LeNet-300-100
MARGINS = even(3, left=0.22, right=0.05, bottom=0.18, top=0.9)


def explore_k(model: nn.Module, data: Data, method: str = "weights", sample: int = 2000) -> FrameSlider:
    """Return a slider for k, the percentage pruned, of each layer or of all layers together.

    It shows which weights are left, where they are (for each pixel or each layer), and how accuracy falls
    with the number of multiplications. Nothing is retrained. Accuracy is measured on the first `sample`
    validation images, as the picture says.

    Args:
        model: A network that takes the images of `data`; copies of it are pruned.
        data: As `load_data` returns it.
        method: "weights" (`prune_weights`) or "units" (`prune_units`).
        sample: Number of validation images, at least 1.

    Raises:
        ValueError: `method` is unknown, or `sample` is below 1.
    """
    require_one_of("method", method, ("weights", "units"))
    split = first_images(data.valid, sample)

    def prune(k: float, scope: str) -> Pruned:
        return pruned(model, split, method, k, SCOPES[scope])

    at_stops = {(k, scope): prune(k, scope) for scope in SCOPES for k in STOPS}
    fig, show = _picture({scope: [at_stops[k, scope] for k in STOPS] for scope in SCOPES})

    def draw(k: float, scope: str) -> tuple[Figure, str]:
        shown = at_stops.get((k, scope)) or prune(k, scope)
        show(shown, scope, len(split))
        return fig, (
            f"k = {k:g} %: kept {int(shown.kept.sum()):,} of {shown.kept.numel():,} weights; "
            f"{shown.accuracy:.1%} of {len(split):,} validation images right; "
            f"{shown.multiplications:,} multiplications for an image."
        )

    return FrameSlider(
        draw,
        STOPS,
        label="k in %",
        words="{:g} % pruned",
        start=3,
        span=(0, 100, 0.05),
        choices={"scope": list(SCOPES)},
    )


@dataclass(frozen=True)
class Pruned:
    """A pruned copy of the network, reduced to what a picture shows."""

    weights: Tensor
    kept: Tensor
    pixels: Tensor | None  # the mask of a first layer that reads pixels, if single weights are pruned
    layers: dict[str, float]
    multiplications: int
    accuracy: float


def pruned(model: nn.Module, split: Split, method: str, k: float, scope: Scope) -> Pruned:
    """Prune a copy of the model, and return what a picture shows of it."""
    net = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a layer keeps its last unit: the picture shows it
        (prune_weights if method == "weights" else prune_units)(net, k, scope=scope)
    kept = all_kept(net)
    left = {name: 1 - share for name, share in sparsity(net, per_layer=True).items()}
    work = macs(shrink(net), split.images[:1]).nonzero
    reads_pixels = method == "weights" and kept[0].dim() == 2 and kept[0].shape[1] == 784
    pixels = kept[0] if reads_pixels else None
    return Pruned(all_weights(net), flat(kept), pixels, left, work, evaluate(net, split).accuracy)


def _picture(lines: Mapping[str, Sequence[Pruned]]) -> tuple[Figure, Callable[[Pruned, str, int], None]]:
    """Draw what stays, and return the figure and the function that shows a pruned network in it."""
    first = next(iter(lines.values()))[0]
    fig, (left, middle, right) = figure(columns=3, width=9, height=2.9, margins=MARGINS)
    blue: Any = kept_histogram(first.weights, first.kept, left).patches[-1]
    moving(blue)
    update = _pixels(first.pixels, middle) if first.pixels is not None else _bars(first.layers, middle)
    accuracy_curve([], [], right)
    right.set(xlabel="multiplications for an image", xscale="log", xlim=(0.7, 2 * first.multiplications))
    right.xaxis.set_major_formatter(PLAIN)
    curve, mark = right.lines[0], marker(right)
    moving(curve)

    def show(shown: Pruned, scope: str, images: int) -> None:
        blue.set_data(counts(shown.weights[shown.kept], torch.tensor(blue.get_data().edges)).numpy())
        update(shown)
        costs = [max(point.multiplications, 1) for point in lines[scope]]
        curve.set_data(costs, [100 * point.accuracy for point in lines[scope]])
        mark(max(shown.multiplications, 1), shown.accuracy, images)

    return fig, show


def _pixels(mask: Tensor, ax: Axes) -> Callable[[Any], None]:
    (picture,) = kept_per_pixel(mask, ax, most=len(mask)).images
    make_room(ax, 0.06)
    moving(picture)
    return lambda shown: picture.set_data(shown.pixels.sum(0).view(28, 28).cpu().numpy())


def _bars(layers: Mapping[str, float], ax: Axes) -> Callable[[Pruned], None]:
    bars: Any = layer_bars(layers, ax).patches
    moving(*bars)

    def update(shown: Pruned) -> None:
        for bar, share in zip(bars, shown.layers.values(), strict=True):
            bar.set_width(100 * share)

    return update
