"""Attach masks to parameters, harden them and bake them in: the only file that uses `parametrize`.

A mask is an `nn.Module`. Its `forward(w)` returns the masked weight, in w's shape and dtype, and is pure: two
calls give the same tensor. Noise that changes from step to step is drawn by a hook of `before_forward`, never
in `forward`. Its `kept(w)` returns a new bool tensor of w's shape, True = kept, without sampling. A mask may
also define `hardened_weight(w)`, which returns the dense weight to use once the mask is hardened; without it
the weight does not change. `Mask` is the constant mask, and `harden` turns every other mask into one.

Chapter: book/weights.ipynb
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MASKABLE = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)


class Mask(nn.Module):
    """A constant mask: it keeps the weights where `mask`, which is copied, is True and zeroes the others.

    Pruned weights get no gradient. Weight decay may change their dense values, but the masked weight stays 0.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.detach().clone(memory_format=torch.contiguous_format))

    def forward(self, w: Tensor) -> Tensor:
        """Return `w` where it is kept and 0 elsewhere, in w's shape and dtype; w must be finite."""
        # bytes multiply twice as fast as bools, ten times as fast as torch.where; + 0 turns -0 into 0
        return w * self.mask.view(torch.uint8) + 0  # eq-mask

    def kept(self, w: Tensor) -> Tensor:
        """Return a copy of the mask, which later pruning does not change."""
        return self.mask.clone()


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
        _require_initialised(layer, f"layer {name!r}")
    return layers


