"""Make a pruned network small: units that carry nothing are taken out, and the outputs stay the same.

A zero costs as much time as any other number; a unit that is gone costs none. Removing unit j of a layer is
removing row j there and column j in each layer that reads it. A unit without incoming weights still says
act(bias), always the same, so the layers that read it take that over into their own biases.

Chapter: book/units.ipynb
"""

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor, nn

from prunebook.masking import bake, masks
from prunebook.shrinking.flow import BATCH_NORMS, TRANSPOSED, Channels, Flow, Mix


@dataclass(frozen=True)
class Report:
    """What `shrink` did and did not do.

    Attributes:
        units: (before, after) of each layer that was looked at.
        idle: units that carry nothing and stay all the same: how many for which reason, by layer.
        whole: layers left as they are, and why.
        unused_inputs: inputs of the network that a first layer does not use, by layer.
    """

    units: dict[str, tuple[int, int]]
    idle: dict[str, dict[str, int]]
    whole: dict[str, str]
    unused_inputs: dict[str, tuple[int, ...]]

    def __str__(self) -> str:
        """One line for each layer, then what stays and why."""
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
    """A smaller, plain network with the same outputs in eval mode; `model` stays as it is.

    Removes every unit (row of a linear layer, filter of a convolution) that is constant or that no output
    depends on, until none is left; constants move into the biases that follow. Outputs of the network
    and its inputs stay, and so does one unit of each layer. What cannot be proved safe stays and is
    reported, such as a constant that enters a zero-padded convolution: at the border it is not constant.
    In train mode the outputs differ where BatchNorm takes statistics from the batch.

    Args:
        model: reads batches, (batch, features) or (batch, channels, space...); masked or plain.
        report: whether to return (network, Report).

    Raises:
        ValueError: torch.fx cannot trace the network, a layer is lazy and not initialised, or a tensor
            is overwritten in place and read again.
    """
    small = plain(model)
    flow = Flow(small)
    with torch.no_grad():
        for mix in flow.mixes:
            _slice_mix(small.get_submodule(mix.name), mix, flow.keep)
        for name, channels in flow.scales:
            _slice_scale(small.get_submodule(name), flow.keep[channels.ids])
    return (small, _report(flow)) if report else small


def plain(model: nn.Module) -> nn.Module:
    """A copy whose masks are baked into plain weights.

    Raises:
        ValueError: A layer has a parametrization that is no mask, such as weight normalisation.
    """
    baked = copy.deepcopy(model)
    if masks(baked):
        bake(baked)
    foreign = [name for name, module in baked.named_modules() if hasattr(module, "parametrizations")]
    if foreign:
        raise ValueError(f"model must have no parametrizations but masks, got others in {foreign}")
    return baked


def _slice_mix(layer: nn.Module, mix: Mix, keep: Tensor) -> None:
    """Take out rows and columns, and let the bias say what removed constants said."""
    rows, columns = keep[mix.out.ids], keep[mix.source.ids]
    fold = (mix.total[:, ~columns] @ mix.passes[~columns])[rows]
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
    """Take out channels of a BatchNorm, a PReLU or a depthwise convolution."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        _take(layer, name, kept)
    for name in ("num_features", "num_parameters", "in_channels", "out_channels", "groups"):
        if hasattr(layer, name):
            setattr(layer, name, int(kept.sum()))


def _take(layer: nn.Module, name: str, kept: Tensor, axis: int = 0) -> None:
    """Keep these entries of a parameter or buffer along an axis."""
    tensor = getattr(layer, name, None)
    if tensor is None or kept.all():
        return
    part = tensor.detach().index_select(axis, kept.nonzero().flatten().to(tensor.device))
    is_parameter = isinstance(tensor, nn.Parameter)
    setattr(layer, name, nn.Parameter(part, tensor.requires_grad) if is_parameter else part)


def _add_to_bias(layer: nn.Module, fold: Tensor) -> None:
    """Add constants, in float64 before rounding; a layer without bias gets one."""
    weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
    total = fold if bias is None else fold + bias.detach().double().cpu()
    layer.bias = nn.Parameter(total.to(weight), weight.requires_grad if bias is None else bias.requires_grad)


def _report(flow: Flow) -> Report:
    units = {name: (len(out.ids), int(flow.keep[out.ids].sum())) for name, out in flow.layers.items()}
    idle = {name: _idle(flow, out) for name, out in flow.layers.items()}
    first = flow.inputs.items()
    unused = {name: tuple((~source.need).nonzero().flatten().tolist()) for name, source in first}
    return Report(
        units,
        {name: reasons for name, reasons in idle.items() if reasons},
        flow.whole,
        {name: columns for name, columns in unused.items() if columns},
    )


def _idle(flow: Flow, out: Channels) -> dict[str, int]:
    """Why units stay that carry nothing."""
    ids = out.ids[flow.keep[out.ids] & ~out.live].tolist()
    return dict(Counter(flow.reasons.get(i, "the channel is needed further on") for i in ids))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The network in eval mode, without gradients; each module's own mode comes back afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            yield model.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode


def recalibrate(model: nn.Module, images: Tensor, batch_size: int = 500) -> nn.Module:
    """Measure BatchNorm's running statistics anew, in place: masking has moved them.

    Each layer takes the mean over batches of nearly equal size, through all images once, with everything
    else in eval mode. A network without BatchNorm stays as it is.

    Args:
        model: on the device of the images.
        images: (n, ...) inputs of the network, n >= 2.
        batch_size: so many images at a time at most, at least 2; one more where one would be left alone.

    Raises:
        ValueError: fewer than two images, or a batch size below 2.
    """
    if len(images) < 2 or batch_size < 2:
        raise ValueError(f"images, batch_size: got {len(images)} and {batch_size}, need at least 2 of each")
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
