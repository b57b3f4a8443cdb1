"""A slider that prunes: every stop a pruned copy of the reader's network, with its accuracy and its cost.

Chapter: book/weights.ipynb
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from prunebook import plots
from prunebook.costs import macs
from prunebook.data import Data, Split
from prunebook.masking import dense_weight, maskable, masks, parameter_name, sparsity
from prunebook.shrinking import shrink
from prunebook.training import evaluate
from prunebook.units import prune_units
from prunebook.weights import Scope, prune_weights
from prunebook.widgets import FrameSlider

SCOPES: dict[str, Scope] = {"each layer": "layer", "all layers together": "global"}
STOPS = (0, 50, 80, 90, 95, 97, 98, 99, 99.5, 99.85)  # 399 weights of LeNet-300-100 are left at the last


def explore_k(model: nn.Module, data: Data, method: str = "weights", sample: int = 2000) -> FrameSlider:
    """Make a slider for k, over each layer or over all layers together: weights, mask, accuracy, cost.

    Nothing is retrained. Accuracy is measured on the first `sample` validation images, and says so.

    Args:
        model: a network that takes the images of `data`; copies of it are pruned.
        data: as `load_data` gives it.
        method: "weights" (`prune_weights`) or "units" (`prune_units`).
        sample: how many validation images, at least 1.

    Raises:
        ValueError: unknown method, or a sample below 1.
    """
    if method not in ("weights", "units"):
        raise ValueError(f"method must be 'weights' or 'units', not {method!r}")
    if sample < 1:
        raise ValueError(f"sample must be at least 1, not {sample}")
    split = Split(data.valid.images[:sample], data.valid.labels[:sample])
    pruned = {(k, name): _explored(model, split, method, k, SCOPES[name]) for name in SCOPES for k in STOPS}

    def draw(k: float, scope: str) -> tuple[Figure, str]:
        line = [pruned[stop, scope] for stop in STOPS]
        return _draw_explored(pruned[k, scope], line, k, len(split))

    return FrameSlider(draw, STOPS, label="k in %", start=3, choices={"scope": list(SCOPES)})


@dataclass(frozen=True)
class _Explored:
    """A pruned copy, reduced to what a frame shows."""

    weights: Tensor
    kept: Tensor
    pixels: Tensor | None  # the mask of a first layer that reads pixels, where single weights are pruned
    layers: dict[str, float]
    multiplications: int
    accuracy: float


def _explored(model: nn.Module, split: Split, method: str, k: float, scope: Scope) -> _Explored:
    net = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a layer keeps its last unit: the picture shows it
        (prune_weights if method == "weights" else prune_units)(net, k, scope=scope)
    weights = {name: dense_weight(layer).detach() for name, layer in maskable(net).items()}
    found = masks(net)
    kept = {
        name: found.get(parameter_name(name, "weight"), torch.ones_like(weight, dtype=torch.bool))
        for name, weight in weights.items()
    }
    left = {name: 1 - share for name, share in sparsity(net, per_layer=True).items()}
    work = macs(shrink(net), split.images[:1]).nonzero
    first = next(iter(kept.values()))
    pixels = first if method == "weights" and first.dim() == 2 and first.shape[1] == 784 else None
    return _Explored(_flat(weights), _flat(kept), pixels, left, work, evaluate(net, split).accuracy)


def _flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def _draw_explored(shown: _Explored, line: Sequence[_Explored], k: float, images: int) -> tuple[Figure, str]:
    # fixed margins: to find them anew would take longer than the rest of the frame
    figure, (left, middle, right) = plots.figure(columns=3, width=9.5, height=2.9, layout=None)
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.18, top=0.9, wspace=0.45)
    plots.kept_histogram(shown.weights, shown.kept, left)
    if shown.pixels is not None:
        plots.kept_per_pixel(shown.pixels, middle)
    else:
        plots.layer_bars(shown.layers, middle)
    costs, accuracies = [max(point.multiplications, 1) for point in line], [point.accuracy for point in line]
    plots.cost_curve(costs, accuracies, right, "multiplications for an image")
    right.plot(max(shown.multiplications, 1), 100 * shown.accuracy, "o", markersize=11, color=plots.ORANGE)
    right.set_title(f"{shown.accuracy:.1%} of {images:,} validation images", fontsize=9)
    kept, total = int(shown.kept.sum()), shown.kept.numel()
    return figure, (
        f"k = {k:g} %: kept {kept:,} of {total:,} weights; {shown.accuracy:.1%} of {images:,} validation "
        f"images right; {shown.multiplications:,} multiplications for an image."
    )
