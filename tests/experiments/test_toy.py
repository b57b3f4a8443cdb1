"""The toy of the reference tutorial: its data, its error, when a network has fallen in two, its table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import prunebook as pb
from prunebook.experiments import toy
from prunebook.experiments.commands import main
from prunebook.experiments.tables import read_rows
from prunebook.experiments.toy import Points, ToyRun

RUN = ToyRun("gumbel", 0, steps=40)


def test_the_two_outputs_are_those_of_the_tutorial():
    x = torch.tensor([[0.5, -0.5, 0.25, 0.75], [1.0, 1.0, -1.0, 0.0]])
    expected = [[3 * torch.tensor(1.0).sin().item(), 1.0], [0.0, -1.0]]
    torch.testing.assert_close(toy._points(x).y, torch.tensor(expected))


def test_parts_are_drawn_once_each_and_differ():
    data, again, other = toy.toy_data(3), toy.toy_data(3), toy.toy_data(4)
    assert [tuple(part.x.shape) for part in data] == [(1000, 4)] * 3
    assert torch.equal(data.test.x, again.test.x)
    assert not torch.equal(data.test.x, data.valid.x)
    assert not torch.equal(data.train.x, other.train.x)
    assert data.train.x.abs().max() <= 1
    assert data.train.x.abs().mean() == pytest.approx(0.5, abs=0.02)


def test_the_error_is_the_mean_square_with_hard_gates():
    net = pb.mlp([4, 2])
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.copy_(torch.tensor([1.0, 0.0]))
    points = Points(torch.zeros(5, 4), torch.tensor([[3.0, 1.0]]).expand(5, 2))
    assert toy.toy_error(net, points) == (4 + 1) / 2
    pb.GumbelPruning(net, logit=-8.0)  # in training some gates would be open; by their sign none is
    with torch.no_grad():
        pb.dense_weight(net[1]).fill_(5.0)
    points = Points(torch.ones(5, 4), points.y)
    net.train()
    assert toy.toy_error(net, points) == (4 + 1) / 2
    assert net.training


def network(first, second):
    net = nn.Sequential(nn.Linear(4, 2), nn.SiLU(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor(first))
        net[2].weight.copy_(torch.tensor(second))
    return net


def test_separated_means_no_path_across():
    own = [[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0]]
    assert toy.separated(network(own, [[1.0, 0.0], [0.0, 1.0]]))
    assert not toy.separated(network(own, [[1.0, 0.0], [0.1, 1.0]]))  # x1 reaches y2
    assert not toy.separated(network(own, [[1.0, 0.1], [0.0, 1.0]]))  # x3 reaches y1
    assert not toy.separated(network([own[0], [0.0, 0.1, 2.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]))


def test_the_pruned_network_has_so_many_weights_and_they_alone_are_tuned():
    net = toy.train_toy(RUN, toy.toy_data(0))
    kept = sum(int(layer.weight.count_nonzero()) for layer in pb.maskable(net).values())
    assert kept == RUN.count
    again = toy.train_toy(RUN, toy.toy_data(0))
    assert all(
        torch.equal(one, other) for one, other in zip(net.parameters(), again.parameters(), strict=True)
    )


def test_training_lowers_the_error():
    data, run = toy.toy_data(0), ToyRun("dense", 0, steps=150)
    errors = [toy.toy_error(toy.train_toy(replace(run, steps=n), data), data.valid) for n in (1, 150)]
    assert errors[1] < 0.3 * errors[0]


def test_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="method must be 'dense' or 'gumbel', got 'magic'"):
        toy.train_toy(replace(RUN, method="magic"), toy.toy_data(0))


def test_each_seed_has_a_dense_and_a_pruned_run_of_equal_steps():
    dense, pruned = toy.toy_runs(7)
    assert (dense.method, dense.count, pruned.method) == ("dense", 160, "gumbel")
    assert (dense.steps, dense.seed, dense.lr) == (pruned.steps, pruned.seed, pruned.lr)


def test_the_command_fills_the_table_once(tmp_path, monkeypatch, capsys):
    short = toy.toy_runs
    monkeypatch.setattr(
        "prunebook.experiments.commands.toy_runs", lambda seed: [replace(r, steps=30) for r in short(seed)]
    )
    for new in (2, 0):
        assert main(["toy", "--seeds", "1", "--table", str(tmp_path / "toy.csv")]) == 0
        assert f"{new} new rows, 2 in all" in capsys.readouterr().out
    dense, pruned = read_rows(tmp_path / "toy.csv")
    assert (dense["kept"], pruned["kept"]) == ("160", str(RUN.count))
    assert dense["separated"] == "False"
    for row in (dense, pruned):
        assert -1 <= float(row["symmetry_12"]) <= 1
        assert 0 < float(row["validation_error"]) != float(row["test_error"])
        assert "torch" in row["versions"]
