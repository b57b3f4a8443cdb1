"""Read a pruned network: which inputs matter, which are treated alike, and by which routes they act.

A path leads from an input to an output along weights that are not zero, and its strength is their product.
A weight survives if it lies on a path. A weight that leads nowhere, or that starts at a unit which only a
bias feeds, does not survive. The functions here read fully connected networks: a chain of linear layers,
with activations, flattening and dropout between them. Masks are taken as they will be once hardened.
Biases play no part.

All returned tensors are new, in float64 or int64, on the CPU.

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
from torch import Tensor, fx, nn

from prunebook.checks import require_at_least
from prunebook.shrinking.graph import asks_batch_size, is_batch_size, trace
from prunebook.shrinking.rules import PASSING, rule_of
from prunebook.shrinking.slicing import plain

MOST_PATHS = 1_000_000


@dataclass(frozen=True)
class Path:
    """A route through the network.

    Attributes:
        units: One index per layer, from the input to the output.
        weights: Those of the edges between the units, one fewer.
    """

    units: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def strength(self) -> float:
        """Product of the weights, with its sign."""
        return math.prod(self.weights)


@dataclass(frozen=True)
class Twins:
    """Inputs that the first layer treats alike; signs[i] is -1 if inputs[i] acts opposite to inputs[0]."""

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


def surviving_weights(model: nn.Module, source: int | None = None, target: int | None = None) -> list[Tensor]:
    """Return the weight of each linear layer, (units, inputs), with 0 for each weight that is on no path.

    Args:
        model: A chain of linear layers; it is not changed.
        source: Index of an input, to keep only the paths that start there; None keeps all.
        target: Index of an output, to keep only the paths that end there; None keeps all.

    Raises:
        ValueError: The network is not a chain of linear layers, a weight is not finite, or an index is out of
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
    """Return which outputs at least one input reaches, (outputs,) bool; all other outputs are constant.

    Raises:
        ValueError: As `surviving_weights`.
    """
    return surviving_weights(model)[-1].any(1)


def importance(model: nn.Module, spread: Tensor | None = None, signed: bool = False) -> Tensor:
    """Return the share of each input in the strength of all paths to an output, (outputs, inputs).

    S = abs(W_L) ... abs(W_2) abs(W_1) diag(spread), and the result is S_ji / sum_i S_ji, so each row sums
    to 1. The row of an output without a path is 0. Activations count as lines of slope 1. The share
    therefore says through which weights an input can act, not how far it moves the output for one image.

    Args:
        model: A chain of linear layers.
        spread: (inputs,) standard deviation of each input in the data, at least 0, so that an input that
            hardly varies counts for little; None treats all inputs as varying equally.
        signed: Whether paths of opposite sign cancel: (W_L ... W_1)_ji spread_i / sum_i S_ji, in -1..1.

    Raises:
        ValueError: Spread does not fit, or as `surviving_weights`.
    """
    weights = surviving_weights(model)
    wide = _spread(spread, weights[0].shape[1])
    strength = _product([weight.abs() for weight in weights]) * wide
    total = strength.sum(1, keepdim=True)
    shown = _product(weights) * wide if signed else strength
    share: Tensor = shown / total.where(total > 0, torch.inf)  # 0 / inf: no path, no share
    return share


def symmetry(model: nn.Module) -> Tensor:
    """Return the cosine between the first layer's weights of each two inputs, (inputs, inputs).

    These are the cosines between the columns of W_1, over surviving weights. At 1 the two inputs are treated
    alike, so the network knows only their sum. At -1 they are treated oppositely, so it knows only their
    difference. At 0 they have nothing in common. The rows and columns of an input without a surviving
    weight are 0, on the diagonal too. Two inputs with one weight each, to the same unit, are always at 1 or
    -1.

    Raises:
        ValueError: As `surviving_weights`.
    """
    first = surviving_weights(model)[0]
    lengths = first.norm(dim=0)
    columns = first / lengths.where(lengths > 0, torch.inf)
    above = (columns.T @ columns).clamp(-1, 1).triu(1)  # the product itself is symmetric only up to rounding
    cosines: Tensor = above + above.T + (lengths > 0).double().diag()
    return cosines


