"""Check arguments: each ValueError names the argument, says what is allowed and shows what was given.

All but `require_finite` return the value, so that a check can stand where the value is used.

Chapter: book/dense.ipynb
"""

import math
import warnings
from collections.abc import Collection, Mapping
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


def require_positive(name: str, value: float) -> float:
    """Require a finite number above 0."""
    return _require(name, value, 0 < value < math.inf, "above 0 and finite")


def require_not_negative(name: str, value: float) -> float:
    """Require a finite number of at least 0."""
    return _require(name, value, 0 <= value < math.inf, "at least 0 and finite")


def require_at_least(name: str, value: Tensor | float, least: float) -> Tensor | float:
    """Require a number, or every number in a tensor, to be at least `least`."""
    inside = value >= least
    return _require(
        name, value, bool(inside.all() if isinstance(inside, Tensor) else inside), f"at least {least:g}"
    )


def require_share(name: str, value: float, zero: bool = True, one: bool = True) -> float:
    """Require a share from 0 to 1; `zero` and `one` say whether 0 and 1 themselves are allowed."""
    inside = 0 < value < 1 or (zero and value == 0) or (one and value == 1)
    lower, upper = "at least 0" if zero else "above 0", "at most 1" if one else "below 1"
    return _require(name, value, inside, f"a share, {lower} and {upper}")


def require_percent(name: str, value: float) -> float:
    """Require a percentage from 0 to 100."""
    return _require(name, value, 0 <= value <= 100, "a percentage from 0 to 100")


def warn_of_share(name: str, value: float) -> None:
    """Warn, on behalf of the caller's caller, if a percentage looks like a share."""
    if 0 < value < 1:
        warnings.warn(
            f"{name} is in percent: {name}={value:g} means {value:g} %, not {100 * value:g} %", stacklevel=3
        )


def require_whole(name: str, value: int, least: int, most: int | None = None) -> int:
    """Require an int from `least` to `most`, or without `most` of at least `least`; no bool, no 2.0."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
    inside = whole and least <= value <= (value if most is None else most)
    return _require(name, value, inside, f"a whole number {allowed}")


def require_one_of(name: str, value: T, allowed: Collection[T]) -> T:
    """Require one of the allowed values."""
    return _require(name, value, value in allowed, " or ".join(map(repr, allowed)))


def require_scores(name: str, scores: Tensor, least: float = -math.inf) -> Tensor:
    """Require a floating-point tensor with at least one element, all finite and at least `least`."""
    if scores.numel() == 0:
        raise ValueError(f"{name} must have at least one element, got an empty tensor")
    if not scores.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {scores.dtype}")
    low, high = scores.detach().aminmax()
    if not (low.isfinite() and high.isfinite()):
        raise ValueError(f"{name} must be finite, got NaN or infinite ones")
    if low < least:
        raise ValueError(f"{name} must be at least {least:g}, got {float(low)}")
    return scores


def require_finite(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Require tensors, given by layer name, without NaN or infinite values."""
    if broken := [layer for layer, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{name} must be finite, got NaN or infinite ones in layers {broken}")


def _require(name: str, value: T, allowed: bool, what: str) -> T:
    if not allowed:
        raise ValueError(f"{name} must be {what}, got {value!r}")
    return value
