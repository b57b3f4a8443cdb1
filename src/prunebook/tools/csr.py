"""Skip the zeros: linear layers that hold their weights as CSR, and multiply with these alone.

CSR, compressed sparse rows, stores the weights that are not zero row by row, the column of each, and where
each row starts. A dense kernel is several times faster per weight, so this pays only where most are zero.

Chapter: book/what-you-gain.ipynb
"""

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from prunebook.masking import Mask
from prunebook.shrinking.slicing import plain

BREAK_EVEN = 0.85  # of 1000 x 1000 on one thread and 256 images: a little above; python -m prunebook latency
DEVICES = ("cpu", "cuda")  # where torch multiplies CSR


class CSRLinear(nn.Module):
    """A linear layer for inference that stores and multiplies only the weights that are not zero.

    Outputs are those of ``layer`` but for rounding. They lie in memory column by column, as the next such
    layer likes them: reshape them, where ``view`` would have to join dimensions.

    Attributes:
        crow: where each row starts in col and values, int32, (out_features + 1,).
        col: the column of each weight, int32, (weights,).
        values: the weights, (weights,); no Parameter, so that no optimizer moves them.
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
        # int32 is half of torch's int64, and what MKL and cuSPARSE read
        self.register_buffer("crow", torch.cat([ends.new_zeros(1), ends]).int())
        self.register_buffer("col", columns.int())
        self.register_buffer("values", weight[rows, columns])
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        with warnings.catch_warnings():
            # torch says so once in a process: here, where it can be kept quiet, and not in forward
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
            _ = self.weight

    @property
    def weight(self) -> Tensor:
        """The weight as a CSR tensor, (out_features, in_features), over the same memory."""
        shape = self.out_features, self.in_features
        # checking the indices each time would take longer than the product; they are right by construction
        return torch.sparse_csr_tensor(self.crow, self.col, self.values, shape, check_invariants=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out_features) of x (..., in_features)."""
        columns = x.reshape(-1, self.in_features).T
        # CSR on the left is five times faster than on the right, as in F.linear(x, weight)
        if self.bias is None:
            result = torch.sparse.mm(self.weight, columns)
        else:
            result = torch.addmm(self.bias[:, None], self.weight, columns)
        outputs: Tensor = result.T
        return outputs.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Return sizes and how many weights are stored."""
        return f"{self.in_features}, {self.out_features}, weights={len(self.values)}"


def to_csr(model: nn.Module, above: float = BREAK_EVEN) -> nn.Module:
    """Return a plain copy for inference in which sparse linear layers are `CSRLinear`; `model` stays.

    Convolutions stay dense: torch has no sparse ones. So do subclasses of ``nn.Linear``, which may compute
    something else, or whose weight others read, as attention does.

    Args:
        model: baked, or with hardened masks; on the CPU or on CUDA.
        above: convert layers whose share of zeros is at least this, 0 to 1; 0 converts all.

    Raises:
        ValueError: above is out of range, a mask still learns, or a layer is where torch has no CSR.
    """
    if not 0 <= above <= 1:
        raise ValueError(f"above must be in 0..1, got {above}")
    masks = (module for module in model.modules() if hasattr(module, "kept"))
    learning = sorted({type(mask).__name__ for mask in masks if not isinstance(mask, Mask)})
    if learning:
        raise ValueError(f"model must have hardened masks, got {', '.join(learning)}: call harden(model)")
    baked = plain(model)
    layers = [layer for layer in baked.modules() if type(layer) is nn.Linear]
    fast: dict[nn.Module, nn.Module] = {
        layer: CSRLinear(layer).train(layer.training) for layer in layers if _zeros(layer) >= above
    }
    for holder in [module for module in baked.modules() if module not in fast]:
        for name, child in holder._modules.items():  # named_children would pass over a layer's second place
            if child in fast:
                holder._modules[name] = fast[child]
    return fast.get(baked, baked)


def _zeros(layer: nn.Linear) -> float:
    """Return the share of zeros in a layer's weight."""
    if layer.weight.device.type not in DEVICES:
        raise ValueError(f"model must be on one of {DEVICES}, got {layer.weight.device}")
    return int((layer.weight == 0).sum()) / max(layer.weight.numel(), 1)


def break_even(ks: Sequence[float], faster: Sequence[float]) -> float:
    """Return the k at which a form becomes as fast as dense.

    It lies on the straight line between two points of log(faster).

    Args:
        ks: rising.
        faster: how many times faster than dense at each k, above 0.

    Raises:
        ValueError: it passes 1 at none of them.
    """
    logs = [math.log(each) for each in faster]
    for (k, log), (next_k, next_log) in pairwise(zip(ks, logs, strict=True)):
        if log <= 0 < next_log:
            return k + (next_k - k) * log / (log - next_log)
    raise ValueError(f"faster must pass 1 on its way, got {list(faster)}")
