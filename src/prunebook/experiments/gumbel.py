"""The table of the chapter on Gumbel gates: LeNet-300-100 on MNIST, pruned to between 2 % and 0.15 %.

`python -m prunebook gumbel` writes it. It also has linear classifiers, a small dense network and the whole
LeNet. The weights of the networks that exchange left with 399 go into a second table.

Chapter: book/gumbel.ipynb
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunebook.experiments.protocol import RESULTS, Row, Run, Table, data_of, new, scores, train
from prunebook.layers import dense_weight, maskable, parameter_name
from prunebook.masking import harden, set_masks
from prunebook.methods.exchange import DAMPING, exchange
from prunebook.methods.gumbel import GumbelPruning
from prunebook.shrinking.slicing import shrink
from prunebook.tools.costs import count_weights
from prunebook.training.data import Data
from prunebook.training.models import RandomShift, lenet_300_100, mlp

if TYPE_CHECKING:
    from pandas import DataFrame

BATCH_SIZE = 256
LENET, EXCHANGE = "784-300-100-10", "gumbel, then exchange"
WIRED = (EXCHANGE, 399)  # the runs whose weights are stored, by method and count
NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    LENET: lenet_300_100,
    "784-10": lambda: mlp([784, 10]),
    "49-7-10": lambda: nn.Sequential(nn.AvgPool2d(4), *mlp([49, 7, 10])),
}
# "gumbel": train with gates, then freeze `count` weights and fine-tune them. "gumbel, then exchange": also
# exchange weights after each epoch of fine-tuning. "dense": neither.
RUN = Run(
    method="gumbel",
    network=LENET,
    count=399,  # weights kept
    seed=0,
    epochs=40,  # with gates
    fine_tune=200,  # epochs after them
    shift=0,  # pixels by which training images are shifted at random
    weight_decay=0.0,  # while training with gates
    decay_tune=0.0,  # weight decay while fine-tuning
    share=0.0,  # of the kept weights to exchange per epoch: at the start of fine-tuning; falls to 0
    swap_until=0.8,  # share of the fine-tuning after which nothing is exchanged
    per_row=1,  # weights that a unit regrows in an exchange before other units get theirs
    tau=1.0,
    lam=1.0,
    until=0.7,  # share of the epochs with gates at which the target density is reached
    lr=2e-3,
    lr_gates=2e-2,
    lr_tune=4e-3,  # falls to 0 in a straight line
    damping=1e-6,
    data="mnist",
)
_SHIFTED = RUN.but(count=2662, epochs=60, shift=1, weight_decay=1e-4)
# these settings were chosen on the validation split with seed 100, which is not in the table
GATED = (
    _SHIFTED.but(count=5324, epochs=50, fine_tune=30),
    _SHIFTED.but(fine_tune=40),
    _SHIFTED.but(count=1331, epochs=80, fine_tune=100, decay_tune=1e-5),
    RUN.but(until=0.6),
)
SHARES = (0.03, 0.03, 0.03, 0.24)  # the setting `share` of each of the four
LINEAR = RUN.but(method="dense", network="784-10", count=7840, epochs=30, fine_tune=0)


def runs(seeds: Iterable[int] = range(5)) -> list[Run]:
    """Return the runs of each seed: four to compare with, and both methods at 2, 1, 0.5 and 0.15 %."""
    pairs = [(run, run.but(method=EXCHANGE, share=share)) for run, share in zip(GATED, SHARES, strict=True)]
    cases = [
        LINEAR,
        LINEAR.but(method="gumbel", count=399, epochs=60, fine_tune=30),
        LINEAR.but(network="49-7-10", count=413, epochs=100, lr=1e-2),
        LINEAR.but(network=LENET, count=266_200, epochs=40, shift=1),
        *(run for pair in pairs for run in pair),
    ]
    return [run.but(seed=seed) for seed in seeds for run in cases]


def measure(run: Run) -> Row:
    """Train one run and return its row; two runs with the same gates train them only once.

    `density` is the share of the network's weights kept, 0 to 1; `biases` counts those of the units kept. For
    runs in `WIRED`, "wires" lists the weights as rows.
    """
    data, start, seconds = data_of(run.data), time.perf_counter(), 0.0
    if run.method == "dense":
        net: nn.Module = new(run.seed, data, NETWORKS[run.network])
        _train(net, run, data, run.lr, weight_decay=run.weight_decay, epochs=run.epochs + run.fine_tune)
    else:
        gated = run.but(method="gumbel", fine_tune=0, share=0.0, decay_tune=0.0, lr_tune=0.0)
        gates, seconds = _trained_gates(gated)
        start = time.perf_counter()
        net = fine_tune(compact(gates), run, data)
    seconds += time.perf_counter() - start
    total, counts = count_weights(NETWORKS[run.network]()).weights, count_weights(net)
    row: Row = {
        "kept": counts.kept,
        "density": round(counts.kept / total, 8),
        "effective_density": round(counts.effective / total, 8),
        "biases": count_weights(shrink(net)).biases,
        **scores(net, data, "train", "validation", "test"),
        "seconds": round(seconds, 1),
    }
    return row | {"wires": wire_rows(net)} if (run.method, run.count) == WIRED else row


def train_gates(run: Run, data: Data) -> nn.Sequential:
    """Train with gates, freeze `run.count` of them, and return the hardened network."""
    net = new(run.seed, data, NETWORKS[run.network])
    pruning = GumbelPruning(net, tau=run.tau, lam=run.lam, lr_gates=run.lr_gates)
    given = {
        "parameters": pruning.parameter_groups(),
        "weight_decay": run.weight_decay,
        "decay": False,
        "schedule": pruning.fall(run.count / count_weights(net).weights, until=run.until),
        "penalty": pruning.penalty,
    }
    _train(net, run, data, run.lr, epochs=run.epochs, **given)
    pruning.freeze(run.count)
    harden(net)
    return net


@lru_cache(maxsize=1)
def _trained_gates(run: Run) -> tuple[nn.Sequential, float]:
    """Return the result of `train_gates`, and the seconds that it took."""
    data, start = data_of(run.data), time.perf_counter()
    net = train_gates(run, data)
    return net, time.perf_counter() - start


def compact(net: nn.Module) -> nn.Module:
    """Return a smaller network without the dead units, whose remaining zeros are masked."""
    small = shrink(net)
    kept = {name: dense_weight(layer) != 0 for name, layer in maskable(small).items()}
    set_masks(small, {parameter_name(name, "weight"): mask for name, mask in kept.items()})
    return small


def fine_tune(net: nn.Module, run: Run, data: Data) -> nn.Module:
    """Train the weights that are left, with exchanges if `run.share` is above 0; return `net`."""
    images, shift = data.train.images.split(2000), RandomShift(run.shift)

    def seen() -> Tensor:
        return torch.cat([shift(part) for part in images])  # shifted, as in training

    labels, rest = data.train.labels, (run.swap_until, run.per_row, run.damping)
    swap = swaps(net, seen, labels, run.count, run.share, run.fine_tune, *rest)
    _train(net, run, data, run.lr_tune, weight_decay=run.decay_tune, epochs=run.fine_tune, on_epoch=swap)
    return net


def swaps(
    net: nn.Module,
    images: Callable[[], Tensor],
    labels: Tensor,
    count_wanted: int,
    share: float,
    epochs: int,
    until: float = 0.8,
    per_row: int = 1,
    damping: float = DAMPING,
) -> Callable[[dict[str, float]], None]:
    """Return `on_epoch(row)` for `fit`, which exchanges weights of `net`: fewer after each epoch.

    Args:
        net: All its layers have constant masks.
        images: Returns images (n, 1, 28, 28), on which the gradients are taken.
        labels: (n,) their classes.
        count_wanted: Number of weights kept afterwards.
        share: Share of `count_wanted` to exchange, 0 to 1, at the start. It falls to 0 in a straight line,
            so it is a little lower after the first epoch.
        epochs: Epochs of the training.
        until: Share of the epochs after which nothing is exchanged.
        per_row: As for `exchange`.
        damping: As for `exchange`.
    """

    def swap(row: dict[str, float]) -> None:
        left = 1 - row["epoch"] / (epochs * until)
        if left > 0 < share:
            counts = count_weights(net)
            number = min(round(share * left * count_wanted), counts.kept, counts.weights - count_wanted)
            exchange(net, images(), labels, number, count_wanted, per_row, damping)

    return swap


def wire_rows(net: nn.Module) -> list[Row]:
    """Return a row for each weight and bias that is not 0 in a chain of linear layers.

    Columns: layer, from 0; unit, the row of the weight; source, its column, or -1 for a bias; value.
    """
    rows: list[Row] = []
    for number, layer in enumerate(maskable(net).values()):
        values = torch.cat([_tensor(layer.bias)[:, None], _tensor(layer.weight)], dim=1)
        for unit, column in values.nonzero().tolist():
            value = float(values[unit, column])
            rows.append({"layer": number, "unit": unit, "source": column - 1, "value": value})
    return rows


def wired(table: DataFrame, seed: int) -> nn.Sequential:
    """Return the ReLU network that the rows of one seed describe, for the table `book.table("wires")`.

    Raises:
        ValueError: The table has no rows for that seed.
    """
    rows = table[table.seed == seed]
    if rows.empty:
        raise ValueError(f"seed must be one of {sorted(set(table.seed))}, got {seed}")
    net = mlp([28 * 28, *(int(size) + 1 for size in rows.groupby("layer").unit.max())])
    for number, layer in enumerate(maskable(net).values()):
        values = torch.zeros(len(_tensor(layer.weight)), 1 + _tensor(layer.weight).shape[1])
        own = rows[rows.layer == number]
        values[own.unit.tolist(), (own.source + 1).tolist()] = torch.tensor(own.value.tolist())
        with torch.no_grad():
            _tensor(layer.bias).copy_(values[:, 0])
            _tensor(layer.weight).copy_(values[:, 1:])
    return net


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value.detach()


def _train(net: nn.Module, run: Run, data: Data, lr: float, **options: Any) -> None:
    moved = nn.Sequential(RandomShift(run.shift), net)
    train(moved, data, lr, batch_size=BATCH_SIZE, seed=run.seed, **options)


TABLE = Table(
    RESULTS / "gumbel.csv",
    "fill the table of the chapter on Gumbel-Softmax pruning",
    "Train LeNet-300-100 on MNIST with Gumbel gates down to 0.15 % of its weights, and the networks it is "
    "compared with; write a row for each.",
    runs,
    measure,
    range(5),
)
