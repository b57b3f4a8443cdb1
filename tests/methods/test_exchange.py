import copy
import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import batch, make_data, network, normal
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import prunebook as pb
from prunebook.masking import dense_weight, masks, set_masks, sparsity
from prunebook.methods.exchange import gradient_moments


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
    baked = pb.shrinking.plain(model).eval()
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


def by_hand():
    """Three inputs and two classes: the loss of label 0 is log(1 + exp(score 1 - score 0))."""
    layer = nn.Linear(3, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[9.0, 1.0, 7.0], [0.0, 1.0, 0.0]]))
    mask = torch.tensor([[False, True, False], [True, True, False]])
    return pb.attach(layer, mask)


def test_moments_by_hand():
    # both scores are x1: each class has probability 1/2, and the gradient of score 0 is -1/2, of score 1 1/2
    x, y = torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 2.0]], dtype=torch.float64), torch.tensor([0, 0])
    layer = by_hand()
    layer(x)
    (found,) = gradient_moments(layer, x, y).values()
    assert found.mean.tolist() == [[-1.25, -0.5, -0.5], [1.25, 0.5, 0.5]]
    assert found.square.tolist() == [[2.125, 0.5, 0.5]] * 2  # (1/4 + 4) / 2, (1 + 0) / 2, (0 + 1) / 2


def test_exchange_by_hand():
    # costs of what is kept: 1/4 for the two weights of 1, 0 for the weight of 0; gains of what is pruned:
    # 1.25^2 / 4.25 = 0.37 at [0, 0], 0.25 at [0, 2] and [1, 2]
    x, y = torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 2.0]], dtype=torch.float64), torch.tensor([0, 0])
    layer = by_hand()
    assert pb.exchange(layer, x, y, 1, damping=1e-9) is layer
    assert masks(layer)["weight"].tolist() == [[True, True, False], [False, True, False]]
    wanted = torch.tensor([[1.25 / 2.125, 1, 0], [0, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(layer.weight.detach(), wanted)
    layer = pb.exchange(by_hand(), x, y, 2, damping=1e-9)  # of ties, the lower index: [0, 1] out, [0, 2] in
    wanted = torch.tensor([[1.25 / 2.125, 0, 1], [0, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(layer.weight.detach(), wanted)


def test_damping_holds_back_by_hand():
    x, y = torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 2.0]], dtype=torch.float64), torch.tensor([0, 0])
    layer = pb.exchange(by_hand(), x, y, 1, damping=0.375)
    assert layer.weight[0, 0].item() == pytest.approx(1.25 / 2.5)


# The moments


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: [nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)], (6,)),
        (lambda: [nn.Linear(6, 5), nn.Tanh(), nn.Flatten(), nn.Linear(20, 3)], (4, 6)),
        (lambda: [nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.ReLU(inplace=True), nn.Flatten(),
                  nn.Linear(36, 3)], (2, 5, 5)),
        (lambda: [nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(3), nn.ELU(),
                  nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Flatten(), nn.Linear(128, 3)], (2, 4, 4)),
        (lambda: [nn.Conv1d(2, 3, 2, dilation=2), nn.ConvTranspose1d(3, 4, 2, bias=False), nn.Flatten(),
                  nn.Dropout(0.9), nn.Linear(16, 3)], (2, 5)),
    ],
)  # fmt: skip
def test_moments_are_those_of_a_loop_over_images(make, shape):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(*make()).double()
    x, y = normal(7, *shape), labels(7, 3)
    model(x)  # moves the statistics of BatchNorm
    assert_moments(model, x, y)
    assert_moments(pb.prune_weights(model, 60), x, y)
    assert_moments(model, x, y, batch_size=3)


