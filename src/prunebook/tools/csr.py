"""Skip the zeros: linear layers that store their weights as CSR and multiply only by these.

CSR, compressed sparse rows, stores the nonzero weights row by row, the column of each, and where each row
starts. A dense kernel is several times faster per weight, so CSR pays only where most weights are zero.

Chapter: book/what-you-gain.ipynb
"""

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from prunebook.checks import require_share
from prunebook.masking import Mask
from prunebook.shrinking.slicing import plain

BREAK_EVEN = 0.85  # a little above that of 1000 x 1000, one thread, 256 images: python -m prunebook latency


class CSRLinear(nn.Module):
    """A linear layer for inference that stores only the nonzero weights and multiplies only by them.

    Its outputs are those of `layer` up to rounding. They lie in memory column by column, which suits a
    following `CSRLinear`: use `reshape` on them, since `view` cannot join their dimensions.

    Attributes:
        crow: Where each row starts in col and values, int32, (out_features + 1,).
        col: The column of each weight, int32, (weights,).
        values: The weights, (weights,); a buffer, so that no optimizer moves them.
        bias: (out_features,) or None.
    """

    crow: Tensor
    col: Tensor
    values: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach()
        rows, columns = weight.nonzero(as_tuple=True)
        ends = torch.bincount(rows, minlength=len(weight)).cumsum(0)
        # int32 takes half the space of torch's int64, and is what MKL and cuSPARSE read
        self.register_buffer("crow", torch.cat([ends.new_zeros(1), ends]).int())
        self.register_buffer("col", columns.int())
        self.register_buffer("values", weight[rows, columns])
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        with warnings.catch_warnings():
            # torch says this once per process: let it do so here, where it can be silenced, not in forward
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
            _ = self.weight

    @property
    def weight(self) -> Tensor:
        """The weight as a CSR tensor (out_features, in_features) that shares the memory of the buffers."""
        shape = self.out_features, self.in_features
        # the indices are right by construction, and checking them would take longer than the product
        return torch.sparse_csr_tensor(self.crow, self.col, self.values, shape, check_invariants=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out_features) for x (..., in_features)."""
        columns = x.reshape(-1, self.in_features).T
        # CSR on the left is five times faster than CSR on the right, as in F.linear(x, weight)
        if self.bias is None:
            result = torch.sparse.mm(self.weight, columns)
        else:
            result = torch.addmm(self.bias[:, None], self.weight, columns)
        outputs: Tensor = result.T
        return outputs.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Return the sizes and the number of stored weights."""
        return f"{self.in_features}, {self.out_features}, weights={len(self.values)}"


def to_csr(model: nn.Module, above: float = BREAK_EVEN) -> nn.Module:
    """Return a plain copy for inference in which sparse linear layers are `CSRLinear`; `model` stays.

    Convolutions stay dense, because torch has no sparse ones. So do subclasses of `nn.Linear`, which may
    compute something else, or whose weight other modules read, as attention does.

    Args:
        model: Baked or with hardened masks; on CUDA, or on the CPU in at least 32 bits.
        above: Convert layers whose share of zeros is at least this, 0 to 1; 0 converts all.

    Raises:
        ValueError: Above is out of range, a mask still learns, or torch has no CSR product for a layer.
    """
    require_share("above", above)
    baked = baked_copy(model)
    fast: dict[nn.Module, nn.Module] = {}
    for layer in baked.modules():
        if type(layer) is nn.Linear:
            _require_csr(layer.weight)
            if int((layer.weight == 0).sum()) / max(layer.weight.numel(), 1) >= above:
                fast[layer] = CSRLinear(layer).train(layer.training)
    for holder in [module for module in baked.modules() if module not in fast]:
        for name, child in holder._modules.items():  # named_children would skip the second place of a layer
            if child in fast:
                holder._modules[name] = fast[child]
    return fast.get(baked, baked)


def baked_copy(model: nn.Module) -> nn.Module:
    """Return a copy with constant masks baked into its weights.

    Raises:
        ValueError: a mask still learns, or a layer has a parametrization that is no mask.
    """
    masks = (module for module in model.modules() if hasattr(module, "kept"))
    learning = sorted({type(mask).__name__ for mask in masks if not isinstance(mask, Mask)})
    if learning:
        raise ValueError(f"model must have hardened masks, got {', '.join(learning)}: call harden(model)")
    return plain(model)


def _require_csr(weight: Tensor) -> None:
    if weight.device.type not in ("cpu", "cuda"):
        raise ValueError(f"model must be on one of ('cpu', 'cuda') for CSR, got {weight.device}")
    if weight.device.type == "cpu" and weight.itemsize < 4:
        raise ValueError(f"model must have weights of 32 or 64 bits for CSR on the CPU, got {weight.dtype}")


def break_even(ks: Sequence[float], faster: Sequence[float]) -> float:
    """Return the k at which a form becomes as fast as dense, on straight lines between points of log(faster).

    Args:
        ks: Percent of weights pruned, rising.
        faster: How many times faster than dense the form is at each k, above 0.

    Raises:
        ValueError: The form is nowhere slower and then faster than dense.
    """
    logs = [math.log(each) for each in faster]
    for (k, log), (next_k, next_log) in pairwise(zip(ks, logs, strict=True)):
        if log <= 0 < next_log:
            return k + (next_k - k) * log / (log - next_log)
    raise ValueError(f"faster must pass 1 on its way, got {list(faster)}")
