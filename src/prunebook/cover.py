"""What the masks of a network cover, and how sparse it is: the share of all its weights, never of a part.

A weight is an entry of a parameter with two or more dimensions. Biases, and the scales of normalisation
layers, have one dimension and do not count.

Chapter: book/weights.ipynb
"""

import warnings
from collections.abc import Collection
from typing import Literal, NamedTuple, overload

from torch import Tensor, nn

from prunebook.layers import MASKABLE, Skip, all_weights, parameter_name, skipped
from prunebook.masking import kept_weights, mask_of


class Covered(NamedTuple):
    """One row of `coverage`: a parameter's name, its number of weights, whether a mask covers it, and why."""

    parameter: str
    weights: int
    masked: bool
    reason: str


def coverage(model: nn.Module) -> list[Covered]:
    """Return a row for each parameter with two or more dimensions: whether it has a mask, and why not.

    A parameter that several modules share has one row, under its first name.
    """
    rows: dict[Tensor, Covered] = {}
    for path, layer, name, weight in all_weights(model):
        masked = mask_of(layer, name) is not None
        reason = "has a mask" if masked else _why_not(layer, name, weight)
        rows.setdefault(weight, Covered(parameter_name(path, name), weight.numel(), masked, reason))
    return list(rows.values())


@overload
def sparsity(model: nn.Module, per_layer: Literal[False] = False) -> float: ...
@overload
def sparsity(model: nn.Module, per_layer: Literal[True]) -> dict[str, float]: ...
def sparsity(model: nn.Module, per_layer: bool = False) -> float | dict[str, float]:
    """Return the share of weights that are pruned, 0 to 1, of all in the model, or in each layer by its name.

    All parameters with two or more dimensions count, whether a method can prune them or not; `coverage` lists
    them. If a parameter has a mask, its pruned weights are those that the mask does not keep, otherwise those
    that are exactly 0. A shared weight counts once in the total. Without weights, return 0.
    """
    kept = kept_weights(model)
    zeros: dict[Tensor, int] = {}
    layers: dict[str, list[Tensor]] = {}
    for path, _, _, weight in all_weights(model):
        layers.setdefault(path, []).append(weight)
        if weight not in zeros:
            left = kept[weight] if weight in kept else weight.detach() != 0
            zeros[weight] = weight.numel() - int(left.count_nonzero())

    def share(weights: Collection[Tensor]) -> float:
        return sum(zeros[weight] for weight in weights) / max(sum(w.numel() for w in weights), 1)

    return {path: share(weights) for path, weights in layers.items()} if per_layer else share(zeros)


def warn_uncovered(model: nn.Module, skip: Skip = ()) -> None:
    """Warn, on behalf of the caller's caller, if weights outside `skip` have no mask."""
    left_out, masked = set(skipped(model, skip)), set()
    bare: dict[Tensor, str] = {}
    for path, layer, name, weight in all_weights(model):
        if mask_of(layer, name) is not None:
            masked.add(weight)
        elif path not in left_out:
            said = f"{parameter_name(path, name)} ({type(layer).__name__}, {weight.numel():,} weights)"
            bare.setdefault(weight, said)
    if bare:
        without, covered = (sum(weight.numel() for weight in weights) for weights in (bare, masked))
        warnings.warn(
            f"masks cover {covered:,} weights, but {without:,} have none: {', '.join(bare.values())}. "
            "Mask them with attach(layer, mask, name), or name their layers in skip",
            stacklevel=3,
        )


def _why_not(layer: nn.Module, name: str, weight: Tensor) -> str:
    if not isinstance(weight, nn.Parameter):
        return "is computed by a parametrization that is no mask"
    if isinstance(layer, MASKABLE) and name == "weight":
        return "was skipped, or not pruned yet"
    return f"no method prunes this parameter of {type(layer).__name__}: use attach"
