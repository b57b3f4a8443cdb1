"""One protocol for every comparison: the same data, epochs, batches and search of settings for each method.

A run is one network: which method, how many weights it may keep, from which seed. Its row says what that
network can do and what it costs. `python -m prunebook search`, `frontier` and `compare` fill tables of them.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from prunebook.checks import require_one_of, require_share, require_whole
from prunebook.experiments import recipes
from prunebook.experiments.gumbel import EXCHANGE
from prunebook.experiments.protocol import RESULTS, Row, Run, Table, data_of, scores
from prunebook.experiments.recipes import NETWORK, WEIGHTS, small_size
from prunebook.experiments.sweep import sweep
from prunebook.experiments.tables import rows_of
from prunebook.shrinking.slicing import shrink
from prunebook.tools.costs import count_weights, latency, macs, stored_bytes
from prunebook.training.data import SOURCES, Data
from prunebook.training.models import lenet_300_100

if TYPE_CHECKING:
    from pandas import DataFrame

EPOCHS = 15
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.0015)
CLOSE = (0.02, 0.01, 0.005, 0.0015)  # where methods differ: more seeds
FASHION_DENSITIES = (0.02, 0.005, 0.0015)
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

Settings = Mapping[str, float]


class Method(NamedTuple):
    """How a method trains, its settings in all tables, and the six that these were chosen from.

    They are the best on the validation split, with a seed that is in no table: book/results/search.csv. Other
    packages take the settings of the method that they implement.
    """

    train: Callable[[Run, Data], nn.Module]
    chosen: Settings
    tried: Sequence[Settings] = ()


def _grid(name: str, *values: float) -> list[Settings]:
    return [{"lr": lr, name: value} for lr in (0.002, 0.004, 0.008) for value in values]


_RATES = [{"lr": lr} for lr in (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016)]
_BEFORE, _END, _GATES = _grid("before", 0.4, 0.6), _grid("end", 0.5, 0.75), _grid("gates", 0.4, 0.6)
_SWAPS = [{"lr": 0.004, "gates": gates, "swap": swap} for gates in (0.4, 0.6) for swap in (0.03, 0.24)]
_SWAPS += [{"lr": 0.008, "gates": gates, "swap": 0.03} for gates in (0.4, 0.6)]
_by_layer, _globally = partial(recipes.one_shot, "layer"), partial(recipes.one_shot, "global")
_shuffled = partial(recipes.learned_mask, shuffled=True)

METHODS = {
    "dense": Method(recipes.dense, {"lr": 0.004}, _RATES),
    "linear classifier": Method(recipes.linear, {"lr": 0.008, "end": 0.5}, _END),
    "small dense": Method(recipes.small_dense, {"lr": 0.016}, _RATES),
    "random": Method(recipes.random_mask, {"lr": 0.004}, _RATES),
    "SNIP": Method(recipes.snip, {"lr": 0.008}, _RATES),
    "magnitude, layer, one-shot": Method(_by_layer, {"lr": 0.004, "before": 0.6}, _BEFORE),
    "magnitude, global, one-shot": Method(_globally, {"lr": 0.002, "before": 0.4}, _BEFORE),
    "magnitude, layer, gradual": Method(partial(recipes.gradual, "layer"), {"lr": 0.002, "end": 0.75}, _END),
    "magnitude, global, gradual": Method(partial(recipes.gradual, "global"), {"lr": 0.004, "end": 0.5}, _END),
    "iterative, rewinding": Method(recipes.iterative, {"lr": 0.004, "rounds": 4}, _grid("rounds", 2, 4)),
    "soft mask": Method(recipes.soft, {"lr": 0.002, "tau": 0.1}, _grid("tau", 0.01, 0.1)),
    "adaptive": Method(recipes.adaptive, {"lr": 0.002, "lr_r": 0.01}, _grid("lr_r", 0.005, 0.01)),
    "gumbel": Method(recipes.gumbel, {"lr": 0.008, "gates": 0.6}, _GATES),
    EXCHANGE: Method(
        partial(recipes.gumbel, exchanged=True), {"lr": 0.008, "gates": 0.6, "swap": 0.03}, _SWAPS
    ),
    "unit norm": Method(recipes.unit_norm, {"lr": 0.004, "before": 0.4}, _BEFORE),
    "gumbel units": Method(recipes.gumbel_units, {"lr": 0.004, "gates": 0.4}, _GATES),
    "learned mask, other weights": Method(recipes.learned_mask, {"lr": 0.004, "gates": 0.6}, _GATES),
    "learned mask, shuffled": Method(_shuffled, {"lr": 0.004, "gates": 0.6}, _GATES),
    "torch.nn.utils.prune": Method(recipes.torch_prune, {"lr": 0.002, "before": 0.4}),
    "Torch-Pruning": Method(recipes.torch_pruning, {"lr": 0.004, "before": 0.4}),
}
CHOSEN_ON_14: Settings = {"lr": 0.008}  # of small dense networks on 14 x 14 means
# whole units cannot go below: one in each layer or, where the layers keep equal shares, 3 and 1
LEAST = {"unit norm": ONE_UNIT, "gumbel units": ONE_UNIT, "Torch-Pruning": (3 * 784 + 3 + 10) / WEIGHTS}
SEARCHED = {"unit norm": (0.05,), "gumbel units": (0.05,), "small dense": (0.005, 0.02)}
RUN = Run(
    method="dense",
    density=1.0,  # share of the weights of LeNet-300-100 that stay; random masks keep it of each layer
    seed=0,  # of the weights at the start, the order of the batches and all noise
    epochs=EPOCHS,  # in all: before pruning, while pruning and after it
    settings={},  # what the method needs
    data="mnist",
    network=NETWORK,
)


def search_runs() -> list[Run]:
    """Return the runs that settings are chosen by: six of each method, at one density.

    That is 0.5 %; 5 % for whole units, of which only one would be left otherwise; and also 2 % for small
    dense networks, which have other inputs there. The settings serve at all densities and on all data.
    """
    return [
        RUN.but(method=name, density=density, seed=SEARCH_SEED, settings=settings)
        for name, method in METHODS.items()
        for density in SEARCHED.get(name, (0.005,))
        for settings in method.tried
    ]


def runs(
    methods: Iterable[str], densities: Iterable[float], seeds: Iterable[int], epochs: int, data: str
) -> list[Run]:
    """Return the runs of a grid with the settings of the book, without those that are impossible.

    The dense network has one density, and linear classifiers none above theirs; networks of whole units
    have at least one in each layer.

    Raises:
        ValueError: A method is unknown, a density is no share above 0, or epochs or a seed are below 0.
    """
    seeds, densities = list(seeds), list(densities)
    require_whole("epochs", epochs, 0)
    for seed in seeds:
        require_whole("seeds", seed, 0)
    for density in densities:
        require_share("densities", density, zero=False)
    found = []
    for method in methods:
        require_one_of("methods", method, METHODS)
        for density in _possible(method, densities):
            on_14 = method == "small dense" and small_size(round(density * WEIGHTS))[0] == 14
            settings = CHOSEN_ON_14 if on_14 else METHODS[method].chosen
            run = RUN.but(method=method, density=density, epochs=epochs, settings=settings, data=data)
            found += [run.but(seed=seed) for seed in seeds]
    return found


def frontier_runs() -> list[Run]:
    """Return the runs of the book's table, the most informative first.

    On MNIST every method has two seeds at each of the eight densities that is possible for it. At the four
    lowest, where methods differ, there are five seeds, except for pruning by layer. Learned masks that are
    trained anew and other packages have two seeds at those four only. On Fashion-MNIST, seven methods have
    two seeds at three densities. Four methods are also trained for more epochs, at 0.15 and 1 %.
    """
    on_mnist = partial(runs, epochs=EPOCHS, data="mnist")
    main = [name for name in METHODS if name not in BESIDE]
    wide = [density for density in DENSITIES if density not in CLOSE]
    longer = partial(runs, TIMED, (0.0015, 0.01), range(2), data="mnist")
    found = [
        *on_mnist(main, CLOSE, range(2)),
        *on_mnist(main, wide, range(2)),
        *on_mnist([name for name in main if name not in LAYERWISE], CLOSE, range(2, 5)),
        *on_mnist(BESIDE, CLOSE, range(2)),
        *longer(epochs=30),
        *runs(ON_FASHION, FASHION_DENSITIES, range(2), EPOCHS, "fashion"),
        *longer(epochs=60),
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
        methods: Names in `METHODS`.
        densities: Shares of the weights of LeNet-300-100 that may stay, each above 0, up to 1.
        seeds: Of the networks.
        epochs: Of each network in all; learned masks are trained anew for as many again.
        data: A name for `load_data`.
        path: A table to keep the rows in; those that are there already are not trained again.
        executor: Where to train, as for `sweep.sweep`; None: here, one after the other.

    Raises:
        ValueError: As for `runs`.
        ImportError: Pandas is not installed.
    """
    wanted = runs(methods, densities, seeds, epochs, data)
    _frame([])  # where pandas is missing, it says so before hours of training
    with TemporaryDirectory() as folder:
        table = Path(path or Path(folder) / "comparison.csv")
        for _ in sweep(wanted, table, measure, executor):
            pass
        rows = rows_of(wanted, table)
    if failed := [f"{row['method']}: {row['error']}" for row in rows if row.get("error")]:
        warnings.warn(f"{len(failed)} of {len(rows)} runs failed, such as {failed[0]}", stacklevel=2)
    return _frame(rows)


