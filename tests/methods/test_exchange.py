import copy
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import METHODS, Operations, Own, batch, conv_net, make_data, network, normal, seeded
from torch import nn
from torch.nn import functional as F

import prunebook as pb
from prunebook.cover import sparsity
from prunebook.layers import dense_weight
from prunebook.masking import masks
from prunebook.methods.exchange import gradient_moments
from prunebook.shrinking.slicing import plain


def labels(n=5, classes=4):
    return torch.arange(n) % classes


def pruned(k=50, seed=0, dtype=torch.float64):
    return pb.prune_weights(network(seed).to(dtype), k)


def images(n=5):
    return normal(n, 6)


def snapshot(model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [layer.training for layer in model.modules()]
    return state, modes, [p.requires_grad for p in model.parameters()], [p.grad for p in model.parameters()]


def assert_unchanged(model, before):
    now = snapshot(model)
    assert now[1:] == before[1:]
    assert now[0].keys() == before[0].keys()
    assert all(torch.equal(value, before[0][name]) for name, value in now[0].items())


def by_loop(model, x, y):
    """The moments image by image, by autograd, at every weight, pruned or not."""
    baked = plain(model).eval()
    layers = pb.maskable(baked)
    sums = {name: [torch.zeros_like(layer.weight) for _ in "gF"] for name, layer in layers.items()}
    for i in range(len(x)):
        loss = F.cross_entropy(baked(x[i : i + 1]), y[i : i + 1])
        found = torch.autograd.grad(loss, [layer.weight for layer in layers.values()])
        for name, gradient in zip(layers, found, strict=True):
            sums[name][0] += gradient / len(x)
            sums[name][1] += gradient.square() / len(x)
    return sums


def assert_moments(model, x, y, **options):
    found, wanted = gradient_moments(model, x, y, **options), by_loop(model, x, y)
    assert found.keys() == wanted.keys()
    for name, (mean, square) in wanted.items():
        assert mean.any()
        torch.testing.assert_close(found[name].mean, mean)
        torch.testing.assert_close(found[name].square, square)


# By hand


# Two images with the label 0, for a layer of three inputs and two classes.
X, Y = torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 2.0]], dtype=torch.float64), torch.tensor([0, 0])


def by_hand():
    """The loss of label 0 is log(1 + exp(score 1 - score 0))."""
    layer = nn.Linear(3, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[9.0, 1.0, 7.0], [0.0, 1.0, 0.0]]))
    return pb.attach(layer, torch.tensor([[False, True, False], [True, True, False]]))


def test_moments_by_hand():
    # both scores are x1: each class has probability 1/2, and the gradient of score 0 is -1/2, of score 1 1/2
    (found,) = gradient_moments(by_hand(), X, Y).values()
    assert found.mean.tolist() == [[-1.25, -0.5, -0.5], [1.25, 0.5, 0.5]]
    assert found.square.tolist() == [[2.125, 0.5, 0.5]] * 2  # (1/4 + 4) / 2, (1 + 0) / 2, (0 + 1) / 2


@pytest.mark.parametrize(
    ("count", "options", "wanted"),
    [
        (1, {}, [[1.25 / 2.125, 1, 0], [0, 1, 0]]),
        (2, {}, [[1.25 / 2.125, 0, 1], [0, 1, 0]]),  # of ties, the lower index: [0, 1] out, [0, 2] in
        (
            2,
            {"per_row": 1},
            [[1.25 / 2.125, 0, 0], [0, 1, -1]],
        ),  # each row gets one, then its second
        (1, {"damping": 0.375}, [[1.25 / 2.5, 1, 0], [0, 1, 0]]),  # damping holds back
    ],
)
def test_exchange_by_hand(count, options, wanted):
    # costs of what is kept: 1/4 for the two weights of 1, 0 for the weight of 0; gains of what is pruned:
    # 1.25^2 / 4.25 = 0.37 at [0, 0], 0.25 at [0, 2] and [1, 2]
    layer = by_hand()
    assert pb.exchange(layer, X, Y, count, **{"damping": 1e-9} | options) is layer
    wanted = torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(layer.weight.detach(), wanted)
    assert torch.equal(masks(layer)["weight"], wanted != 0)


