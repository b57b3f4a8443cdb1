"""Weight pruning: the k % of the weights with the smallest absolute value become zero, exactly.

k counts the original weights, whatever was pruned before: 50 and then 80 is 80. Of equal weights the one with
the lower index goes first, in the order of the layers and row by row within each.

Chapter: book/weights.ipynb
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn

from prunebook.masking import dense_weight, masks, parameter_name, plain_state, prunable, set_masks

Scope = Literal["layer", "global"]


def prune_weights(
    model: nn.Module, k: float, scope: Scope = "layer", skip: Sequence[str] = (), regrow: bool = False
) -> nn.Module:
    """Mask the k % smallest weights in place and return the model; what is pruned stays pruned.

    Args:
        model: Its linear and convolution layers are pruned, biases never.
        k: Percent of the original weights, 0 to 100: ``exact_count(k, n)`` of n weights end up masked.
        scope: "layer" prunes k % of each layer, "global" k % of all layers together.
        skip: Names of layers to leave alone; their weights do not count.
        regrow: Choose anew among the dense values of all weights, so that k may also fall.

    Raises:
        ValueError: An argument is out of range, more is pruned already, or weights are NaN or infinite.

    Source: Han et al. 2015, arXiv 1506.02626, section 3; exact counts in place of a threshold.
    """
    kept = masks(model)
    chosen: dict[str, Tensor] = {}
    for layers in groups(prunable(model, skip), scope):
        # nothing as large as the scores may outlive this line: see tests/benchmarks/global_prune.py
        chosen |= _keep_others(select(magnitudes(layers), _pruned(layers, kept), k, layers, regrow), layers)
    set_masks(model, chosen)
    return model


def exact_count(k: float, n: int) -> int:
    """Return round(k n / 100) for k in [0, 100], without floating-point error; exact halves go to even.

    k is the decimal number that it prints as: 1.15 % of 1000 is 11.5, not a little less.
    """
    if not 0 <= k <= 100:
        raise ValueError(f"k must be a percentage from 0 to 100, got {k}")
    return round(Fraction(str(k)) * n / 100)


def smallest(scores: Tensor, count: int) -> Tensor:
    """Return a bool tensor of the scores' shape, True at the ``count`` smallest; of ties, the lower index.

    The scores are floating point and not NaN. On the CPU it takes one copy of them, partitioned in place.
    """
    if not 0 <= count <= scores.numel():
        raise ValueError(f"count must be from 0 to the {scores.numel()} scores, got {count}")
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    flat = scores.detach().flatten()
    threshold = _kth_smallest(flat, count)
    chosen, ties = flat < threshold, flat == threshold
    missing = count - int(chosen.count_nonzero())
    if int(ties.count_nonzero()) > missing:
        end = bisect_left(range(len(ties)), missing, key=lambda end: int(ties[:end].count_nonzero()))
        ties[end:] = False
    return chosen.logical_or_(ties).view(scores.shape)


def magnitudes(layers: Mapping[str, nn.Module]) -> Tensor:
    """Return the absolute dense weights of all layers as one flat tensor, at least float32.

    Raises:
        ValueError: A layer has NaN or infinite weights.
    """
    weights = {name: dense_weight(layer).detach() for name, layer in layers.items()}
    scores = torch.cat([weight.flatten() for weight in weights.values()]).abs_()
    if scores.numel() and not scores.max().isfinite():
        broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
        raise ValueError(f"weights must be finite, got NaN or infinite ones in layers {broken}")
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def groups(layers: Mapping[str, nn.Module], scope: Scope) -> list[dict[str, nn.Module]]:
    """Return the layers in the groups that compete with each other: each alone, or all in one."""
    if scope not in ("layer", "global"):
        raise ValueError(f"scope must be 'layer' or 'global', got {scope!r}")
    return [dict(layers)] if scope == "global" else [{name: layer} for name, layer in layers.items()]


def select(
    scores: Tensor, pruned: Tensor, k: float, names: Iterable[str] = (), regrow: bool = False
) -> Tensor:
    """Return which of the n scores are pruned at k %: first those in ``pruned``, then the smallest.

    The scores are at least 0; those of what is pruned are overwritten, to save memory. With ``regrow`` all
    start anew.

    Raises:
        ValueError: More than k % are pruned already and ``regrow`` is False; ``names`` says where.
    """
    count, already = exact_count(k, len(scores)), int(pruned.count_nonzero())
    if regrow:
        return smallest(scores, count)
    if count < already:
        least = 100 * already / len(scores)
        raise ValueError(
            f"k must be at least {least:g}, pruned in {list(names)} already, got {k}; or let them regrow"
        )
    return smallest(scores.masked_fill_(pruned, -1), count)


def one_shot(progress: float) -> float:
    """Return 1: everything at once, at the first step."""
    _require_progress(progress)
    return 1.0


def linear(progress: float) -> float:
    """Return p, the same number of weights in each step, for progress p in [0, 1]."""
    _require_progress(progress)
    return float(progress)


def cubic(progress: float) -> float:
    """Return 1 - (1 - p)^3 for progress p in [0, 1]: fast while many weights are redundant, then slowly.

    Source: Zhu & Gupta 2017, arXiv 1710.01878, equation 1, from an initial sparsity of 0.
    """
    _require_progress(progress)
    return 1 - (1 - progress) ** 3


def exponential(progress: float, rate: float = 5.0) -> float:
    """Return (1 - exp(-rate p)) / (1 - exp(-rate)) for progress p in [0, 1].

    At k = 100 (1 - exp(-rate)), 99.3 for rate 5, equal steps prune equal shares of the weights left.
    """
    _require_progress(progress)
    return math.expm1(-rate * progress) / math.expm1(-rate)


def prune_gradually(
    model: nn.Module,
    k: float,
    curve: Callable[[float], float] = cubic,
    scope: Scope = "layer",
    skip: Sequence[str] = (),
    start: float = 0.0,
    end: float = 0.75,
    updates: int = 100,
) -> Callable[[float], None]:
    """Attach masks and return ``schedule(progress)``, which prunes ``model`` as far as it should be by then.

    Call it before each optimizer step, or pass it as ``fit(schedule=...)``. It keeps no state, so that a
    resumed run repeats exactly: all it needs are the progress and the masks. It never regrows.

    Args:
        model: Pruned in place.
        k: Percent of the original weights pruned from ``end`` on.
        curve: Share of k reached at a share of the way from ``start`` to ``end``.
        scope: As for ``prune_weights``.
        skip: As for ``prune_weights``.
        start: Progress at which pruning starts, in [0, end).
        end: Progress at which k is reached, below 1: the rest of the training lets the network recover.
        updates: Number of steps, at least 1, in which the way from ``start`` to ``end`` is gone.
    """
    if not 0 <= start < end < 1:
        raise ValueError(f"start and end must satisfy 0 <= start < end < 1, got {start} and {end}")
    if updates < 1:
        raise ValueError(f"updates must be at least 1, got {updates}")
    exact_count(k, 0)
    _prune_up_to(model, 0, scope, skip)

    def schedule(progress: float) -> None:
        done = min((progress - start) / (end - start), 1.0)
        if done >= 0:
            _prune_up_to(model, k * curve(math.floor(done * updates) / updates), scope, skip)

    return schedule


def sensitivity(
    model: nn.Module, ks: Iterable[float], accuracy: Callable[[nn.Module], float], skip: Sequence[str] = ()
) -> list[dict[str, str | float]]:
    """Prune one layer of a copy at a time and return a row (layer, k, accuracy) for each layer and k.

    Example:
        ``sensitivity(model, [50, 90, 99], lambda m: evaluate(m, data.valid).accuracy)``
    """
    rows: list[dict[str, str | float]] = []
    for layer in prunable(model, skip):
        copy = deepcopy(model)
        others = [name for name in prunable(model) if name != layer]
        for k in sorted(ks):
            prune_weights(copy, k, skip=others)
            rows.append({"layer": layer, "k": k, "accuracy": accuracy(copy)})
    return rows


def rewind(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Reset parameters and buffers to an earlier state_dict, masked or plain; masks stay. Return the model.

    Iterative magnitude pruning finds lottery tickets with it, 20 % of the weights left in each round::

        start = deepcopy(model.state_dict())
        for round in range(1, 11):
            fit(model, data)
            prune_weights(model, 100 * (1 - 0.8**round), scope="global")
            rewind(model, start)

    Raises:
        ValueError: The names differ, or ``state`` is the model's own memory instead of a copy.

    Source: Frankle & Carbin 2019, arXiv 1803.03635, section 1.
    """
    now, earlier = plain_state(model.state_dict()), plain_state(state)
    if now.keys() != earlier.keys():
        raise ValueError(
            f"state must have the entries of the model, they differ in {sorted(now.keys() ^ earlier.keys())}"
        )
    if any(now[name].is_set_to(earlier[name]) for name in now):
        raise ValueError("state must be a copy, got the model's own: keep deepcopy(model.state_dict())")
    with torch.no_grad():
        for name, value in now.items():
            value.copy_(earlier[name])
    return model


