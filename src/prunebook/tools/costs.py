"""What a network costs: weights, arithmetic, bytes and milliseconds.

A count of zeros says little about time. Each function here measures one thing; `costs` gathers them.
"Weights" are those of linear layers and convolutions; biases, BatchNorm and the rest are counted beside them.

Chapter: book/units.ipynb
"""

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from prunebook.shrinking.flow import MIXING, TRANSPOSED, Flow, matrix
from prunebook.shrinking.slicing import evaluating, plain

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Counts:
    """How many weights.

    Attributes:
        weights: all of them; a weight that two layers share counts once.
        kept: those that are not zero.
        effective: those on some path from an input to an output.
        biases: biases of the same layers, zero or not.
        other: every other parameter, such as BatchNorm's.
    """

    weights: int
    kept: int
    effective: int
    biases: int
    other: int


@dataclass(frozen=True)
class Macs:
    """Multiplications with a weight for one image; nonzero: those whose weight is not zero."""

    dense: int
    nonzero: int


@dataclass(frozen=True)
class Bytes:
    """Size of parameters and buffers, when weights are stored in one of three ways."""

    dense: int
    csr: int
    bitmask: int


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass in ms: median and quartiles, for a batch size and a number of threads."""

    median: float
    lower: float
    upper: float
    batch: int
    threads: int


@dataclass(frozen=True)
class Costs(Counts):
    """All that `costs` measures; latency has one entry for each batch size."""

    macs: Macs
    bytes: Bytes
    latency: tuple[Latency, ...]


def costs(model: nn.Module, images: Tensor, batches: Sequence[int] = (1, 256), repeats: int = 30) -> Costs:
    """Counts, MACs, bytes and latency of a network.

    Masks count as the zeros that they make. Latency is that of `model` as it is, with its masks: bake it, or
    shrink it, to see what that gains.

    Args:
        model: on the device of the images.
        images: (n, ...) at least one input; repeated or cut to each batch size.
        batches: batch sizes to time.
        repeats: timed passes for each batch size.

    Raises:
        ValueError: no images, or what `latency` and `effective` raise.
    """
    if len(images) == 0:
        raise ValueError("images: got none, need at least one")
    baked = plain(model)
    places = [torch.arange(batch, device=images.device) % len(images) for batch in batches]
    return Costs(
        **vars(count(baked)),
        macs=macs(baked, images[:1]),
        bytes=stored(baked),
        latency=tuple(latency(model, images[place], repeats) for place in places),
    )


def count(model: nn.Module) -> Counts:
    """Weights, kept, effective, biases and other parameters of a network, masked or plain.

    Raises:
        ValueError: what `effective` raises.
    """
    baked = plain(model)
    layers = _layers(baked)
    weights = sum(layer.weight.numel() for layer in layers)
    kept = sum(int(layer.weight.count_nonzero()) for layer in layers)
    shared = {id(layer.bias): layer.bias.numel() for layer in layers if layer.bias is not None}
    biases = sum(shared.values())
    other = sum(parameter.numel() for parameter in baked.parameters()) - weights - biases
    return Counts(weights, kept, effective(baked), biases, other)


def effective(model: nn.Module) -> int:
    """How many weights lie on a path of non-zero weights from an input to an output.

    A bias starts no path. Layers that `shrink` leaves whole count with all their non-zero weights.

    Raises:
        ValueError: torch.fx cannot trace the network.

    Source: Vysogorets & Kempe, JMLR 2023, effective sparsity.
    """
    baked = plain(model)
    flow = Flow(baked, borders=False)
    live = {mix.name: (mix.out.live, mix.source.varies) for mix in flow.mixes}
    live |= {name: (out.live, torch.ones(1, dtype=torch.bool)) for name, out in flow.scales}
    named = {id(module): name for name, module in baked.named_modules()}
    total = 0
    for layer in _layers(baked):
        linked = matrix(layer) != 0
        rows, columns = live.get(named[id(layer)], (slice(None), slice(None)))
        total += int(linked[rows][:, columns].sum())
    return total


def macs(model: nn.Module, images: Tensor) -> Macs:
    """Multiply-accumulates of linear layers and convolutions for one image, dense and with non-zero weights.

    A weight is used once at each place of its layer's output (input, for a transposed convolution); places
    where it meets padding count. Attention and other operations without such a layer do not.

    Args:
        model: masked or plain, on the device of the images.
        images: (n, ...) one input or more.
    """
    baked = plain(model)
    used: list[tuple[int, int]] = []
    for layer in baked.modules():
        if isinstance(layer, MIXING):
            layer.register_forward_hook(partial(_use, used))
    with evaluating(baked):
        baked(images)
    dense, nonzero = (sum(column) // len(images) for column in zip(*used, strict=True)) if used else (0, 0)
    return Macs(dense, nonzero)


def stored(model: nn.Module) -> Bytes:
    """Bytes of parameters and buffers, without the file's header.

    With s bytes per number, n numbers of which z are not zero, in r rows:
    dense n s; CSR z (s + 4) + 4 (r + 1), with int32 indices; bit-mask ceil(n / 8) + z s.
    Only weights are stored sparsely; biases, BatchNorm and buffers are dense in all three.
    """
    baked = plain(model)
    every = {id(tensor): tensor for tensor in (*baked.parameters(), *baked.buffers())}
    weights = [every.pop(id(layer.weight)) for layer in _layers(baked)]
    rest = sum(tensor.numel() * tensor.itemsize for tensor in every.values())
    size = torch.tensor([weight.itemsize for weight in weights])
    n = torch.tensor([weight.numel() for weight in weights])
    z = torch.tensor([int(weight.count_nonzero()) for weight in weights])
    rows = torch.tensor([len(weight) for weight in weights])
    sizes = (n * size, z * (size + 4) + 4 * (rows + 1), (n + 7) // 8 + z * size)
    return Bytes(*(rest + int(each.sum()) for each in sizes))


def latency(model: nn.Module, images: Tensor, repeats: int = 30, warmup: int = 5) -> Latency:
    """Time of one forward pass over all images, in eval and inference mode, after a warm-up.

    Args:
        model: timed as it is, on the device of the images.
        images: (batch, ...) one batch.
        repeats: timed passes, at least 1; the median and the quartiles are over these.
        warmup: passes that are not timed.

    Raises:
        ValueError: repeats below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats: got {repeats}, need at least 1")
    with evaluating(model), torch.inference_mode():
        times = [_milliseconds(model, images) for _ in range(warmup + repeats)][warmup:]
    lower, median, upper = torch.tensor(times).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return Latency(median, lower, upper, len(images), torch.get_num_threads())


