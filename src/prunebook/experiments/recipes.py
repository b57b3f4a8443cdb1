"""The recipes of a comparison: what each method does with its epochs, from a new network to a pruned one.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import copy
import math
import warnings
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from prunebook.experiments import protocol
from prunebook.experiments.gumbel import compact, swaps
from prunebook.experiments.protocol import Run, new
from prunebook.masking import dense_weight, harden, maskable, masks, parameter_name, prunable, set_masks
from prunebook.methods.adaptive import AdaptivePruning
from prunebook.methods.gates import gates
from prunebook.methods.gumbel import GumbelPruning
from prunebook.methods.schedules import prune_gradually
from prunebook.methods.soft import SoftPruning
from prunebook.methods.units import prune_units
from prunebook.methods.weights import Scope, choose, prune_weights, rewind
from prunebook.shrinking.slicing import shrink
from prunebook.tools.costs import count_weights
from prunebook.training.data import Data
from prunebook.training.models import lenet_300_100, mlp

NETWORK, WEIGHTS, FIRST = "784-300-100-10", 266_200, 300
BATCH_SIZE = 256
SNIP_IMAGES = 2560  # ten batches
Whole = TypeVar("Whole", nn.Module, GumbelPruning)


def count(run: Run) -> int:
    """Return how many weights a run may keep."""
    weights: int = round(run.density * WEIGHTS)
    return weights


def part(run: Run, start: float, end: float) -> int:
    """Return how many epochs lie between two shares of a run; parts that meet make up the whole."""
    epochs: int = round(end * run.epochs) - round(start * run.epochs)
    return epochs


def train(
    net: nn.Module, run: Run, data: Data, start: float = 0.0, end: float = 1.0, **options: Any
) -> nn.Module:
    """Train in place for a part of the run, with Adam at a rate from "lr" down to 0; return the network.

    The part lies between two shares of the run's epochs, 0 to 1. Only the training split is seen; other
    options are those of `protocol.train`.
    """
    epochs, lr = part(run, start, end), run.settings["lr"]
    protocol.train(net, data, lr, epochs=epochs, batch_size=BATCH_SIZE, seed=run.seed, **options)
    return net


def dense(run: Run, data: Data) -> nn.Module:
    """Train LeNet-300-100 as it is."""
    return train(_lenet(run.seed, data), run, data)


def linear(run: Run, data: Data) -> nn.Module:
    """Train a linear classifier, 784-10, pruned gradually where fewer than its 7,840 weights may stay."""
    net = new(run.seed, data, lambda: mlp([784, 10]))
    if count(run) >= 7840:
        return train(net, run, data)
    k = 100 * (1 - count(run) / 7840)
    return train(net, run, data, schedule=prune_gradually(net, k, end=run.settings["end"]))


def small_dense(run: Run, data: Data) -> nn.Module:
    """Train a dense network of as many weights, to the nearest unit: one hidden layer.

    It sees 14 x 14 means of the 28 x 28 pixels or, where that would leave fewer than 8 units, 7 x 7: more
    units on fewer inputs do better than few on all pixels.
    """
    side, units = small_size(count(run))
    net = new(run.seed, data, lambda: nn.Sequential(nn.AvgPool2d(28 // side), *mlp([side**2, units, 10])))
    return train(net, run, data)


def small_size(weights: int) -> tuple[int, int]:
    """Return the side of the image and the hidden units of the small dense network."""
    units = {side: round(weights / (side**2 + 10)) for side in (14, 7)}
    side = next((side for side in units if units[side] >= 8), 7)
    return side, max(units[side], 1)


def random_mask(run: Run, data: Data) -> nn.Module:
    """Keep weights at random, the same share of each layer, and train them from the start."""
    net = _lenet(run.seed, data)
    for name, layer in prunable(net).items():
        scores = torch.rand_like(dense_weight(layer))
        (kept,) = _largest([scores], max(1, round(run.density * scores.numel())))
        set_masks(net, {parameter_name(name, "weight"): kept})
    return train(net, run, data)


def snip(run: Run, data: Data) -> nn.Module:
    """Keep the weights of largest abs(w g) before any training, over all layers, and train them.

    Source: Lee, Ajanthan & Torr 2019 (SNIP), arXiv 1810.02340, with 2,560 training images in place of 100.
    """
    net = _lenet(run.seed, data)
    layers = prunable(net)
    weights = [dense_weight(layer) for layer in layers.values()]
    loss = F.cross_entropy(net(data.train.images[:SNIP_IMAGES]), data.train.labels[:SNIP_IMAGES])
    slopes = torch.autograd.grad(loss, weights)
    kept = _largest([(w * g).abs() for w, g in zip(weights, slopes, strict=True)], count(run))
    set_masks(net, {parameter_name(name, "weight"): mask for name, mask in zip(layers, kept, strict=True)})
    return train(net, run, data)


def one_shot(scope: Scope, run: Run, data: Data) -> nn.Module:
    """Train for the share `before` of the epochs, prune the smallest weights at once, train on."""
    return _in_two(run, data, lambda net: prune_weights(net, _k(run.density), scope))


def gradual(scope: Scope, run: Run, data: Data) -> nn.Module:
    """Prune the smallest weights step by step during training; the last go at the share `end` of the run.

    Source: Zhu & Gupta 2017, arXiv 1710.01878, the cubic curve.
    """
    net = _lenet(run.seed, data)
    schedule = prune_gradually(net, _k(run.density), scope=scope, end=run.settings["end"])
    return train(net, run, data, schedule=schedule)


def iterative(run: Run, data: Data) -> nn.Module:
    """Train, prune, rewind the weights to where they were after one epoch; `rounds` times, and train.

    Each training takes an equal part of the epochs; each round leaves the same share of what was left.

    Source: Frankle et al. 2020, arXiv 1912.05671, section 3.
    """
    net, rounds = _lenet(run.seed, data), int(run.settings["rounds"])
    start: dict[str, Tensor] = {}

    def keep(_: dict[str, float]) -> None:
        if not start:
            start.update(copy.deepcopy(net.state_dict()))

    parts = [(i / (rounds + 1), (i + 1) / (rounds + 1)) for i in range(rounds + 1)]
    if not all(part(run, *each) for each in parts):
        raise ValueError(f"epochs must be at least {rounds + 1}, one for each training, got {run.epochs}")
    for done, each in enumerate(parts[:-1], 1):
        train(net, run, data, *each, on_epoch=keep)
        prune_weights(net, _k(run.density ** (done / rounds)), "global")
        rewind(net, start)
    return train(net, run, data, *parts[-1])


def soft(run: Run, data: Data) -> nn.Module:
    """Train a fifth of the epochs as usual, half of them with soft masks at the final k, the rest hardened.

    Source: Cho et al. 2023 (PDP), arXiv 2305.11203.
    """
    net = train(_lenet(run.seed, data), run, data, 0, 0.2)
    pruning = SoftPruning(net, _k(run.density), relative_tau=run.settings["tau"], scope="global")
    groups, cool = pruning.parameter_groups(), pruning.anneal(1e-2)
    train(net, run, data, 0.2, 0.7, parameters=groups, schedule=cool)
    return train(harden(net), run, data, 0.7)


def adaptive(run: Run, data: Data) -> nn.Module:
    """Train 70 % of the epochs with a learned ratio drawn to its target, then harden and train on.

    Source: Pereira, A Gradient-Based Approach to Adaptive Neural Network Pruning; the target is ours.
    """
    net = _lenet(run.seed, data)
    pruning = AdaptivePruning(net, r=0.5, target_density=run.density, lr_r=run.settings["lr_r"])
    groups, penalty = pruning.parameter_groups(), pruning.penalty
    harden(train(net, run, data, 0, 0.7, parameters=groups, penalty=penalty))
    if count_weights(net).kept > count(run):
        prune_weights(net, _k(run.density), "global")
    return train(net, run, data, 0.7)


def gumbel(run: Run, data: Data, exchanged: bool = False) -> nn.Module:
    """Train the share `gates` of the epochs with a gate on each weight, the rest with the best frozen.

    Source: Zhang, Tao & Zhang 2023, arXiv 2311.12526; the recipe is ours. `exchanged`: after each epoch of
    fine-tuning, weights are exchanged: the share `swap` at first, then fewer.
    """
    net, after = compact(gated(run, data)), run.settings["gates"]
    images, labels, swap = data.train.images, data.train.labels, None
    if exchanged:
        epochs = part(run, after, 1)
        swap = swaps(net, lambda: images, labels, count(run), run.settings["swap"], epochs)
    return train(net, run, data, after, on_epoch=swap)


def gated(run: Run, data: Data) -> nn.Module:
    """Train LeNet-300-100 with gates on its weights, freeze the best and harden."""
    pruning = GumbelPruning(_lenet(run.seed, data))
    _train_gates(pruning, run, data, run.density)
    pruning.freeze(count(run))
    return harden(pruning.model)


def gumbel_units(run: Run, data: Data) -> nn.Module:
    """As `gumbel` with a gate on each unit, and as many units as the weights allow."""
    pruning = GumbelPruning(_lenet(run.seed, data), units=True)
    # the share u of units that leaves as many weights: 784 300 u + 300 100 u^2 + 100 10 u
    _train_gates(pruning, run, data, (math.sqrt(236_200**2 + 4 * 30_000 * count(run)) - 236_200) / 60_000)

    def cut(learned: GumbelPruning, units: int) -> nn.Module:
        learned.freeze(units)
        return shrink(harden(learned.model))

    most = sum(gate.logit.numel() for gate in gates(pruning.model).values())
    return train(_largest_fit(pruning, cut, most, run), run, data, run.settings["gates"])


def unit_norm(run: Run, data: Data) -> nn.Module:
    """Train, remove the units of smallest norm, the same share of each layer, and train on."""

    def cut(net: nn.Module, units: int) -> nn.Module:
        return shrink(prune_units(net, 100 * (1 - units / FIRST)))

    return _in_two(run, data, lambda net: _largest_fit(net, cut, FIRST, run))


def torch_pruning(run: Run, data: Data) -> nn.Module:
    """Remove units by Torch-Pruning: by norms of what enters and leaves a unit.

    Raises:
        ImportError: Torch-Pruning is not installed.
    """
    try:
        import torch_pruning as peer  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise ImportError('Torch-Pruning is missing: pip install "prunebook[peers]"') from error

    def cut(net: nn.Module, units: int) -> nn.Module:
        peer.pruner.BasePruner(
            net,
            data.train.images[:1],
            importance=peer.importance.MagnitudeImportance(p=2),
            # it rounds down, and refuses to leave none of 100
            pruning_ratio=1 - (max(units, 3) + 0.1) / FIRST,
            ignored_layers=[list(maskable(net).values())[-1]],
        ).step()
        return net

    return _in_two(run, data, lambda net: _largest_fit(net, cut, FIRST, run))


def torch_prune(run: Run, data: Data) -> nn.Module:
    """Prune as `one_shot` over all layers does, by torch.nn.utils.prune."""

    def cut(net: nn.Module) -> nn.Module:
        weights = [(layer, "weight") for layer in prunable(net).values()]
        prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=WEIGHTS - count(run))
        return net

    net = _in_two(run, data, cut)
    for layer in prunable(net).values():
        prune.remove(layer, "weight")
    return net


def learned_mask(run: Run, data: Data, shuffled: bool = False) -> nn.Module:
    """Train the mask that gates learn with these settings anew, from other weights, for as many epochs again.

    `shuffled`: with its places shuffled within each layer, so that only the counts of layers are left.

    Source: Su et al. 2020, arXiv 2009.11094.
    """
    kept = masks(gated(run, data))
    net = _lenet(run.seed + 1000, data)
    if shuffled:
        kept = {
            name: mask.flatten()[torch.randperm(mask.numel())].view_as(mask) for name, mask in kept.items()
        }
    set_masks(net, kept)
    return train(net, run, data)


def _lenet(seed: int, data: Data) -> nn.Module:
    return new(seed, data, lenet_300_100)


def _in_two(run: Run, data: Data, cut: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Train LeNet-300-100 for the share `before` of the epochs, cut it, and train what is left on."""
    before = run.settings["before"]
    net = train(_lenet(run.seed, data), run, data, 0, before)
    return train(cut(net), run, data, before)


