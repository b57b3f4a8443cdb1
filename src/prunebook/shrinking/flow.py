"""What each channel of a network carries, and who needs it: the analysis behind `shrink` and `costs`.

One pass forward through the graph finds the channels that are constant (nothing that varies reaches them),
one pass backward the channels that an output depends on. A channel that is constant or not needed may go;
channels that are added to each other go together.

Batches come first: linear layers are taken to read (batch, features), convolutions (batch, channels,
space...). Whatever is not in the tables at the end of this file is left whole, with its reason.

Chapter: book/units.ipynb
"""

import copy
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunebook.shrinking.graph import (
    arguments,
    asks_batch_size,
    count_uses,
    is_batch_size,
    name_of,
    tensors,
    trace,
)

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MIXING = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NAN = float("nan")


@dataclass(eq=False)
class Channels:
    """The channels of one tensor in the graph.

    Attributes:
        ids: (C,) names of channels; positions with the same id stay or go together.
        value: (C,) what a constant channel holds, at each place of each image; NaN where it varies.
        rank: dimensions of the tensor, channels being dimension 1.
        flat: whether dimensions 1.. were flattened, by a factor that the layer which reads it knows.
        need: (C,) whether an output depends on what varies in the channel.
    """

    ids: Tensor
    value: Tensor
    rank: int
    flat: bool
    need: Tensor

    @property
    def varies(self) -> Tensor:
        """Which channels are not known to be constant, (C,)."""
        return self.value.isnan()

    @property
    def live(self) -> Tensor:
        """Which channels carry something from an input to an output, (C,)."""
        return self.need & self.varies


@dataclass(eq=False, frozen=True)
class Mix:
    """A layer that mixes channels: a constant input i adds total_ji times itself to output j.

    Attributes:
        name: of the layer.
        source: channels that it reads.
        out: channels that it writes.
        total: (out, in) its weights in float64, summed over the kernel.
        passes: (in,) constants that it turns into constants; zero where it cannot.
    """

    name: str
    source: Channels
    out: Channels
    total: Tensor
    passes: Tensor


