"""How much faster a network runs on the CPU if its zero units are removed, and not only zero.

784-1000-1000-500-200-10, batch 256, without the 90 % of units of smallest norm in each hidden layer.

    python tests/benchmarks/shrink.py [threads]
"""

import sys
from itertools import pairwise

import torch
from torch import nn

from prunebook import shrink
from prunebook.tools.costs import latencies

SIZES = (784, 1000, 1000, 500, 200, 10)
K = 90
ROUNDS = 300


def perceptron(sizes: tuple[int, ...]) -> nn.Sequential:
    """Return linear layers with ReLU between them."""
    return nn.Sequential(*[part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())][:-1])


@torch.no_grad()
def without_units(sizes: tuple[int, ...], k: float) -> nn.Sequential:
    """Return a network with k % of the units of each hidden layer set to zero, bias included."""
    model = perceptron(sizes)
    for layer in list(model)[:-1:2]:
        gone = layer.weight.norm(dim=1).argsort()[: round(k * len(layer.weight) / 100)]
        layer.weight[gone] = 0
        layer.bias[gone] = 0
    return model


def main() -> None:
    """Print the milliseconds of each form, and how many times as fast as dense it is."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    torch.manual_seed(0)
    masked = without_units(SIZES, K)
    small = shrink(masked)
    widths = [layer.out_features for layer in small.modules() if isinstance(layer, nn.Linear)]
    fresh = perceptron((SIZES[0], *widths))
    images = torch.randn(256, SIZES[0])
    error = (small.double()(images.double()) - masked.double()(images.double())).abs().max().item()
    models = {
        "dense": perceptron(SIZES),
        "masked, zeros": masked.float(),
        "shrunk": small.float(),
        "fresh": fresh,
    }
    times = latencies(models, images, ROUNDS)
    print(f"shrunk to {SIZES[0]}-{'-'.join(map(str, widths))}, largest difference in float64 {error:.1e}")
    print(f"batch 256, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
    for name, each in times.items():
        ratio = (times["dense"] / each).median()
        print(f"{name:14} {each.median():7.3f} ms {ratio:6.1f} x")
    print(f"shrunk / fresh {(times['shrunk'] / times['fresh']).median():.3f}")


if __name__ == "__main__":
    main()
