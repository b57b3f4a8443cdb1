"""What the README and the chapter on the comparison say about beginnings and exchange at 0.15 %."""

from __future__ import annotations

from pathlib import Path

from pandas import read_csv

from prunebook.book.paired import Lead, lead

RESULTS = Path(__file__).parents[3] / "book/results"
ROWS, TRIALS = (read_csv(RESULTS / f"{name}.csv") for name in ("starts", "trials"))
GATES, RULE, SOFT = (f"{name}, then exchange" for name in ("gumbel", "gradual", "soft"))


def gain(method: str) -> Lead:
    """Return by how many points exchange lifts what a method began."""
    rows = ROWS[ROWS["method"] == method]
    return lead(rows.assign(method=rows["exchange"].map({True: "with", False: "without"})), "with", "without")


def over(one: str, other: str, exchange: bool) -> Lead:
    found = lead(ROWS[ROWS["exchange"] == exchange], one, other)
    assert found.seeds == 5
    return found


def test_each_of_the_six_has_five_seeds_24_epochs_of_beginning_and_36_of_fine_tuning():
    cells = ROWS.groupby(["method", "exchange"])["seed"].nunique()
    assert (cells == 5).all()
    assert len(cells) == 6
    assert ROWS["settings"].str.contains("begin=0.4").all()
    assert (ROWS["epochs"] == 60).all()


def test_each_of_the_six_had_its_own_search_of_six_settings_on_validation_images():
    assert (TRIALS.groupby(["method", "exchange"]).size() == 6).all()
    assert "test_accuracy" not in TRIALS
    assert not set(TRIALS["seed"]) & set(ROWS["seed"])


def test_without_exchange_gates_lead_the_rule_by_4_points():
    found = over(GATES, RULE, exchange=False)
    assert found.low > 0
    assert round(found.mean) == 4


def test_exchange_adds_4_points_to_gates_6_to_soft_masks_and_8_to_the_rule():
    gains = [gain(method) for method in (GATES, SOFT, RULE)]
    assert [round(found.mean) for found in gains] == [4, 6, 8]
    assert all(found.low > 2 for found in gains)


def test_with_exchange_gates_and_the_rule_tie_near_95_percent_and_soft_masks_lie_0_3_points_behind_the_rule():
    assert over(GATES, RULE, exchange=True).tie
    found = over(RULE, SOFT, exchange=True)
    assert (round(found.mean, 1), found.low > 0) == (0.3, True)
    means = 100 * ROWS[ROWS["exchange"]].groupby("method")["test_accuracy"].mean()
    assert means[[GATES, RULE]].between(94.5, 95.1).all()


def test_exchange_fills_up_the_399_weights_of_which_some_are_lost_on_no_path_without_it():
    kept = ROWS.groupby("exchange")["kept"]
    assert (kept.min()[True], kept.max()[True]) == (399, 399)
    assert kept.max()[False] < 399
