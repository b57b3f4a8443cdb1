import copy
import io
import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shrinking.nets import ResNet, assert_equal, linear, prune, randomise_norms, widths, zero_units
from torch import nn
from torch.nn.utils import parametrize

from prunebook.masking import attach
from prunebook.shrinking.slicing import recalibrate, shrink

ACTIVATIONS = st.sampled_from([nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Tanh])
RATES = st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0])
SEEDS = st.integers(0, 2**31)


def test_a_constant_moves_into_the_next_bias_and_what_no_one_reads_goes():
    first, last = linear([[1.0, 2], [0, 0], [3, 4]], [0.0, 3, 1]), linear([[1.0, 10, 0]], [5.0])
    small = shrink(nn.Sequential(first, nn.ReLU(), last))
    assert small[0].weight.tolist() == [[1, 2]]
    assert small[2].weight.tolist() == [[1]]
    assert small[2].bias.tolist() == [35]  # 5 + 10 relu(3)
    assert (small[0].out_features, small[2].in_features) == (1, 1)


def test_a_layer_without_bias_gets_one_only_for_a_constant_that_is_not_zero():
    for bias, has_bias in ((3.0, True), (-3.0, False)):
        model = nn.Sequential(linear([[1.0], [0]], [0.0, bias]), nn.ReLU(), linear([[1.0, 10]]))
        assert (shrink(model)[2].bias is not None) == has_bias


def test_a_shrunk_network_is_as_plain_as_before():
    model = ResNet()
    zero_units(model.blocks[0].conv1, [0, 1, 2])
    small = shrink(model.train())
    assert (model.blocks[0].conv1.out_channels, small.blocks[0].conv1.out_channels) == (6, 3)
    assert type(small) is ResNet
    assert small.training
    assert all(parameter.dtype == torch.float32 for parameter in small.parameters())
    again = pickle.loads(pickle.dumps(copy.deepcopy(small)))
    torch.save(again.state_dict(), io.BytesIO())
    small(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_masks_are_baked_and_the_network_stays_as_it_is():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    attach(model[0], torch.tensor([[True] * 3, [False] * 3]))
    small = shrink(model)
    assert widths(small) == [1, 2]
    assert not any(parametrize.is_parametrized(module) for module in small.modules())
    assert parametrize.is_parametrized(model[0])
    torch.testing.assert_close(small(torch.eye(3)), model(torch.eye(3)))


def test_parametrizations_that_are_no_masks_are_refused_by_name():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"no parametrizations but masks, got others in \['0'\]"):
        shrink(model)


def test_shrinking_twice_finds_nothing_more():
    model = ResNet()
    prune(model, 1, 0.5)
    once = shrink(model)
    assert [p.shape for p in shrink(once).parameters()] == [p.shape for p in once.parameters()]


# Random masks: 200 cases


@pytest.mark.slow
@settings(max_examples=100)
@given(SEEDS, RATES, ACTIVATIONS, st.booleans(), st.lists(st.integers(1, 9), max_size=4))
def test_random_perceptrons(seed, rate, activation, bias, hidden):
    torch.manual_seed(seed)
    layers = [(nn.Linear(a, b, bias=bias), activation()) for a, b in pairwise([5, *hidden, 3])]
    model = nn.Sequential(*[module for pair in layers for module in pair][:-1])
    prune(model, seed, rate)
    assert_equal(model, torch.randn(4, 5))


@settings(max_examples=50)
@given(SEEDS, RATES, ACTIVATIONS, st.integers(0, 1))
def test_random_lenets(seed, rate, activation, padding):
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=padding), activation(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 3, padding=padding), activation(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.LazyLinear(10), activation(), nn.Linear(10, 5), activation(), nn.Linear(5, 3)),
    )
    images = torch.randn(3, 1, 12, 12)
    model(images)
    prune(model, seed, rate)
    assert_equal(model, images)


@pytest.mark.slow
@settings(max_examples=50)
@given(SEEDS, RATES)
def test_random_resnets(seed, rate):
    torch.manual_seed(seed)
    model = ResNet()
    randomise_norms(model)
    prune(model, seed, rate)
    assert_equal(model, torch.randn(3, 1, 9, 9))


# BatchNorm measured anew


def test_recalibrate_takes_the_statistics_of_all_images():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=0.3), nn.Linear(3, 2)).train()
    images = torch.randn(12, 3) * 2 + 5
    assert recalibrate(model, images, batch_size=12) is model
    torch.testing.assert_close(model[1].running_mean, images.mean(0))
    torch.testing.assert_close(model[1].running_var, images.var(0))
    assert model[1].momentum == 0.3
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("norm", "images", "batch_size", "mean", "var"),
    [
        (nn.BatchNorm1d(1), range(9), 4, 4, 1),  # three batches of three
        (nn.SyncBatchNorm(1), range(9), 4, 4, 1),
        (nn.BatchNorm1d(1), [0, 3, 6], 2, 3, 9),  # one batch: no image is left alone
    ],
)
def test_recalibrate_weights_all_batches_alike(norm, images, batch_size, mean, var):
    model = nn.Sequential(norm).eval()
    recalibrate(model, torch.tensor([float(image) for image in images])[:, None], batch_size)
    assert norm.running_mean.item() == pytest.approx(mean)
    assert norm.running_var.item() == pytest.approx(var)
    assert not norm.training


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (4, 1)])
def test_recalibrate_refuses_batches_of_one(count, batch_size):
    with pytest.raises(ValueError, match=f"each be at least 2, got {count} images and {batch_size}"):
        recalibrate(nn.BatchNorm1d(1), torch.zeros(count, 1), batch_size)
