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

from torch import Tensor, nn

from prunebook.experiments import protocol
from prunebook.experiments.gumbel import compact, swaps
from prunebook.experiments.protocol import Run, new
from prunebook.masking import harden
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
from prunebook.training.models import RandomShift, lenet_300_100

NETWORK, WEIGHTS, FIRST = "784-300-100-10", 266_200, 300
BATCH_SIZE = 256
GATED, BEGUN = 0.6, 0.4  # share of a run that trains with gates; share before exchanges begin
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
    moved = nn.Sequential(RandomShift(run.shift), net) if run.shift else net
    protocol.train(moved, data, lr, epochs=epochs, batch_size=BATCH_SIZE, seed=run.seed, **options)
    return net


def dense(run: Run, data: Data) -> nn.Module:
    """Train LeNet-300-100 as it is."""
    return train(lenet(run.seed, data), run, data)


def one_shot(scope: Scope, run: Run, data: Data) -> nn.Module:
    """Train for the share `before` of the epochs, prune the smallest weights in one step, train further."""
    return in_two(run, data, lambda net: prune_weights(net, percent(run.density), scope))


def gradual(run: Run, data: Data) -> nn.Module:
    """Prune the smallest weights of all layers step by step in training, until the share `end` of the run.

    Source: Zhu & Gupta 2017, arXiv 1710.01878, the cubic curve.
    """
    net = lenet(run.seed, data)
    schedule = prune_gradually(net, percent(run.density), scope="global", end=run.settings["end"])
    return train(net, run, data, schedule=schedule)


def iterative(run: Run, data: Data) -> nn.Module:
    """Train, prune, rewind the weights to their values after the first epoch; repeat for `rounds`; train.

    Each training gets the same number of epochs, and each round keeps the same share of what was left.

    Raises:
        ValueError: There are too few epochs for one in each training.

    Source: Frankle et al. 2020, arXiv 1912.05671, section 3.
    """
    net, rounds = lenet(run.seed, data), int(run.settings["rounds"])
    start: dict[str, Tensor] = {}

    def keep(_: dict[str, float]) -> None:
        if not start:
            start.update(copy.deepcopy(net.state_dict()))

    parts = [(i / (rounds + 1), (i + 1) / (rounds + 1)) for i in range(rounds + 1)]
    if not all(part(run, *each) for each in parts):
        raise ValueError(f"epochs must be at least {rounds + 1}, one for each training, got {run.epochs}")
    for done, each in enumerate(parts[:-1], 1):
        train(net, run, data, *each, on_epoch=keep)
        prune_weights(net, percent(run.density ** (done / rounds)), "global")
        rewind(net, start)
    return train(net, run, data, *parts[-1])


def soft(run: Run, data: Data) -> nn.Module:
    """Train as usual for a fifth of the epochs, with soft masks at the final k for half, hardened at the end.

    Source: Cho et al. 2023 (PDP), arXiv 2305.11203.
    """
    return train(softened(run, data, 0.7), run, data, 0.7)


def softened(run: Run, data: Data, until: float) -> nn.Module:
    """Return LeNet-300-100 hardened after training with soft masks, from a fifth of the run to `until`."""
    before = min(0.2, until / 2)
    net = train(lenet(run.seed, data), run, data, 0, before)
    pruning = SoftPruning(net, percent(run.density), relative_tau=run.settings["tau"], scope="global")
    groups, cool = pruning.parameter_groups(), pruning.anneal(1e-2)
    return harden(train(net, run, data, before, until, parameters=groups, schedule=cool))


def adaptive(run: Run, data: Data) -> nn.Module:
    """Train 70 % of the epochs with a learned r and its target, harden, prune any excess, train further.

    Source: Pereira, A Gradient-Based Approach to Adaptive Neural Network Pruning; the target is ours.
    """
    net = lenet(run.seed, data)
    pruning = AdaptivePruning(net, r=0.5, target_density=run.density, lr_r=run.settings["lr_r"])
    groups, penalty = pruning.parameter_groups(), pruning.penalty
    harden(train(net, run, data, 0, 0.7, parameters=groups, penalty=penalty))
    if count_weights(net).kept > count(run):
        prune_weights(net, percent(run.density), "global")
    return train(net, run, data, 0.7)


def gumbel(run: Run, data: Data) -> nn.Module:
    """Train with a gate on each weight for 60 % of the epochs; freeze the best, and fine-tune.

    Source: Zhang, Tao & Zhang 2023, arXiv 2311.12526; the recipe is ours.
    """
    return train(compact(gated(run, data, GATED)), run, data, GATED)