# The moments


def reading(inputs, *layers):
    """These layers, and a linear one that reads what leaves them."""
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, 3))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: reading(5, nn.Linear(6, 5), nn.Tanh()), (6,)),
        (lambda: reading(20, nn.Linear(6, 5), nn.Tanh()), (4, 6)),
        (lambda: reading(36, nn.Conv2d(2, 4, 3, 2, padding=1, groups=2), nn.ReLU(inplace=True)), (2, 5, 5)),
        (lambda: reading(48, nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.ELU()), (2, 4, 4)),
        (lambda: reading(9, nn.Conv1d(2, 3, 2, dilation=2), nn.Dropout(0.9)), (2, 5)),
        (lambda: reading(24, nn.ConvTranspose1d(2, 4, 2, bias=False)), (2, 5)),
        (conv_net, (2, 4, 4)),
    ],
)
def test_moments_are_those_of_a_loop_over_images(make, shape):
    with seeded():
        model = make().double()
    x, y = normal(7, *shape), labels(7, 3)
    model(x)  # moves the statistics of BatchNorm
    assert_moments(model, x, y)
    assert_moments(pb.prune_weights(model, 60), x, y)
    assert_moments(model, x, y, batch_size=3)


def test_images_at_once_change_nothing(monkeypatch):
    model = reading(12, nn.Conv2d(1, 3, 3)).double()
    x, y = normal(9, 1, 4, 4), labels(9, 3)
    whole = gradient_moments(model, x, y)
    for at_once in (1, 2, 9):
        monkeypatch.setattr(sys.modules[gradient_moments.__module__], "IMAGES_AT_ONCE", at_once)
        for name, found in gradient_moments(model, x, y, batch_size=5).items():
            torch.testing.assert_close(found.mean, whole[name].mean)
            torch.testing.assert_close(found.square, whole[name].square)


def test_gradients_of_few_images_are_in_memory_together():
    model = reading(40, nn.Conv1d(30, 40, 3))
    x, y = normal(200, 30, 3, dtype=torch.float32), labels(200, 3)
    with Operations() as seen:
        gradient_moments(model, x, y)
    assert 3600 < seen.most <= 32 * 3600  # not 200 x 3600


def test_what_follows_may_work_in_place():
    def forward(self, x):
        x = x * 1
        out = self.first(x)
        x += 10  # after the layer has seen it
        return self.last(out.relu_())

    model = Own(forward, first=nn.Linear(6, 6), last=nn.Linear(6, 4)).double()
    wanted = by_loop(nn.Sequential(model.first, nn.ReLU(), model.last), images(), labels())["0"]
    torch.testing.assert_close(gradient_moments(model, images(), labels())["first"].mean, wanted[0])


def test_a_layer_that_the_loss_does_not_need_has_moments_of_zero():
    layers = {"first": nn.Linear(6, 4), "beside": nn.Linear(6, 2)}
    model = Own(lambda self, x: (self.beside(x), self.first(x))[1], **layers).double()
    found = gradient_moments(model, images(), labels())
    assert found["first"].mean.any()
    assert not found["beside"].mean.any()
    assert not found["beside"].square.any()


