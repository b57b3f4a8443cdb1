"""Gates that are coin tosses: one logit each, noise in training, and a straight-through gradient.

A gate has one logit l. In training it is open if l + noise > 0. The noise is logistic: it is distributed as
the difference of two Gumbel variables. So P(open) = sigmoid(l). The temperature tau, which has no unit, does
not change this: in a hard gate it only shapes the gradient. In evaluation, and when hardened, a gate is open
if l > 0, and nothing is sampled.

Chapter: book/gumbel.ipynb
"""

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebook.checks import require_positive
from prunebook.layers import parameter_name
from prunebook.methods.learned import gradients_by_autograd, only_plain_operations, wide_dtype
from prunebook.methods.units import spread_units
from prunebook.step_state import StepState

FROZEN = 1e4  # a logit so large leaves nothing to chance, and still fits into half precision
NOISE_TAIL = 1e-7  # probability below which the tails of the noise are cut: at -16 and 16


def logistic_noise(like: Tensor) -> Tensor:
    """Draw log(u / (1 - u)) with u uniform in 0..1, distributed as the difference of two Gumbel variables.

    The noise has the shape of `like` and is float32 or wider: float16 has too few numbers near 1.
    """
    return torch.rand_like(like, dtype=wide_dtype(like)).logit_(eps=NOISE_TAIL)


def gumbel_gate(logit: Tensor, noise: Tensor, tau: float = 1.0, hard: bool = True) -> Tensor:
    """Return gates of the shape of `logit`: s = sigmoid((logit + noise) / tau), in 0..1.

    Hard gates are 1 where logit + noise > 0, else 0, and have the gradient of s (straight-through).

    Raises:
        ValueError: Tau is not above 0.

    Source: Jang et al. 2017, arXiv 1611.01144, sections 2.1 and 2.2, for two classes; Maddison et al. 2017,
    arXiv 1611.00712, appendix B.
    """
    return _gate(logit, noise, require_positive("tau", tau), hard)


def _gate(logit: Tensor, noise: Tensor, tau: Tensor | float, hard: bool) -> Tensor:
    total = logit + noise
    soft = (total / tau).sigmoid()  # eq-gumbel-gate
    return (total > 0).to(soft.dtype) + (soft - soft.detach()) if hard else soft


def two_logit_gate(logits: Tensor, tau: float = 1.0, hard: bool = True) -> Tensor:
    """Return gates, (...), sampled from pairs of logits, (..., 2); the first logit of a pair is for open.

    This is the paper's form, for comparison. Its gates are distributed as those of `gumbel_gate` at
    logits[..., 0] - logits[..., 1], but it takes twice the memory and twice the noise.

    Source: Zhang, Tao & Zhang 2023, arXiv 2311.12526, section 3.
    """
    return F.gumbel_softmax(logits, tau=require_positive("tau", tau), hard=hard)[..., 0]


class Gate(StepState):
    """A tensor of gates: their logits, their temperature, and the noise of this step.

    Gates whose logits are not trained are not sampled: they are open where l > 0, in training too.
    """

    what = "noise"
    noise: Tensor
    tau: Tensor

    def __init__(self, logit: Tensor, tau: float, hard: bool) -> None:
        super().__init__()
        self.logit = nn.Parameter(logit)
        self.hard = hard
        # a tensor, so that compiled code sees when the temperature changes
        self.register_buffer("tau", logit.new_tensor(tau))
        # noise moves with the model, and is not saved
        self.register_buffer("noise", logistic_noise(logit), persistent=False)

    def forward(self) -> Tensor:
        """Return the gates, 0..1, of the logits' shape: sampled in training, by the sign in evaluation."""
        if not self.sampled():
            return self.open().to(self.logit.dtype)
        return _gate(self.logit, self.noise, self.tau, self.hard)

    def sampled(self) -> bool:
        """Return whether coins are tossed: in training, if the logits are trained."""
        return self.training and self.logit.requires_grad

    def open(self) -> Tensor:
        """Return where l > 0."""
        return self.logit.detach() > 0

    def watched(self) -> list[nn.Parameter]:
        """Return the logits and the weights behind them; gates that are not trained have no steps."""
        return super().watched() if self.logit.requires_grad else []

    def renew(self) -> None:
        """Draw the noise of the next step."""
        if self.logit.requires_grad:
            self.noise.copy_(logistic_noise(self.logit))

    def frozen(self) -> bool:
        """Return whether `freeze` has set all logits."""
        return not self.logit.is_meta and bool((self.logit.detach().abs() > FROZEN / 2).all())

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        before = self.frozen()
        super()._load_from_state_dict(*args, **options)
        if self.frozen() != before:
            self.logit.requires_grad_(before)  # a momentum would still move logits that are frozen

    def extra_repr(self) -> str:
        """Show the settings that are not parameters; runs with different settings are different runs."""
        return f"tau={float(self.tau):g}, hard={self.hard}"


