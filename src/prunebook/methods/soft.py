"""Soft masks: a sigmoid instead of a yes or no, so that gradients can carry weights across the threshold.

The threshold is the k % quantile of the absolute weights and follows them in training. As the temperature
falls to 0, the soft mask becomes the hard one.

Chapter: book/soft-masks.ipynb
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunebook.checks import (
    require_at_least,
    require_finite,
    require_percent,
    require_positive,
    require_share,
    require_whole,
    warn_of_share,
)
from prunebook.cover import warn_uncovered
from prunebook.layers import Skip, dense_weight, prunable
from prunebook.masking import attach_all
from prunebook.methods.learned import (
    gradients_by_autograd,
    only_plain_operations,
    optimizer_groups,
    wide_dtype,
    widened,
)
from prunebook.methods.quantile import quantile_and_slope
from prunebook.methods.schedules import ramp
from prunebook.methods.weights import Scope, choose, exact_count, groups, magnitudes
from prunebook.step_state import StepState, renew

TAU_MIN = 1e-12
LOG_TAU_MAX = 27.5  # limits log(tau), and so tau to 1e-12..1e12; exact in half precision
LR_TAU = 5e-3  # of log(tau): a step of Adam changes tau by half a percent
MASK_MIN = 1e-12  # smaller mask values become 0
SHARE_MIN = 1e-6  # a quantile needs a share above 0 and below 1
EXPONENT_MAX = 1e3  # sigmoid(-1000) is exactly 0, even in float64


def soft_mask(w: Tensor, t: Tensor | float, tau: Tensor | float) -> Tensor:
    """Return m(w) = sigmoid((w^2 - t^2) / tau), in w's shape and dtype: 1/2 where abs(w) = t.

    tau -> 0 gives the hard mask abs(w) >= t. dm/dw = 2w/tau m(1-m), dm/dt = -2t/tau m(1-m) and
    dm/dtau = -(w^2 - t^2)/tau^2 m(1-m).

    Args:
        w: Weights; the mask is computed in float32 at least.
        t: Threshold, at least 0, in the units of w; t and tau are broadcast against w.
        tau: Temperature, at least 1e-12, in the units of w^2.

    Raises:
        ValueError: t or tau is out of range or NaN.

    Source: Cho et al. 2023 (PDP), arXiv 2305.11203, section 3; derivatives: Pereira, eq. 2.10 and 2.11.
    """
    require_at_least("t", t, 0.0)
    require_at_least("tau", tau, TAU_MIN)
    return _soft_mask(w, t, torch.as_tensor(tau, device=w.device))


class SoftPruning:
    """Put soft masks on the weights of a network, with k % of the weights below the threshold.

    Train the model as usual, then `harden` it: exactly k % of the weights become zero, and each kept weight
    is multiplied by its mask, or by 1/2 if that is larger.

    Args:
        model: Its linear and convolution layers get masks, in place; biases never do.
        k: Percent of the weights below the threshold, 0 to 100.
        relative_tau: Temperature at the start, above 0, as a multiple of the standard deviation of the
            weights that share a threshold, as in Pereira's thesis. The product, raised to 1e-12 if smaller,
            is `.tau`, in units of w^2.
        scope: "layer" gives each layer a threshold and a temperature, "global" shares one of each.
        skip: Layers to leave alone: names, patterns such as "encoder.*", or a function of name and module.
        learn_tau: Whether to train the temperature with the weights. Otherwise only `anneal` changes it.
        lr_tau: Learning rate of log(tau) in `parameter_groups`.
        update_every: Number of steps, of any optimizer that holds the weights or tau, between two
            computations of the threshold from the weights.

    Raises:
        ValueError: An argument is out of range, or weights are NaN, infinite, or masked already.
    """

    def __init__(
        self,
        model: nn.Module,
        k: float,
        relative_tau: float = 1e-2,
        scope: Scope = "layer",
        skip: Skip = (),
        learn_tau: bool = False,
        lr_tau: float = LR_TAU,
        update_every: int = 10,
    ) -> None:
        require_percent("k", k)
        self.model, self.rates = model, {"log_tau": require_positive("lr_tau", lr_tau)}
        attach_soft(
            model, lambda layers: Threshold(layers, k, relative_tau, learn_tau, update_every), scope, skip
        )
        warn_of_share("k", k)
        warn_uncovered(model, skip)

    @property
    def target_density(self) -> float:
        """The share of the weights that is kept in the end: 1 - k / 100."""
        return 1 - thresholds(self.model)[0].k / 100

    @property
    def tau(self) -> float:
        """The temperature, in units of w^2; of several, the geometric mean weighted by layer size."""
        return mean_tau(thresholds(self.model))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return optimizer groups: the model's parameters and, at its own rate, log(tau)."""
        return parameter_groups(self.model, self.rates)

    def anneal(self, factor: float, until: float = 0.75) -> Callable[[float], None]:
        """Return `schedule(progress)`, which lowers tau by equal factors, to `factor` times its value now.

        The fall ends when the share `until` of the run is done; the rest of the run trains under an almost
        hard mask. Both arguments are above 0 and at most 1.
        """
        require_share("factor", factor, zero=False)
        require_share("until", until, zero=False)
        moved = [threshold.log_tau for threshold in thresholds(self.model)]
        starts = [float(log_tau.detach()) for log_tau in moved]

        @torch.no_grad()
        def schedule(progress: float) -> None:
            for log_tau, start in zip(moved, starts, strict=True):
                log_tau.fill_(start + math.log(factor) * ramp(progress, until))

        return schedule


