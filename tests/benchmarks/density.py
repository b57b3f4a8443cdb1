"""Time of a threshold and its slope, against a sort, torch.histc and a plain copy.

Run it alone on an idle machine: `OMP_NUM_THREADS=2 python tests/benchmarks/density.py`, or `make bench` for
all of them. For the 668,672 weights of 784-512-512-10, `quantile_and_slope` should take at most 0.1 of the
time of torch.sort. Peak memory is about 2 GB, at 1e8 weights. Then every n is timed; if there is a GPU, it
is timed as well.

With `--table book/results/density.csv` it writes a row for each n: the table of the chapter.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from prunebook.experiments.protocol import versions
from prunebook.experiments.tables import rewriting
from prunebook.methods.quantile import GRID, histogram, quantile_and_slope

WEIGHTS = 668_672
MOST = 0.1  # of a sort
SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000)
SORTED = 10_000_000  # above this, a sort takes too long for a benchmark
R = 0.9


def seconds(tasks: Mapping[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """Return the median seconds of each task; they take turns, so that other load slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats + 1):
        for name, task in tasks.items():
            wait(device)
            start = time.perf_counter()
            task()
            wait(device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}  # the first is the warm-up


def wait(device: str) -> None:
    """Wait until a GPU has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def weights(n: int, device: str) -> Tensor:
    """Return the absolute values of n normal numbers."""
    return torch.randn(n, generator=torch.Generator().manual_seed(0)).abs_().to(device)


def slope(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the threshold and its slope."""
    return quantile_and_slope([scores], torch.tensor(R, device=scores.device))


def check(scores: Tensor) -> None:
    """Assert that every score is counted, and that the share R lies below t, give or take two cells."""
    top = scores.max()
    counts = histogram([scores], GRID, top)
    assert counts.dtype == torch.int64
    assert counts.sum() == len(scores)
    t, _ = slope(scores)
    below = int((scores < t).sum())
    assert abs(below - R * len(scores)) <= 2 * int(counts[int(t / top * GRID)]) + 1


def against_sort(device: str) -> float:
    """Print the times for WEIGHTS scores; return that of `quantile_and_slope` as a share of a sort."""
    scores = weights(WEIGHTS, device)
    tasks = {
        "torch.sort": lambda: scores.sort(),
        "torch.histc, counts only": lambda: torch.histc(scores, GRID, 0, float(scores.max())),
        "quantile_and_slope": lambda: slope(scores),
    }
    taken = seconds(tasks, 11, device)
    for name, value in taken.items():
        print(f"{name:24} {1000 * value:8.3f} ms  {value / taken['torch.sort']:6.3f} x sort")
    return taken["quantile_and_slope"] / taken["torch.sort"]


def row(n: int, device: str) -> dict[str, object]:
    """Check the counts of n scores, time them, and return a row of the table."""
    scores = weights(n, device)
    check(scores)
    target = torch.empty_like(scores)
    tasks = {"quantile": lambda: slope(scores), "copy": lambda: target.copy_(scores)}
    taken = seconds(tasks, 5 if n > SORTED else 15, device)
    if n <= SORTED:
        taken |= seconds({"sort": lambda: scores.sort()}, 3, device)
    figures = {f"seconds_{name}": f"{taken[name]:.3g}" if name in taken else "" for name in COLUMNS}
    chip = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return {"n": n, **figures, "device": chip, "threads": torch.get_num_threads(), "versions": versions()}


COLUMNS = ("quantile", "copy", "sort")


def main() -> None:
    """Print the times, and write the table if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path, help="write the rows here, in place of those there")
    table = parser.parse_args().table
    torch.set_num_threads(min(2, torch.get_num_threads()))
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    print(f"{WEIGHTS:,} weights, {GRID} cells, {torch.get_num_threads()} threads, torch {torch.__version__}")
    ratio = against_sort("cpu")
    rows = []
    for device in devices:
        for n in SIZES:
            rows.append(row(n, device))
            print("  ".join(f"{name} {value}" for name, value in list(rows[-1].items())[:5]))
    if table:
        with rewriting(table) as stored:
            stored[:] = rows
    note = "" if ratio <= MOST else "; not reached this time"
    print("counts exact at every n")
    print(f"quantile_and_slope / torch.sort: {ratio:.3f} (aim: at most {MOST}{note})")


if __name__ == "__main__":
    main()
