"""Make a pruned network small: remove the units that carry nothing, and keep the outputs the same.

A zero costs as much time as any other number, but a removed unit costs none. Removing unit j of a layer means
removing row j there, and column j in each layer that reads it. A unit without incoming weights still outputs
act(bias), the same number for every input, so its effect is added to the biases of the layers that read it.

Chapter: book/units.ipynb
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor, nn

from prunebook.layers import TRANSPOSED
from prunebook.masking import unmasked
from prunebook.shrinking.flow import Channels, Flow, Mix
from prunebook.shrinking.graph import BATCH_NORMS
from prunebook.shrinking.rules import analyse


@dataclass(frozen=True)
class Report:
    """What `shrink` did, and what it left.

    Attributes:
        units: By layer, the number of units (before, after).
        idle: By layer, how many units stay although they carry nothing, for each reason.
        whole: By layer, why it was left as it is.
        unused_inputs: By first layer, the inputs of the network that it does not use.
    """

    units: dict[str, tuple[int, int]]
    idle: dict[str, dict[str, int]]
    whole: dict[str, str]
    unused_inputs: dict[str, tuple[int, ...]]

    def __str__(self) -> str:
        """Return one line for each layer, then what stays and why."""
        lines = [f"{name}: {before} -> {after} units" for name, (before, after) in self.units.items()]
        for name, reasons in self.idle.items():
            lines += [f"{name}: {count} idle units stay: {reason}" for reason, count in reasons.items()]
        lines += [f"{name}: left whole: {reason}" for name, reason in self.whole.items()]
        lines += [f"{name}: {len(unused)} inputs not used" for name, unused in self.unused_inputs.items()]
        return "\n".join(lines)


@overload
def shrink(model: nn.Module, report: Literal[False] = False) -> nn.Module: ...
@overload
def shrink(model: nn.Module, report: Literal[True]) -> tuple[nn.Module, Report]: ...
def shrink(model: nn.Module, report: bool = False) -> nn.Module | tuple[nn.Module, Report]:
    """Return a smaller, plain network with the same outputs in eval mode; `model` does not change.

    Every unit (row of a linear layer, filter of a convolution) that is constant, or on which no output
    depends, is removed. Constants move into the biases that follow. The network keeps its inputs and
    outputs, and each layer at least one unit. A unit whose removal cannot be proved safe stays and is
    reported: a constant that enters a zero-padded convolution, for example, is not constant at the border.
    In train mode the outputs differ where BatchNorm takes statistics from the batch.

    Args:
        model: Reads batches, (batch, features) or (batch, channels, space...); masked or plain.
        report: Whether to return (network, Report).

    Raises:
        ValueError: torch.fx cannot trace the network, a layer is not initialised, a tensor is overwritten in
            place and read again, or as `plain`.
    """
    small = plain(model)
    flow = analyse(small)
    with torch.no_grad():
        for mix in flow.mixes:
            _slice_mix(small.get_submodule(mix.name), mix, flow.keep)
        for name, channels in flow.scales:
            _slice_scale(small.get_submodule(name), flow.keep[channels.ids])
    return (small, _report(flow)) if report else small


def plain(model: nn.Module) -> nn.Module:
    """Return a copy whose masks are baked into plain weights.

    Raises:
        ValueError: A layer has a parametrization that is no mask, such as weight normalisation.
    """
    baked = unmasked(model)
    foreign = [name for name, module in baked.named_modules() if hasattr(module, "parametrizations")]
    if foreign:
        raise ValueError(f"model must have no parametrizations but masks, got others in {foreign}")
    return baked


def _slice_mix(layer: nn.Module, mix: Mix, keep: Tensor) -> None:
    """Remove rows and columns, and add what the removed constants contributed to the bias."""
    rows, columns = keep[mix.out.ids], keep[mix.source.ids]
    fold = (mix.total[:, ~columns] @ mix.passes[~columns])[rows]  # eq-unit-fold
    axes = (1, 0) if isinstance(layer, TRANSPOSED) else (0, 1)
    _take(layer, "weight", rows, axes[0])
    _take(layer, "weight", columns, axes[1])
    _take(layer, "bias", rows)
    if fold.any():
        _add_to_bias(layer, fold)
    kind = "features" if isinstance(layer, nn.Linear) else "channels"
    setattr(layer, f"out_{kind}", int(rows.sum()))
    setattr(layer, f"in_{kind}", int(columns.sum()))


def _slice_scale(layer: nn.Module, kept: Tensor) -> None:
    """Remove channels of a BatchNorm, a PReLU or a depthwise convolution."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        _take(layer, name, kept)
    for name in ("num_features", "num_parameters", "in_channels", "out_channels", "groups"):
        if hasattr(layer, name):
            setattr(layer, name, int(kept.sum()))


