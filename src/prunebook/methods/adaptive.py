"""Adaptive pruning: learn the share to prune, r, and the temperature of the mask, tau, with the weights.

The threshold t(r) is the r-quantile of the absolute weights. Its slope is dt/dr = 1 / f(t), where f is the
density of these weights. Along this slope the gradient of the loss reaches r. The author calls the method
learned ratio pruning (LRP).

Chapter: book/adaptive.ipynb
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunebook.checks import require_not_negative, require_positive, require_share, require_whole
from prunebook.cover import warn_uncovered
from prunebook.layers import Skip
from prunebook.methods.learned import widened
from prunebook.methods.quantile import GRID, Bandwidth, quantile_and_slope, require_smoothing
from prunebook.methods.soft import (
    LR_TAU,
    Threshold,
    attach_soft,
    bounded,
    mean_tau,
    parameter_groups,
    thresholds,
)
from prunebook.methods.weights import Scope

LOGIT_R_MAX = 16.0  # keeps r in 1e-7..1 - 1e-7; beyond, float32 rounds r to 1, with gradient 0


class AdaptivePruning:
    """Put soft masks on the weights of a network, and train their share r and temperature tau as well.

    Train the model with `parameter_groups()` in the optimizer and `penalty` added to the loss, then
    `harden` it: the share r of the weights becomes zero.

    r is learned as its logit and tau as its logarithm, so that both stay valid whatever the optimizer does.
    Pereira's thesis clamps them instead, which cuts off the gradient at the ends of the range.

    Args:
        model: Its linear and convolution layers get masks, in place; biases never do.
        r: Share of the weights below the threshold at the start, above 0 and below 1.
        relative_tau: Temperature at the start, above 0, as a multiple of the weights' standard deviation.
        lam: Strength of the penalty, at least 0.
        target_density: Share of the weights to keep in the end, 0 to 1. With None, r rises as far as the
            loss allows.
        scope: "global" learns one r and one tau, "layer" one of each for each layer.
        skip: Layers to leave alone: names, patterns such as "encoder.*", or a function of name and module.
        lr_r: Learning rate of logit(r) in `parameter_groups`.
        lr_tau: Learning rate of log(tau) in `parameter_groups`.
        update_every: Number of steps, of any optimizer that holds the weights, r or tau, between two
            computations of the threshold from the weights. In between, t follows r along the slope dt/dr.
        grid: Cells of the histogram, at least 16.
        bandwidth: As for `quantile`.

    Raises:
        ValueError: An argument is out of range, or weights are NaN, infinite, or masked already.

    Source: Pereira, A Gradient-Based Approach to Adaptive Neural Network Pruning, chapter 2.
    """

    def __init__(
        self,
        model: nn.Module,
        r: float = 0.5,
        relative_tau: float = 1e-2,
        lam: float = 10.0,
        target_density: float | None = None,
        scope: Scope = "global",
        skip: Skip = (),
        lr_r: float = 2e-3,
        lr_tau: float = LR_TAU,
        update_every: int = 10,
        grid: int = GRID,
        bandwidth: Bandwidth = "silverman",
    ) -> None:
        require_smoothing(grid, bandwidth)
        require_share("r", r, zero=False, one=False)
        self.target_density = (
            None if target_density is None else require_share("target_density", target_density)
        )
        self.model, self.lam = model, require_not_negative("lam", lam)
        self.rates = {
            "logit_r": require_positive("lr_r", lr_r),
            "log_tau": require_positive("lr_tau", lr_tau),
        }

        def make_threshold(layers: Mapping[str, nn.Module]) -> LearnedThreshold:
            return LearnedThreshold(layers, r, relative_tau, update_every, grid, bandwidth)

        attach_soft(model, make_threshold, scope, skip)
        warn_uncovered(model, skip)

    @property
    def r(self) -> float:
        """The share of the weights that lies below the threshold, over all layers together."""
        return float(_ratio(self.model).detach())

    @property
    def tau(self) -> float:
        """The temperature, in units of w^2; of several, the geometric mean weighted by layer size."""
        return mean_tau(thresholds(self.model))

    def penalty(self) -> Tensor:
        """Return lam (1 - r)^2 or, with a target density D, lam abs(1 - D - r), as a scalar.

        The first pulls less as r rises, so r settles where the gradient of the loss balances it. The second
        always pulls equally hard, so r settles at 1 - D if lam is large enough.

        Source: Pereira, section 2.3, for the first.
        """
        ratio = _ratio(self.model)
        if self.target_density is None:
            return self.lam * (1 - ratio).square()
        return self.lam * ((1 - self.target_density) - ratio).abs()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return optimizer groups: the model's parameters, and logit(r), log(tau) at their own rates."""
        return parameter_groups(self.model, self.rates)

    def freeze(self) -> None:
        """Stop learning r, for instance once it has `settled`; the weights and tau are still trained."""
        for threshold in thresholds(self.model):
            threshold.get_parameter("logit_r").requires_grad_(False)


