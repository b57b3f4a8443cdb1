import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import batch, make_data, network, normal
from torch import nn
from torch.optim import SGD, Adam

import prunebook as pb
from prunebook.masking import bake, dense_weight, harden, masks, sparsity
from prunebook.methods.adaptive import LearnedThreshold
from prunebook.methods.quantile import quantile
from prunebook.methods.soft import soft_mask, thresholds
from prunebook.training import checkpoint as checkpoints


def small_mlp(*sizes):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return pb.mlp(sizes)


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
    layer = nn.Linear(4, 1)
    layer.weight = nn.Parameter(torch.tensor([[1.0, -2.0, 3.0, -4.0]]))
    pruning = pb.AdaptivePruning(layer, r=0.5, tau=0.1)
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


@pytest.mark.parametrize("r", [1e-6, 0.3, 0.95, 1 - 1e-6])
def test_any_ratio_to_start_with(r):
    model = network()
    assert pb.AdaptivePruning(model, r=r).r == pytest.approx(r, rel=1e-4)
    model(batch()).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert sparsity(model) == round(100 * r) / 100


def test_penalties_by_hand():
    for r in (0.2, 0.5, 0.9):
        assert pb.AdaptivePruning(network(), r=r, lam=3.0).penalty().item() == pytest.approx(3 * (1 - r) ** 2)
        pruning = pb.AdaptivePruning(network(), r=r, lam=3.0, target=0.6)
        assert pruning.penalty().item() == pytest.approx(3 * abs(0.6 - r), rel=1e-5)
        assert pruning.penalty().shape == ()


@pytest.mark.parametrize(
    ("target", "by_r"), [(None, lambda r: -2 * 3 * (1 - r)), (0.95, lambda r: -3), (0.1, lambda r: 3)]
)
def test_penalties_pull_at_the_logit(target, by_r):
    model = network()
    pruning = pb.AdaptivePruning(model, r=0.7, lam=3.0, target=target)
    pruning.penalty().backward()
    found = thresholds(model)[0].logit_r.grad.item()
    assert found == pytest.approx(by_r(0.7) * 0.7 * 0.3, rel=1e-5)


def test_no_penalty_without_lam():
    assert pb.AdaptivePruning(network(), lam=0.0).penalty().item() == 0


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
    pruning = pb.AdaptivePruning(layer, r=r, tau=0.05)

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
    pb.AdaptivePruning(layer, r=0.8, tau=0.05)
    (threshold,) = thresholds(layer)
    (layer(x) - y).square().mean().backward()
    w, t = dense_weight(layer).detach(), threshold.t.clone().requires_grad_()
    ((x @ (w * soft_mask(w, t, threshold.tau().detach())).t() - y).square().mean()).backward()
    r = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    quantile(w.abs(), r).backward()
    wanted = t.grad.item() * r.grad.item() * 0.8 * 0.2
    assert threshold.logit_r.grad.item() == pytest.approx(wanted, rel=1e-6)
    assert r.grad > 0


def test_between_two_looks_the_threshold_follows_the_ratio():
    layer, x, _ = dense_double()
    pb.AdaptivePruning(layer, r=0.8, every=100)
    (threshold,) = thresholds(layer)
    layer(x)
    t0, slope = threshold.t.item(), threshold.slope.item()
    change(threshold.logit_r, 0.05)
    layer(x)
    assert threshold()[0].item() == pytest.approx(t0 + 0.05 * slope, rel=1e-9)
    assert threshold.t.item() == t0
    followed = threshold()[0].item()
    layer.train()(x)  # a fresh look
    assert threshold()[0].item() == threshold.t.item() == pytest.approx(followed, rel=2e-3)
    assert followed - t0 > 10 * abs(followed - threshold.t.item())
    change(threshold.logit_r, -1e4)
    assert threshold()[0].item() == 0  # never below


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("lr", [1e3, 1e30])
@pytest.mark.parametrize("target", [None, 0.3])
def test_ratio_and_temperature_stay_valid_at_absurd_learning_rates(scope, lr, target):
    model = network()
    pruning = pb.AdaptivePruning(model, scope=scope, lr_r=lr, lr_tau=lr, every=2, target=target, lam=1.0)
    optimizer = SGD(pruning.parameter_groups(), lr=1e-3)
    for step in range(7):
        loss = model.train()(batch()).square().sum() + pruning.penalty()
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
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
    pruning = pb.AdaptivePruning(model, target=0.5)
    (threshold,) = thresholds(model)
    change(threshold.logit_r, absurd)
    assert 0 < pruning.r < 1
    model(batch())
    pruning.penalty().backward()
    assert threshold.logit_r.item() == math.copysign(16, absurd)
    assert threshold.logit_r.grad * absurd > 0