def twins(cosines: Tensor, threshold: float = 0.95) -> list[Twins]:
    """Return groups of inputs whose cosines are all at least `threshold` in size, the largest group first.

    Complete linkage on 1 - abs(cosine): any two inputs of a group are alike or opposite. The threshold is
    above 0.5 so that the signs within a group agree with each other. Inputs that are like no other are left
    out.

    Args:
        cosines: (inputs, inputs) symmetric, as `symmetry` returns it.
        threshold: Above 0.5 and at most 1.

    Raises:
        ValueError: `cosines` is not a symmetric matrix of cosines, or the threshold is out of range.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

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
    """Return the exact number of paths from an input to an output; None means all of them.

    Raises:
        ValueError: Source or target is out of range, or as `surviving_weights`.
    """
    return _count(surviving_weights(model, source, target))


def paths(
    model: nn.Module, source: int | None = None, target: int | None = None, most: int | None = None
) -> list[Path]:
    """Return the paths from an input to an output, the strongest first; equal ones in order of their units.

    Args:
        model: A chain of linear layers.
        source: Index of an input; None takes them all.
        target: Index of an output; None takes them all.
        most: Maximum number of paths, at least 1; the strongest are returned. None means all.

    Raises:
        ValueError: A number is out of range, there are over a million paths and `most` is None, or as
            `surviving_weights`.
    """
    if most is not None:
        require_at_least("most", most, 1)
    weights = surviving_weights(model, source, target)
    total = _count(weights)
    if most is None and total > MOST_PATHS:
        raise ValueError(f"most must be given: there are {total} paths, over {MOST_PATHS}; or prune more")
    found = _strongest(weights, total if most is None else min(total, most))
    return sorted(found, key=lambda path: (-abs(path.strength), path.units))


def components(model: nn.Module) -> list[Component]:
    """Return the parts that share no unit, the largest first; a unit on no path is in none of them.

    Raises:
        ValueError: As `surviving_weights`.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    weights = surviving_weights(model)
    sizes = layer_sizes(weights)
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


def layer_sizes(weights: Sequence[Tensor]) -> list[int]:
    """Return the number of units in each layer, inputs first, of a chain of weights (units, inputs)."""
    return [weights[0].shape[1], *(len(weight) for weight in weights)]


def _chain(model: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of a network in order, or raise an error that names what is in the way."""
    nodes = [node for node in trace(model).nodes if not asks_batch_size(node) and not is_batch_size(node)]
    layers: list[nn.Linear] = []
    for before, node in pairwise(nodes):
        read = [source for source in node.all_input_nodes if source in nodes]
        if node.op == "placeholder" or read != [before]:
            raise ValueError(f"model must be one chain of layers, but {node.name} reads {read}")
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
        raise ValueError(f"model must have a linear layer, got none in {type(model).__name__}")
    return layers


def _require_fit(layers: Sequence[nn.Linear], layer: nn.Linear, node: fx.Node) -> None:
    """Raise if a layer does not read as many features as the one before it writes."""
    if layers and layers[-1].out_features != layer.in_features:
        raise ValueError(
            f"model: {node.target!r} must read the {layers[-1].out_features} features of the layer before, "
            f"reads {layer.in_features}"
        )


def _on_paths(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return the weights, with 0 for those on no path: found by one pass from each end."""
    fed = [torch.ones(weights[0].shape[1], dtype=torch.bool, device="cpu")]
    for weight in weights:
        fed.append((weight[:, fed[-1]] != 0).any(1))
    heard = [torch.ones(len(weights[-1]), dtype=torch.bool, device="cpu")]
    for weight in reversed(weights):
        heard.insert(0, (weight[heard[0]] != 0).any(0))
    return [
        weight.where(after[:, None] & before, 0.0)
        for weight, before, after in zip(weights, fed[:-1], heard[1:], strict=True)
    ]


def _product(weights: Sequence[Tensor]) -> Tensor:
    """Return W_L ... W_2 W_1, multiplied from the outputs down: outputs are few, so products stay small."""
    product = weights[-1]
    for weight in reversed(weights[:-1]):
        product = product @ weight
    return product


def _spread(spread: Tensor | None, inputs: int) -> Tensor:
    if spread is None:
        return torch.ones(inputs, dtype=torch.float64, device="cpu")
    wide = spread.detach().double().cpu()
    if wide.shape != (inputs,) or not (wide.isfinite() & (wide >= 0)).all():
        raise ValueError(f"spread must be {inputs} finite numbers of at least 0, one per input, got {spread}")
    return wide


def _only(weight: Tensor, name: str, index: int | None, axis: int) -> Tensor:
    """Return the weight with 0 in every row or column but one."""
    if index is None:
        return weight
    if not 0 <= index < weight.shape[axis]:
        raise ValueError(f"{name} must be in 0..{weight.shape[axis] - 1}, got {index}")
    others = torch.arange(weight.shape[axis], device="cpu") != index
    return weight.index_fill(axis, others.nonzero().flatten(), 0.0)


def _count(weights: Sequence[Tensor]) -> int:
    """Count paths by multiplying 0/1 matrices in Python's integers, which are exact at any size."""
    counts = np.ones(weights[0].shape[1], dtype=object)
    for weight in weights:
        counts = (weight != 0).numpy().astype(object) @ counts
    return int(counts.sum())


def _strongest(weights: Sequence[Tensor], most: int) -> list[Path]:
    """Search best first: a route ranks as high as the strongest path that begins with it."""
    bounds = [torch.ones(len(weights[-1]), dtype=torch.float64, device="cpu")]
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
