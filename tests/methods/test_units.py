import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import SPEAKERS, Own, conv_net, normal, train
from torch import nn
from torch.nn.utils import prune

from prunebook.cover import sparsity
from prunebook.masking import attach, bake, masks
from prunebook.methods.units import prune_units, spread_units, unit_mask, unit_rows, unit_scores
from prunebook.methods.weights import exact_count, prune_weights


def layer_of(rows):
    weight = torch.tensor(rows)
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight)
    nn.init.ones_(layer.bias)
    return layer


def toy():
    """Norms 5, 1, 13, 2 of the hidden units, then an output layer."""
    hidden = layer_of([[3.0, -4.0], [1.0, 0.0], [-5.0, 12.0], [0.0, 2.0]])
    return nn.Sequential(hidden, nn.ReLU(), layer_of([[1.0, 1.0, 1.0, 1.0]]))


def network(*sizes, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*[module for layer in layers for module in (layer, nn.ReLU())][:-1])


def alive(model, name):
    return masks(model)[f"{name}.bias"].tolist()


def test_half_of_the_units():
    model = toy()
    assert prune_units(model, 50) is model
    assert model[0].weight.tolist() == [[3, -4], [0, 0], [-5, 12], [0, 0]]
    assert model[0].bias.tolist() == [1, 0, 1, 0]
    assert list(masks(model)) == ["0.weight", "0.bias"]
    assert model(torch.tensor([[1.0, 1.0]])).item() == 0 + 8 + 1  # relu(3 - 4 + 1), relu(-5 + 12 + 1), bias


def test_scores_are_norms():
    assert unit_scores(toy()[0]).tolist() == [5, 1, 13, 2]
    assert unit_scores(toy()[0].half()).dtype == torch.float32


TIES = [[[1.0], [-1.0], [1.0], [1.0]], [[1.0] * 4]]
THREE = [[[1.0], [2.0]], [[3.0, 4.0], [1.5, 0.0]], [[1.0, 1.0]]]  # norms 1, 2 and 5, 1.5, and an output


@pytest.mark.parametrize(
    ("weights", "k", "scope", "left"),
    [
        (TIES, 50, "layer", [[False, False, True, True]]),  # the lower index goes first
        (THREE, 50, "layer", [[False, True], [True, False]]),
        (THREE, 25, "global", [[False, True], [True, True]]),
        (THREE, 50, "global", [[False, True], [True, False]]),
    ],
)
def test_units_left_by_hand(weights, k, scope, left):
    model = prune_units(nn.Sequential(*map(layer_of, weights)), k, scope)
    assert [alive(model, str(i)) for i in range(len(left))] == left


def test_more_than_k_pruned_already_is_refused():
    model = prune_units(network(3, 10, 2), 80)
    with pytest.raises(ValueError, match=r"k must be at least 80, pruned in \['0'\] already, got 50"):
        prune_units(model, 50)


@pytest.mark.parametrize("k", [80, 100])
def test_one_unit_is_left_in_each_layer(k):
    model = network(3, 2, 1, 2)
    for _ in range(2):
        with pytest.warns(UserWarning, match=rf"k={k} would leave no unit .*'2'\]: the best one is kept"):
            prune_units(model, k)
        assert sum(alive(model, "0")) == sum(alive(model, "2")) == 1


def test_one_unit_is_left_when_layers_compete_and_the_count_is_exact():
    model = nn.Sequential(layer_of([[1.0], [2.0], [2.0]]), layer_of([[9.0] * 3] * 5), layer_of([[1.0] * 5]))
    with pytest.warns(UserWarning, match=r"k=50 would leave no unit in layers \['0'\]"):
        prune_units(model, 50, scope="global")
    assert alive(model, "0") == [False, False, True]
    assert alive(model, "1") == [False, False, True, True, True]
    with pytest.warns(UserWarning, match=r"k=100 would leave no unit in layers \['0', '1'\]"):
        prune_units(model, 100, scope="global")
    assert alive(model, "1") == [False, False, False, False, True]


def test_batch_norm_falls_silent_with_its_unit_and_training_wakes_neither():
    model = prune_units(conv_net(), 50)
    found = masks(model)
    assert set(found) == SPEAKERS
    assert torch.equal(found["1.bias"], found["1.weight"])
    assert torch.equal(found["1.bias"], found["0.weight"].flatten(1).any(1))
    images = normal(4, 2, 4, 4, dtype=torch.float32)
    train(model, x=images, optimizer=torch.optim.AdamW, lr=0.1, weight_decay=0.1)
    for mode in (True, False):
        after = model.train(mode)[:2](images)
        assert not after[:, ~found["1.bias"]].any()
        assert after[:, found["1.bias"]].any()
    assert type(bake(model)[1]) is nn.BatchNorm2d


def test_every_head_is_an_output():
    def heads():
        layers = {"trunk": nn.Linear(2, 4), "left": nn.Linear(4, 4), "right": nn.Linear(4, 4)}
        return Own(lambda self, x: (self.left(y := self.trunk(x).relu()), self.right(y).softmax(1)), **layers)

    trunk, right = ["trunk.weight", "trunk.bias"], ["right.weight", "right.bias"]
    assert list(masks(prune_units(heads(), 50))) == trunk
    assert list(masks(prune_units(heads(), 50, outputs=["left"]))) == trunk + right


