"""Gumbel-Softmax pruning: each weight tosses a coin whether it takes part, and the coins learn their bias.

A gate has one logit l. In training it is open where l + noise > 0, with logistic noise: the difference of two
Gumbel variables. So P(open) = sigmoid(l), whatever the temperature tau, which has no unit and only shapes the
gradient. In evaluation, and when hardened, a gate is open where l > 0: nothing is sampled.

Chapter: book/gumbel.ipynb
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunebook.masking import (
    attach,
    attach_all,
    before_forward,
    dense_weight,
    maskable,
    masks,
    optimizer_groups,
    parameter_name,
    prunable,
    same_weight,
)
from prunebook.methods.quantile import widened
from prunebook.methods.soft import require_positive
from prunebook.methods.units import TRANSPOSED, norms_after, output_layers, spread_units, trace
from prunebook.methods.weights import smallest
from prunebook.tools.costs import effective

LOGIT = 2.0  # at the start: P(open) = 0.88
LR_GATES = 2e-2
FROZEN = 1e4  # logits of this size toss no coin, and lie within the range of half precision
NOISE_TAIL = 1e-7  # probability below which the tails of the noise are cut: at -16 and 16


def logistic_noise(like: Tensor) -> Tensor:
    """Draw log(u / (1 - u)), u uniform: as one Gumbel variable less another.

    In the shape of ``like``, in float32 at least: a half has too few numbers between 0 and 1.
    """
    return torch.rand_like(like, dtype=_wide(like)).logit_(eps=NOISE_TAIL)


def gumbel_gate(logit: Tensor, noise: Tensor, tau: float = 1.0, hard: bool = True) -> Tensor:
    """Return gates of the shape of ``logit``: s = sigmoid((logit + noise) / tau), in 0..1.

    Hard gates are 1 where logit + noise > 0, else 0, and have the gradient of s (straight-through).

    Raises:
        ValueError: tau is not above 0.

    Source: Jang et al. 2017, arXiv 1611.01144, sections 2.1 and 2.2, for two classes; Maddison et al. 2017,
    arXiv 1611.00712, appendix B.
    """
    total = logit + noise
    soft = (total / require_positive("tau", tau)).sigmoid()
    return (total > 0).to(soft.dtype) + (soft - soft.detach()) if hard else soft


def two_logit_gate(logits: Tensor, tau: float = 1.0, hard: bool = True) -> Tensor:
    """Return gates sampled from pairs of logits (..., 2), the first for open: of shape (...).

    The form of the paper, here to compare with. In law it is ``gumbel_gate`` at logits[..., 0] -
    logits[..., 1], with twice the memory and noise.

    Source: Zhang, Tao & Zhang 2023, arXiv 2311.12526, section 3.
    """
    return F.gumbel_softmax(logits, tau=require_positive("tau", tau), hard=hard)[..., 0]


class GumbelPruning:
    """Put a gate on every weight, or on every unit, of a network: topology and weights are learned together.

    Train the model with ``parameter_groups``, ``penalty`` and the schedule of ``fall``; then ``freeze`` the
    gates at an exact count, ``harden`` the model and fine-tune it.

    Args:
        model: its linear and convolution layers get gates, in place; with ``units``, not the output layers.
        tau: temperature, above 0, without unit. Low: noisy gradients; high: biased ones.
        lam: strength of the penalty.
        units: a gate for each unit in place of each weight; it closes weights, bias and BatchNorm together.
        skip: names of layers to leave alone.
        hard: in training, gates are 0 or 1 with the gradient of soft ones; else they are soft.
        logit: of every gate at the start; 2 opens 88 % of them.
        lr_gates: learning rate of the logits in ``parameter_groups``.

    Raises:
        ValueError: an argument is out of range, or weights are masked already.

    Source: Zhang, Tao & Zhang 2023, arXiv 2311.12526, section 3, with one logit in place of two.
    """

    def __init__(
        self,
        model: nn.Module,
        tau: float = 1.0,
        lam: float = 1.0,
        units: bool = False,
        skip: Sequence[str] = (),
        hard: bool = True,
        logit: float = LOGIT,
        lr_gates: float = LR_GATES,
    ) -> None:
        if not 0 <= lam < math.inf:
            raise ValueError(f"lam must be at least 0 and finite, got {lam}")
        if not abs(logit) < FROZEN / 2:
            raise ValueError(f"logit must lie between {-FROZEN / 2:g} and {FROZEN / 2:g}, got {logit}")
        require_positive("tau", tau)
        self.model, self.lam, self.lr_gates = model, lam, require_positive("lr_gates", lr_gates)
        self.target = 1.0  # what ``penalty`` aims at; ``fall`` moves it
        if units:
            graph = trace(model)  # from here, so that its warning points to the caller
            _attach_to_units(
                model, graph, lambda weight, n: Gate(_logits(weight, (n,), logit), tau, hard), skip
            )
        else:
            attach_all(
                model, lambda weight: WeightGate(_logits(weight, weight.shape, logit), tau, hard), skip
            )
        before_forward(model, _draw)

    @property
    def tau(self) -> float:
        """The temperature of all gates; set it to a number above 0."""
        return next(iter(gates(self.model).values())).tau

    @tau.setter
    def tau(self, value: float) -> None:
        for gate in gates(self.model).values():
            gate.tau = require_positive("tau", value)

    @overload
    def density(self, per_layer: Literal[False] = False) -> float: ...
    @overload
    def density(self, per_layer: Literal[True]) -> dict[str, float]: ...
    def density(self, per_layer: bool = False) -> float | dict[str, float]:
        """Return the expected share of open gates, 0 to 1, exactly: the mean of sigmoid(l); or by layer."""
        if not per_layer:
            return float(_density(self.model).detach())
        found = gates(self.model)
        return {name: float(widened(gate.logit.detach()).sigmoid().mean()) for name, gate in found.items()}

    def penalty(self, target: float | None = None, form: Literal["log", "absolute"] = "log") -> Tensor:
        """Return lam max(0, log(density / target)), or lam abs(target - density), of the expected density.

        The logarithm pulls with the same strength at 50 % and at 0.15 %; it never opens gates.

        Args:
            target: share of the gates that should be open, 0 to 1, for "log" above 0; None: ``.target``.
            form: "log" or "absolute"; the second is the paper's.

        Source: Zhang, Tao & Zhang 2023, arXiv 2311.12526, section 3; "log" is ours.
        """
        target = self.target if target is None else target
        if form not in ("log", "absolute"):
            raise ValueError(f"form must be 'log' or 'absolute', got {form!r}")
        if not 0 <= target <= 1 or (form == "log" and target == 0):
            above = "above 0, up to" if form == "log" else "from 0 to"
            raise ValueError(f"target must be a share of the gates, {above} 1, got {target}")
        density = _density(self.model)
        if form == "absolute":
            return self.lam * (target - density).abs()
        return self.lam * (density / target).clamp(min=1).log()

    def fall(self, target: float, until: float = 0.6) -> Callable[[float], None]:
        """Return ``schedule(progress)``: ``.target`` falls by equal factors from 1 to ``target``.

        It is there at the share ``until`` of the run; the rest is for weights and gates to settle.
        """
        if not 0 < target <= 1:
            raise ValueError(f"target must be a share of the gates above 0, up to 1, got {target}")
        _require_share("until", until)

        def schedule(progress: float) -> None:
            self.target = target ** min(progress / until, 1.0)

        return schedule

    def anneal(self, end: float, until: float = 0.75) -> Callable[[float], None]:
        """Return ``schedule(progress)``: tau moves by equal factors to ``end``, above 0, at ``until``."""
        start, end = self.tau, require_positive("end", end)
        _require_share("until", until)

        def schedule(progress: float) -> None:
            self.tau = start * (end / start) ** min(progress / until, 1.0)

        return schedule

    def freeze(self, count: int) -> None:
        """Leave exactly the ``count`` gates of largest logit open, for good; of ties, the higher index.

        Logits become -10,000 or 10,000 and are not trained any more; names and shapes in the state_dict stay.
        Warns where no path of open gates leads from an input to an output any more.

        Args:
            count: gates to keep, 1 to their number.

        Raises:
            ValueError: count is out of range, or logits are NaN.
        """
        found = gates(self.model)
        _require_numbers(*found.values())
        logits = torch.cat([gate.logit.detach().flatten() for gate in found.values()])
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(logits):
            raise ValueError(f"count must be a whole number of gates, 1 to {len(logits)}, got {count!r}")
        kept = smallest(logits, len(logits) - count).logical_not()
        parts = kept.split_with_sizes([gate.logit.numel() for gate in found.values()])
        for gate, part in zip(found.values(), parts, strict=True):
            with torch.no_grad():
                gate.logit.copy_(torch.where(part.view_as(gate.logit), FROZEN, -FROZEN))
            gate.train(gate.training)
        _warn_if_cut(self.model, f"{count} open gates")

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what an optimizer trains: the model's parameters and, at their own rate, the logits."""
        found = [gate.train(gate.training) for gate in gates(self.model).values()]  # frozen, or thawed?
        logits = [gate.logit for gate in found]
        return optimizer_groups(self.model, [(logits, self.lr_gates)])


