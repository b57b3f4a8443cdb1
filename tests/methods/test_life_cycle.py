"""What every method promises, tested once for all: attach, train, harden, bake, and what a mask survives."""

import copy
import io
import math
import pickle

import pytest
import torch
from safetensors.torch import load, save
from small import LEARNED, METHODS, SPEAKERS, batch, conv_net, make_data, network, normal, seeded, train
from torch import nn
from torch.optim import Adam

import prunebook as pb
from prunebook.cover import sparsity
from prunebook.layers import dense_weight
from prunebook.masking import bake, harden, masks, plain_state
from prunebook.methods.gates import gates
from prunebook.methods.soft import soft_mask, thresholds
from prunebook.training import checkpoint as checkpoints

every_method = pytest.mark.parametrize("method", METHODS)
every_learned = pytest.mark.parametrize("method", LEARNED)


@pytest.fixture(autouse=True)
def _seeded():
    with seeded():
        yield


class StoppedError(Exception):
    pass


def masked(method, device="cpu", seed=0, **options):
    model = network(seed).to(device)
    pruning = METHODS[method](model, **options)
    return model, pruning if method in LEARNED else None


@pytest.fixture
def data(device):
    return batch().to(device)


def tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    model[2].weight = model[0].weight
    return model


# From attach to bake


@every_method
def test_masks_are_on_the_parameters_that_the_method_prunes(method, device):
    model, _ = masked(method, device)
    found, wanted = masks(model), masks(masked(method)[0])
    # a unit closes its weights and its bias; the last layer has outputs, not units
    assert set(found) == {"0.weight", "0.bias" if "units" in method else "2.weight"}
    assert 0 < sparsity(model) < 1
    for name, mask in found.items():
        assert mask.dtype == torch.bool
        assert mask.device.type == device.type
        assert torch.equal(mask.cpu(), wanted[name])  # the same wherever it is computed


