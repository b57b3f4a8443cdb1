import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from prunebook.masking import attach, attach_all, bake, dense_weight, masks, set_masks, sparsity
from prunebook.methods.weights import (
    cubic,
    exact_count,
    exponential,
    linear,
    one_shot,
    prune_gradually,
    prune_weights,
    rewind,
    sensitivity,
    smallest,
)

CURVES = [one_shot, linear, cubic, exponential]


def layer_of(rows):
    weight = torch.tensor(rows)
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight)
    return layer


def toy():
    """Ten weights: two layers, the small ones mostly in the first."""
    return nn.Sequential(
        layer_of([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]]), layer_of([[10.0, -2.0], [20.0, 30.0]])
    )


def random_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


def zeros(model):
    return sum(int((~mask).sum()) for mask in masks(model).values())


def test_half_of_each_layer():
    model = toy()
    assert prune_weights(model, 50) is model
    assert model[0].weight.tolist() == [[0, 0, 0], [-4, 5, -6]]
    assert model[1].weight.tolist() == [[0, 0], [20, 30]]
    assert model[0].bias.all()


def test_half_of_all_layers():
    model = prune_weights(toy(), 50, scope="global")
    assert model[0].weight.tolist() == [[0, 0, 0], [0, 5, -6]]
    assert model[1].weight.tolist() == [[10, 0], [20, 30]]


def test_of_ties_the_lower_index_goes_first():
    assert smallest(torch.tensor([2.0, 1.0, 2.0, 2.0]), 2).tolist() == [True, True, False, False]
    layer = layer_of([[1.0, -1.0], [1.0, -1.0]])
    assert prune_weights(layer, 75).weight.tolist() == [[0, 0], [0, -1]]
    two = nn.Sequential(layer_of([[1.0, 1.0]]), layer_of([[1.0, 1.0]]))
    prune_weights(two, 75, scope="global")
    assert [layer.weight.tolist() for layer in two] == [[[0, 0]], [[0, 1]]]


def test_nothing_and_everything():
    model = prune_weights(toy(), 0)
    assert zeros(model) == 0
    assert sparsity(prune_weights(model, 100)) == 1
    assert sparsity(prune_weights(toy(), 100, scope="global")) == 1


def test_a_layer_with_one_weight():
    assert prune_weights(layer_of([[3.0]]), 50).weight.item() == 3  # round(0.5) is 0
    assert prune_weights(layer_of([[3.0]]), 51).weight.item() == 0


def test_k_is_absolute():
    model = toy()
    assert sparsity(prune_weights(prune_weights(model, 50), 50)) == 0.5
    fifty = masks(model)
    assert sparsity(prune_weights(model, 80)) == (5 + 3) / 10
    assert all((mask <= fifty[name]).all() for name, mask in masks(model).items())
    with pytest.raises(ValueError, match=r"k must be at least 83\.3333, pruned in \['0'\] already, got 50"):
        prune_weights(model, 50)
    prune_weights(model, 50, regrow=True)
    assert all(torch.equal(mask, fifty[name]) for name, mask in masks(model).items())


def test_what_is_pruned_stays_pruned_until_it_may_regrow():
    layer = prune_weights(layer_of([[1.0, 2.0, 3.0, 4.0]]), 25)
    dense_weight(layer).detach()[0, 0] = 100
    assert prune_weights(layer, 50).weight.tolist() == [[0, 0, 3, 4]]
    assert prune_weights(layer, 50, regrow=True).weight.tolist() == [[100, 0, 0, 4]]


def test_k_of_the_original_after_another_scope():
    model = prune_weights(toy(), 50)  # 3 and 2
    assert zeros(prune_weights(model, 60, scope="global")) == 6
    with pytest.raises(ValueError, match=r"k must be at least 60, pruned in \['0', '1'\] already, got 50"):
        prune_weights(model, 50, scope="global")


