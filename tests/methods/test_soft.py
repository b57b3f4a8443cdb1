import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small import batch, make_data, network, normal
from torch import nn
from torch.optim import SGD, Adam

import prunebook as pb
from prunebook.masking import bake, dense_weight, harden, masks, sparsity
from prunebook.methods.soft import Threshold, _SoftWeight, soft_mask, thresholds
from prunebook.methods.weights import exact_count, prune_weights
from prunebook.training import checkpoint as checkpoints

fused = _SoftWeight.apply
LEAST_TAU = pytest.approx(1e-12, rel=0.15, abs=0)


def composed(w, t, tau):
    return w * soft_mask(w, t, tau)


def layer_of(rows):
    weight = torch.tensor(rows)
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight = nn.Parameter(weight)
    return layer


def leaves(*values, dtype=torch.float64):
    return [torch.as_tensor(value, dtype=dtype).requires_grad_() for value in values]


def small_mlp(hidden):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return pb.mlp([16, hidden, 3])


def test_mask_by_hand():
    w = torch.tensor([1.0, -1.0, 2.0, 0.0], dtype=torch.float64)
    # the exponents, a third of w^2 - 1, are 0, 0, 1 and -1/3
    wanted = [0.5, 0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1 / 3))]
    assert soft_mask(w, 1.0, 3.0).tolist() == pytest.approx(wanted, rel=1e-12)
    assert fused(w, *leaves(1.0, 3.0)).tolist() == pytest.approx([0.5, -0.5, 2 * wanted[2], 0], rel=1e-12)


@pytest.mark.parametrize("tau", [1e-12, 1e-9, 1e-4])
def test_a_falling_temperature_ends_in_the_hard_mask(tau):
    w = torch.tensor([-2.0, -1.0, -0.99, -0.5, 0.0, 0.5, 0.99, 1.0, 2.0])
    hard = (w.abs() > 1).float() + 0.5 * (w.abs() == 1)
    assert torch.equal(soft_mask(w, 1.0, tau), hard)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-64, 64), min_size=1, max_size=20), st.integers(0, 64))
def test_the_limit_is_exactly_the_hard_mask(eighths, threshold):
    w, t = torch.tensor(eighths) / 8, torch.tensor(threshold / 8)
    assume((w.abs() != t).all())
    hard = w.abs() >= t
    assert torch.equal(soft_mask(w, t, 1e-12), hard.float())
    assert torch.equal(fused(w, t, torch.tensor(1e-12)), w * hard)


def test_derivatives_are_those_of_the_docstring():
    w, t, tau = leaves(normal(50), 0.8, 0.3)
    m = soft_mask(w, t, tau)
    found = torch.autograd.grad(m.sum(), (w, t, tau))
    m, w, t, tau = (value.detach() for value in (m, w, t, tau))
    slope = m * (1 - m)
    torch.testing.assert_close(found[0], 2 * w / tau * slope)
    torch.testing.assert_close(found[1], (-2 * t / tau * slope).sum())
    torch.testing.assert_close(found[2], (-(w**2 - t**2) / tau**2 * slope).sum())


@pytest.mark.parametrize("weight", [fused, composed])
def test_derivative_of_the_masked_weight(weight):
    w, t, tau = leaves(normal(50), 0.8, 0.3)
    (found,) = torch.autograd.grad(weight(w, t, tau).sum(), w)
    m = soft_mask(w, t, tau)
    torch.testing.assert_close(found, m + 2 * w**2 / tau * m * (1 - m))


