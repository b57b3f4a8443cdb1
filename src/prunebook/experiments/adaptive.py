"""The long runs on adaptive pruning: 784-512-512-10 on MNIST, for the tables of the chapter.

`python -m prunebook adaptive` trains them. Four experiments: "thesis", the four settings of Pereira's thesis;
"control", what does the gradient of r do; "start", from which r; "best", our best setting.

Chapter: book/adaptive.ipynb
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prunebook.experiments.tables import fill, versions
from prunebook.masking import before_forward, harden, sparsity
from prunebook.methods.adaptive import AdaptivePruning, LearnedThreshold
from prunebook.methods.soft import thresholds
from prunebook.training.data import Data
from prunebook.training.fit import evaluate, fit, linear_decay
from prunebook.training.models import mlp

SIZES = (784, 512, 512, 10)
EXPERIMENTS = ("thesis", "control", "start", "best")
THESIS = ((0.5, 0.0), (0.95, 0.0), (0.5, 10.0), (0.95, 10.0))  # r at the start, lambda
# what takes the place of the slope dt/dr
SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "flipped": lambda slope: -slope.abs(),
    "zero": torch.zeros_like,
}


@dataclass(frozen=True)
class AdaptiveRun:
    """One network: "dense", "adaptive", or adaptive with something else in place of the gradient of r.

    "flipped": dt/dr with the wrong sign. "zero": dt/dr = 0, so that the penalty alone moves r. "replayed":
    the path of r that this run learned, step by step. "fixed": the last r of that path, from the start.
    """

    experiment: str
    method: str
    r: float  # at the start
    lam: float
    seed: int
    epochs: int
    batch_size: int = 128
    lr: float = 2e-3
    lr_r: float = 1e-2
    lr_tau: float = 1e-2
    target: float = 0.0  # 0: the penalty is a square, and asks for as much as the loss allows
    weight_decay: float = 0.0
    decay: bool = False  # do all learning rates fall to 0 in a straight line?


class Trained(NamedTuple):
    """A network after its last epoch with soft masks, its rows, and logit(r) at first and after each step."""

    net: nn.Sequential
    rows: list[dict[str, float]]
    path: list[float]


def adaptive_runs(experiment: str, seed: int) -> list[AdaptiveRun]:
    """Return the runs of one experiment for one seed."""
    first = AdaptiveRun(experiment, "adaptive", 0.5, 10.0, seed, epochs=4)
    if experiment == "thesis":
        first = replace(first, epochs=25, batch_size=32, lr=1e-3, lr_r=2e-3, lr_tau=5e-3)
        dense = replace(first, method="dense", r=0.0, lam=0.0)
        return [dense, *(replace(first, r=r, lam=lam) for r, lam in THESIS)]
    if experiment == "control":
        methods = ("adaptive", "flipped", "zero", "replayed", "fixed")
        return [replace(first, method=method) for method in methods]
    if experiment == "start":
        starts = (0.1, 0.3, 0.5, 0.7, 0.9)
        return [replace(first, r=r, lam=lam) for lam in (0.0, 10.0) for r in starts]
    if experiment == "best":
        best = replace(first, epochs=25, lr_r=5e-3, weight_decay=1e-4, decay=True)
        return [
            replace(best, method="dense", r=0.0, lam=0.0),
            replace(best, lam=8.0, target=0.981),
        ]
    raise ValueError(f"experiment must be one of {EXPERIMENTS}, got {experiment!r}")


def fill_adaptive(runs: Sequence[AdaptiveRun], path: Path, data: Data) -> Iterator[dict[str, object]]:
    """Fill the table with what is missing; a learned path that several runs need is trained once."""
    learned = lru_cache(maxsize=None)(lambda run: train_adaptive(run, data))

    def measured(run: AdaptiveRun) -> dict[str, object]:
        start = time.perf_counter()
        teacher = replace(run, method="adaptive")
        if run.method == "dense":
            trained = train_dense(run, data)
        elif run.method == "adaptive":
            trained = learned(run)
        elif run.method in SLOPES:
            trained = train_adaptive(run, data)
        elif run.method == "replayed":
            trained = train_adaptive(run, data, learned(teacher).path)
        elif run.method == "fixed":
            trained = train_adaptive(run, data, learned(teacher).path[-1:])
        else:
            raise ValueError(f"method must be one that AdaptiveRun names, got {run.method!r}")
        return measure(trained, run, data) | {"seconds": round(time.perf_counter() - start, 2)}

    yield from fill(runs, path, measured)


def train_dense(run: AdaptiveRun, data: Data) -> Trained:
    """Train the dense network with Adam."""
    net = _network(run, data)
    return Trained(net, _fit(run, data, net, _adam(run, net.parameters())), [])


def train_adaptive(run: AdaptiveRun, data: Data, path: Sequence[float] = ()) -> Trained:
    """Train with adaptive masks; r learns or, given a path of logit(r), follows it and stays at its end."""
    net = _network(run, data)
    target = run.target or None
    pruning = AdaptivePruning(net, run.r, lam=run.lam, target=target, lr_r=run.lr_r, lr_tau=run.lr_tau)
    (threshold,) = (t for t in thresholds(net) if isinstance(t, LearnedThreshold))
    if path:
        pruning.freeze()
    if change := SLOPES.get(run.method):

        def spoil(_: nn.Module) -> None:
            threshold.slope.copy_(change(threshold.slope))

        before_forward(net, spoil)
    walked: list[float] = []

    @torch.no_grad()
    def walk(*_: object) -> None:
        if path:
            threshold.logit_r.fill_(path[min(len(walked), len(path) - 1)])
        walked.append(float(threshold.logit_r))

    walk()
    adam = _adam(run, pruning.parameter_groups())
    adam.register_step_post_hook(walk)
    return Trained(net, _fit(run, data, net, adam, pruning), walked)


def measure(trained: Trained, run: AdaptiveRun, data: Data) -> dict[str, object]:
    """Harden and measure; return what a row says besides the run itself and its seconds."""
    net, rows = trained.net, trained.rows
    if run.method != "dense":
        harden(net)
    total = sum(layer.weight.numel() for layer in net if isinstance(layer, nn.Linear))
    share = sparsity(net)
    return {
        "network": "-".join(map(str, SIZES)),
        "data": data.name,
        "density": round(1 - share, 8),
        "kept": round((1 - share) * total),
        "soft_accuracy": round(rows[-1]["valid_accuracy"], 6),
        "validation_accuracy": round(evaluate(net, data.valid).accuracy, 6),
        "test_accuracy": round(evaluate(net, data.test).accuracy, 6),
        "ratios": " ".join(f"{row['r']:.5f}" for row in rows if "r" in row),
        "taus": " ".join(f"{row['tau']:.3g}" for row in rows if "tau" in row),
        "accuracies": " ".join(f"{row['valid_accuracy']:.4f}" for row in rows),
        "device": str(data.train.labels.device),
        "versions": versions(),
    }


def _network(run: AdaptiveRun, data: Data) -> nn.Sequential:
    torch.manual_seed(run.seed)
    return mlp(SIZES).to(data.train.labels.device)


def _adam(run: AdaptiveRun, parameters: Any) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=run.lr, weight_decay=run.weight_decay, fused=True)


def _fit(
    run: AdaptiveRun,
    data: Data,
    net: nn.Sequential,
    adam: torch.optim.Adam,
    pruning: AdaptivePruning | None = None,
) -> list[dict[str, float]]:
    """Train and return the rows; with adaptive masks they have r and tau after each epoch."""

    def note(row: dict[str, float]) -> None:
        if pruning:
            row |= {"r": pruning.r, "tau": pruning.tau}

    history = fit(
        net,
        data,
        epochs=run.epochs,
        batch_size=run.batch_size,
        optimizer=adam,
        penalty=pruning.penalty if pruning else None,
        schedule=linear_decay(adam) if run.decay else None,
        seed=run.seed,
        progress=False,
        on_epoch=note,
    )
    return history.rows
