"""One protocol for every comparison: each method gets the same data, epochs, batches and search of settings.

A run is one network: a method, a density and a seed. Its row says how accurate the network is and what it
costs. `python -m prunebook search`, `frontier` and `compare` each fill a table with such rows.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from prunebook.checks import require_one_of, require_share, require_whole
from prunebook.experiments.gumbel import EXCHANGE
from prunebook.experiments.protocol import RESULTS, Row, Run, Table, data_of, scores
from prunebook.experiments.recipes import WEIGHTS
from prunebook.experiments.search import (
    EPOCHS,
    FROM_RULE,
    FROM_SOFT,
    GATES,
    LEAST,
    METHODS,
    RULE,
    RUN,
    SOFT,
    settings_of,
    trained,
)
from prunebook.experiments.sweep import sweep
from prunebook.experiments.tables import rows_of
from prunebook.shrinking.slicing import shrink
from prunebook.tools.costs import count_weights, latency, macs, stored_bytes
from prunebook.training.data import SOURCES
from prunebook.training.models import lenet_300_100

if TYPE_CHECKING:
    from pandas import DataFrame

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.0015)
CLOSE = (0.02, 0.01, 0.005, 0.0015)  # where methods differ, and so get more seeds
FASHION_DENSITIES = (0.05, 0.01, 0.0015)
LINEAR = 7840 / WEIGHTS  # density at which the linear classifier keeps all its weights
MAIN = (RULE, FROM_RULE, SOFT, "adaptive", GATES, EXCHANGE, "small dense")  # in the figure
TIMED = (RULE, FROM_RULE, GATES, EXCHANGE, SOFT, FROM_SOFT)
ON_FASHION = ("dense", "small dense", "RigL", *TIMED)
LONG = 60
IN_BUDGET = 315 / WEIGHTS  # with the biases, no more than 400 of 266,610 parameters: 0.15 %


def runs(
    methods: Iterable[str],
    densities: Iterable[float],
    seeds: Iterable[int],
    epochs: int,
    data: str,
    shift: int = 0,
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
            settings = settings_of(method, density)
            run = RUN.but(method=method, density=density, epochs=epochs, settings=settings, data=data)
            found += [run.but(seed=seed, shift=shift) for seed in seeds]
    return found


def frontier_runs() -> list[Run]:
    """Return the runs of the book's table, the most informative first.

    On MNIST there are five seeds at the four lowest of eight densities, where methods differ, and two at the
    others. Learned masks that are trained again and other packages have two seeds at these four only. Six
    methods also run for 60 epochs at 1 and 0.15 %, and four of them at 2 and 0.5 %; four with shifted images
    at 2 and 1 %; and six with so few weights that their biases fit into 0.15 % as well. On Fashion-MNIST
    there are three seeds.
    """
    on_mnist = partial(runs, epochs=EPOCHS, data="mnist")
    main = [name for name, method in METHODS.items() if method.rates]
    beside = [name for name in METHODS if name not in main]
    wide = [density for density in DENSITIES if density not in CLOSE]
    found = [
        *(run for density in reversed(CLOSE) for run in on_mnist(main, [density], range(5))),
        *on_mnist(TIMED, [IN_BUDGET], range(5)),
        *on_mnist(beside, CLOSE, range(2)),
        *on_mnist(TIMED[:4], (0.01, 0.02), range(5), shift=1),
        *runs(TIMED, (0.0015, 0.01), range(5), LONG, "mnist"),
        *runs(ON_FASHION, FASHION_DENSITIES, range(3), EPOCHS, "fashion"),
        *runs(TIMED[:4], (0.005, 0.02), range(5), LONG, "mnist"),
        *(run for density in reversed(wide) for run in on_mnist(main, [density], range(2))),
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
    net, row = trained(run, data)
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
    f"Train networks by {len(METHODS)} methods at {len(DENSITIES)} densities, from two to five seeds, and "
    "write a row for each: some hours on two cores.",
    frontier_runs,
    measure,
)