@pytest.mark.parametrize("function", [soft_mask, fused])
def test_gradients_are_those_of_finite_differences(function):
    inputs = leaves(normal(3, 4), 0.7, 0.5)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("learned", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_gradients_of_some_of_the_inputs(learned):
    inputs = [
        value.detach().requires_grad_(i in learned) for i, value in enumerate(leaves(normal(6), 0.7, 0.5))
    ]
    assert torch.autograd.gradcheck(fused, inputs)
    assert torch.autograd.gradgradcheck(fused, inputs)


def test_masks_are_broadcast():
    w, t, tau = leaves(normal(4, 3), [0.2, 0.5, 1.0], [[0.1], [0.2], [0.3], [1e-12]])
    m = soft_mask(w, t, tau)
    assert m.shape == (4, 3)
    for i in range(4):
        for j in range(3):
            assert m[i, j] == soft_mask(w[i, j], t[j], tau[i])
    assert torch.autograd.gradcheck(soft_mask, leaves(normal(3, 3), t.detach(), tau.detach()[:3]))


@settings(max_examples=150, deadline=None)
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


def test_masks_of_weights_that_are_not_contiguous():
    w, t, tau = normal(4, 6).t().requires_grad_(), *leaves(0.7, 0.5)
    gradient = normal(6, 4, seed=1)
    found = torch.autograd.grad(fused(w, t, tau), (w, t, tau), gradient)
    for ours, theirs in zip(
        found, torch.autograd.grad(composed(w, t, tau), (w, t, tau), gradient), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


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
    assert pb.SoftPruning(copy.deepcopy(model), 50, tau=0.1).tau == pytest.approx(0.1 * (1 * 2**2) ** (1 / 3))
    whole = pb.SoftPruning(model, 50, tau=0.1, scope="global").tau
    assert whole == pytest.approx(0.1 * math.sqrt((2 * 1 + 4 * 4) / 6))


def test_one_weight_and_equal_weights_have_the_least_temperature():
    for rows in ([[3.0]], [[2.0, 2.0], [2.0, 2.0]], [[0.0, 0.0]]):
        layer = layer_of(rows)
        pruning = pb.SoftPruning(layer, 50)
        assert pruning.tau == LEAST_TAU
        assert pruning.tau >= 1e-12
        soft_mask(dense_weight(layer), *thresholds(layer)[0]())  # in its range
        layer(torch.ones(1, len(rows[0]))).sum().backward()
        assert dense_weight(layer).grad.isfinite().all()
        n = dense_weight(layer).numel()
        assert (~masks(layer)["weight"]).sum() == exact_count(50, n)
        assert torch.equal(harden(layer).weight != 0, masks(layer)["weight"] & (dense_weight(layer) != 0))


def test_nothing_and_everything():
    for k in (0, 100):
        model = network()
        pb.SoftPruning(model, k, tau=1e-6)
        assert sparsity(model) == k / 100
        assert sparsity(harden(model)) == k / 100
        assert sparsity(bake(model)) == k / 100


@pytest.mark.parametrize("scope", ["layer", "global"])
@settings(max_examples=60, deadline=None)
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
    assert sum(int((~mask).sum()) for mask in masks(model).values()) == sum(
        round(Fraction(k * n, 100)) for n in sizes
    )
    dense = {name: dense_weight(layer).detach().clone() for name, layer in pb.maskable(model).items()}
    for name, layer in pb.maskable(harden(model)).items():
        # ties under the hardest mask as well: what is kept is not zero
        assert torch.equal(layer.weight != 0, wanted[f"{name}.weight"] & (dense[name] != 0))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_harden_is_the_soft_network_without_what_is_pruned(scope):
    model = network()
    pb.SoftPruning(model, 60, tau=0.1, scope=scope)
    kept, soft = masks(model), {name: layer.weight.detach() for name, layer in pb.maskable(model).items()}
    assert sum(mask.sum() for mask in kept.values()) == 40
    cut = network()
    cut.load_state_dict(
        {**network().state_dict(), **{f"{n}.weight": soft[n] * kept[f"{n}.weight"] for n in soft}}
    )
    expected = cut(batch())
    assert not torch.equal(model(batch()), expected)
    harden(model.eval())
    torch.testing.assert_close(model(batch()), expected, rtol=1e-5, atol=1e-7)
    assert not model._forward_pre_hooks
    assert list(bake(model).state_dict()) == list(network().state_dict())
    assert [type(layer) for layer in model] == [nn.Linear, nn.ReLU, nn.Linear]
    torch.testing.assert_close(model(batch()), expected, rtol=1e-5, atol=1e-7)
    assert sparsity(model) == 0.6


def test_a_threshold_that_is_old_does_not_weaken_what_is_kept():
    layer = layer_of([[1.0, 2.0, 3.0, 4.0]])
    pb.SoftPruning(layer, 50)
    with torch.no_grad():
        dense_weight(layer).div_(4)  # all are now below the threshold of before
    assert harden(layer).weight.tolist() == [[0, 0, 0.375, 0.5]]


def test_the_threshold_follows_the_weights_every_so_many_steps():
    model = network()
    pb.SoftPruning(model, 50, every=3, scope="global")
    (threshold,) = thresholds(model)
    looks = []
    for step in range(8):
        with torch.no_grad():
            dense_weight(model[0]).mul_(1.5)
        before = threshold.t.item()
        model(batch())
        if threshold.t.item() != before:
            looks.append(step)
            weights = torch.cat(
                [dense_weight(layer).flatten() for layer in pb.maskable(model).values()]
            ).abs()
            exact = np.quantile(weights.detach(), 0.5, method="inverted_cdf")
            assert threshold.t.item() == pytest.approx(exact, abs=weights.max().item() / 4000)
    assert looks == [0, 3, 6]


def test_the_threshold_stands_still_in_evaluation_and_looks_at_the_start_of_training():
    model = network()
    pb.SoftPruning(model, 50, every=100)
    (first, _), seen = thresholds(model), []
    for mode in (True, True, False, False, True, True):
        if mode != model.training or not seen:
            model.train(mode)
        with torch.no_grad():
            dense_weight(model[0]).mul_(1.5)
        before = first.t.item()
        model(batch())
        seen.append(first.t.item() != before)
    assert seen == [True, False, False, False, True, False]


def test_two_forward_passes_before_one_backward_pass():
    model, twice = network(), network()
    pb.SoftPruning(model, 50, every=1, learn_tau=True)
    pb.SoftPruning(twice, 50, every=1, learn_tau=True)
    (model(batch()).sum() + model(-batch()).square().sum()).backward()
    twice(batch()).sum().backward()
    twice(-batch()).square().sum().backward()
    for one, two in zip(model.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_temperatures_fall_by_equal_factors():
    model = network()
    pruning = pb.SoftPruning(model, 50, tau=0.5)
    start, starts = pruning.tau, [threshold.tau().item() for threshold in thresholds(model)]
    schedule = pruning.anneal(end=1e-4, until=0.8)
    for progress, factor in [(0.0, 1), (0.2, 0.1), (0.4, 0.01), (0.8, 1e-4), (0.99, 1e-4), (0.2, 0.1)]:
        schedule(progress)
        assert pruning.tau == pytest.approx(start * factor, rel=1e-5)
        found = [threshold.tau().item() for threshold in thresholds(model)]
        assert found == pytest.approx([factor * tau for tau in starts], rel=1e-5)
    pruning.anneal(end=1)(0.5)
    assert pruning.tau == pytest.approx(0.1 * start, rel=1e-5)


def test_a_temperature_never_leaves_its_range():
    model = network()
    pruning = pb.SoftPruning(model, 50, learn_tau=True, scope="global")
    pruning.anneal(end=1e-300)(1.0)
    assert pruning.tau == LEAST_TAU
    (threshold,) = thresholds(model)
    for absurd, least in ((1e30, 1e11), (-1e30, 1e-12)):
        with torch.no_grad():
            threshold.log_tau.fill_(absurd)
        assert model.eval()(batch()).isfinite().all()
        assert least <= pruning.tau <= 10 * least
        model.train()(batch()).sum().backward()
        assert abs(threshold.log_tau.item()) == 27.5
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_temperature_is_learned_as_its_logarithm():
    model = network().double()
    pb.SoftPruning(model, 50, tau=0.5, learn_tau=True, scope="global")
    (threshold,) = thresholds(model)
    model(batch().double()).square().sum().backward()
    found, losses = threshold.log_tau.grad.item(), []
    for change in (1e-5, -1e-5):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            thresholds(moved)[0].log_tau.add_(change)
            losses.append(moved(batch().double()).square().sum().item())
    assert found == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-6)


def test_a_temperature_that_is_not_learned_has_no_gradient():
    model = network()
    pruning = pb.SoftPruning(model, 50)
    before = pruning.tau
    optimizer = SGD(pruning.parameter_groups(), lr=0.1, weight_decay=0.1)
    model(batch()).square().sum().backward()
    optimizer.step()
    assert all(threshold.log_tau.grad is None for threshold in thresholds(model))
    assert pruning.tau == before


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("learn_tau", [True, False])
def test_parameter_groups_hold_each_parameter_once(scope, learn_tau):
    model = network()
    model[0].bias.requires_grad_(False)
    pruning = pb.SoftPruning(model, 50, scope=scope, learn_tau=learn_tau, lr_tau=0.25)
    others, *named = pruning.parameter_groups()
    assert list(others) == ["params"]
    held = [id(p) for group in (others, *named) for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert {id(p) for p in others["params"]} == {
        id(p) for p in [*map(dense_weight, model[::2]), model[2].bias]
    }
    if learn_tau:
        (group,) = named
        assert [id(p) for p in group["params"]] == [id(found.log_tau) for found in thresholds(model)]
        assert (group["lr"], group["weight_decay"]) == (0.25, 0.0)
        optimizer = Adam(pruning.parameter_groups(), lr=1e-3, weight_decay=0.5)
        assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(1e-3, 0.5), (0.25, 0.0)]
    else:
        assert named == []


def test_a_deepcopy_follows_its_own_weights():
    model = network()
    pb.SoftPruning(model, 50, scope="global")
    twin = copy.deepcopy(model)
    assert torch.equal(model(batch()), twin(batch()))
    with torch.no_grad():
        dense_weight(twin[0]).mul_(3)
        dense_weight(twin[2]).mul_(3)
    before = thresholds(model)[0].t.item()
    twin.train()(batch())
    assert thresholds(twin)[0].t.item() == pytest.approx(3 * before, rel=1e-2)
    assert thresholds(model)[0].t.item() == before
    assert thresholds(twin)[0].layers["0"] is twin[0]
    harden(twin)
    assert thresholds(model)
    assert model._forward_pre_hooks


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_state_dict_goes_both_ways(scope):
    model, other = network(), network(seed=1)
    pruning = pb.SoftPruning(model, 50, scope=scope)
    pb.SoftPruning(other, 50, scope=scope, tau=0.7)
    pruning.anneal(0.1)(1.0)
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other.eval()(batch()), model.eval()(batch()))
    assert all(torch.equal(mask, masks(other)[name]) for name, mask in masks(model).items())
    plain = pb.masking.plain_state(model.state_dict())
    assert plain.keys() == network().state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_precisions(dtype):
    model = nn.Sequential(nn.Linear(400, 300), nn.Linear(300, 3))  # more weights than a half counts to
    with torch.no_grad():
        model[0].weight.copy_(normal(300, 400) * 0.05)
    pb.SoftPruning(model, 90)
    model = model.to(dtype)
    output = model(normal(2, 400).to(dtype))
    output.sum().backward()
    assert output.dtype == model[0].weight.dtype == dense_weight(model[0]).grad.dtype == dtype
    assert (dense_weight(model[0]).abs() < thresholds(model)[0].t).double().mean().item() == pytest.approx(
        0.9,
        abs=2e-3 if dtype != torch.bfloat16 else 1e-2,  # equal weights, where there are few different
    )
    assert sparsity(model) == 0.9
    assert bake(model)[0].weight.dtype == dtype
    assert sparsity(model) == 0.9


def test_layers_of_different_precision_share_a_threshold():
    model = nn.Sequential(nn.Linear(20, 30).bfloat16(), nn.Linear(30, 40).double(), nn.Linear(40, 5))
    pb.SoftPruning(model, 50, scope="global")
    (threshold,) = thresholds(model)
    threshold.step()
    assert [layer.weight.dtype for layer in model] == [torch.bfloat16, torch.float64, torch.float32]
    weights = torch.cat([dense_weight(layer).detach().double().flatten() for layer in model]).abs()
    assert (weights < threshold.t).double().mean() == pytest.approx(0.5, abs=0.01)
    sum(layer.weight.double().sum() for layer in model).backward()
    assert sparsity(harden(model)) == 0.5


def test_shared_weights_count_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    model[1].weight = model[0].weight
    pb.SoftPruning(model, 50, scope="global")
    assert thresholds(model)[0].size == 20
    assert torch.equal(model[0].weight, model[1].weight)
    model(torch.ones(1, 4)).sum().backward()
    assert sparsity(bake(copy.deepcopy(model))) == 0.5
    assert bake(model)[0].weight is model[1].weight


def test_convolutions_and_skipped_layers():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 2, 3), nn.Flatten(), nn.Linear(32, 3))
    pb.SoftPruning(model, 50, skip=["3"])
    assert list(masks(model)) == ["0.weight", "1.weight"]
    assert [found.size for found in thresholds(model)] == [36, 72]
    model(normal(2, 1, 4, 4, dtype=torch.float32)).sum().backward()
    assert dense_weight(model[0]).grad.any()
    assert sparsity(harden(model), per_layer=True) == {"0": 0.5, "1": 0.5, "3": 0}


