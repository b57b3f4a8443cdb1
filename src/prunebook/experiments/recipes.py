"""The recipes of a comparison: what each method does with its epochs, from a new network to a pruned one.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import copy
import math
import warnings
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from prunebook.experiments.gumbel import compact, swaps
from prunebook.masking import dense_weight, harden, maskable, masks, parameter_name, prunable, set_masks
from prunebook.methods.adaptive import AdaptivePruning
from prunebook.methods.gumbel import GumbelPruning, gates
from prunebook.methods.soft import SoftPruning
from prunebook.methods.units import prune_units
from prunebook.methods.weights import Scope, prune_gradually, prune_weights, rewind, smallest
from prunebook.shrinking.slicing import shrink
from prunebook.tools.costs import count
from prunebook.training.data import Data
from prunebook.training.fit import fit, linear_decay
from prunebook.training.models import lenet_300_100, mlp

NETWORK, WEIGHTS, FIRST = "784-300-100-10", 266_200, 300
BATCH_SIZE = 256
SNIP_IMAGES = 2560  # ten batches


@dataclass(frozen=True)
class CompareRun:
    """One network of a comparison.

    Attributes:
        method: a name in ``compare.METHODS``.
        density: share of the weights of LeNet-300-100 that stay, above 0 and up to 1; random masks keep it of
            each layer, and small dense networks come next to it.
        seed: of the weights at the start, the order of the batches and all noise.
        epochs: in all: before pruning, while pruning and after it.
        settings: numbers that the method needs, as "lr=0.002 before=0.4".
        data: "mnist" or "fashion".
        network: the network that is pruned: always the same.

    Raises:
        ValueError: it is another network.
    """

    method: str
    density: float
    seed: int
    epochs: int
    settings: str
    data: str = "mnist"
    network: str = NETWORK

    def __post_init__(self) -> None:
        """Refuse what no recipe does."""
        if self.network != NETWORK:
            raise ValueError(f"network must be {NETWORK!r}, got {self.network!r}")

    @property
    def count(self) -> int:
        """How many weights may stay."""
        return round(self.density * WEIGHTS)

    def value(self, name: str) -> float:
        """Return one of the settings."""
        return float(dict(part.split("=") for part in self.settings.split())[name])

    def part(self, start: float, end: float) -> int:
        """Return how many epochs lie between two shares of the run; parts that meet make up the whole."""
        return round(end * self.epochs) - round(start * self.epochs)


def train(
    net: nn.Module, run: CompareRun, data: Data, epochs: int | None = None, **options: Any
) -> nn.Module:
    """Train in place: Adam, batches of 256, a rate that falls from the run's ``lr`` to 0 in a straight line.

    Args:
        net: what is trained; it is returned.
        run: says the rate, and the epochs unless they are given.
        data: its training split; no images but those.
        epochs: of this training.
        options: ``groups`` for the optimizer, ``schedule`` to be called before each step, and those of `fit`.
    """
    adam = torch.optim.Adam(options.pop("groups", net.parameters()), lr=run.value("lr"), fused=True)
    decay, also = linear_decay(adam), options.pop("schedule", None)

    def schedule(progress: float) -> None:
        decay(progress)
        if also is not None:
            also(progress)

    fit(
        net,
        data,
        epochs=run.epochs if epochs is None else epochs,
        batch_size=BATCH_SIZE,
        optimizer=adam,
        schedule=schedule,
        seed=run.seed,
        progress=False,
        **options,
    )
    return net


def dense(run: CompareRun, data: Data) -> nn.Module:
    """Train LeNet-300-100 as it is."""
    return train(_lenet(run.seed, data), run, data)


def linear(run: CompareRun, data: Data) -> nn.Module:
    """Train a linear classifier, 784-10, pruned gradually where fewer than its 7,840 weights may stay."""
    net = _new(run.seed, data, lambda: mlp([784, 10]))
    if run.count >= 7840:
        return train(net, run, data)
    k = 100 * (1 - run.count / 7840)
    return train(net, run, data, schedule=prune_gradually(net, k, end=run.value("end")))


def small_dense(run: CompareRun, data: Data) -> nn.Module:
    """Train a dense network of as many weights, to the nearest unit: one hidden layer.

    It sees 14 x 14 means of the 28 x 28 pixels or, where that would leave fewer than 8 units, 7 x 7: more
    units on fewer inputs do better than few on all pixels.
    """
    side, units = small_size(run.count)
    net = _new(run.seed, data, lambda: nn.Sequential(nn.AvgPool2d(28 // side), *mlp([side**2, units, 10])))
    return train(net, run, data)


def small_size(weights: int) -> tuple[int, int]:
    """Return the side of the image and the hidden units of the small dense network."""
    units = {side: round(weights / (side**2 + 10)) for side in (14, 7)}
    side = next((side for side in units if units[side] >= 8), 7)
    return side, max(units[side], 1)


def random_mask(run: CompareRun, data: Data) -> nn.Module:
    """Keep weights at random, the same share of each layer, and train them from the start."""
    net = _lenet(run.seed, data)
    for name, layer in prunable(net).items():
        weight = dense_weight(layer)
        kept = max(1, round(run.density * weight.numel()))
        set_masks(net, {parameter_name(name, "weight"): _largest([torch.rand_like(weight)], kept)[0]})
    return train(net, run, data)


def snip(run: CompareRun, data: Data) -> nn.Module:
    """Keep the weights of largest abs(w g) before any training, over all layers, and train them.

    Source: Lee, Ajanthan & Torr 2019 (SNIP), arXiv 1810.02340, with 2,560 training images in place of 100.
    """
    net = _lenet(run.seed, data)
    layers = prunable(net)
    weights = [dense_weight(layer) for layer in layers.values()]
    loss = F.cross_entropy(net(data.train.images[:SNIP_IMAGES]), data.train.labels[:SNIP_IMAGES])
    slopes = torch.autograd.grad(loss, weights)
    kept = _largest([(w * g).abs() for w, g in zip(weights, slopes, strict=True)], run.count)
    set_masks(net, {parameter_name(name, "weight"): mask for name, mask in zip(layers, kept, strict=True)})
    return train(net, run, data)


def one_shot(scope: Scope, run: CompareRun, data: Data) -> nn.Module:
    """Train for the share ``before`` of the epochs, prune the smallest weights at once, train on."""
    before = run.value("before")
    net = train(_lenet(run.seed, data), run, data, run.part(0, before))
    return train(prune_weights(net, _k(run.density), scope), run, data, run.part(before, 1))


def gradual(scope: Scope, run: CompareRun, data: Data) -> nn.Module:
    """Prune the smallest weights by and by while training, the last of them at the share ``end`` of the run.

    Source: Zhu & Gupta 2017, arXiv 1710.01878, the cubic curve.
    """
    net = _lenet(run.seed, data)
    schedule = prune_gradually(net, _k(run.density), scope=scope, end=run.value("end"))
    return train(net, run, data, schedule=schedule)


def iterative(run: CompareRun, data: Data) -> nn.Module:
    """Train, prune, rewind the weights to where they were after one epoch; ``rounds`` times, and train.

    Each training takes an equal part of the epochs; each round leaves the same share of what was left.

    Source: Frankle et al. 2020, arXiv 1912.05671, section 3.
    """
    net, rounds = _lenet(run.seed, data), int(run.value("rounds"))
    start: dict[str, Tensor] = {}

    def keep(_: dict[str, float]) -> None:
        if not start:
            start.update(copy.deepcopy(net.state_dict()))

    parts = [run.part(i / (rounds + 1), (i + 1) / (rounds + 1)) for i in range(rounds + 1)]
    if 0 in parts:
        raise ValueError(f"epochs must be at least {rounds + 1}, one for each training, got {run.epochs}")
    for done, epochs in enumerate(parts[:-1], 1):
        train(net, run, data, epochs, on_epoch=keep)
        prune_weights(net, _k(run.density ** (done / rounds)), "global")
        rewind(net, start)
    return train(net, run, data, parts[-1])


def soft(run: CompareRun, data: Data) -> nn.Module:
    """Train a fifth of the epochs as usual, half of them with soft masks at the final k, the rest hardened.

    Source: Cho et al. 2023 (PDP), arXiv 2305.11203.
    """
    net = train(_lenet(run.seed, data), run, data, run.part(0, 0.2))
    pruning = SoftPruning(net, _k(run.density), tau=run.value("tau"), scope="global")
    groups, cool = pruning.parameter_groups(), pruning.anneal(1e-2)
    train(net, run, data, run.part(0.2, 0.7), groups=groups, schedule=cool)
    return train(harden(net), run, data, run.part(0.7, 1))


def adaptive(run: CompareRun, data: Data) -> nn.Module:
    """Train 70 % of the epochs with a learned ratio that is asked for its final value, the rest hardened.

    Source: Pereira, A Gradient-Based Approach to Adaptive Neural Network Pruning; the target is ours.
    """
    net = _lenet(run.seed, data)
    pruning = AdaptivePruning(net, r=0.5, target=1 - run.density, lr_r=run.value("lr_r"))
    groups, penalty = pruning.parameter_groups(), pruning.penalty
    harden(train(net, run, data, run.part(0, 0.7), groups=groups, penalty=penalty))
    if count(net).kept > run.count:
        prune_weights(net, _k(run.density), "global")
    return train(net, run, data, run.part(0.7, 1))


def gumbel(run: CompareRun, data: Data, exchanged: bool = False) -> nn.Module:
    """Train the share ``gates`` of the epochs with a gate on each weight, the rest with the best frozen.

    Source: Zhang, Tao & Zhang 2023, arXiv 2311.12526; the recipe is ours. ``exchanged``: after each epoch of
    fine-tuning, weights are exchanged: the share ``swap`` at first, then fewer.
    """
    net, after = compact(gated(run, data)), run.part(run.value("gates"), 1)
    images, labels = data.train.images, data.train.labels
    swap = swaps(net, lambda: images, labels, run.count, run.value("swap"), after) if exchanged else None
    return train(net, run, data, after, on_epoch=swap)


def gated(run: CompareRun, data: Data) -> nn.Module:
    """Train LeNet-300-100 with gates on its weights, freeze the best and harden."""
    pruning = GumbelPruning(_lenet(run.seed, data))
    _train_gates(pruning, run, data, run.density)
    pruning.freeze(run.count)
    return harden(pruning.model)


def gumbel_units(run: CompareRun, data: Data) -> nn.Module:
    """As ``gumbel`` with a gate on each unit, and as many units as the weights allow."""
    pruning = GumbelPruning(_lenet(run.seed, data), units=True)
    # the share u of units that leaves as many weights: 784 300 u + 300 100 u^2 + 100 10 u
    _train_gates(pruning, run, data, (math.sqrt(236_200**2 + 4 * 30_000 * run.count) - 236_200) / 60_000)

    def cut(units: int) -> nn.Module:
        smaller = copy.deepcopy(pruning)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few units that are cut off: more are tried next
            smaller.freeze(units)
            return shrink(harden(smaller.model))

    gates_there = sum(gate.logit.numel() for gate in gates(pruning.model).values())
    return train(_largest_fit(cut, gates_there, run), run, data, run.part(run.value("gates"), 1))


def unit_norm(run: CompareRun, data: Data) -> nn.Module:
    """Train, remove the units of smallest norm, the same share of each layer, and train on."""
    net = train(_lenet(run.seed, data), run, data, run.part(0, run.value("before")))

    def cut(units: int) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that one unit stays where none should
            return shrink(prune_units(copy.deepcopy(net), 100 * (1 - units / FIRST)))

    return train(_largest_fit(cut, FIRST, run), run, data, run.part(run.value("before"), 1))


def torch_pruning(run: CompareRun, data: Data) -> nn.Module:
    """Remove units by Torch-Pruning, which must be installed: by norms of what enters and leaves a unit."""
    import torch_pruning as peer  # type: ignore[import-untyped,unused-ignore]

    net = train(_lenet(run.seed, data), run, data, run.part(0, run.value("before")))

    def cut(units: int) -> nn.Module:
        smaller = copy.deepcopy(net)
        peer.pruner.BasePruner(
            smaller,
            data.train.images[:1],
            importance=peer.importance.MagnitudeImportance(p=2),
            pruning_ratio=1
            - (max(units, 3) + 0.1) / FIRST,  # it rounds down, and refuses to leave none of 100
            ignored_layers=[list(maskable(smaller).values())[-1]],
        ).step()
        return smaller

    return train(_largest_fit(cut, FIRST, run), run, data, run.part(run.value("before"), 1))


def torch_prune(run: CompareRun, data: Data) -> nn.Module:
    """Prune as ``one_shot`` over all layers does, by torch.nn.utils.prune."""
    net = train(_lenet(run.seed, data), run, data, run.part(0, run.value("before")))
    weights = [(layer, "weight") for layer in prunable(net).values()]
    prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=WEIGHTS - run.count)
    train(net, run, data, run.part(run.value("before"), 1))
    for layer, name in weights:
        prune.remove(layer, name)
    return net


def learned_mask(run: CompareRun, data: Data, shuffled: bool = False) -> nn.Module:
    """Train the mask that gates learn with these settings anew, from other weights, for as many epochs again.

    ``shuffled``: with its places shuffled within each layer, so that only the counts of layers are left.

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


