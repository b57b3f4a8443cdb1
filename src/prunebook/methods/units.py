"""Unit pruning: exactly k % of the units, those with the smallest incoming weights, are masked.

A unit is one output of a layer: a row of a linear layer or a filter of a convolution. Its weights, its bias
and its entries in a following BatchNorm are masked together, so its output is 0 and `shrink` can remove it.

Chapter: book/units.ipynb
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from prunebook.checks import warn_of_share
from prunebook.cover import warn_uncovered
from prunebook.layers import (
    TRANSPOSED,
    Skip,
    dense_weight,
    maskable,
    parameter_name,
    prunable,
    same_weight,
    skipped,
)
from prunebook.masking import masks, set_masks
from prunebook.methods.weights import Scope, choose, exact_count, groups, select
from prunebook.shrinking.graph import norms_after, output_layers, try_trace


def prune_units(
    model: nn.Module,
    k: float,
    scope: Scope = "layer",
    skip: Skip = (),
    outputs: Sequence[str] | None = None,
) -> nn.Module:
    """Mask the k % of the units with the smallest `unit_scores`, in place, and return the model.

    Pruned units stay pruned, and so do single weights that are masked. Each layer keeps at least one unit;
    a warning says where k would have left none.

    Args:
        model: The units of its linear and convolution layers are pruned.
        k: Percent of the original units, 0 to 100: `exact_count(k, n)` of n units end up masked.
        scope: "layer" prunes k % of each layer, "global" k % of all layers together.
        skip: Layers to leave alone, as for `prune_weights`; their units do not count towards the k %.
        outputs: Names of the output layers, which are left alone too; None means that the graph shows them.

    Raises:
        ValueError: An argument is out of range, more than k % is pruned already, a weight is NaN or infinite,
            or a mask is not constant.
    """
    graph = try_trace(model)
    last = output_layers(model, graph) if outputs is None else outputs
    skip = [*skipped(model, skip), *last]
    kept = masks(model)
    alive: dict[str, Tensor] = {}
    emptied: list[str] = []
    for group in groups(prunable(model, skip), scope):
        chosen, rescued = _choose(group, kept, k)
        alive |= chosen
        emptied += rescued
    if emptied:
        warnings.warn(f"k={k:g} would leave no unit in layers {emptied}: the best one is kept", stacklevel=2)
    set_masks(model, _unit_masks(model, alive, norms_after(model, graph), kept))
    warn_of_share("k", k)
    warn_uncovered(model, skip)
    return model


def unit_rows(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return a layer's weight, or a tensor of its shape, as (units, incoming weights of a unit)."""
    if isinstance(layer, TRANSPOSED):  # (in, out / groups, ...), with one block of inputs per group
        weight = weight.reshape(layer.groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


def unit_mask(layer: nn.Module, alive: Tensor) -> Tensor:
    """Return the mask, in the shape of the layer's weight, that keeps the units in `alive`, (units,) bool."""
    return spread_units(alive, dense_weight(layer), layer.groups if isinstance(layer, TRANSPOSED) else 0)


def spread_units(values: Tensor, weight: Tensor, groups: int = 0) -> Tensor:
    """Return one value per unit, (units,), expanded to the shape of a weight or a bias.

    `groups` is the attribute of a transposed convolution, or 0 for any other layer.
    """
    if groups:
        values = values.view(groups, 1, -1).expand(-1, len(weight) // groups, -1).flatten(0, 1)
    return values.view(*values.shape, *[1] * (weight.dim() - values.dim())).expand_as(weight)


def unit_scores(layer: nn.Module) -> Tensor:
    """Return the L2 norm of each unit's incoming weights, as masked now: (units,), float32 or wider.

    Source: Li et al. 2017, arXiv 1608.08710, section 3.1, with the L2 norm instead of the L1 norm.
    """
    weight = cast(Tensor, layer.weight)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    rows = unit_rows(layer, weight.detach())
    return cast(Tensor, torch.linalg.vector_norm(rows, dim=1, dtype=dtype))  # eq-unit-score


def _choose(
    layers: Mapping[str, nn.Module], kept: Mapping[str, Tensor], k: float
) -> tuple[dict[str, Tensor], list[str]]:
    """Return which units stay when k % of the units of these layers go: (units,) bool by layer name.

    The second value names the layers that would have lost every unit; each keeps its best one.
    """
    scores = _finite_scores(layers)
    silent = [_silent(name, layer, kept) for name, layer in layers.items()]
    gone = select(scores, silent, k, layers)
    emptied = [name for name, part in zip(layers, gone, strict=True) if part.all()]
    if emptied:
        for score in scores:  # of equal best scores keep the last, as `choose` would
            score[len(score) - 1 - int(score.flip(0).argmax())] = torch.inf
        n = sum(map(len, scores))
        gone = choose(scores, min(exact_count(k, n), n - len(scores)))
    return {name: ~part for name, part in zip(layers, gone, strict=True)}, emptied


def _finite_scores(layers: Mapping[str, nn.Module]) -> list[Tensor]:
    scores = {name: unit_scores(layer) for name, layer in layers.items()}
    broken = [name for name, score in scores.items() if not score.isfinite().all()]
    if broken:
        raise ValueError(f"weights must be finite, got units of NaN or infinite norm in layers {broken}")
    return list(scores.values())


def _silent(name: str, layer: nn.Module, kept: Mapping[str, Tensor]) -> Tensor:
    """Return which units, (units,) bool, have neither a weight nor the bias left."""
    speaks = unit_rows(layer, _kept_now(name, layer, "weight", kept)).any(dim=1)
    if layer.bias is not None:
        speaks |= _kept_now(name, layer, "bias", kept)
    return ~speaks


def _kept_now(name: str, layer: nn.Module, parameter: str, kept: Mapping[str, Tensor]) -> Tensor:
    mask = kept.get(parameter_name(name, parameter))
    return torch.ones_like(dense_weight(layer, parameter), dtype=torch.bool) if mask is None else mask


def _unit_masks(
    model: nn.Module, alive: Mapping[str, Tensor], norms: Mapping[str, str], kept: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return masks for weights, biases and BatchNorms, by parameter name, that keep the units in `alive`."""
    modules = dict(model.named_modules())
    keep: dict[tuple[str, str], Tensor] = {}
    for first, units in alive.items():
        twins = [name for name, layer in maskable(model).items() if same_weight(layer, modules[first])]
        for name in twins:
            keep[name, "weight"] = unit_mask(modules[name], units)
            for speaker in (name, *(norm for norm, source in norms.items() if source == name)):
                keep.setdefault((speaker, "weight"), units)
                keep[speaker, "bias"] = units
    return {
        parameter_name(name, parameter): _kept_now(name, modules[name], parameter, kept) & mask
        for (name, parameter), mask in keep.items()
        if getattr(modules[name], parameter) is not None
    }
