"""The steps of a forward pass as data: how a network of your own class is saved without its code.

`LAYERS` and `OPERATIONS` hold everything that a file may name. Each step is looked up there and carried out.
Nothing in a file is ever turned into source code, compiled or imported.

Chapter: book/what-you-gain.ipynb
"""

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunebook.shrinking.graph import Tracer, name_of, record
from prunebook.shrinking.rules import FUNCTIONS, MODULES
from prunebook.tools.sealed import pack, unpack

# In addition to the layers and operations that `shrink` can follow.
_LAYERS = (
    "Module Sequential ModuleList ModuleDict Embedding LayerNorm GroupNorm RMSNorm LocalResponseNorm "
    "InstanceNorm1d InstanceNorm2d InstanceNorm3d Softmax LogSoftmax GLU Unflatten Upsample PixelShuffle "
    "PixelUnshuffle ZeroPad2d ConstantPad1d ConstantPad2d ReflectionPad1d ReflectionPad2d ReplicationPad2d"
)
_NAMES = (
    "addmm amax amin argmax baddbmm batch_norm bmm chunk clip clone conv1d conv2d conv3d conv_transpose1d "
    "conv_transpose2d conv_transpose3d cos cumsum detach dim double einsum embedding eq erf exp expand "
    "expand_as flip float floor floordiv ge getitem glu group_norm gt half instance_norm interpolate "
    "layer_norm le linear log log1p log_softmax logsumexp lt masked_fill matmul max min mm mod movedim "
    "narrow ne norm normalize numel ones_like pad permute pixel_shuffle pos pow prelu prod repeat "
    "reshape_as roll round rsqrt scaled_dot_product_attention select sin size softmax split sqrt squeeze "
    "stack std sum t to transpose tril triu type_as unflatten unsqueeze var view_as where zeros_like"
)


def _method(method: str, x: Any, *args: Any, **kwargs: Any) -> Any:
    return getattr(x, method)(*args, **kwargs)


_KNOWN = sorted({*_NAMES.split(), *(key if isinstance(key, str) else key.__name__ for key in FUNCTIONS)})
_ATTRIBUTES = ("shape", "ndim", "dtype", "device", "T", "mT")
_PLACES = {"torch": torch, "functional": F, "operator": operator}
LAYERS: dict[str, Any] = {
    **{kind.__name__: kind for kinds in MODULES for kind in kinds},
    **{name: getattr(nn, name) for name in _LAYERS.split()},
}
OPERATIONS: dict[str, Callable[..., Any]] = {
    f"{place}.{name}": getattr(module, name)
    for place, module in _PLACES.items()
    for name in _KNOWN
    if hasattr(module, name)
}
_NAME_OF = {operation: name for name, operation in reversed(OPERATIONS.items())}
OPERATIONS |= {f"Tensor.{name}": partial(_method, name) for name in _KNOWN if hasattr(Tensor, name)}
OPERATIONS |= {f"Tensor.{name}": operator.attrgetter(name) for name in _ATTRIBUTES}
_DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}


class Recorded(nn.Module):
    """A network read from a file, which carries out the steps that its class did, one after the other.

    Args:
        steps: For eval and for train mode, a list of steps (kind, name, arguments, keyword arguments).
        layers: Names of its modules.
        tensors: Names of its parameters and buffers.

    Raises:
        ValueError: A step names something unknown, or the last one gives no output.
    """

    def __init__(self, steps: Sequence[Any], layers: Collection[str], tensors: Collection[str]) -> None:
        super().__init__()
        evaluate, train = steps
        self._graphs = [_graph(listed, layers, tensors) for listed in (evaluate, train)]

    def forward(self, x: Tensor) -> Any:
        """Return the result of the last step."""
        return fx.Interpreter(self, graph=self._graphs[self.training]).run(x)


def _graph(steps: Sequence[Any], layers: Collection[str], tensors: Collection[str]) -> fx.Graph:
    """Return the graph that `steps_of` wrote down; torch.fx interprets it without making code of it."""
    known = {"call_function": OPERATIONS, "call_module": layers, "get_attr": tensors, "output": ["output"]}
    graph = fx.Graph()
    values = [graph.placeholder("x")]
    for kind, name, args, kwargs in steps:
        if name not in known[kind]:
            hint = "make it a parameter or a buffer" if kind == "get_attr" else "use others"
            raise ValueError(f"model: forward uses {name!r}, which no file can name; {hint}")
        target = OPERATIONS[name] if kind == "call_function" else name
        given = unpack_argument(args, values), unpack_argument(kwargs, values)
        values.append(graph.create_node(kind, target, *given, name="step"))
    if values[-1].op != "output":
        raise ValueError("the last step gives no output")
    return graph


class _Recorder(Tracer):
    """Record what a network does with one input; other arguments keep their defaults."""

    proxy_buffer_attributes = True

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        return root_fn, [self.root, self.create_proxy("placeholder", "x", (), {})]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return kind_of(m) not in ("Module", "Sequential")


def kind_of(module: nn.Module) -> str:
    """Return the name of a layer of `LAYERS` or of torch.nn, or "Module" for a class of your own."""
    kind = type(module)
    listed = LAYERS.get(kind.__name__) is kind
    own = kind in (nn.ParameterList, nn.ParameterDict) or not kind.__module__.startswith("torch.nn.")
    return kind.__name__ if listed or not own else "Module"


def steps_of(model: nn.Module) -> list[list[Any]]:
    """Return the steps of a network in eval and in train mode, as JSON; the network is left in train mode.

    Raises:
        ValueError: torch.fx cannot trace the network, or an argument cannot be stored in a file.
    """
    return [_steps(record(model.train(mode), _Recorder())) for mode in (False, True)]


def _steps(graph: fx.Graph) -> list[Any]:
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    steps = []
    for node in list(graph.nodes)[1:]:
        kind, name, args = node.op, name_of(node), node.args
        if node.target is getattr:  # x.shape
            name, args = f"Tensor.{args[1]}", args[:1]
        elif kind == "call_method":
            kind, name = "call_function", f"Tensor.{name}"
        elif kind == "call_function":
            name = _NAME_OF.get(node.target, name)
        steps.append([kind, name, pack_argument(args, numbers), pack_argument(node.kwargs, numbers)])
    return steps


def pack_argument(value: Any, numbers: Mapping[fx.Node, int]) -> Any:
    """Return an argument as JSON, with a number in place of each node of the graph."""

    def leaf(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return {"value": numbers[value]}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value)}
        if value is Ellipsis:
            return {"ellipsis": None}
        if isinstance(value, slice):
            return {"slice": pack([value.start, value.stop, value.step], leaf)}
        raise ValueError(f"model: no file can hold a {type(value).__name__} as an argument, got {value!r}")

    return pack(value, leaf)


def unpack_argument(packed: Any, values: Sequence[Any]) -> Any:
    """Undo `pack_argument`; `values` gives what each number stands for."""
    leaves: dict[str, Callable[[Any], Any]] = {
        "value": values.__getitem__,
        "dtype": _DTYPES.__getitem__,
        "ellipsis": lambda _: ...,
        "slice": lambda ends: slice(*unpack(ends, leaves)),
    }
    return unpack(packed, leaves)
