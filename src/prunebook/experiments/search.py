"""The methods of the comparison, and the search for the settings of each: as many trials for every method.

`python -m prunebook search` fills the table of trials, and `chosen.py` holds those that did best.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import nn

from prunebook.experiments import recipes, rivals
from prunebook.experiments.chosen import CHOSEN
from prunebook.experiments.gumbel import EXCHANGE
from prunebook.experiments.protocol import RESULTS, Row, Run, Table, data_of, scores
from prunebook.experiments.recipes import NETWORK, WEIGHTS
from prunebook.experiments.tables import read_rows
from prunebook.tools.costs import count_weights
from prunebook.training.data import Data

EPOCHS = 15
SEARCH_SEED = 100
ONE_UNIT = (784 + 1 + 10) / WEIGHTS  # density of one unit in each layer
RULE, SOFT, GATES = "magnitude, global, gradual", "soft mask", "gumbel"
FROM_RULE, FROM_SOFT = "gradual, then exchange", "soft, then exchange"

Settings = Mapping[str, float]


class Method(NamedTuple):
    """How a method trains, and which settings its search tries: six at each of three densities.

    Four learning rates come first, and then, at the best of them, the second setting's two other values. A
    method without a second setting tries six rates. A method `after` another takes all settings from it that
    it does not search itself.
    """

    train: Callable[[Run, Data], nn.Module]
    rates: Sequence[float] = ()
    second: str = ""
    values: Sequence[float] = ()  # tried with all rates; below it; above it
    after: str = ""


_LOW, _HIGH = (0.001, 0.0025, 0.006, 0.015), (0.002, 0.005, 0.0125, 0.03)
_CUT, _GATED = (0.0003, 0.001, 0.003, 0.009), (0.0015, 0.003, 0.006, 0.012)
_SIX_LOW = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016)
_SIX_HIGH = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
_BEFORE, _SWAP = ("before", (0.4, 0.2, 0.6)), ("swap", (0.12, 0.03, 0.4))
_END, _GATES = ("end", (0.5, 0.25, 0.8)), ("lr_gates", (0.03, 0.015, 0.06))
_by_layer, _globally = partial(recipes.one_shot, "layer"), partial(recipes.one_shot, "global")
BEGINNINGS = {  # what comes before the exchanges of a method
    EXCHANGE: recipes.gated,
    FROM_RULE: recipes.shrunk_gradually,
    FROM_SOFT: recipes.softened,
    "random, then exchange": rivals.randomly,
}
AGAIN = ("learned mask, other weights", "learned mask, shuffled")

METHODS = {
    "dense": Method(recipes.dense, _SIX_LOW),
    "linear classifier": Method(rivals.linear, _HIGH, *_END),
    "small dense": Method(rivals.small_dense, (0.004, 0.01, 0.025, 0.06), "side", (9, 6, 14)),
    "random": Method(rivals.random_mask, _SIX_HIGH),
    "SNIP": Method(rivals.snip, _SIX_HIGH),
    "RigL": Method(rivals.rigl, _HIGH, "drop", (0.3, 0.1, 0.5)),
    "magnitude, layer, one-shot": Method(_by_layer, _CUT, *_BEFORE),
    "magnitude, global, one-shot": Method(_globally, _CUT, *_BEFORE),
    RULE: Method(recipes.gradual, _LOW, *_END),
    "iterative, rewinding": Method(recipes.iterative, _LOW, "rounds", (4, 2, 7)),
    SOFT: Method(recipes.soft, _LOW, "tau", (0.1, 0.02, 0.5)),
    "adaptive": Method(recipes.adaptive, _CUT, "lr_r", (0.01, 0.003, 0.03)),
    GATES: Method(recipes.gumbel, _GATED, *_GATES),
    EXCHANGE: Method(partial(recipes.exchanged, BEGINNINGS[EXCHANGE]), _GATED, *_SWAP, after=GATES),
    FROM_RULE: Method(partial(recipes.exchanged, BEGINNINGS[FROM_RULE]), _HIGH, *_SWAP),
    FROM_SOFT: Method(partial(recipes.exchanged, BEGINNINGS[FROM_SOFT]), _HIGH, *_SWAP, after=SOFT),
    "random, then exchange": Method(
        partial(recipes.exchanged, BEGINNINGS["random, then exchange"]), _HIGH, *_SWAP
    ),
    "unit norm": Method(recipes.unit_norm, _LOW, *_BEFORE),
    "gumbel units": Method(recipes.gumbel_units, _LOW, *_GATES),
    "SNIP, shuffled": Method(partial(rivals.snip, shuffled=True), after="SNIP"),
    AGAIN[0]: Method(rivals.learned_mask, after=GATES),
    AGAIN[1]: Method(partial(rivals.learned_mask, shuffled=True), after=GATES),
    "torch.nn.utils.prune": Method(rivals.torch_prune, after="magnitude, global, one-shot"),
    "Torch-Pruning": Method(rivals.torch_pruning, after="unit norm"),
}
# the lowest densities for whole units: one unit in each layer; for Torch-Pruning, 3 and 1
LEAST = {"unit norm": ONE_UNIT, "gumbel units": ONE_UNIT, "Torch-Pruning": (3 * 784 + 3 + 10) / WEIGHTS}
RUN = Run(
    method="dense",
    density=1.0,  # share of the weights of LeNet-300-100 kept
    seed=0,  # of the initial weights, the order of the batches and all noise
    epochs=EPOCHS,  # in total: before, during and after pruning
    shift=0,  # pixels by which training images are shifted at random
    settings={},  # settings of the method
    data="mnist",
    network=NETWORK,
)


def search_runs(table: Path = RESULTS / "search.csv") -> list[Run]:
    """Return the runs by which settings are chosen: six for each method at each of three densities.

    The two values of a second setting are tried at the best of four rates, and some methods take settings
    from others. So what comes next depends on the rows there are: call this again, until no run is new.
    """
    scores = {
        (str(row["method"]), float(str(row["density"])), str(row["settings"])): row.get("validation_accuracy")
        for row in read_rows(table)
    }

    def best(tried: Sequence[Run]) -> Settings | None:
        found = [scores.get((run.method, run.density, str(run.columns()["settings"]))) for run in tried]
        if None in found or not tried:
            return None
        settings: Settings = tried[max(range(len(tried)), key=lambda i: float(str(found[i])))].settings
        return settings

    runs: dict[tuple[str, float], list[Run]] = {}
    for name, method in METHODS.items():
        for density in searched(name):
            run = RUN.but(method=name, density=density, seed=SEARCH_SEED)
            given = best(runs[method.after, density]) if method.after else {}
            if given is None or not method.rates:
                continue
            middle = {**given, method.second: method.values[0]} if method.second else {}
            tried = [run.but(settings={**middle, "lr": lr}) for lr in method.rates]
            if (settings := best(tried)) is not None:
                tried += [run.but(settings={**settings, method.second: value}) for value in method.values[1:]]
            runs[name, density] = tried
    return [run for tried in runs.values() for run in tried]


def searched(method: str) -> Sequence[float]:
    """Return the densities at which a method's settings are searched."""
    return (1.0,) if method == "dense" else (0.05,) if method in LEAST else (0.0015, 0.005, 0.05)


