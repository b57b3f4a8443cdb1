"""The protocol of the comparison: which runs there are, by which settings, and what their rows say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import make_prototypes

import prunebook as pb
from prunebook.experiments import comparison as compare
from prunebook.experiments import recipes, search
from prunebook.experiments.comparison import CLOSE, DENSITIES, METHODS
from prunebook.tools.costs import macs, stored_bytes

RESULTS = Path(__file__).parents[2] / "book/results"
RUN = search.RUN.but(
    method="magnitude, global, one-shot", density=0.1, epochs=5, settings={"lr": 0.004, "before": 0.4}
)


@pytest.fixture
def data(monkeypatch):
    given = make_prototypes(400, 3)
    given = replace(given, test=pb.Split(given.test.images[:50], given.test.labels[:50]))
    monkeypatch.setattr(compare, "data_of", lambda name: given)
    return given


def test_a_row_says_what_the_network_can_do_and_what_it_costs(data):
    row = compare.measure(RUN)
    net = METHODS[RUN.method].train(RUN, data)  # once more: a run repeats itself
    small = pb.shrink(net)
    assert row["kept"] == 26_620
    assert 0 < row["effective"] <= 26_620
    assert row["validation_accuracy"] == pytest.approx(pb.evaluate(net, data.valid).accuracy, abs=1e-6)
    assert row["test_accuracy"] == pytest.approx(pb.evaluate(net, data.test).accuracy, abs=1e-6)
    assert (row["macs"], row["macs_nonzero"]) == tuple(macs(small, data.test.images[:1]).__dict__.values())
    assert [row[f"bytes_{form}"] for form in ("dense", "csr", "bitmask")] == list(
        vars(stored_bytes(small)).values()
    )
    assert min(row["ms"], row["dense_ms"], row["seconds"]) > 0
    assert row["threads"] == torch.get_num_threads()


def test_the_table_has_five_seeds_where_methods_differ_and_two_elsewhere():
    runs = [run for run in compare.frontier_runs() if run.data == "mnist" and run.epochs == compare.EPOCHS]
    seeds = Counter((run.method, run.density) for run in runs if run.shift == 0)
    whole = [
        name
        for name, method in METHODS.items()
        if method.rates and all(seeds[name, density] >= 2 for density in DENSITIES)
    ]
    assert len(whole) >= 14
    assert {seeds[name, density] for name in whole for density in CLOSE} == {5}
    assert set(METHODS) == {run.method for run in runs}
    assert len(set(runs)) == len(runs)


def test_runs_that_cannot_be_are_left_out():
    found = compare.runs(["dense", "linear classifier", "unit norm"], [0.5, 0.02, 0.0015], [7], 3, "fashion")
    assert [(run.method, run.density) for run in found] == [
        ("dense", 1.0),
        ("linear classifier", 7840 / 266_200),
        ("linear classifier", 0.02),
        ("linear classifier", 0.0015),
        ("unit norm", 0.5),
        ("unit norm", 0.02),
    ]
    assert {(run.seed, run.epochs, run.data) for run in found} == {(7, 3, "fashion")}


def test_the_network_is_lenet():
    assert sum(p.numel() for p in pb.lenet_300_100().parameters() if p.dim() == 2) == recipes.WEIGHTS
    assert recipes.NETWORK == "784-300-100-10"
