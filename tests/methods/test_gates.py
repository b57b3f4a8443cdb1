import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small import METHODS, batch, network, normal, seeded, set_logits
from torch import nn

import prunebook as pb
from prunebook.layers import dense_weight
from prunebook.masking import harden, masks
from prunebook.methods.gates import WeightGate, _GatedWeight, gates, logistic_noise, two_logit_gate
from prunebook.methods.units import spread_units

N = 200_000


def fused(w, logit, noise, tau, hard):
    return _GatedWeight.apply(w, logit, noise, torch.tensor(tau, dtype=noise.dtype), hard)


def composed(w, logit, noise, tau=1.0, hard=True):
    return (w * pb.gumbel_gate(logit, noise, tau, hard)).to(w.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_noise_is_logistic_and_drawn_in_float32(dtype):
    with seeded():
        noise = logistic_noise(torch.empty(N, dtype=dtype))
        two = torch.empty(N, 2).exponential_().log().neg()  # Gumbel variables
    assert noise.shape == (N,)
    assert noise.dtype == torch.float32
    assert noise.isfinite().all()
    assert stats.kstest(noise.numpy(), stats.logistic.cdf).pvalue > 1e-3
    assert stats.ks_2samp(noise.numpy(), (two[:, 0] - two[:, 1]).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("tau", [1e-3, 0.3, 1.0, 3.0, 1e8])
@pytest.mark.parametrize("logit", [-6.0, -1.0, 0.0, 2.0])
def test_a_gate_is_open_with_the_probability_of_its_logit_whatever_tau(tau, logit):
    one, two = torch.full((N,), logit), torch.tensor([logit + 0.7, 0.7]).expand(N, 2)
    with seeded(1):
        gate = pb.gumbel_gate(one, logistic_noise(one), tau)
        pairs = two_logit_gate(two, tau) if tau < 1e4 else None  # there its rounding closes gates
    p = 1 / (1 + math.exp(-logit))
    bound = 5 * math.sqrt(p * (1 - p) / N)
    assert set(gate.unique().tolist()) <= {0.0, 1.0}  # exactly
    assert abs(gate.double().mean().item() - p) < bound
    if pairs is not None:
        assert pairs.shape == (N,)
        assert abs(pairs.double().mean().item() - p) < bound


@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("logit", [-2.0, 0.5])
def test_soft_gates_of_both_forms_have_one_law(tau, logit):
    one = torch.full((N,), logit, dtype=torch.float64)
    two = torch.tensor([0.0, -logit], dtype=torch.float64).expand(N, 2)
    with seeded(2):
        soft = pb.gumbel_gate(one, logistic_noise(one), tau, hard=False)
        pairs = two_logit_gate(two, tau, hard=False)
    assert stats.ks_2samp(soft.numpy(), pairs.numpy()).pvalue > 1e-3
    inside = soft[(soft > 0) & (soft < 1)]
    assert len(inside) > 0.99 * N
    assert stats.kstest((tau * inside.logit() - logit).numpy(), stats.logistic.cdf).pvalue > 1e-3


def test_the_laws_of_two_logits_differ():  # the test above can fail
    with seeded():
        soft, other = (
            pb.gumbel_gate(torch.full((N,), logit), logistic_noise(torch.empty(N)), hard=False)
            for logit in (0.5, 0.53)
        )
    assert stats.ks_2samp(soft.numpy(), other.numpy()).pvalue < 1e-3


@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("logit", [-2.0, 0.0, 1.0])
def test_both_forms_have_one_gradient_in_the_mean(tau, logit):
    def by_logit(gate, by):
        (found,) = torch.autograd.grad((1.5 * gate - 0.4).square().sum(), by)
        return found

    one = torch.full((N,), logit, dtype=torch.float64, requires_grad=True)
    two = torch.tensor([0.3 + logit, 0.3], dtype=torch.float64).repeat(N, 1).requires_grad_()
    with seeded(3):
        ours = by_logit(pb.gumbel_gate(one, logistic_noise(one), tau), one)
        theirs = by_logit(two_logit_gate(two, tau), two)
    torch.testing.assert_close(theirs[:, 0], -theirs[:, 1])
    error = math.sqrt((ours.var() + theirs[:, 0].var()) / N)
    assert abs(ours.mean() - theirs[:, 0].mean()) < 5 * error
    assert abs(ours.mean()) > 10 * error  # there is something to compare


def test_gates_by_hand():
    logit, noise = torch.tensor([2.0, -1.0, 0.0, -2.0]), torch.tensor([-1.0, 0.0, 0.0, 2.5])
    wanted = [1 / (1 + math.exp(-x)) for x in (0.5, -0.5, 0.0, 0.25)]
    assert pb.gumbel_gate(logit, noise, 2.0, hard=False).tolist() == pytest.approx(wanted)
    assert pb.gumbel_gate(logit, noise, 2.0).tolist() == [1, 0, 0, 1]


def test_the_straight_through_gradient_by_hand():
    w, logit, noise = (
        torch.tensor(values, dtype=torch.float64, requires_grad=learned)
        for values, learned in (([3.0, 3.0], True), ([0.0, -1.0], True), ([1.0, 0.0], False))
    )
    for gated in (fused, composed):  # s = sigmoid(1/2) and sigmoid(-1/2), whose slopes are equal
        weight = gated(w, logit, noise, 2.0, True)
        assert weight.tolist() == [3, 0]
        by_w, by_logit = torch.autograd.grad(weight.sum(), (w, logit))
        assert by_w.tolist() == [1, 0]
        s = 1 / (1 + math.exp(-0.5))
        assert by_logit.tolist() == pytest.approx([3 * s * (1 - s) / 2] * 2)


@settings(max_examples=100)
@given(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=9), st.floats(0.05, 20))
def test_hard_gates_are_exactly_zero_or_one(logits, tau):
    logit = torch.tensor(logits)
    gate = pb.gumbel_gate(logit, torch.zeros_like(logit), tau)
    assert torch.equal(gate, (logit > 0).float())


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf])
def test_temperatures_out_of_range_are_refused(tau):
    message = f"tau must be above 0 and finite, got {tau}"
    pruning = pb.GumbelPruning(network())
    for call in (
        lambda: pb.gumbel_gate(torch.zeros(2), torch.zeros(2), tau),
        lambda: two_logit_gate(torch.zeros(2, 2), tau),
        lambda: setattr(pruning, "tau", tau),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert pruning.tau == 1


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_fused_is_composed(hard, tau, dtype):
    w = normal(30, 40).to(dtype).requires_grad_()
    wide = torch.promote_types(dtype, torch.float32)
    logit, gradient = 3 * normal(30, 40, seed=1).to(wide), normal(30, 40, seed=2).to(dtype)
    logit.requires_grad_()
    with seeded():
        noise = logistic_noise(logit.detach())
    ours, theirs = (gated(w, logit, noise, tau, hard) for gated in (fused, composed))
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours == 0, theirs == 0)
    found, wanted = (torch.autograd.grad(gated, (w, logit), gradient) for gated in (ours, theirs))
    assert [part.dtype for part in found] == [dtype, wide]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_of_halves_do_not_vanish():
    w = torch.full((3,), 1e-4, dtype=torch.float16, requires_grad=True)
    logit = torch.zeros(3, requires_grad=True)
    gated = fused(w, logit, torch.zeros(3), 1.0, True)
    (found,) = torch.autograd.grad(gated, logit, torch.full((3,), 1e-4, dtype=torch.float16))
    torch.testing.assert_close(found, torch.full((3,), 0.25e-8), rtol=1e-2, atol=0)


