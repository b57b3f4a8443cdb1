import copy
import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from prunebook.masking import attach, bake, dense_weight, harden, masks, set_masks, sparsity
from prunebook.methods.units import (
    norms_after,
    output_layers,
    prune_units,
    trace,
    unit_mask,
    unit_rows,
    unit_scores,
)
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


def network(*sizes):
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*[module for layer in layers for module in (layer, nn.ReLU())][:-1])


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6),
        nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 10),
    )  # fmt: skip


def alive(model, name):
    return masks(model)[f"{name}.bias"].tolist()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)  # registered first, used last
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.shared = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.shared(self.body(x))
        x = self.shared(x)
        return self.head(x.mean((2, 3)))


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.left, self.right = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.trunk(x).relu()
        return {"left": self.left(x), "right": self.right(x).softmax(1)}


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.norm(self.first(x))
        return self.last(x) if x.sum() > 0 else x


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


def test_of_ties_the_lower_index_goes_first():
    model = nn.Sequential(layer_of([[1.0], [-1.0], [1.0], [1.0]]), layer_of([[1.0] * 4]))
    prune_units(model, 50)
    assert alive(model, "0") == [False, False, True, True]


def test_global_scope_compares_layers():
    model = nn.Sequential(
        layer_of([[1.0], [2.0]]), layer_of([[3.0, 4.0], [1.5, 0.0]]), layer_of([[1.0, 1.0]])
    )
    prune_units(model, 50, scope="global")
    assert alive(model, "0") == [False, True]
    assert alive(model, "1") == [True, False]
    prune_units(model, 50, scope="layer")
    assert alive(model, "1") == [True, False]


def test_k_is_absolute():
    model = network(3, 10, 2)
    prune_units(model, 50)
    fifty = masks(model)
    prune_units(prune_units(model, 50), 80)
    assert sum(alive(model, "0")) == 2
    assert all((mask <= fifty[name]).all() for name, mask in masks(model).items())
    with pytest.raises(ValueError, match=r"k must be at least 80, pruned in \['0'\] already, got 50"):
        prune_units(model, 50)


def test_nothing_is_pruned_at_zero():
    model = prune_units(network(3, 10, 2), 0)
    assert sparsity(model) == 0
    assert all(alive(model, "0"))


@pytest.mark.parametrize("k", [80, 100])
def test_one_unit_is_left_in_each_layer(k):
    model = network(3, 2, 1, 2)
    with pytest.warns(
        UserWarning, match=rf"k={k} would leave no unit in layers \[.*'2'\]: the best one is kept"
    ):
        prune_units(model, k)
    assert sum(alive(model, "0")) == sum(alive(model, "2")) == 1
    with pytest.warns(UserWarning, match="the best one is kept"):
        prune_units(model, k)
    assert sum(alive(model, "0")) == 1


def test_one_unit_is_left_when_layers_compete_and_the_count_is_exact():
    model = nn.Sequential(layer_of([[1.0], [2.0], [2.0]]), layer_of([[9.0] * 3] * 5), layer_of([[1.0] * 5]))
    with pytest.warns(UserWarning, match=r"k=50 would leave no unit in layers \['0'\]"):
        prune_units(model, 50, scope="global")
    assert alive(model, "0") == [False, False, True]
    assert alive(model, "1") == [False, False, True, True, True]
    with pytest.warns(UserWarning, match=r"k=100 would leave no unit in layers \['0', '1'\]"):
        prune_units(model, 100, scope="global")
    assert alive(model, "1") == [False, False, False, False, True]


def test_batch_norm_falls_silent_with_its_unit():
    model = prune_units(convolutions(), 50)
    found = masks(model)
    assert list(found) == ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias"]
    assert torch.equal(found["0.bias"], found["1.weight"])
    assert torch.equal(found["4.bias"], found["3.weight"].flatten(1).any(1))
    for parameter in model.parameters():
        parameter.detach().add_(0.1)
    images = torch.randn(4, 1, 8, 8)
    for mode in (True, False):
        after = model.train(mode)[:2](images)
        assert not after[:, ~found["0.bias"]].any()
        assert after[:, found["0.bias"]].any()
    bake(model)
    assert type(model[1]) is nn.BatchNorm2d
    convolutions().load_state_dict(model.state_dict(), strict=True)


def test_batch_norm_without_parameters_has_nothing_to_mask():
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 1))
    assert list(masks(prune_units(model, 50))) == ["0.weight", "0.bias"]


def test_graph_finds_output_and_norms_whatever_the_order_of_registration():
    model = Residual()
    graph = trace(model)
    assert output_layers(model, graph) == ["head"]
    assert norms_after(model, graph) == {"norm": "stem"}  # shared follows an addition, too
    prune_units(model, 50)
    assert "head.weight" not in masks(model)
    assert torch.equal(masks(model)["norm.weight"], masks(model)["stem.bias"])
    assert "shared.weight" not in masks(model)
    assert output_layers(model, trace(model)) == ["head"]  # masked layers are seen as well


