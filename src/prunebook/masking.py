"""Attach masks to parameters, harden them and bake them in.

A mask is an `nn.Module`. Its `forward(w)` returns the masked weight, in w's shape and dtype; its `kept(w)` a
bool tensor of w's shape, True = kept. It may also define:

- `hardened_weight(w)`, the dense weight to use once the mask is hardened;
- `hardened(kept)`, called by `harden` just before it puts a constant mask in its place;
- `kept_together()`, for masks that compete: what all of them keep, by dense weight;
- `group`, an object that it shares with the masks that can only be hardened together with it.

`Mask` is the constant mask, and `harden` turns every other mask into one.

A mask may read more than w. A gate, which opens or closes at random in training, reads its noise; a soft mask
reads its threshold. Such values belong to one step of training, and a `StepState` holds them in buffers. Each
gate module has its own, and masks with a common threshold share one.

1. A forward pass draws nothing. It reads buffers of fixed shape, which are filled when the mask is made. Only
   if weights were loaded without the buffers, the next pass renews them first.
2. The buffers are renewed after a step of an optimizer that holds a masked weight, or a parameter of the mask
   such as the logits of gates: noise after every step, a threshold after every `update_every` steps. This
   package asks torch to report every `optimizer.step()`.
3. Between two renewals, all forward passes read the same values, wherever they enter the network: both passes
   of a checkpointed layer, micro-batches, each evaluation in a step of LBFGS. In eval mode nothing is random.
4. Two optimizers: each renews what it holds. If both hold a parameter of one state, it is renewed after each.
5. After a step inside the backward pass, renewal waits until that pass has ended. After a step between the
   forward and the backward pass, autograd refuses the backward pass, because what it needs has changed.
6. Renewal runs without gradients and without autocast, and a CUDA graph records it with the step.
7. A copy has a state of its own. A network can be hardened in parts, since no module is hooked.
8. A Parameter stays in its layer, with its name and its place in the order. The mask stands beside it.
9. When weights change again and again without an optimizer (`p -= ...`), a forward pass in train mode warns,
   and reads the old values: call `renew(model)` after each such change.
10. Some changes give no warning: those through `.data` and, in a compiled network, those by hand and the
    loading of weights without the buffers. Call `renew(model)` after each of them.

Chapter: book/weights.ipynb
"""

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from prunebook.layers import (
    Skip,
    dense_weight,
    parameter_name,
    prunable,
    require_floating,
    require_initialised,
)
from prunebook.slots import has_mask, insert, remove, slot
from prunebook.step_state import states


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
        # as bytes: twice as fast as bools, ten times as fast as torch.where; TorchScript cannot view them so
        mask = self.mask if torch._C._get_tracing_state() else self.mask.view(torch.uint8)
        return w * mask + 0  # eq-mask, where + 0 turns -0 into 0

    def kept(self, w: Tensor) -> Tensor:
        """Return a copy of the mask, which later pruning does not change."""
        return self.mask.clone()


def attach(layer: nn.Module, mask: Tensor | nn.Module, name: str = "weight") -> nn.Module:
    """Put a mask on one parameter of a layer, in place, and return the layer.

    Args:
        layer: Any module that holds the parameter itself, not in a submodule.
        mask: A bool tensor of the parameter's shape and device, True = kept; or a mask module.
        name: Name of the parameter in the layer.

    Raises:
        ValueError: The parameter is missing, has no values yet, is not floating point or is parametrized
            already, or the mask has no `kept` or does not fit.
    """
    _require_unmasked(layer, name)
    require_initialised(layer, "layer")
    weight = dense_weight(layer, name)
    require_floating(weight, name)
    module = Mask(mask) if isinstance(mask, Tensor) else mask
    if not hasattr(module, "kept"):
        kind = type(module).__name__
        raise ValueError(f"mask must be a bool tensor or a module with forward(w) and kept(w), got a {kind}")
    if isinstance(module, Mask):
        _require_fit(module.mask, weight, name)
    insert(layer, name, module)
    if not isinstance(module, Mask):
        _group(module).__dict__.setdefault("places", []).append((layer, name))
    return layer


