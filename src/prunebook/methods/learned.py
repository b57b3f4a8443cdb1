"""Code that the learned masks share: optimizer groups, wider dtypes, and when not to use fused functions.

Chapter: book/soft-masks.ipynb
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def optimizer_groups(
    model: nn.Module, apart: Iterable[tuple[Sequence[nn.Parameter], float]]
) -> list[dict[str, Any]]:
    """Return optimizer groups: first the parameters not in `apart`, then each part at its own learning rate.

    The parts have no weight decay, which would pull what a mask learns towards 0.

    Args:
        model: Each of its trainable parameters ends up in exactly one group.
        apart: Pairs (parameters, learning rate); a pair without trainable parameters is left out.
    """
    learned = [([p for p in parameters if p.requires_grad], lr) for parameters, lr in apart]
    named = [{"params": trained, "lr": lr, "weight_decay": 0.0} for trained, lr in learned if trained]
    taken = {parameter for trained, _ in learned for parameter in trained}
    return [{"params": [p for p in model.parameters() if p.requires_grad and p not in taken]}, *named]


def only_plain_operations() -> bool:
    """Return whether torch is recording or transforming the operations that run now.

    Compilers, tracers and `torch.func` take plain operations, and a compiler fuses them by itself. Otherwise
    the fused functions of the package are faster.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state():
        return True
    return torch._C._are_functorch_transforms_active()


def wide_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of x, but float32 for 16-bit floats, which are too coarse to compute with."""
    return torch.promote_types(x.dtype, torch.float32)


def widened(x: Tensor) -> Tensor:
    """Return x in float32 or wider."""
    return x.to(wide_dtype(x))


def gradients_by_autograd(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], needed: Sequence[bool], gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `function(*inputs)` for the inputs that need one, and None for the others.

    The backward pass of a fused function calls this when a gradient of the gradient is wanted: `function`
    computes the same with plain operations, so autograd can differentiate it again.
    """
    wanted = [value for value, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(function(*inputs), wanted, gradient, create_graph=True))
    return tuple(next(found) if need else None for need in needed)
