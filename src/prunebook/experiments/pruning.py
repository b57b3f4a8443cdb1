"""Long runs as small tables: train, prune, fine-tune, measure, a row for each; in `book/results/`.

`python -m prunebook pruning` writes the table of the chapters on weights and units.

Chapter: book/weights.ipynb
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import nn

from prunebook.experiments.tables import fill, versions
from prunebook.masking import sparsity
from prunebook.methods.units import prune_units
from prunebook.methods.weights import prune_weights
from prunebook.training.data import Data
from prunebook.training.fit import evaluate, fit, linear_decay
from prunebook.training.models import mlp

SIZES = (784, 1000, 1000, 500, 200, 10)
KS = (0, 25, 50, 60, 70, 80, 90, 95, 97, 99)
TUNED = {"weights": (0, 95), "units": (80,)}  # k = 0: the dense network, trained as long
TUNE_EPOCHS = 4
SETTINGS = "dense: SGD 0.1, batch 64, 4 epochs; tuned: Adam 0.001 to 0, batch 128"


@dataclass(frozen=True)
class Run:
    """One pruned network: which rule, how far, from which seed, and epochs of fine-tuning after."""

    method: str  # "weights" or "units", k % of each layer but the last
    k: float
    seed: int
    epochs_after: int


def seed_experiment(seed: int) -> list[Run]:
    """Return the runs of the seed's experiment for one seed: every k pruned, and some of them fine-tuned."""
    pruned = [Run(method, k, seed, 0) for method in TUNED for k in KS]
    tuned = [Run(method, k, seed, TUNE_EPOCHS) for method, ks in TUNED.items() for k in ks]
    return pruned + tuned


def train_dense(data: Data, seed: int) -> nn.Sequential:
    """Train 784-1000-1000-500-200-10 without biases: SGD at 0.1, batches of 64, 4 epochs.

    Source: noelmat, Pruning-MNIST.
    """
    torch.manual_seed(seed)
    net = mlp(SIZES, bias=False).to(data.train.labels.device)
    sgd = partial(torch.optim.SGD, lr=0.1)
    fit(net, data, epochs=4, batch_size=64, optimizer=sgd, seed=seed, progress=False)
    return net


def prune(dense: nn.Sequential, method: str, k: float) -> nn.Sequential:
    """Return a pruned copy of a network: k % of each layer but the last."""
    net = copy.deepcopy(dense)
    last = str(len(net) - 1)
    if method == "weights":
        prune_weights(net, k, skip=[last])
    else:
        prune_units(net, k, outputs=[last])
    return net


def fine_tune(net: nn.Module, data: Data, epochs: int = TUNE_EPOCHS, seed: int = 0) -> None:
    """Train on with the masks attached: Adam in batches of 128, from 0.001 in a straight line to 0.

    Preferred to SGD with momentum (0.05) on the validation split of a seed that is not in the table. Two
    epochs of plain SGD (0.1) had been dropped before, after their first rows on seed 0, which is in it.
    """
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    slower = linear_decay(adam)
    fit(net, data, epochs=epochs, batch_size=128, optimizer=adam, schedule=slower, seed=seed, progress=False)


def measure(dense: nn.Sequential, run: Run, data: Data) -> dict[str, object]:
    """Prune, fine-tune and measure one run; return what its row says besides the run itself."""
    start = time.perf_counter()
    net = prune(dense, run.method, run.k)
    if run.epochs_after:
        fine_tune(net, data, run.epochs_after, run.seed)
    total = sum(layer.weight.numel() for layer in net if isinstance(layer, nn.Linear))
    density = 1 - sparsity(net)
    return {
        "network": "-".join(map(str, SIZES)),
        "data": data.name,
        "density": round(density, 8),
        "kept": round(density * total),
        "validation_accuracy": round(evaluate(net, data.valid).accuracy, 6),
        "test_accuracy": round(evaluate(net, data.test).accuracy, 6),
        "seconds": round(time.perf_counter() - start, 2),
        "device": str(data.train.labels.device),
        "versions": versions(),
        "settings": SETTINGS,
    }


def fill_pruning(runs: Sequence[Run], path: Path, data: Data) -> Iterator[dict[str, object]]:
    """Run what is missing and append its rows; each seed's dense network is trained once."""
    dense = lru_cache(maxsize=1)(partial(train_dense, data))
    yield from fill(runs, path, lambda run: measure(dense(run.seed), run, data))
