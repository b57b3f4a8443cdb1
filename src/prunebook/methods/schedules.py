"""Schedules: how much is pruned at each point of a training run, and how a temperature or a density falls.

Progress is a number from 0, at the first training step, to 1, at the end of the run. A schedule is a function
of the progress that changes a network or its masks in place: pass it as `fit(schedule=...)`, or call it
before each training step and, with 1, after the last one.

Chapter: book/weights.ipynb
"""

import math
import warnings
from collections.abc import Callable

from torch import nn

from prunebook.checks import require_percent, require_share, require_whole, warn_of_share
from prunebook.cover import warn_uncovered
from prunebook.layers import Skip, parameter_name, prunable, skipped
from prunebook.masking import learning, masks, set_masks
from prunebook.methods.weights import Scope, exact_count, groups, magnitudes, named_masks, pruned_now, select


def one_shot(progress: float) -> float:
    """Return 1 for any progress: everything is pruned at the first step."""
    require_share("progress", progress)
    return 1.0


def linear(progress: float) -> float:
    """Return p for progress p in [0, 1]: each step prunes the same number of weights."""
    return float(require_share("progress", progress))


def cubic(progress: float) -> float:
    """Return 1 - (1 - p)^3 for progress p in [0, 1]: fast while many weights are redundant, then slow.

    Source: Zhu & Gupta 2017, arXiv 1710.01878, equation 1, from an initial sparsity of 0.
    """
    return 1 - (1 - require_share("progress", progress)) ** 3  # eq-cubic


def exponential(progress: float, rate: float = 5.0) -> float:
    """Return (1 - exp(-rate p)) / (1 - exp(-rate)) for progress p in [0, 1].

    If k = 100 (1 - exp(-rate)), which is 99.3 for rate 5, each step prunes the same share of what is left.
    """
    return math.expm1(-rate * require_share("progress", progress)) / math.expm1(-rate)


def ramp(progress: float, end: float, start: float = 0.0) -> float:
    """Return a number that rises evenly from 0 at `start` to 1 at `end` and stays 1; earlier it is negative.

    Used as an exponent, it changes a quantity by equal factors: a (b / a) ** ramp(progress, end) goes from a
    to b.
    """
    return min((progress - start) / (end - start), 1.0)


def prune_gradually(
    model: nn.Module,
    k: float,
    curve: Callable[[float], float] = cubic,
    scope: Scope = "layer",
    skip: Skip = (),
    start: float = 0.0,
    end: float = 0.75,
    updates: int = 100,
) -> Callable[[float], None]:
    """Attach masks and return `schedule(progress)`, which prunes `model` step by step up to k %.

    The schedule keeps no state: it needs only the progress and the masks, so a resumed run repeats exactly.
    Pruned weights never regrow.

    Args:
        model: Pruned in place.
        k: Percent of the original weights that are pruned from `end` on, 0 to 100.
        curve: Maps how far we are, from 0 at `start` to 1 at `end`, to the share of k pruned by then.
        scope: As for `prune_weights`.
        skip: As for `prune_weights`.
        start: Progress at which pruning starts, in [0, end).
        end: Progress at which k is reached, below 1: the rest of the training lets the network recover.
        updates: Number of pruning steps between `start` and `end`, at least 1.

    Raises:
        ValueError: An argument is out of range.
    """
    if not 0 <= start < end < 1:
        raise ValueError(f"start and end must satisfy 0 <= start < end < 1, got {start} and {end}")
    require_whole("updates", updates, 1)
    require_percent("k", k)
    warn_of_share("k", k)
    if soft := learning(model):
        raise ValueError(f"model must have constant masks or none, got {', '.join(soft)}: harden it first")
    skip = skipped(model, skip)
    _prune_up_to(model, 0, scope, skip)
    warn_uncovered(model, skip)

    def schedule(progress: float) -> None:
        done = ramp(progress, end, start)
        if done >= 0:
            more = _prune_up_to(model, k * curve(math.floor(done * updates) / updates), scope, skip)
            if more and progress == 1:
                warnings.warn(
                    f"k={k:g} was reached only after the last step, because no step fell between end={end:g} "
                    "and 1: the network was not trained with these masks. Train for more steps, or lower end",
                    stacklevel=2,
                )

    return schedule


def _prune_up_to(model: nn.Module, k: float, scope: Scope, skip: Skip) -> bool:
    """Prune each group of layers to k % unless more is pruned already, and return whether any was pruned.

    Where there are no masks, attach them.
    """
    kept, more = masks(model), False
    for layers in groups(prunable(model, skip), scope):
        pruned = pruned_now(layers, kept)
        count = exact_count(k, sum(part.numel() for part in pruned))
        if count > sum(int(part.count_nonzero()) for part in pruned):
            pruned, more = select(magnitudes(layers), pruned, k), True
        elif all(parameter_name(name, "weight") in kept for name in layers):
            continue
        set_masks(model, named_masks(layers, pruned))
    return more
