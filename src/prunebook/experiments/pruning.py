"""The table of the chapters on weights and units: train, prune to k %, fine-tune, measure.

`python -m prunebook pruning` writes it.

Chapter: book/weights.ipynb
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from functools import lru_cache, partial

import torch
from torch import nn

from prunebook.experiments.protocol import RESULTS, Row, Run, Table, data_of, new, scores, size
from prunebook.methods.units import prune_units
from prunebook.methods.weights import prune_weights
from prunebook.training.data import Data
from prunebook.training.fit import fit, linear_decay
from prunebook.training.models import mlp

SIZES = (784, 1000, 1000, 500, 200, 10)
KS = (0, 25, 50, 60, 70, 80, 90, 95, 97, 99)
TUNED = {"weights": (0, 95), "units": (80,)}  # k = 0: the dense network, trained for as long
TUNE_EPOCHS = 4
SETTINGS = "dense: SGD 0.1, batch 64, 4 epochs; tuned: Adam 0.001 to 0, batch 128"


def runs(seeds: Iterable[int] = range(3)) -> list[Run]:
    """Return the runs of each seed: weights and units pruned at every k, some of them fine-tuned as well."""
    cases = [(method, k, 0) for method in TUNED for k in KS]
    cases += [(method, k, TUNE_EPOCHS) for method, ks in TUNED.items() for k in ks]
    return [
        Run(method=method, k=k, seed=seed, epochs_after=epochs)
        for seed in seeds
        for method, k, epochs in cases
    ]


def train_dense(data: Data, seed: int) -> nn.Sequential:
    """Train 784-1000-1000-500-200-10 without biases: SGD at 0.1, batches of 64, 4 epochs.

    Source: noelmat, Pruning-MNIST.
    """
    net: nn.Sequential = new(seed, data, lambda: mlp(SIZES, bias=False))
    sgd = partial(torch.optim.SGD, lr=0.1)
    fit(net, data, epochs=4, batch_size=64, optimizer=sgd, seed=seed, progress=False)
    return net


def prune(dense: nn.Sequential, method: str, k: float) -> nn.Sequential:
    """Return a copy of a network with k % of the weights or units pruned in each layer but the last."""
    net = copy.deepcopy(dense)
    last = str(len(net) - 1)
    if method == "weights":
        prune_weights(net, k, skip=[last])
    else:
        prune_units(net, k, outputs=[last])
    return net


def fine_tune(net: nn.Module, data: Data, epochs: int = TUNE_EPOCHS, seed: int = 0) -> None:
    """Train further with the masks attached: Adam, batches of 128, rate from 0.001 to 0 in a straight line.

    This was chosen over SGD with momentum (rate 0.05) on the validation split, with a seed that is not in the
    table. Before that, two epochs of plain SGD (0.1) were tried on seed 0, which is in it, and dropped.
    """
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    slower = linear_decay(adam)
    fit(net, data, epochs=epochs, batch_size=128, optimizer=adam, schedule=slower, seed=seed, progress=False)


@lru_cache(maxsize=1)
def _dense(seed: int) -> nn.Sequential:
    return train_dense(data_of("mnist"), seed)


def measure(run: Run) -> Row:
    """Prune and fine-tune a copy of the seed's dense network, which is trained only once; return the row."""
    data, dense = data_of("mnist"), _dense(run.seed)
    start = time.perf_counter()
    net = prune(dense, run.method, run.k)
    if run.epochs_after:
        fine_tune(net, data, run.epochs_after, run.seed)
    return {
        **size(net),
        "data": data.name,
        **scores(net, data, "validation", "test"),
        "seconds": round(time.perf_counter() - start, 2),
        "settings": SETTINGS,
    }


TABLE = Table(
    RESULTS / "pruning.csv",
    "fill the table of the chapters on weights and units",
    "Train 784-1000-1000-500-200-10 on MNIST once for each seed, prune weights and units at each k, "
    "fine-tune some, and write a row for each.",
    runs,
    measure,
    range(3),
)
