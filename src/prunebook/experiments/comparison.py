"""One protocol for every comparison: each method gets the same data, epochs, batches and search of settings.

A run is one network: a method, a density and a seed. Its row says how accurate the network is and what it
costs. `python -m prunebook search`, `frontier` and `compare` each fill a table with such rows.

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
CLOSE = (0.02, 0.01, 0.005, 0.0015)  # where methods differ, and so get more seeds
FASHION_DENSITIES = (0.02, 0.005, 0.0015)
LINEAR = 7840 / WEIGHTS  # density at which the linear classifier keeps all its weights
ONE_UNIT = (784 + 1 + 10) / WEIGHTS  # density of one unit in each layer
MAIN = (  # the methods in the figure
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
    """How a method trains, the settings chosen for all tables, and the six that they were chosen from.

    The chosen ones did best on the validation split, with a seed used in book/results/search.csv only. Other
    packages get the settings of the method that they implement.
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
CHOSEN_ON_14: Settings = {"lr": 0.008}  # for small dense networks on 14 x 14 images
# the lowest densities for whole units: one unit in each layer; for Torch-Pruning, 3 and 1
LEAST = {"unit norm": ONE_UNIT, "gumbel units": ONE_UNIT, "Torch-Pruning": (3 * 784 + 3 + 10) / WEIGHTS}
SEARCHED = {"unit norm": (0.05,), "gumbel units": (0.05,), "small dense": (0.005, 0.02)}
RUN = Run(
    method="dense",
    density=1.0,  # share of the weights of LeNet-300-100 kept; random masks keep this share of each layer
    seed=0,  # of the initial weights, the order of the batches and all noise
    epochs=EPOCHS,  # in total: before, during and after pruning
    settings={},  # settings of the method
    data="mnist",
    network=NETWORK,
)


def search_runs() -> list[Run]:
    """Return the runs by which settings are chosen: six for each method, at one density.

    This is 0.5 %. It is 5 % for whole units, because 0.5 % would leave only one per layer. Small dense
    networks also run at 2 %, where they read larger images, and so have two settings. All other methods
    have one for all densities and data.
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
    """Return the runs of a grid with the settings of the book, leaving out those that are impossible.

    The dense network runs at density 1 only. Linear classifiers run with all their weights and at lower
    densities of the grid. Networks of whole units keep at least one in each layer.

    Raises:
        ValueError: A method is unknown, a density is not above 0 and at most 1, or the epochs or a seed are
            not whole numbers of at least 0.
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

    On MNIST there are two seeds for each method at each of eight densities, if possible. At the four lowest,
    where methods differ, there are five, except for pruning by layer. Learned masks that are trained anew,
    and other packages, have two seeds at these four only. On Fashion-MNIST, seven methods have two seeds at
    three densities. Four methods also train for 30 and 60 epochs, at 0.15 and 1 %.
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

    Warns if runs failed; their rows say why.

    Args:
        methods: Names in `METHODS`.
        densities: Shares of the weights of LeNet-300-100 to keep, each above 0 and at most 1.
        seeds: Seeds of each network, at least 0.
        epochs: Epochs of each run in total, at least 0. A learned mask is then trained anew for all of them.
        data: The name of a data set, as for `load_data`.
        path: A file to keep the rows in. Runs that have a row there are not repeated.
        executor: Where to train, as for `sweep.sweep`. None means here, one run after the other.

    Raises:
        ValueError: As for `runs`.
        ImportError: pandas is not installed.
    """
    wanted = runs(methods, densities, seeds, epochs, data)
    _frame([])  # if pandas is missing, this says so before hours of training
    with TemporaryDirectory() as folder:
        table = Path(path or Path(folder) / "comparison.csv")
        for _ in sweep(wanted, table, measure, executor):
            pass
        rows = rows_of(wanted, table)
    if failed := [f"{row['method']}: {row['error']}" for row in rows if row.get("error")]:
        warnings.warn(f"{len(failed)} of {len(rows)} runs failed, such as {failed[0]}", stacklevel=2)
    return _frame(rows)


def measure(run: Run) -> Row:
    """Train one run and return the columns that follow its settings.

    The test split is used only here, once, after the last epoch. `kept` and `effective` count weights.
    Biases, multiplications, bytes and milliseconds (for a batch of 256) are those of the network without
    its dead units; `dense_ms` are those of an unpruned LeNet-300-100, timed right afterwards.
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
    """Train one run of the search and return its row, without looking at the test split."""
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
    """Return rows of a file as a DataFrame; a column whose values are all numbers becomes numeric.

    Raises:
        ImportError: pandas is not installed.
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
    """Return the mean and the standard deviation of the test accuracy over the seeds, as text."""
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
