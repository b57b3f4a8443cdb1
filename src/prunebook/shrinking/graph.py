"""The graph of a network, as torch.fx traces it, and what can be read off its nodes.

Chapter: book/units.ipynb
"""

import copy
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

IN_PLACE = ("iadd", "isub", "imul", "itruediv")
# What returns the memory that it was given: https://pytorch.org/docs/stable/tensor_view.html
VIEWS = (
    *("getattr", "getitem", "as_strided", "chunk", "contiguous", "detach", "diagonal", "dropout", "expand"),
    *("expand_as", "flatten", "hsplit", "movedim", "narrow", "permute", "reshape", "reshape_as", "select"),
    *("split", "split_with_sizes", "squeeze", "swapaxes", "swapdims", "t", "tensor_split", "to", "transpose"),
    *("unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as", "vsplit"),
)


class _Proxy(fx.Proxy):
    """Records x += y as an operation in place, where torch.fx records x + y."""


def _recorded(name: str) -> Callable[[fx.Proxy, Any], Any]:
    function = getattr(operator, name)
    return lambda left, right: left.tracer.create_proxy("call_function", function, (left, right), {})


for _name in IN_PLACE:
    setattr(_Proxy, f"__{_name}__", _recorded(_name))


class Tracer(fx.Tracer):
    """Remembers which module it entered last, for the error message."""

    where = ""

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Note the module, and trace it as torch.fx does."""
        self.where = self.path_of_module(m)
        return super().call_module(m, forward, args, kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return a proxy that records operations in place."""
        return _Proxy(node, self)


def trace(model: nn.Module) -> fx.Graph:
    """The graph of a network in eval mode; the network stays as it is.

    Raises:
        ValueError: what `record` raises, or the graph does not show what an operation in place changes.
    """
    graph = record(copy.deepcopy(model).eval(), Tracer())
    _refuse_overwriting(model, graph)
    return graph


def record(model: nn.Module, tracer: Tracer) -> fx.Graph:
    """The graph of a network in the mode it is in; what its forward does beside that is done.

    Raises:
        ValueError: torch.fx cannot trace it, or a layer is not initialised.
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


def name_of(node: fx.Node) -> str:
    """Name of the function or method that a node calls."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def arguments(node: fx.Node, *names: str) -> dict[str, Any]:
    """Arguments of a call by name; `names` are those of the positional ones after the tensor."""
    return {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}


def tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers."""
    return chain(module.parameters(), module.buffers())


def count_uses(model: nn.Module, graph: fx.Graph) -> Counter[int]:
    """How often the graph uses each parameter and buffer, by id."""
    parameters = model.named_parameters(remove_duplicate=False)
    named = dict(chain(parameters, model.named_buffers(remove_duplicate=False)))
    called = (model.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module")
    read = (named[node.target] for node in graph.nodes if node.op == "get_attr" and node.target in named)
    return Counter(id(tensor) for tensor in chain(*(tensors(module) for module in called), read))


def asks_batch_size(node: fx.Node) -> bool:
    """Whether a node asks for a shape of which only the batch size is used: x.size(0), x.shape[0]."""
    if node.op == "call_method" and node.target == "size" and len(node.args) == 2:
        return bool(node.args[1] == 0)
    if node.target != "size" and node.args[1:] != ("shape",):
        return False
    read = [user for user in node.users if user.users]  # b, c, h, w = x.shape asks for more than it uses
    return all(user.target is operator.getitem and user.args[1] == 0 for user in read)


def is_batch_size(value: Any) -> bool:
    """Whether an argument is the size of the batch."""
    if isinstance(value, fx.Node) and value.target is operator.getitem:
        return isinstance(value.args[0], fx.Node) and asks_batch_size(value.args[0])
    return isinstance(value, fx.Node) and asks_batch_size(value)


def _refuse_overwriting(model: nn.Module, graph: fx.Graph) -> None:
    """The graph shows old values where the network would read overwritten ones."""
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
    """Nodes that may share the memory of `node`, itself included."""
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
