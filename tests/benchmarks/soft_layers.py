"""How the cost of soft masks that share a threshold grows with the number of layers: it should be linear.

Run it alone on an idle machine: `OMP_NUM_THREADS=1 python tests/benchmarks/soft_layers.py`, or `make bench`
for all of them. Networks of 6 to 48 linear layers of 128 x 128 weights, with one threshold for all of them,
a batch of 8 and SGD. Printed are a training step and one call of `masks`, in milliseconds and per layer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import SGD

import prunebook as pb

WIDTH, LAYERS, ROUNDS = 128, (6, 12, 24, 48), 15
MOST = 1.5  # the aim: per layer, 48 layers cost at most this many times what 6 layers do


def milliseconds(call: Callable[[], object]) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    """Print a line for each depth and how much a layer costs more in the deepest network."""
    print(f"cpu, {torch.get_num_threads()} threads, torch {torch.__version__}; median of {ROUNDS}:")
    per_layer = []
    for count in LAYERS:
        torch.manual_seed(0)
        net = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(count)))
        optimizer = SGD(pb.SoftPruning(net, 90, scope="global").parameter_groups(), lr=1e-3)
        images = torch.randn(8, WIDTH)

        def step(net=net, optimizer=optimizer, images=images) -> None:
            optimizer.zero_grad()
            net(images).square().mean().backward()
            optimizer.step()

        costs = milliseconds(step), milliseconds(lambda net=net: pb.masks(net))
        per_layer.append([cost / count for cost in costs])
        print(f"{count:2} layers: a step {costs[0]:6.2f} ms, masks {costs[1]:6.2f} ms")
    step_ratio, masks_ratio = (last / first for first, last in zip(per_layer[0], per_layer[-1], strict=True))
    print(f"a layer of 48 costs {step_ratio:.2f} x one of 6 in a step, {masks_ratio:.2f} x in masks")
    print(f"at most {MOST} x: {max(step_ratio, masks_ratio) <= MOST}")


if __name__ == "__main__":
    main()
