"""The clinic: what pruning does to a network of your own, at any k, and the lines of code that do it.

Chapter: book/yours.ipynb
"""

import copy
import html
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from prunebook.book.plots.gains import left_bars
from prunebook.book.plots.masks import layer_bars
from prunebook.book.plots.style import figure
from prunebook.book.widgets import FrameSlider
from prunebook.checks import require_whole
from prunebook.cover import coverage, sparsity
from prunebook.layers import maskable
from prunebook.masking import bake
from prunebook.methods.units import prune_units
from prunebook.methods.weights import Scope, prune_weights
from prunebook.shrinking.slicing import Report, evaluating, plain, shrink
from prunebook.tools.costs import count_weights, latencies, macs, stored_bytes

WHAT: dict[str, Any] = {"weights": prune_weights, "units": prune_units}
SCOPES: dict[str, Scope] = {"each layer": "layer", "all layers together": "global"}
STOPS = (50, 90)
MARGINS = {"left": 0.2, "right": 0.94, "bottom": 0.17, "top": 0.95, "wspace": 0.6}


def clinic(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    stops: Sequence[float] = STOPS,
    rounds: int = 3,
) -> FrameSlider:
    """Return a slider that prunes copies of your network, measures them, and says how to do the same.

    Nothing is retrained: the accuracy is that before fine-tuning. Milliseconds are measured anew each time.

    Args:
        model: A network without masks, on the device of the images. It stays as it is.
        images: (n, ...) a batch of its inputs, n >= 1, on which everything is measured.
        labels: (n,) classes, if the network returns (n, classes). Without them, answers that stay as they
            were count as right.
        stops: The values of k of which a page has pictures. Each needs four, which take seconds to minutes.
        rounds: How often each network is timed, at least 1.

    Raises:
        ValueError: There are no images, the labels are not as many, `rounds` is below 1, or the model has
            parametrizations, such as masks.
    """
    if len(images) == 0:
        raise ValueError("images must hold at least one, got none")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"labels must be as many as the {len(images)} images, got {len(labels)}")
    require_whole("rounds", rounds, 1)
    if any(row.masked for row in coverage(model)):
        raise ValueError(
            "model must be without masks: give the network as it was before, or pb.bake(net) first"
        )
    patient = Patient(plain(model), images, labels, rounds)

    def draw(k: float, prune: str, of: str) -> tuple[Figure, str, str]:
        return _draw(patient, patient.prune(k, prune, SCOPES[of]), f"k = {k:g} % of the {prune}", of)

    start = len(stops) // 2
    choices = {"prune": list(WHAT), "of": list(SCOPES)}
    return FrameSlider(
        draw, stops, label="k in %", start=start, span=(0, 100, 0.1), choices=choices, on_release=True
    )


@dataclass(frozen=True)
class Findings:
    """What was found about a network, dense or pruned: counts, costs and answers on the batch."""

    kept: int
    effective: int | None  # on a path; None: the network cannot be traced
    macs: int
    bytes: int
    ms: float
    right: float | None  # share of the images; None: the outputs are no classes


@dataclass(frozen=True)
class Treated:
    """A pruned copy, what was found about it beside the dense network, and the lines that make it."""

    net: nn.Module
    dense: Findings
    pruned: Findings
    layers: Mapping[str, float]  # the share kept
    difference: float | None  # the largest of the outputs, masked against shrunk; None: it was not shrunk
    remarks: Sequence[str]
    lines: str


@dataclass(frozen=True)
class Patient:
    """A dense network and the batch on which it and its pruned copies are measured."""

    model: nn.Module
    images: Tensor
    labels: Tensor | None
    rounds: int

    def prune(self, k: float, what: str, scope: Scope) -> Treated:
        """Prune a copy, shrink it if it can be traced, and measure it beside the dense network."""
        net = copy.deepcopy(self.model)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                WHAT[what](net, k, scope=scope)
            except ValueError as error:  # nothing in it can be pruned so: it stays dense
                warnings.warn(f"pb.prune_{what} refuses this network: {error}", stacklevel=1)
        remarks = [str(warning.message) for warning in said]
        layers = {name: 1 - share for name, share in sparsity(net, per_layer=True).items()}
        try:
            small, report = shrink(net, report=True)
            remarks += _left(report)
            difference = float((self.answers(net) - self.answers(small)).abs().max())
        except ValueError as error:
            remarks.append(f"pb.shrink refuses this network, so its layers keep their sizes: {error}")
            small, difference = bake(copy.deepcopy(net)), None
        times = latencies({"dense": self.model, "pruned": small}, self.images, self.rounds)
        ms = {name: float(each.median()) for name, each in times.items()}
        dense, pruned = replace(self.dense, ms=ms["dense"]), replace(self.find(small), ms=ms["pruned"])
        lines = _lines(k, what, scope, difference is not None)
        return Treated(small, dense, pruned, layers, difference, remarks, lines)

    @cached_property
    def dense(self) -> Findings:
        """What was found about the network itself; its time is measured beside each copy."""
        return self.find(self.model)

    def find(self, net: nn.Module) -> Findings:
        """Count what a network without masks costs, and what it gets right; do not time it."""
        try:
            counted = count_weights(net)
            kept, effective = counted.kept, cast(int | None, counted.effective)
        except ValueError:
            weights = {layer.get_parameter("weight") for layer in maskable(net).values()}
            kept, effective = sum(int(weight.count_nonzero()) for weight in weights), None
        size = stored_bytes(net)
        smallest = min(size.dense, size.csr, size.bitmask)
        right, target = None, self.labels
        answers = self.answers(net)
        if answers.dim() == 2:
            target = self.answers(self.model).argmax(1) if target is None else target
            right = float((answers.argmax(1) == target).float().mean())
        return Findings(kept, effective, macs(net, self.images[:1]).nonzero, smallest, 0.0, right)

    def answers(self, net: nn.Module) -> Tensor:
        """Return the outputs for the batch, in eval mode."""
        with evaluating(net), torch.no_grad():
            return cast(Tensor, net(self.images))