def race(models: Mapping[Key, nn.Module], images: Tensor, rounds: int = 30) -> dict[Key, Tensor]:
    """Time a forward pass of several models in turn, round by round, in ms: (rounds,) for each.

    A machine that is busy for a while slows all that take part in a round, so compare within rounds:
    ``(times["dense"] / times["small"]).median()``.

    Args:
        models: by name, on the device of the images; timed in eval and inference mode.
        images: (batch, ...) one batch.
        rounds: how often each is timed, at least 1; three rounds before are not counted.

    Raises:
        ValueError: rounds below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    times: dict[Key, list[float]] = {name: [] for name in models}
    for _ in range(3 + rounds):
        for name, model in models.items():
            with evaluating(model), torch.inference_mode():
                model(images)  # its weights come back into the cache, where the others have driven them out
                times[name].append(_milliseconds(model, images))
    return {name: torch.tensor(each[3:]) for name, each in times.items()}


def _milliseconds(model: nn.Module, images: Tensor) -> float:
    _wait(images)
    start = time.perf_counter()
    model(images)
    _wait(images)
    return 1e3 * (time.perf_counter() - start)


def _wait(images: Tensor) -> None:
    """Until the device has finished: a GPU runs behind Python."""
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    elif images.is_mps:
        torch.mps.synchronize()


def _layers(model: nn.Module) -> list[Any]:
    """Linear layers and convolutions, one for each weight."""
    layers = {id(module.weight): module for module in model.modules() if isinstance(module, MIXING)}
    return list(layers.values())


def _use(used: list[tuple[int, int]], layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Note how many multiplications a call takes: entries of the weight times places."""
    weight = layer.get_parameter("weight")
    walked = inputs[0] if isinstance(layer, TRANSPOSED) else output
    places = walked.numel() // len(weight)
    used.append((places * weight.numel(), places * int(weight.count_nonzero())))
