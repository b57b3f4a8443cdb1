"""Soft masks: a sigmoid in place of yes or no, so that weights near the threshold can be carried across it.

The threshold is the k % quantile of the absolute weights and follows them. As the temperature falls to 0 the
soft mask becomes the hard one.

Chapter: book/soft-masks.ipynb
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunebook.masking import attach_all, before_forward, dense_weight, optimizer_groups, prunable
from prunebook.methods.quantile import quantile_and_slope, widened
from prunebook.methods.weights import Scope, exact_count, groups, magnitudes, smallest

TAU_MIN = 1e-12
LOG_TAU_MAX = 27.5  # log(tau) stays within this and its negative, 1e-12 and 1e12: exact in half precision
LR_TAU = 5e-3  # a step moves tau by half a percent: tau is learned as its logarithm
MASK_MIN = 1e-12  # what a mask lets through below this is 0
EXPONENT_MAX = 1e3  # sigmoid(-1000) is 0, exactly, in float64 as well


def soft_mask(w: Tensor, t: Tensor | float, tau: Tensor | float) -> Tensor:
    """Return m(w) = sigmoid((w^2 - t^2) / tau), of w's shape: 1/2 where abs(w) = t.

    tau -> 0 gives the hard mask abs(w) >= t. dm/dw = 2w/tau m(1-m), dm/dt = -2t/tau m(1-m) and
    dm/dtau = -(w^2 - t^2)/tau^2 m(1-m).

    Args:
        w: weights; computed in float32 at least.
        t: threshold, at least 0, in the units of w; it and tau are broadcast against w.
        tau: temperature, at least 1e-12, in the units of w^2.

    Raises:
        ValueError: t or tau is out of range or NaN.

    Source: Cho et al. 2023 (PDP), arXiv 2305.11203, section 3; derivatives: Pereira, eq. 2.10 and 2.11.
    """
    for name, value, least in (("t", t, 0.0), ("tau", tau, TAU_MIN)):
        if not (torch.as_tensor(value) >= least).all():
            raise ValueError(f"{name} must be at least {least:g}, got {value}")
    wide, most = widened(w), EXPONENT_MAX * torch.as_tensor(tau, device=w.device)
    # limited before the division, whose gradient would overflow
    exponent = ((wide - t) * (wide + t)).clamp(-most, most) / tau
    return exponent.sigmoid().to(w.dtype)


class SoftPruning:
    """Put a soft mask on the weights of a network: k % of them lie below the threshold at all times.

    Train the model as usual, then ``harden`` it: exactly k % become zero, and what is left of the masks is
    multiplied into the weights that stay.

    Args:
        model: its linear and convolution layers get masks, in place; biases never.
        k: percent of the weights below the threshold, 0 to 100.
        tau: temperature at the start, above 0: this number times the standard deviation of the weights that
            share a threshold, the convention of Pereira's thesis. ``.tau`` is the product, in units of w^2;
            for one weight, or equal ones, it is next to nothing: 1e-12 at least.
        scope: "layer", a threshold and a temperature for each layer; or "global", one of each.
        skip: names of layers to leave alone.
        learn_tau: train the temperature with the weights; else it stays, or ``anneal`` moves it.
        lr_tau: learning rate of log(tau) in ``parameter_groups``.
        every: training steps from one look at the weights to the next; the threshold stands still between.

    Raises:
        ValueError: an argument is out of range, or weights are NaN, infinite, or masked already.
    """

    def __init__(
        self,
        model: nn.Module,
        k: float,
        tau: float = 1e-2,
        scope: Scope = "layer",
        skip: Sequence[str] = (),
        learn_tau: bool = False,
        lr_tau: float = LR_TAU,
        every: int = 10,
    ) -> None:
        exact_count(k, 0)
        self.model, self.lr_tau = model, require_positive("lr_tau", lr_tau)
        attach_soft(model, lambda layers: Threshold(layers, k, tau, learn_tau, every), scope, skip)

    @property
    def tau(self) -> float:
        """The temperature in units of w^2; the geometric mean of several layers, by their weights."""
        return mean_tau(thresholds(self.model))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what an optimizer trains: the model's parameters and, at its own rate, log(tau)."""
        return parameter_groups(self.model, {"log_tau": self.lr_tau})

    def anneal(self, end: float, until: float = 0.75) -> Callable[[float], None]:
        """Return ``schedule(progress)``: from tau now to ``end`` times tau now, by equal factors.

        It is reached at the share ``until`` of the run, so that the rest trains with a mask almost hard.
        """
        if not 0 < end <= 1:
            raise ValueError(f"end must be a factor above 0, up to 1, got {end}")
        if not 0 < until <= 1:
            raise ValueError(f"until must be a share of the run above 0, up to 1, got {until}")
        moved = [threshold.log_tau for threshold in thresholds(self.model)]
        starts = [float(log_tau.detach()) for log_tau in moved]

        def schedule(progress: float) -> None:
            for log_tau, start in zip(moved, starts, strict=True):
                with torch.no_grad():
                    log_tau.fill_(start + math.log(end) * min(progress / until, 1.0))

        return schedule