class Gate(nn.Module):
    """Some coins: their logits, their temperature, and the noise of this step."""

    noise: Tensor | None

    def __init__(self, logit: Tensor, tau: float, hard: bool) -> None:
        super().__init__()
        self.logit = nn.Parameter(logit)
        self.tau, self.hard, self.frozen = tau, hard, False
        self.register_buffer("noise", None, persistent=False)  # moves with the model, and is not saved

    def forward(self) -> Tensor:
        """Return the gates, 0..1, of the logits' shape: sampled in training, by the sign in evaluation."""
        if self.noise is None or not self.training:
            return self.open().to(self.logit.dtype)
        return gumbel_gate(self.logit, self.noise, self.tau, self.hard)

    def open(self) -> Tensor:
        """Return where l > 0."""
        return self.logit.detach() > 0

    def draw(self) -> None:
        """Toss the coins of the next step; frozen ones need no toss."""
        self.noise = None if self.frozen else logistic_noise(self.logit)

    def train(self, mode: bool = True) -> "Gate":
        """Also note whether the gates are frozen, which loading or resuming may have changed."""
        frozen = bool((self.logit.detach().abs() > FROZEN / 2).all())
        if frozen != self.frozen:
            self.frozen, self.noise = frozen, None
            self.logit.requires_grad_(not frozen)  # else an optimizer's momentum would still move it
        return super().train(mode)

    def extra_repr(self) -> str:
        """Tell what is no parameter: runs that differ in it are not the same run."""
        return f"tau={self.tau:g}, hard={self.hard}"


