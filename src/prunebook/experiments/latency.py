"""How much time zeros and removed units save, measured on one network: the table of "What you gain".

`python -m prunebook latency` times 784-1000-1000-500-200-10 in every form and replaces the table.

Chapter: book/what-you-gain.ipynb
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from prunebook.checks import require_whole
from prunebook.experiments.protocol import RESULTS, Row, versions
from prunebook.experiments.pruning import SIZES
from prunebook.masking import bake
from prunebook.methods.units import prune_units
from prunebook.methods.weights import prune_weights
from prunebook.shrinking.slicing import shrink
from prunebook.tools.costs import count_weights, latencies
from prunebook.tools.csr import CSRLinear, to_csr
from prunebook.training.models import mlp

ZEROS = (50, 90, 99)
STORED = (50, 70, 80, 85, 90, 95, 98, 99, 99.5)
REMOVED = (50, 80, 90)
BATCHES = (1, 256)
FILE = RESULTS / "latency.csv"


def forms(sizes: Sequence[int] = SIZES) -> dict[tuple[str, float], nn.Module]:
    """Return the network in every form, by the form's name and k, the percentage of weights or units pruned.

    Forms are "dense"; "masked", with the mask attached; "zeros", baked; "csr"; "shrunk"; and "fresh", a new
    network of the same size as the shrunk one. None is trained, because time hardly depends on the values.
    """
    torch.manual_seed(0)
    dense = mlp(sizes)
    found: dict[tuple[str, float], nn.Module] = {("dense", 0): dense}
    found["masked", 90] = prune_weights(copy.deepcopy(dense), 90)
    found |= {("zeros", k): bake(prune_weights(copy.deepcopy(dense), k)) for k in ZEROS}
    found |= {("csr", k): to_csr(prune_weights(copy.deepcopy(dense), k), above=0) for k in STORED}
    for k in REMOVED:
        small = shrink(prune_units(copy.deepcopy(dense), k))
        widths = [layer.out_features for layer in small.modules() if isinstance(layer, nn.Linear)]
        found |= {("shrunk", k): small, ("fresh", k): mlp([sizes[0], *widths])}
    return found


def time_forms(
    sizes: Sequence[int] = SIZES, batches: Sequence[int] = BATCHES, threads: int = 1, rounds: int = 100
) -> list[Row]:
    """Time all forms of a network on the CPU in turns; return a row for each form and batch size.

    `milliseconds` is the median time of a forward pass; `lower` and `upper` are its quartiles. `faster` is
    the median over the rounds of the dense network's time divided by that of the form.

    Raises:
        ValueError: `threads` or `rounds` is below 1.
    """
    require_whole("threads", threads, 1)
    found, before = forms(sizes), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times = {batch: latencies(found, torch.rand(batch, sizes[0]), rounds) for batch in batches}
    finally:
        torch.set_num_threads(before)
    shared = {"rounds": rounds, "network": "-".join(map(str, sizes)), "device": "cpu", "versions": versions()}
    rows = []
    for batch, raced in times.items():
        for (form, k), each in raced.items():
            lower, median, upper = each.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
            took = {"milliseconds": round(median, 4), "lower": round(lower, 4), "upper": round(upper, 4)}
            took["faster"] = round(float((raced["dense", 0] / each).median()), 3)
            where = {"batch": batch, "threads": threads, "weights": _stored(found[form, k])}
            rows.append({"form": form, "k": k} | where | took | shared)
    return rows


def _stored(net: nn.Module) -> int:
    """Return the number of nonzero weights, in CSR or not."""
    sparse = [len(layer.values) for layer in net.modules() if isinstance(layer, CSRLinear)]
    return sum(sparse) or count_weights(net).kept
