"""What a training step costs with Gumbel gates: one logit for each weight, or two as in the paper's code.

Run it alone on an idle machine: `OMP_NUM_THREADS=2 python tests/benchmarks/gumbel_step.py`, or `make bench`
for all of them. The data are random tensors of the shape of MNIST: the values do not matter here.

LeNet-300-100, batch 128, fused Adam for all. Blocks of steps of each kind take turns in one process, and the
order rotates from round to round. The reference samples a gate for every weight by `F.gumbel_softmax` on
pairs of logits; its penalty, lambda abs(target - mean gate), takes a second sample at another temperature.
The aims: at most 2.0 times the dense step, and at least 8 times as fast as the reference. Memory is printed,
too: what parameters and optimizer hold, and on CUDA, which counts it, what a step needs in addition.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

import prunebook as pb
from prunebook.methods.gates import two_logit_gate
from prunebook.methods.gumbel import LOGIT
from prunebook.methods.learned import optimizer_groups

BATCH_SIZE, IMAGES = 128, 10_000
ROUNDS, STEPS = 9, 20
TARGET, LAM = 0.1, 1.0
TAU, TAU_PENALTY = 3.0, 1.0  # of the reference
LR, LR_GATES = 2e-3, 2e-2
MOST, LEAST = 2.0, 8.0  # the aims


class PairGate(nn.Module):
    """The reference's gates for one weight tensor, as a parametrization: two logits for each entry."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([LOGIT, 0.0], device=weight.device).repeat(weight.numel(), 1))

    def forward(self, w: Tensor) -> Tensor:
        """Return w times a sample of its gates."""
        return w * two_logit_gate(self.logits, TAU).view_as(w)


def dense(net: nn.Module) -> tuple[Adam, Callable[[], Tensor] | None]:
    """Return the optimizer and the penalty of a plain network."""
    return Adam(net.parameters(), lr=LR, fused=True), None


def gumbel(net: nn.Module) -> tuple[Adam, Callable[[], Tensor] | None]:
    """Attach one logit to each weight; return the optimizer and a penalty on the expected density."""
    pruning = pb.GumbelPruning(net, lam=LAM, lr_gates=LR_GATES)
    return Adam(pruning.parameter_groups(), lr=LR, fused=True), lambda: pruning.penalty(TARGET)


def reference(net: nn.Module) -> tuple[Adam, Callable[[], Tensor] | None]:
    """Attach two logits to each weight; return the optimizer and a penalty on a second sample."""
    found = []
    for layer in pb.maskable(net).values():
        found.append(PairGate(layer.weight))
        nn.utils.parametrize.register_parametrization(layer, "weight", found[-1])
    logits = [gate.logits for gate in found]
    apart = optimizer_groups(net, [(logits, LR_GATES)])

    def penalty() -> Tensor:
        total = sum(two_logit_gate(pairs, TAU_PENALTY).sum() for pairs in logits)
        return LAM * (TARGET - total / sum(len(pairs) for pairs in logits)).abs()

    return Adam(apart, lr=LR, fused=True), penalty


def make_stepper(
    attach: Callable[[nn.Module], tuple[Adam, Callable[[], Tensor] | None]], device: str
) -> tuple[Callable[[], None], Callable[[], int]]:
    """Return a function that trains one step, and one that counts the bytes of parameters and optimizer."""
    torch.manual_seed(0)
    images = torch.randn(IMAGES, 1, 28, 28, device=device)
    labels = torch.randint(10, (IMAGES,), device=device)
    net = pb.lenet_300_100().to(device).train()
    optimizer, penalty = attach(net)

    def step() -> None:
        batch = torch.randint(IMAGES, (BATCH_SIZE,), device=device)
        loss = F.cross_entropy(net(images[batch]), labels[batch])
        if penalty is not None:
            loss = loss + penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def held() -> int:
        state = [value for entry in optimizer.state.values() for value in entry.values()]
        return sum(tensor.numel() * tensor.itemsize for tensor in (*net.parameters(), *state))

    return step, held


def milliseconds(step: Callable[[], None], device: str) -> float:
    """Return the mean milliseconds of a step, over STEPS steps."""
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / STEPS


def measure(steps: dict[str, Callable[[], None]], device: str) -> dict[str, Tensor]:
    """Return the milliseconds of a step of each kind, (ROUNDS,)."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(ROUNDS + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            taken[name].append(milliseconds(steps[name], device))
    return {name: torch.tensor(times[1:]) for name, times in taken.items()}  # the first round is the warm-up


def quartiles(values: Tensor) -> str:
    """Return "median (lower .. upper)"."""
    lower, median, upper = values.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return f"{median:6.2f} ({lower:.2f} .. {upper:.2f})"


def peak(step: Callable[[], None]) -> int:
    """Return the peak bytes that a step needs on CUDA in addition to what is held before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def main() -> None:
    """Print the times, their ratios and the memory on every device."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        where = f"{torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name()
        print(f"{device}, {where}, torch {torch.__version__}; a step, median (quartiles) of {ROUNDS} blocks:")
        made = {attach.__name__: make_stepper(attach, device) for attach in (dense, gumbel, reference)}
        times = measure({name: step for name, (step, _) in made.items()}, device)
        for name, (step, held) in made.items():
            ratio = quartiles(times[name] / times["dense"])
            extra = f", {peak(step) / 1e6:.2f} MB more in a step" if device == "cuda" else ""
            print(f"{name:10} {quartiles(times[name])} ms {ratio} x dense, {held() / 1e6:.2f} MB held{extra}")
        faster = times["reference"] / times["gumbel"]
        print(f"gumbel is {quartiles(faster)} x faster than the reference")
        reached = (times["gumbel"] / times["dense"]).median() <= MOST, faster.median() >= LEAST
        print(f"at most {MOST} x dense: {bool(reached[0])}; at least {LEAST:g} x faster: {bool(reached[1])}")


if __name__ == "__main__":
    main()
