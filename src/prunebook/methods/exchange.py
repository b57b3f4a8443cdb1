"""Exchange at an exact count: the weights that matter least make room for those that promise most.

The number of weights stays as it is; which ones they are changes. What a weight costs to lose, and what a
pruned one would gain, is read from the gradients of single images: g, their mean, and F, the mean of their
squares.

Chapter: book/gumbel.ipynb
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from prunebook.masking import dense_weight, masks, parameter_name, prunable, set_masks
from prunebook.methods.soft import require_positive
from prunebook.methods.weights import smallest
from prunebook.shrinking.slicing import plain

DAMPING = 1e-6  # in units of F, squared nats per squared weight
IMAGES_AT_ONCE = 32  # whose gradients by a whole weight are in memory together


class Moments(NamedTuple):
    """The gradient of the loss by the weights of a layer: its mean over images, and that of its squares."""

    mean: Tensor
    square: Tensor


def exchange(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    count: int,
    total: int | None = None,
    per_row: int | None = None,
    damping: float = DAMPING,
    batch_size: int = 2000,
) -> nn.Module:
    """Swap ``count`` kept weights for pruned ones in place, over all layers; return the model.

    Out go the kept weights of smallest F w^2 / 2: what the loss rises by without them. In come the pruned
    ones of largest g^2 / (2 F'), F' = F + damping: what it falls by at w = -g / F', where they start.
    Fine-tune afterwards.

    Args:
        model: its layers have constant masks: harden it first. In eval mode here, whatever its mode.
        images: (n, ...), what the gradients are taken on: training images.
        labels: (n,), their classes.
        count: how many go out, 0 to the weights kept; without ``total`` also at most those pruned.
        total: how many there are afterwards; None: as many as before.
        per_row: how many of one row of a weight, one unit, come in before any further one does; None: no
            matter. Neighbouring pixels promise a unit the same gain, and only the first of them brings it.
        damping: above 0; keeps weights on which hardly an image depends from taking endless steps. Raise it
            for a network that makes no error on its images: there F is next to nothing everywhere.
        batch_size: images at a time, at least 1.

    Raises:
        ValueError: an argument is out of range, a layer has no constant mask, or as ``gradient_moments``.

    Source: LeCun, Denker & Solla 1990 (Optimal Brain Damage) for the cost of a weight, with the diagonal of
    the empirical Fisher matrix for the curvature; the gain is the same expansion, solved for w.
    """
    require_positive("damping", damping)
    layers, kept = prunable(model), masks(model)
    names = [parameter_name(name, "weight") for name in layers]
    if bare := [name for name in names if name not in kept]:
        raise ValueError(f"model must have masks on all layers, got none on {bare}: prune or harden it first")
    alive = torch.cat([kept[name].flatten() for name in names])
    now = int(alive.count_nonzero())
    _require_whole("count", count, 0, now if total is not None else min(now, len(alive) - now))
    total = now if total is None else total
    _require_whole("total", total, now - count, len(alive) - count)
    if per_row is not None:
        _require_whole("per_row", per_row, 1, len(alive))
    moments = gradient_moments(model, images, labels, batch_size)
    mean, square = (torch.cat([pair[i].flatten() for pair in moments.values()]) for i in (0, 1))
    weights = [dense_weight(layer) for layer in layers.values()]
    flat = torch.cat([weight.detach().flatten() for weight in weights])
    gone = smallest((square * flat.square() / 2).masked_fill(~alive, torch.inf), count)
    gain = (mean.square() / (2 * (square + damping))).masked_fill(alive, -torch.inf)
    if per_row is not None:
        gain += torch.cat([_first(part, per_row) for part in _split(gain, weights)])
    new = smallest(-gain, count + total - now)
    flat = torch.where(new, -mean / (square + damping), flat)
    # refuses masks that are not constant
    set_masks(model, dict(zip(names, _split(alive & ~gone | new, weights), strict=True)))
    with torch.no_grad():
        for weight, part in zip(weights, _split(flat, weights), strict=True):
            weight.copy_(part)
    return model


def gradient_moments(
    model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 2000
) -> dict[str, Moments]:
    """Return (g, F) of each linear and convolution layer by name, in the shape of its weight.

    They are the mean over images of the gradient of the cross-entropy by the weights as masked, and of its
    square: the diagonal of the empirical Fisher matrix. Pruned weights have theirs too. In eval mode.

    Raises:
        ValueError: no images, batch_size below 1, a weight that is not used exactly once for each image, or
            a gradient that is not finite.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(
            f"images must be at least one, with a label each, got {len(images)} and {len(labels)}"
        )
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    baked = plain(model).eval().requires_grad_(False)
    layers = prunable(baked)
    _require_unshared(baked, layers)
    sums = {name: [torch.zeros_like(dense_weight(layer)) for _ in "gF"] for name, layer in layers.items()}
    for some, wanted in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        for name, (inputs, slopes) in _slopes(baked, layers, some, wanted).items():
            for total, part in zip(sums[name], _moments(layers[name], inputs, slopes), strict=True):
                total += part
    found = {name: Moments(*(total / len(images) for total in pair)) for name, pair in sums.items()}
    if broken := [name for name, pair in found.items() if not pair.square.isfinite().all()]:
        raise ValueError(f"gradients must be finite, got NaN or infinite ones in layers {broken}")
    return found


def _slopes(
    model: nn.Module, layers: Mapping[str, nn.Module], images: Tensor, labels: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what enters each layer, and the gradient of each image's loss by what leaves it."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            probe = torch.zeros_like(output, requires_grad=True)
            seen[name].append((inputs[0].detach().clone(), probe))  # what follows may work in place
            return output + probe

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            loss = F.cross_entropy(model(images), labels, reduction="sum")
    finally:
        for handle in handles:
            handle.remove()
    if odd := [name for name, calls in seen.items() if len(calls) != 1]:
        raise ValueError(f"model must use each layer exactly once, not so: {odd}")
    if odd := [name for name, calls in seen.items() if len(calls[0][0]) != len(images)]:
        raise ValueError(f"layers must see the images along their first axis, not so: {odd}")
    probes = [calls[0][1] for calls in seen.values()]
    slopes = torch.autograd.grad(loss, probes, materialize_grads=True)  # zeros where the loss has no part
    return {name: (calls[0][0], slope) for (name, calls), slope in zip(seen.items(), slopes, strict=True)}


def _require_unshared(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    held = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    if shared := [name for name, layer in layers.items() if held[id(dense_weight(layer))] > 1]:
        raise ValueError(f"model must use each weight exactly once, not so: those of {shared} are shared")


def _moments(layer: nn.Module, inputs: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums over images of the gradient by the weight and of its square."""
    if isinstance(layer, nn.Linear) and inputs.dim() == 2:  # an outer product for each image
        return slopes.T @ inputs, slopes.square().T @ inputs.square()

    def along(weight: Tensor, x: Tensor, slope: Tensor) -> Tensor:
        output: Tensor = functional_call(layer, {"weight": weight}, (x[None],))
        return (output * slope[None]).sum()

    weight, each = dense_weight(layer), vmap(grad(along), in_dims=(None, 0, 0))
    total, squares = torch.zeros_like(weight), torch.zeros_like(weight)
    for some, theirs in zip(inputs.split(IMAGES_AT_ONCE), slopes.split(IMAGES_AT_ONCE), strict=True):
        gradients = each(weight, some, theirs)
        total += gradients.sum(0)
        squares += gradients.square_().sum(0)
    return total, squares


def _require_whole(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number of weights from {least} to {most}, got {value!r}")


def _first(gain: Tensor, per_row: int) -> Tensor:
    """Return, flat, 1 for the largest gains of each row, which are at most 1/2 (g^2 <= F), 0 for others."""
    rows = gain.flatten(1)
    best = rows.topk(min(per_row, rows.shape[1]), dim=1).indices
    return torch.zeros_like(rows).scatter_(1, best, 1).flatten()


def _split(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return parts of the shapes of ``like``."""
    parts = flat.split_with_sizes([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]
