import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import batch, layer_of, make_data, network, normal, seeded, train
from torch import nn
from torch.optim import SGD, Adam

import prunebook as pb
from prunebook.cover import sparsity
from prunebook.layers import dense_weight
from prunebook.masking import bake, harden, masks
from prunebook.methods.adaptive import settled
from prunebook.methods.quantile import quantile
from prunebook.methods.soft import soft_mask, thresholds


def logit(r):
    return math.log(r / (1 - r))


def change(parameter, value):
    with torch.no_grad():
        parameter.add_(value)


def minimise_penalty(pruning, steps):
    """Train without data: only the penalty counts."""
    model, ratios = pruning.model, []
    optimizer = Adam(pruning.parameter_groups(), lr=1e-3)
    for _ in range(steps):
        model(batch())
        optimizer.zero_grad()
        pruning.penalty().backward()
        optimizer.step()
        ratios.append(pruning.r)
    return ratios


def test_ratio_and_threshold_at_the_start():
    layer = layer_of([[1.0, -2.0, 3.0, -4.0]])
    pruning = pb.AdaptivePruning(layer, r=0.5, relative_tau=0.1)
    (threshold,) = thresholds(layer)
    assert pruning.r == 0.5
    assert pruning.tau == pytest.approx(0.1 * math.sqrt(7.25), rel=1e-6)
    t, tau = threshold()
    assert 2 <= t <= 2 + 4 / 4096
    torch.testing.assert_close(layer.weight, dense_weight(layer) * soft_mask(dense_weight(layer), t, tau))
    assert masks(layer)["weight"].tolist() == [[False, False, True, True]]
    change(threshold.logit_r, logit(0.75) - logit(0.5))
    assert pruning.r == pytest.approx(0.75)
    assert masks(layer)["weight"].tolist() == [[False, False, False, True]]


@pytest.mark.parametrize(
    ("target", "wanted", "slope"),
    [
        (None, lambda r: (1 - r) ** 2, lambda r: -2 * (1 - r)),
        (0.4, lambda r: abs(0.6 - r), lambda r: math.copysign(1, r - 0.6)),
    ],
)
def test_penalties_by_hand(target, wanted, slope):
    for r in (0.2, 0.5, 0.9):
        pruning = pb.AdaptivePruning(network(), r=r, lam=3.0, target_density=target)
        penalty = pruning.penalty()
        assert penalty.shape == ()
        assert penalty.item() == pytest.approx(3 * wanted(r), rel=1e-5)
        penalty.backward()
        pull = thresholds(pruning.model)[0].logit_r.grad.item()
        assert pull == pytest.approx(3 * slope(r) * r * (1 - r), rel=1e-5)  # dr/dl = r (1 - r)
        assert pb.AdaptivePruning(network(), r=r, lam=0.0, target_density=target).penalty() == 0


