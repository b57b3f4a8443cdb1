import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import batch, layer_of, make_data, network, normal, train, zeros
from torch import nn
from torch.optim import SGD, Adam

import prunebook as pb
from prunebook.cover import sparsity
from prunebook.layers import dense_weight
from prunebook.masking import bake, harden, masks
from prunebook.methods.soft import _SoftWeight, soft_mask, thresholds
from prunebook.methods.weights import prune_weights

fused = _SoftWeight.apply
LEAST_TAU = pytest.approx(1e-12, rel=0.15, abs=0)


def composed(w, t, tau):
    return w * soft_mask(w, t, tau)


def leaves(*values, dtype=torch.float64):
    return [torch.as_tensor(value, dtype=dtype).requires_grad_() for value in values]


def test_mask_by_hand():
    w = torch.tensor([1.0, -1.0, 2.0, 0.0], dtype=torch.float64)
    # the exponents, a third of w^2 - 1, are 0, 0, 1 and -1/3
    wanted = [0.5, 0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1 / 3))]
    assert soft_mask(w, 1.0, 3.0).tolist() == pytest.approx(wanted, rel=1e-12)
    assert fused(w, *leaves(1.0, 3.0)).tolist() == pytest.approx([0.5, -0.5, 2 * wanted[2], 0], rel=1e-12)


@settings(max_examples=100)
@given(st.lists(st.integers(-64, 64), min_size=1, max_size=20), st.integers(0, 64))
def test_the_limit_is_exactly_the_hard_mask(eighths, threshold):
    w, t = torch.tensor(eighths) / 8, torch.tensor(threshold / 8)
    hard = (w.abs() > t) + 0.5 * (w.abs() == t)
    assert torch.equal(soft_mask(w, t, 1e-12), hard)
    away = w.abs() != t  # there the fused form rounds
    assert torch.equal(fused(w, t, torch.tensor(1e-12))[away], (w * hard)[away])


def test_derivatives_are_those_of_the_docstring():
    inputs = leaves(normal(50), 0.8, 0.3)
    m = soft_mask(*inputs)
    by_w, by_t, by_tau = torch.autograd.grad(m.sum(), inputs)
    m, w, t, tau = (value.detach() for value in (m, *inputs))
    slope = m * (1 - m)
    torch.testing.assert_close(by_w, 2 * w / tau * slope)
    torch.testing.assert_close(by_t, (-2 * t / tau * slope).sum())
    torch.testing.assert_close(by_tau, (-(w**2 - t**2) / tau**2 * slope).sum())
    for weight in (fused, composed):
        (found,) = torch.autograd.grad(weight(*inputs).sum(), inputs[0])
        torch.testing.assert_close(found, m + 2 * w**2 / tau * slope)


def test_masks_are_broadcast():
    w, t, tau = leaves(normal(4, 3), [0.2, 0.5, 1.0], [[0.1], [0.2], [0.3], [1e-12]])
    m = soft_mask(w, t, tau)
    assert m.shape == (4, 3)
    for i in range(4):
        for j in range(3):
            assert m[i, j] == soft_mask(w[i, j], t[j], tau[i])
    assert torch.autograd.gradcheck(soft_mask, leaves(normal(3, 3), t.detach(), tau.detach()[:3]))


@settings(max_examples=150)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20),
    st.floats(0, 1, width=32),
    st.floats(-6, 1),
)
def test_fused_is_composed_to_rounding(values, t, log_tau):
    """Both terms of the exponent are rounded, then subtracted; a mask below 1e-12 is 0."""
    w32, t32, tau32 = leaves(values, t, 10**log_tau, dtype=torch.float32)
    w, t, tau = leaves(w32.detach(), t32.detach(), tau32.detach())
    rounding = 6e-8 * (1 + 3 * (w.detach() ** 2 + t.detach() ** 2) / tau.detach())
    error = fused(w32, t32, tau32).detach().double() - composed(w, t, tau).detach()
    # twice: the sigmoid rounds, and so does its product with w
    assert (error.abs() <= 2 * w.detach().abs() * rounding + 1e-12).all()
    (found,) = torch.autograd.grad(fused(w32, t32, tau32).sum(), w32)
    (wanted,) = torch.autograd.grad(composed(w, t, tau).sum(), w)
    steep = 1 + 2 * w.detach() ** 2 / tau.detach()
    assert ((found.double() - wanted).abs() <= steep * (4 * rounding + 1e-11)).all()


