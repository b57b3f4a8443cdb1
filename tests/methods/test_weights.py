import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import layer_of, network, train, zeros
from torch import nn
from torch.nn.utils import prune

from prunebook.cover import sparsity
from prunebook.layers import dense_weight
from prunebook.masking import attach, bake, masks, set_masks
from prunebook.methods.weights import choose, exact_count, prune_weights, rewind, sensitivity

# Ten weights: two layers, the small ones mostly in the first.
TOY = [[[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]], [[10.0, -2.0], [20.0, 30.0]]]


def toy(weights=TOY):
    return nn.Sequential(*map(layer_of, weights))


@pytest.mark.parametrize(
    ("weights", "k", "scope", "left"),
    [
        (TOY, 50, "layer", [[[0, 0, 0], [-4, 5, -6]], [[0, 0], [20, 30]]]),
        (TOY, 50, "global", [[[0, 0, 0], [0, 5, -6]], [[10, 0], [20, 30]]]),
        (TOY, 0, "layer", TOY),
        (TOY, 100, "layer", [[[0, 0, 0], [0, 0, 0]], [[0, 0], [0, 0]]]),
        (TOY, 100, "global", [[[0, 0, 0], [0, 0, 0]], [[0, 0], [0, 0]]]),
        ([[[1.0, -1.0], [1.0, -1.0]]], 75, "layer", [[[0, 0], [0, -1]]]),  # of ties, the lower index goes
        ([[[1.0, 1.0]], [[1.0, 1.0]]], 75, "global", [[[0, 0]], [[0, 1]]]),
        ([[[3.0]]], 50, "layer", [[[3]]]),  # round(0.5) is 0
        ([[[3.0]]], 51, "layer", [[[0]]]),
    ],
)
def test_pruned_by_hand(weights, k, scope, left):
    model = toy(weights)
    assert prune_weights(model, k, scope) is model
    assert [layer.weight.tolist() for layer in model] == left
    assert all(layer.bias.all() for layer in model)
    share = sum(np.count_nonzero(np.array(layer) == 0) for layer in left) / sum(map(np.size, left))
    assert sparsity(model) == share


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
    other = attach(layer_of([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[True, True, True, False]]))
    assert prune_weights(other, 50).weight.tolist() == [[0, 2, 3, 0]]


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
    with pytest.raises(
        ValueError, match=r"skip must name layers out of \['0', '1'\], or patterns .* got \['2', 'fc'\]"
    ):
        prune_weights(toy(), 50, skip=["0", "2", "fc"])


def test_shared_weights_count_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    model[1].weight = model[0].weight
    nn.init.ones_(model[2].weight)  # larger than the others
    prune_weights(model, 50, scope="global")
    assert sparsity(model) == 0.5
    assert torch.equal(model[0].weight, model[1].weight)
    prune_weights(model, 75, skip=["1"])
    assert sparsity(model, per_layer=True)["2"] == 0.75
    assert sparsity(model, per_layer=True)["0"] < 0.75


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
@settings(max_examples=40)
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


