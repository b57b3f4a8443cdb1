"""What the chapter on the comparison says about beginnings and exchange at 0.15 %."""

from __future__ import annotations

from pathlib import Path

from pandas import read_csv

from prunebook.book.paired import Lead, lead
from prunebook.experiments.starts import AFTER

RESULTS = Path(__file__).parents[3] / "book/results"
ROWS = read_csv(RESULTS / "starts.csv").query("epochs == 60")
TRIALS = read_csv(RESULTS / "trials.csv").query("epochs == 60")
GATES, RULE, SOFT = (f"{name}, then exchange" for name in ("gumbel", "gradual", "soft"))
EXCHANGE, FILLED, NOTHING = AFTER
MEANS = 100 * ROWS.groupby(["method", "after"])["test_accuracy"].mean()


def gain(method: str, after: str, before: str = NOTHING) -> Lead:
    """Return by how many points one way to go on leads another, for what a method began."""
    rows = ROWS[ROWS["method"] == method]
    return lead(rows.assign(method=rows["after"]), after, before)


def over(one: str, other: str, after: str) -> Lead:
    found = lead(ROWS[ROWS["after"] == after], one, other)
    assert found.seeds == 5
    return found


def test_each_of_the_nine_has_five_seeds_24_epochs_of_beginning_and_36_of_fine_tuning():
    cells = ROWS.groupby(["method", "after"])["seed"].nunique()
    assert (cells == 5).all()
    assert len(cells) == 9
    assert ROWS["settings"].str.contains("begin=0.4").all()


def test_each_of_the_nine_had_its_own_search_of_six_settings_on_validation_images():
    assert (TRIALS.groupby(["method", "after"]).size() == 6).all()
    assert "test_accuracy" not in TRIALS
    assert not set(TRIALS["seed"]) & set(ROWS["seed"])


def test_with_nothing_else_gates_lead_the_rule_by_7_5_points_and_leave_392_weights_where_it_leaves_350():
    assert (round(over(GATES, RULE, NOTHING).mean, 1), over(GATES, RULE, NOTHING).low > 0) == (7.5, True)
    kept = ROWS[ROWS["after"] == NOTHING].groupby("method")["kept"].mean().round()
    assert [kept[name] for name in (RULE, GATES)] == [350, 392]


def test_filling_up_gives_points_to_the_rule_and_soft_masks_and_hardly_any_to_gates():
    found = [gain(method, FILLED) for method in (RULE, SOFT, GATES)]
    assert [round(each.mean, 1) for each in found] == [4.3, 1.6, 0.1]
    assert all(each.low > 0 for each in found)
    assert (round(over(GATES, RULE, FILLED).mean, 1), over(GATES, RULE, FILLED).low > 0) == (3.3, True)


def test_exchange_gives_more_than_filling_up_to_each():
    found = [gain(method, EXCHANGE, FILLED) for method in (GATES, RULE, SOFT)]
    assert [round(each.mean, 1) for each in found] == [1.0, 3.6, 4.0]
    assert all(each.low > 0 for each in found)


def test_with_exchange_gates_lead_the_rule_and_the_rule_soft_masks():
    gates, soft = over(GATES, RULE, EXCHANGE), over(RULE, SOFT, EXCHANGE)
    assert [round(value, 1) for value in gates[:3]] == [0.7, 0.3, 1.1]
    assert round(MEANS[GATES, EXCHANGE], 1) == 95.6
    assert (round(soft.mean, 1), soft.low > 0) == (0.3, True)


def test_what_is_exchanged_keeps_399_weights():
    kept = ROWS.groupby("after")["kept"]
    assert kept.max()[EXCHANGE] <= 399
    assert kept.max()[NOTHING] < 399
