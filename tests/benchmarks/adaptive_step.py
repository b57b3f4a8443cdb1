"""What a training step costs with adaptive pruning, as a ratio to the dense step.

Run it alone on an idle machine: `OMP_NUM_THREADS=2 python tests/benchmarks/adaptive_step.py`, or `make
bench` for all of them. MNIST comes from `$PRUNEBOOK_DATA` or the cache folder; without it,
random tensors of the same shape take its place.

784-512-512-10, batch 128, fused Adam for all. Blocks of steps of each kind take turns in one process, and the
order rotates from round to round. The adaptive kinds differ in how often the threshold is read from the
weights: every 10 steps, every step, or only once, which tells what the masks alone cost. Then come whole
epochs of fit, dense and adaptive. If there is a GPU, the same ratios follow on it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.optim import Adam

import prunebook as pb
from prunebook.training.data import Data, data_folder, is_complete

SIZES = (784, 512, 512, 10)
BATCH_SIZE = 128
ROUNDS, STEPS, EPOCHS = 9, 40, 3
R = 0.9
NEVER = 10**9
KINDS = {"dense": None, "every 10 steps": 10, "every step": 1, "one update": NEVER}


def make_data(device: str) -> Data:
    """Return MNIST, or random tensors of its shape where it is not on this machine."""
    if is_complete("mnist", data_folder()):
        return pb.load_data("mnist", device=device)
    splits = [
        pb.Split(torch.randn(n, 1, 28, 28, device=device), torch.randint(10, (n,), device=device))
        for n in (54_000, 6_000, 10_000)
    ]
    return Data(*splits, name="random", classes=tuple("0123456789"), mean=0.0, std=1.0)


def make_stepper(every: int | None, data: Data) -> Callable[[], None]:
    """Return a function that trains one step, with adaptive masks unless `every` is None."""
    torch.manual_seed(0)
    net = pb.mlp(SIZES).to(data.train.images.device).train()
    pruning = None if every is None else pb.AdaptivePruning(net, R, update_every=every)
    parameters = net.parameters() if pruning is None else pruning.parameter_groups()
    optimizer = Adam(parameters, lr=1e-3, fused=True)

    def step() -> None:
        batch = torch.randint(len(data.train), (BATCH_SIZE,), device=data.train.labels.device)
        loss = F.cross_entropy(net(data.train.images[batch]), data.train.labels[batch])
        if pruning is not None:
            loss = loss + pruning.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def make_epoch(every: int | None, data: Data) -> Callable[[], None]:
    """Return a function that trains one epoch with fit, with adaptive masks unless `every` is None."""
    torch.manual_seed(0)
    net = pb.mlp(SIZES).to(data.train.images.device)
    pruning = None if every is None else pb.AdaptivePruning(net, R, update_every=every)
    optimizer = Adam(net.parameters() if pruning is None else pruning.parameter_groups(), fused=True)
    penalty = None if pruning is None else pruning.penalty
    return lambda: pb.fit(
        net, data, epochs=1, batch_size=BATCH_SIZE, optimizer=optimizer, penalty=penalty, progress=False
    )


def measure(tasks: dict[str, Callable[[], object]], rounds: int, repeats: int, device: str) -> None:
    """Print the median milliseconds of each task, and the median of its ratios to the dense one."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    names = list(tasks)
    for turn in range(rounds + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            taken[name].append(milliseconds(tasks[name], repeats, device))
    for name, times in taken.items():
        times = times[1:]  # the first round is the warm-up
        ratio = statistics.median(t / d for t, d in zip(times, taken["dense"][1:], strict=True))
        print(f"{name:24} {statistics.median(times):9.2f} ms {ratio:6.2f} x dense")


def milliseconds(task: Callable[[], object], repeats: int, device: str) -> float:
    """Return the mean milliseconds of a call, over `repeats` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        task()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / repeats


def main() -> None:
    """Print the times of steps and epochs on every device."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        data = make_data(device)
        where = f"{torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name()
        print(
            f"{data.name}, {device}, {where}, torch {torch.__version__}; a step, median of {ROUNDS} blocks:"
        )
        steppers = {name: make_stepper(every, data) for name, every in KINDS.items()}
        measure(steppers, ROUNDS, STEPS, device)
        print(f"an epoch of fit, validation included, median of {EPOCHS}:")
        epochs = {name: make_epoch(KINDS[name], data) for name in ("dense", "every 10 steps")}
        measure(epochs, EPOCHS, 1, device)


if __name__ == "__main__":
    main()