def prunable(model: nn.Module, skip: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Return the maskable layers that a method may prune: all but those in `skip`.

    Of layers that share a weight, only the first is returned; skipping one of them skips them all.

    Raises:
        ValueError: A name in `skip` is no maskable layer, none is left, or a weight is not floating point.
    """
    layers = maskable(model)
    unknown = [name for name in skip if name not in layers]
    if unknown:
        raise ValueError(f"skip must name layers out of {list(layers)}, got {unknown}")
    taken = {_weight(layers[name]) for name in skip}
    chosen = {}
    for name, layer in layers.items():
        if name not in skip and (weight := _weight(layer)) not in taken:
            _require_floating(weight, f"layer {name!r}")
            chosen[name] = layer
            taken.add(weight)
    if not chosen:
        raise ValueError(
            f"model must have a linear or convolution layer to prune, got {list(layers)}, skip={skip}"
        )
    return chosen


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
    parameter = _slot(layer, name).original if _has_mask(layer, name) else layer._parameters.get(name)
    if not isinstance(parameter, nn.Parameter):
        names = [key for key, _ in layer.named_parameters(recurse=False)]
        raise ValueError(
            f"name must be a plain parameter of the {type(layer).__name__}, {names}, got {name!r}"
        )
    return parameter


def attach(layer: nn.Module, mask: Tensor | nn.Module, name: str = "weight") -> nn.Module:
    """Put a mask on one parameter of a layer, in place, and return the layer.

    Args:
        layer: Any module that holds the parameter itself, not in a submodule.
        mask: A bool tensor of the parameter's shape and device, True = kept; or a mask module.
        name: Name of the parameter in the layer.

    Raises:
        ValueError: The parameter is missing, not floating point or parametrized already, or the mask has no
            `kept` or does not fit.
    """
    _require_unmasked(layer, name)
    _require_initialised(layer, "layer")
    weight = dense_weight(layer, name)
    _require_floating(weight, name)
    module = Mask(mask) if isinstance(mask, Tensor) else mask
    if not hasattr(module, "kept"):
        kind = type(module).__name__
        raise ValueError(f"mask must be a bool tensor or a module with forward(w) and kept(w), got a {kind}")
    if isinstance(module, Mask):
        _require_fit(module.mask, weight, name)
    _own_class(layer)
    parametrize.register_parametrization(layer, name, module)
    return layer


def attach_all(
    model: nn.Module, make_mask: Callable[[nn.Parameter], Tensor | nn.Module], skip: Sequence[str] = ()
) -> dict[str, nn.Module]:
    """Attach `make_mask(weight)` to every maskable layer outside `skip`; return the masks by layer name.

    Modules that share a weight share one mask, even if only one is maskable (the other may be an embedding).

    Raises:
        ValueError: As `prunable` and `attach` do.
    """
    holders, attached = _holders(model), {}
    weights = {name: dense_weight(layer) for name, layer in prunable(model, skip).items()}
    for weight in weights.values():  # check all before changing any
        for holder, parameter in holders[weight]:
            _require_unmasked(holder, parameter)
    for name, weight in weights.items():
        mask = make_mask(weight)
        attached[name] = Mask(mask) if isinstance(mask, Tensor) else mask
        for holder, parameter in holders[weight]:
            attach(holder, attached[name], parameter)
    return attached


def set_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Put constant masks on parameters, by name: attach new masks, or overwrite those already there.

    This is the inverse of `masks(model)`. A shared parameter gets its mask wherever it is used.

    Raises:
        ValueError: A name does not exist, a mask does not fit, or a mask already there is not constant.
    """
    layers = dict(model.named_modules(remove_duplicate=False))
    places = {name: _place(layers, name) for name in masks}
    for name, (layer, parameter) in places.items():  # check all before changing any
        _require_fit(masks[name], dense_weight(layer, parameter), name)
        if _has_mask(layer, parameter) and not isinstance(present := _slot(layer, parameter)[0], Mask):
            raise ValueError(
                f"{name} must have a constant mask or none, has a {type(present).__name__}: harden it"
            )
    holders = _holders(model)
    for name, (layer, parameter) in places.items():
        if _has_mask(layer, parameter):
            _slot(layer, parameter)[0].mask.copy_(masks[name])
            continue
        shared = Mask(masks[name])
        for holder, held in holders[dense_weight(layer, parameter)]:
            attach(holder, shared, held)


def masks(model: nn.Module) -> dict[str, Tensor]:
    """Return all masks by parameter name ("1.weight"): new bool tensors, True = kept; nothing is sampled."""
    with torch.no_grad():
        return {
            parameter_name(path, name): _slot(layer, name)[0].kept(_slot(layer, name).original)
            for path, layer, name in _masked(model)
        }


@overload
def sparsity(model: nn.Module, per_layer: Literal[False] = False) -> float: ...
@overload
def sparsity(model: nn.Module, per_layer: Literal[True]) -> dict[str, float]: ...
def sparsity(model: nn.Module, per_layer: bool = False) -> float | dict[str, float]:
    """Return the share of weights that are pruned, 0 to 1, over all maskable layers, or in each by its name.

    If a layer has a mask, these are the weights that it does not keep, otherwise those that are exactly 0.
    Biases do not count, and a shared weight counts once in the total. Without maskable weights, return 0.
    """
    zeros: dict[Tensor, int] = {}
    shares = {}
    for name, layer in maskable(model).items():
        weight = _weight(layer)
        zeros[weight] = weight.numel() - int(_kept(layer, weight).count_nonzero())
        shares[name] = zeros[weight] / max(weight.numel(), 1)
    return shares if per_layer else sum(zeros.values()) / max(sum(weight.numel() for weight in zeros), 1)


def before_forward(model: nn.Module, refresh: Callable[[nn.Module], None]) -> None:
    """Call `refresh(model)`, without gradients, before every forward pass of `model` in training mode.

    Use it for masks whose state changes once per forward pass, such as noise. `harden` removes the hook.
    """
    model.register_forward_pre_hook(_Refresh(refresh))


def harden(model: nn.Module) -> nn.Module:
    """Replace every mask by a constant `Mask` that keeps the same weights, in place; return the model.

    Raises:
        ValueError: The model has no mask.
    """
    slots = [_slot(layer, name) for _, layer, name in _masked(model)]
    if not slots:
        raise ValueError("model must have masks to harden or bake, got none: attach or prune first")
    # read all masks before writing any: a threshold may depend on the weights of every layer
    with torch.no_grad():
        hardened = {slot.original: _hardened(slot[0], slot.original) for slot in slots}
        for slot in slots:
            slot[0], weight = hardened[slot.original]
            slot.original.copy_(weight)
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, _Refresh):
                del module._forward_pre_hooks[key]
    return model


def bake(model: nn.Module) -> nn.Module:
    """Harden the masks, write their zeros into the parameters and remove them, in place; return the model.

    Each layer gets its own type back, and each Parameter stays the object that an optimizer holds. If you go
    on training, the zeros do not stay zero.

    Raises:
        ValueError: The model has no mask.
    """
    harden(model)
    for _, layer, name in _masked(model):
        with torch.no_grad():
            dense_weight(layer, name).copy_(getattr(layer, name))
        _own_class(layer)
        parametrize.remove_parametrizations(layer, name, leave_parametrized=False)
        if name == "weight" and "bias" in layer._parameters:
            # optimizers load their state by position, so weight must precede bias, as in a fresh layer
            layer._parameters["bias"] = layer._parameters.pop("bias")
    return model


