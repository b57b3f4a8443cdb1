"""Say what each kind of module and function does to the channels that it reads.

The batch is dimension 0: linear layers are assumed to read (batch, features), and convolutions (batch,
channels, space...). A rule returns the channels that a node writes, or None if it cannot follow the node.
Whatever is not in the tables at the end of this file is left whole, and the reason is reported.

Chapter: book/units.ipynb
"""

import copy
import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunebook.layers import CONVOLUTIONS, MASKABLE, TRANSPOSED
from prunebook.shrinking.flow import NAN, Channels, Flow, Rule
from prunebook.shrinking.graph import BATCH_NORMS, arguments, is_batch_size, name_of


def analyse(model: nn.Module, borders: bool = True) -> Flow:
    """Return the `Flow` of a plain network in eval mode; see there for arguments and errors."""
    return Flow(model, rule_of, borders)


def rule_of(model: nn.Module, node: fx.Node) -> Rule | None:
    """Return the rule of the module, function or method that a node calls, or None where there is none."""
    if node.op != "call_module":
        return FUNCTIONS.get(node.target)
    module = model.get_submodule(str(node.target))
    return next((rule for kinds, rule in MODULES.items() if isinstance(module, kinds)), None)


def matrix(layer: nn.Module) -> Tensor:
    """Return the weights of a linear layer or convolution, (out, in, kernel) in float64 on the CPU."""
    weight = _double(layer.get_parameter("weight"))
    weight = weight.reshape(*weight.shape[:2], -1)
    return weight.transpose(0, 1) if isinstance(layer, TRANSPOSED) else weight


def bias_of(layer: nn.Module) -> Tensor:
    """Return the biases of a layer in float64 on the CPU, or a single zero if it has none."""
    bias = getattr(layer, "bias", None)
    return torch.zeros(1, device="cpu").double() if bias is None else _double(bias)


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().double().cpu()


def _mix(flow: Flow, node: fx.Node) -> Channels | None:
    """Follow a linear layer or a convolution."""
    layer = flow.module(node)
    rank = 2 + len(getattr(layer, "kernel_size", ()))
    pads = flow.borders and _pads(layer)
    if getattr(layer, "groups", 1) > 1:
        return _depthwise(flow, node, rank, pads)
    weight = matrix(layer)
    return flow.mix(node, flow.read(node, weight.shape[1], rank), weight, bias_of(layer), pads)


def _pads(layer: nn.Module) -> bool:
    """Return whether zeros beyond the border enter the outputs."""
    if isinstance(layer, TRANSPOSED):
        return True  # at its borders fewer weights meet the input, whatever the padding
    if not isinstance(layer, CONVOLUTIONS) or layer.padding_mode != "zeros":
        return False
    if isinstance(layer.padding, str):
        return layer.padding == "same" and any(size > 1 for size in layer.kernel_size)
    return any(layer.padding)


def _depthwise(flow: Flow, node: fx.Node, rank: int, pads: bool) -> Channels | None:
    """Follow a convolution that has one filter for each channel and mixes none."""
    layer, source = flow.module(node), flow.sources(node)[0]
    if not isinstance(layer, CONVOLUTIONS) or not layer.groups == layer.in_channels == layer.out_channels:
        return None
    weight = matrix(layer).flatten(1)
    if source is None or source.flat or not source.fits(len(weight), rank):
        return None
    blocked = source.value != 0 if pads else source.varies
    value = (source.value * weight.sum(1)).where(~blocked, NAN).where((weight != 0).any(1), 0.0)
    out = flow.layers[str(node.target)] = flow.scale(node, value + bias_of(layer), source)
    return out


def _batch_norm(flow: Flow, node: fx.Node) -> Channels | None:
    layer, source = flow.module(node), flow.sources(node)[0]
    assert isinstance(layer, BATCH_NORMS)
    if source is None or layer.running_mean is None or layer.running_var is None:
        return None  # without running statistics it mixes the images of a batch
    rank = 2 if source.flat else source.rank
    reads = next(ranks for kind, ranks in _NORM_RANKS.items() if isinstance(layer, kind))
    if rank not in reads or not source.fits(layer.num_features, rank):
        return None
    source = flow.read(node, layer.num_features, rank)
    value = (source.value - layer.running_mean.cpu()) / (layer.running_var.double().cpu() + layer.eps).sqrt()
    if layer.affine:
        gamma = _double(layer.weight)
        value = (gamma * value).where(gamma != 0, 0.0) + bias_of(layer)
    return flow.scale(node, value, source)