def test_layers_may_be_called_with_their_input_by_keyword():
    model = Own(lambda self, x: self.fc(input=x), fc=nn.Linear(4, 3)).double()
    x, y = normal(6, 4), labels(6, 3)
    found, wanted = (gradient_moments(net, x, y) for net in (model, nn.Sequential(model.fc)))
    assert torch.equal(found["fc"].mean, wanted["0"].mean)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_is(training):
    model, x, y = nn.Sequential(conv_net(), nn.Dropout(0.5)).double(), normal(6, 2, 4, 4), labels(6, 3)
    pb.prune_weights(model, 50)
    model.train(training)[0][1].eval()
    dense_weight(model[0][0]).requires_grad_(False)
    before, random, old = snapshot(model), torch.get_rng_state(), masks(model)
    gradient_moments(model, x, y)
    assert_unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(layer._forward_hooks for layer in model.modules())
    with torch.no_grad():
        pb.exchange(model, x, y, 4)  # gradients or not
    after = snapshot(model)
    assert after[1:] == before[1:]
    changed = {name for name, value in after[0].items() if not torch.equal(value, before[0][name])}
    assert all(name.endswith(("weight", "weight.0.mask")) for name in changed)
    assert sum(int((mask != old[name]).sum()) for name, mask in masks(model).items()) == 8
    assert sum(int(mask.sum() - old[name].sum()) for name, mask in masks(model).items()) == 0


# The exchange


@settings(max_examples=30)
@given(st.integers(0, 20), st.integers(1, 4), st.integers(0, 5))
def test_a_limit_for_each_row_is_kept_as_long_as_there_are_other_rows(count, per_row, seed):
    model = pruned(60, seed)
    old = masks(model)
    pb.exchange(model, images(), labels(), count, per_row=per_row)
    new = [(mask & ~old[name]).sum(1) for name, mask in masks(model).items()]
    room = [(~old[name]).sum(1) for name in old]
    most = sum(int(each.clamp(max=per_row).sum()) for each in room)
    assert sum(int(each.sum()) for each in new) == count
    if count <= most:
        assert max(int(each.max()) for each in new) <= per_row


@settings(max_examples=40)
@given(st.integers(0, 40), st.integers(0, 5), st.sampled_from([60, 40, 95]))
def test_the_chosen_are_those_of_brute_force(count, seed, k):
    model = pruned(k, seed)
    layers, moments, old = pb.maskable(model), gradient_moments(model, images(), labels()), masks(model)
    before = {name: dense_weight(layer).detach().clone() for name, layer in layers.items()}
    costs, losses = {}, {}
    for name, weight in before.items():
        for index in np.ndindex(*weight.shape):
            g, f, w = (tensor[index].item() for tensor in (*moments[name], weight))
            if old[f"{name}.weight"][index]:
                costs[name, index] = f * w**2 / 2
            else:
                losses[name, index] = -(g**2) / (2 * (f + 1e-6))
    count = min(count, len(costs))
    new = sorted(losses, key=losses.get)[:count]
    kept = {*sorted(costs, key=costs.get)[count:], *new}

    pb.exchange(model, images(), labels(), count)
    for name, layer in layers.items():
        for index in np.ndindex(*layer.weight.shape):
            assert masks(model)[f"{name}.weight"][index] == ((name, index) in kept)
            if (name, index) in new:
                g, f = (tensor[index].item() for tensor in moments[name])
                assert layer.weight[index].item() == pytest.approx(-g / (f + 1e-6), rel=1e-9)
            else:
                assert dense_weight(layer)[index] == before[name][index]


@settings(max_examples=30)
@given(st.integers(0, 60), st.integers(0, 100))
def test_there_are_as_many_weights_afterwards_as_asked_for(count, total):
    model = pruned(40)
    if 60 - count <= total <= 100 - count:
        pb.exchange(model, images(), labels(), count, total)
        assert sum(int(mask.sum()) for mask in masks(model).values()) == total
    else:
        wanted = f"total must be a whole number from {60 - count} to {100 - count}, got {total}"
        with pytest.raises(ValueError, match=wanted):
            pb.exchange(model, images(), labels(), count, total)


def test_nothing_and_all_can_be_exchanged():
    model = pruned(70)
    before = snapshot(model)
    pb.exchange(model, images(), labels(), 0)
    assert_unchanged(model, before)
    old = masks(model)
    with pytest.raises(ValueError, match="count must be a whole number from 0 to 30, got 31"):
        pb.exchange(model, images(), labels(), 31)
    pb.exchange(model, images(), labels(), 30)
    assert sparsity(model) == 0.7
    assert not any((mask & old[name]).any() for name, mask in masks(model).items())


