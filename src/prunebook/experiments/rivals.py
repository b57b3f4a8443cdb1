"""What the recipes are compared with: small networks, masks from before any training, and other packages.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from prunebook.experiments.protocol import Run, new
from prunebook.experiments.recipes import (
    BATCH_SIZE,
    FIRST,
    GATED,
    WEIGHTS,
    count,
    gated,
    in_two,
    largest,
    largest_fit,
    lenet,
    train,
)
from prunebook.layers import dense_weight, maskable, parameter_name, prunable
from prunebook.masking import masks, set_masks
from prunebook.methods.exchange import gradient_moments
from prunebook.methods.schedules import prune_gradually
from prunebook.methods.weights import choose
from prunebook.training.data import Data
from prunebook.training.models import mlp

SNIP_IMAGES = 2560  # ten batches
EVERY = 100  # steps between two exchanges of RigL


def linear(run: Run, data: Data) -> nn.Module:
    """Train a linear classifier, 784-10, pruned gradually if it may keep fewer than 7,840 weights."""
    net = new(run.seed, data, lambda: mlp([784, 10]))
    if count(run) >= 7840:
        return train(net, run, data)
    k = 100 * (1 - count(run) / 7840)
    return train(net, run, data, schedule=prune_gradually(net, k, end=run.settings["end"]))


def small_dense(run: Run, data: Data) -> nn.Module:
    """Train a dense network with one hidden layer and, to the nearest unit, the run's number of weights.

    The image is first averaged down to `side` x `side` pixels: many units on few inputs do better than few
    units on all pixels.
    """
    side = int(run.settings["side"])
    units = max(round(count(run) / (side**2 + 10)), 1)
    net = new(run.seed, data, lambda: nn.Sequential(nn.AdaptiveAvgPool2d(side), *mlp([side**2, units, 10])))
    return train(net, run, data)


def random_mask(run: Run, data: Data) -> nn.Module:
    """Keep weights at random, as many in each layer as `erk_counts` says; train what is left."""
    return train(_random(run, data), run, data)


def randomly(run: Run, data: Data, until: float) -> nn.Module:
    """Return LeNet-300-100 trained under a random mask up to a share of the run."""
    return train(_random(run, data), run, data, 0, until)


def erk_counts(shapes: Mapping[str, Sequence[int]], total: int) -> dict[str, int]:
    """Return how many of `total` weights each layer keeps: in proportion to the sum of its weight's sizes.

    A layer that would get more weights than it has keeps all, and the others share the rest. These are the
    shares of an Erdos-Renyi random graph, with its kernel for convolutions.

    Source: Evci et al. 2020, arXiv 1911.11134, section 3.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    counts: dict[str, float] = {}
    while True:
        left = {name: sum(shape) for name, shape in shapes.items() if counts.get(name) != sizes[name]}
        rest = total - sum(size for name, size in sizes.items() if name not in left)
        counts |= {name: min(rest * each / sum(left.values()), sizes[name]) for name, each in left.items()}
        if round(sum(counts.values())) == total:
            break
    whole = {name: round(number) for name, number in counts.items()}
    largest = max(whole, key=lambda name: sizes[name])
    return whole | {largest: whole[largest] + total - sum(whole.values())}


def rigl(run: Run, data: Data) -> nn.Module:
    """Train a random mask; every 100 steps each layer drops its smallest weights, and grows as many new ones.

    New weights are those with the largest gradients, on one batch, and start at 0. The share exchanged falls
    from `drop` to 0 like half a cosine, at three quarters of the run.

    Source: Evci et al. 2020 (RigL), arXiv 1911.11134, section 3.
    """
    net, calls = _random(run, data), itertools.count(1)
    images, labels = data.train.images, data.train.labels

    @torch.no_grad()
    def update(progress: float) -> None:
        if next(calls) % EVERY or progress >= 0.75:
            return
        some = torch.randint(len(labels), (BATCH_SIZE,), device=labels.device)
        moments, kept = gradient_moments(net, images[some], labels[some]), masks(net)
        for name, layer in prunable(net).items():
            weight, alive = dense_weight(layer), kept[parameter_name(name, "weight")]
            share = run.settings["drop"] * (1 + math.cos(math.pi * progress / 0.75)) / 2
            number = min(round(share * int(alive.sum())), int((~alive).sum()))
            (gone,) = choose([weight.abs().masked_fill(~alive, torch.inf)], number)
            (grown,) = choose([(-moments[name].mean.abs()).masked_fill(alive, torch.inf)], number)
            weight[grown] = 0
            set_masks(net, {parameter_name(name, "weight"): alive & ~gone | grown})

    return train(net, run, data, schedule=update)


def snip(run: Run, data: Data, shuffled: bool = False) -> nn.Module:
    """Keep the weights of largest abs(w g) over all layers before any training; train what is left.

    With `shuffled`, the mask is shuffled within each layer, so that only the number kept per layer remains.

    Source: Lee, Ajanthan & Torr 2019 (SNIP), arXiv 1810.02340, with 2,560 training images in place of 100.
    """
    net = lenet(run.seed, data)
    layers = prunable(net)
    weights = [dense_weight(layer) for layer in layers.values()]
    loss = F.cross_entropy(net(data.train.images[:SNIP_IMAGES]), data.train.labels[:SNIP_IMAGES])
    slopes = torch.autograd.grad(loss, weights)
    kept = largest([(w * g).abs() for w, g in zip(weights, slopes, strict=True)], count(run))
    found = {parameter_name(name, "weight"): mask for name, mask in zip(layers, kept, strict=True)}
    set_masks(net, _shuffle(found) if shuffled else found)
    return train(net, run, data)


def learned_mask(run: Run, data: Data, shuffled: bool = False) -> nn.Module:
    """Take the mask that `gumbel` freezes in the same run; train other initial weights under it, all epochs.

    With `shuffled`, it is shuffled within each layer, so that only the number kept per layer remains.

    Source: Su et al. 2020, arXiv 2009.11094.
    """
    kept = masks(gated(run, data, GATED))
    net = lenet(run.seed + 1000, data)
    set_masks(net, _shuffle(kept) if shuffled else kept)
    return train(net, run.but(settings={"lr": run.settings["lr_again"]}), data)


def torch_prune(run: Run, data: Data) -> nn.Module:
    """Prune as `one_shot` does over all layers, but with torch.nn.utils.prune."""

    def cut(net: nn.Module) -> nn.Module:
        weights = [(layer, "weight") for layer in prunable(net).values()]
        prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=WEIGHTS - count(run))
        return net

    net = in_two(run, data, cut)
    for layer in prunable(net).values():
        prune.remove(layer, "weight")
    return net


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

    return in_two(run, data, lambda net: largest_fit(net, cut, FIRST, run))


def _random(run: Run, data: Data) -> nn.Module:
    """Return a new LeNet-300-100 with random masks."""
    net = lenet(run.seed, data)
    weights = {parameter_name(name, "weight"): dense_weight(layer) for name, layer in prunable(net).items()}
    counts = erk_counts({name: weight.shape for name, weight in weights.items()}, count(run))
    set_masks(net, {name: largest([torch.rand_like(w)], counts[name])[0] for name, w in weights.items()})
    return net


def _shuffle(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return masks with as many weights kept in each layer, at random places."""
    return {name: mask.flatten()[torch.randperm(mask.numel())].view_as(mask) for name, mask in kept.items()}
