"""What a pruned network tells: which inputs matter, which are treated alike, and by which routes.

A path leads from an input to an output along weights that are not zero; its strength is their product. A
weight survives when it lies on a path: what leads nowhere, or starts at a unit that only a bias feeds,
does not count. Everything here reads fully connected networks: a chain of linear layers, with activations,
flattening and dropout between them. Masks count as what they keep once hardened. Biases play no part.

All tensors returned are new, in float64 or int64, on the CPU.

Chapter: book/pathways.ipynb
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform
from torch import Tensor, fx, nn

from prunebook.shrinking.flow import PASSING, rule_of
from prunebook.shrinking.graph import asks_batch_size, is_batch_size, trace
from prunebook.shrinking.slicing import plain

MOST_PATHS = 1_000_000
STARTS, PATIENCE = 8, 4  # drawn orders to sweep from; sweeps that save nothing


@dataclass(frozen=True)
class Path:
    """A route through the network.

    Attributes:
        units: one index per layer, the input first and the output last.
        weights: of the edges between them, one fewer.
    """

    units: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def strength(self) -> float:
        """Product of the weights, with its sign."""
        return math.prod(self.weights)


@dataclass(frozen=True)
class Twins:
    """Inputs that the first layer treats alike: signs[i] is -1 where inputs[i] counts against inputs[0]."""

    inputs: tuple[int, ...]
    signs: tuple[int, ...]


@dataclass(frozen=True)
class Component:
    """A part of the network that shares no unit with the rest: its units, layer by layer, inputs first."""

    units: tuple[tuple[int, ...], ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """Inputs that it reads."""
        return self.units[0]

    @property
    def outputs(self) -> tuple[int, ...]:
        """Outputs that it feeds."""
        return self.units[-1]


def surviving(model: nn.Module, source: int | None = None, target: int | None = None) -> list[Tensor]:
    """Weights of the linear layers, (units, inputs) each, with 0 for those on no path.

    Args:
        model: a chain of linear layers; it stays as it is.
        source: index of an input, to see only the paths that start there; None for all.
        target: index of an output, to see only the paths that end there; None for all.

    Raises:
        ValueError: the network is no chain of linear layers, a weight is not finite, or an index is out of
            range.
    """
    baked = plain(model)
    if isinstance(baked, nn.Linear):
        baked = nn.Sequential(baked)  # torch.fx looks into the layer that it starts from
    weights = [layer.weight.detach().double().cpu() for layer in _chain(baked)]
    for place, weight in enumerate(weights):
        if not weight.isfinite().all():
            raise ValueError(f"model: linear layer {place} must have finite weights, has inf or nan")
    weights[0] = _only(weights[0], "source", source, 1)
    weights[-1] = _only(weights[-1], "target", target, 0)
    return _on_paths(weights)


def reached(model: nn.Module) -> Tensor:
    """Which outputs at least one input reaches, (outputs,) bool; the others are constant.

    Raises:
        ValueError: as `surviving`.
    """
    return surviving(model)[-1].any(1)


def importance(model: nn.Module, spread: Tensor | None = None, signed: bool = False) -> Tensor:
    """Share of each input in the strength of all paths to an output, (outputs, inputs).

    S = abs(W_L) ... abs(W_2) abs(W_1) diag(spread), and the result is S_ji / sum_i S_ji: rows sum to 1. The
    row of an output without a path is 0. Activations count as lines of slope 1: the share says through which
    weights an input can act, not how far it moves the output of one image.

    Args:
        model: a chain of linear layers.
        spread: (inputs,) standard deviation of each input in the data, at least 0, so that an input that
            hardly varies counts for little; None counts them all as equally wide.
        signed: whether paths of opposite sign cancel: (W_L ... W_1)_ji spread_i / sum_i S_ji, in -1..1.

    Raises:
        ValueError: spread does not fit, or as `surviving`.
    """
    weights = surviving(model)
    wide = _spread(spread, weights[0].shape[1])
    strength = _product([weight.abs() for weight in weights]) * wide
    total = strength.sum(1, keepdim=True)
    shown = _product(weights) * wide if signed else strength
    share: Tensor = shown / total.where(total > 0, torch.inf)  # 0 / inf: no path, no share
    return share


def symmetry(model: nn.Module) -> Tensor:
    """Cosine between what the first layer makes of each two inputs, (inputs, inputs).

    The cosine of columns of W_1, surviving weights only: 1 = treated alike (the network knows their sum),
    -1 = oppositely (it knows their difference), 0 = nothing in common. Rows and columns of an input without
    a surviving weight are 0, on the diagonal too. Two inputs with one weight each, to the same unit, are
    always at 1 or -1.

    Raises:
        ValueError: as `surviving`.
    """
    first = surviving(model)[0]
    lengths = first.norm(dim=0)
    columns = first / lengths.where(lengths > 0, torch.inf)
    cosines: Tensor = (columns.T @ columns).clamp(-1, 1)
    cosines.diagonal().copy_(lengths > 0)  # 1 without rounding
    return cosines


def twins(cosines: Tensor, threshold: float = 0.95) -> list[Twins]:
    """Groups of inputs whose cosines are all at least `threshold` in size, largest group first.

    Complete linkage on 1 - abs(cosine): each two of a group are alike or opposite. Above 0.5 the signs of a
    group agree with each other. Inputs that are like no other are left out.

    Args:
        cosines: (inputs, inputs) symmetric, as `symmetry` returns it.
        threshold: above 0.5 and at most 1.

    Raises:
        ValueError: the matrix is no symmetric matrix of cosines, or the threshold is out of range.
    """
    if not 0.5 < threshold <= 1:
        raise ValueError(f"threshold must be above 0.5 and at most 1, got {threshold}")
    if cosines.ndim != 2 or not torch.equal(cosines, cosines.T) or not (cosines.abs() <= 1).all():
        raise ValueError(f"cosines must be a symmetric matrix with values in -1..1, got {cosines}")
    matrix = cosines.detach().double().cpu()
    used = matrix.diagonal().nonzero().flatten()
    if len(used) < 2:
        return []
    far = squareform((1 - matrix[used][:, used].abs()).numpy(), checks=False)
    labels = fcluster(linkage(far, "complete"), 1 - threshold + 1e-12, "distance")  # rounding of the cosines
    groups = [used[torch.from_numpy(labels == label)].tolist() for label in np.unique(labels)]
    found = [
        Twins(tuple(group), tuple(1 if matrix[group[0], member] > 0 else -1 for member in group))
        for group in groups
        if len(group) > 1
    ]
    return sorted(found, key=lambda group: (-len(group.inputs), group.inputs))


def count_paths(model: nn.Module, source: int | None = None, target: int | None = None) -> int:
    """How many paths lead from an input to an output, exactly; None stands for all of them.

    Raises:
        ValueError: source or target out of range, or as `surviving`.
    """
    return _count(surviving(model, source, target))


def paths(
    model: nn.Module, source: int | None = None, target: int | None = None, most: int | None = None
) -> list[Path]:
    """Paths from an input to an output, the strongest first; equally strong ones in order of their units.

    Args:
        model: a chain of linear layers.
        source: index of an input; None takes them all.
        target: index of an output; None takes them all.
        most: how many at most, at least 1. They are found best first: the others are never listed.

    Raises:
        ValueError: a number is out of range, there are over a million paths and `most` is None, or as
            `surviving`.
    """
    if most is not None and most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    weights = surviving(model, source, target)
    total = _count(weights)
    if most is None and total > MOST_PATHS:
        raise ValueError(f"most: there are {total} paths, over {MOST_PATHS}; say how many, or prune more")
    found = _strongest(weights, min(total, total if most is None else most))
    return sorted(found, key=lambda path: (-abs(path.strength), path.units))


def components(model: nn.Module) -> list[Component]:
    """Parts of the network that share no unit, most units first; units on no path belong to none.

    Raises:
        ValueError: as `surviving`.
    """
    weights = surviving(model)
    sizes = _sizes(weights)
    starts = list(accumulate(sizes, initial=0))
    edges = [weight.nonzero().T for weight in weights]
    ends = torch.cat([edge[0] + start for edge, start in zip(edges, starts[1:], strict=False)])
    begins = torch.cat([edge[1] + start for edge, start in zip(edges, starts, strict=False)])
    graph = coo_array((np.ones(len(ends)), (begins.numpy(), ends.numpy())), shape=(starts[-1], starts[-1]))
    labels = torch.from_numpy(connected_components(graph, directed=False)[1])
    layers = labels.split(sizes)
    parts = [
        Component(tuple(tuple((layer == label).nonzero().flatten().tolist()) for layer in layers))
        for label in labels[begins].unique()
    ]
    return sorted(parts, key=lambda part: (-sum(map(len, part.units)), part.units))


def order_units(model: nn.Module, keep_inputs: bool = False, keep_outputs: bool = False) -> list[Tensor]:
    """Order of the units of each layer in which few edges cross: one permutation per layer, inputs first.

    Sweeps up and down put each unit at the mean place of its neighbours, then exchange neighbours in a layer
    while that saves crossings. Every edge counts once, however strong. Units on no path come last. The
    best order seen is returned; it never has more crossings than the order given.

    Args:
        model: a chain of linear layers.
        keep_inputs: whether inputs stay in their own order, such as pixels row by row.
        keep_outputs: whether outputs stay in theirs, such as digits 0..9.

    Raises:
        ValueError: as `surviving`.

    Source: Sugiyama, Tagawa & Toda 1981, methods for visual understanding of hierarchical system structures.
    """
    links = [(weight != 0).double() for weight in surviving(model)]
    used = [links[0].any(0), *(link.any(1) for link in links)]
    active = [units.nonzero().flatten() for units in used]
    small = [link[above][:, below] for link, below, above in zip(links, active[:-1], active[1:], strict=True)]
    kept = {0: keep_inputs, len(links): keep_outputs}
    free = [layer for layer in range(len(used)) if not kept.get(layer)]
    candidates = [_swept(small, start, free) for start in _starts(small, free)]
    best = min(candidates, key=lambda order: _crossings(small, order))
    return [
        torch.cat([active[layer][order], (~used[layer]).nonzero().flatten()])
        if layer in free
        else torch.arange(len(used[layer]))
        for layer, order in enumerate(best)
    ]


def crossings(model: nn.Module, order: Sequence[Tensor]) -> int:
    """How many pairs of surviving edges cross, when units stand in this order and edges are straight.

    Raises:
        ValueError: `order` is not one permutation per layer, or as `surviving`.
    """
    links = [(weight != 0).double() for weight in surviving(model)]
    sizes = _sizes(links)
    if [sorted(layer.tolist()) for layer in order] != [list(range(size)) for size in sizes]:
        raise ValueError(f"order must be permutations of {sizes} units, one per layer, got {list(order)}")
    return _crossings(links, order)


def _chain(model: nn.Module) -> list[nn.Linear]:
    """The linear layers of a network in order, or an error that names what is in the way."""
    nodes = [node for node in trace(model).nodes if not asks_batch_size(node) and not is_batch_size(node)]
    layers: list[nn.Linear] = []
    for before, node in pairwise(nodes):
        read = [source for source in node.all_input_nodes if source in nodes]
        if node.op == "placeholder" or read != [before]:
            raise ValueError(f"model: must be one chain of layers, but {node.name} reads {read}")
        if node.op == "output":
            break
        layer = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.Linear):
            _require_fit(layers, layer, node)
            layers.append(layer)
        elif rule_of(model, node) not in PASSING:
            what = node.name if layer is None else f"{node.target!r}, a {type(layer).__name__},"
            raise ValueError(f"model: {what} is neither linear nor an activation; pathways cannot cross it")
    if not layers:
        raise ValueError(f"model: must have a linear layer, got none in {type(model).__name__}")
    return layers


def _require_fit(layers: Sequence[nn.Linear], layer: nn.Linear, node: fx.Node) -> None:
    """A flattening of something else than features shows in the sizes."""
    if layers and layers[-1].out_features != layer.in_features:
        raise ValueError(
            f"model: {node.target!r} must read the {layers[-1].out_features} features of the layer before, "
            f"reads {layer.in_features}"
        )


def _on_paths(weights: Sequence[Tensor]) -> list[Tensor]:
    """The weights with 0 where no path leads along: one pass from the inputs, one from the outputs."""
    fed = [torch.ones(weights[0].shape[1], dtype=torch.bool)]
    for weight in weights:
        fed.append((weight[:, fed[-1]] != 0).any(1))
    heard = [torch.ones(len(weights[-1]), dtype=torch.bool)]
    for weight in reversed(weights):
        heard.insert(0, (weight[heard[0]] != 0).any(0))
    return [
        weight.where(after[:, None] & before, 0.0)
        for weight, before, after in zip(weights, fed[:-1], heard[1:], strict=True)
    ]


def _product(weights: Sequence[Tensor]) -> Tensor:
    """W_L ... W_2 W_1, from the outputs down: the smaller side."""
    product = weights[-1]
    for weight in reversed(weights[:-1]):
        product = product @ weight
    return product


def _sizes(weights: Sequence[Tensor]) -> list[int]:
    """Units per layer, inputs first."""
    return [weights[0].shape[1], *(len(weight) for weight in weights)]


def _spread(spread: Tensor | None, inputs: int) -> Tensor:
    if spread is None:
        return torch.ones(inputs, dtype=torch.float64)
    wide = spread.detach().double().cpu()
    if wide.shape != (inputs,) or not (wide.isfinite() & (wide >= 0)).all():
        raise ValueError(f"spread must be {inputs} finite numbers of at least 0, one per input, got {spread}")
    return wide


def _only(weight: Tensor, name: str, index: int | None, axis: int) -> Tensor:
    """The weight with 0 in every row or column but one."""
    if index is None:
        return weight
    if not 0 <= index < weight.shape[axis]:
        raise ValueError(f"{name} must be in 0..{weight.shape[axis] - 1}, got {index}")
    others = torch.arange(weight.shape[axis]) != index
    return weight.index_fill(axis, others.nonzero().flatten(), 0.0)


def _count(weights: Sequence[Tensor]) -> int:
    """Product of 0/1 matrices, in Python's own whole numbers: no dense network is too large."""
    counts = np.ones(weights[0].shape[1], dtype=object)
    for weight in weights:
        counts = (weight != 0).numpy().astype(object) @ counts
    return int(counts.sum())


