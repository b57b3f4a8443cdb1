"""The search for settings: as many trials for each method, and the best of them in all tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from pandas import read_csv
from small import make_prototypes

from prunebook.experiments import comparison, search
from prunebook.experiments.chosen import CHOSEN
from prunebook.experiments.search import EXCHANGE, METHODS
from prunebook.experiments.tables import append_row

STORED = Path(__file__).parents[2] / "book/results/search.csv"
SEARCHED = [name for name, method in METHODS.items() if method.rates]


def test_every_method_is_searched_as_much_by_a_seed_that_is_in_no_table():
    runs = search.search_runs(STORED)
    tried = Counter((run.method, run.density) for run in runs)
    assert set(tried.values()) == {6}
    assert {name for name, _ in tried} == set(SEARCHED)
    assert len(tried) == 3 * len(SEARCHED) - 2 * 3  # the dense network, and two methods for whole units
    assert {run.seed for run in runs} == {search.SEARCH_SEED}
    assert search.SEARCH_SEED not in {run.seed for run in comparison.frontier_runs()}


def test_the_search_begins_with_rates_and_goes_on_from_the_best(tmp_path):
    table = tmp_path / "search.csv"

    def runs(method):
        return [run for run in search.search_runs(table) if run.method == method and run.density == 0.005]

    def fill(accuracies):
        for run, accuracy in zip(runs("gumbel"), accuracies, strict=True):
            append_row(table, run, {"validation_accuracy": accuracy})

    first = runs("gumbel")
    assert [run.settings["lr"] for run in first] == list(METHODS["gumbel"].rates)
    assert {run.settings["lr_gates"] for run in first} == {METHODS["gumbel"].values[0]}
    assert not runs(EXCHANGE)
    fill([0.1, 0.4, 0.3, 0.2])
    assert [run.settings for run in runs("gumbel")[4:]] == [
        {"lr": METHODS["gumbel"].rates[1], "lr_gates": value} for value in METHODS["gumbel"].values[1:]
    ]
    fill([0.1, 0.4, 0.3, 0.2, 0.3, 0.5])
    assert {run.settings["lr_gates"] for run in runs(EXCHANGE)} == {METHODS["gumbel"].values[-1]}
    assert {run.settings["swap"] for run in runs(EXCHANGE)} == {0.12}


def test_the_settings_are_the_best_of_the_search():
    table = read_csv(STORED)
    assert "test_accuracy" not in table
    assert len(table) == len(search.search_runs(STORED))
    for (method, density), rows in table.groupby(["method", "density"]):
        tried = rows.set_index("settings").validation_accuracy
        chosen = search.RUN.but(settings=search.settings_of(method, density)).columns()["settings"]
        assert tried[chosen] == tried.max(), method
    assert {(name, at) for name, found in CHOSEN.items() for at in found} == set(
        zip(table["method"], table["density"], strict=True)
    )


def test_other_densities_take_the_settings_of_the_nearest_and_some_methods_those_of_others():
    chosen = CHOSEN["gumbel"]
    assert search.settings_of("gumbel", 0.01) == chosen[0.005]
    assert search.settings_of("gumbel", 0.02) == chosen[0.05]  # a factor of 2.5, and 4 from 0.005
    assert search.settings_of("gumbel", 0.5) == chosen[0.05]
    assert search.settings_of("SNIP, shuffled", 0.0015) == CHOSEN["SNIP"][0.0015]
    again = search.settings_of("learned mask, shuffled", 0.005)
    assert again == {**chosen[0.005], "lr_again": CHOSEN["random"][0.005]["lr"]}


def test_settings_are_chosen_without_the_test_split(monkeypatch):
    monkeypatch.setattr(search, "data_of", lambda name: replace(make_prototypes(400, 3), test=None))
    row = search.validate(search.RUN.but(epochs=1, settings={"lr": 0.004}))
    assert row["validation_accuracy"] > 0
    assert "test_accuracy" not in row