def test_a_bare_layer():
    layer = nn.Linear(10, 10)
    pb.SoftPruning(layer, 30)
    layer(torch.ones(1, 10)).sum().backward()
    assert sparsity(bake(layer)) == 0.3
    assert type(layer) is nn.Linear


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_compile():
    model = network()
    pb.SoftPruning(model, 50, learn_tau=True)
    model.eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch()), model(batch()))
    torch.compiler.reset()


def test_autocast():
    model = network()
    pb.SoftPruning(model, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch())
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert model[0].weight.dtype == torch.float32
    torch.testing.assert_close(output.float(), model(batch()), atol=0.02, rtol=0.02)


class StoppedError(Exception):
    pass


def run(scope, stop_after=None, checkpoint=None):
    model = small_mlp(12)
    pruning = pb.SoftPruning(model, 70, scope=scope, every=7, learn_tau=scope == "layer")
    optimizer = Adam(pruning.parameter_groups(), lr=0.01)

    def stop(row):
        if row["epoch"] == stop_after:
            raise StoppedError

    history = pb.fit(
        model,
        make_data(),
        epochs=4,
        batch_size=8,
        optimizer=optimizer,
        schedule=pruning.anneal(0.1) if scope == "global" else None,
        on_epoch=stop,
        checkpoint=checkpoint,
        progress=False,
    )
    return history, checkpoints.digest(model.state_dict())


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_resumed_run_ends_with_the_same_bits(scope, tmp_path):
    history, whole = run(scope)
    with pytest.raises(StoppedError):
        run(scope, stop_after=3, checkpoint=tmp_path / "run")
    resumed, bits = run(scope, checkpoint=tmp_path / "run")
    assert bits == whole
    assert resumed["valid_loss"] == history["valid_loss"]
    assert (
        history["sparsity"]
        == [exact_count(70, 192 + 36) / 228 if scope == "global" else (134 + 25) / 228] * 4
    )