def test_an_error_leaves_the_model_as_it_was():
    model = toy()
    set_masks(model, {"1.weight": torch.zeros(2, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"pruned in \['1'\] already"):
        prune_weights(model, 50)
    assert list(masks(model)) == ["1.weight"]


def test_skipped_layers_do_not_count():
    model = prune_weights(toy(), 50, scope="global", skip=["0"])
    assert list(masks(model)) == ["1.weight"]
    assert zeros(model) == 2


def test_masks_made_otherwise_are_respected():
    layer = layer_of([[1.0, 2.0, 3.0, 4.0]])
    attach(layer, torch.tensor([[True, True, True, False]]))
    assert prune_weights(layer, 50).weight.tolist() == [[0, 2, 3, 0]]


def test_shared_weights_count_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    model[1].weight = model[0].weight
    prune_weights(model, 50, scope="global")
    assert sparsity(model) == 0.5
    assert torch.equal(model[0].weight, model[1].weight)
    prune_weights(model, 75, skip=["1"])
    assert sparsity(model, per_layer=True)["2"] == 0.75
    assert sparsity(model, per_layer=True)["0"] < 0.75


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_convolutions_and_mixed_dtypes(scope):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3).bfloat16(),
        nn.ConvTranspose1d(2, 3, 2).half(),
        nn.Linear(3, 5).double(),
        nn.Conv3d(1, 2, 2),
    )
    prune_weights(model, 50, scope=scope)
    total = 72 + 12 + 15 + 16
    counts = [exact_count(50, n) for n in (72, 12, 15, 16)]
    assert zeros(model) == (sum(counts) if scope == "layer" else exact_count(50, total))
    kept = [layer.weight[layer.weight != 0].abs().double() for layer in model]
    gone = [dense_weight(layer)[layer.weight == 0].abs().double() for layer in model]
    if scope == "global":
        assert torch.cat(gone).max() <= torch.cat(kept).min()
    assert model[0].weight.dtype == torch.bfloat16


def test_non_contiguous_weights_are_pruned_by_logical_index():
    layer = nn.Linear(2, 2)
    layer.weight = nn.Parameter(torch.ones(2, 2).t())
    assert prune_weights(layer, 50).weight.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("k", "n", "count"),
    [
        (50, 10, 5),
        (20, 100, 20),
        (99.85, 266_200, 265_801),
        (1.15, 1000, 12),  # 11.5, and halves go to even; binary 1.15 is less
        (0.5, 100, 0),
        (1.5, 100, 2),
        (0.29, 10_000, 29),  # 0.29 * 10000 / 100 is 28.999999999999996 in floats
        (np.float32(99.85), 266_200, 265_801),
        (Fraction(100, 3), 3, 1),
        (1e-5, 10**7, 1),
        (100, 2**60 + 1, 2**60 + 1),
    ],
)
def test_exact_count(k, n, count):
    assert exact_count(k, n) == count


@given(st.integers(0, 1000), st.integers(0, 10**9))
def test_exact_count_rounds_the_decimal(tenths, n):
    count = exact_count(tenths / 10, n)
    assert abs(Fraction(tenths * n, 1000) - count) <= Fraction(1, 2)


@pytest.mark.parametrize("scope", ["layer", "global"])
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0]), min_size=12, max_size=12),
    st.integers(0, 100),
    st.integers(0, 100),
)
def test_counts_are_exact_and_pruning_is_monotone(scope, values, one, other):
    model = nn.Sequential(layer_of([values[:4]]), layer_of([values[4:]]))
    sizes = [4, 8] if scope == "layer" else [12]
    low, high = sorted([one, other])
    prune_weights(model, low, scope)
    before = masks(model)
    assert zeros(model) == sum(round(Fraction(low * n, 100)) for n in sizes)
    prune_weights(model, high, scope)
    assert zeros(model) == sum(round(Fraction(high * n, 100)) for n in sizes)
    assert all((mask <= before[name]).all() for name, mask in masks(model).items())
    again = prune_weights(nn.Sequential(layer_of([values[:4]]), layer_of([values[4:]])), high, scope)
    assert all(torch.equal(mask, masks(again)[name]) for name, mask in masks(model).items())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.data())
def test_smallest_is_a_stable_sort(values, data):
    scores, count = torch.tensor(values, dtype=torch.float32), data.draw(st.integers(0, len(values)))
    first = sorted(range(len(values)), key=lambda i: values[i])[:count]
    kept_order = scores.clone()
    assert smallest(scores, count).nonzero().flatten().tolist() == sorted(first)
    assert torch.equal(scores, kept_order)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_smallest_of_other_dtypes_and_shapes(dtype):
    scores = torch.tensor([[3.0, 1.0], [2.0, 1.0]], dtype=dtype).t()
    assert smallest(scores, 2).tolist() == [[False, False], [True, True]]
    with pytest.raises(ValueError, match="count must be from 0 to the 4 scores, got 5"):
        smallest(scores, 5)