def measure(run: Run) -> Row:
    """Train one run and return what its row says besides the run itself.

    The test split is read here, once, after the last epoch. Counts are numbers of weights; bytes and
    milliseconds are those of the network without its dead units, for a batch of 256; `dense_ms` is the
    whole network's, timed right after.
    """
    data = data_of(run.data)
    net, row = _trained(run, data)
    small, images = shrink(net), data.valid.images[:256]
    work, size = macs(small, images[:1]), stored_bytes(small)
    whole = lenet_300_100().to(images.device)
    return row | {
        **scores(net, data, "test"),
        "effective": count_weights(net).effective,
        "biases": count_weights(small).biases,
        "macs": work.dense,
        "macs_nonzero": work.nonzero,
        "bytes_dense": size.dense,
        "bytes_csr": size.csr,
        "bytes_bitmask": size.bitmask,
        "ms": round(latency(small, images).median, 4),
        "dense_ms": round(latency(whole, images).median, 4),
    }


def validate(run: Run) -> Row:
    """Train one run of the search; its row knows nothing of the test split."""
    return _trained(run, data_of(run.data))[1]


def _trained(run: Run, data: Data) -> tuple[nn.Module, Row]:
    wall, cpu = time.perf_counter(), time.process_time()
    net = METHODS[run.method].train(run, data)
    return net, {
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "kept": count_weights(net).kept,
        **scores(net, data, "train", "validation"),
        "threads": torch.get_num_threads(),
    }


