"""How many more runs per minute a Dask cluster of two workers does than one worker.

Run it alone on an idle machine with two cores or more: `python tests/benchmarks/cluster.py`, or `make bench`
for all of them. It needs `pip install "prunebook[experiments]"`. Two workers should be at least 1.7 times as
fast as one.

Each run trains 64-128-128-10 on random data, with one thread, for some seconds. Network and data fit into the
caches of a core, because the cores share the path to memory. Both clusters stay up and take turns, so that
other load slows both alike; some short runs come first, to load the libraries on each worker.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import Executor
from pathlib import Path

import torch
import torch.nn.functional as F

import prunebook as pb
from prunebook.experiments.protocol import Row, Run
from prunebook.experiments.sweep import dask, sweep

WORKERS = (1, 2)
ROUNDS, RUNS = 3, 4  # rounds in all; runs of each cluster in a round
STEPS, BATCH_SIZE = 6_000, 64
LEAST = 1.7  # two workers / one


def train(run: Run) -> Row:
    """Train a small network on random data; return its loss and the seconds it took."""
    start = time.perf_counter()
    torch.manual_seed(run.seed)
    images, labels = torch.randn(512, 64), torch.randint(10, (512,))
    net = pb.mlp([64, 128, 128, 10])
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    for _ in range(run.steps):
        batch = torch.randint(512, (BATCH_SIZE,))
        loss = F.cross_entropy(net(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"loss": loss.item(), "seconds": time.perf_counter() - start}


def rows_of(runs: list[Run], executor: Executor) -> list[Row]:
    """Do the runs with a new table; return its rows, or raise an error if a run failed."""
    with tempfile.TemporaryDirectory() as folder:
        rows = list(sweep(runs, Path(folder) / "cluster.csv", train, executor))
    failed = [row["error"] for row in rows if row.get("error")]
    if failed or len(rows) != len(runs):
        raise RuntimeError(f"{len(rows)} rows of {len(runs)}, errors: {failed}")
    return rows


def main() -> None:
    """Print the runs per minute of one worker and of two."""
    pace: dict[int, list[float]] = {n: [] for n in WORKERS}
    seconds: list[float] = []
    with dask("local:1") as one, dask("local:2") as two:
        executors = dict(zip(WORKERS, (one, two), strict=True))
        for n, executor in executors.items():
            rows_of([Run(seed=seed, steps=50) for seed in range(4 * n)], executor)
        for turn in range(ROUNDS):
            for n in WORKERS if turn % 2 else reversed(WORKERS):
                start = time.perf_counter()
                rows = rows_of([Run(seed=seed, steps=STEPS) for seed in range(RUNS)], executors[n])
                pace[n].append(60 * RUNS / (time.perf_counter() - start))
                seconds += [float(str(row["seconds"])) for row in rows if n == 1]
    print(f"a run alone: {statistics.median(seconds):.1f} s; median of {ROUNDS} rounds of {RUNS} runs:")
    for n in WORKERS:
        print(f"{n} worker{'s' * (n > 1)}: {statistics.median(pace[n]):5.1f} runs per minute")
    ratio = statistics.median(two / one for one, two in zip(pace[1], pace[2], strict=True))
    note = "" if ratio >= LEAST else "; not reached this time"
    print(f"two workers / one: {ratio:.2f} (aim: at least {LEAST}{note})")


if __name__ == "__main__":
    main()