def test_every_head_is_an_output():
    model = TwoHeads()
    assert output_layers(model, trace(model)) == ["left", "right"]
    assert list(masks(prune_units(model, 50))) == ["trunk.weight", "trunk.bias"]
    assert list(masks(prune_units(TwoHeads(), 50, outputs=["left"]))) == [
        "trunk.weight", "trunk.bias", "right.weight", "right.bias",
    ]  # fmt: skip


def test_inputs_and_methods_are_not_taken_for_layers_of_their_name():
    class Names(nn.Module):
        def __init__(self):
            super().__init__()
            self.x, self.relu, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x):
            return self.last(self.relu(self.x(self.norm(x)))).relu() * x

    model = Names()
    assert output_layers(model, trace(model)) == ["last"]
    assert norms_after(model, trace(model)) == {}


def test_outputs_and_skip():
    model = network(2, 4, 4, 4)
    prune_units(model, 50, skip=["0"])
    assert list(masks(model)) == ["2.weight", "2.bias"]
    layer = prune_units(layer_of([[1.0], [2.0]]), 50, outputs=())
    assert layer.bias.tolist() == [0, 1]


def test_modules_with_layers_inside_are_outputs_as_a_whole():
    model = nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
    inside = ["1.self_attn.out_proj", "1.linear1", "1.linear2"]
    assert output_layers(model, trace(model)) == inside


def test_a_model_that_cannot_be_traced_ends_with_the_last_layer_registered():
    model = Branching()
    with pytest.warns(
        UserWarning, match="torch.fx cannot trace the model .* the last layer registered is taken"
    ):
        prune_units(model, 50)
    assert list(masks(model)) == ["first.weight", "first.bias"]


def test_layers_of_the_users_own_are_seen():
    class Own(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    model = nn.Sequential(Own(2, 4), nn.BatchNorm1d(4), Own(4, 2))
    assert list(masks(prune_units(model, 50))) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_shared_weights_lose_the_same_units_in_every_layer():
    model = nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
    )
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


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.data())
def test_unit_mask_is_the_inverse_of_unit_rows(groups, ins, outs, data):
    layer = nn.ConvTranspose1d(groups * ins, groups * outs, 2, groups=groups)
    units = torch.tensor(data.draw(st.lists(st.booleans(), min_size=groups * outs, max_size=groups * outs)))
    mask = unit_mask(layer, units)
    assert mask.shape == layer.weight.shape
    rows = unit_rows(layer, mask)
    assert torch.equal(rows, units[:, None].expand_as(rows))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100), st.integers(0, 100), st.sampled_from(["layer", "global"]), st.integers(0, 99))
def test_counts_are_exact_and_pruning_is_monotone(one, other, scope, seed):
    torch.manual_seed(seed)
    model = network(3, 7, 5, 2)
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


def test_pruned_units_stay_silent_in_training():
    model = prune_units(convolutions(), 50)
    units = masks(model)["0.bias"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 1, 8, 8)).square().mean().backward()
        optimizer.step()
    assert not model.eval()[:2](torch.randn(4, 1, 8, 8))[:, ~units].any()


def test_life_cycle():
    model = prune_units(convolutions(), 50).eval()
    images = torch.randn(2, 1, 8, 8)
    expected = model(images)
    assert torch.equal(copy.deepcopy(model)(images), expected)
    other = prune_units(convolutions(), 0).eval()
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(images), expected)
    assert torch.equal(harden(other)(images), expected)
    assert torch.equal(bake(other)(images), expected)
    assert copy.deepcopy(model).double()(images.double()).dtype == torch.float64


def test_weights_and_units_pruned_in_turn():
    model = prune_units(prune_weights(network(4, 8, 2), 50), 50)
    assert sum(alive(model, "0")) == 4
    assert sparsity(prune_weights(model, 90), per_layer=True) == {"0": exact_count(90, 32) / 32, "2": 14 / 16}
    set_masks(model, {"2.bias": torch.zeros(2, dtype=torch.bool)})


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_weights_that_are_not_finite_are_refused(value, scope):
    model = toy()
    dense_weight(model[0]).detach()[2, 1] = value
    with pytest.raises(ValueError, match=r"weights must be finite.*\['0'\]"):
        prune_units(model, 50, scope)
    assert masks(model) == {}


@pytest.mark.parametrize("k", [-1, 100.001, math.nan])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=f"k must be a percentage from 0 to 100, got {k}"):
        prune_units(toy(), k)


def test_other_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="scope must be 'layer' or 'global', got 'all'"):
        prune_units(toy(), 50, scope="all")
    with pytest.raises(ValueError, match=r"skip must name layers out of \['0', '2'\], got \['fc'\]"):
        prune_units(toy(), 50, skip=["fc"])
    with pytest.raises(ValueError, match=r"got \['fc'\]"):
        prune_units(toy(), 50, outputs=["fc"])
    with pytest.raises(ValueError, match="must have a linear or convolution layer to prune"):
        prune_units(nn.Linear(2, 2), 50)
    with pytest.raises(ValueError, match="must have a linear or convolution layer to prune"):
        prune_units(nn.ReLU(), 50)
    with pytest.raises(ValueError, match="lazily initialised"):
        prune_units(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), 50)
    quantised = toy()
    quantised[0].weight = nn.Parameter(torch.ones(4, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="layer '0' must have floating-point"):
        prune_units(quantised, 50)
