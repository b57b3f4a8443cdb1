"""The recipes of the comparison: how each method gets from a new network to a pruned one in its epochs.

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
from prunebook.layers import dense_weight, maskable, parameter_name, prunable
from prunebook.masking import harden, masks, set_masks
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
    """Return the number of epochs between two shares of a run; those of adjoining parts add up exactly."""
    epochs: int = round(end * run.epochs) - round(start * run.epochs)
    return epochs


def train(
    net: nn.Module, run: Run, data: Data, start: float = 0.0, end: float = 1.0, **options: Any
) -> nn.Module:
    """Train in place for a part of the run, with Adam at a rate falling from "lr" to 0; return the network.

    The part goes from the share `start` of the run's epochs to the share `end`, 0 to 1. Only the training
    split is learned from; other options are those of `protocol.train`.
    """
    epochs, lr = part(run, start, end), run.settings["lr"]
    protocol.train(net, data, lr, epochs=epochs, batch_size=BATCH_SIZE, seed=run.seed, **options)
    return net


def dense(run: Run, data: Data) -> nn.Module:
    """Train LeNet-300-100 as it is."""
    return train(_lenet(run.seed, data), run, data)


def linear(run: Run, data: Data) -> nn.Module:
    """Train a linear classifier, 784-10, pruned gradually if it may keep fewer than 7,840 weights."""
    net = new(run.seed, data, lambda: mlp([784, 10]))
    if count(run) >= 7840:
        return train(net, run, data)
    k = 100 * (1 - count(run) / 7840)
    return train(net, run, data, schedule=prune_gradually(net, k, end=run.settings["end"]))


def small_dense(run: Run, data: Data) -> nn.Module:
    """Train a dense network with one hidden layer and, to the nearest unit, the run's number of weights.

    The image is averaged down from 28 x 28 pixels to 14 x 14 or, if that would leave fewer than 8 units, to
    7 x 7: many units on few inputs do better than few units on all pixels.
    """
    side, units = small_size(count(run))
    net = new(run.seed, data, lambda: nn.Sequential(nn.AvgPool2d(28 // side), *mlp([side**2, units, 10])))
    return train(net, run, data)


def small_size(weights: int) -> tuple[int, int]:
    """Return the side of the averaged image and the number of hidden units of the small dense network."""
    units = {side: round(weights / (side**2 + 10)) for side in (14, 7)}
    side = next((side for side in units if units[side] >= 8), 7)
    return side, max(units[side], 1)


def random_mask(run: Run, data: Data) -> nn.Module:
    """Keep weights at random, the same share of each layer, before any training; train what is left."""
    net = _lenet(run.seed, data)
    for name, layer in prunable(net).items():
        scores = torch.rand_like(dense_weight(layer))
        (kept,) = _largest([scores], max(1, round(run.density * scores.numel())))
        set_masks(net, {parameter_name(name, "weight"): kept})
    return train(net, run, data)


def snip(run: Run, data: Data) -> nn.Module:
    """Keep the weights of largest abs(w g) over all layers before any training; train what is left.

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
    """Train for the share `before` of the epochs, prune the smallest weights in one step, train further."""
    return _in_two(run, data, lambda net: prune_weights(net, _k(run.density), scope))


def gradual(scope: Scope, run: Run, data: Data) -> nn.Module:
    """Prune the smallest weights step by step during training, until the share `end` of the run.

    Source: Zhu & Gupta 2017, arXiv 1710.01878, the cubic curve.
    """
    net = _lenet(run.seed, data)
    schedule = prune_gradually(net, _k(run.density), scope=scope, end=run.settings["end"])
    return train(net, run, data, schedule=schedule)


def iterative(run: Run, data: Data) -> nn.Module:
    """Train, prune, rewind the weights to their values after the first epoch; repeat for `rounds`; train.

    Each training gets the same number of epochs, and each round keeps the same share of what was left.

    Raises:
        ValueError: There are too few epochs for one in each training.

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
    """Train as usual for a fifth of the epochs, with soft masks at the final k for half, hardened at the end.

    Source: Cho et al. 2023 (PDP), arXiv 2305.11203.
    """
    net = train(_lenet(run.seed, data), run, data, 0, 0.2)
    pruning = SoftPruning(net, _k(run.density), relative_tau=run.settings["tau"], scope="global")
    groups, cool = pruning.parameter_groups(), pruning.anneal(1e-2)
    train(net, run, data, 0.2, 0.7, parameters=groups, schedule=cool)
    return train(harden(net), run, data, 0.7)


def adaptive(run: Run, data: Data) -> nn.Module:
    """Train 70 % of the epochs with a learned r and its target, harden, prune any excess, train further.

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
    """Train with a gate on each weight for the share `gates` of the epochs; freeze the best, and fine-tune.

    With `exchanged`, weights are exchanged after each epoch of fine-tuning, fewer each time, as in `swaps`.

    Source: Zhang, Tao & Zhang 2023, arXiv 2311.12526; the recipe is ours.
    """
    net, after = compact(gated(run, data)), run.settings["gates"]
    images, labels, swap = data.train.images, data.train.labels, None
    if exchanged:
        epochs = part(run, after, 1)
        swap = swaps(net, lambda: images, labels, count(run), run.settings["swap"], epochs)
    return train(net, run, data, after, on_epoch=swap)