def _take(layer: nn.Module, name: str, kept: Tensor, axis: int = 0) -> None:
    """Keep only these entries of a parameter or buffer along an axis."""
    tensor = getattr(layer, name, None)
    if tensor is None or kept.all():
        return
    part = tensor.detach().index_select(axis, kept.nonzero().flatten().to(tensor.device))
    is_parameter = isinstance(tensor, nn.Parameter)
    setattr(layer, name, nn.Parameter(part, tensor.requires_grad) if is_parameter else part)


def _add_to_bias(layer: nn.Module, fold: Tensor) -> None:
    """Add constants to the bias, in float64 before rounding; a layer without bias gets one."""
    weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
    total = fold if bias is None else fold + bias.detach().double().cpu()
    layer.bias = nn.Parameter(total.to(weight), weight.requires_grad if bias is None else bias.requires_grad)


def _report(flow: Flow) -> Report:
    units = {name: (len(out.ids), int(flow.keep[out.ids].sum())) for name, out in flow.layers.items()}
    idle = {name: _idle(flow, out) for name, out in flow.layers.items()}
    unused = {name: (~source.need).nonzero().flatten() for name, source in flow.inputs.items()}
    return Report(
        units,
        {name: reasons for name, reasons in idle.items() if reasons},
        flow.whole,
        {name: tuple(columns.tolist()) for name, columns in unused.items() if len(columns)},
    )


def _idle(flow: Flow, out: Channels) -> dict[str, int]:
    """Count the units that stay although they carry nothing, by reason."""
    ids = out.ids[flow.keep[out.ids] & ~out.live].tolist()
    return dict(Counter(flow.reasons.get(i, "the channel is needed further on") for i in ids))


@contextmanager
def keeping_modes(model: nn.Module) -> Iterator[None]:
    """Restore the mode (train or eval) of each module at the end."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put the network in eval mode, without gradients, and restore the mode of each module at the end."""
    with keeping_modes(model), torch.no_grad():
        yield model.eval()


def recalibrate(model: nn.Module, images: Tensor, batch_size: int = 500) -> nn.Module:
    """Measure BatchNorm's running statistics again, in place, since masking changes them; return the network.

    All images pass once, in batches of nearly equal size, and each BatchNorm takes the mean over the batches.
    Everything else is in eval mode. A network without BatchNorm does not change.

    Args:
        model: A network on the device of the images.
        images: (n, ...) inputs of the network, n >= 2.
        batch_size: Maximum number of images in a batch, at least 2. One batch holds one more where
            an image would otherwise be alone.

    Raises:
        ValueError: Fewer than two images, or a batch size below 2.
    """
    if len(images) < 2 or batch_size < 2:
        raise ValueError(
            f"images and batch_size must each be at least 2, got {len(images)} images and {batch_size}"
        )
    norms = [m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.running_mean is not None]
    momenta = [norm.momentum for norm in norms]
    batches = images.tensor_split(min(-(-len(images) // batch_size), len(images) // 2))
    try:
        with evaluating(model):
            for norm in norms:
                norm.reset_running_stats()
                norm.train().momentum = None  # None: the plain mean over batches
            for batch in batches:
                model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model