class Threshold(StepState):
    """The threshold that some layers share: t, a quantile of their absolute weights, and log(tau)."""

    what = "threshold"
    t: Tensor
    log_tau: Tensor

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        k: float,
        relative_tau: float,
        learn_tau: bool,
        update_every: int,
    ) -> None:
        super().__init__()
        require_positive("relative_tau", relative_tau)
        self.update_every = require_whole("update_every", update_every, 1)
        require_finite("weights", {name: dense_weight(layer) for name, layer in layers.items()})
        weights = torch.cat([dense_weight(layer).detach().flatten() for layer in layers.values()])
        if weights.numel() == 0:
            raise ValueError(f"layers must have weights, got none in {list(layers)}")
        self.k, self.steps, self.size = k, 0, len(weights)  # steps since the last update
        self.gone = 0  # weights pruned in layers that were hardened before the others
        self.layers = dict(layers)  # a plain dict, so that they do not become submodules
        start = max(relative_tau * float(weights.std(correction=0)), TAU_MIN)  # equal weights have no spread
        log_tau = torch.full((), math.log(start), dtype=wide_dtype(weights), device=weights.device)
        if learn_tau:
            self.log_tau = nn.Parameter(log_tau)
        else:
            self.register_buffer("log_tau", log_tau)
        self.register_buffer("t", torch.zeros_like(log_tau))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return (t, tau) in float32 or wider."""
        return widened(self.t), self.tau()

    def tau(self) -> Tensor:
        """Return the temperature, in units of w^2, 1e-12 to 1e12."""
        return bounded(self.log_tau, LOG_TAU_MAX).exp()

    def pruned(self) -> int:
        """Return how many weights hardened masks prune, in all layers that the threshold had at the start."""
        return exact_count(self.k, self.size)

    def share(self) -> Tensor:
        """Return the share of all its weights that lies below the threshold, 0 to 1."""
        return torch.full_like(widened(self.t), self.k / 100)

    def share_here(self) -> Tensor:
        """Return the share of the weights in its present layers that lies below the threshold."""
        if (left := self.left()) == self.size:
            return self.share()
        return ((self.share() * self.size - self.gone) / left).clamp(SHARE_MIN, 1 - SHARE_MIN)

    def left(self) -> int:
        """Return how many weights its present layers have."""
        return sum(dense_weight(layer).numel() for layer in self.layers.values())

    def kept(self) -> dict[Tensor, Tensor]:
        """Return which weights hardened masks keep, by dense weight; the index breaks ties."""
        weights = [dense_weight(layer) for layer in self.layers.values()]
        count = min(max(self.pruned() - self.gone, 0), self.left())
        pruned = choose(magnitudes(self.layers), count)
        return {weight: ~part for weight, part in zip(weights, pruned, strict=True)}

    def leave(self, layer: str, kept: Tensor) -> None:
        """Take a layer out that was hardened, and note how many weights it has lost for good."""
        self.gone += kept.numel() - int(kept.count_nonzero())
        del self.layers[layer]

    @torch.no_grad()
    def update_threshold(self) -> None:
        """Set t to the quantile of the current absolute weights."""
        self.t.copy_(quantile_and_slope(self.scores(), self.share_here())[0])

    def scores(self) -> list[Tensor]:
        """Return abs(w) of each layer, flattened, in float32 or wider."""
        weights = [dense_weight(layer).detach() for layer in self.layers.values()]
        return [widened(w.flatten().abs()) for w in weights]

    def watched(self) -> list[nn.Parameter]:
        """Return what is learned here, and the weights; nothing once all layers are hardened."""
        return [*self.learned(), *map(dense_weight, self.layers.values())] if self.layers else []

    def renew(self) -> None:
        """Update the threshold now, and count the steps from here."""
        self.steps = 0
        self.update_threshold()

    def after_step(self) -> None:
        """Keep tau in its range; update the threshold after every `update_every` steps."""
        self.log_tau.clamp_(-LOG_TAU_MAX, LOG_TAU_MAX)
        self.steps += 1
        # in a CUDA graph, what is recorded runs in every step
        if self.steps >= self.update_every or (self.t.is_cuda and torch.cuda.is_current_stream_capturing()):
            self.renew()


class SoftMask(nn.Module):
    """The mask of one layer, m(w) = sigmoid((w^2 - t^2) / tau), with the t and tau of its threshold."""

    def __init__(self, threshold: Threshold, layer: str) -> None:
        super().__init__()
        self.threshold, self.layer = threshold, layer

    def forward(self, w: Tensor) -> Tensor:
        """Return w m(w), of w's shape and dtype."""
        if only_plain_operations():
            return _soft_weight(w, *self.threshold())
        self.threshold.require_fresh(w)
        weight: Tensor = _SoftWeight.apply(w, *self.threshold())
        return weight

    def hardened(self, kept: Tensor) -> None:
        """Leave the threshold: this mask was replaced by a constant one."""
        self.threshold.leave(self.layer, kept)

    def kept_together(self) -> dict[Tensor, Tensor]:
        """Return, for all layers of the threshold, where m >= 1/2 with t at the exact quantile."""
        return self.threshold.kept()

    def kept(self, w: Tensor) -> Tensor:
        """Return where m >= 1/2 with t at the exact quantile of the weights."""
        return self.kept_together()[dense_weight(self.threshold.layers[self.layer])]

    def hardened_weight(self, w: Tensor) -> Tensor:
        """Return w m(w), or w / 2 if that is larger in size: a kept weight stays as strong as under its mask.

        A kept weight has m below 1/2 only because t is approximate: its histogram is some steps old.
        """
        soft = self.forward(w)
        return soft.where(2 * soft.abs() > w.abs(), w / 2)


