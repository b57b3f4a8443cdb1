"""The tables that ask what does the work at 0.15 %: the method that begins, or the exchange that follows.

Three beginnings, by gates, by the rule or by soft masks, are each followed by fine-tuning: with exchanges, or
without. `python -m prunebook trials` tries six settings for each, and `starts` trains the best from five
seeds.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

from torch import nn

from prunebook.experiments import recipes
from prunebook.experiments.gumbel import EXCHANGE
from prunebook.experiments.protocol import RESULTS, Row, Run, Table, data_of, scores
from prunebook.experiments.search import BEGINNINGS, FROM_RULE, FROM_SOFT, RUN, SEARCH_SEED, Settings
from prunebook.experiments.tables import is_row_of, read_rows
from prunebook.tools.costs import count_weights

FIRST = RUN.but(density=0.0015)
# Share of the weights exchanged after the first epoch of fine-tuning. A share too small for one weight fills
# up the weights that the beginning left on no path, and exchanges none.
AFTER = {"exchange": 0.24, "filled up": 0.001, "nothing": 0.0}
TRIED: dict[int, dict[str, list[Settings]]] = {  # by epochs and beginning
    60: {
        EXCHANGE: [{"lr": lr, "lr_gates": gates} for lr in (0.003, 0.006) for gates in (0.01, 0.02, 0.04)],
        FROM_RULE: [{"lr": lr} for lr in (0.001, 0.002, 0.004, 0.006, 0.01, 0.015)],
        FROM_SOFT: [{"lr": lr, "tau": tau} for lr in (0.001, 0.003, 0.006) for tau in (0.1, 0.5)],
    },
    240: {
        EXCHANGE: [{"lr": lr, "lr_gates": 5 * lr} for lr in (0.002, 0.004, 0.006)],
        FROM_RULE: [{"lr": lr} for lr in (0.002, 0.004, 0.006)],
        FROM_SOFT: [{"lr": lr, "tau": 0.5} for lr in (0.002, 0.004, 0.006)],
    },
}
TRIALS_EACH = 6
BEGUN = {60: (24 / 60,), 240: (40 / 240, 96 / 240)}  # shares of the epochs before fine-tuning that are tried


def trials() -> list[Run]:
    """Return the runs that settings are chosen by, six for each beginning and what follows it."""
    return [
        FIRST.but(epochs=epochs, method=method, seed=SEARCH_SEED, settings=settings)
        for epochs, methods in TRIED.items()
        for method, tried in methods.items()
        for before in tried
        for begin in BEGUN[epochs]
        for settings in _each({**before, "begin": begin}, epochs)
    ]


def runs(seeds: Iterable[int] = range(5), table: Path = RESULTS / "trials.csv") -> list[Run]:
    """Return the runs of each seed, with the settings that did best on the validation split.

    Only those whose six trials all have rows in the table are there.
    """
    rows, cells = read_rows(table), dict[tuple[object, ...], list[tuple[float, Run]]]()
    for run in trials():
        found = [float(str(row["validation_accuracy"])) for row in rows if is_row_of(run, row)]
        cells.setdefault((run.epochs, run.method, run.settings["swap"]), []).extend((f, run) for f in found)
    best = [max(cell, key=itemgetter(0))[1] for cell in cells.values() if len(cell) == TRIALS_EACH]
    return [run.but(seed=seed) for seed in seeds for run in best]


def validate(run: Run) -> Row:
    """Train one run and return its row, without looking at the test split."""
    return _row(run, "train", "validation")


def measure(run: Run) -> Row:
    """Train one run and return its row."""
    return _row(run, "train", "validation", "test")


def _each(settings: Settings, epochs: int) -> list[Settings]:
    """Return settings with each of the things that may follow; with 240 epochs nothing is only filled up."""
    return [{**settings, "swap": swap} for name, swap in AFTER.items() if epochs == 60 or name != "filled up"]


def _row(run: Run, *parts: str) -> Row:
    """Return a row; runs that begin alike do so only once, if one follows the other.

    `after` is what followed the beginning; `seconds` include the beginning if this run trained it.
    """
    data, start = data_of(run.data), time.perf_counter()
    begun = run.but(settings={name: value for name, value in run.settings.items() if name != "swap"})
    net = recipes.exchanged(lambda *_: _begin(begun), run, data)
    counts = count_weights(net)
    return {
        "after": next(name for name, swap in AFTER.items() if swap == run.settings["swap"]),
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
    "without, for 60 and 240 epochs, and write a row for each.",
    runs,
    measure,
    range(5),
)