def test_outputs_and_skip():
    model = network(2, 4, 4, 4)
    prune_units(model, 50, skip=["0"])
    assert list(masks(model)) == ["2.weight", "2.bias"]
    layer = prune_units(layer_of([[1.0], [2.0]]), 50, outputs=())
    assert layer.bias.tolist() == [0, 1]
    with pytest.raises(
        ValueError, match=r"skip must name layers out of \['0', '2'\], or patterns .* got \['fc'\]"
    ):
        prune_units(toy(), 50, outputs=["fc"])


def test_a_model_that_cannot_be_traced_ends_with_the_last_layer_registered():
    layers = {"first": nn.Linear(4, 4), "norm": nn.BatchNorm1d(4), "last": nn.Linear(4, 4)}
    model = Own(lambda self, x: self.last(x) if (x := self.norm(self.first(x))).sum() > 0 else x, **layers)
    with pytest.warns(UserWarning, match=r"cannot trace the model .* the last layer registered") as warned:
        prune_units(model, 50)
    assert warned[0].filename == __file__  # the warning points to the call
    assert list(masks(model)) == ["first.weight", "first.bias"]


def test_shared_weights_lose_the_same_units_in_every_layer():
    hidden = [nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4)]
    model = nn.Sequential(*hidden, nn.Linear(4, 2))
    model[2].weight = model[0].weight
    prune_units(model, 50)
    found = masks(model)
    assert len(found) == 8
    units = found["0.bias"]
    for name in ("1.weight", "1.bias", "2.bias", "3.weight", "3.bias"):
        assert torch.equal(found[name], units)
    assert torch.equal(found["2.weight"], units[:, None].expand(4, 4))


def test_masks_of_single_weights_stay_and_count():
    model = toy()
    attach(model[0], torch.tensor([[True, True], [True, True], [False, False], [True, True]]))
    prune_units(model, 50)  # the unit of norm 13 has lost its weights: it goes first, then the one of norm 1
    assert alive(model, "0") == [True, False, False, True]
    assert not masks(model)["0.weight"][2].any()


def test_transposed_convolutions_have_their_units_in_the_second_dimension():
    layer = nn.ConvTranspose2d(2, 3, 1)
    weight = torch.tensor([[1.0, 5.0, 3.0], [1.0, 5.0, 4.0]])
    layer.weight = nn.Parameter(weight.view(2, 3, 1, 1))
    assert unit_scores(layer).tolist() == pytest.approx([math.sqrt(2), math.sqrt(50), 5])
    prune_units(layer, 34, outputs=())
    assert layer.weight.view(2, 3).tolist() == [[0, 5, 3], [0, 5, 4]]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    "kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
)
def test_a_pruned_unit_is_a_silent_channel(kind, groups):
    torch.manual_seed(0)
    layer = kind(4, 8, 2, groups=groups)
    image = torch.randn(2, 4, *[5] * (layer.weight.dim() - 2))
    dense = layer(image).detach()
    scores = unit_scores(layer)
    prune_units(layer, 50, outputs=())
    units = masks(layer)["bias"]
    assert int(units.sum()) == 4
    assert scores[~units].max() <= scores[units].min()
    assert not layer(image)[:, ~units].any()
    assert torch.equal(layer(image)[:, units], dense[:, units])
    assert torch.equal(unit_rows(layer, masks(layer)["weight"]).any(1), units)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d])
@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_what_is_spread_over_units_comes_back_in_their_rows(kind, groups, ins, outs):
    layer, values = kind(groups * ins, groups * outs, 2, groups=groups), torch.arange(groups * outs)
    spread = spread_units(values, layer.weight, groups if kind is not nn.Conv2d else 0)
    rows = unit_rows(layer, spread)
    assert torch.equal(rows, values[:, None].expand_as(rows))
    assert torch.equal(unit_mask(layer, values > 1), spread > 1)


def test_spread_units_by_hand():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert spread_units(values, torch.empty(4)).tolist() == [1, 2, 3, 4]
    assert spread_units(values, torch.empty(4, 2)).tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]]
    grouped = spread_units(values, torch.empty(6, 2, 5), groups=2)  # three inputs of each group of two units
    assert grouped.shape == (6, 2, 5)
    assert grouped[:, :, 0].tolist() == [[1, 2]] * 3 + [[3, 4]] * 3


@settings(max_examples=40)
@given(st.integers(0, 100), st.integers(0, 100), st.sampled_from(["layer", "global"]), st.integers(0, 99))
def test_counts_are_exact_and_pruning_is_monotone(one, other, scope, seed):
    model = network(3, 7, 5, 2, seed=seed)
    low, high = sorted([one, other])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prune_units(model, low, scope)
        before = masks(model)
        prune_units(model, high, scope)
    left = [sum(alive(model, name)) for name in ("0", "2")]
    if scope == "layer":
        assert left == [max(n - exact_count(high, n), 1) for n in (7, 5)]
    else:
        assert sum(left) == max(12 - exact_count(high, 12), 2)
        assert min(left) >= 1
    assert all((mask <= before[name]).all() for name, mask in masks(model).items())


@pytest.mark.parametrize("k", [0, 20, 50, 90])
def test_the_library_prunes_the_same_units(k):
    model, theirs = network(6, 10, 3), network(6, 10, 3)[0]
    prune_units(model, k)
    prune.ln_structured(theirs, "weight", amount=exact_count(k, 10), n=2, dim=0)
    assert torch.equal(theirs.weight_mask.bool(), masks(model)["0.weight"])


def test_weights_and_units_pruned_in_turn():
    model = prune_units(prune_weights(network(4, 8, 2), 50), 50)
    assert sum(alive(model, "0")) == 4
    assert sparsity(prune_weights(model, 90), per_layer=True) == {"0": exact_count(90, 32) / 32, "2": 14 / 16}