def dense_double():
    """One layer of 120,000 weights, and a loss that is smooth in them."""
    layer = nn.Linear(400, 300, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(0.05 * normal(300, 400))
    return layer, normal(50, 400, seed=1), normal(50, 300, seed=2)


@pytest.mark.parametrize("r", [0.1, 0.5, 0.9])
def test_gradient_of_the_loss_is_that_of_taking_the_quantile_again(r):
    layer, x, y = dense_double()
    w = layer.weight.detach().clone()
    ordered = w.abs().flatten().sort().values.numpy()
    pruning = pb.AdaptivePruning(layer, r=r, relative_tau=0.05)

    def loss_with(ratio):
        t = np.quantile(ordered, ratio, method="inverted_cdf").item()
        return (x @ (w * soft_mask(w, t, pruning.tau)).t() - y).square().mean().item()

    loss = (layer(x) - y).square().mean()
    assert loss.item() == pytest.approx(loss_with(r), rel=1e-3)
    loss.backward()
    found = thresholds(layer)[0].logit_r.grad.item()
    assert found == pytest.approx((loss_with(r + 0.01) - loss_with(r - 0.01)) / 0.02 * r * (1 - r), rel=0.06)


def test_gradient_is_the_chain_of_its_factors():
    layer, x, y = dense_double()
    pb.AdaptivePruning(layer, r=0.8, relative_tau=0.05)
    (threshold,) = thresholds(layer)
    (layer(x) - y).square().mean().backward()
    w, t = dense_weight(layer).detach(), threshold.t.clone().requires_grad_()
    (x @ (w * soft_mask(w, t, threshold.tau().detach())).t() - y).square().mean().backward()
    r = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    quantile(w.abs(), r).backward()
    assert r.grad > 0
    assert threshold.logit_r.grad.item() == pytest.approx((t.grad * r.grad * 0.8 * 0.2).item(), rel=1e-6)


def test_between_two_updates_the_threshold_follows_the_ratio():
    layer, *_ = dense_double()
    pb.AdaptivePruning(layer, r=0.8, update_every=100)
    (threshold,) = thresholds(layer)
    t0, slope = threshold.t.item(), threshold.slope.item()
    change(threshold.logit_r, 0.05)
    assert threshold()[0].item() == pytest.approx(t0 + 0.05 * slope, rel=1e-9)
    assert threshold.t.item() == t0
    followed = threshold()[0].item()
    pb.renew(layer)
    assert threshold()[0].item() == threshold.t.item() == pytest.approx(followed, rel=2e-3)
    assert followed - t0 > 10 * abs(followed - threshold.t.item())
    change(threshold.logit_r, -1e4)
    assert threshold()[0].item() == 0  # never below


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("lr", [1e3, 1e30])
@pytest.mark.parametrize("target", [None, 0.3])
def test_ratio_and_temperature_stay_valid_at_absurd_learning_rates(scope, lr, target):
    model = network()
    pruning = pb.AdaptivePruning(
        model, scope=scope, lr_r=lr, lr_tau=lr, update_every=2, target_density=target, lam=1.0
    )
    optimizer = SGD(pruning.parameter_groups(), lr=1e-3)
    for step in range(7):
        train(model, pruning, steps=1, optimizer=optimizer)
        assert 0 < pruning.r < 1
        assert 1e-12 <= pruning.tau <= 1e12
        assert model.eval()(batch()).isfinite().all(), step
        for threshold in thresholds(model):
            assert threshold()[0] >= 0
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert sparsity(harden(model)) in {i / 100 for i in range(101)}


@pytest.mark.parametrize("absurd", [1e4, -1e4])
def test_a_ratio_at_its_end_is_not_stuck_there(absurd):
    model = network()
    pruning = pb.AdaptivePruning(model, target_density=0.5)
    (threshold,) = thresholds(model)
    change(threshold.logit_r, absurd)
    assert 0 < pruning.r < 1
    SGD(model.parameters(), lr=0.0).step()  # brings it back
    pruning.penalty().backward()
    assert threshold.logit_r.item() == math.copysign(16, absurd)
    assert threshold.logit_r.grad * absurd > 0


def test_without_data_the_penalty_prunes_more_and_more():
    ratios = minimise_penalty(pb.AdaptivePruning(network(), r=0.3, lr_r=0.05), 100)
    assert ratios == sorted(ratios)
    assert ratios[-1] > 0.85


@pytest.mark.parametrize("start", [0.2, 0.95])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_with_a_target_the_ratio_settles_there(start, scope):
    pruning = pb.AdaptivePruning(network(), r=start, target_density=0.4, scope=scope, lr_r=0.04)
    ratios = minimise_penalty(pruning, 200)
    assert settled(ratios, window=20, tolerance=0.02)
    assert pruning.r == pytest.approx(0.6, abs=0.01)


def test_each_layer_has_its_own_ratio():
    model = network()
    pruning = pb.AdaptivePruning(model, scope="layer", lam=2.0)
    first, second = thresholds(model)
    assert (first.size, second.size) == (60, 40)
    change(first.logit_r, logit(0.2))  # from 0, where r is 1/2
    change(second.logit_r, logit(0.7))
    assert pruning.r == pytest.approx(0.6 * 0.2 + 0.4 * 0.7, rel=1e-6)
    assert pruning.penalty().item() == pytest.approx(2 * (1 - 0.4) ** 2, rel=1e-5)
    pruning.penalty().backward()
    outer = -2 * 2 * 0.6
    assert first.logit_r.grad.item() == pytest.approx(outer * 0.6 * 0.2 * 0.8, rel=1e-5)
    assert second.logit_r.grad.item() == pytest.approx(outer * 0.4 * 0.7 * 0.3, rel=1e-5)
    assert sparsity(harden(model), per_layer=True) == {"0": 0.2, "2": 0.7}


@settings(max_examples=60)
@given(st.floats(1e-6, 1 - 1e-6), st.sampled_from(["layer", "global"]), st.booleans())
def test_harden_prunes_exactly_the_ratio(r, scope, ties):
    model = network()
    if ties:
        nn.init.constant_(model[0].weight, 0.1)
    pruning = pb.AdaptivePruning(model, r=r, relative_tau=1e-6, scope=scope)
    found = [threshold.ratio().item() for threshold in thresholds(model)]
    sizes = [60, 40] if scope == "layer" else [100]
    wanted = sum(round(ratio * size) for ratio, size in zip(found, sizes, strict=True))
    assert pruning.r == pytest.approx(r, rel=1e-4)
    assert sum(int((~mask).sum()) for mask in masks(model).values()) == wanted
    bake(model)
    assert sum(int((layer.weight == 0).sum()) for layer in (model[0], model[2])) == wanted


def test_frozen_ratios_stay_while_weights_and_temperature_go_on():
    model = network()
    pruning = pb.AdaptivePruning(model, lr_r=0.1, lr_tau=0.1, scope="layer")
    optimizer = Adam(pruning.parameter_groups(), lr=0.01)
    for frozen in (False, True):
        if frozen:
            pruning.freeze()
        r, tau, weight = pruning.r, pruning.tau, dense_weight(model[0]).detach().clone()
        train(model, pruning, optimizer=optimizer)
        assert (pruning.r == r) == frozen
        assert pruning.tau != tau
        assert not torch.equal(dense_weight(model[0]), weight)
    assert len(pruning.parameter_groups()) == 2
    t = thresholds(model)[0].t.item()
    change(dense_weight(model[0]), 1)
    pb.renew(model)
    assert thresholds(model)[0].t.item() > t + 0.5  # and t follows the weights


@pytest.mark.parametrize(
    ("ratios", "window", "tolerance", "wanted"),
    [
        ([], 1, 0.1, False),
        ([0.5], 1, 0.1, False),
        ([0.5, 0.5], 1, 0.1, True),
        ([0.5, 0.5, 0.5], 3, 0.1, False),
        ([0.5, 0.625], 1, 0.125, True),  # the tolerance belongs to it
        ([0.5, 0.625], 1, 0.12, False),
        ([0.1, 0.9, 0.9, 0.9, 0.9], 3, 0.01, True),
        ([0.1, 0.9, 0.9, 0.9, 0.9], 4, 0.01, False),
        ([0.90, 0.91, 0.92, 0.93], 3, 0.015, False),  # each change is small, their sum is not
        ([0.9, 0.92, 0.9, 0.92], 3, 0.021, True),
        ([0.5, 0.5, 0.5, 0.9], 2, 0.1, False),
    ],
)
def test_settled_by_hand(ratios, window, tolerance, wanted):
    assert settled(ratios, window, tolerance) is wanted
    assert settled(tuple(ratios), window=window, tolerance=tolerance) is wanted


def test_settled_by_default():
    assert settled([0.3, 0.9, 0.901, 0.9015, 0.9019])
    assert not settled([0.9, 0.901, 0.9015, 0.9021])
    with pytest.raises(ValueError, match="window must be a whole number of at least 1, got 0"):
        settled([0.5], window=0)
    with pytest.raises(ValueError, match=r"tolerance must be above 0 and finite, got 0\.0"):
        settled([0.5], tolerance=0.0)


def test_grid_and_bandwidth_reach_the_quantile():
    layer, _, _ = dense_double()
    scores = dense_weight(layer).detach().abs()
    for options in ({}, {"grid": 64}, {"bandwidth": "scott"}, {"bandwidth": 0.02}):
        each = copy.deepcopy(layer)
        pb.AdaptivePruning(each, r=0.7, **options)
        (threshold,) = thresholds(each)
        r = threshold.ratio().detach().requires_grad_()
        t = quantile(scores, r, **options)
        t.backward()
        assert threshold.t == t
        assert threshold.slope.item() == pytest.approx(r.grad.item() * 0.7 * 0.3, rel=1e-9)


def test_training_prunes_what_the_data_do_not_need():
    data = make_data(300)
    with seeded(3):
        model = pb.mlp([16, 30, 3])
    pruning = pb.AdaptivePruning(model, r=0.5, lam=1.0, lr_r=0.02)
    ratios = [pruning.r]
    history = pb.fit(
        model,
        data,
        epochs=20,
        batch_size=32,
        optimizer=Adam(pruning.parameter_groups(), lr=0.01),
        penalty=pruning.penalty,
        on_epoch=lambda row: ratios.append(pruning.r),
        progress=False,
    )
    assert all(after > before for before, after in pairwise(ratios[:5]))
    assert ratios[-1] > 0.75
    assert history["sparsity"][-1] == round(ratios[-1] * 570) / 570
    soft = pb.evaluate(model, data.train).accuracy
    assert soft > 0.9
    assert pb.evaluate(bake(model), data.train).accuracy > soft - 0.05
    assert sparsity(model) == history["sparsity"][-1]


def test_fixed_soft_masks_have_no_ratio_to_learn():
    model = network()
    pruning = pb.AdaptivePruning(model)
    bake(model)
    pb.SoftPruning(model, 50)
    with pytest.raises(ValueError, match="must have adaptive masks, its thresholds have no ratio to learn"):
        pruning.penalty()
