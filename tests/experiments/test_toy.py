"""The toy of the reference tutorial: its data, its error, when a network has fallen in two, its table."""

from __future__ import annotations

import pytest
import torch
from small import chain

import prunebook as pb
from prunebook.experiments import toy
from prunebook.experiments.toy import Points

RUN = toy.GUMBEL.but(steps=40)


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


def test_separated_means_no_path_across():
    own = [[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0]]
    assert toy.separated(chain(own, [[1.0, 0.0], [0.0, 1.0]]))
    assert not toy.separated(chain(own, [[1.0, 0.0], [0.1, 1.0]]))  # x1 reaches y2
    assert not toy.separated(chain(own, [[1.0, 0.1], [0.0, 1.0]]))  # x3 reaches y1
    assert not toy.separated(chain([own[0], [0.0, 0.1, 2.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]))


def test_the_pruned_network_has_so_many_weights_and_they_alone_are_tuned():
    net = toy.train_toy(RUN, toy.toy_data(0))
    kept = sum(int(layer.weight.count_nonzero()) for layer in pb.maskable(net).values())
    assert kept == RUN.count
    again = toy.train_toy(RUN, toy.toy_data(0))
    assert all(
        torch.equal(one, other) for one, other in zip(net.parameters(), again.parameters(), strict=True)
    )


def test_training_lowers_the_error():
    data, run = toy.toy_data(0), toy.DENSE
    errors = [toy.toy_error(toy.train_toy(run.but(steps=n), data), data.valid) for n in (1, 150)]
    assert errors[1] < 0.3 * errors[0]


def test_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="method must be 'dense' or 'gumbel', got 'magic'"):
        toy.train_toy(RUN.but(method="magic"), toy.toy_data(0))


def test_a_row_says_what_was_kept_and_measured():
    dense, pruned = (toy.measure(run.but(steps=30)) for run in toy.runs([10]))
    assert (dense["kept"], pruned["kept"], dense["separated"]) == (160, RUN.count, False)
    for row in (dense, pruned):
        assert -1 <= row["symmetry_12"] <= 1
        assert 0 < row["validation_error"] != row["test_error"]