def attach_all(
    model: nn.Module, make_mask: Callable[[nn.Parameter], Tensor | nn.Module], skip: Skip = ()
) -> dict[str, nn.Module]:
    """Attach `make_mask(weight)` to every maskable layer outside `skip`; return the masks by layer name.

    Modules that share a weight share one mask, even if only one is maskable (the other may be an embedding).

    Raises:
        ValueError: As `prunable` and `attach` do; or the model has masks that learn; or these masks learn and
            DistributedDataParallel holds the weights.
    """
    if present := states(model):
        raise ValueError(
            f"weight must be without mask, and the model without masks that learn, has a "
            f"{type(present[0]).__name__}: bake it first, or prune each part of a network by itself"
        )
    holders, attached = _holders(model), {}
    weights = {name: dense_weight(layer) for name, layer in prunable(model, skip).items()}
    for weight in weights.values():  # check all before changing any
        for holder, parameter in holders[weight]:
            _require_unmasked(holder, parameter)
    for name, weight in weights.items():
        mask = make_mask(weight)
        attached[name] = Mask(mask) if isinstance(mask, Tensor) else mask
    if any(list(mask.parameters()) for mask in attached.values()):
        _require_before_ddp(weights.values())
    for name, weight in weights.items():
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
        if has_mask(layer, parameter) and not isinstance(present := slot(layer, parameter)[0], Mask):
            raise ValueError(
                f"{name} must have a constant mask or none, has a {type(present).__name__}: harden it"
            )
    holders = _holders(model)
    for name, (layer, parameter) in places.items():
        if has_mask(layer, parameter):
            slot(layer, parameter)[0].mask.copy_(masks[name])
            continue
        shared = Mask(masks[name])
        for holder, held in holders[dense_weight(layer, parameter)]:
            attach(holder, shared, held)


def masks(model: nn.Module) -> dict[str, Tensor]:
    """Return all masks by parameter name ("1.weight"): new bool tensors, True = kept; nothing is sampled."""
    known = kept_weights(model)
    return {
        parameter_name(path, name): known[dense_weight(layer, name)] for path, layer, name in _masked(model)
    }


def mask_of(layer: nn.Module, name: str = "weight") -> nn.Module | None:
    """Return the mask of a layer's parameter, or None if there is none."""
    return slot(layer, name)[0] if has_mask(layer, name) else None


def learning(model: nn.Module) -> list[str]:
    """Return the kinds of masks in a model that are not constant, each once."""
    masks = (mask_of(layer, name) for _, layer, name in _masked(model))
    return sorted({type(mask).__name__ for mask in masks if not isinstance(mask, Mask)})


def kept_weights(model: nn.Module) -> dict[Tensor, Tensor]:
    """Return what the masks keep by dense weight: new bool tensors; nothing is sampled."""
    known: dict[Tensor, Tensor] = {}
    with torch.no_grad():
        for _, layer, name in _masked(model):
            mask, weight = slot(layer, name)[0], dense_weight(layer, name)
            if weight not in known:  # masks that share a threshold choose together
                together = getattr(mask, "kept_together", None)
                known |= together() if together else {weight: mask.kept(weight)}
    return known


def harden(model: nn.Module) -> nn.Module:
    """Replace every mask by a constant `Mask` that keeps the same weights, in place; return the model.

    The model may be a part of the network; the masks of its other parts stay as they are.

    Raises:
        ValueError: The model has no mask, or only a part of those that belong together: the masks of a unit
            gate, or of a weight that layers share.
    """
    places = [(layer, name) for _, layer, name in _masked(model)]
    if not places:
        raise ValueError("model must have masks to harden or bake, got none: attach or prune first")
    # read all masks before writing any: a threshold may depend on the weights of every layer
    _require_whole_groups([slot(layer, name)[0] for layer, name in places])
    known = kept_weights(model)
    with torch.no_grad():
        masks = {dense_weight(layer, name): slot(layer, name)[0] for layer, name in places}
        new = {w: mask if isinstance(mask, Mask) else Mask(known[w]) for w, mask in masks.items()}
        folded = {w: getattr(mask, "hardened_weight", torch.clone)(w) for w, mask in masks.items()}
        for weight, mask in masks.items():
            if new[weight] is not mask:
                weight.copy_(folded[weight])
                if hasattr(mask, "hardened"):
                    mask.hardened(known[weight])
        for layer, name in places:
            slot(layer, name)[0] = new[dense_weight(layer, name)]
    return model