def test_the_smallest_of_several_tensors_by_hand(device):
    scores = [
        torch.tensor([[3.0, 1.0], [2.0, 1.0]], device=device).t(),  # in logical order: 3, 2, 1, 1
        torch.tensor([1.0, 0.5, 2.0], dtype=torch.bfloat16, device=device),
        torch.tensor([[[1.0 + 1e-12]]], dtype=torch.float64, device=device),  # just above the ties
        torch.empty(0, device=device),
    ]
    for count, wanted in (
        (0, ["0000", "000", "0"]),
        (1, ["0000", "010", "0"]),
        (2, ["0010", "010", "0"]),
        (3, ["0011", "010", "0"]),
        (4, ["0011", "110", "0"]),
        (5, ["0011", "110", "1"]),
        (6, ["0111", "110", "1"]),
        (8, ["1111", "111", "1"]),
    ):
        found = choose(scores, count)
        assert [part.shape for part in found] == [score.shape for score in scores]
        bits = ["".join(str(int(bit)) for bit in part.flatten()) for part in found]
        assert bits == [*wanted, ""]
    with pytest.raises(ValueError, match="count must be a whole number from 0 to 8, got 9"):
        choose(scores, 9)


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(-3, 3), max_size=6), min_size=1, max_size=4), st.floats(0, 1))
def test_the_smallest_are_those_of_a_stable_sort(parts, share):
    scores = [torch.tensor(part, dtype=torch.float32) for part in parts]
    flat = [(score, i) for i, score in enumerate(value for part in parts for value in part)]
    count = round(share * len(flat))
    found = torch.cat(choose(scores, count)).nonzero().flatten().tolist()
    assert found == sorted(i for _, i in sorted(flat)[:count])


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_layers_of_several_dtypes(scope, device):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3).bfloat16(),
        nn.ConvTranspose1d(2, 3, 2).half(),
        nn.Linear(3, 5).double(),
        nn.Conv3d(1, 2, 2),
    ).to(device)
    prune_weights(model, 50, scope=scope)
    counts = [exact_count(50, n) for n in (72, 12, 15, 16)]
    assert zeros(model) == (sum(counts) if scope == "layer" else exact_count(50, 115))
    kept = [layer.weight[layer.weight != 0].abs().double() for layer in model]
    gone = [dense_weight(layer)[layer.weight == 0].abs().double() for layer in model]
    if scope == "global":
        assert torch.cat(gone).max() <= torch.cat(kept).min()
    assert model[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize("k", [0, 10, 50, 90, 99])
def test_the_library_prunes_the_same_weights(k):
    ours, theirs = network(), network()
    prune_weights(ours, k, scope="global")
    layers = [theirs[0], theirs[2]]
    amount = exact_count(k, sum(layer.weight.numel() for layer in layers))
    prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=amount)
    for layer, mask in zip(layers, masks(ours).values(), strict=True):
        assert torch.equal(layer.weight_mask.bool(), mask)
    ours, layer = prune_weights(network(), k), network()[2]
    prune.l1_unstructured(layer, "weight", amount=exact_count(k, layer.weight.numel()))
    assert torch.equal(layer.weight_mask.bool(), masks(ours)["2.weight"])


def test_pruning_goes_on_after_bake():
    model = bake(prune_weights(network(), 50, scope="global"))
    zero = {name: weight == 0 for name, weight in model.named_parameters() if "weight" in name}
    prune_weights(model, 60, scope="global")
    assert zeros(model) == 60
    assert all((zero[name] <= ~mask).all() for name, mask in masks(model).items())


def test_sensitivity_prunes_one_layer_at_a_time():
    model = toy()
    rows = sensitivity(model, iter([100, 50]), sparsity)  # also what can be read but once
    assert rows == [
        {"layer": "0", "k": 50, "accuracy": 0.3},
        {"layer": "0", "k": 100, "accuracy": 0.6},
        {"layer": "1", "k": 50, "accuracy": 0.2},
        {"layer": "1", "k": 100, "accuracy": 0.4},
    ]
    assert masks(model) == {}
    assert [row["layer"] for row in sensitivity(model, [10], sparsity, skip=["0"])] == ["1"]


def test_sensitivity_of_layers_that_share_a_weight():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight = model[0].weight
    rows = sensitivity(model, [50], lambda net: sum(int((~mask).sum()) for mask in masks(net).values()))
    assert rows == [{"layer": "0", "k": 50, "accuracy": 16}, {"layer": "2", "k": 50, "accuracy": 4}]


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
    name = "0.parametrizations.weight.original1"
    assert torch.equal(model.state_dict()[name], start[name])


def test_rewind_refuses():
    model = prune_weights(toy(), 50)
    with pytest.raises(ValueError, match="state must be a copy"):
        rewind(model, model.state_dict())
    with pytest.raises(ValueError, match=r"differ in \['1.bias', '1.weight'\]"):
        rewind(model, toy()[:1].state_dict())


def test_iterative_magnitude_pruning():
    model = network()
    start = copy.deepcopy(model.state_dict())
    for step in range(1, 6):
        train(model, steps=10)
        prune_weights(model, 100 * (1 - 0.8**step), scope="global")
        rewind(model, start)
    assert zeros(model) == exact_count(100 * (1 - 0.8**5), 100)
    for name, mask in masks(model).items():
        assert torch.equal(model.get_submodule(name[0]).weight[mask], start[name][mask])
