"""What is left of a network, by hand; that it computes the same is tested with the page."""

from __future__ import annotations

import pytest
import torch
from small import make_pages
from torch import nn

import prunebook as pb
from prunebook.book.wires import MOST, wires


@pytest.fixture
def by_hand():
    """Pixels 3 and 700 feed unit 1 of 3; it and unit 2, which is constant, feed the classes."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 3), nn.ReLU(), nn.Linear(3, 3))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        net[1].weight[1, 3], net[1].weight[1, 700] = 1, -2
        net[1].bias[:] = torch.tensor([7.0, 1.0, 4.0])
        net[3].weight[0, 1], net[3].weight[2, 2] = 3, 5
        net[3].bias[:] = torch.tensor([0.0, 1.0, 2.0])
    return net


def test_wires_by_hand(by_hand):
    first, second = wires(by_hand, make_pages())
    assert first.source.tolist() == [3, 700]
    assert first.unit.tolist() == [0, 0]
    assert first.value.tolist() == [4, -8]  # divided by std
    # mean / std times the sum of weights is taken off; unit 0 has no wire
    assert first.bias.tolist() == [1 - 2 * (1 - 2), 4]
    assert first.activation == "ReLU"
    assert (second.source.tolist(), second.unit.tolist()) == ([0, 1], [0, 2])
    assert (second.value.tolist(), second.bias.tolist()) == ([3, 5], [0, 1, 2])
    assert second.activation == ""


def test_an_order_moves_units_and_nothing_else(by_hand):
    order = [torch.arange(784), torch.tensor([2, 0, 1]), torch.arange(3)]
    first, second = wires(by_hand, make_pages(), order)
    assert (first.unit.tolist(), first.bias.tolist()) == ([1, 1], [4, 3])
    assert sorted(zip(second.source.tolist(), second.unit.tolist(), strict=True)) == [(0, 2), (1, 0)]


def test_layers_without_biases_have_zeros(by_hand):
    by_hand[1].bias = by_hand[3].bias = None
    first, second = wires(by_hand, make_pages(mean=0.0))
    assert (first.bias.tolist(), second.bias.tolist()) == ([0, 0], [0, 0, 0])


def test_a_module_used_twice_counts_twice():
    act, inner = nn.Tanh(), nn.Linear(3, 3)
    with torch.no_grad():
        inner.weight.copy_(torch.eye(3))
    first = nn.Linear(784, 3)
    net = nn.Sequential(nn.Flatten(), nn.Sequential(first, act), inner, act, inner)
    layers = wires(net, make_pages())
    assert [layer.activation for layer in layers] == ["Tanh", "Tanh", ""]
    assert [len(layer.value) for layer in layers] == [784 * 3, 3, 3]


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (nn.Linear(784, 3), "nn.Sequential of linear layers, not a Linear"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 4)), "to 3 scores, not from 784 to 4"),
        (nn.Sequential(nn.Linear(64, 3)), "not from 64 to 3"),
        (nn.Sequential(nn.Flatten()), "not from 0 to 0"),
        (nn.Sequential(nn.Linear(784, 3), nn.ReLU()), "not in ReLU"),
        (nn.Sequential(nn.Linear(784, 3), nn.BatchNorm1d(3)), "not BatchNorm1d"),
        (nn.Sequential(nn.Conv2d(1, 3, 28), nn.Flatten()), "not Conv2d"),
        (nn.Sequential(nn.ReLU(), nn.Linear(784, 3)), "not ReLU"),
        (nn.Sequential(nn.Linear(784, 9), nn.Linear(8, 3)), "9 outputs before one with 8 inputs"),
        (pb.mlp([784, 20, 3]), f"1 to {MOST:,} weights .* not 15,740"),
    ],
)
def test_refuses_what_it_cannot_draw(net, reason):
    with pytest.raises(ValueError, match=reason):
        wires(net, make_pages())


@pytest.mark.parametrize(
    "order", [[[0, 1, 2]], [range(784), [0, 0, 1], [0, 1, 2]], [range(784), [0, 1], [0, 1, 2]]]
)
def test_refuses_an_order_that_does_not_fit(by_hand, order):
    with pytest.raises(ValueError, match=r"permutation for each layer, of \[784, 3, 3\] units"):
        wires(by_hand, make_pages(), [torch.tensor(list(places)) for places in order])
