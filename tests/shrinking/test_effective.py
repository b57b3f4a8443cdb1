from itertools import pairwise

import pytest
import torch
from torch import nn

from prunebook.shrinking.effective import effective_weights


def brute_force(*weights):
    """Effective weights of a chain: those through which a path of ones leads."""
    linked = [(weight != 0).double() for weight in weights]
    reached = [torch.ones(linked[0].shape[1]).double()]
    for link in linked:
        reached.append(link @ reached[-1])
    left = torch.ones(linked[-1].shape[0]).double()
    total = 0
    for link, before in zip(reversed(linked), reversed(reached[:-1]), strict=True):
        total += int(((left[:, None] * link * before) > 0).sum())
        left = left @ link
    return total


@pytest.mark.parametrize("density", [0.05, 0.1, 0.2, 0.5, 1.0])
def test_effective_weights_are_those_on_paths(density):
    torch.manual_seed(0)
    sizes = [12, 9, 9, 7, 4]
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    with torch.no_grad():
        for layer in layers:
            layer.weight *= torch.rand_like(layer.weight) < density
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.SiLU())))
    assert effective_weights(model) == brute_force(*(layer.weight for layer in layers))


def test_effective_weights_of_convolutions():
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1, groups=3)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)),
    )
    with torch.no_grad():
        model[0].weight[0] = 0  # 9 weights in channel 0, and its bias that the padding shapes is no path
        model[2].weight[1] = 0
        model[5].weight[:, 32:40] = 0  # half of channel 2
    assert effective_weights(model) == 9 + 9 + 2 * 8
