"""The recipes of a comparison: how many weights each leaves, in which epochs, and what it must not see."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from small import make_prototypes, same_state
from torch import nn

import prunebook as pb
from prunebook.experiments import recipes, rivals
from prunebook.experiments.gumbel import compact
from prunebook.experiments.recipes import count, part
from prunebook.experiments.rivals import erk_counts
from prunebook.experiments.search import METHODS
from prunebook.experiments.search import RUN as DENSE
from prunebook.tools.costs import count_weights

SETTINGS = {"lr": 0.004, "before": 0.4, "end": 0.5, "rounds": 2, "side": 14, "drop": 0.3}
SETTINGS |= {"tau": 0.1, "lr_r": 0.05, "lr_gates": 0.02, "swap": 0.1, "lr_again": 0.004}
RUN = DENSE.but(method="gumbel", density=0.05, seed=3, epochs=5, settings=SETTINGS)


@pytest.fixture(scope="module")
def data():
    return make_prototypes(400, 3)


@pytest.fixture(scope="module", autouse=True)
def _more_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "BATCH_SIZE", 40)
        patch.setattr(rivals, "BATCH_SIZE", 40)
        yield


def lenet(seed=3):
    torch.manual_seed(seed)
    return pb.lenet_300_100()


@pytest.mark.parametrize(("epochs", "parts"), [(15, [6, 9]), (5, [2, 3]), (7, [3, 4]), (1, [0, 1])])
def test_parts_that_meet_make_up_the_whole(epochs, parts):
    run = RUN.but(epochs=epochs)
    assert [part(run, 0, 0.4), part(run, 0.4, 1)] == parts


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
        # a weight that comes back where its gradient is 0 is 0, and so not counted
        assert 13_300 <= counts.kept <= count(run) == 13_310
    if "exchange" not in method:  # its steps are too long where no image of training is wrong
        assert pb.evaluate(net, data.train).accuracy > 0.25  # chance is 0.1


def test_a_layer_that_is_full_leaves_the_rest_to_the_others():
    shapes = {"wide": (30, 70), "narrow": (2, 3)}
    assert erk_counts(shapes, 21) == {"wide": 20, "narrow": 1}  # 100 and 5 of 105
    assert erk_counts(shapes, 1006) == {"wide": 1000, "narrow": 6}
    assert erk_counts(shapes, 2106) == {"wide": 2100, "narrow": 6}


def test_one_shot_over_all_layers_is_what_torch_does(data):
    ours = pb.bake(recipes.one_shot("global", RUN, data))
    theirs = rivals.torch_prune(RUN, data)
    assert count_weights(ours).kept == 13_310
    assert same_state(ours, theirs)


def test_each_layer_keeps_its_share_where_the_scope_is_the_layer(data):
    kept = pb.masks(recipes.one_shot("layer", RUN.but(density=0.1), data))
    assert [int(mask.sum()) for mask in kept.values()] == [23_520, 3000, 100]


def test_rewinding_after_one_epoch_goes_back_to_that_epoch(data):
    run = RUN.but(epochs=2, settings={"lr": 0.004, "rounds": 1})
    by_hand = recipes.train(lenet(), run, data, 0, 0.5)  # the one epoch that is rewound to
    pb.prune_weights(by_hand, 95, "global")
    assert same_state(recipes.iterative(run, data), recipes.train(by_hand, run, data, 0.5))


def test_each_round_needs_an_epoch_and_leaves_the_same_share_of_what_was_left(data, monkeypatch):
    left = []
    monkeypatch.setattr(recipes, "rewind", lambda net, state: left.append(count_weights(net).kept))
    recipes.iterative(RUN.but(density=0.01, epochs=3), data)
    assert left == [26_620, 2662]  # a tenth, and a tenth of that
    with pytest.raises(ValueError, match="epochs must be at least 3, one for each training, got 2"):
        recipes.iterative(RUN.but(epochs=2), data)


def test_exchange_fills_the_count_that_dead_units_leave_open(data):
    assert count_weights(recipes.gumbel(RUN, data)).kept < count(RUN)
    assert count_weights(recipes.exchanged(recipes.gated, RUN, data)).kept == count(RUN)


def test_without_swaps_there_is_only_fine_tuning(data):
    run = RUN.but(settings=SETTINGS | {"swap": 0.0})
    by_hand = compact(recipes.shrunk_gradually(run, data, recipes.BEGUN))
    by_hand = recipes.train(by_hand, run, data, recipes.BEGUN)
    assert same_state(recipes.exchanged(recipes.shrunk_gradually, run, data), by_hand)


def test_images_are_shifted_in_training_only_where_the_run_says_so(data):
    still, moved = (recipes.dense(RUN.but(epochs=1, shift=pixels), data) for pixels in (0, 1))
    assert not same_state(still, moved)


@pytest.mark.parametrize("recipe", [recipes.unit_norm, recipes.gumbel_units])
def test_units_are_removed_as_long_as_weights_are_too_many(recipe, data):
    net = recipe(RUN, data)
    sizes = [layer.weight.shape for layer in net if isinstance(layer, nn.Linear)]
    assert sizes[0][1] == 784
    assert sum(a * b for a, b in sizes) <= count(RUN) < sum(a * b for a, b in sizes) + 784 + sizes[2][1] + 10
    with pytest.raises(ValueError, match=r"density must leave room for one unit in each layer, got 0\.0015"):
        recipe(RUN.but(density=0.0015), data)


def test_a_seed_repeats_its_network(data):
    make = partial(recipes.exchanged, recipes.gated, RUN.but(density=0.01))
    assert same_state(make(data), make(data))