def gated(run: Run, data: Data) -> nn.Module:
    """Return LeNet-300-100 trained with gates on its weights, with the best gates frozen, and hardened."""
    pruning = GumbelPruning(_lenet(run.seed, data))
    _train_gates(pruning, run, data, run.density)
    pruning.freeze(count(run))
    return harden(pruning.model)


def gumbel_units(run: Run, data: Data) -> nn.Module:
    """Do as `gumbel` with a gate on each unit, and keep as many units as the number of weights allows."""
    pruning = GumbelPruning(_lenet(run.seed, data), units=True)
    # the share u of units that leaves this many weights: 784 300 u + 300 100 u^2 + 100 10 u
    _train_gates(pruning, run, data, (math.sqrt(236_200**2 + 4 * 30_000 * count(run)) - 236_200) / 60_000)

    def cut(learned: GumbelPruning, units: int) -> nn.Module:
        learned.freeze(units)
        return shrink(harden(learned.model))

    most = sum(gate.logit.numel() for gate in gates(pruning.model).values())
    return train(_largest_fit(pruning, cut, most, run), run, data, run.settings["gates"])


def unit_norm(run: Run, data: Data) -> nn.Module:
    """Train, remove the units of smallest norm, the same share of each layer, and train further."""

    def cut(net: nn.Module, units: int) -> nn.Module:
        return shrink(prune_units(net, 100 * (1 - units / FIRST)))

    return _in_two(run, data, lambda net: _largest_fit(net, cut, FIRST, run))


def torch_pruning(run: Run, data: Data) -> nn.Module:
    """Remove units with Torch-Pruning, which scores a unit by the norms of what enters and leaves it.

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
            # it rounds down, and refuses to leave 0 of 100
            pruning_ratio=1 - (max(units, 3) + 0.1) / FIRST,
            ignored_layers=[list(maskable(net).values())[-1]],
        ).step()
        return net

    return _in_two(run, data, lambda net: _largest_fit(net, cut, FIRST, run))


def torch_prune(run: Run, data: Data) -> nn.Module:
    """Prune as `one_shot` does over all layers, but with torch.nn.utils.prune."""

    def cut(net: nn.Module) -> nn.Module:
        weights = [(layer, "weight") for layer in prunable(net).values()]
        prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=WEIGHTS - count(run))
        return net

    net = _in_two(run, data, cut)
    for layer in prunable(net).values():
        prune.remove(layer, "weight")
    return net


def learned_mask(run: Run, data: Data, shuffled: bool = False) -> nn.Module:
    """Learn a mask with gates, then train other initial weights under that mask for all epochs of the run.

    With `shuffled`, it is shuffled within each layer, so that only the number kept per layer remains.

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
    """Train LeNet-300-100 for the share `before` of the epochs, cut it, and train what is left further."""
    before = run.settings["before"]
    net = train(_lenet(run.seed, data), run, data, 0, before)
    return train(cut(net), run, data, before)


def _k(density: float) -> float:
    """Return k such that the number of weights kept is the whole number nearest to this density."""
    return 100 * (1 - round(density * WEIGHTS) / WEIGHTS)


def _largest(scores: Sequence[Tensor], kept: int) -> list[Tensor]:
    """Return masks, True = kept, of the `kept` largest scores in all tensors together."""
    return [~gone for gone in choose(scores, sum(score.numel() for score in scores) - kept)]


def _train_gates(pruning: GumbelPruning, run: Run, data: Data, share: float) -> None:
    groups, fall = pruning.parameter_groups(), pruning.fall(share, until=0.7)
    end, penalty = run.settings["gates"], pruning.penalty
    train(pruning.model, run, data, end=end, parameters=groups, schedule=fall, penalty=penalty)


def _largest_fit(whole: Whole, cut: Callable[[Whole, int], nn.Module], most: int, run: Run) -> nn.Module:
    """Return `whole`, cut down to as many units, at most `most`, as the run's number of weights allows."""

    def weights(units: int) -> int:
        return count_weights(cut(copy.deepcopy(whole), units)).weights

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about too few units: more are tried next
        units = bisect_right(range(1, most + 1), count(run), key=weights)
        if units == 0:
            raise ValueError(f"density must leave room for one unit in each layer, got {run.density:g}")
        return cut(whole, units)
