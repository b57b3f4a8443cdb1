"""A pruned network as a list of wires, one for each weight that is not zero.

Chapter: book/pathways.ipynb
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prunebook.shrinking.rules import bias_of
from prunebook.shrinking.slicing import plain
from prunebook.training.data import Data

MOST = 5000  # with more, the wires of a drawing cannot be told apart
ACTIVATIONS = (nn.ReLU, nn.SiLU, nn.Tanh, nn.Sigmoid)
SKIPPED = (nn.Flatten, nn.Identity, nn.Dropout)  # compute nothing in a trained network


class Wires(NamedTuple):
    """One layer without its zeros: wire i goes from unit source[i] to unit unit[i] of the next layer.

    `source`, `unit` and `value` (the weight) have the shape (wires,), `bias` has (units,); `activation` is
    the name of the activation that follows, or "" if there is none.
    """

    source: Tensor
    unit: Tensor
    value: Tensor
    bias: Tensor
    activation: str


def wires(model: nn.Module, data: Data, order: Sequence[Tensor] | None = None) -> list[Wires]:
    """Return the wires of each layer of a pruned network that reads 28 x 28 images, in float64.

    Their inputs are grey values 0..1: the mean and the standard deviation of `data` are folded into the first
    layer, so that a black pixel needs no multiplication. The sources of the first layer are pixels, row by
    row. Hidden units without a wire are left out, and the others are numbered from 0. Masks are applied.

    Args:
        model: An `nn.Sequential` of linear layers with ReLU, SiLU, Tanh or Sigmoid between them.
        data: The data that the model was trained on.
        order: For each layer, inputs and outputs included, a permutation of its units; only those of hidden
            layers are used. None means the order of the model.

    Raises:
        ValueError: The network is of another kind or has other numbers of inputs or outputs, no weight
            or more than 5,000 are left, or `order` does not fit.
    """
    chain = _chain(model, len(data.classes))
    weights = [layer.weight.detach().double().cpu() for layer, _ in chain]
    biases = [bias_of(layer).expand(layer.out_features) for layer, _ in chain]
    biases[0] = biases[0] - data.mean / data.std * weights[0].sum(1)
    weights[0] = weights[0] / data.std
    left = sum(int(weight.count_nonzero()) for weight in weights)
    if not 1 <= left <= MOST:
        raise ValueError(f"model must have 1 to {MOST:,} weights other than 0, not {left:,}: prune it first")
    places = _places(weights, order)
    found = []
    for (sources, units), weight, bias, (_, activation) in zip(
        pairwise(places), weights, biases, chain, strict=True
    ):
        drawn = weight[units][:, sources]
        unit, source = drawn.nonzero(as_tuple=True)
        found.append(Wires(source, unit, drawn[unit, source], bias[units], activation))
    return found


def _chain(model: nn.Module, classes: int) -> list[tuple[nn.Linear, str]]:
    """Return the linear layers of the model, each with the name of the activation that follows, if any."""
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"model must be an nn.Sequential of linear layers, not a {type(model).__name__}")
    chain: list[tuple[nn.Linear, str]] = []
    for module in _steps(plain(model)):
        kind = next((kind.__name__ for kind in ACTIVATIONS if isinstance(module, kind)), "")
        if isinstance(module, nn.Linear):
            chain.append((module, ""))
        elif kind and chain and not chain[-1][1]:
            chain[-1] = chain[-1][0], kind
        elif not isinstance(module, SKIPPED):
            allowed = ", ".join(kind.__name__ for kind in ACTIVATIONS)
            raise ValueError(
                f"model must be linear layers, each followed by at most one of {allowed}, not {module}"
            )
    for (layer, _), (following, _) in pairwise(chain):
        if layer.out_features != following.in_features:
            pair = f"{layer.out_features} outputs before one with {following.in_features} inputs"
            raise ValueError(f"model must have layers that fit, not one with {pair}")
    sizes = (chain[0][0].in_features, chain[-1][0].out_features) if chain else (0, 0)
    if sizes != (784, classes):
        raise ValueError(
            f"model must go from 784 pixels to {classes} scores, not from {sizes[0]} to {sizes[1]}"
        )
    if chain[-1][1]:
        raise ValueError(
            f"model must end in a linear layer, whose outputs are the scores, not in {chain[-1][1]}"
        )
    return chain


def _steps(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules in the order in which they compute; one that is used twice comes twice."""
    if isinstance(module, nn.Sequential):
        for child in module:
            yield from _steps(child)
    else:
        yield module


def _places(weights: Sequence[Tensor], order: Sequence[Tensor] | None) -> list[Tensor]:
    """Return the units to draw of each layer, in order; inputs are the first layer."""
    sizes = [weights[0].shape[1], *map(len, weights)]
    orders = [torch.arange(size) for size in sizes] if order is None else [places.cpu() for places in order]
    if [places.sort().values.tolist() for places in orders] != [list(range(size)) for size in sizes]:
        raise ValueError(f"order must hold a permutation for each layer, of {sizes} units")
    wired = [into.any(1) | out.any(0) for into, out in pairwise(weights)]
    hidden = [places[keep[places]] for places, keep in zip(orders[1:-1], wired, strict=True)]
    return [torch.arange(sizes[0]), *hidden, torch.arange(sizes[-1])]