def _prelu(flow: Flow, node: fx.Node) -> Channels | None:
    slope, source = _double(flow.module(node).get_parameter("weight")), flow.sources(node)[0]
    if source is None or source.flat or len(slope) not in (1, len(source.ids)):
        return None
    value = source.value.where(source.value > 0, slope * source.value)
    return flow.same(value, source) if len(slope) == 1 else flow.scale(node, value, source)


def _elementwise(flow: Flow, node: fx.Node) -> Channels | None:
    sources = [source for source in flow.sources(node) if source is not None]
    alike = {(len(source.ids), source.rank, source.flat) for source in sources}
    if len(alike) != 1 or len(sources) < len(node.all_input_nodes) or not _is_total(node):
        return None
    value = _evaluate(flow, node)
    if value.shape != sources[0].value.shape:
        return None
    varies = torch.stack([source.varies for source in sources]).any(0)
    return flow.same(value.where(~varies, NAN), *sources)


def _is_total(node: fx.Node) -> bool:
    """Return whether a node maps finite numbers to finite numbers; division by a tensor may not."""
    return name_of(node) not in _DIVISIONS or not isinstance(node.args[1], fx.Node)


def _evaluate(flow: Flow, node: fx.Node) -> Tensor:
    """Return the result of an element-wise node on the constants that it reads, (C,)."""

    def constants(source: fx.Node) -> Any:
        channels = flow.held[source]
        return None if channels is None else channels.value.clone()

    args = fx.node.map_arg(node.args, constants)
    kwargs = fx.node.map_arg(node.kwargs, constants)
    call: Any = node.target
    if node.op == "call_module":
        call = copy.copy(flow.module(node)).eval()
    elif isinstance(call, str):
        call = getattr(Tensor, call)
    return torch.as_tensor(call(*args, **kwargs), device="cpu")


def _identity(flow: Flow, node: fx.Node) -> Channels | None:
    source = flow.sources(node)[0]
    random = node.target in _DROPOUTS and node.kwargs.get("training") is not False
    return None if source is None or random else flow.same(source.value, source)


def _pool(flow: Flow, node: fx.Node) -> Channels | None:
    source = flow.sources(node)[0]
    options = vars(flow.module(node)) if node.op == "call_module" else node.kwargs
    if source is None or source.flat or source.rank == 2 or options.get("return_indices"):
        return None
    keeps = _keeps_constants(node, options)
    return flow.same(source.value if keeps else source.value.where(source.value == 0, NAN), source)


