"""What fit costs on top of a bare training loop, and what loading MNIST costs.

Run it alone on an idle machine: `OMP_NUM_THREADS=2 python tests/benchmarks/training_step.py`, or `make bench`
for all of them. MNIST comes from `$PRUNEBOOK_DATA` or the cache folder; without it,
training is timed on random tensors of the same shape. `fit` should take at most 1.15 times as long as the
bare loop.

LeNet-300-100, batch 128, fused Adam. Both kinds of epoch alternate in one process, and the order within a
pair is swapped each time. The bare epoch is indexing, forward, cross-entropy, backward and step. The epoch
of fit adds the running loss and accuracy, the check for NaN and a pass over the validation split.
"""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import time
from contextlib import redirect_stderr

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Adam

import prunebook as pb
from prunebook.training.data import Data, data_folder, is_complete

PAIRS = 7
BATCH_SIZE = 128
MOST = 1.15  # fit / bare
LOADING = """
import resource, time
import prunebook as pb
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * {unit} / 1e6
before, start = peak(), time.perf_counter()
data = pb.load_data("mnist", device="cpu")
print(f"load_data('mnist'): {{time.perf_counter() - start:.2f}} s, peak memory + {{peak() - before:.0f}} MB")
"""


def have_mnist() -> bool:
    """Return whether the raw files of MNIST are on this machine."""
    return is_complete("mnist", data_folder())


def make_data() -> Data:
    """Return MNIST, or random tensors of its shape where it is not on this machine."""
    if have_mnist():
        return pb.load_data("mnist", device="cpu")
    splits = [pb.Split(torch.randn(n, 1, 28, 28), torch.randint(10, (n,))) for n in (54_000, 6_000, 10_000)]
    return Data(*splits, name="random", classes=tuple("0123456789"), mean=0.0, std=1.0)


def bare_epoch(model: nn.Module, optimizer: Adam, train: pb.Split) -> float:
    """Train one epoch with nothing around it; return the seconds it took."""
    start = time.perf_counter()
    for batch in torch.randperm(len(train)).split(BATCH_SIZE):
        loss = F.cross_entropy(model(train.images[batch]), train.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def fit_epoch(model: nn.Module, optimizer: Adam, data: Data) -> float:
    """Train one epoch with fit, its progress bar included but not shown; return the seconds it took."""
    start = time.perf_counter()
    with redirect_stderr(io.StringIO()):
        pb.fit(model, data, epochs=1, batch_size=BATCH_SIZE, optimizer=optimizer)
    return time.perf_counter() - start


def measure(data: Data) -> tuple[list[float], list[float]]:
    """Return the seconds of the bare epochs and of the epochs of fit, pair by pair."""
    torch.manual_seed(0)
    models = [pb.lenet_300_100(), pb.lenet_300_100()]
    optimizers = [Adam(model.parameters(), fused=True) for model in models]
    bare, fitted = [], []
    for pair in range(PAIRS + 1):  # the first pair warms up
        for turn in (0, 1):
            if (pair + turn) % 2:
                bare.append(bare_epoch(models[0], optimizers[0], data.train))
            else:
                fitted.append(fit_epoch(models[1], optimizers[1], data))
    return bare[1:], fitted[1:]


def main() -> None:
    """Print the times of loading, of the bare loop and of fit."""
    if have_mnist():
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
        for _ in range(2):  # the first load on a machine also computes the checksums
            subprocess.run([sys.executable, "-c", LOADING.format(unit=unit)], check=True)
    data = make_data()
    bare, fitted = measure(data)
    ratio = statistics.median(f / b for f, b in zip(fitted, bare, strict=True))
    print(f"{data.name}, {torch.get_num_threads()} threads, median of {PAIRS} alternations:")
    print(f"bare loop {1000 * statistics.median(bare):5.0f} ms per epoch")
    print(f"fit       {1000 * statistics.median(fitted):5.0f} ms per epoch, validation included")
    note = "" if ratio <= MOST else "; not reached this time"
    print(f"fit / bare: {ratio:.3f} (aim: at most {MOST}{note})")


if __name__ == "__main__":
    main()
