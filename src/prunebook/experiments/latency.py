"""What zeros and missing units gain in time, measured on one network: the table of the chapter on gains.

`python -m prunebook latency` times 784-1000-1000-500-200-10 in every form and writes the table anew.

Chapter: book/what-you-gain.ipynb
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from prunebook.experiments.pruning import SIZES
from prunebook.experiments.tables import rewrite, versions
from prunebook.masking import bake
from prunebook.methods.units import prune_units
from prunebook.methods.weights import prune_weights
from prunebook.shrinking.slicing import shrink
from prunebook.tools.costs import count, race
from prunebook.tools.csr import CSRLinear, to_csr
from prunebook.training.models import mlp

ZEROS = (50, 90, 99)
STORED = (50, 70, 80, 85, 90, 95, 98, 99, 99.5)
REMOVED = (50, 80, 90)
BATCHES = (1, 256)


@dataclass(frozen=True)
class Form:
    """A form of the network, and k: the percentage of zeros, or of hidden units removed.

    "dense"; "masked", the mask attached; "zeros", baked; "csr"; "shrunk"; or "fresh", built anew in the size
    of the shrunk one.
    """

    form: str
    k: float


def forms(sizes: Sequence[int] = SIZES, seed: int = 0) -> dict[Form, nn.Module]:
    """Return the network in every form, not trained: a product takes as long whatever its numbers are."""
    torch.manual_seed(seed)
    dense = mlp(sizes)
    found: dict[Form, nn.Module] = {Form("dense", 0): dense}
    found[Form("masked", 90)] = prune_weights(copy.deepcopy(dense), 90)
    found |= {Form("zeros", k): bake(prune_weights(copy.deepcopy(dense), k)) for k in ZEROS}
    found |= {Form("csr", k): to_csr(prune_weights(copy.deepcopy(dense), k), above=0) for k in STORED}
    for k in REMOVED:
        small = shrink(prune_units(copy.deepcopy(dense), k))
        widths = [layer.out_features for layer in small.modules() if isinstance(layer, nn.Linear)]
        found |= {Form("shrunk", k): small, Form("fresh", k): mlp([sizes[0], *widths])}
    return found


def time_forms(
    sizes: Sequence[int] = SIZES, batches: Sequence[int] = BATCHES, threads: int = 1, rounds: int = 100
) -> list[dict[str, object]]:
    """Race all forms of a network on the CPU, and return a row for each and each size of a batch.

    ``milliseconds`` is the median time of a forward pass, between its quartiles; ``faster`` the median over
    the rounds of the dense network's time, divided by that of the form.

    Raises:
        ValueError: threads below 1, and as ``race`` does.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    found, before = forms(sizes), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times = {batch: race(found, torch.rand(batch, sizes[0]), rounds) for batch in batches}
    finally:
        torch.set_num_threads(before)
    shared = {"rounds": rounds, "network": "-".join(map(str, sizes)), "device": "cpu", "versions": versions()}
    rows = []
    for batch, raced in times.items():
        for form, each in raced.items():
            lower, median, upper = each.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
            took = {"milliseconds": round(median, 4), "lower": round(lower, 4), "upper": round(upper, 4)}
            took["faster"] = round(float((raced[Form("dense", 0)] / each).median()), 3)
            where = {"batch": batch, "threads": threads, "weights": _stored(found[form])}
            rows.append(asdict(form) | where | took | shared)
    return rows


def write_latency(path: Path, threads: Sequence[int] = (1,), rounds: int = 100) -> int:
    """Measure the whole table, write it in place of the old one, and return how many rows it has."""
    rows = [row for each in threads for row in time_forms(threads=each, rounds=rounds)]
    rewrite(path, lambda _: rows)
    return len(rows)


def _stored(net: nn.Module) -> int:
    """Count the weights that are not zero, also those in CSR."""
    sparse = [len(layer.values) for layer in net.modules() if isinstance(layer, CSRLinear)]
    return sum(sparse) or count(net).kept