def settled(ratios: Sequence[float], window: int = 3, tolerance: float = 0.002) -> bool:
    """Return whether r has converged: its last `window` + 1 values differ by at most `tolerance`.

    Args:
        ratios: r after each epoch so far.
        window: Number of recent changes to look at, at least 1.
        tolerance: Largest difference among the values, above 0; 0.002 is a fifth of a percent of the weights.
    """
    require_whole("window", window, 1)
    require_positive("tolerance", tolerance)
    last = list(ratios)[-window - 1 :]
    return len(last) > window and max(last) - min(last) <= tolerance


class LearnedThreshold(Threshold):
    """A threshold t(r) whose r is learned as l = logit(r); between two updates, t = t0 + dt/dl (l - l0)."""

    l0: Tensor
    slope: Tensor

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        r: float,
        relative_tau: float,
        update_every: int,
        grid: int,
        bandwidth: Bandwidth,
    ) -> None:
        super().__init__(layers, 100 * r, relative_tau, learn_tau=True, update_every=update_every)
        self.grid, self.bandwidth = grid, bandwidth
        self.logit_r = nn.Parameter(self.t.new_tensor(math.log(r / (1 - r))))
        self.register_buffer("l0", self.logit_r.detach().clone())
        self.register_buffer("slope", self.t.new_zeros(()))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return (t, tau) in float32 or wider; t carries the gradient to r."""
        moved = bounded(self.logit_r, LOGIT_R_MAX) - widened(self.l0)
        return torch.addcmul(widened(self.t), widened(self.slope), moved).clamp(min=0), self.tau()

    def ratio(self) -> Tensor:
        """Return r, between 0 and 1, in float32 or wider."""
        return bounded(self.logit_r, LOGIT_R_MAX).sigmoid()

    def pruned(self) -> int:
        """Return how many weights a hardened mask prunes."""
        return round(float(self.ratio().detach()) * self.size)

    def share(self) -> Tensor:
        """Return r, or 1/2 if it is no number, so that an update does not fail before the loss does."""
        return self.ratio().nan_to_num(0.5)

    def after_step(self) -> None:
        """Keep r in its range, then do what every threshold does."""
        self.logit_r.clamp_(-LOGIT_R_MAX, LOGIT_R_MAX)
        super().after_step()

    @torch.no_grad()
    def update_threshold(self) -> None:
        """Set t0 and its slope, dt/dl = dt/ds r (1 - r) n / m, from the current weights and r.

        Here s is the share to prune of the m weights that still learn, out of n at the start.
        """
        r = self.share()
        t, slope = quantile_and_slope(self.scores(), self.share_here(), self.grid, self.bandwidth)
        self.t.copy_(t)
        self.slope.copy_(slope * r * (1 - r) * (self.size / self.left()))
        self.l0.copy_(bounded(self.logit_r, LOGIT_R_MAX))


def _ratio(model: nn.Module) -> Tensor:
    """Return the mean r of the thresholds, weighted by their numbers of weights."""
    found = [threshold for threshold in thresholds(model) if isinstance(threshold, LearnedThreshold)]
    if not found:
        raise ValueError("model must have adaptive masks, its thresholds have no ratio to learn")
    if len(found) == 1:
        return found[0].ratio()
    size = sum(threshold.size for threshold in found)
    return torch.stack([threshold.ratio() * (threshold.size / size) for threshold in found]).sum()
