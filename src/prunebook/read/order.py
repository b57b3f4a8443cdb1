"""Order the units of a pruned network so that few of its edges cross when it is drawn.

Chapter: book/pathways.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from prunebook.read.paths import layer_sizes, surviving_weights

STARTS = 8  # random orders to sweep from, besides the given one
PATIENCE = 4  # give up a start after so many sweeps in a row that save nothing


def order_units(model: nn.Module, keep_inputs: bool = False, keep_outputs: bool = False) -> list[Tensor]:
    """Return an order of the units in which few edges cross: one permutation per layer, inputs first.

    Sweeps up and down the layers put each unit at the mean place of its neighbours, then exchange adjacent
    units while that saves crossings. Every edge counts once, however strong it is. Units on no path come
    last. The best order seen is returned, and it never has more crossings than the order of the network
    itself.

    Args:
        model: A chain of linear layers.
        keep_inputs: Whether the inputs stay in their own order, such as pixels row by row.
        keep_outputs: Whether the outputs stay in theirs, such as digits 0..9.

    Raises:
        ValueError: As `surviving_weights`.

    Source: Sugiyama, Tagawa & Toda 1981, methods for visual understanding of hierarchical system structures.
    """
    links = _links(model)
    used = [links[0].any(0), *(link.any(1) for link in links)]
    active = [units.nonzero().flatten() for units in used]
    small = [link[above][:, below] for link, (below, above) in zip(links, pairwise(active), strict=True)]
    kept = {0: keep_inputs, len(links): keep_outputs}
    free = [layer for layer in range(len(used)) if not kept.get(layer)]
    candidates = [_swept(small, start, free) for start in _starts(small, free)]
    best = min(candidates, key=lambda order: _crossings(small, order))
    return [
        torch.cat([active[layer][order], (~used[layer]).nonzero().flatten()])
        if layer in free
        else torch.arange(len(used[layer]), device="cpu")
        for layer, order in enumerate(best)
    ]


def crossings(model: nn.Module, order: Sequence[Tensor]) -> int:
    """Return how many pairs of surviving edges cross when the units stand in this order.

    Raises:
        ValueError: `order` is not one permutation per layer, or as `surviving_weights`.
    """
    links = _links(model)
    sizes = layer_sizes(links)
    if [sorted(layer.tolist()) for layer in order] != [list(range(size)) for size in sizes]:
        raise ValueError(f"order must be permutations of {sizes} units, one per layer, got {list(order)}")
    return _crossings(links, order)


def _links(model: nn.Module) -> list[Tensor]:
    """Return 1 for each surviving weight and 0 for the others, layer by layer."""
    return [(weight != 0).double() for weight in surviving_weights(model)]


def _crossings(links: Sequence[Tensor], order: Sequence[Tensor]) -> int:
    """Count the pairs of edges (i, j), (k, l) of one layer with i < k and j > l."""
    total = 0.0
    for link, (below, above) in zip(links, pairwise(order), strict=True):
        total += float(_cross(link[above][:, below]).triu(1).sum())
    return int(total)


def _cross(link: Tensor) -> Tensor:
    """Return, (units, units), how many edges of unit u cross edges of unit v when u stands before v."""
    return link @ (link.cumsum(1) - link).T


def _starts(links: Sequence[Tensor], free: Sequence[int]) -> list[list[Tensor]]:
    """Return the orders to sweep from: the given one, and some drawn at random, the same in each call."""
    draw = torch.Generator().manual_seed(0)
    given = [torch.arange(size, device="cpu") for size in layer_sizes(links)]
    drawn = [
        [torch.randperm(len(units), generator=draw, device="cpu") for units in given] for _ in range(STARTS)
    ]
    return [given, *([o if i in free else given[i] for i, o in enumerate(order)] for order in drawn)]


def _swept(links: Sequence[Tensor], start: Sequence[Tensor], free: Sequence[int]) -> list[Tensor]:
    """Sweep up from the inputs and back until PATIENCE sweeps in a row save nothing; return the best order.

    The first candidate is the start after exchanges alone: where both ends are fixed, means can mislead.
    """
    order, best, idle = list(start), _settled(links, start, free), 0
    fewest = _crossings(links, best)
    while fewest > 0 and idle < PATIENCE:
        for layer in free:
            if layer > 0:
                order[layer] = _by_means(links[layer - 1], order[layer], order[layer - 1])
        for layer in reversed(free):
            if layer < len(links):
                order[layer] = _by_means(links[layer].T, order[layer], order[layer + 1])
        settled = _settled(links, order, free)
        now = _crossings(links, settled)
        idle = 0 if now < fewest else idle + 1
        best, fewest = (settled, now) if now < fewest else (best, fewest)
    return best


def _settled(links: Sequence[Tensor], order: Sequence[Tensor], free: Sequence[int]) -> list[Tensor]:
    """Exchange adjacent units up and down the layers until a round saves nothing."""
    settled, before, now = list(order), math.inf, float(_crossings(links, order))
    while now < before:
        for layer in (*free, *reversed(free)):
            settled[layer] = _exchanged(links, settled, layer)
        before, now = now, float(_crossings(links, settled))
    return settled


def _by_means(link: Tensor, units: Tensor, neighbours: Tensor) -> Tensor:
    """Sort the units by the mean place of their neighbours in an adjacent layer; ties keep their order."""
    places = torch.arange(len(neighbours), dtype=torch.float64, device="cpu")
    means = link[:, neighbours] @ places / link.sum(1)
    return units[means[units].argsort(stable=True)]


def _exchanged(links: Sequence[Tensor], order: Sequence[Tensor], layer: int) -> Tensor:
    """Return the units of a layer after exchanging adjacent units wherever that saves crossings."""
    cost = torch.zeros(len(order[layer]), len(order[layer]), dtype=torch.float64, device="cpu")
    if layer > 0:
        cost += _cross(links[layer - 1][:, order[layer - 1]])
    if layer < len(links):
        cost += _cross(links[layer].T[:, order[layer + 1]])
    gain = (cost - cost.T).tolist()
    units = order[layer].tolist()
    for _ in range(len(units)):
        before = list(units)
        for i in range(len(units) - 1):
            if gain[units[i]][units[i + 1]] > 0:
                units[i], units[i + 1] = units[i + 1], units[i]
        if units == before:
            break
    return torch.tensor(units, dtype=torch.int64, device="cpu")
