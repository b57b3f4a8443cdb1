"""Do the pictures of a pruned network tell the truth? Take away what they call important, and compare seeds.

A map of importance is a claim about the network. Removal tests it on images: without the pixels that matter
most, accuracy should fall fastest. Agreement asks whether another seed finds the same pixels.

Chapter: book/pathways.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from prunebook.read.paths import surviving, symmetry
from prunebook.training.data import Split
from prunebook.training.fit import evaluate


def removal(
    model: nn.Module, split: Split, order: Tensor, counts: Sequence[int], fill: Tensor
) -> list[float]:
    """Return the accuracy (0..1) without the first so many pixels of an order: one for each count.

    Args:
        model: takes the images of `split`; nothing is retrained.
        split: images (n, ...) and labels.
        order: different indices of pixels, row by row; the first go first.
        counts: how many pixels go, each 0 to the length of `order`.
        fill: what removed pixels become, in the shape of one image, such as their mean over many.

    Raises:
        ValueError: an index repeats or is out of range, a count is, or `fill` does not fit.
    """
    pixels = split.images[0].numel()
    if order.unique().numel() != order.numel() or not ((order >= 0) & (order < pixels)).all():
        raise ValueError(f"order must hold different indices 0..{pixels - 1}, got {order}")
    if any(not 0 <= count <= len(order) for count in counts):
        raise ValueError(f"counts must be in 0..{len(order)}, got {list(counts)}")
    if fill.shape != split.images[0].shape:
        raise ValueError(f"fill must have the shape {tuple(split.images[0].shape)}, got {tuple(fill.shape)}")
    accuracies = []
    for count in counts:
        gone = order[:count].to(split.images.device)
        images = split.images.flatten(1).clone()
        images[:, gone] = fill.to(images).flatten()[gone]
        accuracies.append(evaluate(model, Split(images.view_as(split.images), split.labels)).accuracy)
    return accuracies


def agreement(maps: Tensor, block: int = 1) -> float:
    """Return the mean correlation, -1 to 1, between each two of n maps (n, side * side).

    Args:
        maps: at least two, none the same everywhere.
        block: compare means over block x block pixels; it divides the side.

    Raises:
        ValueError: maps or block do not fit.
    """
    rows = _blocks(maps, block)
    if len(rows) < 2 or not (rows.amax(1) > rows.amin(1)).all():
        raise ValueError(f"maps must be two or more rows, none constant, got {maps}")
    count = len(rows)
    return float((torch.corrcoef(rows).sum() - count) / (count * (count - 1)))


def chance(maps: Tensor, among: Tensor, draws: int = 200, seed: int = 0, block: int = 1) -> Tensor:
    """Return what `agreement` says of maps whose values were shuffled, each on its own, (draws,).

    Args:
        maps: (n, side * side).
        among: (side * side,) bool: values change places within these pixels alone, the others stay.
        draws: how often, at least 1.
        seed: of the shuffles.
        block: as for `agreement`.

    Raises:
        ValueError: draws or `among` do not fit, or as `agreement`.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    if among.shape != maps.shape[1:] or among.dtype != torch.bool:
        raise ValueError(f"among must be bool of shape {tuple(maps.shape[1:])}, got {among}")
    draw, places, found = torch.Generator().manual_seed(seed), among.nonzero().flatten().cpu(), []
    for _ in range(draws):
        shuffled = maps.detach().cpu().clone()
        for row in shuffled:
            row[places] = row[places[torch.randperm(len(places), generator=draw)]]
        found.append(agreement(shuffled, block))
    return torch.tensor(found, dtype=torch.float64)


def common_pairs(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the distance and the cosine of each two pixels that feed a common unit, (pairs,) each.

    Distances are between centres, in pixels; the cosines are those of `symmetry`.

    Raises:
        ValueError: the inputs make no square image, or as `surviving`.
    """
    used = surviving(model)[0] != 0
    side = _side(used.shape[1])
    one, other = torch.combinations(used.any(0).nonzero().flatten()).T
    common = (used[:, one] & used[:, other]).any(0)
    one, other = one[common], other[common]
    away = torch.hypot((one // side - other // side).double(), (one % side - other % side).double())
    return away, symmetry(model)[one, other]


def _side(pixels: int) -> int:
    side = math.isqrt(pixels)
    if side * side != pixels:
        raise ValueError(f"inputs must make a square image, got {pixels}")
    return side


def _blocks(maps: Tensor, block: int) -> Tensor:
    """Means over block x block pixels, (n, blocks), in float64 on the CPU."""
    if maps.ndim != 2:
        raise ValueError(f"maps must be two or more rows, none constant, got {maps}")
    rows = maps.detach().double().cpu()
    if block == 1:
        return rows
    side = _side(rows.shape[1])
    if not 1 <= block <= side or side % block:
        raise ValueError(f"block must divide the side, {side}, got {block}")
    return avg_pool2d(rows.view(-1, 1, side, side), block).flatten(1)