@pytest.mark.parametrize("k", [0, 10, 50, 90, 99])
def test_the_library_prunes_the_same_weights(k):
    ours, theirs = random_network(), random_network()
    prune_weights(ours, k, scope="global")
    layers = [theirs[0], theirs[2]]
    amount = exact_count(k, sum(layer.weight.numel() for layer in layers))
    prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=amount)
    for layer, mask in zip(layers, masks(ours).values(), strict=True):
        assert torch.equal(layer.weight_mask.bool(), mask)
    ours, layer = prune_weights(random_network(), k), random_network()[2]
    prune.l1_unstructured(layer, "weight", amount=exact_count(k, layer.weight.numel()))
    assert torch.equal(layer.weight_mask.bool(), masks(ours)["2.weight"])


def test_pruning_goes_on_after_bake():
    model = bake(prune_weights(random_network(), 50, scope="global"))
    zero = {name: weight == 0 for name, weight in model.named_parameters() if "weight" in name}
    prune_weights(model, 60, scope="global")
    assert zeros(model) == exact_count(60, 56)
    assert all((zero[name] <= ~mask).all() for name, mask in masks(model).items())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_weights_that_are_not_finite_are_refused(value, scope):
    model = toy()
    model[1].weight.detach()[0, 0] = value
    with pytest.raises(ValueError, match=r"weights must be finite.*\['1'\]"):
        prune_weights(model, 50, scope)
    assert masks(model) == {}


@pytest.mark.parametrize("k", [-1, -1e-9, 100.001, math.nan, math.inf])
def test_k_out_of_range_is_refused(k):
    for call in (prune_weights, prune_gradually):
        with pytest.raises(ValueError, match=f"k must be a percentage from 0 to 100, got {k}"):
            call(toy(), k)


def test_other_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="scope must be 'layer' or 'global', got 'Layer'"):
        prune_weights(toy(), 50, scope="Layer")
    with pytest.raises(ValueError, match=r"skip must name layers out of \['0', '1'\], got \['2', 'fc'\]"):
        prune_weights(toy(), 50, skip=["0", "2", "fc"])
    with pytest.raises(ValueError, match="must have a linear or convolution layer"):
        prune_weights(nn.Sequential(nn.ReLU()), 50)
    with pytest.raises(ValueError, match="layer '0' must have its weights, got a lazily initialised one"):
        prune_weights(nn.Sequential(nn.LazyLinear(3)), 50)
    quantised = nn.Linear(2, 2)
    quantised.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"layer '' must have floating-point weights.*int8"):
        prune_weights(quantised, 50)


def test_learned_masks_are_to_be_hardened_first():
    class Learned(nn.Module):
        def forward(self, w):
            return w / 2

        def kept(self, w):
            return w > 2

    model = toy()
    attach_all(model, lambda _: Learned())
    with pytest.raises(
        ValueError, match=r"0\.weight must have a constant mask or none, has a Learned: harden it"
    ):
        prune_weights(model, 95)


@pytest.mark.parametrize("curve", CURVES)
def test_curves_rise_to_one(curve):
    values = [curve(i / 20) for i in range(21)]
    assert values == sorted(values)
    assert values[-1] == 1
    assert curve is one_shot or values[0] == 0
    for progress in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=f"progress must be from 0 to 1, got {progress}"):
            curve(progress)


def test_formulas_of_the_curves():
    assert [one_shot(p) for p in (0, 0.5)] == [1, 1]
    assert [linear(p) for p in (0, 0.25)] == [0, 0.25]
    assert cubic(0.5) == 0.875
    assert exponential(0.5) == pytest.approx((1 - math.exp(-2.5)) / (1 - math.exp(-5)), rel=1e-15)
    # equal shares of what is left: 90 % pruned in two steps leaves sqrt(0.1) after the first
    assert 0.9 * exponential(0.5, rate=math.log(10)) == pytest.approx(1 - math.sqrt(0.1), rel=1e-12)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("curve", CURVES)
def test_gradual_pruning_follows_its_curve(curve, scope):
    model = random_network()
    schedule = prune_gradually(model, 80, curve, scope, start=0.2, end=0.6, updates=4)
    assert list(masks(model)) == ["0.weight", "2.weight"]
    sizes = [35, 21] if scope == "layer" else [56]
    for progress, step in [
        (0.0, None),
        (0.19, None),
        (0.21, 0),
        (0.35, 1),
        (0.39, 1),
        (0.45, 2),
        (0.6, 4),
        (0.99, 4),
    ]:
        schedule(progress)
        share = 0 if step is None else curve(step / 4)
        assert zeros(model) == sum(exact_count(80 * share, n) for n in sizes)