class WeightGate(Gate):
    """The mask of a layer with a gate for each weight."""

    def forward(self, w: Tensor) -> Tensor:  # type: ignore[override]
        """Return w times its gates, of w's shape and dtype."""
        if not self.sampled():
            return w * self.open()
        if only_plain_operations():
            return (w * super().forward()).to(w.dtype)
        self.require_fresh(w)
        gated: Tensor = _GatedWeight.apply(w, self.logit, self.noise, self.tau, self.hard)
        return gated

    def kept(self, w: Tensor) -> Tensor:
        """Return where l > 0; raise a ValueError if a logit is NaN."""
        require_numbers(self)
        return self.open()

    def hardened_weight(self, w: Tensor) -> Tensor:
        """Return a copy of w; warn if all of it is pruned."""
        _warn_if_empty(self, w)
        return w.clone()


class UnitGate(nn.Module):
    """The mask of one parameter, with a gate for each unit; weight, bias and BatchNorm share the gate.

    The mask of the weight owns the gate. So the gate is sampled whenever that layer is in train mode, even if
    its BatchNorm is kept in eval mode. The other masks only refer to the gate.
    """

    def __init__(self, gate: Gate, groups: int = 0, owner: bool = False) -> None:
        super().__init__()
        self.groups = groups  # groups of a transposed convolution, 0 for other layers
        self.reference = (gate,)  # in a tuple, so that the gate does not become a submodule
        if owner:
            self.gate = gate

    @property
    def group(self) -> Gate:
        """What the masks of a unit have in common: `harden` takes all of them or none."""
        return self.reference[0]

    def forward(self, w: Tensor) -> Tensor:
        """Return w times the gates of its units, of w's shape and dtype."""
        if self.group.sampled() and not only_plain_operations():
            self.group.require_fresh(w)
        return w * spread_units(self.group().to(w.dtype), w, self.groups)

    def kept(self, w: Tensor) -> Tensor:
        """Return where the unit's l > 0; raise a ValueError if a logit is NaN."""
        require_numbers(self.group)
        return spread_units(self.group.open(), w, self.groups).clone()

    def hardened_weight(self, w: Tensor) -> Tensor:
        """Return a copy of w; warn if all of a layer's weight is pruned."""
        if w.dim() > 1:  # warn once per layer, not again for its bias and BatchNorm
            _warn_if_empty(self.group, w)
        return w.clone()


def gates(model: nn.Module) -> dict[str, Gate]:
    """Return the gates of a model by the name of the first layer, or other parameter, that they mask.

    Raises:
        ValueError: There is none.
    """
    found: dict[Gate, str] = {}
    for path, module in model.named_modules():
        if isinstance(module, Gate):
            layer, _, rest = path.partition("parametrizations.")
            layer, parameter = layer.removesuffix("."), rest.partition(".")[0]
            found.setdefault(module, layer if parameter == "weight" else parameter_name(layer, parameter))
    if not found:
        raise ValueError("model must have Gumbel gates, got none: they were hardened, or never attached")
    return {name: gate for gate, name in found.items()}


def require_numbers(*found: Gate) -> None:
    """Raise a ValueError if a logit is NaN."""
    if any(gate.logit.detach().isnan().any() for gate in found):
        raise ValueError("logits must be numbers, got NaN: lower the learning rates or lam")


def _warn_if_empty(gate: Gate, w: Tensor) -> None:
    """Warn if hardening leaves nothing of a layer."""
    if not gate.open().any():
        warnings.warn(
            f"all {gate.logit.numel()} gates of a layer with weights of shape {tuple(w.shape)} are closed: "
            "nothing of it is left. Lower lam, or raise the target density",
            stacklevel=5,
        )


class _GatedWeight(torch.autograd.Function):
    """w times `gumbel_gate`, with half as many buffers, which saves memory traffic: change both or none."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, logit: Tensor, noise: Tensor, tau: Tensor, hard: bool) -> Tensor:
        soft = logit + noise
        opened = soft.clone().gt_(0)  # numbers: a product with bools would copy them first
        soft.div_(tau).sigmoid_()
        ctx.save_for_backward(w, logit, noise, tau, soft, opened)
        ctx.hard = hard
        return (w * (opened if hard else soft)).to(w.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        w, logit, noise, tau, soft, opened = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted: let autograd find it

            def composed(w: Tensor, logit: Tensor) -> Tensor:
                return (w * _gate(logit, noise, tau, ctx.hard)).to(w.dtype)

            needed = ctx.needs_input_grad[:2]
            return *gradients_by_autograd(composed, (w, logit), needed, gradient), None, None, None
        pull = gradient.to(soft.dtype) * w.to(soft.dtype)  # in half precision the product could underflow
        torch.ops.aten.sigmoid_backward(pull, soft, grad_input=pull)
        pull.div_(tau)
        along_w = gradient * (opened if ctx.hard else soft)
        return along_w.to(w.dtype), pull.to(logit.dtype), None, None, None
