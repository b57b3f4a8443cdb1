"""One protocol for every comparison: the same data, epochs, batches and search of settings for each method.

A run is one network: which method, how many weights it may keep, from which seed. Its row says what that
network can do and what it costs. `python -m prunebook search`, `frontier` and `compare` fill tables of them.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pandas import DataFrame, Series, to_numeric
from torch import nn

from prunebook.experiments import recipes
from prunebook.experiments.gumbel import EXCHANGE
from prunebook.experiments.recipes import WEIGHTS, CompareRun, small_size
from prunebook.experiments.sweep import sweep
from prunebook.experiments.tables import rows_of, versions
from prunebook.shrinking.slicing import shrink
from prunebook.tools.costs import count, latency, macs, stored
from prunebook.training.data import Data, load_data
from prunebook.training.fit import evaluate
from prunebook.training.models import lenet_300_100

EPOCHS = 15
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.0015)
CLOSE = (0.02, 0.01, 0.005, 0.0015)  # where methods differ: more seeds
FASHION_DENSITIES = (0.02, 0.005, 0.0015)
TIMES = (30, 60)  # epochs, beside 15
LINEAR = 7840 / WEIGHTS  # all weights of the linear classifier
ONE_UNIT = (784 + 1 + 10) / WEIGHTS  # one unit in each layer
MAIN = (  # those of the picture
    "magnitude, global, gradual",
    "iterative, rewinding",
    "soft mask",
    "adaptive",
    "gumbel",
    EXCHANGE,
    "small dense",
)
TIMED = ("magnitude, global, gradual", "soft mask", "gumbel", EXCHANGE)
ON_FASHION = (
    "dense",
    "small dense",
    "magnitude, global, gradual",
    "iterative, rewinding",
    "soft mask",
    "gumbel",
    EXCHANGE,
)
LAYERWISE = ("magnitude, layer, one-shot", "magnitude, layer, gradual")
BESIDE = (
    "learned mask, other weights",
    "learned mask, shuffled",
    "torch.nn.utils.prune",
    "Torch-Pruning",
)
SEARCH_SEED = 100

METHODS: dict[str, Callable[[CompareRun, Data], nn.Module]] = {
    "dense": recipes.dense,
    "linear classifier": recipes.linear,
    "small dense": recipes.small_dense,
    "random": recipes.random_mask,
    "SNIP": recipes.snip,
    "magnitude, layer, one-shot": partial(recipes.one_shot, "layer"),
    "magnitude, global, one-shot": partial(recipes.one_shot, "global"),
    "magnitude, layer, gradual": partial(recipes.gradual, "layer"),
    "magnitude, global, gradual": partial(recipes.gradual, "global"),
    "iterative, rewinding": recipes.iterative,
    "soft mask": recipes.soft,
    "adaptive": recipes.adaptive,
    "gumbel": recipes.gumbel,
    EXCHANGE: partial(recipes.gumbel, exchanged=True),
    "unit norm": recipes.unit_norm,
    "gumbel units": recipes.gumbel_units,
    "learned mask, other weights": recipes.learned_mask,
    "learned mask, shuffled": partial(recipes.learned_mask, shuffled=True),
    "torch.nn.utils.prune": recipes.torch_prune,
    "Torch-Pruning": recipes.torch_pruning,
}
# whole units cannot go below: one in each layer or, where the layers keep equal shares, 3 and 1
LEAST = {"unit norm": ONE_UNIT, "gumbel units": ONE_UNIT, "Torch-Pruning": (3 * 784 + 3 + 10) / WEIGHTS}
SEARCHED = {"unit norm": (0.05,), "gumbel units": (0.05,), "small dense": (0.005, 0.02)}
# six settings for each method, tried at one density with a seed that is in no table
GRID: dict[str, tuple[str, ...]] = {
    name: tuple(f"lr={lr} {own}={value}" for lr in (0.002, 0.004, 0.008) for value in values)
    for name, own, values in (
        ("linear classifier", "end", (0.5, 0.75)),
        ("magnitude, layer, one-shot", "before", (0.4, 0.6)),
        ("magnitude, global, one-shot", "before", (0.4, 0.6)),
        ("magnitude, layer, gradual", "end", (0.5, 0.75)),
        ("magnitude, global, gradual", "end", (0.5, 0.75)),
        ("iterative, rewinding", "rounds", (2, 4)),
        ("soft mask", "tau", (0.01, 0.1)),
        ("adaptive", "lr_r", (0.005, 0.01)),
        ("gumbel", "gates", (0.4, 0.6)),
        ("unit norm", "before", (0.4, 0.6)),
        ("gumbel units", "gates", (0.4, 0.6)),
    )
} | {
    name: tuple(f"lr={lr}" for lr in (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016))
    for name in ("dense", "small dense", "random", "SNIP")
}
GRID |= {
    EXCHANGE: (
        *(f"lr=0.004 gates={gates} swap={swap}" for gates in (0.4, 0.6) for swap in (0.03, 0.24)),
        *(f"lr=0.008 gates={gates} swap=0.03" for gates in (0.4, 0.6)),
    ),
    "learned mask, other weights": GRID["gumbel"],
    "learned mask, shuffled": GRID["gumbel"],
}
# the best of them on the validation split: book/results/search.csv
CHOSEN = {
    "linear classifier": "lr=0.008 end=0.5",
    "magnitude, layer, one-shot": "lr=0.004 before=0.6",
    "magnitude, global, one-shot": "lr=0.002 before=0.4",
    "magnitude, layer, gradual": "lr=0.002 end=0.75",
    "magnitude, global, gradual": "lr=0.004 end=0.5",
    "iterative, rewinding": "lr=0.004 rounds=4",
    "soft mask": "lr=0.002 tau=0.1",
    "adaptive": "lr=0.002 lr_r=0.01",
    "gumbel": "lr=0.008 gates=0.6",
    "unit norm": "lr=0.004 before=0.4",
    "gumbel units": "lr=0.004 gates=0.4",
    "dense": "lr=0.004",
    "small dense": "lr=0.016",
    "random": "lr=0.004",
    "SNIP": "lr=0.008",
    EXCHANGE: "lr=0.008 gates=0.6 swap=0.03",
    "learned mask, other weights": "lr=0.004 gates=0.6",
    "learned mask, shuffled": "lr=0.004 gates=0.6",
}
CHOSEN_ON_14 = "lr=0.008"  # of small dense networks on 14 x 14 means
CHOSEN |= {
    "torch.nn.utils.prune": CHOSEN["magnitude, global, one-shot"],
    "Torch-Pruning": CHOSEN["unit norm"],
}


def search_runs() -> list[CompareRun]:
    """Return the runs that settings are chosen by: six of each method, at one density.

    That is 0.5 %; 5 % for whole units, of which else one would be left; and 2 % once more for small dense
    networks, which are other networks there. The settings serve at all densities and on all data.
    """
    return [
        CompareRun(method, density, SEARCH_SEED, EPOCHS, settings)
        for method, grid in GRID.items()
        for density in SEARCHED.get(method, (0.005,))
        for settings in grid
    ]


def runs(
    methods: Iterable[str], densities: Iterable[float], seeds: Iterable[int], epochs: int, data: str
) -> list[CompareRun]:
    """Return the runs of a grid with the settings of the book, but for those that cannot be.

    The dense network has one density, and linear classifiers none above theirs; networks of whole units
    have at least one in each layer.

    Raises:
        ValueError: a method is unknown, a density is no share above 0, or epochs or a seed are below 0.
    """
    seeds, densities = list(seeds), list(densities)
    for name, number in [("epochs", epochs), *(("seeds", seed) for seed in seeds)]:
        if number < 0:
            raise ValueError(f"{name} must be at least 0, got {number}")
    if wrong := [density for density in densities if not 0 < density <= 1]:
        raise ValueError(f"densities must be shares above 0, up to 1, got {wrong[0]:g}")
    found = []
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"methods must be among {sorted(METHODS)}, got {method!r}")
        for density in _possible(method, densities):
            found += [
                CompareRun(method, density, seed, epochs, _settings(method, density), data) for seed in seeds
            ]
    return found


def frontier_runs() -> list[CompareRun]:
    """Return the runs of the book's table, those first that show most.

    On MNIST, methods at the densities that they can have of eight, with two seeds; at the four lowest, where
    they differ, with five, but for pruning by layer. Learned masks trained anew and other packages at those
    four with two. On Fashion-MNIST, seven methods at three densities with two. Four methods at 0.15 and 1 %
    for more epochs.
    """
    on_mnist = partial(runs, epochs=EPOCHS, data="mnist")
    main = [name for name in METHODS if name not in BESIDE]
    wide = [density for density in DENSITIES if density not in CLOSE]
    longer = {epochs: runs(TIMED, (0.0015, 0.01), range(2), epochs, "mnist") for epochs in TIMES}
    found = [
        *on_mnist(main, CLOSE, range(2)),
        *on_mnist(main, wide, range(2)),
        *on_mnist([name for name in main if name not in LAYERWISE], CLOSE, range(2, 5)),
        *on_mnist(BESIDE, CLOSE, range(2)),
        *longer[TIMES[0]],
        *runs(ON_FASHION, FASHION_DENSITIES, range(2), EPOCHS, "fashion"),
        *longer[TIMES[1]],
    ]
    return list(dict.fromkeys(found))


def compare(
    methods: Iterable[str],
    densities: Iterable[float],
    seeds: Iterable[int] = (0, 1),
    epochs: int = EPOCHS,
    data: str = "mnist",
    path: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
) -> DataFrame:
    """Train and measure a grid of networks by the protocol of the book; return a row for each.

    Warns of runs that failed; their rows say why.

    Args:
        methods: names in ``METHODS``.
        densities: shares of the weights of LeNet-300-100 that may stay, each above 0, up to 1.
        seeds: of the networks.
        epochs: of each network in all; learned masks are trained anew for as many again.
        data: a name for `load_data`.
        path: a table to keep the rows in; those that are there already are not trained again.
        executor: where to train, as for ``sweep.sweep``; None: here, one after the other.

    Raises:
        ValueError: as for `runs`.
    """
    wanted = runs(methods, densities, seeds, epochs, data)
    with TemporaryDirectory() as folder:
        table = Path(path or Path(folder) / "comparison.csv")
        for _ in sweep(wanted, table, measure, executor):
            pass
        rows = rows_of(wanted, table)
    if failed := [f"{row['method']}: {row['error']}" for row in rows if row.get("error")]:
        warnings.warn(f"{len(failed)} of {len(rows)} runs failed, such as {failed[0]}", stacklevel=2)
    return DataFrame(rows).apply(_numbers)


def _numbers(column: Series) -> Series:
    """Return a column of a file as numbers, where all of it are numbers."""
    try:
        return to_numeric(column)
    except ValueError:
        return column


def measure(run: CompareRun) -> dict[str, object]:
    """Train one run and return what its row says besides the run itself.

    The test split is read here, once, after the last epoch. Counts are shares or numbers of weights; bytes
    and milliseconds are those of the network without its dead units, for a batch of 256; ``dense_ms`` is the
    whole network's, timed right after.
    """
    data = _data(run.data)
    net, row = _trained(run, data)
    small, images = shrink(net), data.valid.images[:256]
    work, size = macs(small, images[:1]), stored(small)
    whole = lenet_300_100().to(images.device)
    return row | {
        "test_accuracy": round(evaluate(net, data.test).accuracy, 6),
        "effective": count(net).effective,
        "biases": count(small).biases,
        "macs": work.dense,
        "macs_nonzero": work.nonzero,
        "bytes_dense": size.dense,
        "bytes_csr": size.csr,
        "bytes_bitmask": size.bitmask,
        "ms": round(latency(small, images).median, 4),
        "dense_ms": round(latency(whole, images).median, 4),
        **_where(data),
    }


def validate(run: CompareRun) -> dict[str, object]:
    """Train one run of the search; its row knows nothing of the test split."""
    data = _data(run.data)
    return _trained(run, data)[1] | _where(data)


def _trained(run: CompareRun, data: Data) -> tuple[nn.Module, dict[str, object]]:
    wall, cpu = time.perf_counter(), time.process_time()
    net = METHODS[run.method](run, data)
    row: dict[str, object] = {
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "kept": count(net).kept,
        "train_accuracy": round(evaluate(net, data.train).accuracy, 6),
        "validation_accuracy": round(evaluate(net, data.valid).accuracy, 6),
    }
    return net, row


def _where(data: Data) -> dict[str, object]:
    threads = torch.get_num_threads()
    return {"device": str(data.train.labels.device), "threads": threads, "versions": versions()}


def _possible(method: str, densities: Sequence[float]) -> list[float]:
    if method == "dense":
        return [1.0]
    if method == "linear classifier":
        return [LINEAR, *(density for density in densities if density < LINEAR)]
    return [density for density in densities if density >= LEAST.get(method, 0)]


def _settings(method: str, density: float) -> str:
    on_14 = method == "small dense" and small_size(round(density * WEIGHTS))[0] == 14
    return CHOSEN_ON_14 if on_14 else CHOSEN[method]


@lru_cache(maxsize=1)
def _data(name: str) -> Data:
    data = load_data(name)
    if data.name != name:  # the stand-in, where no network answers
        raise ConnectionError(f"data {name!r} is not at hand here: python -m prunebook data {name}")
    return data