def train(model, schedule, steps, total=40):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    for step in steps:
        schedule(step / total)
        optimizer.zero_grad()
        x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
        model(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("stop", [0, 7, 20, 31])
def test_a_resumed_run_repeats_exactly(stop):
    whole = random_network()
    train(whole, prune_gradually(whole, 90, scope="global", updates=13), range(40))
    first = random_network()
    train(first, prune_gradually(first, 90, scope="global", updates=13), range(stop))
    second = random_network(seed=1)
    schedule = prune_gradually(second, 90, scope="global", updates=13)
    second.load_state_dict(first.state_dict())
    train(second, schedule, range(stop, 40))
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert zeros(whole) == exact_count(90, 56)


def test_gradual_pruning_leaves_alone_what_is_ahead():
    model = prune_weights(random_network(), 50)
    schedule = prune_gradually(model, 80, linear, end=0.5)
    before = masks(model)
    schedule(0.2)
    assert all(torch.equal(mask, before[name]) for name, mask in masks(model).items())
    schedule(0.5)
    assert zeros(model) == exact_count(80, 35) + exact_count(80, 21)


def test_gradual_pruning_refuses():
    for start, end in [(-0.1, 0.5), (0.5, 0.5), (0.0, 1.0), (0.0, math.nan)]:
        with pytest.raises(ValueError, match=f"0 <= start < end < 1, got {start} and {end}"):
            prune_gradually(toy(), 50, start=start, end=end)
    with pytest.raises(ValueError, match="updates must be at least 1, got 0"):
        prune_gradually(toy(), 50, updates=0)
    with pytest.raises(ValueError, match="scope must be"):
        prune_gradually(toy(), 50, scope="all")


def test_sensitivity_prunes_one_layer_at_a_time():
    model = toy()
    rows = sensitivity(model, [100, 50], sparsity)
    assert rows == [
        {"layer": "0", "k": 50, "accuracy": 0.3},
        {"layer": "0", "k": 100, "accuracy": 0.6},
        {"layer": "1", "k": 50, "accuracy": 0.2},
        {"layer": "1", "k": 100, "accuracy": 0.4},
    ]
    assert masks(model) == {}
    assert [row["layer"] for row in sensitivity(model, [10], sparsity, skip=["0"])] == ["1"]


def test_rewind_resets_weights_and_keeps_masks():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    plain = copy.deepcopy(model.state_dict())
    prune_weights(model, 50)
    masked = copy.deepcopy(model.state_dict())
    kept = masks(model)["0.weight"]
    for state in (plain, masked):
        for parameter in model.parameters():
            nn.init.constant_(parameter, 7)
        model(torch.randn(8, 2))
        assert rewind(model, state) is model
        assert torch.equal(model[0].weight, plain["0.weight"] * kept)
        assert torch.equal(model[1].running_mean, plain["1.running_mean"])
        assert model[1].num_batches_tracked == 0
        assert torch.equal(masks(model)["0.weight"], kept)


def test_rewind_reaches_parametrizations_of_other_origin():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2))
    start = copy.deepcopy(model.state_dict())
    prune_weights(model, 50, skip=["0"])
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7)
    rewind(model, start)
    assert torch.equal(
        model[0].parametrizations.weight.original1, start["0.parametrizations.weight.original1"]
    )


def test_rewind_refuses():
    model = prune_weights(toy(), 50)
    with pytest.raises(ValueError, match="state must be a copy"):
        rewind(model, model.state_dict())
    with pytest.raises(ValueError, match=r"differ in \['1.bias', '1.weight'\]"):
        rewind(model, toy()[:1].state_dict())


def test_iterative_magnitude_pruning():
    model, data = random_network(), range(10)
    start = copy.deepcopy(model.state_dict())
    for step in range(1, 6):
        train(model, lambda _: None, data)
        prune_weights(model, 100 * (1 - 0.8**step), scope="global")
        rewind(model, start)
    assert zeros(model) == exact_count(100 * (1 - 0.8**5), 56)
    for name, mask in masks(model).items():
        assert torch.equal(model.get_submodule(name[0]).weight[mask], start[name][mask])