@every_method
def test_harden_keeps_the_masks_and_bake_the_outputs(method, device, data):
    model, pruning = masked(method, device)
    parameters = [dense_weight(model[0]), dense_weight(model[2])]
    train(model, pruning, x=data)
    kept, share = masks(model.eval()), sparsity(model)
    assert harden(model) is model
    assert all(torch.equal(mask, kept[name]) for name, mask in masks(model).items())
    names, wanted = list(model.state_dict()), model(data)
    assert torch.equal(harden(model)(data), wanted)
    assert list(model.state_dict()) == names
    assert bake(model) is model
    assert torch.equal(model(data), wanted)
    assert masks(model) == {}
    assert sparsity(model) == pytest.approx(share, abs=1e-12)
    for name, mask in kept.items():
        assert torch.equal(model.get_parameter(name) != 0, mask)  # no weight of 0 was kept
    assert [type(layer) for layer in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert model[0].weight is parameters[0]
    assert model[2].weight is parameters[1]
    assert list(model.state_dict()) == list(network().state_dict())
    assert [p.shape for p in model.parameters()] == [p.shape for p in network().parameters()]


@every_method
def test_evaluation_is_repeatable_and_changes_nothing(method, device, data):
    model, pruning = masked(method, device)
    train(model, pruning, x=data)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    outputs = [model.eval()(data) for _ in range(2)]
    masks(model), sparsity(model)
    assert torch.equal(*outputs)
    assert torch.equal(model[0].weight, model[0].weight)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@every_method
def test_one_bare_layer_and_convolutions(method):
    if "units" not in method:  # the units of a bare layer are outputs
        layer = nn.Linear(10, 10)
        METHODS[method](layer)
        layer(torch.ones(2, 10)).square().sum().backward()
        assert 0.3 < sparsity(bake(layer)) < 0.7
        assert type(layer) is nn.Linear
    model, images = conv_net(), normal(3, 2, 4, 4, dtype=torch.float32)
    METHODS[method](model, skip=["11"])
    model(images).square().sum().backward()
    assert set(masks(model)) == (SPEAKERS if "units" in method else {f"{i}.weight" for i in (0, 3, 6, 9)})
    for name in ("0", "3", "6", "9"):
        assert dense_weight(model.get_submodule(name)).grad.any()
        assert sparsity(model, per_layer=True)[name] < 1
    assert sparsity(model) > 0.2
    wanted = harden(model.eval())(images)
    assert sparsity(model, per_layer=True)["11"] == 0
    assert torch.equal(bake(model)(images), wanted)
    conv_net().load_state_dict(model.state_dict(), strict=True)


@every_method
def test_weights_that_are_not_contiguous(method):
    model, plain = network(), network()
    model[0].weight = nn.Parameter(plain[0].weight.detach().t().contiguous().t())
    for net in (model, plain):
        METHODS[method](net)
    assert all(torch.equal(mask, masks(plain)[name]) for name, mask in masks(model).items())
    torch.testing.assert_close(harden(model.eval())(batch()), harden(plain.eval())(batch()))
    assert torch.equal(bake(model)[0].weight, bake(plain)[0].weight)


@every_method
def test_shared_weights_share_their_mask(method):
    model = tied()
    METHODS[method](model)
    model(torch.ones(2, 4)).square().sum().backward()
    assert torch.equal(model[0].weight, model[2].weight)
    if "units" in method:
        assert torch.equal(masks(model)["0.bias"], masks(model)["2.bias"])
    assert torch.equal(masks(model)["0.weight"], masks(model)["2.weight"])
    share = sparsity(model)
    assert bake(copy.deepcopy(model))[0].weight is not model[0].weight
    assert bake(model)[0].weight is model[2].weight
    assert sparsity(model) == share


# State


@every_method
def test_a_deepcopy_is_independent(method, device, data):
    model, _ = masked(method, device)
    train(model, x=data)
    twin = copy.deepcopy(model)
    assert torch.equal(twin.eval()(data), model.eval()(data))
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(3).add_(0.1)
    twin.train()(data).sum().backward()
    harden(twin)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    bake(twin)
    bake(copy.deepcopy(model))
    assert masks(model)


@every_method
def test_state_dict_goes_both_ways(method, device, data):
    model, pruning = masked(method, device)
    train(model, pruning, x=data)
    file = io.BytesIO()
    torch.save(pickle.loads(pickle.dumps(model.state_dict())), file)
    file.seek(0)
    states = [torch.load(file, weights_only=True)]
    if method not in LEARNED:  # safetensors takes no parameters that two masks share
        states.append(load(save(model.state_dict())))
    for state in states:
        other, _ = masked(method, device, seed=1)
        other.load_state_dict(state, strict=True)
        assert torch.equal(other.eval()(data), model.eval()(data))
        assert all(torch.equal(mask, masks(other)[name]) for name, mask in masks(model).items())
    network().load_state_dict(plain_state(model), strict=True)
    plain, baked = plain_state(model), bake(model).state_dict()
    assert all(torch.equal(value, baked[name]) for name, value in plain.items())


def run(method, scope, stop_after=None, checkpoint=None):
    with seeded(3):
        model = pb.mlp([16, 12, 3])
    penalty, once = None, []
    if method == "weights":
        schedule, groups = pb.prune_gradually(model, 70, scope=scope, updates=9), model.parameters()
    elif method == "soft":
        pruning = pb.SoftPruning(model, 70, scope=scope, update_every=7, learn_tau=scope == "layer")
        schedule, groups = pruning.anneal(0.1) if scope == "global" else None, pruning.parameter_groups()
    elif method == "adaptive":
        pruning = pb.AdaptivePruning(model, scope=scope, update_every=7, lr_r=0.02, lr_tau=0.05)
        schedule, groups, penalty = None, pruning.parameter_groups(), pruning.penalty
    else:
        pruning = pb.GumbelPruning(model, units=scope == "units", logit=0.5, lr_gates=0.05)
        falling, annealing = pruning.fall(0.3, until=0.4), pruning.anneal(0.5)
        groups, penalty = pruning.parameter_groups(), pruning.penalty

        def schedule(progress):
            falling(progress)
            annealing(progress)
            if progress >= 0.55 and not once:  # in the midst of the third epoch
                once.append(pruning.freeze(5 if scope == "units" else 60))

    def stop(row):
        if row["epoch"] == stop_after:
            raise StoppedError

    options = {"penalty": penalty, "schedule": schedule, "on_epoch": stop, "checkpoint": checkpoint}
    optimizer = Adam(groups, lr=0.01)
    history = pb.fit(
        model, make_data(), epochs=4, batch_size=8, optimizer=optimizer, progress=False, **options
    )
    return history, checkpoints.digest(model.state_dict()), model


@pytest.mark.parametrize(
    ("method", "scope"),
    [
        ("weights", "global"),
        ("soft", "layer"),
        ("soft", "global"),
        ("adaptive", "layer"),
        ("adaptive", "global"),
        ("gumbel", "weights"),
        ("gumbel", "units"),
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(method, scope, tmp_path):
    history, whole, model = run(method, scope)
    for stop_after in (1, 3):  # before and after gates are frozen
        path = tmp_path / str(stop_after)
        with pytest.raises(StoppedError):
            run(method, scope, stop_after, path)
        resumed, bits, _ = run(method, scope, checkpoint=path)
        assert bits == whole
        assert resumed["valid_loss"] == history["valid_loss"]
        assert resumed["sparsity"] == history["sparsity"]
    if method == "gumbel":
        open_gates = sum(int(gate.open().sum()) for gate in gates(model).values())
        assert open_gates == (5 if scope == "units" else 60)


# Numbers


@pytest.mark.parametrize("method", ["soft", "adaptive"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_thresholds_of_more_weights_than_a_half_counts(method, dtype):
    model = nn.Linear(400, 300)
    with torch.no_grad():
        model.weight.copy_(normal(300, 400) * 0.05)
    pruning = METHODS[method](model, **{"k": 90} if method == "soft" else {"r": 0.9})
    true = 0.05 * math.sqrt(2) * torch.special.erfinv(torch.tensor(0.9)).item()
    model = model.to(dtype)
    model(normal(2, 400).to(dtype)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert thresholds(model)[0]()[0].item() == pytest.approx(true, rel=0.015)
    if method == "adaptive":
        assert pruning.r == pytest.approx(0.9, abs=1e-3)
    assert sparsity(harden(model)) == pytest.approx(0.9, abs=1e-3 if method == "adaptive" else 0)


@pytest.mark.parametrize("method", ["soft", "adaptive"])
@pytest.mark.parametrize(("value", "size"), [(0.0, 8), (0.3, 8), (0.3, 1)])
def test_equal_weights_have_the_least_temperature(method, value, size):
    layer = nn.Linear(size, size)
    nn.init.constant_(layer.weight, value)
    pruning = METHODS[method](layer, **{"k": 25} if method == "soft" else {"r": 0.25})
    assert 1e-12 <= pruning.tau < 1e-9
    (threshold,) = thresholds(layer)
    soft_mask(dense_weight(layer), *threshold())  # in its range
    if method == "adaptive":
        assert 0 <= threshold.slope <= max(value / 1000, 1e-30)  # no density to speak of
    layer(torch.ones(1, size)).sum().backward()
    assert dense_weight(layer).grad.isfinite().all()
    kept = masks(layer)["weight"]
    assert (~kept).sum() == round(0.25 * size**2)
    assert torch.equal(harden(layer).weight != 0, kept & (dense_weight(layer) != 0))


# What an optimizer trains


@every_learned
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_parameter_groups_hold_each_trainable_parameter_once(method, scope):
    rates = {
        "soft": {"lr_tau": 0.25},
        "adaptive": {"lr_r": 0.5, "lr_tau": 0.25},
    }.get(method, {"lr_gates": 0.25})
    options = {"scope": scope} if method in ("soft", "adaptive") else {}
    model = network()
    model[0].bias.requires_grad_(False)
    pruning = METHODS[method](model, **rates, **options)
    others, *named = pruning.parameter_groups()
    assert list(others) == ["params"]
    held = [id(p) for group in (others, *named) for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    own = [dense_weight(layer, name) for layer in (model[0], model[2]) for name in ("weight", "bias")]
    assert {id(p) for p in others["params"]} == {id(p) for p in own if p.requires_grad}
    optimizer = Adam(pruning.parameter_groups(), lr=1e-3, weight_decay=0.5)
    found = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == [(1e-3, 0.5), *((rate, 0.0) for rate in rates.values())]


# What is refused


@every_method
def test_layers_to_skip(method):
    model, _ = masked(method, skip=["2"])
    assert {name.partition(".")[0] for name in masks(model)} == {"0"}
    assert sparsity(harden(model), per_layer=True)["2"] == 0
    for skip, message in (
        (["9"], r"skip must name layers out of \['0', '2'\], or patterns such as 'encoder.\*', got \['9'"),
        (["0", "2"], "must have a linear or convolution layer to prune"),
    ):
        model = network()
        with pytest.raises(ValueError, match=message):
            METHODS[method](model, skip=skip)
        assert masks(model) == {}


@every_method
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op")
def test_models_without_weights_to_prune_are_refused(method):
    integers = network()
    integers[0].weight = nn.Parameter(torch.ones(10, 6, dtype=torch.int8), requires_grad=False)
    nothing = "must have a linear or convolution layer to prune"
    refused = [
        (nn.Sequential(), nothing),
        (nn.Sequential(nn.ReLU(), nn.LayerNorm(3)), nothing),
        (nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), "layer '0' must have its weights, got a lazily"),
        (integers, r"layer '0' must have floating-point weights.*int8"),
    ]
    if method in ("soft", "adaptive"):
        refused.append((nn.Sequential(nn.Linear(0, 3)), r"layers must have weights, got none in \['0'\]"))
    for model, message in refused:
        with pytest.raises(ValueError, match=message):
            METHODS[method](model)


GUMBELS = ("gumbel", "gumbel units")


@pytest.mark.parametrize(
    ("argument", "value", "allowed", "methods"),
    [
        ("k", 100.5, "be a percentage from 0 to 100", ("weights", "units", "soft")),
        ("scope", "all", "be 'layer' or 'global'", ("weights", "units", "soft", "adaptive")),
        ("relative_tau", 0.0, "be above 0 and finite", ("soft", "adaptive")),
        ("lr_tau", -1.0, "be above 0 and finite", ("soft", "adaptive")),
        ("update_every", 1.5, "be a whole number of at least 1", ("soft", "adaptive")),
        ("r", 0.0, "be a share, above 0 and below 1", ("adaptive",)),
        ("r", 50, "be a share, above 0 and below 1", ("adaptive",)),
        ("lr_r", 0.0, "be above 0 and finite", ("adaptive",)),
        ("target_density", 1.5, "be a share, at least 0 and at most 1", ("adaptive",)),
        ("grid", 15, "be a whole number of at least 16", ("adaptive",)),
        ("bandwidth", "wide", "be 'scott' or 'silverman'", ("adaptive",)),
        ("lam", -1.0, "be at least 0 and finite", ("adaptive", *GUMBELS)),
        ("tau", 0.0, "be above 0 and finite", GUMBELS),
        ("lr_gates", math.nan, "be above 0 and finite", GUMBELS),
        ("logit", math.nan, "lie between -5000 and 5000", GUMBELS),
        ("logit", -5000.0, "lie between -5000 and 5000", GUMBELS),
    ],
)
def test_arguments_out_of_range_are_refused(argument, value, allowed, methods):
    for method in methods:
        model = network()
        with pytest.raises(ValueError, match=f"{argument} must {allowed}, got {value!r}"):
            METHODS[method](model, **{argument: value})
        assert masks(model) == {}


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("method", ["weights", "units", "soft", "adaptive"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(method, scope, value):
    model = network()
    model[0].weight.detach()[0, 0] = value
    with pytest.raises(ValueError, match=r"weights must be finite, got .* in layers \['0'\]"):
        METHODS[method](model, scope=scope)
    assert masks(model) == {}


@every_learned
def test_masks_that_are_there_are_refused_and_left_alone(method):
    for skip in ([], ["2"]):
        model = pb.prune_weights(network(), 50, skip=skip)
        before = list(model.state_dict())
        with pytest.raises(ValueError, match="weight must be without mask, has a Mask: bake it first"):
            METHODS[method](model)
        assert list(model.state_dict()) == before
    model, _ = masked(method)
    kind = {"gumbel": "WeightGate", "gumbel units": "UnitGate"}.get(method, "SoftMask")
    with pytest.raises(ValueError, match=r"must be without mask, .*: bake"):
        METHODS[method](model)
    with pytest.raises(ValueError, match=rf"must have a constant mask or none, has a {kind}: harden it"):
        pb.prune_weights(model, 95)


@every_learned
def test_a_second_pruning_of_one_network_is_refused_and_its_parts_are_apart(method):
    model = nn.Sequential(network(), nn.Linear(4, 6), network())
    pruning, other = METHODS[method](model[0]), METHODS[method](model[2])
    assert len(other.parameter_groups()[-1]["params"]) == len(pruning.parameter_groups()[-1]["params"])
    before = list(model.state_dict())
    with pytest.raises(
        ValueError, match=r"the model without masks that learn, has a .*: bake it first, or prune each"
    ):
        pb.SoftPruning(model, 50, skip=["0.*", "2.*"])
    assert list(model.state_dict()) == before
    with pytest.raises(ValueError, match=r"model must have constant masks or none, got .*: harden it first"):
        pb.prune_gradually(model, 50)


@every_learned
def test_a_loss_that_is_no_number_stops_fit_and_the_model_goes_back(method):
    with seeded(3):
        model = pb.mlp([16, 12, 3])
    pruning = METHODS[method](model)
    before = copy.deepcopy(model.state_dict())
    data = make_data()
    data.train.images[7] = math.nan
    optimizer = Adam(pruning.parameter_groups(), lr=0.01)
    with pytest.raises(FloatingPointError, match="the loss became nan in epoch 1"):
        pb.fit(model, data, epochs=2, optimizer=optimizer, batch_size=8, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@every_learned
def test_nothing_is_left_to_learn_once_hardened(method):
    model, pruning = masked(method)
    calls = [pruning.parameter_groups, lambda: pruning.tau]
    calls += [getattr(pruning, name) for name in ("penalty", "density") if hasattr(pruning, name)]
    calls += [lambda: pruning.anneal(0.1)] if method != "adaptive" else [lambda: pruning.r, pruning.freeze]
    harden(model)
    for call in calls:
        with pytest.raises(ValueError, match=r"model must have .*, got none: they were hardened"):
            call()
