"""A slider for k: your own network with more and more weights or units set to zero.

Chapter: book/weights.ipynb
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor, nn

from prunebook.book.explore.frames import all_kept, all_weights, first_images, flat, mark_accuracy
from prunebook.book.plots.curves import accuracy_curve
from prunebook.book.plots.masks import kept_histogram, kept_per_pixel, layer_bars
from prunebook.book.plots.style import figure
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
MARGINS = {"left": 0.07, "right": 0.985, "bottom": 0.18, "top": 0.9, "wspace": 0.45}


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
    pruned = {(k, name): _pruned(model, split, method, k, SCOPES[name]) for name in SCOPES for k in STOPS}

    def draw(k: float, scope: str) -> tuple[Figure, str]:
        line = [pruned[stop, scope] for stop in STOPS]
        return _draw(pruned[k, scope], line, k, len(split))

    return FrameSlider(draw, STOPS, label="k in %", start=3, choices={"scope": list(SCOPES)})


@dataclass(frozen=True)
class _Pruned:
    """A pruned copy of the network, reduced to what a frame shows."""

    weights: Tensor
    kept: Tensor
    pixels: Tensor | None  # the mask of a first layer that reads pixels, if single weights are pruned
    layers: dict[str, float]
    multiplications: int
    accuracy: float


def _pruned(model: nn.Module, split: Split, method: str, k: float, scope: Scope) -> _Pruned:
    net = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a layer keeps its last unit: the picture shows it
        (prune_weights if method == "weights" else prune_units)(net, k, scope=scope)
    kept = all_kept(net)
    left = {name: 1 - share for name, share in sparsity(net, per_layer=True).items()}
    work = macs(shrink(net), split.images[:1]).nonzero
    reads_pixels = method == "weights" and kept[0].dim() == 2 and kept[0].shape[1] == 784
    pixels = kept[0] if reads_pixels else None
    return _Pruned(all_weights(net), flat(kept), pixels, left, work, evaluate(net, split).accuracy)


def _draw(shown: _Pruned, line: Sequence[_Pruned], k: float, images: int) -> tuple[Figure, str]:
    fig, (left, middle, right) = figure(columns=3, width=9.5, height=2.9, margins=MARGINS)
    kept_histogram(shown.weights, shown.kept, left)
    if shown.pixels is not None:
        kept_per_pixel(shown.pixels, middle)
    else:
        layer_bars(shown.layers, middle)
    costs, accuracies = [max(point.multiplications, 1) for point in line], [point.accuracy for point in line]
    accuracy_curve(costs, accuracies, right)
    right.set(xlabel="multiplications for an image", xscale="log")
    mark_accuracy(right, max(shown.multiplications, 1), shown.accuracy, images)
    kept, total = int(shown.kept.sum()), shown.kept.numel()
    return fig, (
        f"k = {k:g} %: kept {kept:,} of {total:,} weights; {shown.accuracy:.1%} of {images:,} validation "
        f"images right; {shown.multiplications:,} multiplications for an image."
    )
