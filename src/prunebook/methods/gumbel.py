"""Gumbel-Softmax pruning: a coin toss decides whether a weight takes part, and the coin's bias is learned.

The expected share of open gates is known exactly, and a penalty on it closes gates. `gates` defines a gate.

Chapter: book/gumbel.ipynb
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor, fx, nn

from prunebook.checks import (
    require_at_least,
    require_not_negative,
    require_one_of,
    require_positive,
    require_share,
    require_whole,
)
from prunebook.cover import warn_uncovered
from prunebook.layers import (
    TRANSPOSED,
    Skip,
    dense_weight,
    maskable,
    parameter_name,
    prunable,
    same_weight,
    skipped,
)
from prunebook.masking import attach, attach_all, masks
from prunebook.methods.gates import FROZEN, Gate, UnitGate, WeightGate, gates, require_numbers
from prunebook.methods.learned import optimizer_groups, wide_dtype, widened
from prunebook.methods.schedules import ramp
from prunebook.methods.weights import choose
from prunebook.shrinking.effective import effective_weights
from prunebook.shrinking.graph import norms_after, output_layers, try_trace

TAU_MIN = 1e-6  # half precision still holds it
LOGIT = 2.0  # at the start: P(open) = 0.88
LR_GATES = 2e-2


class GumbelPruning:
    """Put a gate on every weight, or on every unit, of a network: topology and weights are learned together.

    Train the model with `parameter_groups`, `penalty` and the schedule of `fall`. Then `freeze` an
    exact number of gates, `harden` the model and fine-tune it.

    Args:
        model: Its linear and convolution layers get gates, in place; with `units`, not the output layers.
        tau: Temperature, at least 1e-6, without unit. If it is low, gradients are noisy; if high, biased.
        lam: Strength of the penalty, at least 0.
        target_density: Share of the gates to keep in the end, above 0 and at most 1: what `penalty` aims at,
            and how many gates `freeze` keeps. None leaves it to `fall`, or to the attribute of this name.
        units: Whether each unit has one gate, shared by its weights, bias and BatchNorm, instead of one gate
            for each weight.
        skip: Layers to leave alone: names, patterns such as "encoder.*", or a function of name and module.
        hard: Whether gates in training are 0 or 1, with the gradient of soft ones; otherwise they are soft.
        logit: Logit of every gate at the start, between -5000 and 5000; 2 opens 88 % of them.
        lr_gates: Learning rate of the logits in `parameter_groups`.

    Raises:
        ValueError: An argument is out of range, or weights are masked already.

    Source: Zhang, Tao & Zhang 2023, arXiv 2311.12526, section 3, with one logit in place of two.
    """

    def __init__(
        self,
        model: nn.Module,
        tau: float = 1.0,
        lam: float = 1.0,
        target_density: float | None = None,
        units: bool = False,
        skip: Skip = (),
        hard: bool = True,
        logit: float = LOGIT,
        lr_gates: float = LR_GATES,
    ) -> None:
        if not abs(logit) < FROZEN / 2:
            raise ValueError(f"logit must lie between {-FROZEN / 2:g} and {FROZEN / 2:g}, got {logit}")
        _require_tau(tau)
        self.model, self.lam = model, require_not_negative("lam", lam)
        self.lr_gates = require_positive("lr_gates", lr_gates)
        if target_density is not None:
            require_share("target_density", target_density, zero=False)
        if units:
            graph = try_trace(model)  # from here, so that its warning points to the caller
            skip = [*skipped(model, skip), *output_layers(model, graph)]
            _attach_to_units(
                model, graph, lambda weight, n: Gate(_logits(weight, (n,), logit), tau, hard), skip
            )
        else:
            attach_all(
                model, lambda weight: WeightGate(_logits(weight, weight.shape, logit), tau, hard), skip
            )
        warn_uncovered(model, skip)
        self._aim = next(iter(gates(model).values())).logit.new_empty(())
        self.target_density = target_density

    @property
    def tau(self) -> float:
        """The temperature of all gates; set it to a number of at least 1e-6."""
        return float(next(iter(gates(self.model).values())).tau)

    @tau.setter
    def tau(self, value: float) -> None:
        _require_tau(value)
        for gate in gates(self.model).values():
            gate.tau.fill_(value)

    @property
    def target_density(self) -> float | None:
        """The share of the gates that `penalty` aims at, above 0 and at most 1; None if none was set yet."""
        return self._target

    @target_density.setter
    def target_density(self, value: float | None) -> None:
        self._target = None if value is None else require_share("target_density", value, zero=False)
        self._aim.fill_(math.nan if value is None else value)

    @overload
    def density(self, per_layer: Literal[False] = False) -> float: ...
    @overload
    def density(self, per_layer: Literal[True]) -> dict[str, float]: ...
    def density(self, per_layer: bool = False) -> float | dict[str, float]:
        """Return the expected share of open gates, 0 to 1, the mean of sigmoid(l); in all, or by layer."""
        if not per_layer:
            return float(_density(self.model).detach())
        found = gates(self.model)
        return {name: float(widened(gate.logit.detach()).sigmoid().mean()) for name, gate in found.items()}

    def penalty(
        self, target_density: float | None = None, form: Literal["log", "absolute"] = "log"
    ) -> Tensor:
        """Return lam max(0, log(D / target)), or lam abs(target - D), a scalar; D is the expected density.

        The logarithm pulls equally hard at a density of 50 % and of 0.15 %, and never opens gates.

        Args:
            target_density: Share of the gates that should be open, 0 to 1, and above 0 for "log". None takes
                `.target_density`.
            form: "log", our own, or "absolute", from the paper.

        Source: Zhang, Tao & Zhang 2023, arXiv 2311.12526, section 3.
        """
        require_one_of("form", form, ("log", "absolute"))
        if target_density is None and self.target_density is None:
            raise ValueError(
                "target_density must be a share, got None: give it here or to GumbelPruning, or call before "
                "each step what fall returns"
            )
        density = _density(self.model)
        if target_density is None:  # a tensor, so that compiled code and CUDA graphs see it fall
            aim: Tensor | float = self._aim.to(density.device)
        else:
            aim = require_share("target_density", target_density, zero=form == "absolute")
        if form == "absolute":
            return self.lam * (aim - density).abs()
        return self.lam * (density / aim).clamp(min=1).log()  # eq-gumbel-penalty

    def fall(self, target_density: float, until: float = 0.6) -> Callable[[float], None]:
        """Return `schedule(progress)`, which lowers `.target_density` by equal factors from 1 to this value.

        The fall ends when the share `until` of the run is done; in the rest, weights and gates settle. Both
        arguments are above 0 and at most 1.
        """
        require_share("target_density", target_density, zero=False)
        require_share("until", until, zero=False)

        def schedule(progress: float) -> None:
            self.target_density = target_density ** ramp(progress, until)

        return schedule

    def anneal(self, tau: float, until: float = 0.75) -> Callable[[float], None]:
        """Return `schedule(progress)`, which moves the temperature by equal factors to `tau`.

        It arrives when the share `until` of the run is done; `until` is above 0 and at most 1.
        """
        start, end = self.tau, _require_tau(tau)
        require_share("until", until, zero=False)

        def schedule(progress: float) -> None:
            self.tau = start * (end / start) ** ramp(progress, until)

        return schedule

    def freeze(self, count: int | None = None) -> None:
        """Open the `count` gates with the largest logits for good (of equal ones, the last); close the rest.

        Logits become -10,000 or 10,000 and are no longer trained; the state_dict keeps its names and shapes.
        Warn if no path of open gates is left from an input to an output.

        Args:
            count: Number of gates to keep, from 1 to all. None keeps the share `.target_density` of them.

        Raises:
            ValueError: Count is out of range, or None without a target density, or logits are NaN.
        """
        found = list(gates(self.model).values())
        require_numbers(*found)
        logits = [gate.logit.detach() for gate in found]
        number = sum(logit.numel() for logit in logits)
        if count is None:
            if self.target_density is None:
                raise ValueError("count must be a whole number, got None without a target_density")
            count = max(round(self.target_density * number), 1)
        closed = choose(logits, number - require_whole("count", count, 1, number))
        for logit, gate, part in zip(logits, found, closed, strict=True):
            logit.copy_(torch.where(part, -FROZEN, FROZEN))
            gate.logit.requires_grad_(False)
        if _is_cut(self.model):
            warnings.warn(
                f"no path leads from an input to an output through {count} open gates: every image gets the "
                "same answer. Keep more, or let the target density fall more slowly",
                stacklevel=2,
            )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return optimizer groups: the model's parameters and, at their own rate, the logits."""
        logits = [gate.logit for gate in gates(self.model).values()]
        return optimizer_groups(self.model, [(logits, self.lr_gates)])