def _keeps_constants(node: fx.Node, options: Mapping[str, Any]) -> bool:
    """Return whether pooling a constant gives that constant; averaging over padded zeros does not."""
    if node.op == "call_module":
        padding = torch.tensor(options.get("padding", 0), device="cpu")
        padded = any(padding.flatten()) and options.get("count_include_pad")
        return not padded and options.get("divisor_override") is None
    averages = node.target in (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
    harmless = len(node.args) <= 3 and {"kernel_size", "stride", "ceil_mode"}.issuperset(options)
    return harmless or not averages


def _average(flow: Flow, node: fx.Node) -> Channels | None:
    """Follow x.mean(dim) over all spatial dimensions."""
    source, options = flow.sources(node)[0], arguments(node, "dim", "keepdim")
    dim = options.get("dim")
    dims = dim if isinstance(dim, (tuple, list)) else (dim,)
    if source is None or source.flat or source.rank == 2 or not all(isinstance(d, int) for d in dims):
        return None
    if {d % source.rank for d in dims} != set(range(2, source.rank)):
        return None
    return flow.same(source.value, source, rank=source.rank if options.get("keepdim") else 2)


def _flatten(flow: Flow, node: fx.Node) -> Channels | None:
    source = flow.sources(node)[0]
    if source is None or source.flat or not _flattens(flow, node):
        return None
    return flow.same(source.value, source, flat=True)


def _flattens(flow: Flow, node: fx.Node) -> bool:
    """Return whether dimensions 1.. become one: nn.Flatten(), torch.flatten(x, 1), x.view(x.size(0), -1)."""
    if name_of(node) in ("view", "reshape"):
        shape = node.args[1] if len(node.args) == 2 else node.args[1:]
        pair = shape if isinstance(shape, (tuple, list)) and len(shape) == 2 else (None, None)
        return is_batch_size(pair[0]) and bool(pair[1] == -1)
    options = vars(flow.module(node)) if node.op == "call_module" else arguments(node, "start_dim", "end_dim")
    return (options.get("start_dim", 0), options.get("end_dim", -1)) == (1, -1)


def _cat(flow: Flow, node: fx.Node) -> Channels | None:
    """Follow torch.cat along the channels."""
    dim, listed = arguments(node, "dim").get("dim", 0), node.args[0] if node.args else None
    known = [part for part in flow.sources(node) if part is not None and not part.flat]
    ranks = {part.rank for part in known}
    if not isinstance(listed, (tuple, list)) or len(known) != len(listed):
        return None  # something in the list is not known, or is in it twice
    if len(ranks) != 1 or dim % (rank := ranks.pop()) != 1:
        return None
    out = flow.make(torch.cat([part.ids for part in known]), torch.cat([part.value for part in known]), rank)
    start = 0
    for part in known:
        flow.copies(out, part, start=start)
        start += len(part.ids)
    return out


def _called(names: str, *places: Any) -> list[Any]:
    """Return the functions with these names in the given places."""
    return [getattr(place, name) for place in places for name in names.split() if hasattr(place, name)]


def _modules(names: str) -> tuple[type, ...]:
    return tuple(getattr(nn, name) for name in names.split())


_NORM_RANKS = {
    nn.BatchNorm1d: (2, 3),
    nn.BatchNorm2d: (4,),
    nn.BatchNorm3d: (5,),
    nn.SyncBatchNorm: (2, 3, 4, 5),
}
_POOLS = [f"{kind}Pool{n}d" for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg") for n in (1, 2, 3)]
_POOLED = [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for n in (1, 2, 3)]
_DROPOUTS = [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout]
_IDENTITIES = "Identity Dropout Dropout1d Dropout2d Dropout3d AlphaDropout"
_DIVISIONS = ("div", "div_", "truediv", "itruediv")
# These work element by element, and are finite wherever their input is.
_ELEMENTWISE = (
    "relu relu_ relu6 leaky_relu elu selu celu gelu silu mish sigmoid sigmoid_ logsigmoid tanh tanh_ "
    "tanhshrink hardtanh hardsigmoid hardswish softplus softsign hardshrink softshrink abs square neg clamp "
    "maximum minimum add add_ iadd sub sub_ isub mul mul_ imul div div_ truediv itruediv"
)
_ACTIVATIONS = (
    "ReLU ReLU6 LeakyReLU RReLU ELU SELU CELU GELU SiLU Mish Sigmoid LogSigmoid Tanh Tanhshrink Hardtanh "
    "Hardsigmoid Hardswish Softplus Softsign Hardshrink Softshrink Threshold"
)
MODULES: dict[tuple[type, ...], Rule] = {
    MASKABLE: _mix,
    BATCH_NORMS: _batch_norm,
    (nn.PReLU,): _prelu,
    _modules(_ACTIVATIONS): _elementwise,
    _modules(_IDENTITIES): _identity,
    _modules(" ".join(_POOLS)): _pool,
    (nn.Flatten,): _flatten,
}
FUNCTIONS: dict[Any, Rule] = {
    **dict.fromkeys([*_called(_ELEMENTWISE, torch, F, operator), *_ELEMENTWISE.split()], _elementwise),
    **dict.fromkeys([*_DROPOUTS, "contiguous"], _identity),
    **dict.fromkeys(_called(" ".join(_POOLED), F), _pool),
    **dict.fromkeys([torch.mean, "mean"], _average),
    **dict.fromkeys([torch.flatten, torch.reshape, "flatten", "view", "reshape"], _flatten),
    **dict.fromkeys([torch.cat, torch.concat], _cat),
}
# Rules under which each output unit depends on a single input unit.
PASSING = (_elementwise, _identity, _prelu, _flatten)