def _prune_up_to(model: nn.Module, k: float, scope: Scope, skip: Sequence[str]) -> None:
    """Prune to k % wherever less is pruned, and attach masks where there are none."""
    kept = masks(model)
    for layers in groups(prunable(model, skip), scope):
        pruned = _pruned(layers, kept)
        if exact_count(k, len(pruned)) > int(pruned.count_nonzero()):
            pruned = select(magnitudes(layers), pruned, k)
        elif all(parameter_name(name, "weight") in kept for name in layers):
            continue
        set_masks(model, _keep_others(pruned, layers))


def _pruned(layers: Mapping[str, nn.Module], kept: Mapping[str, Tensor]) -> Tensor:
    """Return which weights of the layers are masked now, flat, in the order of ``magnitudes``."""
    parts = []
    for name, layer in layers.items():
        mask = kept.get(parameter_name(name, "weight"))
        weight = dense_weight(layer)
        parts.append(torch.zeros_like(weight, dtype=torch.bool) if mask is None else ~mask)
    return torch.cat([part.flatten() for part in parts])


def _keep_others(gone: Tensor, layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the masks, by parameter name, that keep what is not in the flat ``gone``."""
    weights = {parameter_name(name, "weight"): dense_weight(layer) for name, layer in layers.items()}
    parts = gone.logical_not().split_with_sizes([weight.numel() for weight in weights.values()])
    return {name: part.view(weights[name].shape) for name, part in zip(weights, parts, strict=True)}


def _kth_smallest(flat: Tensor, count: int) -> float:
    if flat.is_cuda:
        return float(flat.kthvalue(count).values)
    values = flat.to("cpu", torch.promote_types(flat.dtype, torch.float32), copy=True).numpy()
    values.partition(count - 1)
    return float(values[count - 1])


def _require_progress(progress: float) -> None:
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must be from 0 to 1, got {progress}")
