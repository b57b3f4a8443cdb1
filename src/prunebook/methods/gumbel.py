"""Gumbel-Softmax pruning: a coin toss decides whether a weight takes part, and the coin's bias is learned.

The expected share of open gates is known exactly, and a penalty on it closes gates. `gates` defines a gate.

Chapter: book/gumbel.ipynb
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor, fx, nn

from prunebook.checks import (
    require_not_negative,
    require_one_of,
    require_positive,
    require_share,
    require_whole,
)
from prunebook.masking import (
    TRANSPOSED,
    attach,
    attach_all,
    before_forward,
    dense_weight,
    maskable,
    masks,
    parameter_name,
    prunable,
    same_weight,
)
from prunebook.methods.gates import FROZEN, Gate, UnitGate, WeightGate, gates, require_numbers
from prunebook.methods.learned import optimizer_groups, wide_dtype, widened
from prunebook.methods.schedules import ramp
from prunebook.methods.weights import choose
from prunebook.shrinking.effective import effective_weights
from prunebook.shrinking.graph import norms_after, output_layers, try_trace

LOGIT = 2.0  # at the start: P(open) = 0.88
LR_GATES = 2e-2


class GumbelPruning:
    """Put a gate on every weight, or on every unit, of a network: topology and weights are learned together.

    Train the model with `parameter_groups`, `penalty` and the schedule of `fall`. Then `freeze` an
    exact number of gates, `harden` the model and fine-tune it.

    Args:
        model: Its linear and convolution layers get gates, in place; with `units`, not the output layers.
        tau: Temperature, above 0, without unit. If it is low, gradients are noisy; if it is high, biased.
        lam: Strength of the penalty, at least 0.
        units: Whether each unit has one gate, shared by its weights, bias and BatchNorm, instead of one gate
            for each weight.
        skip: Names of layers to leave alone.
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
        units: bool = False,
        skip: Sequence[str] = (),
        hard: bool = True,
        logit: float = LOGIT,
        lr_gates: float = LR_GATES,
    ) -> None:
        if not abs(logit) < FROZEN / 2:
            raise ValueError(f"logit must lie between {-FROZEN / 2:g} and {FROZEN / 2:g}, got {logit}")
        require_positive("tau", tau)
        self.model, self.lam = model, require_not_negative("lam", lam)
        self.lr_gates = require_positive("lr_gates", lr_gates)
        self.target_density = 1.0  # what `penalty` aims at; `fall` moves it
        if units:
            graph = try_trace(model)  # from here, so that its warning points to the caller
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
        target = self.target_density if target_density is None else target_density
        require_share("target_density", target, zero=form == "absolute")
        density = _density(self.model)
        if form == "absolute":
            return self.lam * (target - density).abs()
        return self.lam * (density / target).clamp(min=1).log()  # eq-gumbel-penalty

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
        start, end = self.tau, require_positive("tau", tau)
        require_share("until", until, zero=False)

        def schedule(progress: float) -> None:
            self.tau = start * (end / start) ** ramp(progress, until)

        return schedule

    def freeze(self, count: int) -> None:
        """Open the `count` gates with the largest logits for good (of equal ones, the last); close the rest.

        Logits become -10,000 or 10,000 and are no longer trained; the state_dict keeps its names and shapes.
        Warn if no path of open gates is left from an input to an output.

        Args:
            count: Number of gates to keep, from 1 to all.

        Raises:
            ValueError: Count is out of range, or logits are NaN.
        """
        found = list(gates(self.model).values())
        require_numbers(*found)
        logits = [gate.logit.detach() for gate in found]
        number = sum(logit.numel() for logit in logits)
        closed = choose(logits, number - require_whole("count", count, 1, number))
        for logit, gate, part in zip(logits, found, closed, strict=True):
            logit.copy_(torch.where(part, -FROZEN, FROZEN))
            gate.train(gate.training)
        if _is_cut(self.model):
            warnings.warn(
                f"no path leads from an input to an output through {count} open gates: every image gets the "
                "same answer. Keep more, or let the target density fall more slowly",
                stacklevel=2,
            )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return optimizer groups: the model's parameters and, at their own rate, the logits."""
        found = [gate.train(gate.training) for gate in gates(self.model).values()]  # notes what is frozen
        logits = [gate.logit for gate in found]
        return optimizer_groups(self.model, [(logits, self.lr_gates)])


def _logits(weight: Tensor, shape: Sequence[int], value: float) -> Tensor:
    return torch.full(tuple(shape), value, device=weight.device, dtype=wide_dtype(weight))


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
    """Attach one gate per unit to the weights, the biases and the BatchNorms that follow."""
    skip = [*skip, *output_layers(model, graph)]
    layers = prunable(model, skip)
    norms, modules, present = norms_after(model, graph), dict(model.named_modules()), masks(model)
    mask_of: dict[nn.Parameter, UnitGate] = {}
    speakers: dict[tuple[str, str], UnitGate] = {}  # biases and BatchNorms of the same units
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


def _is_cut(model: nn.Module) -> bool:
    """Return whether no path of weights leads from an input to an output."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an empty layer: paths may lead around it
            return effective_weights(model) == 0
    except ValueError:  # the network cannot be traced: say so if a layer is empty
        return not all(gate.open().any() for gate in gates(model).values())
