"""The slider that prunes shows what pruning by hand gives."""

from __future__ import annotations

import re

import pytest
import torch

import prunebook as pb
from prunebook import explore
from prunebook.explore import SCOPES, STOPS


@pytest.fixture
def net():
    torch.manual_seed(0)
    return pb.mlp([784, 20, 10])


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    split = pb.Split(torch.randn(40, 1, 28, 28, generator=draw), torch.arange(40) % 10)
    return pb.Data(split, split, split, "noise", tuple("0123456789"), 0.0, 1.0)


@pytest.mark.parametrize("method", ["weights", "units"])
def test_every_frame_says_what_pruning_by_hand_gives(net, data, method):
    slider = pb.explore_k(net, data, method, sample=30)
    prune = pb.prune_weights if method == "weights" else pb.prune_units
    sample = pb.Split(data.valid.images[:30], data.valid.labels[:30])
    for option, scope in enumerate(SCOPES.values()):
        for stop, k in [(0, 0), (3, 90)]:
            by_hand = prune(pb.mlp([784, 20, 10]), 0)
            by_hand.load_state_dict(prune(net_copy(net), k, scope=scope).state_dict())
            kept = sum(int(m.sum()) for name, m in pb.masks(by_hand).items() if name.endswith("weight"))
            kept += 200 if method == "units" else 0  # the output layer has no mask
            readout = slider.readouts[slider.index(stop, [option])]
            assert f"k = {k} %: kept {kept:,} of 15,880 weights" in readout
            assert f"{pb.evaluate(by_hand, sample).accuracy:.1%} of 30 validation images" in readout


def test_pixels_are_shown_for_weights_and_layers_for_units(net, data):
    by_weight, by_unit = (
        explore._explored(net, data.valid, method, 50, "layer") for method in ("weights", "units")
    )
    assert by_weight.pixels.shape == (20, 784)
    assert by_unit.pixels is None
    assert by_unit.layers == {"1": 0.5, "3": 1.0}


def net_copy(net):
    copied = pb.mlp([784, 20, 10])
    copied.load_state_dict(net.state_dict())
    return copied


def test_the_network_itself_stays_whole(net, data):
    before = net[1].weight.clone()
    pb.explore_k(net, data, sample=10)
    assert pb.masks(net) == {}
    assert torch.equal(net[1].weight, before)


def test_a_frame_for_each_stop_and_scope(net, data):
    slider = pb.explore_k(net, data, sample=10)
    assert len(slider.frames) == len(STOPS) * 2
    multiplications = [int(re.search(r"([\d,]+) mult", r)[1].replace(",", "")) for r in slider.readouts]
    assert multiplications[0] == 15_880
    assert multiplications[: len(STOPS)] == sorted(multiplications[: len(STOPS)], reverse=True)


def test_refuses_an_unknown_method_and_an_empty_sample(net, data):
    with pytest.raises(ValueError, match="method must be"):
        pb.explore_k(net, data, "neurons")
    with pytest.raises(ValueError, match="sample must be"):
        pb.explore_k(net, data, sample=0)