class WeightGate(Gate):
    """The mask of a layer with a gate for each weight."""

    def forward(self, w: Tensor) -> Tensor:  # type: ignore[override]
        """Return w times its gates, of w's shape and dtype."""
        if self.noise is None or not self.training:
            return w * self.open()
        gated: Tensor = _GatedWeight.apply(w, self.logit, self.noise, self.tau, self.hard)
        return gated

    def kept(self, w: Tensor) -> Tensor:
        """Return where l > 0; logits that are NaN raise."""
        _require_numbers(self)
        return self.open()

    def hardened_weight(self, w: Tensor) -> Tensor:
        """Return a copy of w; warn where all of it is pruned."""
        _warn_if_empty(self, w)
        return w.clone()


class UnitGate(nn.Module):
    """The mask of one parameter, with a gate for each unit; weight, bias and BatchNorm share the gate."""

    def __init__(self, gate: Gate, groups: int = 0) -> None:
        super().__init__()
        self.gate, self.groups = gate, groups  # groups of a transposed convolution, 0 for other layers

    def forward(self, w: Tensor) -> Tensor:
        """Return w times the gates of its units, of w's shape and dtype."""
        return w * spread_units(self.gate().to(w.dtype), w, self.groups)

    def kept(self, w: Tensor) -> Tensor:
        """Return where the unit's l > 0; logits that are NaN raise."""
        _require_numbers(self.gate)
        return spread_units(self.gate.open(), w, self.groups).clone()

    def hardened_weight(self, w: Tensor) -> Tensor:
        """Return a copy of w; warn where all of a layer's weight is pruned."""
        if w.dim() > 1:  # once for a layer: not for its bias and BatchNorm as well
            _warn_if_empty(self.gate, w)
        return w.clone()


def gates(model: nn.Module) -> dict[str, Gate]:
    """Return the gates of a model by the name of the first layer that uses them.

    Raises:
        ValueError: there is none.
    """
    found: dict[Gate, str] = {}
    for path, module in model.named_modules():
        if isinstance(module, Gate):
            found.setdefault(module, path.partition("parametrizations.")[0].removesuffix("."))
    if not found:
        raise ValueError("model must have Gumbel gates, got none: they were hardened, or never attached")
    return {name: gate for gate, name in found.items()}


def _logits(weight: Tensor, shape: Sequence[int], value: float) -> Tensor:
    return torch.full(tuple(shape), value, device=weight.device, dtype=_wide(weight))


def _wide(like: Tensor) -> torch.dtype:
    return torch.promote_types(like.dtype, torch.float32)


def _draw(model: nn.Module) -> None:
    for gate in gates(model).values():
        gate.draw()