@pytest.mark.parametrize(("tau", "near"), [(1e-2, 1e-5), (1e-4, 1e-4), (1e-6, 2e-2)])
def test_fused_is_composed_for_hard_temperatures_in_float32(tau, near):
    w, t, gradient = 0.05 * normal(100_000), torch.tensor(0.07), normal(100_000, seed=1)
    ours = leaves(w, t, tau, dtype=torch.float32)
    theirs = leaves(*(value.detach() for value in ours))
    masked, wanted = fused(*ours), composed(*theirs)
    torch.testing.assert_close(masked.double(), wanted, rtol=near, atol=near * 1e-3)
    found = torch.autograd.grad(masked, ours, gradient.float())
    true = torch.autograd.grad(wanted, theirs, gradient)
    for ours, theirs in zip(found, true, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=near, atol=near * theirs.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("weight", [fused, composed])
def test_nothing_overflows(weight, dtype):
    values = [0.0, 1e-7, -1e-3, 1.0, -1.0, 6e4] + [1e15, -1e18] * (dtype != torch.float16)
    w, (t, tau) = torch.tensor(values, dtype=dtype).requires_grad_(), leaves(1.0, 1e-12, dtype=torch.float32)
    masked = weight(w, t, tau)
    assert masked.dtype == dtype
    for found in (masked, *torch.autograd.grad(masked.sum(), (t, tau))):
        assert found.isfinite().all()
    (found,) = torch.autograd.grad(weight(w, t, tau)[[0, 1, 2, 5]].sum(), w)
    assert found.tolist() == [0, 0, 0, 0, 0, 1] + [0] * (len(values) - 6)
    assert torch.equal(masked[[0, 1, 2, 5]], torch.tensor([0, 0, 0, 6e4], dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masks_of_halves_are_computed_in_float32(dtype):
    w = (0.01 * normal(1000)).to(dtype)  # squares of which a half holds two digits or none
    t, tau = torch.tensor(0.01), torch.tensor(1e-6)
    assert torch.equal(soft_mask(w, t, tau), soft_mask(w.float(), t, tau).to(dtype))
    assert torch.equal(fused(w, t, tau), fused(w.float(), t, tau).to(dtype))


@pytest.mark.parametrize(
    ("t", "tau", "message"),
    [
        (-0.1, 1.0, r"t must be at least 0, got -0\.1"),
        (math.nan, 1.0, "t must be at least 0, got nan"),
        (torch.tensor([0.1, -1.0]), 1.0, "t must be at least 0, got tensor"),
        (0.1, 0.0, r"tau must be at least 1e-12, got 0\.0"),
        (0.1, -1.0, r"tau must be at least 1e-12, got -1\.0"),
        (0.1, 1e-13, "tau must be at least 1e-12, got 1e-13"),
        (0.1, math.nan, "tau must be at least 1e-12, got nan"),
    ],
)
def test_mask_refuses(t, tau, message):
    with pytest.raises(ValueError, match=message):
        soft_mask(torch.ones(2), t, tau)


def test_half_of_four_weights():
    layer = layer_of([[1.0, -2.0, 3.0, -4.0]])
    pruning = pb.SoftPruning(layer, 50)
    (threshold,) = thresholds(layer)
    assert 2 <= threshold.t <= 2 + 4 / 4096
    assert pruning.tau == pytest.approx(1e-2 * math.sqrt(7.25), rel=1e-6)  # times the standard deviation
    m = soft_mask(dense_weight(layer), threshold.t, pruning.tau)
    torch.testing.assert_close(layer.weight, dense_weight(layer) * m)
    assert (layer.weight != 0).sum() >= 3  # soft: not two zeros yet
    assert masks(layer)["weight"].tolist() == [[False, False, True, True]]
    harden(layer)
    torch.testing.assert_close(layer.weight, torch.tensor([[0.0, 0, 3, -4]]) * m)


def test_one_threshold_for_each_layer_or_one_for_all():
    for scope, ts, pruned in (("layer", [2, 20], [2, 2]), ("global", [4], [4, 0])):
        model = nn.Sequential(layer_of([[1.0, 2, 3, 4]]), layer_of([[10.0], [20], [30], [40]]))
        pb.SoftPruning(model, 50, scope=scope)
        assert [found.t.item() for found in thresholds(model)] == pytest.approx(ts, abs=40 / 4096)
        assert [int((~mask).sum()) for mask in masks(model).values()] == pruned


def test_temperatures_of_the_scopes():
    model = nn.Sequential(layer_of([[1.0, -1.0]]), layer_of([[2.0, -2, 2, -2]]))  # deviations 1 and 2
    each = pb.SoftPruning(copy.deepcopy(model), 50, relative_tau=0.1).tau
    assert each == pytest.approx(0.1 * (1 * 2**2) ** (1 / 3))
    whole = pb.SoftPruning(model, 50, relative_tau=0.1, scope="global").tau
    assert whole == pytest.approx(0.1 * math.sqrt((2 * 1 + 4 * 4) / 6))


@pytest.mark.parametrize("scope", ["layer", "global"])
@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 1.0001, 2.0]), min_size=12, max_size=12),
    st.integers(0, 100),
    st.sampled_from([1e-2, 1e-9]),
)
def test_counts_are_exact(scope, values, k, tau):
    model, hard = (nn.Sequential(layer_of([values[:4]]), layer_of([values[4:]])) for _ in range(2))
    pb.SoftPruning(model, k, tau, scope)
    sizes = [4, 8] if scope == "layer" else [12]
    wanted = masks(prune_weights(hard, k, scope))
    assert all(torch.equal(mask, wanted[name]) for name, mask in masks(model).items())
    assert zeros(model) == sum(round(Fraction(k * n, 100)) for n in sizes)
    dense = {name: dense_weight(layer).detach().clone() for name, layer in pb.maskable(model).items()}
    for name, layer in pb.maskable(harden(model)).items():
        # ties under the hardest mask as well: what is kept is not zero
        assert torch.equal(layer.weight != 0, wanted[f"{name}.weight"] & (dense[name] != 0))


