"""Weight pruning: exactly k % of the weights, those with the smallest absolute values, become zero.

k is a percentage of the original weights, whatever was pruned before: after pruning 50 % and then 80 %, 80 %
are pruned. Of equal weights, the one with the lower index is pruned first: layer by layer, and row by row
within a layer.

Chapter: book/weights.ipynb
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import reduce
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prunebook.checks import require_finite, require_one_of, require_percent, require_whole, warn_of_share
from prunebook.cover import warn_uncovered
from prunebook.layers import Skip, all_weights, dense_weight, parameter_name, prunable
from prunebook.masking import masks, set_masks
from prunebook.step_state import renew

Scope = Literal["layer", "global"]


def prune_weights(
    model: nn.Module, k: float, scope: Scope = "layer", skip: Skip = (), regrow: bool = False
) -> nn.Module:
    """Mask the k % of the weights that are smallest in absolute value, in place, and return the model.

    Args:
        model: The weights of its linear and convolution layers are pruned, but not the biases.
        k: Percent of the original weights, 0 to 100: `exact_count(k, n)` of n weights end up masked.
        scope: "layer" prunes k % of each layer, "global" k % of all layers together.
        skip: Layers to leave alone: names, patterns such as "encoder.*", or a function of name and module
            that returns whether to skip it. Their weights do not count towards the k %.
        regrow: Whether to choose again among the dense values of all weights, so that k may also fall.
            Otherwise pruned weights stay pruned.

    Raises:
        ValueError: An argument is out of range, more than k % is pruned already and `regrow` is False, a
            weight is NaN or infinite, or a mask is not constant.

    Source: Han et al. 2015, arXiv 1506.02626, section 3, with exact counts instead of a threshold.
    """
    kept = masks(model)
    chosen: dict[str, Tensor] = {}
    for layers in groups(prunable(model, skip), scope):
        # to save memory, keep no reference to the scores beyond here: see tests/benchmarks/global_prune.py
        chosen |= named_masks(layers, select(magnitudes(layers), pruned_now(layers, kept), k, layers, regrow))
    set_masks(model, chosen)
    warn_of_share("k", k)
    warn_uncovered(model, skip)
    return model


def exact_count(k: float, n: int) -> int:
    """Return round(k n / 100) for k in [0, 100], without floating-point error; halves round to even.

    k counts as the decimal number that it prints as: 1.15 % of 1000 is exactly 11.5, not a little less.
    """
    from fractions import Fraction  # imported here because it also loads decimal

    return round(Fraction(str(require_percent("k", k))) * n / 100)


def choose(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return bool tensors in the scores' shapes, True at the `count` smallest scores of all tensors together.

    Of equal scores, the one with the lower index is chosen first: tensor by tensor, row by row within each.

    Args:
        scores: Floating-point tensors on one device, without NaN.
        count: From 0 to the total number of scores.
    """
    require_whole("count", count, 0, sum(part.numel() for part in scores))
    if count == 0:
        return [torch.zeros_like(part, dtype=torch.bool) for part in scores]
    dtype = reduce(torch.promote_types, (part.dtype for part in scores), torch.float32)
    parts = [part.detach().to(dtype) for part in scores]  # float16 would be compared with a rounded threshold
    threshold = _kth_smallest(parts, count)
    chosen = [part < threshold for part in parts]
    missing = count - sum(int(picked.count_nonzero()) for picked in chosen)
    for part, picked in zip(parts, chosen, strict=True):
        picked |= (ties := _first(part == threshold, missing))
        missing -= int(ties.count_nonzero())
    return chosen


def magnitudes(layers: Mapping[str, nn.Module]) -> list[Tensor]:
    """Return the absolute values of each layer's dense weight, in its shape.

    Raises:
        ValueError: A layer has NaN or infinite weights.
    """
    scores = {name: dense_weight(layer).detach().abs() for name, layer in layers.items()}
    if not all(score.max().isfinite() for score in scores.values() if score.numel()):
        require_finite("weights", scores)
    return list(scores.values())


def groups(layers: Mapping[str, nn.Module], scope: Scope) -> list[dict[str, nn.Module]]:
    """Return groups of layers; only layers in the same group compete: each alone, or all together."""
    require_one_of("scope", scope, get_args(Scope))
    return [dict(layers)] if scope == "global" else [{name: layer} for name, layer in layers.items()]