def test_two_forward_passes_before_one_backward_pass():
    model, twice = network(), network()
    for each in (model, twice):
        pb.AdaptivePruning(each, every=1)
    (model(batch()).sum() + model(-batch()).square().sum()).backward()
    twice(batch()).sum().backward()
    twice(-batch()).square().sum().backward()
    for one, two in zip(model.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_without_data_the_penalty_prunes_more_and_more():
    ratios = minimise_penalty(pb.AdaptivePruning(network(), r=0.3, lr_r=0.05), 100)
    assert ratios == sorted(ratios)
    assert ratios[-1] > 0.85


@pytest.mark.parametrize("start", [0.2, 0.95])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_with_a_target_the_ratio_settles_there(start, scope):
    pruning = pb.AdaptivePruning(network(), r=start, target=0.6, scope=scope, lr_r=0.04)
    ratios = minimise_penalty(pruning, 200)
    assert pb.settled(ratios, window=20, tolerance=0.02)
    assert pruning.r == pytest.approx(0.6, abs=0.01)


def test_each_layer_has_its_own_ratio():
    model = network()
    pruning = pb.AdaptivePruning(model, scope="layer", lam=2.0)
    first, second = thresholds(model)
    assert (first.size, second.size) == (60, 40)
    with torch.no_grad():
        first.logit_r.fill_(logit(0.2))
        second.logit_r.fill_(logit(0.7))
    assert pruning.r == pytest.approx(0.6 * 0.2 + 0.4 * 0.7, rel=1e-6)
    assert pruning.penalty().item() == pytest.approx(2 * (1 - 0.4) ** 2, rel=1e-5)
    pruning.penalty().backward()
    outer = -2 * 2 * 0.6
    assert first.logit_r.grad.item() == pytest.approx(outer * 0.6 * 0.2 * 0.8, rel=1e-5)
    assert second.logit_r.grad.item() == pytest.approx(outer * 0.4 * 0.7 * 0.3, rel=1e-5)
    assert sparsity(harden(model), per_layer=True) == {"0": 0.2, "2": 0.7}


@settings(max_examples=60, deadline=None)
@given(st.floats(0.001, 0.999), st.sampled_from(["layer", "global"]), st.booleans())
def test_harden_prunes_exactly_the_ratio(r, scope, ties):
    model = network()
    if ties:
        nn.init.constant_(model[0].weight, 0.1)
    pruning = pb.AdaptivePruning(model, r=r, tau=1e-6, scope=scope)
    found = [threshold.ratio().item() for threshold in thresholds(model)]
    sizes = [60, 40] if scope == "layer" else [100]
    wanted = sum(round(ratio * size) for ratio, size in zip(found, sizes, strict=True))
    assert pruning.r == pytest.approx(r, rel=1e-5)
    assert sum(int((~mask).sum()) for mask in masks(model).values()) == wanted
    bake(model)
    assert sum(int((layer.weight == 0).sum()) for layer in (model[0], model[2])) == wanted


def test_harden_folds_the_mask_into_what_is_kept():
    model = network()
    pb.AdaptivePruning(model, r=0.6, tau=0.1)
    kept, soft = masks(model), {"0": model[0].weight.detach(), "2": model[2].weight.detach()}
    harden(model)
    for name, weight in soft.items():
        mask = kept[f"{name}.weight"]
        torch.testing.assert_close(model.get_submodule(name).weight.detach(), weight * mask)
        assert (weight.abs() < network().get_submodule(name).weight.abs()).any()
    assert sparsity(model) == 0.6
    assert list(bake(model).state_dict()) == list(network().state_dict())


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_parameter_groups_hold_each_parameter_once(scope):
    model = network()
    pruning = pb.AdaptivePruning(model, scope=scope, lr_r=0.5, lr_tau=0.25)
    others, ratios, temperatures = pruning.parameter_groups()
    held = [id(p) for group in (others, ratios, temperatures) for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert len(held) == 4 + 2 * (2 if scope == "layer" else 1)
    assert {id(p) for p in ratios["params"]} == {id(found.logit_r) for found in thresholds(model)}
    assert {id(p) for p in temperatures["params"]} == {id(found.log_tau) for found in thresholds(model)}
    assert (ratios["lr"], temperatures["lr"]) == (0.5, 0.25)
    assert (ratios["weight_decay"], temperatures["weight_decay"]) == (0, 0)


def test_weight_decay_does_not_move_ratio_and_temperature():
    model = network()
    pruning = pb.AdaptivePruning(model, r=0.9, lam=0.0)
    optimizer, before = SGD(pruning.parameter_groups(), lr=0.1, weight_decay=0.5), (pruning.r, pruning.tau)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight = dense_weight(model[0]).detach().clone()
    optimizer.step()
    assert (pruning.r, pruning.tau) == before
    torch.testing.assert_close(dense_weight(model[0]).detach(), 0.95 * weight)


def test_frozen_ratios_stay_while_weights_and_temperature_go_on():
    model = network()
    pruning = pb.AdaptivePruning(model, lr_r=0.1, lr_tau=0.1, scope="layer")
    optimizer = Adam(pruning.parameter_groups(), lr=0.01)
    for frozen in (False, True):
        if frozen:
            pruning.freeze()
        r, tau, weight = pruning.r, pruning.tau, dense_weight(model[0]).detach().clone()
        for _ in range(3):
            optimizer.zero_grad()
            (model(batch()).square().mean() + pruning.penalty()).backward()
            optimizer.step()
        assert (pruning.r == r) == frozen
        assert pruning.tau != tau
        assert not torch.equal(dense_weight(model[0]), weight)
    assert len(pruning.parameter_groups()) == 2
    t = thresholds(model)[0].t.item()
    change(dense_weight(model[0]), 1)
    model.train()(batch())
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
    assert pb.settled(ratios, window, tolerance) is wanted
    assert pb.settled(tuple(ratios), window=window, tolerance=tolerance) is wanted


def test_settled_by_default():
    assert pb.settled([0.3, 0.9, 0.901, 0.9015, 0.9019])
    assert not pb.settled([0.9, 0.901, 0.9015, 0.9021])


@pytest.mark.parametrize("window", [0, -1])
def test_windows_out_of_range_are_refused(window):
    with pytest.raises(ValueError, match=f"window must be at least 1, got {window}"):
        pb.settled([0.5], window=window)


@pytest.mark.parametrize("tolerance", [0.0, -0.1, math.nan, math.inf])
def test_tolerances_out_of_range_are_refused(tolerance):
    with pytest.raises(ValueError, match=f"tolerance must be above 0 and finite, got {tolerance}"):
        pb.settled([0.5], tolerance=tolerance)


def test_a_deepcopy_learns_by_itself():
    model = network()
    pruning = pb.AdaptivePruning(model)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(batch()), model(batch()))
    twin_threshold = thresholds(twin)[0]
    change(twin_threshold.logit_r, 2)
    assert pruning.r == 0.5
    change(dense_weight(twin[0]), 3)
    before = thresholds(model)[0].t.item()
    twin.train()(batch())
    assert thresholds(model)[0].t.item() == before
    assert twin_threshold.t.item() > 2


def test_state_dict_goes_both_ways():
    model, other = network(), network(seed=1)
    pruning, theirs = pb.AdaptivePruning(model, r=0.8), pb.AdaptivePruning(other, r=0.3, tau=0.5)
    change(thresholds(model)[0].logit_r, 0.1)  # not yet looked at again
    other.load_state_dict(model.state_dict(), strict=True)
    assert (theirs.r, theirs.tau) == (pruning.r, pruning.tau)
    assert torch.equal(other.eval()(batch()), model.eval()(batch()))
    assert all(torch.equal(mask, masks(other)[name]) for name, mask in masks(model).items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_precisions(dtype):
    model = nn.Sequential(nn.Linear(400, 300))  # more weights than a half counts to
    with torch.no_grad():
        model[0].weight.copy_(normal(300, 400) * 0.05)
    pruning = pb.AdaptivePruning(model, r=0.9)
    true = 0.05 * math.sqrt(2) * torch.special.erfinv(torch.tensor(0.9)).item()
    model = model.to(dtype)
    output = model(normal(2, 400).to(dtype))
    (output.sum() + pruning.penalty()).backward()
    assert (
        output.dtype == dense_weight(model[0]).grad.dtype == thresholds(model)[0].logit_r.grad.dtype == dtype
    )
    assert pruning.r == pytest.approx(0.9, abs=1e-3)
    assert thresholds(model)[0]()[0].item() == pytest.approx(true, rel=0.015)
    assert thresholds(model)[0].logit_r.grad.isfinite()
    assert sparsity(harden(model)) == pytest.approx(0.9, abs=1e-3)


def test_shared_weights_and_convolutions():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    model[4].weight = model[2].weight
    pruning = pb.AdaptivePruning(model, r=0.5, scope="layer")
    assert [found.size for found in thresholds(model)] == [36, 256]
    (model(normal(2, 1, 4, 4, dtype=torch.float32)).square().sum() + pruning.penalty()).backward()
    assert all(found.logit_r.grad.abs() > 0 for found in thresholds(model))
    assert bake(model)[4].weight is model[2].weight
    assert sparsity(model) == 0.5


def test_skipped_layers_do_not_count():
    model = network()
    pruning = pb.AdaptivePruning(model, r=0.5, skip=["2"])
    assert list(masks(model)) == ["0.weight"]
    assert thresholds(model)[0].size == 60
    assert pruning.r == 0.5
    assert sparsity(harden(model), per_layer=True) == {"0": 0.5, "2": 0}


def test_equal_weights_and_a_single_one():
    for size in (8, 1):
        for value in (0.0, 0.3):
            model = nn.Linear(size, size)
            nn.init.constant_(model.weight, value)
            pruning = pb.AdaptivePruning(model, r=0.25)
            assert 1e-12 <= pruning.tau < 1e-9
            (threshold,) = thresholds(model)
            assert 0 <= threshold.slope <= max(value / 1000, 1e-30)  # no density to speak of
            (model(torch.ones(1, size)).sum() + pruning.penalty()).backward()
            assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
            assert (~masks(model)["weight"]).sum() == round(0.25 * threshold.size)


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


class StoppedError(Exception):
    pass


def run(scope, stop_after=None, checkpoint=None):
    model = small_mlp(16, 12, 3)
    pruning = pb.AdaptivePruning(model, scope=scope, every=7, lr_r=0.02, lr_tau=0.05)

    def stop(row):
        row["r"], row["tau"] = pruning.r, pruning.tau
        if row["epoch"] == stop_after:
            raise StoppedError

    history = pb.fit(
        model,
        make_data(),
        epochs=4,
        batch_size=8,
        optimizer=Adam(pruning.parameter_groups(), lr=0.01),
        penalty=pruning.penalty,
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
    assert (resumed["r"], resumed["tau"]) == (history["r"], history["tau"])
    assert len(set(history["r"])) == 4


def test_training_prunes_what_the_data_do_not_need():
    data, model = make_data(300), small_mlp(16, 30, 3)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"r": 0.0}, r"r must be a share between 0 and 1, got 0\.0"),
        ({"r": 1.0}, r"r must be a share between 0 and 1, got 1\.0"),
        ({"r": -0.5}, r"r must be a share between 0 and 1, got -0\.5"),
        ({"r": 50}, "r must be a share between 0 and 1, got 50"),
        ({"r": math.nan}, "r must be a share between 0 and 1, got nan"),
        ({"tau": 0.0}, r"tau must be above 0 and finite, got 0\.0"),
        ({"tau": -1.0}, r"tau must be above 0 and finite, got -1\.0"),
        ({"tau": math.nan}, "tau must be above 0 and finite, got nan"),
        ({"lam": -1.0}, r"lam must be at least 0 and finite, got -1\.0"),
        ({"lam": math.nan}, "lam must be at least 0 and finite, got nan"),
        ({"lam": math.inf}, "lam must be at least 0 and finite, got inf"),
        ({"target": -0.1}, r"target must be a share from 0 to 1 or None, got -0\.1"),
        ({"target": 1.5}, r"target must be a share from 0 to 1 or None, got 1\.5"),
        ({"target": math.nan}, "target must be a share from 0 to 1 or None, got nan"),
        ({"lr_r": 0.0}, r"lr_r must be above 0 and finite, got 0\.0"),
        ({"lr_r": -1.0}, r"lr_r must be above 0 and finite, got -1\.0"),
        ({"lr_tau": 0.0}, r"lr_tau must be above 0 and finite, got 0\.0"),
        ({"lr_tau": math.nan}, "lr_tau must be above 0 and finite, got nan"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"every": 2.0}, r"every must be a whole number of at least 1, got 2\.0"),
        ({"grid": 15}, "grid must be a whole number of at least 16, got 15"),
        ({"grid": 64.0}, r"grid must be a whole number of at least 16, got 64\.0"),
        ({"bandwidth": "wide"}, "bandwidth must be 'scott', 'silverman' or a number, got 'wide'"),
        ({"bandwidth": 0.0}, r"bandwidth must be above 0 and finite, got 0\.0"),
        ({"scope": "all"}, "scope must be 'layer' or 'global', got 'all'"),
        ({"skip": ["9"]}, r"skip must name layers out of \['0', '2'\], got \['9'\]"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        pb.AdaptivePruning(model, **arguments)
    assert masks(model) == {}
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(value):
    model = network()
    dense_weight(model[2]).detach()[0, 0] = value
    with pytest.raises(
        ValueError, match=r"weights must be finite, got NaN or infinite ones in layers .*'2'\]"
    ):
        pb.AdaptivePruning(model)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op")
def test_models_without_weights_are_refused():
    for model in (nn.Sequential(), nn.Sequential(nn.ReLU(), nn.LayerNorm(3))):
        with pytest.raises(ValueError, match="must have a linear or convolution layer to prune"):
            pb.AdaptivePruning(model)
    with pytest.raises(ValueError, match=r"layers must have weights, got none in \['0'\]"):
        pb.AdaptivePruning(nn.Sequential(nn.Linear(0, 3)))


def test_a_model_with_masks_is_refused():
    model = pb.prune_weights(network(), 50, skip=["0"])
    before = list(model.state_dict())
    with pytest.raises(ValueError, match="weight must be without mask, has a Mask: bake it first"):
        pb.AdaptivePruning(model)
    assert list(model.state_dict()) == before


def test_nothing_is_left_to_learn_once_hardened():
    model = network()
    pruning = pb.AdaptivePruning(model)
    harden(model)
    assert not any(isinstance(module, LearnedThreshold) for module in model.modules())
    for call in (pruning.penalty, pruning.freeze, pruning.parameter_groups, lambda: pruning.r):
        with pytest.raises(ValueError, match="model must have soft masks, got none: they were hardened"):
            call()


def test_fixed_soft_masks_have_no_ratio_to_learn():
    model = network()
    pruning = pb.AdaptivePruning(model)
    bake(model)
    pb.SoftPruning(model, 50)
    with pytest.raises(ValueError, match="must have adaptive masks, its thresholds have no ratio to learn"):
        pruning.penalty()