def _density(model: nn.Module) -> Tensor:
    logits = [widened(gate.logit) for gate in gates(model).values()]
    total = torch.stack([logit.sigmoid().sum() for logit in logits]).sum()
    return total / sum(logit.numel() for logit in logits)


def _attach_to_units(
    model: nn.Module,
    graph: fx.Graph | None,
    make_gate: Callable[[nn.Parameter, int], Gate],
    skip: Sequence[str],
) -> None:
    """Attach a gate for each unit: to weights, biases, and the BatchNorms that follow."""
    skip = [*skip, *output_layers(model, graph)]
    layers = prunable(model, skip)
    norms, modules, present = norms_after(model, graph), dict(model.named_modules()), masks(model)
    mask_of: dict[nn.Parameter, UnitGate] = {}
    speakers: dict[tuple[str, str], UnitGate] = {}  # what else the units speak through
    for layer in layers.values():
        weight, groups = dense_weight(layer), layer.groups if isinstance(layer, TRANSPOSED) else 0
        gate = make_gate(weight, weight.shape[1] * groups if groups else len(weight))
        mask_of[weight] = UnitGate(gate, groups)
        twins = [name for name, other in maskable(model).items() if same_weight(layer, other)]
        followers = [norm for norm, source in norms.items() if source in twins]
        places = [(name, "bias") for name in twins + followers] + [(name, "weight") for name in followers]
        speakers |= {
            (name, parameter): UnitGate(gate)
            for name, parameter in places
            if getattr(modules[name], parameter) is not None
        }
    if masked := [name for name in (parameter_name(*place) for place in speakers) if name in present]:
        raise ValueError(f"parameters must be without mask, got masks on {masked}: bake the model first")
    attach_all(model, mask_of.__getitem__, skip)
    for (name, parameter), mask in speakers.items():
        attach(modules[name], mask, parameter)


def _require_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be a share of the run above 0, up to 1, got {value}")


def _require_numbers(*found: Gate) -> None:
    if any(gate.logit.detach().isnan().any() for gate in found):
        raise ValueError("logits must be numbers, got NaN: lower the learning rates or lam")


def _warn_if_empty(gate: Gate, w: Tensor) -> None:
    """Warn where hardening leaves nothing of a layer."""
    if not gate.open().any():
        warnings.warn(
            f"all {gate.logit.numel()} gates of a layer with weights of shape {tuple(w.shape)} are closed: "
            "nothing of it is left. Lower lam, or raise the target",
            stacklevel=5,
        )


def _warn_if_cut(model: nn.Module, what: str) -> None:
    """Warn where the outputs do not depend on the inputs any more."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of single layers: others may lead round them
            cut = effective(model) == 0
    except ValueError:  # not traceable: at least no layer may be empty
        cut = not all(gate.open().any() for gate in gates(model).values())
    if cut:
        warnings.warn(
            f"no path leads from an input to an output through {what}: every image gets the same answer. "
            "Keep more, or let the target fall more slowly",
            stacklevel=3,
        )


class _GatedWeight(torch.autograd.Function):
    """w ``gumbel_gate``(logit, noise): the same numbers with half the buffers, for time goes into memory."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, logit: Tensor, noise: Tensor, tau: float, hard: bool) -> Tensor:
        soft = logit + noise
        opened = soft.clone().gt_(0)  # numbers: a product with bools would copy them first
        if tau != 1:
            soft.div_(tau)
        soft.sigmoid_()
        ctx.save_for_backward(w, logit, noise, soft, opened)
        ctx.tau, ctx.hard = tau, hard
        return (w * (opened if hard else soft)).to(w.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        w, logit, noise, soft, opened = ctx.saved_tensors
        if torch.is_grad_enabled():  # asked for a gradient of the gradient: let autograd find it
            inputs = [
                value for value, needed in zip((w, logit), ctx.needs_input_grad, strict=False) if needed
            ]
            gated = (w * gumbel_gate(logit, noise, ctx.tau, ctx.hard)).to(w.dtype)
            found = iter(torch.autograd.grad(gated, inputs, gradient, create_graph=True))
            return *(next(found) if needed else None for needed in ctx.needs_input_grad[:2]), None, None, None
        pull = gradient.to(soft.dtype) * w.to(soft.dtype)  # in halves the product could vanish
        torch.ops.aten.sigmoid_backward(pull, soft, grad_input=pull)
        if ctx.tau != 1:
            pull.div_(ctx.tau)
        along_w = gradient * (opened if ctx.hard else soft)
        return along_w.to(w.dtype), pull.to(logit.dtype), None, None, None
