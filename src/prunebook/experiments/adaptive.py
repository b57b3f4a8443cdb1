"""The table of the chapter on adaptive pruning: 784-512-512-10 on MNIST, with a learned share r.

`python -m prunebook adaptive` writes it. Its four experiments are "thesis", the four settings of Pereira's
thesis and a dense network; "control", which asks what the gradient of r does; "start", which starts from
other values of r; and "best": our best setting, gradual pruning to the same share, and a dense network.

Chapter: book/adaptive.ipynb
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prunebook.checks import require_one_of
from prunebook.experiments import protocol
from prunebook.experiments.protocol import RESULTS, Row, Run, Table, data_of, new, scores, size
from prunebook.masking import harden
from prunebook.methods.adaptive import AdaptivePruning, LearnedThreshold
from prunebook.methods.schedules import prune_gradually
from prunebook.methods.soft import thresholds
from prunebook.training.data import Data
from prunebook.training.models import mlp

SIZES = (784, 512, 512, 10)
# what replaces the slope dt/dr
SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "flipped": lambda slope: -slope.abs(),
    "zero": torch.zeros_like,
}
# "dense", "adaptive", or "adaptive" with the gradient of r replaced. "flipped": dt/dr has the wrong sign.
# "zero": dt/dr = 0, so that only the penalty moves r. "replayed": r follows, step by step, the path that the
# adaptive run learned. "fixed": r has the last value of that path from the start.
# "gradual": pruned by the cubic curve to `target`, the rule that the others must beat.
METHODS = ("dense", "gradual", "adaptive", *SLOPES, "replayed", "fixed")
RUN = Run(
    experiment="control",
    method="adaptive",
    r=0.5,  # at the start
    lam=10.0,
    seed=0,
    epochs=4,
    batch_size=128,
    lr=2e-3,
    lr_r=1e-2,
    lr_tau=1e-2,
    target=0.0,  # share to prune; 0 means none: the penalty then asks for as much as the loss allows
    weight_decay=0.0,
    decay=False,  # whether all learning rates fall to 0 in a straight line
)
_THESIS = RUN.but(experiment="thesis", epochs=25, batch_size=32, lr=1e-3, lr_r=2e-3, lr_tau=5e-3)
_BEST = RUN.but(experiment="best", epochs=25, lr_r=5e-3, weight_decay=1e-4, decay=True)
EXPERIMENTS = {
    "thesis": [
        _THESIS.but(method="dense", r=0.0, lam=0.0),
        *(_THESIS.but(r=r, lam=lam) for lam in (0.0, 10.0) for r in (0.5, 0.95)),
    ],
    "control": [RUN.but(method=method) for method in METHODS[2:]],
    "start": [
        RUN.but(experiment="start", r=r, lam=lam) for lam in (0.0, 10.0) for r in (0.1, 0.3, 0.5, 0.7, 0.9)
    ],
    "best": [
        _BEST.but(method="dense", r=0.0, lam=0.0),
        _BEST.but(method="gradual", r=0.0, lam=0.0, target=0.981),
        _BEST.but(lam=8.0, target=0.981),
    ],
}


class Trained(NamedTuple):
    """A trained network with its soft masks, a row for each epoch, and logit(r) at each step."""

    net: nn.Sequential
    rows: list[dict[str, float]]
    path: list[float]


def runs(experiments: Iterable[str] = tuple(EXPERIMENTS), seeds: Iterable[int] = range(5)) -> list[Run]:
    """Return the runs of the given experiments for the given seeds.

    Raises:
        ValueError: An experiment is unknown.
    """
    seeds, found = list(seeds), []
    for name in experiments:
        chosen = EXPERIMENTS[require_one_of("experiments", name, EXPERIMENTS)]
        found += [run.but(seed=seed) for seed in seeds for run in chosen]
    return found


def train(run: Run, data: Data, path: Sequence[float] = ()) -> Trained:
    """Train one network. If `path` gives values of logit(r), r follows them and stays at the last."""
    net: nn.Sequential = new(run.seed, data, lambda: mlp(SIZES))
    options = {
        name: getattr(run, name) for name in ("lr", "weight_decay", "decay", "epochs", "batch_size", "seed")
    }
    if run.method == "dense":
        return Trained(net, protocol.train(net, data, **options), [])
    if run.method == "gradual":
        schedule = prune_gradually(net, 100 * run.target, scope="global")
        return Trained(net, protocol.train(net, data, schedule=schedule, **options), [])
    density = 1 - run.target if run.target else None
    pruning = AdaptivePruning(
        net, run.r, lam=run.lam, target_density=density, lr_r=run.lr_r, lr_tau=run.lr_tau
    )
    (threshold,) = (t for t in thresholds(net) if isinstance(t, LearnedThreshold))
    if path:
        pruning.freeze()
    if change := SLOPES.get(run.method):
        update = threshold.update_threshold

        def spoiled_update() -> None:
            update()
            threshold.slope.copy_(change(threshold.slope))

        threshold.update_threshold = spoiled_update  # type: ignore[method-assign]
    walked: list[float] = []

    @torch.no_grad()
    def walk() -> None:
        if path:
            threshold.logit_r.fill_(path[min(len(walked), len(path) - 1)])
        walked.append(float(threshold.logit_r))

    def note(row: dict[str, float]) -> None:
        row |= {"r": pruning.r, "tau": pruning.tau}

    walk()
    rows = protocol.train(
        net,
        data,
        parameters=pruning.parameter_groups(),
        penalty=pruning.penalty,
        after_step=walk,
        on_epoch=note,
        **options,
    )
    return Trained(net, rows, walked)


@lru_cache(maxsize=1)
def _learned(run: Run) -> Trained:
    """Train an adaptive run once, both for its own row and for the runs that follow its path."""
    return train(run, data_of("mnist"))


def measure(run: Run) -> Row:
    """Train one run, harden it and return its row.

    Raises:
        ValueError: The method is unknown.
    """
    require_one_of("method", run.method, METHODS)
    data, start = data_of("mnist"), time.perf_counter()
    if run.method in ("adaptive", "replayed", "fixed"):
        learned = _learned(run.but(method="adaptive"))
        paths = {"replayed": learned.path, "fixed": learned.path[-1:]}
        trained = train(run, data, paths[run.method]) if run.method in paths else learned
    else:
        trained = train(run, data)
    net, rows = trained.net, trained.rows
    if run.method != "dense":
        harden(net)
    return {
        **size(net),
        "data": data.name,
        "soft_accuracy": round(rows[-1]["valid_accuracy"], 6),
        **scores(net, data, "validation", "test"),
        "ratios": " ".join(f"{row['r']:.5f}" for row in rows if "r" in row),
        "taus": " ".join(f"{row['tau']:.3g}" for row in rows if "tau" in row),
        "accuracies": " ".join(f"{row['valid_accuracy']:.4f}" for row in rows),
        "seconds": round(time.perf_counter() - start, 2),
    }


TABLE = Table(
    RESULTS / "adaptive.csv",
    "fill the table of the chapter on adaptive pruning",
    "Train 784-512-512-10 on MNIST with learned ratios, and write a row for each run.",
    runs,
    measure,
    range(5),
    {
        "experiments": {
            "nargs": "*",
            "default": list(EXPERIMENTS),
            "metavar": "EXPERIMENT",
            "help": f"any of {', '.join(EXPERIMENTS)} (default: all)",
        },
    },
)