def _strongest(weights: Sequence[Tensor], most: int) -> list[Path]:
    """Best-first search: a route is as promising as the strongest path that starts with it."""
    bounds = [torch.ones(len(weights[-1]), dtype=torch.float64)]
    for weight in reversed(weights):
        bounds.insert(0, (weight.abs() * bounds[0][:, None]).amax(0))
    first = weights[0].any(0).nonzero().flatten().tolist()
    heap: list[tuple[float, tuple[int, ...], tuple[float, ...]]]
    heap = [(-bounds[0][unit].item(), (unit,), ()) for unit in first]
    heapq.heapify(heap)
    found: list[Path] = []
    while len(found) < most:
        _, units, used = heapq.heappop(heap)
        if len(used) == len(weights):
            found.append(Path(units, used))
            continue
        column = weights[len(used)][:, units[-1]]
        hopes = abs(math.prod(used)) * column.abs() * bounds[len(used) + 1]
        for unit in column.nonzero().flatten().tolist():
            heapq.heappush(heap, (-hopes[unit].item(), (*units, unit), (*used, column[unit].item())))
    return found


def _crossings(links: Sequence[Tensor], order: Sequence[Tensor]) -> int:
    """Pairs of edges (i, j), (k, l) of one layer with i < k and j > l."""
    total = 0.0
    for link, (below, above) in zip(links, pairwise(order), strict=True):
        total += float(_cross(link[above][:, below]).triu(1).sum())
    return int(total)