def test_images_at_once_change_nothing(monkeypatch):
    model, x, y = (
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 3)).double(),
        normal(9, 1, 4, 4),
        labels(9, 3),
    )
    whole = gradient_moments(model, x, y)
    for at_once in (1, 2, 9):
        monkeypatch.setattr(sys.modules[gradient_moments.__module__], "IMAGES_AT_ONCE", at_once)
        for name, found in gradient_moments(model, x, y, batch_size=5).items():
            torch.testing.assert_close(found.mean, whole[name].mean)
            torch.testing.assert_close(found.square, whole[name].square)


class Largest(TorchDispatchMode):
    """Notes the most numbers in one tensor that an operation made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.most = max(self.most, made.numel())
        return made


def test_gradients_of_few_images_are_in_memory_together():
    model = nn.Sequential(nn.Conv1d(30, 40, 3), nn.Flatten(), nn.Linear(40, 3))
    x, y = normal(200, 30, 3, dtype=torch.float32), labels(200, 3)
    with Largest() as largest:
        gradient_moments(model, x, y)
    assert 3600 < largest.most <= 32 * 3600  # not 200 x 3600


def test_what_follows_may_work_in_place():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, x):
            x = x * 1
            out = self.first(x)
            x += 10  # after the layer has seen it
            return self.last(out.relu_())

    model = InPlace().double()
    found, wanted = gradient_moments(model, images(), labels()), []
    for x, y in zip(images(), labels(), strict=True):
        loss = F.cross_entropy(model.last(model.first(x[None]).relu()), y[None])
        wanted.append(torch.autograd.grad(loss, model.first.weight)[0])
    torch.testing.assert_close(found["first"].mean, torch.stack(wanted).mean(0))


def test_a_layer_that_the_loss_does_not_need_has_moments_of_zero():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.beside = nn.Linear(6, 4), nn.Linear(6, 2)

        def forward(self, x):
            self.beside(x)
            return self.first(x)

    found = gradient_moments(Beside().double(), images(), labels())
    assert found["first"].mean.any()
    assert not found["beside"].mean.any()
    assert not found["beside"].square.any()


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_is(training):
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 4)).double()
    pb.prune_weights(model, 50)
    model.train(training)[1].eval()
    dense_weight(model[0]).requires_grad_(False)
    before, random = snapshot(model), torch.get_rng_state()
    gradient_moments(model, images(), labels())
    assert_unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert not model[0]._forward_hooks
    with torch.no_grad():
        pb.exchange(model, images(), labels(), 4)  # gradients or not
    after = snapshot(model)
    assert after[1:] == before[1:]
    changed = {name for name, value in after[0].items() if not torch.equal(value, before[0][name])}
    assert changed <= {
        f"{i}.parametrizations.weight.{what}" for i in (0, 3) for what in ("original", "0.mask")
    }


# The exchange


def test_a_row_gets_no_second_new_weight_before_the_others_have_their_first_by_hand():
    # gains: 0.37 at [0, 0], then 0.25 at [0, 2] and [1, 2]; without limit [0, 2] is next, as the lower index
    x, y = torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 2.0]], dtype=torch.float64), torch.tensor([0, 0])
    free, limited = (pb.exchange(by_hand(), x, y, 2, per_row=limit, damping=1e-9) for limit in (None, 1))
    assert masks(free)["weight"].tolist() == [[True, False, True], [False, True, False]]
    assert masks(limited)["weight"].tolist() == [[True, False, False], [False, True, True]]


@settings(max_examples=30, deadline=None)
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


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 5), st.sampled_from([60, 40, 95]))
def test_the_chosen_are_those_of_brute_force(count, seed, k):
    model = pruned(k, seed)
    count = min(count, sum(int(mask.sum()) for mask in masks(model).values()))
    moments, old = gradient_moments(model, images(), labels()), masks(model)
    kept, gone = [], []
    for name in ("0", "2"):
        weight = dense_weight(model.get_submodule(name)).detach()
        for index in [(i, j) for i in range(weight.shape[0]) for j in range(weight.shape[1])]:
            g, f, w = (float(t[index]) for t in (*moments[name], weight))
            if old[f"{name}.weight"][index]:
                kept.append((f * w * w / 2, name, index))
            else:
                gone.append((-g * g / (2 * (f + 1e-6)), name, index, -g / (f + 1e-6)))
    out = {(name, index) for _, name, index in sorted(kept)[:count]}
    new = {(name, index): value for _, name, index, value in sorted(gone)[:count]}
    before = {name: dense_weight(model.get_submodule(name)).detach().clone() for name in ("0", "2")}
    biases = [model[i].bias.detach().clone() for i in (0, 2)]

    pb.exchange(model, images(), labels(), count)
    for name in ("0", "2"):
        layer, mask = model.get_submodule(name), masks(model)[f"{name}.weight"]
        for index in [(i, j) for i in range(len(mask)) for j in range(mask.shape[1])]:
            key = (name, index)
            was = bool(old[f"{name}.weight"][index])
            assert bool(mask[index]) == ((was and key not in out) or key in new)
            if key in new:
                assert layer.weight[index].item() == pytest.approx(new[key], rel=1e-9)
            else:
                assert dense_weight(layer)[index] == before[name][index]
    assert all(torch.equal(model[i].bias, bias) for i, bias in zip((0, 2), biases, strict=True))
    assert sum(int(mask.sum()) for mask in masks(model).values()) == len(kept)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(0, 100))
def test_there_are_as_many_weights_afterwards_as_asked_for(count, total):
    model = pruned(40)
    if 60 - count <= total <= 100 - count:
        pb.exchange(model, images(), labels(), count, total)
        assert sum(int(mask.sum()) for mask in masks(model).values()) == total
    else:
        wanted = f"total must be a whole number of weights from {60 - count} to {100 - count}, got {total}"
        with pytest.raises(ValueError, match=wanted):
            pb.exchange(model, images(), labels(), count, total)


def test_nothing_and_all_can_be_exchanged():
    model = pruned(70)
    before = snapshot(model)
    pb.exchange(model, images(), labels(), 0)
    assert_unchanged(model, before)
    old = masks(model)
    pb.exchange(model, images(), labels(), 30)
    assert sparsity(model) == 0.7
    assert not any((mask & old[name]).any() for name, mask in masks(model).items())


def test_a_new_weight_falls_to_the_minimum_of_its_expansion():
    # one free weight: the step -g / F' is a descent where it is small
    model = pruned(90)
    g, f = gradient_moments(model, images(), labels())["2"]
    name, loss = "2.weight", F.cross_entropy(model(images()), labels()).item()
    free = (~masks(model)[name]).nonzero()[0].tolist()
    value = -g[tuple(free)] / (2 * (f[tuple(free)] + 1e-6)) * 0.1
    mask = masks(model)[name]
    mask[tuple(free)] = True
    set_masks(model, {name: mask})
    with torch.no_grad():
        dense_weight(model[2])[tuple(free)] = value
    assert F.cross_entropy(model(images()), labels()).item() < loss


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


def test_layers_compete_with_each_other():
    model = pruned(50)
    with torch.no_grad():
        dense_weight(model[0]).mul_(1e-6)  # costs nothing to lose
    pb.exchange(model, images(), labels(), 3)
    assert int(masks(model)["0.weight"].sum()) + int(masks(model)["2.weight"].sum()) == 50
    assert int(masks(model)["2.weight"].sum()) >= 20


def test_convolutions_are_exchanged():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    ).double()
    pb.prune_weights(model, 50)
    old = masks(model)
    pb.exchange(model, normal(6, 1, 4, 4), labels(6, 3), 5)
    changed = {name: int((mask != old[name]).sum()) for name, mask in masks(model).items()}
    assert sum(changed.values()) == 10
    assert sum(int(mask.sum()) for mask in masks(model).values()) == 18 + 24


def test_gumbel_gates_then_exchange():
    model = network().double()
    pruning = pb.GumbelPruning(model)
    with torch.no_grad():
        for i, gate in enumerate(pb.gumbel.gates(model).values()):
            gate.logit.copy_(normal(*gate.logit.shape, seed=i))
    pruning.freeze(20)
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"0\.weight must have a constant mask or none, has a WeightGate"):
        pb.exchange(model, images(), labels(), 2)
    assert_unchanged(model, before)
    pb.exchange(pb.harden(model), images(), labels(), 2)
    assert sparsity(model) == 0.8


# What is refused


@pytest.mark.parametrize("count", [-1, 41, 2.0, True, None])
def test_counts_out_of_range_are_refused(count):
    for k in (40, 60):  # at most the fewer of kept and pruned
        model = pruned(k)
        before = snapshot(model)
        with pytest.raises(
            ValueError, match=f"count must be a whole number of weights from 0 to 40, got {count}"
        ):
            pb.exchange(model, images(), labels(), count)
        assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"damping": 0.0}, r"damping must be above 0 and finite, got 0\.0"),
        ({"damping": -1.0}, r"damping must be above 0 and finite, got -1\.0"),
        ({"damping": math.nan}, "damping must be above 0 and finite, got nan"),
        ({"damping": math.inf}, "damping must be above 0 and finite, got inf"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, r"batch_size must be a whole number of at least 1, got 2\.5"),
        ({"images": normal(0, 6)}, "images must be at least one, with a label each, got 0 and 5"),
        ({"images": normal(4, 6)}, "images must be at least one, with a label each, got 4 and 5"),
        ({"images": normal(5, 6) * math.nan}, r"gradients must be finite, .* in layers \['0', '2'\]"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    model = pruned().train()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        pb.exchange(model, **{"images": images(), "labels": labels(), "count": 3} | arguments)
    assert_unchanged(model, before)


def test_layers_without_masks_are_refused():
    model = pb.prune_weights(network().double(), 50, skip=["2"])
    with pytest.raises(ValueError, match=r"masks on all layers, got none on \['2\.weight'\]"):
        pb.exchange(model, images(), labels(), 3)


def test_layers_that_are_not_used_once_are_refused():
    class Uses(nn.Module):
        def __init__(self, times):
            super().__init__()
            self.first, self.last, self.times = nn.Linear(6, 6), nn.Linear(6, 4), times

        def forward(self, x):
            for _ in range(self.times):
                x = self.first(x).tanh()
            return self.last(x)

    assert_moments(Uses(1).double(), images(), labels())
    for times in (0, 2):
        model = pb.prune_weights(Uses(times).double(), 50)
        before = snapshot(model)
        with pytest.raises(ValueError, match=r"must use each layer exactly once, not so: \['first'\]"):
            pb.exchange(model, images(), labels(), 3)
        assert_unchanged(model, before)


def test_shared_weights_are_refused():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 4)).double()
    model[2].weight = model[0].weight
    pb.prune_weights(model, 50)
    before = snapshot(model)
    with pytest.raises(
        ValueError, match=r"must use each weight exactly once, not so: those of \['0'\] are shared"
    ):
        pb.exchange(model, images(), labels(), 3)
    assert_unchanged(model, before)


def test_layers_that_see_no_images_along_the_first_axis_are_refused():
    model = nn.Sequential(
        nn.Flatten(0, 1), nn.Linear(6, 3), nn.Unflatten(0, (5, 2)), nn.Flatten(), nn.Linear(6, 4)
    )
    with pytest.raises(ValueError, match=r"see the images along their first axis, not so: \['1'\]"):
        gradient_moments(model.double(), normal(5, 2, 6), labels())


def test_weights_of_zero_inputs_take_no_endless_steps():
    model, x = pruned(50, dtype=torch.float32), batch()
    x[:, 0] = 0
    pb.exchange(model, x, labels(), 50)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert copy.deepcopy(model)(x).isfinite().all()
