"""The tables of beginnings: which runs there are, by which settings, and that two share a beginning."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from pandas import read_csv
from small import make_prototypes

from prunebook.experiments import comparison, recipes, starts
from prunebook.experiments.search import METHODS, SEARCH_SEED

TRIALS = Path(__file__).parents[2] / "book/results/trials.csv"


@pytest.fixture
def data(monkeypatch):
    given = make_prototypes(400, 3)
    monkeypatch.setattr(starts, "data_of", lambda name: given)
    monkeypatch.setattr(recipes, "BATCH_SIZE", 40)
    starts._begin.cache_clear()
    yield given
    starts._begin.cache_clear()


def test_each_beginning_is_trained_with_exchange_and_without_from_five_seeds():
    cells = Counter((run.method, run.settings["swap"] > 0) for run in starts.runs())
    assert set(cells.values()) == {5}
    assert len(cells) == 3 * 2


def test_six_settings_are_tried_for_each_by_a_seed_that_is_in_no_other_table():
    trials = starts.trials()
    assert set(Counter((run.method, run.settings["swap"]) for run in trials).values()) == {6}
    assert {run.seed for run in trials} == {SEARCH_SEED}
    assert not {run.seed for run in starts.runs()} & {SEARCH_SEED}
    for one, other in zip(trials[::2], trials[1::2], strict=True):  # in this order the beginning is shared
        assert {**one.settings, "swap": 0.0} == other.settings
        assert one.but(settings={}) == other.but(settings={})


def test_the_settings_are_the_best_of_the_trials():
    table = read_csv(TRIALS)
    assert "test_accuracy" not in table
    for (method, exchange), tried in table.groupby(["method", "exchange"]):
        assert len(tried) == 6
        best = tried.set_index("settings")["validation_accuracy"]
        (run,) = {run.columns()["settings"] for run in starts.runs([0]) if matches(run, method, exchange)}
        assert best[run] == best.max(), method


def matches(run, method, exchange):
    return run.method == method and (run.settings["swap"] > 0) == exchange


def test_two_runs_that_begin_alike_do_so_once_and_are_what_the_recipe_trains(data):
    runs = [run.but(epochs=5, density=0.05) for run in starts.trials()[:2]]
    rows = [starts.measure(run) for run in runs]
    assert starts._begin.cache_info().misses == 1
    for run, row in zip(runs, rows, strict=True):
        net = METHODS[run.method].train(run, data)
        again = starts.scores(net, data, "train", "validation", "test")
        assert again.items() <= row.items()
        assert 0 < row["effective"] <= row["kept"] <= recipes.count(run)


def test_trials_never_see_the_test_split(data, monkeypatch):
    monkeypatch.setattr(starts, "data_of", lambda name: replace(data, test=None))
    row = starts.validate(starts.trials()[0].but(epochs=5, density=0.05))
    assert row["validation_accuracy"] > 0
    assert "test_accuracy" not in row


def test_no_run_of_the_comparison_is_one_of_these():
    assert not set(comparison.frontier_runs()) & set(starts.runs())