def _cross(link: Tensor) -> Tensor:
    """How many edges of u cross edges of v when u stands before v, (units, units)."""
    return link @ (link.cumsum(1) - link).T


def _starts(links: Sequence[Tensor], free: Sequence[int]) -> list[list[Tensor]]:
    """Orders to sweep from: the given one, and others drawn at random, always the same."""
    draw, given = torch.Generator().manual_seed(0), [torch.arange(size) for size in _sizes(links)]
    drawn = [[torch.randperm(len(units), generator=draw) for units in given] for _ in range(STARTS)]
    return [given, *([o if i in free else given[i] for i, o in enumerate(order)] for order in drawn)]


def _swept(links: Sequence[Tensor], start: Sequence[Tensor], free: Sequence[int]) -> list[Tensor]:
    """Sweep from the inputs up and back down until PATIENCE sweeps save nothing; return the best order.

    The first candidate is the start after exchanges alone: where both ends stay, means can mislead.
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
    """Exchange neighbours up and down the layers, until a round saves nothing."""
    settled, before, now = list(order), math.inf, float(_crossings(links, order))
    while now < before:
        for layer in (*free, *reversed(free)):
            settled[layer] = _exchanged(links, settled, layer)
        before, now = now, float(_crossings(links, settled))
    return settled


def _by_means(link: Tensor, units: Tensor, neighbours: Tensor) -> Tensor:
    """Units in order of the mean place of their neighbours one layer on; ties keep their order."""
    places = torch.arange(len(neighbours), dtype=torch.float64)
    means = link[:, neighbours] @ places / link.sum(1)
    return units[means[units].argsort(stable=True)]


def _exchanged(links: Sequence[Tensor], order: Sequence[Tensor], layer: int) -> Tensor:
    """Units of a layer after exchanges of neighbours that each save crossings."""
    cost = torch.zeros(len(order[layer]), len(order[layer]), dtype=torch.float64)
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
    return torch.tensor(units, dtype=torch.int64)
