"""What the chapter on soft masks says about its examples by hand and its formulas."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import prunebook as pb

TOY = torch.tensor([0.0, 1.0, -1.0, math.sqrt(2), math.sqrt(3)])


def line():
    return torch.linspace(-2, 2, 401, dtype=torch.float64, requires_grad=True)


def slope_of(w, tau):
    (slope,) = torch.autograd.grad((w * pb.soft_mask(w, 1.0, tau)).sum(), w)
    return slope


def test_each_step_of_one_in_the_square_triples_the_odds():
    m = pb.soft_mask(TOY, 1.0, 1 / math.log(3))
    assert m.allclose(torch.tensor([1 / 4, 1 / 2, 1 / 2, 3 / 4, 9 / 10]))
    assert m.allclose(torch.sigmoid((TOY**2 - 1) * math.log(3)))


def test_a_frozen_mask_is_the_hard_one_and_a_hot_one_is_near_one_half_everywhere():
    frozen = pb.soft_mask(TOY, 1.0, 0.01)
    assert frozen.round().tolist()[0] == 0
    assert frozen[[0, 3, 4]].allclose(torch.tensor([0.0, 1.0, 1.0]))
    assert (pb.soft_mask(TOY, 1.0, 10.0) - 0.5).abs().max() < 0.06


def test_the_slope_by_the_weight_is_the_equation_and_not_what_the_thesis_prints():
    w = line()
    slope, m, w = slope_of(w, 0.3), pb.soft_mask(w, 1.0, 0.3).detach(), w.detach()
    spread = m * (1 - m)
    assert slope.allclose(m + 2 * w**2 / 0.3 * spread)
    assert not slope.allclose(m + 2 * w / 0.3 * spread)


def test_the_slopes_by_threshold_and_temperature_are_those_of_the_equation():
    w = line().detach()
    t = torch.full_like(w, 1.0).requires_grad_()
    tau = torch.full_like(w, 0.3).requires_grad_()
    m = pb.soft_mask(w, t, tau)
    by_tau, by_t = torch.autograd.grad(m.sum(), [tau, t])
    spread = (m * (1 - m)).detach()
    assert by_t.allclose(-2 / 0.3 * spread)
    assert by_tau.allclose(-(w**2 - 1) / 0.3**2 * spread)


@pytest.mark.parametrize("tau", [1.0, 0.3, 0.1])
def test_at_the_threshold_the_slope_is_one_half_plus_t_squared_over_two_tau(tau):
    w = line()
    assert float(w.detach()[300]) == pytest.approx(1, abs=1e-12)
    assert float(slope_of(w, tau)[300]) == pytest.approx(0.5 + 0.5 / tau, abs=1e-6)


def test_the_slope_overshoots_near_the_threshold_and_is_0_far_below_and_1_far_above_it():
    slope = slope_of(line(), 0.1)
    assert 5.4 < float(slope[300]) < float(slope.max()) < 6.5
    assert float(slope[200]) < 1e-4
    assert float(slope[-1]) == pytest.approx(1, abs=1e-6)


def test_the_hottest_mask_of_the_first_picture_does_not_get_below_a_quarter():
    assert 0.25 < float(pb.soft_mask(line().detach(), 1.0, 1.0).min()) < 0.27


def test_the_temperature_is_the_multiple_of_the_standard_deviation_that_was_asked_for():
    torch.manual_seed(0)
    net = pb.lenet_300_100()
    weights = torch.cat([pb.dense_weight(layer).detach().flatten() for layer in pb.maskable(net).values()])
    std = float(weights.std(correction=0))
    soft = pb.SoftPruning(net, 98, relative_tau=0.01, scope="global")
    assert soft.tau / std == pytest.approx(0.01, abs=1e-6)
    cool = soft.anneal(0.01)
    for progress, multiple in ((0, 1e-2), (0.375, 1e-3), (0.75, 1e-4), (1, 1e-4)):
        cool(progress)
        assert soft.tau / std == pytest.approx(multiple, rel=1e-4)


def test_a_layer_ten_times_larger_has_the_mask_of_a_temperature_ten_times_lower():
    torch.manual_seed(0)
    small = torch.nn.Linear(50, 40).double()
    large = copy.deepcopy(small)
    with torch.no_grad():
        large.weight.mul_(10)
    pb.SoftPruning(large, 90, relative_tau=0.01)
    pb.SoftPruning(small, 90, relative_tau=0.001)
    assert large.weight.allclose(10 * small.weight)