class Flow:
    """Channel analysis of a plain network in eval mode.

    Attributes:
        layers: what each layer with units writes, by name, in order of execution.
        mixes: those of them that can lose rows and columns.
        scales: (name, channels) of the layers that work channel by channel.
        keep: (ids,) what has to stay.
        reasons: why a channel that carries nothing stays, by id.
        whole: why a layer is left whole, by name.
        inputs: channels of the network's input, by the layer that reads them.

    Args:
        model: a network without parametrizations.
        borders: whether zero-padding turns a constant into something that varies. It does, for equality;
            it is no path from an input, for counting.

    Raises:
        ValueError: torch.fx cannot trace the network, a layer is uninitialised, or an in-place
            operation overwrites a tensor that is read again.
    """

    def __init__(self, model: nn.Module, borders: bool = True) -> None:
        self.model = model
        self.borders = borders
        self.layers: dict[str, Channels] = {}
        self.mixes: list[Mix] = []
        self.scales: list[tuple[str, Channels]] = []
        self.reasons: dict[int, str] = {}
        self.whole: dict[str, str] = {}
        self.inputs: dict[str, Channels] = {}
        self._states: list[Channels] = []
        self._pinned: list[Tensor] = []
        self._ties: list[tuple[Tensor, Tensor]] = []
        self._pulls: list[Callable[[], None]] = []
        self._count = 0
        graph = trace(model)
        self._uses = count_uses(model, graph)
        self._env: dict[fx.Node, Channels | None] = {}
        self._raw: set[fx.Node] = set()
        for node in graph.nodes:
            self._visit(node)
        for pull in reversed(self._pulls):
            pull()
        self.keep = self._settle()

    def module(self, node: fx.Node) -> nn.Module:
        """The module that a node calls."""
        return self.model.get_submodule(str(node.target))

    def channels(self, node: fx.Node) -> Channels | None:
        """What a node holds; None where that is not known."""
        return self._env[node]

    def sources(self, node: fx.Node) -> list[Channels | None]:
        """What the inputs of a node hold."""
        return [self.channels(source) for source in node.all_input_nodes]

    def make(self, ids: Tensor, value: Tensor, rank: int, flat: bool = False) -> Channels:
        """New channels under the given ids; a constant that is not finite counts as varying."""
        value = value.where(value.isfinite(), NAN)
        made = Channels(ids, value, rank, flat, torch.zeros(len(ids), dtype=torch.bool))
        self._states.append(made)
        return made

    def fresh(self, value: Tensor, rank: int) -> Channels:
        """New channels under new ids."""
        self._count += len(value)
        return self.make(torch.arange(self._count - len(value), self._count), value, rank)

    def copies(self, out: Channels, source: Channels, index: Tensor | None = None, start: int = 0) -> None:
        """Say that channel start + p of `out` is made of channel index[p] of `source` alone."""
        index = torch.arange(len(source.ids)) if index is None else index

        def pull() -> None:
            source.need[index[out.live[start : start + len(index)]]] = True

        self._pulls.append(pull)

    def pin(self, source: Channels, reason: str) -> None:
        """Keep all channels, since something that cannot be followed reads them."""
        source.need[:] = True
        self.explain(source.ids, reason)

    def explain(self, ids: Tensor, reason: str) -> None:
        """Note why these channels may have to stay; the first reason counts."""
        for i in ids.tolist():
            self.reasons.setdefault(i, reason)

    def read(self, node: fx.Node, count: int, rank: int) -> Channels:
        """The channels that a layer reads: `count` of them in a tensor of `rank` dimensions.

        Flattened space is unfolded here, where the factor is known. Unknown channels get new ids and stay.
        """
        before = node.all_input_nodes[0]
        source = self._env[before]
        if source is not None and _fits(source, count, rank):
            if not source.flat:
                return source
            index = torch.arange(len(source.ids)).repeat_interleave(count // len(source.ids))
            wide = self.make(source.ids[index], source.value[index], rank)
            self.copies(wide, source, index)
            return wide
        if source is not None:
            self.pin(source, f"{node.target} reads them along another dimension")
        unknown = self.fresh(torch.full((count,), NAN, dtype=torch.float64), rank)
        self._pinned.append(unknown.ids)
        if before in self._raw:
            self.inputs[str(node.target)] = unknown
        return unknown

    def mix(self, node: fx.Node, source: Channels, weight: Tensor, pads: bool) -> Channels:
        """Channels after a layer that mixes those of `source` with (out, in, kernel) weights."""
        blocked = source.value != 0 if pads else source.varies  # NaN != 0: what varies is blocked as well
        linked = (weight != 0).any(2)
        total = weight.sum(2)
        passes = source.value.where(~blocked, 0.0)
        value = total @ passes + bias_of(self.module(node))
        reads = linked & blocked
        out = self.fresh(value.where(~reads.any(1), NAN), source.rank)

        def pull() -> None:
            source.need |= reads[out.live].any(0)

        self._pulls.append(pull)
        self.explain(source.ids[blocked & ~source.varies & linked.any(0)], f"{node.target} pads with zeros")
        self.layers[str(node.target)] = out
        self.mixes.append(Mix(str(node.target), source, out, total, passes))
        return out

    def same(self, value: Tensor, *sources: Channels) -> Channels:
        """Channels after something that works channel by channel, on all `sources` at once."""
        first = sources[0]
        out = self.make(first.ids, value, first.rank, first.flat)
        for source in sources:
            self.copies(out, source)
        self._ties += [(first.ids, other.ids) for other in sources[1:]]
        return out

    def scale(self, node: fx.Node, value: Tensor, source: Channels) -> Channels:
        """Channels after a layer that has parameters for each channel."""
        out = self.same(value, source)
        self.scales.append((str(node.target), out))
        return out

    def _visit(self, node: fx.Node) -> None:
        sources = [source for source in self.sources(node) if source is not None]
        rule, why = self._rule(node)
        out = rule(self, node) if rule else None
        self._env[node] = out
        if out is not None or asks_batch_size(node):
            return
        if node.op == "placeholder" or (node.all_input_nodes and self._raw.issuperset(node.all_input_nodes)):
            self._raw.add(node)
        for source in sources:
            self.pin(source, why)
        if node.op == "call_module" and any(True for _ in self.module(node).parameters()):
            self._raw.discard(node)
            self.whole[str(node.target)] = why

    def _rule(self, node: fx.Node) -> tuple["Rule | None", str]:
        """How a node treats channels, and what to say where it cannot be followed."""
        if node.op == "output":
            return None, "the network returns them"
        if node.op in ("call_function", "call_method"):
            return rule_of(self.model, node), f"{node.name} is not followed"
        if node.op != "call_module":
            return None, f"{node.name} is not followed"
        module = self.module(node)
        if module._forward_hooks or module._forward_pre_hooks:
            return None, f"{node.target} has hooks"
        if any(self._uses[id(tensor)] > 1 for tensor in tensors(module)):
            return None, f"{node.target} is called twice or shares its parameters"
        return rule_of(self.model, node), f"{node.target} ({type(module).__name__}) is not followed"

    def _settle(self) -> Tensor:
        """Which ids stay: what is needed, what is tied to it, and one channel of each layer."""
        keep = torch.zeros(self._count, dtype=torch.bool)
        for state in self._states:
            keep[state.ids[state.need]] = True
        for ids in self._pinned:
            keep[ids] = True
        self._couple(keep)
        for mix in self.mixes:
            if not keep[mix.out.ids].any():
                keep[mix.out.ids[0]] = True
                self.explain(mix.out.ids[:1], "a layer keeps one unit")
                self._couple(keep)
        return keep

    def _couple(self, keep: Tensor) -> None:
        """Keep what is tied to something kept, until nothing changes."""
        before = -1
        while int(keep.sum()) != before:
            before = int(keep.sum())
            for one, other in self._ties:
                either = keep[one] | keep[other]
                keep[one[either]] = True
                keep[other[either]] = True


Rule: TypeAlias = Callable[[Flow, fx.Node], Channels | None]


def matrix(layer: nn.Module) -> Tensor:
    """The weights of a linear layer or convolution, (out, in, kernel) in float64 on the CPU."""
    weight = layer.get_parameter("weight").detach().double().cpu()
    weight = weight.reshape(*weight.shape[:2], -1)
    return weight.transpose(0, 1) if isinstance(layer, TRANSPOSED) else weight


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a convolution has one filter for each channel and mixes none."""
    return isinstance(layer, CONVOLUTIONS) and 1 < layer.groups == layer.in_channels == layer.out_channels


def _fits(source: Channels, count: int, rank: int) -> bool:
    """Whether a layer that reads `count` channels in `rank` dimensions reads exactly these."""
    channels = len(source.ids)
    if not source.flat:
        return source.rank == rank and channels == count
    return rank == 2 and (channels == count or (source.rank > 2 and count % channels == 0))


def bias_of(layer: nn.Module) -> Tensor:
    """The biases of a layer in float64 on the CPU; one zero for a layer without."""
    bias = getattr(layer, "bias", None)
    return torch.zeros(1).double() if bias is None else bias.detach().double().cpu()


def _pads(layer: nn.Module) -> bool:
    """Whether zeros from beyond the border enter the outputs."""
    if isinstance(layer, TRANSPOSED):
        return True  # at its borders fewer weights meet the input, whatever the padding
    if not isinstance(layer, CONVOLUTIONS) or layer.padding_mode != "zeros":
        return False
    if isinstance(layer.padding, str):
        return layer.padding == "same" and any(size > 1 for size in layer.kernel_size)
    return any(layer.padding)


def _mix(flow: Flow, node: fx.Node) -> Channels | None:
    layer = flow.module(node)
    rank = 2 + len(getattr(layer, "kernel_size", ()))
    pads = flow.borders and _pads(layer)
    if getattr(layer, "groups", 1) > 1:
        return _depthwise(flow, node, rank, pads) if is_depthwise(layer) else None
    weight = matrix(layer)
    return flow.mix(node, flow.read(node, weight.shape[1], rank), weight, pads)


def _depthwise(flow: Flow, node: fx.Node, rank: int, pads: bool) -> Channels | None:
    layer, source = flow.module(node), flow.sources(node)[0]
    weight = matrix(layer).flatten(1)
    if source is None or source.flat or not _fits(source, len(weight), rank):
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
    if rank not in _norm_ranks(layer) or not _fits(source, layer.num_features, rank):
        return None
    source = flow.read(node, layer.num_features, rank)
    value = (source.value - layer.running_mean.cpu()) / (layer.running_var.double().cpu() + layer.eps).sqrt()
    if layer.affine:
        gamma = layer.weight.detach().double().cpu()
        value = (gamma * value).where(gamma != 0, 0.0) + bias_of(layer)
    return flow.scale(node, value, source)


def _norm_ranks(layer: nn.Module) -> tuple[int, ...]:
    """Dimensions of what a BatchNorm reads."""
    if isinstance(layer, nn.BatchNorm1d):
        return 2, 3
    return (4,) if isinstance(layer, nn.BatchNorm2d) else (5,)


def _prelu(flow: Flow, node: fx.Node) -> Channels | None:
    slope, source = flow.module(node).get_parameter("weight").detach().double().cpu(), flow.sources(node)[0]
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


def _identity(flow: Flow, node: fx.Node) -> Channels | None:
    source = flow.sources(node)[0]
    random = node.target in _DROPOUTS and node.kwargs.get("training") is not False
    return None if source is None or random else flow.same(source.value, source)


def _is_total(node: fx.Node) -> bool:
    """Whether a node makes a finite number of each finite number."""
    return name_of(node) not in _DIVISIONS or not isinstance(node.args[1], fx.Node)


def _evaluate(flow: Flow, node: fx.Node) -> Tensor:
    """What an element-wise node makes of the constants that it reads, (C,)."""

    def constants(source: fx.Node) -> Any:
        channels = flow.channels(source)
        return None if channels is None else channels.value.clone()

    args = fx.node.map_arg(node.args, constants)
    kwargs = fx.node.map_arg(node.kwargs, constants)
    call: Any = node.target
    if node.op == "call_module":
        call = copy.copy(flow.module(node)).eval()
    elif isinstance(call, str):
        call = getattr(Tensor, call)
    return torch.as_tensor(call(*args, **kwargs))


def _pool(flow: Flow, node: fx.Node) -> Channels | None:
    source = flow.sources(node)[0]
    options = vars(flow.module(node)) if node.op == "call_module" else node.kwargs
    if source is None or source.flat or source.rank == 2 or options.get("return_indices"):
        return None
    keeps = _keeps_constants(node, options)
    return flow.same(source.value if keeps else source.value.where(source.value == 0, NAN), source)


def _keeps_constants(node: fx.Node, options: Mapping[str, Any]) -> bool:
    """Whether pooling a constant gives that constant; an average with zeros around it does not."""
    if node.op == "call_module":
        padded = any(torch.tensor(options.get("padding", 0)).flatten()) and options.get("count_include_pad")
        return not padded and options.get("divisor_override") is None
    averages = node.target in (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
    harmless = len(node.args) <= 3 and {"kernel_size", "stride", "ceil_mode"}.issuperset(options)
    return harmless or not averages


def _average(flow: Flow, node: fx.Node) -> Channels | None:
    """x.mean(dim) over all of space."""
    source, options = flow.sources(node)[0], arguments(node, "dim", "keepdim")
    dim = options.get("dim")
    dims = dim if isinstance(dim, (tuple, list)) else (dim,)
    if source is None or source.flat or source.rank == 2 or not all(isinstance(d, int) for d in dims):
        return None
    if {d % source.rank for d in dims} != set(range(2, source.rank)):
        return None
    out = flow.make(source.ids, source.value, source.rank if options.get("keepdim") else 2)
    flow.copies(out, source)
    return out


def _flatten(flow: Flow, node: fx.Node) -> Channels | None:
    source = flow.sources(node)[0]
    if source is None or source.flat or not _flattens(flow, node):
        return None
    out = flow.make(source.ids, source.value, source.rank, flat=True)
    flow.copies(out, source)
    return out


def _flattens(flow: Flow, node: fx.Node) -> bool:
    """Whether dimensions 1.. become one: nn.Flatten(), torch.flatten(x, 1), x.view(x.size(0), -1)."""
    if name_of(node) in ("view", "reshape"):
        shape = node.args[1] if len(node.args) == 2 else node.args[1:]
        pair = shape if isinstance(shape, (tuple, list)) and len(shape) == 2 else (None, None)
        return is_batch_size(pair[0]) and bool(pair[1] == -1)
    options = vars(flow.module(node)) if node.op == "call_module" else arguments(node, "start_dim", "end_dim")
    return (options.get("start_dim", 0), options.get("end_dim", -1)) == (1, -1)


def _cat(flow: Flow, node: fx.Node) -> Channels | None:
    """torch.cat along the channels."""
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
    """The functions of these names; tensor methods are known by name alone."""
    return [getattr(place, name) for place in places for name in names.split() if hasattr(place, name)]


def _modules(names: str) -> tuple[type, ...]:
    return tuple(getattr(nn, name) for name in names.split())


_POOLS = [f"{kind}Pool{n}d" for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg") for n in (1, 2, 3)]
_POOLED = [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for n in (1, 2, 3)]
_DROPOUTS = [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout]
_IDENTITIES = "Identity Dropout Dropout1d Dropout2d Dropout3d AlphaDropout"
_DIVISIONS = ("div", "div_", "truediv", "itruediv")
# Element by element, and finite wherever the input is.
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
    MIXING: _mix,
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
# Rules that leave every unit on its own: what they make of one unit comes from that unit alone.
PASSING = (_elementwise, _identity, _prelu, _flatten)


def rule_of(model: nn.Module, node: fx.Node) -> Rule | None:
    """The rule of a module, function or method that a node calls; None where there is none."""
    if node.op != "call_module":
        return FUNCTIONS.get(node.target)
    module = model.get_submodule(str(node.target))
    return next((rule for kinds, rule in MODULES.items() if isinstance(module, kinds)), None)