def plain_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict as it would be without masks: plain names, and no entries of the masks."""
    plain = {}
    for key, tensor in state.items():
        path, masked, rest = key.rpartition("parametrizations.")
        parameter, _, entry = rest.partition(".")
        if not masked:
            plain[key] = tensor
        elif entry.startswith("original"):  # original0, original1 belong to other parametrizations
            plain[path + parameter if entry == "original" else key] = tensor
    return plain


class _Refresh:
    """The hook of `before_forward`, in its own class so that `harden` can recognise it."""

    def __init__(self, refresh: Callable[[nn.Module], None]) -> None:
        self.refresh = refresh

    def __call__(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        if model.training:
            with torch.no_grad():
                self.refresh(model)


def _place(layers: Mapping[str, nn.Module], name: str) -> tuple[nn.Module, str]:
    """Split a name such as "1.weight": return layer "1" and "weight"."""
    path, _, parameter = name.rpartition(".")
    if path not in layers:
        raise ValueError(f"masks must have names of parameters of the model, got {name!r}")
    return layers[path], parameter


def _slot(layer: nn.Module, name: str) -> Any:
    """Return the ParametrizationList: its [0] is the mask, and its .original is the dense weight."""
    return layer.get_submodule(f"parametrizations.{name}")


def _has_mask(layer: nn.Module, name: str) -> bool:
    """Return whether a parameter has a mask; other parametrizations have no `kept`."""
    return parametrize.is_parametrized(layer, name) and hasattr(_slot(layer, name)[0], "kept")


def _masked(model: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """Return (layer name, layer, parameter name) for every mask."""
    return [
        (path, layer, name)
        for path, layer in model.named_modules()
        if parametrize.is_parametrized(layer)
        for name, _ in layer.get_submodule("parametrizations").named_children()
        if _has_mask(layer, name)
    ]


def _weight(layer: nn.Module) -> Tensor:
    """Return the dense weight or, if a parametrization that is no mask computes the weight, the result."""
    return dense_weight(layer) if _has_mask(layer, "weight") else cast(Tensor, layer.weight)


def _kept(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return which weights a layer's mask keeps or, without a mask, which are not zero."""
    with torch.no_grad():
        return cast(
            Tensor, _slot(layer, "weight")[0].kept(weight) if _has_mask(layer, "weight") else weight != 0
        )


def _holders(model: nn.Module) -> dict[nn.Parameter, list[tuple[nn.Module, str]]]:
    """Return every place (module, name) where each Parameter is used; a shared one has several."""
    places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        if not isinstance(module, parametrize.ParametrizationList):
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                places.setdefault(parameter, []).append((module, name))
    for _, layer, name in _masked(model):
        places.setdefault(dense_weight(layer, name), []).append((layer, name))
    return places


def _hardened(mask: Any, weight: Tensor) -> tuple[Mask, Tensor]:
    """Return the constant mask and the dense weight that hardening puts in place of a mask."""
    if isinstance(mask, Mask):
        return mask, weight
    fold = getattr(mask, "hardened_weight", torch.clone)
    return Mask(mask.kept(weight)), fold(weight)


def _own_class(layer: nn.Module) -> None:
    """Give a parametrized layer its own class: deep copies share one, which attaching a mask changes."""
    if parametrize.is_parametrized(layer):
        cls = type(layer)
        layer.__class__ = type(cls.__name__, cls.__bases__, dict(cls.__dict__))


def _require_unmasked(layer: nn.Module, name: str) -> None:
    if parametrize.is_parametrized(layer, name):
        raise ValueError(
            f"{name} must be without mask, has a {type(_slot(layer, name)[0]).__name__}: bake it first"
        )


def _require_initialised(layer: nn.Module, what: str) -> None:
    if any(nn.parameter.is_lazy(parameter) for parameter in layer.parameters()):
        raise ValueError(f"{what} must have its weights, got a lazily initialised one: run one batch first")


def _require_floating(weight: Tensor, what: str) -> None:
    if not weight.is_floating_point():
        raise ValueError(f"{what} must have floating-point weights to be pruned, got {weight.dtype}")


def _require_fit(mask: Tensor, weight: Tensor, name: str) -> None:
    for what in ("shape", "device"):
        got, want = getattr(mask, what), getattr(weight, what)
        if got != want:
            raise ValueError(f"mask of {name} must have the {what} of its parameter, {want}, got {got}")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask of {name} must be of dtype torch.bool, got {mask.dtype}")
