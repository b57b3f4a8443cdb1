"""Exchange weights at an exact count: prune those that matter least, and regrow those that promise most.

The cost of losing a kept weight, and the gain from regrowing a pruned one, are estimated from the gradients
of single images: g is their mean, and F the mean of their squares.

Chapter: book/gumbel.ipynb
"""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from prunebook.checks import require_finite, require_positive, require_whole
from prunebook.layers import dense_weight, parameter_name, prunable
from prunebook.masking import masks, set_masks
from prunebook.methods.weights import choose
from prunebook.shrinking.slicing import plain

DAMPING = 1e-6  # in the units of F: squared nats per squared weight
IMAGES_AT_ONCE = 32  # number of images whose gradients of a whole weight are in memory together


class Moments(NamedTuple):
    """Loss gradients with respect to a layer's weights: their mean over images, and that of their squares."""

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
    """Swap `count` kept weights for pruned ones, across all layers, in place; return the model.

    F w^2 / 2 estimates how much the loss rises without a kept weight; the weights where it is smallest are
    pruned. g^2 / (2 F'), with F' = F + damping, estimates how much the loss falls if a pruned weight comes
    back at w = -g / F'; those where it is largest do. Both estimates are second order: fine-tune afterwards.

    Warns if no image gives any weight that comes back a gradient, as in a network that is cut: all start at
    0.

    Args:
        model: All its layers must have constant masks: harden it first. It is evaluated in eval mode.
        images: (n, ...) training images, on which the gradients are taken.
        labels: (n,) their classes.
        count: Number of weights to prune, 0 to the number kept and, without `total`, to the number pruned.
        total: Number of weights kept afterwards. None means as many as before.
        per_row: Maximum number of weights regrown per output unit before other units get theirs. None means
            no limit. Neighbouring pixels promise a unit the same gain, but only the first one delivers it.
        damping: Above 0. It prevents huge steps for weights that matter to hardly any image. Raise it for a
            network that makes no error on its images, where F is nearly 0 everywhere.
        batch_size: Number of images at a time, at least 1.

    Raises:
        ValueError: An argument is out of range, a layer has no constant mask, or as `gradient_moments`.

    Source: LeCun, Denker & Solla 1990 (Optimal Brain Damage) for the cost of a weight, with the diagonal of
    the empirical Fisher matrix for the curvature; the gain is the same expansion, solved for w.
    """
    require_positive("damping", damping)
    layers, kept = prunable(model), masks(model)
    names = [parameter_name(layer, "weight") for layer in layers]
    if bare := [name for name in names if name not in kept]:
        raise ValueError(f"model must have masks on all layers, got none on {bare}: prune or harden it first")
    alive = [kept[name] for name in names]
    size, now = sum(map(Tensor.numel, alive)), sum(int(mask.count_nonzero()) for mask in alive)
    require_whole("count", count, 0, now if total is not None else min(now, size - now))
    more = 0 if total is None else require_whole("total", total, now - count, size - count) - now
    if per_row is not None:
        require_whole("per_row", per_row, 1, size)
    weights = [dense_weight(layer).detach() for layer in layers.values()]
    moments = list(gradient_moments(model, images, labels, batch_size).values())
    layerwise = zip(moments, weights, alive, strict=True)
    costs, gains = zip(*(_cost_and_gain(*layer, damping, per_row) for layer in layerwise), strict=True)
    gone, new = choose(costs, count), choose([-gain for gain in gains], count + more)
    after = [mask & ~out | back for mask, out, back in zip(alive, gone, new, strict=True)]
    set_masks(model, dict(zip(names, after, strict=True)))  # refuses masks that are not constant
    for weight, found, back in zip(weights, moments, new, strict=True):
        weight.copy_(torch.where(back, -found.mean / (found.square + damping), weight))
    if count + more and not any((back & (g.square > 0)).any() for g, back in zip(moments, new, strict=True)):
        warnings.warn("no pruned weight has a gradient: the network may be cut", stacklevel=2)
    return model


def gradient_moments(
    model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 2000
) -> dict[str, Moments]:
    """Return (g, F) for each linear and convolution layer by name, in the shape of its weight.

    g is the mean over images of the gradient of the cross-entropy with respect to the masked weights, and F
    the mean of its square (the diagonal of the empirical Fisher matrix), both in eval mode, for pruned
    weights too.

    Raises:
        ValueError: There are no images or not one label for each, batch_size is below 1, a weight is not used
            exactly once for each image, or a gradient is not finite.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(
            f"images must be at least one, with a label each, got {len(images)} and {len(labels)}"
        )
    require_whole("batch_size", batch_size, 1)
    baked = plain(model).eval().requires_grad_(False)
    layers = prunable(baked)
    _require_unshared(baked, layers)
    sums = {name: [torch.zeros_like(dense_weight(layer)) for _ in "gF"] for name, layer in layers.items()}
    for some, wanted in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        for name, (inputs, slopes) in _slopes(baked, layers, some, wanted).items():
            for total, part in zip(sums[name], _moments(layers[name], inputs, slopes), strict=True):
                total += part
    found = {name: Moments(*(total / len(images) for total in pair)) for name, pair in sums.items()}
    require_finite("gradients", {name: pair.square for name, pair in found.items()})
    return found


def _slopes(
    model: nn.Module, layers: Mapping[str, nn.Module], images: Tensor, labels: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the inputs of each layer, and the gradient of each image's loss with respect to its outputs."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def watch(name: str) -> Callable[..., Tensor]:
        def hook(
            layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor
        ) -> Tensor:
            probe = torch.zeros_like(output, requires_grad=True)
            (x,) = [*args, *kwargs.values()]
            seen[name].append((x.detach().clone(), probe))  # later layers may work in place
            return output + probe

        return hook

    handles = [layer.register_forward_hook(watch(name), with_kwargs=True) for name, layer in layers.items()]
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
    slopes = torch.autograd.grad(loss, probes, materialize_grads=True)  # zeros for layers without effect
    return {name: (calls[0][0], slope) for (name, calls), slope in zip(seen.items(), slopes, strict=True)}


def _require_unshared(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    held = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    if shared := [name for name, layer in layers.items() if held[id(dense_weight(layer))] > 1]:
        raise ValueError(f"model must use each weight exactly once, not so: those of {shared} are shared")


def _moments(layer: nn.Module, inputs: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over images of the gradient with respect to the weight, and that of its square."""
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


def _cost_and_gain(
    found: Moments, w: Tensor, kept: Tensor, damping: float, per_row: int | None
) -> tuple[Tensor, Tensor]:
    """Return how much the loss rises without each kept weight, and falls with each pruned one.

    The `per_row` largest gains of each row are raised above all others.
    """
    cost, gain = found.square * w**2 / 2, found.mean**2 / (2 * (found.square + damping))  # eq-gumbel-exchange
    cost, gain = cost.masked_fill(~kept, torch.inf), gain.masked_fill(kept, -torch.inf)
    return cost, gain if per_row is None else gain + _best_of_rows(gain, per_row)


def _best_of_rows(gain: Tensor, per_row: int) -> Tensor:
    """Return 1 for the `per_row` largest gains of each row, else 0. Since g^2 <= F, no gain exceeds 1/2."""
    rows = gain.flatten(1)
    best = rows.topk(min(per_row, rows.shape[1]), dim=1).indices
    return torch.zeros_like(rows).scatter_(1, best, 1).view(gain.shape)
