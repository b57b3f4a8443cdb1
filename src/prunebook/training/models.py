"""The networks of the book: each a plain `nn.Sequential` from images (n, 1, 28, 28) to class scores (n, 10).

Chapter: book/dense.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from prunebook.checks import require_whole
from prunebook.tools.recording import LAYERS


class RandomShift(nn.Module):
    """In training, shift each batch of images (n, c, h, w) by a few random pixels, up or down and sideways.

    What leaves on one side comes back on the other, which does not show because MNIST's digits have an empty
    border. Put it before a network, as `nn.Sequential(RandomShift(1), net)`. It has no parameters, and does
    nothing in evaluation.

    Args:
        pixels: Largest shift in each direction, at least 0.

    Raises:
        ValueError: `pixels` is not a whole number of at least 0.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = require_whole("pixels", pixels, 0)

    def forward(self, images: Tensor) -> Tensor:
        """Return the images, shifted in training."""
        if not self.training:
            return images
        down, right = torch.randint(-self.pixels, self.pixels + 1, (2,), device="cpu").tolist()
        return images.roll((down, right), dims=(-2, -1))


LAYERS["RandomShift"] = RandomShift  # so that `save_model` can name it


def mlp(
    sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU, bias: bool = True
) -> nn.Sequential:
    """Build a fully connected network: flatten, then linear layers with an activation between them.

    Args:
        sizes: Units per layer, inputs first and outputs last; at least two, each at least 1.
        activation: Called once for each hidden layer to make its activation.
        bias: Whether the linear layers have a bias.

    Raises:
        ValueError: Fewer than two sizes, or one that is not a whole number of at least 1.
    """
    if len(sizes) < 2 or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"sizes must be at least two whole numbers of at least 1, got {list(sizes)}")
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=bias), activation()]
    return nn.Sequential(*layers[:-1])


def lenet_300_100() -> nn.Sequential:
    """Build LeNet-300-100: 784-300-100-10 with ReLU; 266,200 weights and 410 biases.

    Source: LeCun et al. 1998, section III-C.4.
    """
    return mlp([784, 300, 100, 10])


def lenet5() -> nn.Sequential:
    """Build LeNet-5 as it is used in the pruning literature; 430,500 weights and 580 biases.

    Two 5 x 5 convolutions (20 and 50 filters, no padding), each with 2 x 2 max-pooling, then 800-500-10.

    Source: LeCun et al. 1998, in the variant that Han et al. 2015 prune (431 thousand parameters).
    """
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )
