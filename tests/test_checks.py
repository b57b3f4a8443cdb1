import math

import pytest
import torch

from prunebook.checks import (
    require_at_least,
    require_finite,
    require_not_negative,
    require_one_of,
    require_percent,
    require_positive,
    require_scores,
    require_share,
    require_whole,
)


def open_share(name, value):
    return require_share(name, value, zero=False, one=False)


@pytest.mark.parametrize(
    ("require", "allowed", "refused", "words"),
    [
        (require_positive, [1e-300, 1, 1e300], [0, -1.0, math.nan, math.inf], "above 0 and finite"),
        (require_not_negative, [0, 2.5], [-1e-9, math.nan, math.inf], "at least 0 and finite"),
        (require_percent, [0, 99.85, 100], [-1, 100.001, math.nan, math.inf], "a percentage from 0 to 100"),
        (require_share, [0, 0.5, 1], [-0.1, 1.1, 50, math.nan], "a share, at least 0 and at most 1"),
        (open_share, [1e-9, 0.999], [0.0, 1, math.nan, math.inf], "a share, above 0 and below 1"),
        (
            lambda name, value: require_whole(name, value, 2, 5),
            [2, 5],
            [1, 6, 3.0, True, None, math.nan, "3"],
            "a whole number from 2 to 5",
        ),
        (
            lambda name, value: require_whole(name, value, 1),
            [1, 10**12],
            [0, -3, 1.5, False],
            "a whole number of at least 1",
        ),
        (
            lambda name, value: require_one_of(name, value, ("layer", "global")),
            ["layer", "global"],
            ["Layer", None],
            "'layer' or 'global'",
        ),
        (
            lambda name, value: require_at_least(name, value, 0.5),
            [0.5, torch.tensor([1.0, 2.0])],
            [0.4, math.nan, torch.tensor([1.0, 0.0])],
            r"at least 0\.5",
        ),
    ],
)
def test_checks_return_what_is_allowed_and_refuse_the_rest(require, allowed, refused, words):
    for value in allowed:
        assert require("name", value) is value
    for value in refused:
        with pytest.raises(ValueError, match=f"name must be {words}, got ") as raised:
            require("name", value)
        assert str(raised.value).endswith(repr(value))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (torch.empty(0), "x must have at least one element, got an empty tensor"),
        (torch.ones(3, dtype=torch.int64), r"x must be floating point, got torch\.int64"),
        (torch.tensor([1.0, math.nan]), "x must be finite, got NaN or infinite ones"),
        (torch.tensor([1.0, -math.inf]), "x must be finite"),
        (torch.tensor([1.0, -2.0]), r"x must be at least 0, got -2\.0"),
    ],
)
def test_scores(scores, message):
    assert require_scores("x", torch.tensor([-1.0, 2.0])).tolist() == [-1, 2]
    with pytest.raises(ValueError, match=message):
        require_scores("x", scores, least=0)


def test_finite_tensors():
    require_finite("weights", {"a": torch.ones(2), "b": torch.empty(0)})
    broken = {"a": torch.ones(2), "b": torch.tensor([math.inf]), "c": torch.tensor([1.0, math.nan])}
    with pytest.raises(
        ValueError, match=r"weights must be finite, got NaN or infinite ones in layers \['b', 'c'\]"
    ):
        require_finite("weights", broken)
