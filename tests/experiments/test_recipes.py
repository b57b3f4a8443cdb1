"""The recipes of a comparison: how many weights each leaves, in which epochs, and what it must not see."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from small import make_prototypes
from torch import nn
from torch.func import functional_call, grad

import prunebook as pb
from prunebook.experiments import recipes
from prunebook.experiments.comparison import METHODS
from prunebook.experiments.comparison import RUN as DENSE
from prunebook.experiments.gumbel import EXCHANGE
from prunebook.experiments.recipes import count, part, small_size
from prunebook.tools.costs import count_weights

SETTINGS = {"lr": 0.004, "before": 0.4, "end": 0.5, "rounds": 2}
SETTINGS |= {"tau": 0.1, "lr_r": 0.05, "gates": 0.6, "swap": 0.1}
RUN = DENSE.but(method="gumbel", density=0.05, seed=3, epochs=5, settings=SETTINGS)


@pytest.fixture(scope="module")
def data():
    return make_prototypes(400, 3)


@pytest.fixture(scope="module", autouse=True)
def _more_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "BATCH_SIZE", 40)
        yield


def same(one, other):
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def lenet(seed=3):
    torch.manual_seed(seed)
    return pb.lenet_300_100()


@pytest.mark.parametrize(("epochs", "parts"), [(15, [6, 9]), (5, [2, 3]), (7, [3, 4]), (1, [0, 1])])
def test_parts_that_meet_make_up_the_whole(epochs, parts):
    run = RUN.but(epochs=epochs)
    assert [part(run, 0, 0.4), part(run, 0.4, 1)] == parts


@pytest.mark.parametrize(
    ("weights", "side", "units"),
    [(399, 7, 7), (1331, 7, 23), (2662, 14, 13), (5324, 14, 26), (13_310, 14, 65), (10, 7, 1)],
)
def test_the_small_dense_network_has_as_many_weights(weights, side, units):
    assert small_size(weights) == (side, units)
    assert abs(units * (side**2 + 10) - weights) <= (side**2 + 10) / 2 or units == 1


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_as_many_weights_and_never_sees_validation_or_test(method, data):
    nothing = pb.Split(data.valid.images[:0], data.valid.labels[:0])
    blind = replace(data, valid=nothing, test=None)  # an empty split, and none at all
    run = RUN.but(method=method, epochs=5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch_pruning")
        net = METHODS[method].train(run, blind)
    counts = count_weights(net)
    if method == "dense":
        assert counts.kept == 266_200
    elif method == "small dense":
        assert counts.kept == counts.weights == 13_390  # 65 units of 206 weights: 13,310 to the nearest unit
    elif method == "linear classifier":
        assert counts.kept == 7840
    elif method in ("unit norm", "gumbel units", "Torch-Pruning"):
        assert 0.85 * count(run) < counts.kept == counts.weights <= count(run)
    elif method in ("gumbel", "adaptive"):
        assert 0.6 * count(run) < counts.kept <= count(run)
    else:
        assert counts.kept == count(run) == 13_310
    if method != EXCHANGE:  # its steps are too long where no image of training is wrong
        assert pb.evaluate(net, data.train).accuracy > 0.25  # chance is 0.1


def test_a_linear_classifier_is_pruned_below_its_own_size(data):
    assert count_weights(recipes.linear(RUN.but(density=0.0015), data)).kept == 399


def test_a_random_mask_keeps_the_same_share_of_each_layer(data):
    net = recipes.random_mask(RUN.but(epochs=0), data)
    assert [int(mask.sum()) for mask in pb.masks(net).values()] == [11_760, 1500, 50]
    other = recipes.random_mask(RUN.but(epochs=0, seed=4), data)
    assert not torch.equal(pb.masks(net)["1.weight"], pb.masks(other)["1.weight"])


def test_snip_keeps_what_the_loss_depends_on_most(data):
    run = RUN.but(epochs=0, density=0.01)
    net, start = recipes.snip(run, data), lenet()
    weights = dict(start.named_parameters())

    def loss(gates):  # of networks whose weights are multiplied by gates: the paper's own definition
        gated = {name: w * gates[name] if name in gates else w for name, w in weights.items()}
        return nn.functional.cross_entropy(
            functional_call(start, gated, data.train.images), data.train.labels
        )

    ones = {name: torch.ones_like(w) for name, w in weights.items() if w.dim() == 2}
    scores = {name: slope.detach().abs() for name, slope in grad(loss)(ones).items()}
    kept = pb.masks(net)
    least = min(float(scores[name][kept[name]].min()) for name in kept if kept[name].any())
    most = max(float(scores[name][~kept[name]].max()) for name in kept)
    assert sum(int(mask.sum()) for mask in kept.values()) == 2662
    assert most <= least * (1 + 1e-4)


def test_one_shot_over_all_layers_is_what_torch_does(data):
    ours = pb.bake(recipes.one_shot("global", RUN, data))
    theirs = recipes.torch_prune(RUN, data)
    assert count_weights(ours).kept == 13_310
    assert same(ours, theirs)


def test_each_layer_keeps_its_share_where_the_scope_is_the_layer(data):
    for recipe in (recipes.one_shot, recipes.gradual):
        kept = pb.masks(recipe("layer", RUN.but(density=0.1), data))
        assert [int(mask.sum()) for mask in kept.values()] == [23_520, 3000, 100]


def test_rewinding_after_one_epoch_goes_back_to_that_epoch(data):
    run = RUN.but(epochs=2, settings={"lr": 0.004, "rounds": 1})
    by_hand = recipes.train(lenet(), run, data, 0, 0.5)  # the one epoch that is rewound to
    pb.prune_weights(by_hand, 95, "global")
    assert same(recipes.iterative(run, data), recipes.train(by_hand, run, data, 0.5))


def test_each_round_needs_an_epoch_and_leaves_the_same_share_of_what_was_left(data, monkeypatch):
    left = []
    monkeypatch.setattr(recipes, "rewind", lambda net, state: left.append(count_weights(net).kept))
    recipes.iterative(RUN.but(density=0.01, epochs=3), data)
    assert left == [26_620, 2662]  # a tenth, and a tenth of that
    with pytest.raises(ValueError, match="epochs must be at least 3, one for each training, got 2"):
        recipes.iterative(RUN.but(epochs=2), data)


def test_a_learned_mask_is_trained_from_other_weights(data):
    learned = pb.masks(recipes.gated(RUN, data))
    net = recipes.learned_mask(RUN, data)
    assert all(torch.equal(mask, learned[name]) for name, mask in pb.masks(net).items())
    shuffled = pb.masks(recipes.learned_mask(RUN, data, shuffled=True))
    for name, mask in shuffled.items():
        assert mask.sum() == learned[name].sum()
    assert not torch.equal(shuffled["1.weight"], learned["1.weight"])


def test_exchange_fills_the_count_that_dead_units_leave_open(data):
    assert count_weights(recipes.gumbel(RUN, data)).kept < count(RUN)
    assert count_weights(recipes.gumbel(RUN, data, exchanged=True)).kept == count(RUN)


@pytest.mark.parametrize("recipe", [recipes.unit_norm, recipes.gumbel_units])
def test_units_are_removed_as_long_as_weights_are_too_many(recipe, data):
    net = recipe(RUN, data)
    sizes = [layer.weight.shape for layer in net if isinstance(layer, nn.Linear)]
    assert sizes[0][1] == 784
    assert sum(a * b for a, b in sizes) <= count(RUN) < sum(a * b for a, b in sizes) + 784 + sizes[2][1] + 10
    with pytest.raises(ValueError, match=r"density must leave room for one unit in each layer, got 0\.0015"):
        recipe(RUN.but(density=0.0015), data)


def test_a_seed_repeats_its_network(data):
    make = partial(recipes.gumbel, RUN.but(density=0.01), exchanged=True)
    assert same(make(data), make(data))
