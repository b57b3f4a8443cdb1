"""Time and memory of global pruning of 25 million weights, against a sort, kthvalue and torch's own pruning.

Run it as `python tests/benchmarks/global_prune.py`, on Linux only; it uses one thread. Every task runs three
times on copies of its start, and the fastest time counts. Memory is the highest peak above what the process
held before, in multiples of the size of the weights.
"""

import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import prune

from prunebook.cover import sparsity
from prunebook.masking import masks
from prunebook.methods.weights import exact_count, prune_weights

SIZES = [(5000, 3000), (3000, 3000), (1000, 1000)]
K = 90.0


def main() -> None:
    """Print a line for each task, then check what they did."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dense = nn.ModuleList([nn.Linear(columns, rows, bias=False) for rows, columns in SIZES])
    ties = deepcopy(dense)
    for layer in ties:
        nn.init.ones_(layer.weight)
    flat = torch.cat([layer.weight.detach().flatten() for layer in dense]).abs_()
    unit = 4 * flat.numel()
    print(f"{flat.numel():,} weights, torch {torch.__version__}, one thread, k = {K:g}")
    tasks = {
        "torch.sort": lambda model: flat.sort(),
        "kthvalue": lambda model: flat.kthvalue(exact_count(K, flat.numel())),
        "torch.nn.utils.prune": library,
        "prune_weights": lambda model: prune_weights(model, K, scope="global"),
        "prune_weights, 50 first": lambda model: prune_weights(model, K, scope="global"),
        "prune_weights, all ties": lambda model: prune_weights(model, K, scope="global"),
    }
    starts = dict.fromkeys(tasks, dense)
    starts["prune_weights, 50 first"] = prune_weights(deepcopy(dense), 50, scope="global")
    starts["prune_weights, all ties"] = ties
    sort = 0.0
    for name, task in tasks.items():
        seconds, memory = measure(task, starts[name])
        sort = sort or seconds
        print(f"{name:24} {seconds:6.2f} s  {seconds / sort:5.2f} x sort  {memory / unit:5.2f} x weights")
    check(starts)


def library(model: nn.ModuleList) -> None:
    """Prune with torch.nn.utils.prune."""
    prune.global_unstructured([(layer, "weight") for layer in model], prune.L1Unstructured, amount=K / 100)


def measure(task: Callable[[nn.ModuleList], object], start: nn.ModuleList) -> tuple[float, int]:
    """Return the fewest seconds and the most extra bytes of three runs, each on a fresh copy of `start`."""
    seconds, memory = [], []
    for _ in range(3):
        model = deepcopy(start)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to what is held now
        before, began = peak_bytes(), time.perf_counter()
        task(model)
        seconds.append(time.perf_counter() - began)
        memory.append(peak_bytes() - before)
    return min(seconds), max(memory)


def peak_bytes() -> int:
    """Return the peak of the process's resident memory, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def check(starts: dict[str, nn.ModuleList]) -> None:
    """Assert that counts are exact, also with ties, and that masks equal torch's, except among ties."""
    ours, theirs = deepcopy(starts["prune_weights"]), deepcopy(starts["prune_weights"])
    total = sum(layer.weight.numel() for layer in ours)
    prune_weights(ours, K, scope="global")
    library(theirs)
    differ = [
        mask != layer.weight_mask.bool() for mask, layer in zip(masks(ours).values(), theirs, strict=True)
    ]
    at = [layer.weight_orig.abs()[where] for layer, where in zip(theirs, differ, strict=True)]
    assert len(torch.cat(at).unique()) <= 1
    for start in starts.values():
        model = prune_weights(deepcopy(start), K, scope="global")
        assert sparsity(model) == exact_count(K, total) / total
    print("counts exact, ties included; masks equal to torch's but for ties")


if __name__ == "__main__":
    main()