def test_a_threshold_that_is_old_does_not_weaken_what_is_kept():
    layer = layer_of([[1.0, 2.0, 3.0, 4.0]])
    pb.SoftPruning(layer, 50)
    with torch.no_grad():
        dense_weight(layer).div_(4)  # all are now below the threshold of before
    assert harden(layer).weight.tolist() == [[0, 0, 0.375, 0.5]]


def grow(model):
    with torch.no_grad():
        dense_weight(model[0]).mul_(1.5)


def test_the_threshold_follows_the_weights_every_so_many_steps():
    model = network()
    pb.SoftPruning(model, 50, update_every=3, scope="global")
    (threshold,) = thresholds(model)
    optimizer = SGD(model.parameters(), lr=0.5)
    for step in range(1, 9):
        before = threshold.t.item()
        train(model, optimizer=optimizer, steps=1)
        assert (threshold.t.item() != before) == (step % 3 == 0)
        if step % 3 == 0:
            weights = torch.cat([dense_weight(model[i]).detach().flatten() for i in (0, 2)]).abs()
            exact = np.quantile(weights, 0.5, method="inverted_cdf")
            assert threshold.t.item() == pytest.approx(exact, abs=weights.max().item() / 4000)


def test_the_threshold_stands_still_in_evaluation_and_follows_when_it_is_renewed():
    model = network()
    pb.SoftPruning(model, 50, update_every=100)
    threshold = thresholds(model)[0]
    before = threshold.t.item()
    grow(model)
    model.eval()(batch())
    assert threshold.t.item() == before
    pb.renew(model)
    assert threshold.t.item() == pytest.approx(1.5 * before, rel=1e-2)