def _new(seed: int, data: Data, make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(seed)
    return make().to(data.train.labels.device)


def _lenet(seed: int, data: Data) -> nn.Module:
    return _new(seed, data, lenet_300_100)


def _k(density: float) -> float:
    """Return the percent to prune so that the whole number of weights next to this share stays."""
    return 100 * (1 - round(density * WEIGHTS) / WEIGHTS)


def _largest(scores: Sequence[Tensor], kept: int) -> list[Tensor]:
    """Return masks that keep so many of the largest scores, of all tensors together."""
    flat = torch.cat([score.flatten() for score in scores])
    stays = smallest(flat, len(flat) - kept).logical_not()
    parts = stays.split_with_sizes([score.numel() for score in scores])
    return [part.view(score.shape) for part, score in zip(parts, scores, strict=True)]


def _train_gates(pruning: GumbelPruning, run: CompareRun, data: Data, share: float) -> None:
    groups, fall = pruning.parameter_groups(), pruning.fall(share, until=0.7)
    epochs = run.part(0, run.value("gates"))
    train(pruning.model, run, data, epochs, groups=groups, schedule=fall, penalty=pruning.penalty)


def _largest_fit(cut: Callable[[int], nn.Module], most: int, run: CompareRun) -> nn.Module:
    """Return ``cut(units)`` for the most units, up to ``most``, whose weights the run may keep."""
    units = bisect_right(range(1, most + 1), run.count, key=lambda number: count(cut(number)).weights)
    if units == 0:
        raise ValueError(f"density must leave room for one unit in each layer, got {run.density:g}")
    return cut(units)