def select(
    scores: Sequence[Tensor],
    pruned: Sequence[Tensor],
    k: float,
    names: Iterable[str] = (),
    regrow: bool = False,
) -> list[Tensor]:
    """Return which of the n scores to prune at k %: those that are `pruned` already, then the smallest.

    Args:
        scores: At least 0. To save memory, they are overwritten where `pruned`, unless `regrow`.
        pruned: Bool tensors in the scores' shapes: what is pruned already.
        k: Percent of n, 0 to 100.
        names: Layers that the scores come from, for the error message.
        regrow: Whether to ignore `pruned` and choose among all scores.

    Raises:
        ValueError: More than k % are pruned already, and `regrow` is False.
    """
    n, already = sum(map(Tensor.numel, pruned)), sum(int(part.count_nonzero()) for part in pruned)
    count = exact_count(k, n)
    if count < already and not regrow:
        raise ValueError(
            f"k must be at least {100 * already / n:g}, pruned in {list(names)} already, got {k}; "
            "or let them regrow"
        )
    if not regrow:
        for score, gone in zip(scores, pruned, strict=True):
            score.masked_fill_(gone, -1)
    return choose(scores, count)  # eq-weights-mask


def pruned_now(layers: Mapping[str, nn.Module], kept: Mapping[str, Tensor]) -> list[Tensor]:
    """Return which weights of each layer are pruned now; `kept` is what `masks(model)` returns."""
    pruned = []
    for name, layer in layers.items():
        mask = kept.get(parameter_name(name, "weight"))
        pruned.append(torch.zeros_like(dense_weight(layer), dtype=torch.bool) if mask is None else ~mask)
    return pruned


def named_masks(layers: Iterable[str], pruned: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return masks that keep what is not pruned, by parameter name, ready for `set_masks`."""
    return {parameter_name(name, "weight"): ~gone for name, gone in zip(layers, pruned, strict=True)}


def sensitivity(
    model: nn.Module, ks: Iterable[float], accuracy: Callable[[nn.Module], float], skip: Skip = ()
) -> list[dict[str, str | float]]:
    """Prune one layer at a time, in a copy; return a row (layer, k, accuracy) for each layer and k.

    Example:
        `sensitivity(model, [50, 90, 99], lambda m: evaluate(m, data.valid).accuracy)`
    """
    rows: list[dict[str, str | float]] = []
    rising = sorted(ks)
    for layer, alone in prunable(model, skip).items():
        copy = deepcopy(model)
        others = [name for name, _, _, weight in all_weights(model) if weight is not dense_weight(alone)]
        for k in rising:
            prune_weights(copy, k, skip=others)
            rows.append({"layer": layer, "k": k, "accuracy": accuracy(copy)})
    return rows


def rewind(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Reset parameters and buffers to an earlier state_dict, but keep the masks; return the model.

    The state_dict may be from before or after masks were attached. Iterative magnitude pruning finds lottery
    tickets this way; each round prunes 20 % of the weights that are left::

        start = deepcopy(model.state_dict())
        for round in range(1, 11):
            fit(model, data)
            prune_weights(model, 100 * (1 - 0.8**round), scope="global")
            rewind(model, start)

    Raises:
        ValueError: The names differ, or `state` shares the model's memory instead of being a copy.

    Source: Frankle & Carbin 2019, arXiv 1803.03635, section 1.
    """
    now, earlier = _without_masks(model.state_dict()), _without_masks(state)
    if now.keys() != earlier.keys():
        raise ValueError(
            f"state must have the entries of the model, they differ in {sorted(now.keys() ^ earlier.keys())}"
        )
    if any(now[name].is_set_to(earlier[name]) for name in now):
        raise ValueError("state must be a copy, got the model's own: keep deepcopy(model.state_dict())")
    with torch.no_grad():
        for name, value in now.items():
            value.copy_(earlier[name])
    renew(model)
    return model


def _without_masks(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict without the entries of masks; those of other parametrizations stay."""
    return {
        name: value for name, value in state.items() if not re.search(r"parametrizations\.\w+\.0\.", name)
    }


def _kth_smallest(parts: Sequence[Tensor], count: int) -> float:
    flat = torch.cat([part.flatten() for part in parts])
    if flat.is_cuda:
        return float(flat.sort().values[count - 1])  # on a GPU, kthvalue is 150 times slower
    values = flat.cpu().numpy()
    least = values.min()  # many are equal to it where weights are pruned already: partition is slow on ties
    more = values[values > least]
    if (rank := count - (len(values) - len(more))) < 1:
        return float(least)
    more.partition(rank - 1)
    return float(more[rank - 1])


def _first(ties: Tensor, count: int) -> Tensor:
    """Return `ties` with only its first `count` True entries left."""
    flat = ties.flatten()
    if int(flat.count_nonzero()) > count:
        end = bisect_left(range(len(flat)), count, key=lambda end: int(flat[:end].count_nonzero()))
        flat[end:] = False
    return flat.view(ties.shape)