def _require_tau(tau: float) -> float:
    require_at_least("tau", require_positive("tau", tau), TAU_MIN)
    return tau


def _logits(weight: Tensor, shape: Sequence[int], value: float) -> Tensor:
    return torch.full(tuple(shape), value, device=weight.device, dtype=wide_dtype(weight))


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
    """Attach one gate per unit to the weights, the biases and the BatchNorms that follow."""
    layers = prunable(model, skip)
    norms, modules, present = norms_after(model, graph), dict(model.named_modules()), masks(model)
    mask_of: dict[nn.Parameter, UnitGate] = {}
    speakers: dict[tuple[str, str], UnitGate] = {}  # biases and BatchNorms of the same units
    for layer in layers.values():
        weight, groups = dense_weight(layer), layer.groups if isinstance(layer, TRANSPOSED) else 0
        gate = make_gate(weight, weight.shape[1] * groups if groups else len(weight))
        mask_of[weight] = UnitGate(gate, groups, owner=True)
        twins = [name for name, other in maskable(model).items() if same_weight(layer, other)]
        followers = [norm for norm, source in norms.items() if source in twins]
        places = [(name, "bias") for name in twins + followers] + [(name, "weight") for name in followers]
        speaking = [place for place in places if getattr(modules[place[0]], place[1]) is not None]
        speakers |= {place: UnitGate(gate) for place in speaking}
    if masked := [name for name in (parameter_name(*place) for place in speakers) if name in present]:
        raise ValueError(f"parameters must be without mask, got masks on {masked}: bake the model first")
    attach_all(model, mask_of.__getitem__, skip)
    for (name, parameter), mask in speakers.items():
        attach(modules[name], mask, parameter)


def _is_cut(model: nn.Module) -> bool:
    """Return whether no path of weights leads from an input to an output."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an empty layer: paths may lead around it
            return effective_weights(model) == 0
    except ValueError:  # the network cannot be traced: say so if a layer is empty
        return not all(gate.open().any() for gate in gates(model).values())
