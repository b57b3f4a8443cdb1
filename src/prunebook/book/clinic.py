"""The clinic: what pruning does to a network of your own, at any k, and the lines of code that do it.

Chapter: book/yours.ipynb
"""

import copy
import html
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from prunebook.book.explore.weights import SCOPES
from prunebook.book.plots.gains import left_bars
from prunebook.book.plots.masks import layer_bars
from prunebook.book.plots.style import figure
from prunebook.book.widgets import FrameSlider
from prunebook.checks import require_percent, require_whole
from prunebook.cover import coverage
from prunebook.layers import maskable
from prunebook.masking import bake
from prunebook.methods.units import prune_units
from prunebook.methods.weights import Scope, prune_weights
from prunebook.shrinking.effective import effective_weights
from prunebook.shrinking.slicing import Report, evaluating, plain, shrink
from prunebook.tools.costs import latencies, macs, stored_bytes

WHAT: dict[str, Any] = {"weights": prune_weights, "units": prune_units}
STOPS = (50, 90)
CODE = '<pre style="font-family:monospace;overflow-x:auto">'
CELL = 'style="text-align:right;padding:0.15rem 0.7rem"'
MARGINS = {"left": 0.17, "right": 0.94, "top": 0.95, "wspace": 0.75}


def clinic(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    stops: Sequence[float] = STOPS,
    rounds: int = 5,
) -> FrameSlider:
    """Return a slider that prunes copies of your network, measures them, and says how to do the same.

    Nothing is retrained: the accuracy is that before fine-tuning. Milliseconds are measured anew each time.

    Args:
        model: A network without masks, on the device of the images, that takes them as its only argument and
            returns one tensor. It stays as it is.
        images: (n, ...) a batch of its inputs, n >= 1, on which everything is measured.
        labels: (n,) whole numbers, the right classes, if the network returns (n, classes). Without them, the
            answers of the dense network count as right.
        stops: The values of k of which a page has pictures. Each needs four, which take seconds to minutes.
        rounds: How often each network is timed, at least 1.

    Raises:
        ValueError: An argument is not as described, the outputs are not finite, or the model has
            parametrizations, such as masks.
    """
    labels = None if labels is None else labels.to(images.device)
    _check(model, images, labels)
    require_whole("rounds", rounds, 1)
    for k in stops:
        require_percent("stops", k)
    patient = Patient(plain(model), images, labels, rounds)

    def draw(k: float, prune: str, of: str) -> tuple[Figure, str, str]:
        return _draw(patient, patient.prune(k, prune, SCOPES[of]), f"k = {k:g} % of the {prune}, {of}")

    start = len(stops) // 2
    choices = {"prune": list(WHAT), "of": list(SCOPES)}
    return FrameSlider(
        draw,
        stops,
        label="k in %",
        words="{:g} % pruned",
        start=start,
        span=(0, 100, 0.1),
        choices=choices,
        on_release=True,
    )


def _check(model: nn.Module, images: Tensor, labels: Tensor | None) -> None:
    if isinstance(model, nn.DataParallel) or hasattr(model, "_orig_mod"):
        raise ValueError("model must be the network itself: give model.module or model._orig_mod")
    if not isinstance(images, Tensor) or len(images) == 0:
        raise ValueError("images must be a tensor of at least one image")
    if labels is not None and (labels.shape != images.shape[:1] or labels.is_floating_point()):
        raise ValueError(
            f"labels must be {len(images)} whole numbers, one for each image, got "
            f"{tuple(labels.shape)} of {labels.dtype}"
        )
    if any(row.masked for row in coverage(model)):
        raise ValueError("model must be without masks: give it as it was before, or pb.bake(net) first")
    with evaluating(model), torch.no_grad():
        outputs = model(images)
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"model must return one tensor, got {type(outputs).__name__}: wrap it so that it returns one"
        )
    if not outputs.isfinite().all():
        raise ValueError("model must return finite numbers, got NaN or infinite ones")
    if labels is not None and (outputs.dim() != 2 or outputs.shape[1] < 2):
        raise ValueError(f"labels need outputs (n, classes), got {tuple(outputs.shape)}: leave them out")
    if labels is not None and not 0 <= int(labels.min()) <= int(labels.max()) < outputs.shape[1]:
        raise ValueError(f"labels must be from 0 to {outputs.shape[1] - 1}, got {labels.unique().tolist()}")


@dataclass(frozen=True)
class Findings:
    """What was found about a network, dense or pruned: counts, costs and answers on the batch."""

    stored: int  # weights, zeros included
    kept: int
    effective: int | None  # on a path; None: the network cannot be traced
    macs: int
    size: dict[str, int]  # bytes in each form
    answers: Tensor
    right: float | None  # share of the images; None: the outputs are no classes


