"""The tables of beginnings: which runs there are, by which settings, and that two share a beginning."""

from __future__ import annotations

import itertools
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


def test_each_beginning_is_trained_with_each_thing_that_may_follow_from_five_seeds():
    runs = starts.runs(table=TRIALS)
    cells = Counter((run.epochs, run.method, run.settings["swap"]) for run in runs)
    assert set(cells.values()) == {5}
    assert {cell[1:] for cell in cells if cell[0] == 60} == {
        (method, swap) for method in starts.TRIED[60] for swap in starts.AFTER.values()
    }


def test_six_settings_are_tried_for_each_by_a_seed_that_is_in_no_other_table():
    trials = starts.trials()
    cells = Counter((run.epochs, run.method, run.settings["swap"]) for run in trials)
    assert set(cells.values()) == {starts.TRIALS_EACH}
    assert len(cells) == 3 * 3 + 3 * 2
    assert {run.seed for run in trials} == {SEARCH_SEED}
    assert not {run.seed for run in starts.runs(table=TRIALS)} & {SEARCH_SEED}
    for one, other in itertools.pairwise(trials):  # in this order a beginning is trained once
        same = {**one.settings, "swap": 0} == {**other.settings, "swap": 0} and one.epochs == other.epochs
        assert same or other.settings["swap"] == starts.AFTER["exchange"]


def test_the_settings_are_the_best_of_the_trials():
    table = read_csv(TRIALS)
    assert "test_accuracy" not in table
    for run in starts.runs([0], TRIALS):
        rows = table.query("epochs == @run.epochs and method == @run.method")
        tried = rows[rows["settings"].str.endswith(f"swap={run.settings['swap']}")]
        assert len(tried) == starts.TRIALS_EACH
        best = tried.set_index("settings")["validation_accuracy"]
        assert best[run.columns()["settings"]] == best.max()


def test_without_all_trials_there_are_no_runs(tmp_path):
    assert starts.runs(table=tmp_path / "none.csv") == []


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
    assert not set(comparison.frontier_runs()) & set(starts.runs(table=TRIALS))
