"""The table of Gumbel gates: what a run trains, what its row says, and the table of wires."""

from __future__ import annotations

import pytest
import torch
from pandas import DataFrame, read_csv
from small import make_prototypes
from torch import nn

import prunebook as pb
from prunebook.experiments import gumbel as gr
from prunebook.experiments.sweep import sweep
from prunebook.tools.costs import count_weights

SMALL = "784-20-12-10"
RUN = gr.RUN.but(network=SMALL, epochs=6, fine_tune=6, lr=1e-2, lr_gates=0.2, lr_tune=2e-2)
SWAP = RUN.but(method=gr.EXCHANGE, share=0.2)


@pytest.fixture(scope="module", autouse=True)
def data():
    given = make_prototypes(600, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gr.NETWORKS, SMALL, lambda: pb.mlp([784, 20, 12, 10]))
        patch.setattr(gr, "BATCH_SIZE", 32)
        patch.setattr(gr, "data_of", lambda name: given)
        gr._trained_gates.cache_clear()
        yield given


@pytest.fixture(scope="module")
def filled(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    runs = [run.but(seed=seed) for seed in (0, 1) for run in (RUN, SWAP)]
    rows = list(sweep(runs, folder / "gumbel.csv", gr.measure))
    assert gr._trained_gates.cache_info().misses == 2, "once for each seed"
    return {(row["method"], row["seed"]): row for row in rows}, folder


def test_a_row_says_what_was_kept_and_measured(filled):
    rows, _ = filled
    total = 784 * 20 + 20 * 12 + 12 * 10
    for (method, _), row in rows.items():
        assert row["density"] == pytest.approx(row["kept"] / total, abs=1e-8)
        assert 0 < row["effective_density"] <= row["density"]
        assert row["kept"] == 399 if method == SWAP.method else 0 < row["kept"] <= 399
        assert 10 <= row["biases"] <= 42
        assert row["train_accuracy"] == row["validation_accuracy"] == row["test_accuracy"] > 0.5
        assert row["seconds"] > 0


def test_both_methods_start_from_the_same_gates_and_end_at_other_weights(data, filled):
    rows, folder = filled
    net = gr.train_gates(RUN, data)
    again = gr.fine_tune(gr.compact(net), RUN, data)
    assert round(pb.evaluate(again, data.test).accuracy, 6) == rows["gumbel", 0]["test_accuracy"]
    before = {(row["layer"], row["unit"], row["source"]) for row in gr.wire_rows(gr.compact(net))}
    after = read_csv(folder / "wires.csv").query("seed == 0")
    assert before != set(zip(after.layer, after.unit, after.source, strict=True))


def test_gates_are_frozen_at_the_count_and_compacting_loses_only_what_says_nothing(data):
    net = gr.train_gates(RUN, data)
    small = gr.compact(net)
    kept = sum(int(mask.sum()) for mask in pb.masks(net).values())
    assert kept == 399
    assert count_weights(small).kept == sum(int(mask.sum()) for mask in pb.masks(small).values()) <= kept
    assert count_weights(small).effective == count_weights(net).effective
    images = data.test.images[:50]
    assert torch.allclose(small(images), net.eval()(images), atol=1e-5)


def test_wires_build_the_same_network_again(data, filled):
    _, folder = filled
    table = read_csv(folder / "wires.csv")
    for seed in (0, 1):
        rows = table[table.seed == seed]
        assert int((rows.source >= 0).sum()) == 399
        net = gr.wired(table, seed)
        assert count_weights(net).kept == 399
        accuracy = pb.evaluate(net, data.test).accuracy
        assert round(accuracy, 6) == filled[0][SWAP.method, seed]["test_accuracy"]
    with pytest.raises(ValueError, match=r"seed must be one of \[0, 1\], got 2"):
        gr.wired(table, 2)


def test_wires_by_hand():
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net[1].weight[0, 5], net[3].weight[1, 0], net[3].bias[0] = 0.5, -2.0, 3.0
    assert gr.wire_rows(net) == [
        {"layer": 0, "unit": 0, "source": 5, "value": 0.5},
        {"layer": 1, "unit": 0, "source": -1, "value": 3.0},
        {"layer": 1, "unit": 1, "source": 0, "value": -2.0},
    ]
    again = gr.wired(DataFrame(gr.wire_rows(net)).assign(seed=7), 7)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(("network", "size", "biases"), [("784-10", 7840, 10), ("49-7-10", 413, 17)])
def test_a_dense_network_keeps_everything(network, size, biases):
    row = gr.measure(RUN.but(method="dense", network=network, count=size, epochs=2, fine_tune=0))
    assert (row["kept"], row["density"], row["biases"]) == (size, 1, biases)
    assert "wires" not in row
