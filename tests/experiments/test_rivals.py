"""What the recipes are compared with: how many weights are left, and where, under masks of every kind."""

from __future__ import annotations

import pytest
import torch
from small import make_prototypes, same_state
from torch import nn
from torch.func import functional_call, grad

import prunebook as pb
from prunebook.experiments import recipes, rivals
from prunebook.experiments.search import RUN as DENSE
from prunebook.tools.costs import count_weights

SETTINGS = {"lr": 0.004, "end": 0.5, "side": 14, "drop": 0.3, "lr_gates": 0.02, "lr_again": 0.004}
RUN = DENSE.but(method="gumbel", density=0.05, seed=3, epochs=5, settings=SETTINGS)


@pytest.fixture(scope="module")
def data():
    return make_prototypes(400, 3)


@pytest.fixture(autouse=True)
def _more_steps(monkeypatch):
    for module in (recipes, rivals):
        monkeypatch.setattr(module, "BATCH_SIZE", 40)


def lenet(seed=3):
    torch.manual_seed(seed)
    return pb.lenet_300_100()


@pytest.mark.parametrize(
    ("weights", "side", "units"), [(399, 7, 7), (1331, 9, 15), (2662, 9, 29), (13_310, 14, 65), (10, 7, 1)]
)
def test_the_small_dense_network_has_as_many_weights(weights, side, units, data):
    run = RUN.but(density=weights / recipes.WEIGHTS, epochs=0, settings=SETTINGS | {"side": side})
    net = rivals.small_dense(run, data)
    assert [w.shape for w in net.parameters() if w.dim() == 2] == [(units, side**2), (10, units)]
    assert abs(units * (side**2 + 10) - weights) <= (side**2 + 10) / 2 or units == 1


def test_a_linear_classifier_is_pruned_below_its_own_size(data):
    assert count_weights(rivals.linear(RUN.but(density=0.0015), data)).kept == 399


def test_a_random_mask_gives_each_layer_weights_by_the_sum_of_its_sizes(data):
    # 1084, 400 and 110 of 1594: of 399 weights 271.3, 100.1 and 27.5
    net = rivals.random_mask(RUN.but(epochs=0, density=0.0015), data)
    assert [int(mask.sum()) for mask in pb.masks(net).values()] == [271, 100, 28]
    other = rivals.random_mask(RUN.but(epochs=0, density=0.0015, seed=4), data)
    assert not torch.equal(pb.masks(net)["1.weight"], pb.masks(other)["1.weight"])


def test_rigl_exchanges_within_each_layer_until_three_quarters_of_the_run(data, monkeypatch):
    monkeypatch.setattr(rivals, "EVERY", 10)
    run = RUN.but(epochs=4, density=0.01)
    start, end = rivals.random_mask(run.but(epochs=0), data), rivals.rigl(run, data)
    before, after = pb.masks(start), pb.masks(end)
    assert [int(m.sum()) for m in before.values()] == [int(m.sum()) for m in after.values()]
    assert not torch.equal(before["1.weight"], after["1.weight"])
    still = rivals.rigl(run.but(settings=SETTINGS | {"drop": 0.0}), data)
    assert same_state(still, rivals.random_mask(run, data))


def test_snip_keeps_what_the_loss_depends_on_most(data):
    run = RUN.but(epochs=0, density=0.01)
    net, start = rivals.snip(run, data), lenet()
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


def test_a_learned_mask_is_that_of_gumbel_in_the_same_run_trained_from_other_weights(data, monkeypatch):
    frozen = []
    monkeypatch.setattr(recipes, "compact", lambda net: frozen.append(pb.masks(net)) or net)
    recipes.gumbel(RUN, data)
    learned, net = frozen[0], rivals.learned_mask(RUN, data)
    assert all(torch.equal(mask, learned[name]) for name, mask in pb.masks(net).items())
    shuffled = pb.masks(rivals.learned_mask(RUN, data, shuffled=True))
    for name, mask in shuffled.items():
        assert mask.sum() == learned[name].sum()
    assert not torch.equal(shuffled["1.weight"], learned["1.weight"])


def test_shuffled_masks_of_snip_keep_as_many_in_each_layer(data):
    run = RUN.but(epochs=0, density=0.01)
    kept, moved = (pb.masks(rivals.snip(run, data, shuffled=flag)) for flag in (False, True))
    assert [int(m.sum()) for m in kept.values()] == [int(m.sum()) for m in moved.values()]
    assert not torch.equal(kept["1.weight"], moved["1.weight"])
