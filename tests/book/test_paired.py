"""Leads over seeds: by hand, and as scipy finds them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas import DataFrame
from scipy import stats

from prunebook.book.paired import Lead, lead


def rows_of(**accuracies):
    return DataFrame(
        [
            {"method": name, "seed": seed, "test_accuracy": value}
            for name, values in accuracies.items()
            for seed, value in enumerate(values)
        ]
    )


def test_a_lead_by_hand():
    # differences of 1 and 3 points: mean 2, standard error 1, and t(1) = 12.706
    found = lead(rows_of(a=[0.91, 0.95], b=[0.90, 0.92]), "a", "b")
    assert found == pytest.approx((2, 2 - 12.706, 2 + 12.706, 2), abs=1e-3)
    assert found.tie
    assert str(found) == "+2.0 (\u221210.7 to +14.7)"
    assert not Lead(0.4, 0.2, 0.6, 5).tie
    assert str(Lead(-0.4, -0.6, -0.2, 5)) == "\u22120.40 (\u22120.60 to \u22120.20)"


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=8))
def test_the_interval_is_that_of_scipy(pairs):
    one, other = np.array(pairs).T
    if np.ptp(one - other) < 1e-6:
        return
    found = lead(rows_of(one=one, other=other), "one", "other")
    wanted = stats.ttest_rel(100 * one, 100 * other).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-6, abs=1e-6)
    back = lead(rows_of(one=one, other=other), "other", "one")
    assert (back.mean, back.low, back.high) == pytest.approx((-found.mean, -found.high, -found.low))


def test_only_seeds_that_both_have_are_compared():
    rows = rows_of(a=[0.9, 0.8, 0.7], b=[0.8, 0.75])
    assert lead(rows, "a", "b").seeds == 2
    with pytest.raises(ValueError, match="two seeds of both 'a' and 'c', got 0"):
        lead(rows, "a", "c")
    with pytest.raises(ValueError, match="one row for each method and seed"):
        lead(DataFrame([*rows.to_dict("records"), rows.iloc[0].to_dict()]), "a", "b")
