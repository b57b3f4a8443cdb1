"""The tables that ask what does the work at 0.15 %: the method that begins, or the exchange that follows.

Three beginnings of 24 epochs are each followed by fine-tuning with exchanges, and by fine-tuning without.
`python -m prunebook trials` tries six settings for each of the six, and `starts` trains them from five seeds.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache

from torch import nn

from prunebook.experiments import recipes
from prunebook.experiments.gumbel import EXCHANGE
from prunebook.experiments.protocol import RESULTS, Row, Run, Table, data_of, scores
from prunebook.experiments.search import BEGINNINGS, FROM_RULE, FROM_SOFT, RUN, SEARCH_SEED, Settings
from prunebook.tools.costs import count_weights

SWAPS = (0.24, 0.0)  # share of the weights exchanged after the first epoch of fine-tuning; none
FIRST = RUN.but(density=0.0015, epochs=60)
BEGUN = 24 / FIRST.epochs
TRIED: dict[str, list[Settings]] = {
    EXCHANGE: [{"lr": lr, "lr_gates": gates} for lr in (0.003, 0.01) for gates in (0.01, 0.02, 0.06)],
    FROM_RULE: [{"lr": lr} for lr in (0.001, 0.002, 0.004, 0.006, 0.01, 0.015)],
    FROM_SOFT: [{"lr": lr, "tau": tau} for lr in (0.001, 0.003, 0.006) for tau in (0.1, 0.5)],
}
BEST: dict[str, tuple[Settings, Settings]] = {  # with exchanges, and without, on the validation split
    EXCHANGE: ({"lr": 0.003, "lr_gates": 0.01}, {"lr": 0.01, "lr_gates": 0.02}),
    FROM_RULE: ({"lr": 0.004}, {"lr": 0.004}),
    FROM_SOFT: ({"lr": 0.006, "tau": 0.5}, {"lr": 0.001, "tau": 0.5}),
}


def trials() -> list[Run]:
    """Return the runs that the settings are chosen by, six for each beginning, with exchanges and without."""
    return [
        FIRST.but(method=method, seed=SEARCH_SEED, settings={**settings, "begin": BEGUN, "swap": swap})
        for method, tried in TRIED.items()
        for settings in tried
        for swap in SWAPS
    ]


def runs(seeds: Iterable[int] = range(5)) -> list[Run]:
    """Return the runs of each seed: each beginning with exchanges, and without."""
    return [
        FIRST.but(method=method, seed=seed, settings={**settings, "begin": BEGUN, "swap": swap})
        for seed in seeds
        for method, best in BEST.items()
        for settings, swap in zip(best, SWAPS, strict=True)
    ]


def validate(run: Run) -> Row:
    """Train one run and return its row, without looking at the test split."""
    return _row(run, "train", "validation")


def measure(run: Run) -> Row:
    """Train one run and return its row."""
    return _row(run, "train", "validation", "test")


def _row(run: Run, *parts: str) -> Row:
    """Return a row; two runs that begin alike do so only once, if one follows the other.

    `exchange` says whether weights were exchanged; `seconds` include the beginning if this run trained it.
    """
    data, start = data_of(run.data), time.perf_counter()
    begun = run.but(settings={name: value for name, value in run.settings.items() if name != "swap"})
    net = recipes.exchanged(lambda *_: _begin(begun), run, data)
    counts = count_weights(net)
    return {
        "exchange": run.settings["swap"] > 0,
        "kept": counts.kept,
        "effective": counts.effective,
        "biases": counts.biases,
        **scores(net, data, *parts),
        "seconds": round(time.perf_counter() - start, 1),
    }


@lru_cache(maxsize=1)
def _begin(run: Run) -> nn.Module:
    return BEGINNINGS[run.method](run, data_of(run.data), run.settings["begin"])


TRIALS = Table(
    RESULTS / "trials.csv",
    "fill the table that the settings of `starts` are chosen by",
    "Train LeNet-300-100 down to 0.15 % of its weights from three beginnings, with exchanges and without, by "
    "six settings each, and write the accuracies on validation images, never on test images.",
    trials,
    validate,
)
TABLE = Table(
    RESULTS / "starts.csv",
    "fill the table of beginnings, with exchange and without",
    "Train LeNet-300-100 on MNIST down to 0.15 % of its weights, from three beginnings, with exchanges and "
    "without, and write a row for each.",
    runs,
    measure,
    range(5),
)