def gated(run: Run, data: Data, until: float) -> nn.Module:
    """Return LeNet-300-100 trained with gates up to a share of the run; the best are frozen, and hardened."""
    pruning = GumbelPruning(lenet(run.seed, data), lr_gates=run.settings["lr_gates"])
    _train_gates(pruning, run, data, run.density, until)
    pruning.freeze(count(run))
    return harden(pruning.model)


def shrunk_gradually(run: Run, data: Data, until: float) -> nn.Module:
    """Return LeNet-300-100 pruned gradually, over all layers, while it trains up to a share of the run."""
    net = lenet(run.seed, data)
    schedule = prune_gradually(net, percent(run.density), scope="global", end=0.9)
    return train(net, run, data, 0, until, schedule=schedule)


def exchanged(begin: Callable[[Run, Data, float], nn.Module], run: Run, data: Data) -> nn.Module:
    """Begin by another method, for the share `begin` of the run, or 40 %; then fine-tune, with exchanges.

    Weights are exchanged after each epoch of fine-tuning, fewer each time, as in `swaps`: at first the share
    `swap` of those kept.
    """
    images, labels, after = data.train.images, data.train.labels, run.settings.get("begin", BEGUN)
    net = compact(begin(run, data, after))
    swap = swaps(net, lambda: images, labels, count(run), run.settings["swap"], part(run, after, 1))
    return train(net, run, data, after, on_epoch=swap)


def gumbel_units(run: Run, data: Data) -> nn.Module:
    """Do as `gumbel` with a gate on each unit, and keep as many units as the number of weights allows."""
    pruning = GumbelPruning(lenet(run.seed, data), units=True, lr_gates=run.settings["lr_gates"])
    # the share u of units that leaves this many weights: 784 300 u + 300 100 u^2 + 100 10 u
    _train_gates(
        pruning, run, data, (math.sqrt(236_200**2 + 4 * 30_000 * count(run)) - 236_200) / 60_000, GATED
    )

    def cut(learned: GumbelPruning, units: int) -> nn.Module:
        learned.freeze(units)
        return shrink(harden(learned.model))

    most = sum(gate.logit.numel() for gate in gates(pruning.model).values())
    return train(largest_fit(pruning, cut, most, run), run, data, GATED)


def unit_norm(run: Run, data: Data) -> nn.Module:
    """Train, remove the units of smallest norm, the same share of each layer, and train further."""

    def cut(net: nn.Module, units: int) -> nn.Module:
        return shrink(prune_units(net, 100 * (1 - units / FIRST)))

    return in_two(run, data, lambda net: largest_fit(net, cut, FIRST, run))


def lenet(seed: int, data: Data) -> nn.Module:
    """Return a new LeNet-300-100, on the device of the data."""
    return new(seed, data, lenet_300_100)


def in_two(run: Run, data: Data, cut: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Train LeNet-300-100 for the share `before` of the epochs, cut it, and train what is left further."""
    before = run.settings["before"]
    net = train(lenet(run.seed, data), run, data, 0, before)
    return train(cut(net), run, data, before)


def percent(density: float) -> float:
    """Return k such that the number of weights kept is the whole number nearest to this density."""
    return 100 * (1 - round(density * WEIGHTS) / WEIGHTS)


def largest(scores: Sequence[Tensor], kept: int) -> list[Tensor]:
    """Return masks, True = kept, of the `kept` largest scores in all tensors together."""
    return [~gone for gone in choose(scores, sum(score.numel() for score in scores) - kept)]


def _train_gates(pruning: GumbelPruning, run: Run, data: Data, share: float, until: float) -> None:
    # the rate does not fall: a gate that is still moved ends near 0 or 1, and then its mask is settled
    train(
        pruning.model,
        run,
        data,
        end=until,
        decay=False,
        parameters=pruning.parameter_groups(),
        schedule=pruning.fall(share, until=0.7),
        penalty=pruning.penalty,
    )


def largest_fit(whole: Whole, cut: Callable[[Whole, int], nn.Module], most: int, run: Run) -> nn.Module:
    """Return `whole`, cut down to as many units, at most `most`, as the run's number of weights allows."""

    def weights(units: int) -> int:
        return count_weights(cut(copy.deepcopy(whole), units)).weights

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about too few units: more are tried next
        units = bisect_right(range(1, most + 1), count(run), key=weights)
        if units == 0:
            raise ValueError(f"density must leave room for one unit in each layer, got {run.density:g}")
        return cut(whole, units)
