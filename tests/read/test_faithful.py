"""Removal and agreement: by hand on networks that read one pixel, then against plain loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

import prunebook as pb
from prunebook.read.faithful import agreement, chance, common_pairs, removal


@pytest.fixture
def reader():
    """Says class 1 where pixel 2 of 2 x 2 is above 0, and so does the label."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]))
        net[1].bias.zero_()
    images = torch.randn(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = (images[:, 0, 1, 0] > 0).long()
    return images, lambda seen: (net(seen).argmax(1) == labels).double().mean().item()


def test_only_the_pixel_that_is_read_costs_accuracy(reader):
    images, accuracy = reader
    before = images.clone()
    fill = torch.full((1, 2, 2), -1.0)
    share = (images[:, 0, 1, 0] <= 0).double().mean().item()  # a fill below 0 says class 0 to all
    found = removal(accuracy, images, torch.tensor([0, 3, 2, 1]), [0, 1, 2, 3, 4], fill)
    assert found == pytest.approx([1, 1, 1, share, share])
    assert removal(accuracy, images, torch.tensor([2]), [1], -fill) == pytest.approx([1 - share])
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("order", "counts", "shape", "message"),
    [
        ([0, 0], [1], (1, 2, 2), "order must hold different indices"),
        ([4], [1], (1, 2, 2), "order must hold different indices"),
        ([-1], [1], (1, 2, 2), "order must hold different indices"),
        ([0, 1], [3], (1, 2, 2), r"counts must be in 0..2, got \[3\]"),
        ([0, 1], [1], (2, 2), "fill must have the shape"),
    ],
)
def test_removal_refuses_what_does_not_fit(order, counts, shape, message, reader):
    images, accuracy = reader
    with pytest.raises(ValueError, match=message):
        removal(accuracy, images, torch.tensor(order), counts, torch.zeros(shape))


def test_agreement_of_written_out_maps():
    up, down = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0])
    assert agreement(torch.stack([up, 5 * up])) == pytest.approx(1)
    assert agreement(torch.stack([up, down])) == pytest.approx(-1)
    assert agreement(torch.stack([up, up, down])) == pytest.approx((1 - 1 - 1) / 3)


def test_agreement_is_the_mean_over_pairs():
    maps = torch.rand(5, 20, generator=torch.Generator().manual_seed(1))
    pairs = [np.corrcoef(one, other)[0, 1] for one, other in combinations(maps.double().numpy(), 2)]
    assert agreement(maps) == pytest.approx(np.mean(pairs))


def test_chance_is_about_0_for_shuffles_over_all_inputs_and_the_same_for_the_same_seed():
    one = torch.rand(400, generator=torch.Generator().manual_seed(2))
    maps, everywhere = torch.stack([one, one, one]), torch.ones(400, dtype=torch.bool)
    state = torch.get_rng_state()
    found = chance(maps, everywhere, draws=100)
    assert torch.equal(chance(maps, everywhere, draws=100), found)
    assert not torch.equal(chance(maps, everywhere, draws=100, seed=1), found)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert found.shape == (100,)
    assert abs(found.mean()) < 0.02 < found.std()
    assert agreement(maps) > found.max()


def test_chance_keeps_what_may_not_move():
    maps = torch.tensor([[99.0, 1.0, 2.0, 3.0], [99.0, 3.0, 2.0, 1.0]])
    before = maps.clone()
    assert (chance(maps, torch.tensor([False, True, True, True])) > 0.9).all()  # the 99 stays where it is
    nowhere = chance(maps, torch.zeros(4, dtype=torch.bool), draws=2)
    assert nowhere.tolist() == pytest.approx([agreement(maps)] * 2)
    assert torch.equal(maps, before)


def test_blocks_are_compared_by_their_means():
    corner = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(2)
    left = torch.stack([torch.cat([corner, torch.zeros(8)]), torch.cat([corner.roll(1), torch.zeros(8)])])
    assert agreement(left) < 0  # never the same pixel
    assert agreement(left, block=2) == pytest.approx(1)  # always the same block
    everywhere = torch.ones(16, dtype=torch.bool)
    assert chance(left, everywhere, 50, block=2).mean() < 0.5


def test_pairs_of_pixels_with_a_common_unit():
    """Pixels 0, 1, 8 of 3 x 3: 0 and 1 feed unit 0, 1 and 8 feed unit 1; 0 and 8 have none in common."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].weight[0, :2] = torch.tensor([2.0, 3.0])
        net[1].weight[1, 1::7] = torch.tensor([4.0, -1.0])
    away, cosines = common_pairs(net)
    assert away.tolist() == pytest.approx([1, 5**0.5])
    assert cosines.tolist() == pytest.approx([0.6, -0.8])


MAPS = torch.rand(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: agreement(torch.rand(1, 5)), "maps must be two or more rows"),
        (lambda: agreement(torch.rand(5)), "maps must be two or more rows"),
        (lambda: agreement(torch.ones(2, 5)), "maps must be two or more rows, none constant"),
        (lambda: agreement(torch.rand(2, 16), block=3), "block must divide the side, 4, got 3"),
        (lambda: agreement(torch.rand(2, 8), block=2), "inputs must make a square image, got 8"),
        (lambda: common_pairs(pb.mlp([3, 2])), "inputs must make a square image, got 3"),
        (lambda: chance(MAPS, torch.ones(3, dtype=torch.bool), 0), "draws must be at least 1, got 0"),
        (lambda: chance(MAPS, torch.ones(4, dtype=torch.bool)), "among must be bool"),
        (lambda: chance(MAPS, torch.ones(3)), "among must be bool"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
