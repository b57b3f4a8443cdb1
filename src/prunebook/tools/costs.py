"""What a network costs: weights, arithmetic, bytes and milliseconds.

A count of zeros says little about time. Each function here measures one thing; `costs` calls them all.
"Weights" are those of linear layers and convolutions. Biases, BatchNorm and the rest are counted separately.

Chapter: book/units.ipynb
"""

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from prunebook.checks import require_at_least
from prunebook.layers import TRANSPOSED, maskable
from prunebook.shrinking.effective import effective_weights
from prunebook.shrinking.slicing import evaluating, plain

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters.

    Attributes:
        weights: All weights; a weight that several layers share counts once.
        kept: Weights that are not zero.
        effective: Weights on a path from an input to an output.
        biases: Biases of the same layers, whether zero or not.
        other: Every other parameter, such as those of BatchNorm.
    """

    weights: int
    kept: int
    effective: int
    biases: int
    other: int


@dataclass(frozen=True)
class Macs:
    """Multiplications by a weight for one image: all of them, and those by nonzero weights."""

    dense: int
    nonzero: int


@dataclass(frozen=True)
class Bytes:
    """Size of parameters and buffers in bytes, with the weights stored dense, as CSR or as a bit-mask."""

    dense: int
    csr: int
    bitmask: int


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a forward pass (median and quartiles), for a batch size and a number of threads."""

    median: float
    lower: float
    upper: float
    batch: int
    threads: int


@dataclass(frozen=True)
class Costs(Counts):
    """Everything that `costs` measures; latency has one entry for each batch size."""

    macs: Macs
    bytes: Bytes
    latency: tuple[Latency, ...]


def costs(model: nn.Module, images: Tensor, batches: Sequence[int] = (1, 256), rounds: int = 30) -> Costs:
    """Return counts, multiplications, bytes and latency of a network.

    A masked weight counts as zero. Latency is measured on `model` as it is, masks included: bake or shrink
    it first to see what that gains.

    Args:
        model: On the device of the images.
        images: (n, ...) at least one input. They are repeated, or the first ones taken, to fill each batch.
        batches: Batch sizes to time.
        rounds: Timed passes for each batch size.

    Raises:
        ValueError: There are no images, `rounds` is below 1, or torch.fx cannot trace the network.
    """
    if len(images) == 0:
        raise ValueError("images must hold at least one, got none")
    baked = plain(model)
    places = [torch.arange(batch, device=images.device) % len(images) for batch in batches]
    return Costs(
        **vars(count_weights(baked)),
        macs=macs(baked, images[:1]),
        bytes=stored_bytes(baked),
        latency=tuple(latency(model, images[place], rounds) for place in places),
    )


def count_weights(model: nn.Module) -> Counts:
    """Return the numbers of weights, biases and other parameters of a network, masked or plain.

    Raises:
        ValueError: torch.fx cannot trace the network.
    """
    baked = plain(model)
    layers: list[Any] = [*maskable(baked).values()]
    weights = {layer.weight for layer in layers}
    total, kept = sum(w.numel() for w in weights), sum(int(w.count_nonzero()) for w in weights)
    biases = sum(bias.numel() for bias in {layer.bias for layer in layers} - {None})
    other = sum(parameter.numel() for parameter in baked.parameters()) - total - biases
    return Counts(total, kept, effective_weights(baked), biases, other)


def macs(model: nn.Module, images: Tensor) -> Macs:
    """Return the multiplications of linear layers and convolutions for one image, all and nonzero.

    A weight is used once at each position of its layer's output (of its input, in a transposed convolution),
    also where it meets padding. Attention and other operations outside such layers do not count.

    Args:
        model: Masked or plain, on the device of the images.
        images: (n, ...) one input or more.
    """
    baked = plain(model)
    used = [0, 0]

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = layer.get_parameter("weight")
        walked = inputs[0] if isinstance(layer, TRANSPOSED) else output
        places = walked.numel() // len(weight)
        used[0] += places * weight.numel()
        used[1] += places * int(weight.count_nonzero())

    for layer in maskable(baked).values():
        layer.register_forward_hook(count)
    with evaluating(baked):
        baked(images)
    return Macs(used[0] // len(images), used[1] // len(images))


def stored_bytes(model: nn.Module) -> Bytes:
    """Return the bytes of parameters and buffers, not counting a file's header.

    A weight tensor has n numbers of s bytes each, z of them not zero, in r rows; a CSR index has four bytes.
    Only weights are stored sparsely: biases, BatchNorm and buffers are dense in all three forms.
    """
    baked = plain(model)
    weights = {layer.get_parameter("weight") for layer in maskable(baked).values()}
    rest = sum(tensor.nbytes for tensor in {*baked.parameters(), *baked.buffers()} - weights)
    dense = csr = bitmask = rest
    for weight in weights:
        s, n, z, r = weight.itemsize, weight.numel(), int(weight.count_nonzero()), len(weight)
        dense += n * s  # eq-gain-bytes
        csr += z * (s + 4) + 4 * (r + 1)
        bitmask += (n + 7) // 8 + z * s
    return Bytes(dense, csr, bitmask)


def latency(model: nn.Module, images: Tensor, rounds: int = 30) -> Latency:
    """Return the time of a forward pass over all images, in eval and inference mode, after a warm-up.

    Args:
        model: Timed as it is, on the device of the images.
        images: (batch, ...) one batch.
        rounds: Timed passes, at least 1; the median and the quartiles are over these.

    Raises:
        ValueError: `rounds` is below 1.
    """
    times = latencies({"model": model}, images, rounds)["model"]
    lower, median, upper = times.quantile(torch.tensor([0.25, 0.5, 0.75], device="cpu")).tolist()
    return Latency(median, lower, upper, len(images), torch.get_num_threads())


def latencies(models: Mapping[Key, nn.Module], images: Tensor, rounds: int = 30) -> dict[Key, Tensor]:
    """Return the milliseconds (rounds,) of a forward pass of each model; they take turns in every round.

    A machine that is busy for a while slows all models of that round, so compare within rounds:
    `(times["dense"] / times["small"]).median()`.

    Args:
        models: By name, on the device of the images; timed in eval and inference mode.
        images: (batch, ...) one batch.
        rounds: How often each model is timed, at least 1, after three rounds that do not count.

    Raises:
        ValueError: `rounds` is below 1.
    """
    require_at_least("rounds", rounds, 1)
    times: dict[Key, list[float]] = {name: [] for name in models}
    for _ in range(3 + rounds):
        for name, model in models.items():
            with evaluating(model), torch.inference_mode():
                model(images)  # brings its weights back into the cache, which the others have filled
                _wait(images)
                start = time.perf_counter()
                model(images)
                _wait(images)
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: torch.tensor(each[3:], device="cpu") for name, each in times.items()}


def _wait(images: Tensor) -> None:
    """Wait until the device has finished: a GPU is still computing when Python goes on."""
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    elif images.is_mps:
        torch.mps.synchronize()
