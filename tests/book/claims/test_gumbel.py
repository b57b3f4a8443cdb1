"""What the chapter on Gumbel-Softmax pruning says about its stored table, and its examples by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch

import prunebook as pb
from prunebook.book.paired import lead

ROWS = pd.read_csv(Path(__file__).parents[3] / "book/results/gumbel.csv").query("data == 'mnist'")
GATED = ROWS[ROWS["network"] == "784-300-100-10"].query("method != 'dense'")
GATES, EXCHANGED = "gumbel", "gumbel, then exchange"


def accuracies(network, method, count):
    chosen = ROWS[(ROWS["network"] == network) & (ROWS["method"] == method) & (ROWS["count"] == count)]
    return 100 * chosen["test_accuracy"]


LINEAR = accuracies("784-10", "dense", 7840)
FEW = accuracies("784-300-100-10", EXCHANGED, 399)


def test_399_weights_are_0_15_percent_of_lenet():
    weights = [pb.dense_weight(layer).numel() for layer in pb.maskable(pb.lenet_300_100()).values()]
    assert weights == [235_200, 30_000, 1000]
    assert sum(weights) == 266_200
    assert round(0.0015 * 266_200) == 399


def test_every_point_is_of_five_seeds():
    assert (ROWS.groupby(["network", "method", "count"])["seed"].nunique() == 5).all()


def over(network, method, count, ours=EXCHANGED):
    """Return by how many points 399 weights chosen among LeNet's lead another network."""
    few = ROWS[(ROWS["network"] == "784-300-100-10") & (ROWS["method"] == ours) & (ROWS["count"] == 399)]
    other = ROWS[(ROWS["network"] == network) & (ROWS["method"] == method) & (ROWS["count"] == count)]
    return lead(pd.concat([few, other.assign(method="other")]), ours, "other")


def test_399_chosen_weights_beat_the_linear_classifier_by_three_points_or_almost_two_without_exchange():
    with_it, without = (over("784-10", "dense", 7840, ours) for ours in (EXCHANGED, GATES))
    assert (round(with_it.mean, 1), round(without.mean, 1)) == (3.0, 1.8)
    assert min(with_it.low, without.low) > 1
    assert 92 < LINEAR.mean() < 93


def test_gates_alone_beat_the_linear_classifier():
    assert over("784-10", "dense", 7840, GATES).low > 0


def test_the_worst_seed_of_399_chosen_weights_beats_the_best_of_the_linear_classifier():
    assert FEW.min() > LINEAR.max()


def test_what_else_399_weights_could_be_is_worse_by_four_points_or_more():
    assert over("784-10", "gumbel", 399).low > 4
    assert over("49-7-10", "dense", 413).low > 4


def test_no_run_keeps_more_weights_than_its_count():
    assert (ROWS["kept"] <= ROWS["count"]).all()


def exchange_leads(count):
    return lead(GATED[GATED["count"] == count], EXCHANGED, GATES)


def test_exchange_gains_1_2_points_at_399_weights_and_ties_above():
    found = exchange_leads(399)
    assert (found.mean, found.low, found.high) == pytest.approx((1.2, 0.9, 1.5), abs=0.05)
    assert found.seeds == 5
    assert all(exchange_leads(count).tie for count in (1331, 2662, 5324))


def test_with_their_74_biases_399_weights_are_0_18_percent_of_all_parameters():
    parameters = sum(p.numel() for p in pb.lenet_300_100().parameters())
    biases = GATED[(GATED["count"] == 399) & (GATED["method"] == EXCHANGED)]["biases"].mean()
    assert parameters == 266_610
    assert round(biases) == 74
    assert round(100 * (399 + biases) / parameters, 2) == 0.18


def test_399_weights_hardly_overfit():
    gap = (GATED["train_accuracy"] - GATED["test_accuracy"])[GATED["count"] == 399]
    assert gap.mean() < 0.015


def test_nearly_all_kept_weights_lie_on_a_path():
    assert (GATED["effective_density"] / GATED["density"]).min() > 0.95


def test_the_gates_of_the_example_by_hand_have_the_slopes_of_their_sigmoids():
    logit = torch.zeros(3, requires_grad=True)
    gate = pb.gumbel_gate(logit, torch.tensor([3, 1 / 3, 9]).log(), tau=1.0)
    gate.sum().backward()
    assert gate.allclose(torch.tensor([1.0, 0.0, 1.0]))
    assert logit.grad.allclose(torch.tensor([3 / 16, 3 / 16, 0.09]))


def test_at_the_temperature_of_the_reference_code_a_rare_gate_gets_five_times_its_gradient():
    noise = torch.linspace(0, 1, 200_003, dtype=torch.float64)[1:-1].logit()
    rare = torch.full_like(noise, math.log(0.01 / 0.99)).requires_grad_()
    (slope,) = torch.autograd.grad(pb.gumbel_gate(rare, noise, tau=3.0).sum(), rare)
    assert float(slope.mean()) / (0.01 * 0.99) == pytest.approx(5, abs=0.5)