@pytest.mark.parametrize("method", ["gumbel", "gumbel units"])
def test_evaluation_goes_by_the_sign(method):
    model = network()
    METHODS[method](model)
    model.eval()
    for name, gate in gates(model).items():
        layer = model.get_submodule(name)
        mask = spread_units(gate.logit > 0, dense_weight(layer))
        assert torch.equal(layer.weight, dense_weight(layer) * mask)
        assert torch.equal(masks(model)[f"{name}.weight"], mask)
    output = model(batch())
    assert torch.equal(harden(model).train()(batch()), output)


def test_gates_on_two_parameters_of_a_layer_are_both_found():
    lstm = nn.LSTM(3, 4)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        pb.attach(lstm, WeightGate(torch.full_like(dense_weight(lstm, name), 2.0), 1.0, True), name)
    assert list(gates(lstm)) == ["weight_ih_l0", "weight_hh_l0"]


def test_a_gate_at_zero_is_closed():
    model = nn.Linear(2, 2)
    pb.GumbelPruning(model)
    set_logits(model, [[0.0, 1e-30], [-0.0, -1e-30]])
    assert masks(model)["weight"].tolist() == [[False, True], [False, False]]
    assert (model.eval().weight != 0).tolist() == [[False, True], [False, False]]


def test_runs_that_differ_in_what_is_no_parameter_look_different():
    runs = [{}, {"tau": 0.5}, {"hard": False}, {"units": True}]
    assert len({repr(pb.GumbelPruning(network(), **options).model) for options in runs}) == len(runs)


def test_logits_that_a_user_fixed_stay_fixed():
    model = network()
    pb.GumbelPruning(model)
    gates(model)["0"].logit.requires_grad_(False)
    model.eval().train()
    model(batch()).square().sum().backward()
    assert gates(model)["0"].logit.grad is None
    assert gates(model)["2"].logit.grad.any()


@pytest.mark.parametrize("hard", [True, False])
def test_the_gradient_of_a_unit_gate_is_the_sum_over_what_it_gates(hard):
    model, noise = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).double(), torch.tensor([0.5, -3.0])
    pb.GumbelPruning(model, units=True, tau=2.0, hard=hard)
    (gate,) = gates(model).values()
    gate.noise.copy_(noise)
    model[0].weight.sum().backward(retain_graph=True)
    model[0].bias.sum().backward()
    s = ((gate.logit.detach() + noise) / 2).sigmoid()
    total = dense_weight(model[0]).sum(1) + dense_weight(model[0], "bias")
    torch.testing.assert_close(gate.logit.grad, (total * s * (1 - s) / 2).detach())
    factor = (s > 0.5).double() if hard else s
    torch.testing.assert_close(dense_weight(model[0]).grad, factor[:, None].expand(2, 3))