def test_a_network_that_is_cut_is_said_to_be():
    model = pb.prune_weights(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), 50)
    pb.set_masks(model, {"2.weight": torch.zeros(2, 3, dtype=torch.bool)})
    nn.init.constant_(model[0].bias, -100)  # and no unit ever speaks
    with pytest.warns(UserWarning, match="no pruned weight has a gradient: the network may be cut"):
        pb.exchange(model.double(), normal(5, 4), labels(5, 2), 3)
    assert sum(int(mask.sum()) for mask in masks(model).values()) == 6


def test_a_bad_mask_gets_better():
    data = make_data(300)
    x, y = data.train.images.flatten(1), data.train.labels
    model = nn.Linear(16, 3)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    mask = torch.zeros(3, 16, dtype=torch.bool)
    mask[:, 8:12] = True  # pixels that say nothing; the class is read off pixels 4, 5 and 6
    pb.attach(model, mask)
    before = F.cross_entropy(model(x), y).item()
    pb.exchange(model, x, y, 3)
    assert int(masks(model)["weight"][:, 4:7].sum()) == 3
    assert int(masks(model)["weight"].sum()) == 12
    assert F.cross_entropy(model(x), y).item() < 0.75 * before


def test_gumbel_gates_then_exchange():
    model = network().double()
    METHODS["gumbel"](model).freeze(20)
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"0\.weight must have a constant mask or none, has a WeightGate"):
        pb.exchange(model, images(), labels(), 2)
    assert_unchanged(model, before)
    pb.exchange(pb.harden(model), images(), labels(), 2)
    assert sparsity(model) == 0.8


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"count": n}, f"count must be a whole number from 0 to 40, got {n}") for n in (-1, 41, 2.0, True)),
        ({"damping": 0.0}, r"damping must be above 0 and finite, got 0\.0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"images": normal(0, 6)}, "images must be at least one, with a label each, got 0 and 5"),
        ({"images": normal(4, 6)}, "images must be at least one, with a label each, got 4 and 5"),
        ({"images": normal(5, 6) * math.nan}, r"gradients must be finite, .* in layers \['0', '2'\]"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    model = pruned(60).train()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        pb.exchange(model, **{"images": images(), "labels": labels(), "count": 3} | arguments)
    assert_unchanged(model, before)


def uses(times):
    """A network that uses its first layer so many times."""

    def forward(self, x):
        for _ in range(times):
            x = self.first(x).tanh()
        return self.last(x)

    return pb.prune_weights(Own(forward, first=nn.Linear(6, 6), last=nn.Linear(6, 4)), 50)


def shared():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 4))
    model[2].weight = model[0].weight
    return pb.prune_weights(model, 50)


def folded():
    """Images are not along the first axis of what the first layer sees."""
    layers = [nn.Flatten(0, 1), nn.Linear(3, 3), nn.Unflatten(0, (5, 2)), nn.Flatten(), nn.Linear(6, 4)]
    return pb.prune_weights(nn.Sequential(nn.Unflatten(1, (2, 3)), *layers), 50)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pb.prune_weights(network(), 50, skip=["2"]), r"all layers, got none on \['2\.weight'\]"),
        (lambda: uses(0), r"must use each layer exactly once, not so: \['first'\]"),
        (lambda: uses(2), r"must use each layer exactly once, not so: \['first'\]"),
        (shared, r"must use each weight exactly once, not so: those of \['0'\] are shared"),
        (folded, r"see the images along their first axis, not so: \['2'\]"),
    ],
)
def test_networks_that_do_not_fit_are_refused(make, message):
    model = make().double()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        pb.exchange(model, images(), labels(), 3)
    assert_unchanged(model, before)


def test_weights_of_zero_inputs_take_no_endless_steps():
    model, x = pruned(50, dtype=torch.float32), batch()
    x[:, 0] = 0
    pb.exchange(model, x, labels(), 50)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert copy.deepcopy(model)(x).isfinite().all()
