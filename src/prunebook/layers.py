"""The layers of a network that can be pruned, the weights that they hold, and which of them to skip.

Chapter: book/weights.ipynb
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import cast

from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MASKABLE = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
Skip = str | Sequence[str] | Callable[[str, nn.Module], bool]


def maskable(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear and convolution layers of `model` by their names in `model.named_modules()`.

    A lone layer has the name "". A layer used twice appears once; layers that share a weight all appear.

    Raises:
        ValueError: A lazily initialised layer has no weights yet.
    """
    layers: dict[str, nn.Module] = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, MASKABLE)
    }
    for name, layer in layers.items():
        require_initialised(layer, f"layer {name!r}")
    return layers


def prunable(model: nn.Module, skip: Skip = ()) -> dict[str, nn.Module]:
    """Return the maskable layers that a method may prune: all but those that `skip` names.

    Of layers that share a weight, only the first is returned; skipping one of them skips them all.

    Raises:
        ValueError: `skip` names no layer, none is left, or a weight has no values or is not floating point.
    """
    layers, left_out = maskable(model), skipped(model, skip)
    taken = {weight for name, _, _, weight in all_weights(model) if name in left_out}
    chosen = {}
    for name, layer in layers.items():
        if name not in left_out and (weight := _weight(layer)) not in taken:
            require_floating(weight, f"layer {name!r}")
            if weight.is_meta:
                raise ValueError(f"layer {name!r} must have values to be pruned, got weights on device meta")
            chosen[name] = layer
            taken.add(weight)
    if not chosen:
        raise ValueError(
            f"model must have a linear or convolution layer to prune, got {list(layers)}, skip={left_out}"
        )
    return chosen


def skipped(model: nn.Module, skip: Skip) -> list[str]:
    """Return the names of the modules with weights that `skip` names.

    Args:
        model: The network.
        skip: A name in `model.named_modules()`, a pattern such as "encoder.*", several of these, or a
            function of a module's name and the module that returns whether to skip it.

    Raises:
        ValueError: A name or a pattern fits no module with weights.
    """
    named = {name: layer for name, layer, *_ in all_weights(model)}
    if isinstance(skip, nn.Module) or not (callable(skip) or isinstance(skip, Iterable)):
        raise ValueError(f"skip must be names, patterns or a function of (name, module), got {skip!r}")
    if callable(skip):
        return [name for name, module in named.items() if skip(name, module)]
    patterns = [skip] if isinstance(skip, str) else list(skip)
    if odd := [pattern for pattern in patterns if not isinstance(pattern, str)]:
        raise ValueError(f"skip must hold names or patterns, as strings, got {odd}")
    found = {pattern: [n for n in named if n == pattern or fnmatchcase(n, pattern)] for pattern in patterns}
    if unknown := [pattern for pattern, names in found.items() if not names]:
        raise ValueError(
            f"skip must name layers out of {list(named)}, or patterns such as 'encoder.*', got {unknown}"
        )
    return list(dict.fromkeys(name for names in found.values() for name in names))


def all_weights(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Yield (layer name, layer, parameter name, weight) for each parameter with two or more dimensions.

    The weights are as they are without masks. What masks learn is not among them, and a weight that a
    parametrization of another origin computes is yielded as it is computed now. A shared weight appears for
    each of its layers.
    """
    for path, layer in model.named_modules():
        if "parametrizations" in path.split("."):
            continue
        own: dict[str, Tensor] = {name: p for name, p in layer._parameters.items() if p is not None}
        if isinstance(layer, MASKABLE) and "weight" not in own:
            own = {"weight": _weight(layer)}  # computed from other parameters, by whatever package
        own = {name: p for name, p in own.items() if not nn.parameter.is_lazy(p) and p.dim() > 1}
        yield from ((path, layer, name, weight) for name, weight in own.items())


def same_weight(one: nn.Module, other: nn.Module) -> bool:
    """Return whether two layers share their weight."""
    return _weight(one) is _weight(other)


def parameter_name(layer: str, parameter: str) -> str:
    """Return a parameter's name in the network: "1.bias" in layer "1", "bias" if the network is the layer."""
    return f"{layer}.{parameter}" if layer else parameter


def dense_weight(layer: nn.Module, name: str = "weight") -> nn.Parameter:
    """Return the Parameter that an optimizer updates: the one behind the mask, if there is a mask.

    Raises:
        ValueError: The layer has no such parameter, or another parametrization computes it.
    """
    parameter = layer._parameters.get(name)
    if not isinstance(parameter, nn.Parameter):
        names = [key for key, _ in layer.named_parameters(recurse=False)]
        raise ValueError(
            f"name must be a plain parameter of the {type(layer).__name__}, {names}, got {name!r}"
        )
    return parameter


def require_initialised(layer: nn.Module, what: str) -> None:
    """Raise a ValueError if a layer gets its weights only when it is first used."""
    if any(nn.parameter.is_lazy(parameter) for parameter in layer.parameters()):
        raise ValueError(f"{what} must have its weights, got a lazily initialised one: run one batch first")


def require_floating(weight: Tensor, what: str) -> None:
    """Raise a ValueError if a weight is not floating point."""
    if not weight.is_floating_point():
        raise ValueError(f"{what} must have floating-point weights to be pruned, got {weight.dtype}")


def _weight(layer: nn.Module) -> Tensor:
    """Return the dense weight or, if a parametrization that is no mask computes the weight, the result."""
    parameter = layer._parameters.get("weight")
    return cast(Tensor, layer.weight) if parameter is None else parameter