@dataclass(frozen=True)
class Treated:
    """A pruned copy, what was found about it, and the lines that make it."""

    found: Findings
    faster: float  # than the dense network
    ms: float
    dense_ms: float
    layers: Mapping[str, float]  # the share of its weights that each layer keeps
    changed: float  # norm of the change of the outputs, relative to that of the outputs
    difference: float | None  # the largest of the outputs, masked against shrunk; None: it was not shrunk
    remarks: Sequence[str]  # HTML
    lines: str  # "": it was not pruned


@dataclass(frozen=True)
class Patient:
    """A dense network and the batch on which it and its pruned copies are measured."""

    model: nn.Module
    images: Tensor
    labels: Tensor | None
    rounds: int

    def prune(self, k: float, what: str, scope: Scope) -> Treated:
        """Prune a copy, shrink it if it can be traced, and measure it beside the dense network."""
        net, refused = copy.deepcopy(self.model), ""
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                WHAT[what](net, k, scope=scope)
            except ValueError as error:  # nothing in it can be pruned so: it stays dense
                refused = f"pb.prune_{what} refuses this network: {error}"
        texts = [refused, *(str(warning.message) for warning in said)]
        ours = ("k is in percent", "masks cover")  # what the slider or _general says
        remarks = [html.escape(text) for text in texts if text and not text.startswith(ours)]
        try:
            small, report = shrink(net, report=True)
            remarks += _left(report)
            difference = float((self.answers(net) - self.answers(small)).abs().max())
        except ValueError as error:
            said_so = f"pb.shrink refuses this network, so its layers keep their sizes: {error}"
            remarks.append(html.escape(said_so))
            small, difference = bake(copy.deepcopy(net)), None
        times = latencies({"dense": self.model, "pruned": small}, self.images, self.rounds)
        found = self.find(small)
        before = self.dense.answers
        changed = float((found.answers - before).norm() / before.norm().clamp_min(1e-30))
        kept = {name: layer.get_parameter("weight") for name, layer in maskable(small).items()}
        layers = {
            name: int(kept[name].count_nonzero()) / layer.get_parameter("weight").numel()
            for name, layer in maskable(self.model).items()
        }
        lines = "" if refused else _lines(k, what, scope, difference is not None)
        faster = float((times["dense"] / times["pruned"]).median())
        ms, dense_ms = (float(times[name].median()) for name in ("pruned", "dense"))
        return Treated(found, faster, ms, dense_ms, layers, changed, difference, remarks, lines)

    @cached_property
    def dense(self) -> Findings:
        """What was found about the network itself."""
        return self.find(self.model)

    @cached_property
    def target(self) -> Tensor:
        """The right answers: the labels, or else those of the network itself."""
        return self.answers(self.model).argmax(1) if self.labels is None else self.labels

    def find(self, net: nn.Module) -> Findings:
        """Count what a network without masks costs, and what it gets right."""
        weights = {layer.get_parameter("weight") for layer in maskable(net).values()}
        stored, kept = (sum(map(count, weights)) for count in (Tensor.numel, _nonzero))
        try:
            effective = effective_weights(net)
        except ValueError:  # torch.fx cannot trace it
            effective = None
        answers, right = self.answers(net), None
        if answers.dim() == 2 and answers.shape[1] > 1:
            right = float((answers.argmax(1) == self.target).float().mean())
        size = {name.replace("mask", "-mask"): each for name, each in vars(stored_bytes(net)).items()}
        return Findings(stored, kept, effective, macs(net, self.images[:1]).dense, size, answers, right)

    def answers(self, net: nn.Module) -> Tensor:
        """Return the outputs for the batch, in eval mode."""
        with evaluating(net), torch.no_grad():
            return cast(Tensor, net(self.images))


def _nonzero(weight: Tensor) -> int:
    return int(weight.count_nonzero())


def _left(report: Report) -> list[str]:
    """Return what `shrink` left whole, as HTML: for each reason how much, and folded, where."""
    idle: dict[str, dict[str, int]] = {}
    for name, reasons in report.idle.items():
        for reason, count in reasons.items():
            idle.setdefault(reason, {})[name] = count
    whole: dict[str, list[str]] = {}
    for name, reason in report.whole.items():
        whole.setdefault(reason, []).append(name)
    stay = []
    for reason, layers in idle.items():
        places = [f"{name} ({count})" for name, count in layers.items()]
        stay.append(_folded(f"{sum(layers.values()):,} idle units stay: {reason}", places))
    return stay + [_folded(f"not made smaller: {reason}", names) for reason, names in whole.items()]


def _folded(what: str, layers: Sequence[str]) -> str:
    where = f"in {len(layers)} layer{'s' * (len(layers) > 1)}"
    names = html.escape(", ".join(layers))
    return f"{html.escape(what)} <details style='display:inline'><summary>{where}</summary>{names}</details>"


def _lines(k: float, what: str, scope: Scope, traced: bool) -> str:
    smaller = "small = pb.shrink(net)  # plain layers, with the outputs of net in eval mode"
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


