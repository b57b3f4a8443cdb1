"""Removal and agreement: by hand on networks that read one pixel, then against plain loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

import prunebook as pb
from prunebook.read.faithful import chance, common_pairs


@pytest.fixture
def reader():
    """Says class 1 where pixel 2 of 2 x 2 is above 0, and so does the label."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]))
        net[1].bias.zero_()
    images = torch.randn(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return net, pb.Split(images, (images[:, 0, 1, 0] > 0).long())


def test_only_the_pixel_that_is_read_costs_accuracy(reader):
    net, split = reader
    before = split.images.clone()
    fill = torch.full((1, 2, 2), -1.0)
    share = (split.labels == 0).double().mean().item()  # a fill below 0 says class 0 to all
    found = pb.removal(net, split, torch.tensor([0, 3, 2, 1]), [0, 1, 2, 3, 4], fill)
    assert found == pytest.approx([1, 1, 1, share, share])
    assert pb.removal(net, split, torch.tensor([2]), [1], -fill) == pytest.approx([1 - share])
    assert torch.equal(split.images, before)


def test_removal_refuses_what_does_not_fit(reader):
    net, split = reader
    fill = torch.zeros(1, 2, 2)
    for order in ([0, 0], [4], [-1]):
        with pytest.raises(ValueError, match="order must hold different indices"):
            pb.removal(net, split, torch.tensor(order), [1], fill)
    with pytest.raises(ValueError, match=r"counts must be in 0..2, got \[3\]"):
        pb.removal(net, split, torch.tensor([0, 1]), [3], fill)
    with pytest.raises(ValueError, match="fill must have the shape"):
        pb.removal(net, split, torch.tensor([0, 1]), [1], fill[0])


def test_agreement_of_written_out_maps():
    up, down = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0])
    assert pb.agreement(torch.stack([up, 5 * up])) == pytest.approx(1)
    assert pb.agreement(torch.stack([up, down])) == pytest.approx(-1)
    assert pb.agreement(torch.stack([up, up, down])) == pytest.approx((1 - 1 - 1) / 3)


def test_agreement_is_the_mean_over_pairs():
    maps = torch.rand(5, 20, generator=torch.Generator().manual_seed(1))
    pairs = [np.corrcoef(one, other)[0, 1] for one, other in combinations(maps.double().numpy(), 2)]
    assert pb.agreement(maps) == pytest.approx(np.mean(pairs))


def test_agreement_refuses_one_map_and_flat_maps():
    for maps in (torch.rand(1, 5), torch.rand(5), torch.ones(2, 5)):
        with pytest.raises(ValueError, match="maps must be two or more rows"):
            pb.agreement(maps)


def test_chance_is_about_0_for_shuffles_over_all_inputs():
    one = torch.rand(400, generator=torch.Generator().manual_seed(2))
    maps, everywhere = torch.stack([one, one, one]), torch.ones(400, dtype=torch.bool)
    found = chance(maps, everywhere, draws=100)
    assert found.shape == (100,)
    assert abs(found.mean()) < 0.02 < found.std()
    assert pb.agreement(maps) > found.max()


def test_chance_keeps_what_may_not_move():
    maps = torch.tensor([[99.0, 1.0, 2.0, 3.0], [99.0, 3.0, 2.0, 1.0]])
    before = maps.clone()
    assert (chance(maps, torch.tensor([False, True, True, True])) > 0.9).all()  # the 99 stays where it is
    nowhere = chance(maps, torch.zeros(4, dtype=torch.bool), draws=2)
    assert nowhere.tolist() == pytest.approx([pb.agreement(maps)] * 2)
    assert torch.equal(maps, before)


def test_chance_is_the_same_for_the_same_seed_and_leaves_the_global_generator_alone():
    maps, state = torch.rand(2, 30, generator=torch.Generator().manual_seed(3)), torch.get_rng_state()
    everywhere = torch.ones(30, dtype=torch.bool)
    assert torch.equal(chance(maps, everywhere, 5, seed=1), chance(maps, everywhere, 5, seed=1))
    assert not torch.equal(chance(maps, everywhere, 5, seed=1), chance(maps, everywhere, 5, seed=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_blocks_are_compared_by_their_means():
    corner = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(2)
    left = torch.stack([torch.cat([corner, torch.zeros(8)]), torch.cat([corner.roll(1), torch.zeros(8)])])
    assert pb.agreement(left) < 0  # never the same pixel
    assert pb.agreement(left, block=2) == pytest.approx(1)  # always the same block
    everywhere = torch.ones(16, dtype=torch.bool)
    assert chance(left, everywhere, 50, block=2).mean() < 0.5
    with pytest.raises(ValueError, match="block must divide the side, 4, got 3"):
        pb.agreement(left, block=3)
    with pytest.raises(ValueError, match="inputs must make a square image, got 8"):
        pb.agreement(left[:, :8], block=2)


def test_pairs_of_pixels_with_a_common_unit():
    """Pixels 0, 1, 8 of 3 x 3: 0 and 1 feed unit 0, 1 and 8 feed unit 1; 0 and 8 have none in common."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].weight[0, 0], net[1].weight[0, 1], net[1].weight[1, 1], net[1].weight[1, 8] = (
            2.0,
            3.0,
            4.0,
            -1.0,
        )
    away, cosines = common_pairs(net)
    assert away.tolist() == pytest.approx([1, 5**0.5])
    assert cosines.tolist() == pytest.approx([0.6, -0.8])
    with pytest.raises(ValueError, match="inputs must make a square image, got 3"):
        common_pairs(pb.mlp([3, 2]))


def test_chance_refuses_what_does_not_fit():
    maps = torch.rand(2, 3)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        chance(maps, torch.ones(3, dtype=torch.bool), 0)
    for among in (torch.ones(4, dtype=torch.bool), torch.ones(3)):
        with pytest.raises(ValueError, match="among must be bool"):
            chance(maps, among)