def bake(model: nn.Module) -> nn.Module:
    """Harden the masks, write their zeros into the parameters and remove them, in place; return the model.

    Each layer gets its own type back, and each Parameter stays the object that an optimizer holds. If you go
    on training, the zeros do not stay zero.

    Raises:
        ValueError: As `harden` does.
    """
    harden(model)
    for _, layer, name in _masked(model):
        with torch.no_grad():
            dense_weight(layer, name).copy_(getattr(layer, name))
        remove(layer, name)
    return model


def unmasked(model: nn.Module) -> nn.Module:
    """Return a copy whose masks are baked into plain weights."""
    copy = deepcopy(model)
    return bake(copy) if _masked(copy) else copy


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a state_dict without masks but with their zeros, for a network that knows nothing of masks.

    It holds what `bake` would leave, in new tensors; the model does not change.
    """
    return dict(unmasked(model).state_dict())


def _place(layers: Mapping[str, nn.Module], name: str) -> tuple[nn.Module, str]:
    """Split a name such as "1.weight": return layer "1" and "weight"."""
    path, _, parameter = name.rpartition(".")
    if path not in layers:
        raise ValueError(f"masks must have names of parameters of the model, got {name!r}")
    return layers[path], parameter


def _masked(model: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """Return (layer name, layer, parameter name) for every mask."""
    return [
        (path, layer, name)
        for path, layer in model.named_modules()
        if parametrize.is_parametrized(layer)
        for name, _ in layer.get_submodule("parametrizations").named_children()
        if has_mask(layer, name)
    ]


def _holders(model: nn.Module) -> dict[nn.Parameter, list[tuple[nn.Module, str]]]:
    """Return every place (module, name) where each Parameter is used; a shared one has several."""
    places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        if not isinstance(module, parametrize.ParametrizationList):
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                places.setdefault(parameter, []).append((module, name))
    return places


def _group(mask: Any) -> Any:
    """Return the `group` of a mask or, if it has none, the mask itself."""
    return getattr(mask, "group", mask)


def _require_whole_groups(found: Sequence[nn.Module]) -> None:
    here = Counter(_group(mask) for mask in found if not isinstance(mask, Mask))
    for group, count in here.items():
        if count < len(group.places):
            raise ValueError(
                f"model must hold all {len(group.places)} parameters that share a {type(group).__name__}, "
                f"got {count} of them: harden the module that holds them all"
            )


def _require_before_ddp(weights: Iterable[nn.Parameter]) -> None:
    """Raise if DistributedDataParallel holds the weights: it would never average what new masks learn."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        wrappers = [o for o in gc.get_objects() if issubclass(type(o), nn.parallel.DistributedDataParallel)]
        held = {parameter for wrapper in wrappers for parameter in wrapper.module.parameters()}
        if held.intersection(weights):
            raise ValueError(
                "model must get masks that learn before DistributedDataParallel wraps it, got it wrapped: "
                "the processes would learn different masks"
            )


def _require_unmasked(layer: nn.Module, name: str) -> None:
    if parametrize.is_parametrized(layer, name):
        raise ValueError(
            f"{name} must be without mask, has a {type(slot(layer, name)[0]).__name__}: bake it first"
        )


def _require_fit(mask: Tensor, weight: Tensor, name: str) -> None:
    for what in ("shape", "device"):
        got, want = getattr(mask, what), getattr(weight, what)
        if got != want:
            raise ValueError(f"mask of {name} must have the {what} of its parameter, {want}, got {got}")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask of {name} must be of dtype torch.bool, got {mask.dtype}")
