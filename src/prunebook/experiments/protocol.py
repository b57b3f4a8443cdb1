"""What all tables of long runs share: what a run is, how a network is trained, and what every row says.

Each table has its own module, which defines the runs, how they are measured, and the file of the rows.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import nn

from prunebook.cover import sparsity
from prunebook.training.data import Data, load_data
from prunebook.training.fit import evaluate, fit, linear_decay

Row = dict[str, object]
Net = TypeVar("Net", bound=nn.Module)
RESULTS = Path("book/results")


class Run(SimpleNamespace):
    """The settings that describe one network to train, by name: `Run(method="dense", seed=0)`.

    The settings are attributes. They become the first columns of the row of the run, and identify it. A
    setting may be a mapping of numbers, which becomes one column such as "lr=0.002 before=0.4".
    """

    def __hash__(self) -> int:  # type: ignore[override]
        """Return a hash, equal for equal runs, so that a run can be in a set or be the key of a cache."""
        return hash(frozenset(pair for pair in vars(self).items() if not isinstance(pair[1], Mapping)))

    def but(self, **changes: object) -> Run:
        """Return a copy of the run with some of its settings changed.

        Raises:
            ValueError: The run has no such setting.
        """
        if unknown := sorted(changes.keys() - vars(self).keys()):
            raise ValueError(f"settings of this run must be among {sorted(vars(self))}, got {unknown[0]!r}")
        return Run(**vars(self) | changes)

    def columns(self) -> Row:
        """Return the settings as the columns of a row, with mappings written out."""
        return {
            name: " ".join(f"{key}={number}" for key, number in value.items())
            if isinstance(value, Mapping)
            else value
            for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class Table:
    """A table that a command fills: `python -m prunebook NAME`.

    Attributes:
        file: Where the rows are kept unless the option `--table` says otherwise.
        help: What the command is for, in one line.
        description: What it does, for `--help`.
        runs: Returns the runs; it takes the command's options as arguments.
        measure: Trains the network of one run, and returns what its row says besides the run itself.
        seeds: Default of the option `--seeds`; None means that there is no such option.
        options: Further options for argparse, by name or flag.
        show: Returns the text that the command prints at the end, from the rows of its runs.
    """

    file: Path
    help: str
    description: str
    runs: Callable[..., list[Run]]
    measure: Callable[[Run], Row]
    seeds: range | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    show: Callable[[Sequence[Row]], str] | None = None


@lru_cache(maxsize=1)
def data_of(name: str) -> Data:
    """Return a data set, and keep it for the next call; never the digits that stand in for it offline.

    Raises:
        ConnectionError: The data set is not stored on this machine and could not be downloaded.
    """
    data = load_data(name)
    if data.name != name:
        raise ConnectionError(f"data {name!r} is not at hand here: python -m prunebook data {name}")
    return data


def new(seed: int, data: Data, make: Callable[[], Net]) -> Net:
    """Return a new network, initialised from a seed, on the device of the data."""
    torch.manual_seed(seed)
    return make().to(data.train.labels.device)


def train(
    net: nn.Module,
    data: Data,
    lr: float,
    *,
    parameters: Iterable[Any] | None = None,
    weight_decay: float = 0.0,
    decay: bool = True,
    schedule: Callable[[float], None] | None = None,
    after_step: Callable[[], None] | None = None,
    **options: Any,
) -> list[dict[str, float]]:
    """Train in place with Adam, and return a row for each epoch.

    Args:
        net: The network.
        data: The network learns from the training split; the rows hold accuracy on the validation split.
        lr: Learning rate of groups that do not set their own.
        parameters: Parameters or groups for Adam. None means all parameters of `net`.
        weight_decay: Weight decay of groups that do not set their own.
        decay: Whether all learning rates fall to 0 in a straight line.
        schedule: Called before each step, once the rates are set, with the share of the training done.
        after_step: Called after each step.
        options: Options of `fit`, such as `epochs`, `batch_size`, `seed` and `penalty`.
    """
    chosen = net.parameters() if parameters is None else parameters
    adam = torch.optim.Adam(chosen, lr=lr, weight_decay=weight_decay, fused=True)
    scheduled = [linear_decay(adam) if decay else None, schedule]
    if after_step:
        adam.register_step_post_hook(lambda *_: after_step())

    def before_step(progress: float) -> None:
        for each in filter(None, scheduled):
            each(progress)

    return fit(net, data, optimizer=adam, schedule=before_step, progress=False, **options).rows


def size(net: nn.Sequential) -> Row:
    """Return the widths of a chain of linear layers, its density, and the number of weights kept."""
    layers, density = [layer for layer in net if isinstance(layer, nn.Linear)], 1 - sparsity(net)
    widths = [layers[0].in_features, *(layer.out_features for layer in layers)]
    return {
        "network": "-".join(map(str, widths)),
        "density": round(density, 8),
        "kept": round(density * sum(layer.weight.numel() for layer in layers)),
    }


def scores(net: nn.Module, data: Data, *parts: str) -> Row:
    """Return the accuracy on parts of the data ("train", "validation", "test"), the machine and versions."""
    splits = {"train": data.train, "validation": data.valid, "test": data.test}
    row: Row = {f"{part}_accuracy": round(evaluate(net, splits[part]).accuracy, 6) for part in parts}
    device = data.train.labels.device
    return row | {
        "device": str(device),
        "processor": processor(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def processor(device: torch.device) -> str:
    """Return the model of the GPU or the CPU: the same run gives slightly different numbers on another."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", file.read_text()) if file.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def versions() -> str:
    """Return the versions of Python and torch, for a row."""
    return f"python {platform.python_version()}, torch {torch.__version__}"