def _k(density: float) -> float:
    """Return the percent to prune so that the whole number of weights nearest to this density stays."""
    return 100 * (1 - round(density * WEIGHTS) / WEIGHTS)


def _largest(scores: Sequence[Tensor], kept: int) -> list[Tensor]:
    """Return masks that keep the `kept` largest scores of all tensors together."""
    return [~gone for gone in choose(scores, sum(score.numel() for score in scores) - kept)]


def _train_gates(pruning: GumbelPruning, run: Run, data: Data, share: float) -> None:
    groups, fall = pruning.parameter_groups(), pruning.fall(share, until=0.7)
    end, penalty = run.settings["gates"], pruning.penalty
    train(pruning.model, run, data, end=end, parameters=groups, schedule=fall, penalty=penalty)


def _largest_fit(whole: Whole, cut: Callable[[Whole, int], nn.Module], most: int, run: Run) -> nn.Module:
    """Return the whole cut down to the most units, up to `most`, whose weights the run may keep."""

    def weights(units: int) -> int:
        return count_weights(cut(copy.deepcopy(whole), units)).weights

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too few units: more are tried next
        units = bisect_right(range(1, most + 1), count(run), key=weights)
        if units == 0:
            raise ValueError(f"density must leave room for one unit in each layer, got {run.density:g}")
        return cut(whole, units)
