import copy
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import (
    METHODS,
    SPEAKERS,
    Own,
    batch,
    conv_net,
    make_data,
    network,
    normal,
    seeded,
    set_logits,
    train,
)
from torch import nn
from torch.optim import Adam

import prunebook as pb
from prunebook.cover import sparsity
from prunebook.layers import dense_weight
from prunebook.masking import bake, harden, masks
from prunebook.methods.gates import FROZEN, gates
from prunebook.methods.units import unit_rows


def untraceable():
    """A network whose branch on a tensor torch.fx cannot follow."""
    layers = {"first": nn.Linear(6, 5), "last": nn.Linear(5, 4)}
    return Own(lambda self, x: self.last(self.first(x).relu() if x.sum() > -1e9 else x), **layers)


def test_gates_of_tied_weights_count_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 1))
    model[2].weight = model[0].weight
    pruning = pb.GumbelPruning(model)
    assert {name: gate.logit.numel() for name, gate in gates(model).items()} == {"0": 16, "3": 4}
    pruning.freeze(7)
    bake(model)
    assert int((model[0].weight != 0).sum() + (model[3].weight != 0).sum()) == 7


# The penalty


def test_density_and_penalty_by_hand():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 3))
    pruning = pb.GumbelPruning(model, lam=2.0)
    set_logits(model, math.log(3), -math.log(3))  # open with 3/4, and three with 1/4
    assert pruning.density() == pytest.approx(3 / 8)
    assert pruning.density(per_layer=True) == pytest.approx({"0": 3 / 4, "1": 1 / 4})
    assert pruning.penalty(3 / 16).item() == pytest.approx(2 * math.log(2))
    assert pruning.penalty(1 / 2).item() == 0
    assert pruning.penalty(1 / 2, form="absolute").item() == pytest.approx(1 / 4)
    assert pruning.penalty(1 / 4, form="absolute").item() == pytest.approx(1 / 4)
    assert pruning.penalty(0, form="absolute").item() == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="target_density must be a share, got None: give it here or to Gumb"):
        pruning.penalty()  # not 0 in silence
    pruning.target_density = 3 / 80
    assert pruning.penalty().shape == ()
    assert pruning.penalty().item() == pytest.approx(2 * math.log(10), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_density_and_counts_of_halves(dtype):
    model = nn.Linear(400, 300).to(dtype)
    pruning = pb.GumbelPruning(model, logit=1.0)
    model.to(dtype)
    assert pruning.density() == pytest.approx(1 / (1 + 1 / math.e), abs=1e-6)  # a sum beyond 65,504
    set_logits(model, normal(300, 400))
    pruning.freeze(150)
    assert int(masks(model)["weight"].sum()) == 150


def test_density_is_what_gates_do_in_the_mean():
    model = nn.Linear(100, 100)
    pruning = pb.GumbelPruning(model)
    set_logits(model, 2 * normal(100, 100))
    shares = []
    with seeded():
        for _ in range(40):
            pb.renew(model)
            shares.append((model.weight != 0).double().mean().item())
    p = gates(model)[""].logit.detach().double().sigmoid()
    error = math.sqrt(float((p * (1 - p)).sum()) / 40) / 1e4
    assert sum(shares) / 40 == pytest.approx(pruning.density(), abs=5 * error)
    assert pruning.density() == pytest.approx(p.mean().item(), rel=1e-6)


@pytest.mark.parametrize("form", ["log", "absolute"])
@pytest.mark.parametrize("target", [0.1, 0.9])
def test_the_gradient_of_the_penalty_is_that_of_finite_differences(form, target):
    model = network().double()
    pruning = pb.GumbelPruning(model, lam=3.0)
    at, along = ([normal(10, 6, seed=seed), normal(4, 10, seed=seed)] for seed in (0, 1))
    values = []
    for step in (1e-5, -1e-5, 0):
        set_logits(model, *(logit + step * way for logit, way in zip(at, along, strict=True)))
        values.append(pruning.penalty(target, form).item())
    found = torch.autograd.grad(pruning.penalty(target, form), [g.logit for g in gates(model).values()])
    slope = (values[0] - values[1]) / 2e-5
    pull = sum((gradient * way).sum().item() for gradient, way in zip(found, along, strict=True))
    assert pull == pytest.approx(slope, rel=1e-5)
    assert (slope == 0) == (form == "log" and target == 0.9)


def test_closed_gates_have_a_finite_gradient():
    model = network()
    pruning = pb.GumbelPruning(model)
    set_logits(model, -1000.0, -1000.0)
    assert pruning.density() == 0
    for form in ("log", "absolute"):
        pruning.penalty(0.5, form).backward()
    assert all(gate.logit.grad.eq(0).all() for gate in gates(model).values())


@pytest.mark.parametrize(
    ("target", "form", "message"),
    [
        (0, "log", "target_density must be a share, above 0 and at most 1, got 0"),
        (math.nan, "log", "target_density must be a share, above 0 and at most 1, got nan"),
        (50, "absolute", "target_density must be a share, at least 0 and at most 1, got 50"),
        (0.5, "square", "form must be 'log' or 'absolute', got 'square'"),
    ],
)
def test_penalties_out_of_range_are_refused(target, form, message):
    with pytest.raises(ValueError, match=message):
        pb.GumbelPruning(network()).penalty(target, form)


# Freezing


def test_freeze_keeps_the_largest_logits():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    pruning = pb.GumbelPruning(model)
    names = {name: tensor.shape for name, tensor in model.state_dict().items()}
    set_logits(model, [[-5.0, 3.0], [0.5, -1.0]], [[2.0, -7.0]])
    pruning.freeze(4)  # one of them has a negative logit
    assert masks(model)["0.weight"].tolist() == [[False, True], [True, True]]
    assert masks(model)["1.weight"].tolist() == [[True, False]]
    assert gates(model)["1"].logit.tolist() == [[FROZEN, -FROZEN]]
    assert pruning.density() == pytest.approx(4 / 6)
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == names


@settings(max_examples=60)
@given(st.lists(st.integers(-2, 2), min_size=10, max_size=10), st.integers(1, 10))
def test_freeze_is_exact_and_of_ties_the_higher_index_stays(logits, count):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    pruning = pb.GumbelPruning(model)
    set_logits(model, torch.tensor(logits[:6]).view(2, 3), torch.tensor(logits[6:]).view(2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruning.freeze(count)
    kept = torch.cat([mask.flatten() for mask in masks(model).values()])
    ranked = sorted(range(10), key=lambda i: (logits[i], i))
    assert kept.nonzero().flatten().tolist() == sorted(ranked[-count:])


@pytest.mark.parametrize("count", [0, 101, -1, True, 2.0, math.nan])
def test_counts_out_of_range_are_refused(count):
    pruning = pb.GumbelPruning(network())
    with pytest.raises(ValueError, match=f"count must be a whole number from 1 to 100, got {count}"):
        pruning.freeze(count)
    with pytest.raises(ValueError, match="count must be a whole number, got None without a target_density"):
        pruning.freeze()
    assert pruning.density() == pytest.approx(1 / (1 + math.exp(-2)))


@pytest.mark.parametrize(("target", "count"), [(0.3, 30), (1e-6, 1), (1.0, 100)])
def test_without_a_count_the_target_density_is_frozen(target, count):
    pruning = pb.GumbelPruning(network(), target_density=target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruning.freeze()
    assert sum(int(mask.sum()) for mask in masks(pruning.model).values()) == count


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("again", ["train", "nothing"])
def test_frozen_gates_stay_as_they_are(units, again):
    model = network()
    pruning = pb.GumbelPruning(model, units=units, logit=0.5, target_density=1.0)
    optimizer = train(model, pruning, lr=0.1, weight_decay=0.1)  # its momentum goes on
    count = 5 if units else 50
    pruning.freeze(count)
    if again == "train":
        model.eval()
        model.train()
    logits = {name: gate.logit.detach().clone() for name, gate in gates(model).items()}
    kept, weight = masks(model), dense_weight(model[0]).detach().clone()
    before = torch.get_rng_state()
    for _ in range(5):
        optimizer.zero_grad()
        (model(batch()).square().mean() + pruning.penalty(0.01)).backward()
        optimizer.step()
        assert torch.equal(model[0].weight != 0, kept["0.weight"] & (dense_weight(model[0]) != 0))
    assert torch.equal(torch.get_rng_state(), before)  # no coins
    assert all(torch.equal(gate.logit, logits[name]) for name, gate in gates(model).items())
    assert all(torch.equal(mask, kept[name]) for name, mask in masks(model).items())
    assert not torch.equal(dense_weight(model[0]), weight)
    assert len(pruning.parameter_groups()) == 1
    harden(model)
    assert sum(int(m.sum()) for n, m in masks(model).items() if n == "0.bias" or not units) == count


def test_gates_thaw_with_an_older_state():
    model = network()
    pruning = pb.GumbelPruning(model)
    set_logits(model, normal(10, 6), normal(4, 10))
    state = copy.deepcopy(model.state_dict())
    pruning.freeze(40)
    frozen = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    before, pruning.target_density = pruning.density(), 0.01
    train(model, pruning, lr=0.1)
    assert pruning.density() < before
    assert pruning.density() != 0.4
    model.load_state_dict(frozen)
    model.train()
    before = torch.get_rng_state()
    model(batch())
    assert torch.equal(torch.get_rng_state(), before)


def test_freeze_warns_where_all_paths_are_cut():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    pruning = pb.GumbelPruning(model)
    set_logits(model, [[3.0, -1.0], [-1.0, -1.0]], [[-1.0, 3.0]])  # one feeds unit 0, one reads unit 1
    with pytest.warns(UserWarning, match="no path leads from an input to an output") as caught:
        pruning.freeze(2)
    (warning,) = caught
    assert warning.filename == __file__
    assert "through 2 open gates: every image gets the same answer" in str(warning.message)
    assert "Keep more, or let the target density fall more slowly" in str(warning.message)
    assert torch.equal(model.eval()(torch.zeros(1, 2)), model(torch.ones(1, 2)))
    assert sparsity(harden(model)) == 4 / 6  # each layer has a weight: nothing more to say


@pytest.mark.parametrize("make", [network, untraceable])
def test_freeze_warns_once_of_an_empty_layer(make):
    pruning = pb.GumbelPruning(make())
    first, last = (gate.logit.numel() for gate in gates(pruning.model).values())
    pruning.freeze(last + 11)  # of equal logits those of the last layer stay, and some of the first
    assert list(pruning.density(per_layer=True).values()) == pytest.approx([11 / first, 1])
    set_logits(pruning.model, 1.0, -1.0)
    with pytest.warns(UserWarning, match="no path leads") as caught:
        pruning.freeze(3)
    assert len(caught) == 1


def test_an_empty_branch_cuts_nothing():
    layers = {"first": nn.Linear(6, 5), "branch": nn.Linear(5, 5), "last": nn.Linear(5, 4)}
    model = Own(lambda self, x: self.last((y := self.first(x)) + self.branch(y).relu()), **layers)
    pruning = pb.GumbelPruning(model)
    set_logits(model, 1.0, -1.0, 1.0)
    pruning.freeze(50)
    assert sparsity(model, per_layer=True) == {"first": 0, "branch": 1, "last": 0}


@pytest.mark.parametrize("units", [True, False])
def test_harden_warns_of_a_layer_without_weights(units):
    model = network()
    pb.GumbelPruning(model, units=units)
    set_logits(model, *[-1.0] + [1.0] * (not units))
    masks(model), sparsity(model), model.eval()(batch())  # say nothing yet
    count = 10 if units else 60
    message = rf"all {count} gates of a layer with weights of shape \(10, 6\) are closed: nothing of it is"
    with pytest.warns(UserWarning, match=message) as caught:
        harden(model)
    (warning,) = caught
    assert "Lower lam, or raise the target density" in str(warning.message)
    assert sparsity(harden(model), per_layer=True)["0"] == 1  # now constant: said once


@pytest.mark.parametrize("units", [True, False])
def test_logits_that_are_no_numbers_are_refused(units):
    model = network()
    pruning = pb.GumbelPruning(model, units=units)
    with torch.no_grad():
        gates(model)["0"].logit[3] = math.nan
    before = list(model.state_dict())
    for call in (lambda: pruning.freeze(5), lambda: harden(model), lambda: masks(model), lambda: bake(model)):
        with pytest.raises(ValueError, match="logits must be numbers, got NaN: lower the learning rates"):
            call()
    assert list(model.state_dict()) == before


# Optimizer groups


def test_gates_may_be_all_that_learns():
    model = network().requires_grad_(False)
    pruning = pb.GumbelPruning(model)
    pruning.target_density = 0.01
    train(model, pruning, steps=20, lr=0.1)
    assert pruning.density() < 0.85
    assert torch.equal(dense_weight(model[0]), network()[0].weight)


# Gates on units


def test_weight_bias_and_batchnorm_share_one_gate():
    model = conv_net()
    pruning = pb.GumbelPruning(model, units=True, logit=0.0)
    assert list(gates(model)) == ["0", "3", "6", "9"]
    assert [len(gate.logit) for gate in gates(model).values()] == [6, 4, 5, 8]
    assert set(masks(model)) == SPEAKERS
    for norm in (1, 4):
        nn.init.constant_(dense_weight(model[norm], "bias"), 0.3)
    seen = set()
    for _ in range(10):
        pb.renew(model)
        for layer, norm in ((0, 1), (3, 4), (6, None), (9, None)):
            gate = gates(model)[str(layer)]()
            assert set(gate.tolist()) <= {0, 1}
            seen.add((layer, tuple(gate.tolist())))
            speakers = [unit_rows(model[layer], model[layer].weight)[:, 0]]
            speakers += [model[layer].bias] * (layer != 0)
            speakers += [model[norm].weight, model[norm].bias] if norm else []
            for values in speakers:
                assert torch.equal(values != 0, gate != 0)
    assert len(seen) > 20
    assert pruning.density() == 0.5


def test_hardened_and_shrunk_units_say_the_same():
    model, images = conv_net().double(), normal(5, 2, 4, 4)
    pruning = METHODS["gumbel units"](model)
    for _ in range(3):
        model(images)  # moves the statistics of BatchNorm
    pruning.freeze(13)
    wanted = model.eval()(images)
    harden(model)
    torch.testing.assert_close(model(images), wanted, atol=1e-12, rtol=0)
    small, report = pb.shrink(model, report=True)
    torch.testing.assert_close(small(images), wanted, atol=1e-12, rtol=0)
    rows = [unit_rows(model[i], masks(model)[f"{i}.weight"]) for i in (0, 3, 6, 9)]
    assert sum(int(row.any(1).sum()) for row in rows) == 13
    before, after = report.units["9"]
    assert (before, after) == (8, int(masks(model)["9.bias"].sum()))


def test_units_of_a_model_that_cannot_be_traced():
    model = untraceable()
    with pytest.warns(UserWarning, match="torch.fx cannot trace the model") as caught:
        pb.GumbelPruning(model, units=True)
    assert [warning.filename for warning in caught] == [__file__]
    assert list(gates(model)) == ["first"]


# Training


def test_training_finds_the_weights_that_the_data_need():
    data = make_data(300)
    with seeded(3):
        model = pb.mlp([16, 30, 3])
    pruning = pb.GumbelPruning(model, lr_gates=0.1)
    optimizer = Adam(pruning.parameter_groups(), lr=0.01)
    options = {"batch_size": 32, "optimizer": optimizer, "progress": False}
    pb.fit(model, data, epochs=15, penalty=pruning.penalty, schedule=pruning.fall(0.05), **options)
    assert pruning.density() < 0.1
    pruning.freeze(28)
    pb.fit(model, data, epochs=5, seed=1, **options)
    pb.bake(model)
    assert sparsity(model) == 1 - 28 / 570
    assert pb.evaluate(model, data.train).accuracy > 0.85


def test_a_masked_bias_is_refused_before_anything_changes():
    model = network()
    pb.attach(model[0], torch.ones(10, dtype=torch.bool), "bias")
    before = list(model.state_dict())
    with pytest.raises(ValueError, match=r"parameters must be without mask, got masks on \['0.bias'\]"):
        pb.GumbelPruning(model, units=True)
    assert list(model.state_dict()) == before
    pb.GumbelPruning(model)  # gates on weights leave it alone
    assert sorted(masks(model)) == ["0.bias", "0.weight", "2.weight"]
