"""Tables of long runs: rows that are right, and a sweep that goes on where it stopped."""

from __future__ import annotations

import pytest
import torch

import prunebook as pb
from prunebook.experiments import pruning as pruning_runs
from prunebook.experiments.pruning import Run


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    split = pb.Split(torch.randn(30, 1, 28, 28, generator=draw), torch.arange(30) % 10)
    return pb.Data(split, split, split, "noise", tuple("0123456789"), 0.0, 1.0)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(pruning_runs, "SIZES", (784, 20, 20, 10))


def test_a_row_says_what_was_kept_and_measured(data):
    dense = pruning_runs.train_dense(data, seed=0)
    row = pruning_runs.measure(dense, Run("weights", 90, 0, 0), data)
    first, second, third = 784 * 20, 400, 200  # the last layer is left whole
    kept = first - 14_112 + second - 360 + third
    assert row["kept"] == kept
    assert row["density"] == pytest.approx(kept / (first + second + third))
    by_hand = pb.prune_weights(dense, 90, skip=["5"])
    assert row["validation_accuracy"] == pytest.approx(pb.evaluate(by_hand, data.valid).accuracy, abs=1e-6)


def test_fine_tuning_keeps_what_is_pruned(data):
    dense = pruning_runs.train_dense(data, seed=0)
    net = pruning_runs.prune(dense, "units", 50)
    before = pb.sparsity(net)
    pruning_runs.fine_tune(net, data, epochs=2, seed=0)
    assert pb.sparsity(net) == before > 0.4
    assert pb.masks(dense) == {}


def test_the_seed_experiment_holds_every_k_once():
    runs = pruning_runs.seed_experiment(3)
    assert len(set(runs)) == len(runs) == 2 * len(pruning_runs.KS) + 3
    assert Run("weights", 0, 3, pruning_runs.TUNE_EPOCHS) in runs  # the dense network, trained as long
    assert {run.seed for run in runs} == {3}


def test_the_table_of_a_seed_comes_from_one_dense_network(data, tmp_path, monkeypatch):
    trained = []
    train = pruning_runs.train_dense
    monkeypatch.setattr(pruning_runs, "train_dense", lambda *given: trained.append(given[1]) or train(*given))
    runs = [Run("weights", k, seed, 0) for seed in (0, 1) for k in (0, 50, 99)]
    rows = list(pruning_runs.fill_pruning(runs, tmp_path / "table.csv", data))
    assert [(row["seed"], row["k"]) for row in rows] == [(run.seed, run.k) for run in runs]
    assert trained == [0, 1]