class Threshold(nn.Module):
    """What the masks of some layers share: the threshold t, a quantile of their weights, and log(tau)."""

    t: Tensor

    def __init__(
        self, layers: Mapping[str, nn.Module], k: float, tau: float, learn_tau: bool, every: int
    ) -> None:
        super().__init__()
        require_positive("tau", tau)
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be a whole number of at least 1, got {every!r}")
        scores = magnitudes(layers)
        if scores.numel() == 0:
            raise ValueError(f"layers must have weights, got none in {list(layers)}")
        self.k, self.every, self.steps, self.size = k, every, 0, len(scores)
        self.layers = dict(layers)  # a plain dict: these are not parts of the threshold
        weights = torch.cat([dense_weight(layer).detach().flatten() for layer in layers.values()])
        start = max(tau * float(weights.std(correction=0)), TAU_MIN)  # equal weights have no spread
        self.log_tau = nn.Parameter(scores.new_tensor(math.log(start)), requires_grad=learn_tau)
        self.register_buffer("t", scores.new_zeros(()))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return (t, tau), in float32 at least."""
        return widened(self.t).clone(), self.tau()  # a copy: a look must not change what backward needs

    def tau(self) -> Tensor:
        """Return the temperature, in units of w^2, 1e-12 to 1e12."""
        return bounded(self.log_tau, LOG_TAU_MAX).exp()

    def pruned(self) -> int:
        """Return how many weights a hardened mask prunes."""
        return exact_count(self.k, self.size)

    @torch.no_grad()
    def look(self) -> None:
        """Set t to the quantile of the weights as they are now."""
        ratio = torch.full_like(widened(self.t), self.k / 100)
        self.t.copy_(quantile_and_slope(self.scores(), ratio)[0])

    def scores(self) -> list[Tensor]:
        """Return abs(w) of each layer, flat, at least float32."""
        weights = [dense_weight(layer).detach() for layer in self.layers.values()]
        return [widened(w.flatten().abs()) for w in weights]

    def step(self) -> None:
        """Keep tau in its range; look at the weights in every so many calls, the first among them."""
        self.log_tau.clamp_(-LOG_TAU_MAX, LOG_TAU_MAX)
        if self.steps % self.every == 0:
            self.look()
        self.steps += 1

    def train(self, mode: bool = True) -> "Threshold":
        """Look again in the next step: so each epoch begins alike, in a resumed run too."""
        self.steps = 0
        return super().train(mode)


class SoftMask(nn.Module):
    """The mask of one layer, m(w) = sigmoid((w^2 - t^2) / tau), with the t and tau of its threshold."""

    def __init__(self, threshold: Threshold, layer: str) -> None:
        super().__init__()
        self.threshold, self.layer = threshold, layer

    def forward(self, w: Tensor) -> Tensor:
        """Return w m(w), of w's shape and dtype."""
        weight: Tensor = _SoftWeight.apply(w, *self.threshold())
        return weight

    def kept(self, w: Tensor) -> Tensor:
        """Return where m >= 1/2 for the exact quantile of the weights, ties broken by index."""
        threshold = self.threshold
        gone = smallest(magnitudes(threshold.layers), threshold.pruned())
        sizes = {name: dense_weight(layer).numel() for name, layer in threshold.layers.items()}
        own = dict(zip(sizes, gone.split_with_sizes(list(sizes.values())), strict=True))[self.layer]
        return own.view(w.shape).logical_not()

    def hardened_weight(self, w: Tensor) -> Tensor:
        """Return w m(w): a kept weight stays as strong as its mask let it be, at least w/2.

        Its m is less only where t is not exact: by a cell of the histogram, or some steps old.
        """
        soft = self.forward(w)
        return soft.where(2 * soft.abs() > w.abs(), w / 2)