def _possible(method: str, densities: Sequence[float]) -> list[float]:
    if method == "dense":
        return [1.0]
    if method == "linear classifier":
        return [LINEAR, *(density for density in densities if density < LINEAR)]
    return [density for density in densities if density >= LEAST.get(method, 0)]


def _frame(rows: Sequence[Row]) -> DataFrame:
    """Return rows of a file as a DataFrame, with numbers where all of a column are numbers.

    Raises:
        ImportError: Pandas is not installed.
    """
    try:
        from pandas import DataFrame, to_numeric
    except ImportError as error:
        raise ImportError('comparing needs pandas: pip install "prunebook[experiments]"') from error

    def numbers(column: Any) -> Any:
        try:
            return to_numeric(column)
        except ValueError:
            return column

    return DataFrame(rows).apply(numbers)


def _show(rows: Sequence[Row]) -> str:
    """Return the mean and the deviation over the seeds as text."""
    table = _frame(rows)
    percent = table.assign(test_accuracy=100 * table["test_accuracy"])
    shown = percent.pivot_table("test_accuracy", "method", "density", aggfunc=["mean", "std"]).round(2)
    return f"\nTest accuracy in %, of {table['seed'].nunique()} seeds:\n{shown}"


COMPARE = Table(
    Path("compared.csv"),
    "compare methods of your choice",
    "Train LeNet-300-100 by each method at each density from each seed, as the book does, and print the test "
    f"accuracies. The methods are: {'; '.join(METHODS)}. For example: python -m prunebook compare --methods "
    '"magnitude, global, gradual" gumbel --densities 0.02 0.005 --processes 2.',
    runs,
    measure,
    range(2),
    {
        "--methods": {
            "nargs": "+",
            "default": ["magnitude, global, gradual", "soft mask", "gumbel"],
            "metavar": "METHOD",
            "help": "which (default: three of them)",
        },
        "--densities": {
            "nargs": "+",
            "type": float,
            "default": [0.02, 0.005],
            "metavar": "DENSITY",
            "help": "shares kept, above 0, up to 1 (default: 0.02 0.005)",
        },
        "--epochs": {"type": int, "default": EPOCHS, "help": f"of each run (default {EPOCHS})"},
        "--data": {"choices": sorted(SOURCES), "default": "mnist"},
    },
    _show,
)
FRONTIER = Table(
    RESULTS / "comparison.csv",
    "fill the table of the chapter that compares the methods",
    f"Train {len(frontier_runs())} networks by {len(METHODS)} methods at {len(DENSITIES)} densities, and "
    "write a row for each: some hours on two cores.",
    frontier_runs,
    measure,
)
SEARCH = Table(
    RESULTS / "search.csv",
    "fill the table that the settings of the comparison are chosen by",
    "Train each method with six settings, and write its accuracy on validation images, never on test images.",
    search_runs,
    validate,
)