def test_a_soft_network_learns_and_keeps_its_accuracy_when_hardened():
    data, model = make_data(300), small_mlp(30)
    pruning = pb.SoftPruning(model, 80)
    optimizer = Adam(pruning.parameter_groups(), lr=0.01)
    pb.fit(model, data, epochs=8, optimizer=optimizer, schedule=pruning.anneal(1e-2), progress=False)
    soft = pb.evaluate(model, data.train).accuracy
    assert soft > 0.9
    assert pb.evaluate(bake(model), data.train).accuracy > soft - 0.05
    assert sparsity(model) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": -1}, "k must be a percentage from 0 to 100, got -1"),
        ({"k": 100.5}, r"k must be a percentage from 0 to 100, got 100\.5"),
        ({"k": math.nan}, "k must be a percentage from 0 to 100, got nan"),
        ({"tau": 0.0}, r"tau must be above 0 and finite, got 0\.0"),
        ({"tau": -1.0}, r"tau must be above 0 and finite, got -1\.0"),
        ({"tau": math.nan}, "tau must be above 0 and finite, got nan"),
        ({"tau": math.inf}, "tau must be above 0 and finite, got inf"),
        ({"lr_tau": 0.0}, r"lr_tau must be above 0 and finite, got 0\.0"),
        ({"lr_tau": -1.0}, r"lr_tau must be above 0 and finite, got -1\.0"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"every": 1.5}, r"every must be a whole number of at least 1, got 1\.5"),
        ({"scope": "all"}, "scope must be 'layer' or 'global', got 'all'"),
        ({"skip": ["9"]}, r"skip must name layers out of \['0', '2'\], got \['9'\]"),
        ({"skip": ["0", "2"]}, "must have a linear or convolution layer to prune"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        pb.SoftPruning(model, **{"k": 50} | arguments)
    assert masks(model) == {}
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(value):
    model = network()
    dense_weight(model[2]).detach()[0, 0] = value
    with pytest.raises(
        ValueError, match=r"weights must be finite, got NaN or infinite ones in layers \['2'\]"
    ):
        pb.SoftPruning(model, 50)
    assert masks(model) == {}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op")
def test_models_without_weights_are_refused():
    for model in (nn.Sequential(), nn.Sequential(nn.ReLU(), nn.LayerNorm(3))):
        with pytest.raises(ValueError, match="must have a linear or convolution layer to prune"):
            pb.SoftPruning(model, 50)
    with pytest.raises(ValueError, match=r"layers must have weights, got none in \['0'\]"):
        pb.SoftPruning(nn.Sequential(nn.Linear(0, 3)), 50)


@pytest.mark.parametrize("skip", [[], ["0"]])
def test_a_model_with_masks_is_refused_and_left_alone(skip):
    model = prune_weights(network(), 50, skip=skip)
    before = list(model.state_dict())
    with pytest.raises(ValueError, match="weight must be without mask, has a Mask: bake it first"):
        pb.SoftPruning(model, 50)
    assert list(model.state_dict()) == before
    soft = network()
    pb.SoftPruning(soft, 50)
    with pytest.raises(ValueError, match="weight must be without mask, has a SoftMask: bake it first"):
        pb.SoftPruning(soft, 50)
    assert len(soft._forward_pre_hooks) == 1
    with pytest.raises(ValueError, match=r"0\.weight must have a constant mask or none, has a SoftMask"):
        prune_weights(soft, 50)


def test_a_hardened_model_has_no_temperature():
    model = network()
    pruning = pb.SoftPruning(model, 50)
    harden(model)
    assert not any(isinstance(module, Threshold) for module in model.modules())
    for call in (lambda: pruning.tau, pruning.parameter_groups, lambda: pruning.anneal(0.1)):
        with pytest.raises(ValueError, match="model must have soft masks, got none: they were hardened"):
            call()


@pytest.mark.parametrize("value", [0.0, -1.0, 1.1, math.nan])
def test_schedules_out_of_range_are_refused(value):
    pruning = pb.SoftPruning(network(), 50)
    with pytest.raises(ValueError, match=f"end must be a factor above 0, up to 1, got {value}"):
        pruning.anneal(value)
    with pytest.raises(ValueError, match=f"until must be a share of the run above 0, up to 1, got {value}"):
        pruning.anneal(0.1, until=value)