def _draw(patient: Patient, treated: Treated, setting: str) -> tuple[Figure, str, str]:
    dense, pruned = patient.dense, treated.found
    height = max(2.9, min(0.8 + 0.17 * len(treated.layers), 8))
    bottom = 0.5 / height
    fig, (left, right) = figure(columns=2, width=9.5, height=height, margins=MARGINS | {"bottom": bottom})
    layer_bars(treated.layers, left).set(ylabel="", xlabel="weights of a layer kept, in %")
    left.tick_params(axis="y", labelsize=8 if len(treated.layers) <= 40 else 5)
    shares = {name: after / before for name, before, after in _numbers(dense, pruned) if before}
    left_bars(shares | {"milliseconds": 1 / treated.faster}, right)
    place = right.get_position()
    right.set_position((place.x0, place.y1 - 2.25 / height, place.width, 2.25 / height))
    kept = f"{pruned.kept:,} of {dense.kept:,} weights"
    said = "" if pruned.right is None else f" {_answered(patient, pruned)};"
    return fig, f"{setting}:{said} {kept}; {_speed(treated)}.", _details(patient, treated)


def _answered(patient: Patient, found: Findings) -> str:
    meaning = "as the dense network answers" if patient.labels is None else "right"
    return f"{found.right:.1%} of {len(patient.images):,} images {meaning}"


def _speed(treated: Treated) -> str:
    if 0.87 < treated.faster < 1.15:
        return f"about as fast as the dense network ({treated.ms:.2f} ms)"
    if treated.faster < 1:
        return f"slower: {1 / treated.faster:.1f} times the time of the dense network ({treated.ms:.2f} ms)"
    return f"{treated.faster:.1f} times as fast as the dense network ({treated.ms:.2f} ms)"


def _numbers(dense: Findings, pruned: Findings) -> list[tuple[str, int, int]]:
    """Return a row for each quantity: its name, before, after."""
    rows = [
        ("weights, zeros included", dense.stored, pruned.stored),
        ("weights not zero", dense.kept, pruned.kept),
    ]
    if dense.effective is not None and pruned.effective is not None:
        rows.append(("weights on a path", dense.effective, pruned.effective))
    form = min(pruned.size, key=lambda name: pruned.size[name])
    rows.append(("multiplications", dense.macs, pruned.macs))
    rows.append((f"bytes, as {form}", dense.size["dense"], pruned.size[form]))
    return rows


def _details(patient: Patient, treated: Treated) -> str:
    """Return the numbers as a table, what was left whole and why, and the lines of code, as HTML."""
    dense, pruned = patient.dense, treated.found
    rows = [(name, f"{before:,}", f"{after:,}") for name, before, after in _numbers(dense, pruned)]
    if dense.right is not None and pruned.right is not None:
        name = "answers right" if patient.labels is not None else "answers as before"
        rows.insert(0, (name, f"{dense.right:.1%}", f"{pruned.right:.1%}"))
    rows.append(("milliseconds", f"{treated.dense_ms:.2f}", f"{treated.ms:.2f}"))
    rows.append(("change of the outputs", "", f"{treated.changed:.1%}"))
    cells = "".join(
        f"<tr><th scope='row'>{name}</th><td {CELL}>{before}</td><td {CELL}>{after}</td></tr>"
        for name, before, after in rows
    )
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("on this batch", "dense", "pruned"))
    remarks = [*_general(patient), *treated.remarks]
    listed = "".join(f"<li>{remark}</li>" for remark in remarks)
    whole = f"<p>What to know about this network:</p><ul>{listed}</ul>" if remarks else ""
    lines = f"<p>The same in code:</p>{CODE}{html.escape(treated.lines)}</pre>" if treated.lines else ""
    return f"<table><tr>{head}</tr>{cells}</table><p>{_shrunk(patient, treated)}</p>{whole}{lines}"


def _shrunk(patient: Patient, treated: Treated) -> str:
    if treated.difference is None:
        return "The network was not shrunk."
    smaller = treated.found.stored < patient.dense.stored
    size = "The idle units are removed, so the layers are smaller" if smaller else "No layer became smaller"
    equal = f"The outputs are those of the masked network, to within {treated.difference:.0e}"
    return f"{size}. {equal if treated.difference else 'The outputs are those of the masked network'}."


def _general(patient: Patient) -> list[str]:
    """Return what no k changes: weights that are not counted, BatchNorm, answers that are all the same."""
    others = [row for row in coverage(patient.model) if not row.reason.startswith("was skipped")]
    said = []
    if others:
        names = html.escape(", ".join(row.parameter for row in others))
        count = sum(row.weights for row in others)
        said.append(
            f"{count:,} weights outside linear and convolution layers are neither pruned nor counted, and "
            "their multiplications are not counted either "
            f"<details style='display:inline'><summary>where</summary>{names}</details>"
        )
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in patient.model.modules()):
        said.append(
            "it has BatchNorm: pb.recalibrate(net, images) after pruning wins a part of the loss back"
        )
    dense = patient.dense
    if dense.right is not None and len(dense.answers.argmax(1).unique()) == 1 < len(patient.images):
        said.append("the dense network gives one and the same answer to the whole batch")
    return said
