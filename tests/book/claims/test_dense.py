"""What book/dense.ipynb says about its layers and about the six weights that it prunes by hand."""

from __future__ import annotations

import torch

import prunebook as pb


def test_the_first_of_three_layers_holds_88_percent_of_the_weights():
    sizes = [layer.weight.numel() for layer in pb.lenet_300_100()[1::2]]
    assert sizes == [784 * 300, 300 * 100, 100 * 10] == [235_200, 30_000, 1_000]
    assert sum(sizes) == 266_200
    assert round(100 * sizes[0] / sum(sizes)) == 88


def test_by_hand_the_three_smallest_of_six_weights_get_the_mask_0():
    weight = torch.tensor([[0.1, -2.0, 0.3], [1.0, 0.2, -0.5]])
    threshold = weight.abs().flatten().sort().values[round(50 / 100 * weight.numel())]
    mask = (weight.abs() >= threshold).float()
    assert (weight * mask).tolist() == [[0.0, -2.0, 0.0], [1.0, 0.0, -0.5]]


def test_the_package_prunes_half_of_each_layer_exactly_and_the_same_weights_as_sorting_by_hand():
    torch.manual_seed(0)
    net = pb.lenet_300_100()
    expected = []
    for layer in net[1::2]:
        weight = layer.weight.detach().clone().view(-1)
        weight[weight.abs().argsort(stable=True)[: round(0.5 * len(weight))]] = 0
        expected.append(weight.view_as(layer.weight))
    pb.prune_weights(net, 50)
    for layer, weight in zip(net[1::2], expected, strict=True):
        assert layer.weight.equal(weight)
    assert pb.sparsity(net) == 0.5