def attach_soft(
    model: nn.Module,
    make_threshold: Callable[[Mapping[str, nn.Module]], Threshold],
    scope: Scope,
    skip: Sequence[str],
) -> None:
    """Attach soft masks, a threshold for each group of layers, that look at the weights as training goes."""
    made = [make_threshold(layers) for layers in groups(prunable(model, skip), scope)]
    for threshold in made:
        threshold.look()
    mask_of = {dense_weight(layer): SoftMask(t, name) for t in made for name, layer in t.layers.items()}
    attach_all(model, lambda weight: mask_of[weight], skip)
    before_forward(model, _step)


def thresholds(model: nn.Module) -> list[Threshold]:
    """Return the thresholds of a model's soft masks.

    Raises:
        ValueError: there is none.
    """
    found = [module for module in model.modules() if isinstance(module, Threshold)]
    if not found:
        raise ValueError("model must have soft masks, got none: they were hardened, or never attached")
    return found


def mean_tau(found: Iterable[Threshold]) -> float:
    """Return the geometric mean of the temperatures, by the number of weights that each serves."""
    pairs = [(threshold.size, math.log(float(threshold.tau().detach()))) for threshold in found]
    return math.exp(sum(size * log for size, log in pairs) / sum(size for size, _ in pairs))


def parameter_groups(model: nn.Module, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return optimizer groups: the trainable parameters named in ``rates`` at their rates, and the others.

    Thresholds hold the parameters so named; weight decay is off for them.
    """
    found = thresholds(model)
    return optimizer_groups(model, [([getattr(t, name) for t in found], lr) for name, lr in rates.items()])


def bounded(parameter: Tensor, most: float) -> Tensor:
    """Return the parameter between -most and most, in float32 at least; a copy, as ``step`` changes it."""
    return widened(parameter).clone().clamp(-most, most)


def require_positive(name: str, value: float) -> float:
    """Return the value, or raise a ValueError unless it is above 0 and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0 and finite, got {value}")
    return value


def _step(model: nn.Module) -> None:
    for threshold in thresholds(model):
        threshold.step()


class _SoftWeight(torch.autograd.Function):
    """w m(w); t and tau have one element. The time goes into memory: few buffers, used again.

    Both terms of the exponent are rounded before their difference: in float32 it is exact to 1e-7 t^2 / tau.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, t: Tensor, tau: Tensor) -> Tensor:
        wide = widened(w)
        mask = wide / tau
        torch.addcmul(-t * t / tau, wide, mask, out=mask)
        # products of what lies below would be subnormal numbers, which are ten times as slow
        nn.functional.threshold(mask.sigmoid_(), MASK_MIN, 0.0, inplace=True)
        ctx.save_for_backward(w, t, tau, mask)
        return (wide * mask).to(w.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        w, t, tau, mask = ctx.saved_tensors
        if torch.is_grad_enabled():  # asked for a gradient of the gradient: let autograd find it
            inputs = [
                value for value, needed in zip((w, t, tau), ctx.needs_input_grad, strict=True) if needed
            ]
            found = iter(torch.autograd.grad(w * soft_mask(w, t, tau), inputs, gradient, create_graph=True))
            return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
        wide, gradient = w.to(mask.dtype), gradient.to(mask.dtype)
        pull = gradient * wide
        torch.ops.aten.sigmoid_backward(pull, mask, grad_input=pull)  # by the exponent (w^2 - t^2) / tau
        total = pull.sum()
        pull.mul_(wide)
        moment = torch.dot(pull.flatten(), wide.flatten()) if ctx.needs_input_grad[2] else total
        along_w = (gradient * mask).addcmul_(pull, 2 / tau)
        return along_w.to(w.dtype), -2 * t / tau * total, (t * t * total - moment) / (tau * tau)
