"""Skip the zeros: linear layers that store only their nonzero weights and multiply only by these.

They use CSR, compressed sparse rows: the nonzero weights row by row, the column of each, and where each row
starts. A dense kernel needs several times less time per weight, so CSR pays only if most weights are zero.

Chapter: book/what-you-gain.ipynb
"""

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from prunebook.checks import require_share
from prunebook.masking import learning
from prunebook.shrinking.slicing import plain

BREAK_EVEN = 0.85  # measured with `python -m prunebook latency` on one thread: 0.80 to 0.82


class CSRLinear(nn.Module):
    """A linear layer for inference that stores only the nonzero weights and multiplies only by them.

    Its outputs are those of `layer` up to rounding. They are stored column by column, which is what a
    following `CSRLinear` reads fastest. So change their shape with `reshape`: `view` may raise an error.

    Attributes:
        crow: Where each row starts in `col` and `values`, int32, (out_features + 1,).
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
            # torch warns of these once per process: trigger it here, where we can silence it, not in forward
            for said in ("Sparse CSR tensor support is in beta", "Sparse invariant checks"):
                warnings.filterwarnings("ignore", said, UserWarning)
            _ = self.weight

    @property
    def weight(self) -> Tensor:
        """Return the weight as a CSR tensor (out_features, in_features), which shares the buffers' memory."""
        shape = self.out_features, self.in_features
        # the indices are correct by construction, and checking them would take longer than the product
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
    """Return a plain copy for inference whose sparse linear layers are `CSRLinear`; `model` stays.

    Convolutions stay dense, because torch has no sparse ones. So do subclasses of `nn.Linear`: they may
    compute something else, or other modules may read their weight, as attention does.

    Args:
        model: Baked or with hardened masks; on CUDA, or on the CPU in at least 32 bits.
        above: Convert layers whose sparsity is at least this, 0 to 1; 0 converts all.

    Raises:
        ValueError: `above` is out of range, a mask still learns, or torch has no CSR product for a layer.
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
        for name, child in holder._modules.items():  # named_children would skip a layer's second place
            if child in fast:
                holder._modules[name] = fast[child]
    return fast.get(baked, baked)


def baked_copy(model: nn.Module) -> nn.Module:
    """Return a copy with constant masks baked into its weights.

    Raises:
        ValueError: A mask still learns, or a layer has a parametrization that is not a mask.
    """
    if soft := learning(model):
        raise ValueError(f"model must have hardened masks, got {', '.join(soft)}: call harden(model)")
    return plain(model)


def _require_csr(weight: Tensor) -> None:
    if weight.device.type not in ("cpu", "cuda"):
        raise ValueError(f"model must be on one of ('cpu', 'cuda') for CSR, got {weight.device}")
    if weight.device.type == "cpu" and weight.itemsize < 4:
        raise ValueError(f"model must have weights of 32 or 64 bits for CSR on the CPU, got {weight.dtype}")


def break_even(ks: Sequence[float], faster: Sequence[float]) -> float:
    """Return the k at which a form becomes as fast as dense, by linear interpolation of log(faster).

    Args:
        ks: Percent of weights pruned, rising.
        faster: How many times faster than dense the form is at each k, above 0.

    Raises:
        ValueError: The form never goes from slower than dense, or as fast, to faster.
    """
    logs = [math.log(each) for each in faster]
    for (k, log), (next_k, next_log) in pairwise(zip(ks, logs, strict=True)):
        if log <= 0 < next_log:
            return k + (next_k - k) * log / (log - next_log)
    raise ValueError(f"faster must pass 1 on its way, got {list(faster)}")
