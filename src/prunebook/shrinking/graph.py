"""Trace networks with torch.fx, for the whole package, and answer questions about their graphs.

Chapter: book/units.ipynb
"""

import copy
import operator
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from prunebook.layers import MASKABLE, maskable

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
IN_PLACE = ("iadd", "isub", "imul", "itruediv")
# These return the memory that they were given: https://pytorch.org/docs/stable/tensor_view.html
VIEWS = (
    *("getattr", "getitem", "as_strided", "chunk", "contiguous", "detach", "diagonal", "dropout", "expand"),
    *("expand_as", "flatten", "hsplit", "movedim", "narrow", "permute", "reshape", "reshape_as", "select"),
    *("split", "split_with_sizes", "squeeze", "swapaxes", "swapdims", "t", "tensor_split", "to", "transpose"),
    *("unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as", "vsplit"),
)


class _Proxy(fx.Proxy):
    """Record x += y as an in-place operation; torch.fx itself would record x + y."""


def _recorded(name: str) -> Callable[[fx.Proxy, Any], Any]:
    function = getattr(operator, name)
    return lambda left, right: left.tracer.create_proxy("call_function", function, (left, right), {})


for _name in IN_PLACE:
    setattr(_Proxy, f"__{_name}__", _recorded(_name))


class Tracer(fx.Tracer):
    """Record a forward pass, and remember which module was entered last, for the error message.

    Args:
        leaves: Modules of these classes, and of classes derived from them, become one node each. Other
            modules do so only if they are torch's own.
    """

    def __init__(self, leaves: tuple[type[nn.Module], ...] = ()) -> None:
        super().__init__()
        self.leaves = leaves
        self.where = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module becomes one node."""
        return isinstance(m, self.leaves) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Remember the module, and trace it as torch.fx does."""
        self.where = self.path_of_module(m)
        return super().call_module(m, forward, args, kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return a proxy that records operations in place."""
        return _Proxy(node, self)


def trace(model: nn.Module) -> fx.Graph:
    """Return the graph of a network in eval mode. A copy is traced, so the network itself never changes.

    Raises:
        ValueError: As `record`, or a tensor is overwritten in place and read again.
    """
    graph = record(copy.deepcopy(model).eval(), Tracer())
    _refuse_overwriting(model, graph)
    return graph


def record(model: nn.Module, tracer: Tracer) -> fx.Graph:
    """Return the graph of the network itself, not of a copy, in its present mode.

    If its forward has side effects, they happen.

    Raises:
        ValueError: torch.fx cannot trace the network, or a layer is not initialised.
    """
    lazy = [name for name, weight in model.named_parameters() if is_lazy(weight)]
    if lazy:
        raise ValueError(f"model: {lazy[0]} is not initialised; run the network once before")
    try:
        return tracer.trace(model)
    except Exception as error:  # a user's forward can raise anything
        near = f", in or after {tracer.where!r}" if tracer.where else ""
        raise ValueError(
            f"model: torch.fx cannot trace {type(model).__name__}{near}: {error}. "
            "forward must not branch on tensors; rewrite that, or take the parts that can be traced"
        ) from error


def try_trace(model: nn.Module) -> fx.Graph | None:
    """Return the graph for `output_layers` and `norms_after`, or None if the model is a single layer.

    A copy is traced in the mode of the network, since some networks have more outputs in training. If
    torch.fx fails, return None with a warning that points to the caller's caller.
    """
    if isinstance(model, MASKABLE):
        return None
    try:
        return Tracer(leaves=(*MASKABLE, *BATCH_NORMS)).trace(copy.deepcopy(model))
    except Exception as error:  # a user's forward can raise anything
        warnings.warn(
            f"torch.fx cannot trace the model ({error}): the last layer registered is taken for the output, "
            "and no BatchNorm is masked",
            stacklevel=3,
        )
        return None


def output_layers(model: nn.Module, graph: fx.Graph | None) -> list[str]:
    """Return the names of the maskable layers with no other maskable layer between them and an output.

    Without a graph, return the layer that was registered last.
    """
    names = list(maskable(model))
    stack = list(graph.nodes)[-1].all_input_nodes if graph else []
    found: set[str] = set()
    seen: set[fx.Node] = set()
    while stack:
        node = stack.pop()
        inside = [name for name in names if f"{name}.".startswith(f"{_module_of(node)}.")]
        found.update(inside)
        stack += [] if inside else [source for source in node.all_input_nodes if source not in seen]
        seen.add(node)
    return [name for name in names if name in found] or names[-1:]


def norms_after(model: nn.Module, graph: fx.Graph | None) -> dict[str, str]:
    """Return {BatchNorm: layer}, by name, for each BatchNorm that reads only the output of that layer."""
    layers, modules = maskable(model), dict(model.named_modules())
    sources: dict[str, set[str]] = {}
    for node in graph.nodes if graph else ():
        if isinstance(modules.get(_module_of(node)), BATCH_NORMS):
            sources.setdefault(_module_of(node), set()).update(map(_module_of, node.all_input_nodes))
    return {norm: layer for norm, (layer, *others) in sources.items() if not others and layer in layers}


def _module_of(node: fx.Node) -> str:
    """Return the name of the module that a node calls, "" for nodes that call none."""
    return str(node.target) if node.op == "call_module" else ""


def name_of(node: fx.Node) -> str:
    """Return the name of the function or method that a node calls."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def arguments(node: fx.Node, *names: str) -> dict[str, Any]:
    """Return a call's arguments by name; `names` are those of the positional arguments after the tensor."""
    return {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}


def tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters and buffers of a module."""
    return chain(module.parameters(), module.buffers())


def count_uses(model: nn.Module, graph: fx.Graph) -> Counter[int]:
    """Count how often the graph uses each parameter and buffer, by id."""
    parameters = model.named_parameters(remove_duplicate=False)
    named = dict(chain(parameters, model.named_buffers(remove_duplicate=False)))
    called = (model.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module")
    read = (named[node.target] for node in graph.nodes if node.op == "get_attr" and node.target in named)
    return Counter(id(tensor) for tensor in chain(*(tensors(module) for module in called), read))


def asks_batch_size(node: fx.Node) -> bool:
    """Return whether a node reads a shape only for its batch size, such as x.size(0) or x.shape[0]."""
    if node.op == "call_method" and node.target == "size" and len(node.args) == 2:
        return bool(node.args[1] == 0)
    if node.target != "size" and node.args[1:] != ("shape",):
        return False
    read = [user for user in node.users if user.users]  # b, c, h, w = x.shape asks for more than it uses
    return all(user.target is operator.getitem and user.args[1] == 0 for user in read)


def is_batch_size(value: Any) -> bool:
    """Return whether an argument is the size of the batch."""
    if isinstance(value, fx.Node) and value.target is operator.getitem:
        value = value.args[0]
    return isinstance(value, fx.Node) and asks_batch_size(value)


def _refuse_overwriting(model: nn.Module, graph: fx.Graph) -> None:
    """Raise a ValueError if an overwritten tensor is read again, since the graph shows its old values."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not _is_in_place(node, model):
            continue
        for alias in _aliases(node.all_input_nodes[0], model):
            if any(order[user] > order[node] for user in alias.users):
                raise ValueError(
                    f"model: {node.name} overwrites {alias.name}, which is read again later; "
                    "use the operation that does not work in place"
                )


def _aliases(node: fx.Node, model: nn.Module) -> set[fx.Node]:
    """Return the nodes that may share the memory of `node`, itself included."""
    above = node.all_input_nodes[:1] if _is_view(node, model) else []
    return {node}.union(*(_aliases(source, model) for source in above))


def _is_view(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        views = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Unflatten)
        return isinstance(module, views) or _is_in_place(node, model)
    return name_of(node) in VIEWS or _is_in_place(node, model)


def _is_in_place(node: fx.Node, model: nn.Module) -> bool:
    if not node.all_input_nodes or node.op == "output":
        return False
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    name = name_of(node)
    return name.endswith("_") or name in IN_PLACE or bool(node.kwargs.get("inplace"))
