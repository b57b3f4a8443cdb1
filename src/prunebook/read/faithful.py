"""Test whether pictures of a pruned network tell the truth: remove what they call important, compare seeds.

An importance map is a claim about the network. Removal tests it on images: accuracy should fall fastest
when the most important pixels go first. Agreement asks whether networks from other seeds find the same
pixels.

Chapter: book/pathways.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from prunebook.checks import require_at_least
from prunebook.read.paths import surviving_weights, symmetry


def removal(
    accuracy: Callable[[Tensor], float], images: Tensor, order: Tensor, counts: Sequence[int], fill: Tensor
) -> list[float]:
    """Return the accuracy (0..1) after the first `count` pixels of an order are removed, for each count.

    Args:
        accuracy: Maps images, in the shape of `images`, to the accuracy of the network on them; nothing is
            retrained.
        images: (n, ...), at least one.
        order: Indices of pixels, counted row by row, without repeats; the first are removed first.
        counts: Numbers of pixels to remove, each 0 to the length of `order`.
        fill: What a removed pixel becomes, in the shape of one image, such as the mean over many images.

    Raises:
        ValueError: An index repeats or is out of range, a count is out of range, or `fill` does not fit.

    Example:
        `removal(lambda x: evaluate(net, Split(x, test.labels)).accuracy, test.images, order, [0, 9], mean)`
    """
    pixels = images[0].numel()
    if order.unique().numel() != order.numel() or not ((order >= 0) & (order < pixels)).all():
        raise ValueError(f"order must hold different indices 0..{pixels - 1}, got {order}")
    if any(not 0 <= count <= len(order) for count in counts):
        raise ValueError(f"counts must be in 0..{len(order)}, got {list(counts)}")
    if fill.shape != images[0].shape:
        raise ValueError(f"fill must have the shape {tuple(images[0].shape)}, got {tuple(fill.shape)}")
    accuracies = []
    for count in counts:
        gone = order[:count].to(images.device)
        left = images.flatten(1).clone()
        left[:, gone] = fill.to(left).flatten()[gone]
        accuracies.append(accuracy(left.view_as(images)))
    return accuracies


def agreement(maps: Tensor, block: int = 1) -> float:
    """Return the mean correlation, -1 to 1, over all pairs of n maps (n, side * side).

    Args:
        maps: At least two; none may be constant.
        block: Side of the square blocks whose means are compared, in pixels; divides the side of a map.

    Raises:
        ValueError: There are fewer than two maps, a map is constant, or `block` does not fit.
    """
    rows = _blocks(maps, block)
    if len(rows) < 2 or not (rows.amax(1) > rows.amin(1)).all():
        raise ValueError(f"maps must be two or more rows, none constant, got {maps}")
    count = len(rows)
    return float((torch.corrcoef(rows).sum() - count) / (count * (count - 1)))


def chance(maps: Tensor, among: Tensor, draws: int = 200, seed: int = 0, block: int = 1) -> Tensor:
    """Return the `agreement` of maps whose values are shuffled, each map on its own, once per draw: (draws,).

    Args:
        maps: (n, side * side).
        among: (side * side,) bool: pixels whose values are shuffled; all others keep theirs.
        draws: Number of shuffles, at least 1.
        seed: Seed of the shuffles.
        block: As for `agreement`.

    Raises:
        ValueError: `draws` is below 1, `among` does not fit, or as `agreement`.
    """
    require_at_least("draws", draws, 1)
    if among.shape != maps.shape[1:] or among.dtype != torch.bool:
        raise ValueError(f"among must be bool of shape {tuple(maps.shape[1:])}, got {among}")
    draw, places, found = torch.Generator().manual_seed(seed), among.nonzero().flatten().cpu(), []
    for _ in range(draws):
        shuffled = maps.detach().cpu().clone()
        for row in shuffled:
            row[places] = row[places[torch.randperm(len(places), generator=draw, device="cpu")]]
        found.append(agreement(shuffled, block))
    return torch.tensor(found, dtype=torch.float64, device="cpu")


def common_pairs(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return distance and cosine of each pair of pixels that feed a common unit, (pairs,) each.

    Distances are between centres, in pixels; the cosines are those of `symmetry`.

    Raises:
        ValueError: The inputs do not make a square image, or as `surviving_weights`.
    """
    used = surviving_weights(model)[0] != 0
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
    """Return the means over block x block pixels, (n, blocks), in float64 on the CPU."""
    if maps.ndim != 2:
        raise ValueError(f"maps must be two or more rows, none constant, got {maps}")
    rows = maps.detach().double().cpu()
    if block == 1:
        return rows
    side = _side(rows.shape[1])
    if not 1 <= block <= side or side % block:
        raise ValueError(f"block must divide the side, {side}, got {block}")
    return avg_pool2d(rows.view(-1, 1, side, side), block).flatten(1)