def _left(report: Report) -> list[str]:
    """Return what `shrink` left whole, a line for each reason."""
    idle: dict[str, list[str]] = {}
    for name, reasons in report.idle.items():
        for reason, count in reasons.items():
            idle.setdefault(reason, []).append(f"{name} ({count})")
    lines = [f"idle units stay in {', '.join(layers)}: {reason}" for reason, layers in idle.items()]
    return lines + [f"{name}: {reason}" for name, reason in report.whole.items()]


def _lines(k: float, what: str, scope: Scope, traced: bool) -> str:
    smaller = "small = pb.shrink(net)  # equal outputs, plain layers"
    return "\n".join(
        [
            "import copy",
            "import prunebook as pb",
            "",
            "net = copy.deepcopy(model)",
            f'pb.prune_{what}(net, {k:g}, scope="{scope}")',
            "# train net here as you trained model: the masks stay",
            smaller if traced else "small = pb.bake(net)  # plain layers of the old size, with zeros",
            'pb.save_model(small, "small.safetensors")',
        ]
    )


def _draw(patient: Patient, treated: Treated, setting: str, of: str) -> tuple[Figure, str, str]:
    dense, pruned = treated.dense, treated.pruned
    height = max(2.9, 0.8 + 0.17 * len(treated.layers))
    fig, (left, right) = figure(columns=2, width=9.5, height=height, margins=MARGINS)
    layer_bars(treated.layers, left).set_ylabel("")
    left.tick_params(axis="y", labelsize=8)
    rows = _rows(dense, pruned)
    left_bars({name: after / before for name, before, after, _ in rows if before}, right)
    score = "" if pruned.right is None else f"{pruned.right:.1%} of {len(patient.images):,} images "
    meaning = "right" if patient.labels is not None else "answered as before"
    readout = f"{setting}, {of}: {score}{meaning if score else ''}".rstrip(": ") + (
        f"; {pruned.kept:,} of {dense.kept:,} weights, "
        f"{dense.ms / pruned.ms:.2f} times as fast ({pruned.ms:.2f} ms)."
    )
    return fig, readout, _details(rows, treated)


def _rows(dense: Findings, pruned: Findings) -> list[tuple[str, float, float, str]]:
    """Return a row for each quantity: its name, before, after, and how it is written."""
    rows: list[tuple[str, float, float, str]] = [("weights kept", dense.kept, pruned.kept, ",.0f")]
    if dense.effective is not None and pruned.effective is not None:
        rows.append(("weights on a path", dense.effective, pruned.effective, ",.0f"))
    rows += [
        ("multiplications", dense.macs, pruned.macs, ",.0f"),
        ("bytes, smallest form", dense.bytes, pruned.bytes, ",.0f"),
        ("milliseconds, measured", dense.ms, pruned.ms, ".2f"),
    ]
    return rows


def _details(rows: Sequence[tuple[str, float, float, str]], treated: Treated) -> str:
    """Return the numbers as a table, what was left whole and why, and the lines of code, as HTML."""
    cells = "".join(
        f"<tr><th scope='row'>{name}</th><td>{before:{form}}</td><td>{after:{form}}</td></tr>"
        for name, before, after, form in rows
    )
    head = "<tr><th scope='col'>on this batch</th><th scope='col'>dense</th><th scope='col'>pruned</th></tr>"
    equal = (
        "The network was not shrunk."
        if treated.difference is None
        else f"Masked and shrunk, the outputs differ by {treated.difference:.1g} at most."
    )
    remarks = "".join(f"<li>{html.escape(remark)}</li>" for remark in treated.remarks)
    whole = f"<p>Left whole, and why:</p><ul>{remarks}</ul>" if remarks else "<p>Nothing was left whole.</p>"
    return f"<table>{head}{cells}</table><p>{equal}</p>{whole}<pre>{html.escape(treated.lines)}</pre>"