def attach_soft(
    model: nn.Module,
    make_threshold: Callable[[Mapping[str, nn.Module]], Threshold],
    scope: Scope,
    skip: Skip,
) -> None:
    """Attach soft masks; each group of layers has a threshold that follows its weights in training."""
    made = [make_threshold(layers) for layers in groups(prunable(model, skip), scope)]
    mask_of = {dense_weight(layer): SoftMask(t, name) for t in made for name, layer in t.layers.items()}
    attach_all(model, lambda weight: mask_of[weight], skip)
    renew(model)


def thresholds(model: nn.Module) -> list[Threshold]:
    """Return the thresholds of a model's soft masks.

    Raises:
        ValueError: There is none.
    """
    found = [module for module in model.modules() if isinstance(module, Threshold)]
    if not found:
        raise ValueError("model must have soft masks, got none: they were hardened, or never attached")
    return found


def mean_tau(found: Iterable[Threshold]) -> float:
    """Return the geometric mean of the temperatures, weighted by their numbers of weights."""
    pairs = [(threshold.size, math.log(float(threshold.tau().detach()))) for threshold in found]
    return math.exp(sum(size * log for size, log in pairs) / sum(size for size, _ in pairs))


def parameter_groups(model: nn.Module, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return optimizer groups: the model's other parameters, then those that `rates` names, at their rates.

    The names are attributes of the thresholds, such as "log_tau"; weight decay is off for them.
    """
    found = thresholds(model)
    return optimizer_groups(model, [([getattr(t, name) for t in found], lr) for name, lr in rates.items()])


def bounded(parameter: Tensor, most: float) -> Tensor:
    """Return a parameter, clamped to -most..most, in float32 or wider."""
    return widened(parameter).clamp(-most, most)


def _soft_mask(w: Tensor, t: Tensor | float, tau: Tensor) -> Tensor:
    wide, most = widened(w), EXPONENT_MAX * tau
    # clamped before the division, whose gradient would otherwise overflow
    exponent = ((wide - t) * (wide + t)).clamp(-most, most) / tau  # eq-soft-mask
    return exponent.sigmoid().to(w.dtype)


def _soft_weight(w: Tensor, t: Tensor, tau: Tensor) -> Tensor:
    return w * _soft_mask(w, t, tau)


class _SoftWeight(torch.autograd.Function):
    """w m(w) as `soft_mask` defines it, for t and tau of one element: if you change one, change both.

    Memory traffic takes most of the time, so a few buffers are reused. Both terms of the exponent are rounded
    before they are subtracted, so in float32 the exponent is exact to 1e-7 t^2 / tau.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, t: Tensor, tau: Tensor) -> Tensor:
        wide = widened(w)
        mask = wide / tau
        torch.addcmul(-t * t / tau, wide, mask, out=mask)
        # smaller values would give subnormal products, which are ten times as slow
        nn.functional.threshold(mask.sigmoid_(), MASK_MIN, 0.0, inplace=True)
        ctx.save_for_backward(w, t, tau, mask)
        return (wide * mask).to(w.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        w, t, tau, mask = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted: let autograd find it
            return gradients_by_autograd(_soft_weight, (w, t, tau), ctx.needs_input_grad, gradient)
        wide, gradient = w.to(mask.dtype), gradient.to(mask.dtype)
        pull = gradient * wide
        torch.ops.aten.sigmoid_backward(pull, mask, grad_input=pull)  # for the exponent (w^2 - t^2) / tau
        total = pull.sum()
        pull.mul_(wide)
        moment = torch.dot(pull.flatten(), wide.flatten()) if ctx.needs_input_grad[2] else total
        along_w = (gradient * mask).addcmul_(pull, 2 / tau)  # eq-soft-slope
        along_t, along_tau = -2 * t / tau * total, (t * t * total - moment) / (tau * tau)  # eq-soft-votes
        return along_w.to(w.dtype), along_t, along_tau