def test_a_temperature_never_leaves_its_range():
    model = network()
    pruning = pb.SoftPruning(model, 50, learn_tau=True, scope="global")
    pruning.anneal(factor=1e-300)(1.0)
    assert pruning.tau == LEAST_TAU
    (threshold,) = thresholds(model)
    for absurd, least in ((1e30, 1e11), (-1e30, 1e-12)):
        with torch.no_grad():
            threshold.log_tau.fill_(absurd)
        assert model.eval()(batch()).isfinite().all()
        assert least <= pruning.tau <= 10 * least
        model.train()(batch()).sum().backward()
        SGD(model.parameters(), lr=0.0).step()
        assert abs(threshold.log_tau.item()) == 27.5
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_temperature_is_learned_as_its_logarithm():
    model = network().double()
    pb.SoftPruning(model, 50, relative_tau=0.5, learn_tau=True, scope="global")
    (threshold,) = thresholds(model)
    model(batch().double()).square().sum().backward()
    found, losses = threshold.log_tau.grad.item(), []
    for change in (1e-5, -1e-5):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            thresholds(moved)[0].log_tau.add_(change)
            losses.append(moved(batch().double()).square().sum().item())
    assert found == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-6)


def test_a_temperature_that_is_not_learned_stays():
    pruning = pb.SoftPruning(network(), 50)
    before = pruning.tau
    train(pruning.model, pruning, optimizer=SGD, weight_decay=0.1)
    assert all(threshold.log_tau.grad is None for threshold in thresholds(pruning.model))
    assert pruning.tau == before


def test_layers_of_different_precision_share_a_threshold():
    model = nn.Sequential(nn.Linear(20, 30).bfloat16(), nn.Linear(30, 40).double(), nn.Linear(40, 5))
    pb.SoftPruning(model, 50, scope="global")
    (threshold,) = thresholds(model)
    assert [layer.weight.dtype for layer in model] == [torch.bfloat16, torch.float64, torch.float32]
    weights = torch.cat([dense_weight(layer).detach().double().flatten() for layer in model]).abs()
    assert (weights < threshold.t).double().mean() == pytest.approx(0.5, abs=0.01)
    sum(layer.weight.double().sum() for layer in model).backward()
    assert sparsity(harden(model)) == 0.5


@pytest.mark.parametrize("take_away", [harden, bake])
def test_layers_that_leave_a_shared_threshold_keep_their_count(take_away):
    model = network()
    pb.SoftPruning(model, 50, scope="global", update_every=1)
    take_away(model[0])
    lost = int((model[0].weight == 0).sum())
    train(model, steps=4, optimizer=SGD, lr=0.1)  # baked weights grow again, which changes no count
    (threshold,) = thresholds(model)
    below = int((dense_weight(model[2]).abs() < threshold.t).sum())
    assert below == pytest.approx(50 - lost, abs=1)
    harden(model)
    assert int((~masks(model)["2.weight"]).sum()) == 50 - lost


def test_a_soft_network_learns_and_keeps_its_accuracy_when_hardened():
    torch.manual_seed(3)
    data, model = make_data(300), pb.mlp([16, 30, 3])
    pruning = pb.SoftPruning(model, 80)
    optimizer = Adam(pruning.parameter_groups(), lr=0.01)
    pb.fit(model, data, epochs=8, optimizer=optimizer, schedule=pruning.anneal(1e-2), progress=False)
    soft = pb.evaluate(model, data.train).accuracy
    assert soft > 0.9
    assert pb.evaluate(bake(model), data.train).accuracy > soft - 0.05
    assert sparsity(model) == pytest.approx(0.8, abs=1e-3)


def test_the_threshold_of_a_deepcopy_follows_the_copy():
    model = network()
    pb.SoftPruning(model, 50, scope="global")
    twin, before = copy.deepcopy(model), thresholds(model)[0].t.item()
    with torch.no_grad():
        for layer in pb.maskable(twin).values():
            dense_weight(layer).mul_(3)
    pb.renew(twin)
    assert thresholds(twin)[0].t.item() == pytest.approx(3 * before, rel=1e-2)
    assert thresholds(model)[0].t.item() == before