def settings_of(method: str, density: float) -> Settings:
    """Return the settings of a method that did best in the search, at the density nearest by ratio.

    A learned mask is learned as for `gumbel`, and trained again at the rate of a random one.
    """
    if method in AGAIN:
        return {**settings_of(GATES, density), "lr_again": settings_of("random", density)["lr"]}
    chosen = CHOSEN[method if METHODS[method].rates else METHODS[method].after]
    return chosen[min(chosen, key=lambda at: abs(math.log(at / density)))]


def validate(run: Run) -> Row:
    """Train one run of the search and return its row, without looking at the test split."""
    return trained(run, data_of(run.data))[1]


def trained(run: Run, data: Data) -> tuple[nn.Module, Row]:
    """Train one run; return the network, and the columns of its row that both tables have."""
    wall, cpu = time.perf_counter(), time.process_time()
    net = METHODS[run.method].train(run, data)
    return net, {
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "kept": count_weights(net).kept,
        **scores(net, data, "train", "validation"),
    }


TABLE = Table(
    RESULTS / "search.csv",
    "fill the table that the settings of the comparison are chosen by",
    "Train each method with six settings, and write its accuracy on validation images, never on test images. "
    "Some settings are tried only when others have rows: run it again until there are no new rows.",
    search_runs,
    validate,
)
