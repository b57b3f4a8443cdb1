"""The table of pruned weights and units: what a row says, and that a seed has one dense network."""

from __future__ import annotations

import pytest
from small import make_prototypes

import prunebook as pb
from prunebook.experiments import pruning


@pytest.fixture
def data(monkeypatch):
    given = make_prototypes(30, 3)
    monkeypatch.setattr(pruning, "SIZES", (784, 20, 20, 10))
    monkeypatch.setattr(pruning, "data_of", lambda name: given)
    pruning._dense.cache_clear()
    return given


RUN = pruning.runs([0])[0]


def test_a_row_says_what_was_kept_and_measured(data):
    row = pruning.measure(RUN.but(k=90))
    first, second, third = 784 * 20, 400, 200  # the last layer is left whole
    kept = first - 14_112 + second - 360 + third
    assert row["kept"] == kept
    assert row["density"] == pytest.approx(kept / (first + second + third))
    by_hand = pb.prune_weights(pruning.train_dense(data, seed=0), 90, skip=["5"])
    assert row["validation_accuracy"] == pytest.approx(pb.evaluate(by_hand, data.valid).accuracy, abs=1e-6)


def test_fine_tuning_keeps_what_is_pruned(data):
    dense = pruning.train_dense(data, seed=0)
    net = pruning.prune(dense, "units", 50)
    before = pb.sparsity(net)
    pruning.fine_tune(net, data, epochs=2, seed=0)
    assert pb.sparsity(net) == before > 0.4
    assert pb.masks(dense) == {}


def test_the_rows_of_a_seed_come_from_one_dense_network(data, monkeypatch):
    trained, train = [], pruning.train_dense
    monkeypatch.setattr(pruning, "train_dense", lambda *given: trained.append(given[1]) or train(*given))
    for seed in (0, 1):
        rows = [pruning.measure(RUN.but(seed=seed, k=k)) for k in (0, 50, 99)]
        assert len({row["kept"] for row in rows}) == 3
    assert trained == [0, 1]
