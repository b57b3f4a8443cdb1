"""Sliders to explore with: k and temperature on copies of the reader's network, r on its scores, classes.

Others show the temperature of gates on draws, and runs with adaptive masks or gates epoch by epoch.

Chapter: book/weights.ipynb
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from matplotlib.figure import Figure
from pandas import DataFrame
from torch import Tensor, nn

from prunebook.book import plots
from prunebook.book.widgets import FrameSlider
from prunebook.masking import dense_weight, maskable, masks, parameter_name, sparsity
from prunebook.methods.adaptive import AdaptivePruning
from prunebook.methods.gumbel import NOISE_TAIL, GumbelPruning, gates, gumbel_gate
from prunebook.methods.quantile import GRID, fft_kde, quantile
from prunebook.methods.soft import SoftPruning, soft_mask, thresholds
from prunebook.methods.units import prune_units
from prunebook.methods.weights import Scope, prune_weights
from prunebook.read.paths import count_paths, importance, order_units, surviving
from prunebook.shrinking.slicing import shrink
from prunebook.tools.costs import Bytes, macs, stored
from prunebook.tools.csr import break_even
from prunebook.training.data import Data, Split
from prunebook.training.fit import evaluate

Noted = TypeVar("Noted", "Moment", "GateMoment")
SCOPES: dict[str, Scope] = {"each layer": "layer", "all layers together": "global"}
STOPS = (0, 50, 80, 90, 95, 97, 98, 99, 99.5, 99.85)  # 399 weights of LeNet-300-100 are left at the last
TAUS = (10, 3, 1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)  # from hot to frozen, times std(W)
GATE_TAUS = (0.01, 0.03, 0.1, 0.3, 0.5, 1, 2, 3, 10, 30)
CHANCES = {"open in 1 %": 0.01, "open in 50 %": 0.5, "open in 90 %": 0.9}  # of the draws of a gate
DRAWS = 20_000
BINS = 40  # of the probabilities of gates
RATIOS = (*(round(0.05 * i, 2) for i in range(1, 20)), 0.97, 0.98, 0.99)


def explore_k(model: nn.Module, data: Data, method: str = "weights", sample: int = 2000) -> FrameSlider:
    """Make a slider for k, over each layer or over all layers together: weights, mask, accuracy, cost.

    Nothing is retrained. Accuracy is measured on the first `sample` validation images, and says so.

    Args:
        model: a network that takes the images of `data`; copies of it are pruned.
        data: as `load_data` gives it.
        method: "weights" (`prune_weights`) or "units" (`prune_units`).
        sample: how many validation images, at least 1.

    Raises:
        ValueError: unknown method, or a sample below 1.
    """
    if method not in ("weights", "units"):
        raise ValueError(f"method must be 'weights' or 'units', not {method!r}")
    split = _first(data.valid, sample)
    pruned = {(k, name): _explored(model, split, method, k, SCOPES[name]) for name in SCOPES for k in STOPS}

    def draw(k: float, scope: str) -> tuple[Figure, str]:
        line = [pruned[stop, scope] for stop in STOPS]
        return _draw_explored(pruned[k, scope], line, k, len(split))

    return FrameSlider(draw, STOPS, label="k in %", start=3, choices={"scope": list(SCOPES)})


@dataclass(frozen=True)
class _Explored:
    """A pruned copy, reduced to what a frame shows."""

    weights: Tensor
    kept: Tensor
    pixels: Tensor | None  # the mask of a first layer that reads pixels, where single weights are pruned
    layers: dict[str, float]
    multiplications: int
    accuracy: float


def _explored(model: nn.Module, split: Split, method: str, k: float, scope: Scope) -> _Explored:
    net = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a layer keeps its last unit: the picture shows it
        (prune_weights if method == "weights" else prune_units)(net, k, scope=scope)
    weights = {name: dense_weight(layer).detach() for name, layer in maskable(net).items()}
    found = masks(net)
    kept = {
        name: found.get(parameter_name(name, "weight"), torch.ones_like(weight, dtype=torch.bool))
        for name, weight in weights.items()
    }
    left = {name: 1 - share for name, share in sparsity(net, per_layer=True).items()}
    work = macs(shrink(net), split.images[:1]).nonzero
    first = next(iter(kept.values()))
    pixels = first if method == "weights" and first.dim() == 2 and first.shape[1] == 784 else None
    return _Explored(_flat(weights), _flat(kept), pixels, left, work, evaluate(net, split).accuracy)


def _flat(tensors: Mapping[Any, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def _draw_explored(shown: _Explored, line: Sequence[_Explored], k: float, images: int) -> tuple[Figure, str]:
    # fixed margins: to find them anew would take longer than the rest of the frame
    figure, (left, middle, right) = plots.figure(columns=3, width=9.5, height=2.9, layout=None)
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.18, top=0.9, wspace=0.45)
    plots.kept_histogram(shown.weights, shown.kept, left)
    if shown.pixels is not None:
        plots.kept_per_pixel(shown.pixels, middle)
    else:
        plots.layer_bars(shown.layers, middle)
    costs, accuracies = [max(point.multiplications, 1) for point in line], [point.accuracy for point in line]
    plots.cost_curve(costs, accuracies, right, "multiplications for an image")
    right.plot(max(shown.multiplications, 1), 100 * shown.accuracy, "o", markersize=11, color=plots.ORANGE)
    right.set_title(f"{shown.accuracy:.1%} of {images:,} validation images", fontsize=9)
    kept, total = int(shown.kept.sum()), shown.kept.numel()
    return figure, (
        f"k = {k:g} %: kept {kept:,} of {total:,} weights; {shown.accuracy:.1%} of {images:,} validation "
        f"images right; {shown.multiplications:,} multiplications for an image."
    )


@dataclass(frozen=True)
class Moment:
    """A network with adaptive masks at the end of an epoch: what `explore_run` shows of it."""

    row: Mapping[str, float]  # of the history: epoch, valid_accuracy
    r: float
    tau: float
    weights: Tensor
    kept: Tensor
    first: Tensor  # the mask of the first layer


def moment(pruning: AdaptivePruning, row: Mapping[str, float]) -> Moment:
    """Copy what `explore_run` shows; for `fit(on_epoch=lambda row: moments.append(moment(pruning, row)))`."""
    weights = {name: dense_weight(layer).detach() for name, layer in maskable(pruning.model).items()}
    found = masks(pruning.model)
    kept = {
        name: found.get(parameter_name(name, "weight"), torch.ones_like(weight, dtype=torch.bool))
        for name, weight in weights.items()
    }
    first = next(iter(kept.values()))
    return Moment(dict(row), pruning.r, pruning.tau, _flat(weights).clone(), _flat(kept), first)


def explore_run(moments: Sequence[Moment]) -> FrameSlider:
    """Make a slider that scrubs through a run: r, tau, the weights and what the first layer keeps.

    Args:
        moments: one for each epoch, in order; their first layer reads images of 28 x 28.

    Raises:
        ValueError: there is none.
    """
    return _scrub(moments, _draw_moment)


def _scrub(
    moments: Sequence[Noted], draw_moment: Callable[[Noted, Sequence[Noted]], tuple[Figure, str]]
) -> FrameSlider:
    """Make a slider over the epochs of a run, at its last one."""
    if not moments:
        raise ValueError("moments must hold at least one epoch, got none")
    by_epoch = {int(shown.row["epoch"]): shown for shown in moments}

    def draw(epoch: int) -> tuple[Figure, str]:
        return draw_moment(by_epoch[epoch], moments)

    return FrameSlider(draw, list(by_epoch), label="epoch", start=len(by_epoch) - 1)


def _draw_moment(shown: Moment, run: Sequence[Moment]) -> tuple[Figure, str]:
    figure, (ratio, tau, weights, pixels) = plots.figure(columns=2, rows=2, width=7, height=4.8, layout=None)
    figure.subplots_adjust(left=0.11, right=0.97, bottom=0.11, top=0.95, wspace=0.35, hspace=0.42)
    epoch, epochs = shown.row["epoch"], [other.row["epoch"] for other in run]
    plots.path(epochs, [other.r for other in run], ratio, epoch, "ratio r")
    plots.path(epochs, [other.tau for other in run], tau, epoch, "temperature tau")
    tau.set_yscale("log")
    plots.kept_histogram(shown.weights, shown.kept, weights)
    plots.kept_per_pixel(shown.first, pixels)
    kept, total, accuracy = int(shown.kept.sum()), shown.kept.numel(), shown.row["valid_accuracy"]
    return figure, (
        f"Epoch {epoch:g}: r = {shown.r:.3f}, tau = {shown.tau:.1e}; {kept:,} of {total:,} weights kept; "
        f"{accuracy:.1%} of the validation images right."
    )


def explore_ratio(scores: Tensor, ratios: Sequence[float] = RATIOS) -> FrameSlider:
    """Make a slider for the ratio r: the threshold t(r) on the CDF, on the density, and with its tangent.

    Args:
        scores: as for `quantile`, at least two, such as the absolute weights of a network.
        ratios: the stops, each in [0, 1].

    Raises:
        ValueError: as `quantile` does.
    """
    flat = scores.detach().flatten().float().cpu()
    points, density = fft_kde(flat, grid=GRID, bandwidth="silverman")
    ordered = flat.sort().values
    shares = torch.linspace(0, 0.999, 400)  # the last of the tail would press the rest against the axis
    thresholds = ordered[(shares * (len(ordered) - 1)).long()]
    seen = points <= thresholds[-1]

    def draw(ratio: float) -> tuple[Figure, str]:
        r = torch.tensor(ratio, requires_grad=True)
        t = quantile(flat, r)
        (slope,) = torch.autograd.grad(t, r)
        # fixed margins: to find them anew would take longer than the rest of the frame
        figure, (left, middle, right) = plots.figure(columns=3, width=9.5, height=2.9, layout=None)
        figure.subplots_adjust(left=0.06, right=0.985, bottom=0.18, top=0.88, wspace=0.35)
        at, steep = float(t.detach()), float(slope)
        f = 1 / steep
        plots.cumulative(thresholds, shares, left, at, ratio)
        plots.density_at(points[seen], density[seen], middle, at, f)
        plots.quantile_tangent(thresholds, shares, right, ratio, at, steep)
        titles = f"share below t: {ratio:g}", f"density at t: {f:.3g}", f"slope: 1 / {f:.3g} = {steep:.3g}"
        for ax, title in zip((left, middle, right), titles, strict=True):
            ax.set_title(title, fontsize=9)
        return figure, f"r = {ratio:g}: t = {at:.4f}, density f(t) = {f:.3g}, slope dt/dr = {steep:.3g}."

    return FrameSlider(draw, ratios, label="r", start=len(ratios) // 2)


def explore_tau(model: nn.Module, data: Data, k: float = 90, sample: int = 2000) -> FrameSlider:
    """Make a slider for the temperature of a soft mask, one over all layers: mask, weights, accuracy.

    Nothing is retrained. Accuracy is measured on the first `sample` validation images, and says so.

    Args:
        model: a network without masks that takes the images of `data`; copies of it are masked.
        data: as `load_data` gives it.
        k: percent of the weights below the threshold, 0 to 100.
        sample: how many validation images, at least 1.

    Raises:
        ValueError: k or the sample is out of range, or the model is masked already.
    """
    split = _first(data.valid, sample)
    softened = {tau: _softened(model, split, k, tau) for tau in TAUS}

    def draw(tau: float) -> tuple[Figure, str]:
        return _draw_softened(softened[tau], list(softened.values()), tau, len(split))

    return FrameSlider(draw, TAUS, label="tau / std(W)", start=TAUS.index(0.01))


@dataclass(frozen=True)
class _Softened:
    """A copy under a soft mask, reduced to what a frame shows."""

    weights: Tensor
    mask: Tensor
    t: float
    tau: float  # in the units of w^2
    accuracy: float

    @property
    def undecided(self) -> float:
        """The share of weights that the mask neither keeps nor prunes, 0 to 1."""
        return float(((self.mask > 0.1) & (self.mask < 0.9)).float().mean())


def _softened(model: nn.Module, split: Split, k: float, tau: float) -> _Softened:
    net = copy.deepcopy(model)
    absolute = SoftPruning(net, k, tau=tau, scope="global").tau
    t = float(thresholds(net)[0].t)
    weights = _flat({name: dense_weight(layer).detach() for name, layer in maskable(net).items()})
    return _Softened(weights, soft_mask(weights, t, absolute), t, absolute, evaluate(net, split).accuracy)


def _draw_softened(
    shown: _Softened, line: Sequence[_Softened], tau: float, images: int
) -> tuple[Figure, str]:
    figure, (left, middle, right) = plots.figure(columns=3, width=9.5, height=2.9, layout=None)
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.18, top=0.9, wspace=0.35)
    points = torch.linspace(-3 * shown.t, 3 * shown.t, 301)
    plots.mask_curve(points, soft_mask(points, shown.t, shown.tau), left, shown.t)
    left.set_title(f"{shown.undecided:.1%} undecided", fontsize=9)
    plots.masked_histogram(shown.weights, shown.mask * shown.weights, middle)
    plots.temperature_curve(TAUS, [point.accuracy for point in line], right)
    right.plot(tau, 100 * shown.accuracy, "o", markersize=11, color=plots.ORANGE)
    right.set_title(f"{shown.accuracy:.1%} of {images:,} validation images", fontsize=9)
    return figure, (
        f"tau = {tau:g} x std(W) = {shown.tau:.1e}: {shown.undecided:.1%} of the weights are undecided "
        f"(0.1 < m < 0.9); {shown.accuracy:.1%} of {images:,} validation images right."
    )


def explore_gates(taus: Sequence[float] = GATE_TAUS) -> FrameSlider:
    """Make a slider for the temperature of a Gumbel gate: soft gates, and the gradient by the logit.

    All frames share the same draws of the noise. The loss is the hard gate itself, so that the true
    gradient of its mean is p (1 - p), with p the probability of being open.

    Args:
        taus: the stops, each above 0.

    Raises:
        ValueError: a temperature is not above 0.
    """
    noise = torch.rand(DRAWS, generator=torch.Generator().manual_seed(0)).logit(eps=NOISE_TAIL)
    drawn = {(tau, name): _drawn_gates(CHANCES[name], noise, tau) for name in CHANCES for tau in taus}

    def draw(tau: float, chance: str) -> tuple[Figure, str]:
        return _draw_gates(drawn[tau, chance], [drawn[stop, chance] for stop in taus], CHANCES[chance])

    return FrameSlider(draw, taus, label="tau", start=len(taus) // 2, choices={"chance": list(CHANCES)})


@dataclass(frozen=True)
class _DrawnGates:
    """Draws of a gate, and what each says about the gradient by its logit."""

    tau: float
    soft: Tensor
    gradient: Tensor

    @property
    def undecided(self) -> float:
        """The share of draws that are far from both ends, 0 to 1."""
        return float(((self.soft > 0.1) & (self.soft < 0.9)).float().mean())


def _drawn_gates(chance: float, noise: Tensor, tau: float) -> _DrawnGates:
    logit = torch.full_like(noise, chance).logit_().requires_grad_()
    (gradient,) = torch.autograd.grad(gumbel_gate(logit, noise, tau).sum(), logit)
    return _DrawnGates(tau, gumbel_gate(logit.detach(), noise, tau, hard=False), gradient)


def _draw_gates(shown: _DrawnGates, line: Sequence[_DrawnGates], chance: float) -> tuple[Figure, str]:
    # fixed margins: to find them anew would take longer than the rest of the frame
    figure, (left, right) = plots.figure(columns=2, width=8, height=2.9, layout=None)
    figure.subplots_adjust(left=0.08, right=0.985, bottom=0.18, top=0.9, wspace=0.3)
    plots.gate_histogram({"soft": shown.soft}, left)
    left.set_title(f"open in {(shown.soft > 0.5).float().mean():.1%} of {DRAWS:,} draws", fontsize=9)
    truth = chance * (1 - chance)
    means, spreads = ([float(part(gates.gradient)) for gates in line] for part in (torch.mean, torch.std))
    plots.gradient_noise([gates.tau for gates in line], means, spreads, truth, right)
    mean, spread = float(shown.gradient.mean()), float(shown.gradient.std())
    right.plot(shown.tau, mean, "o", markersize=11, color=plots.ORANGE)
    right.set(title=f"mean {mean:.2g}, spread {spread:.2g}", ylim=(-2 * truth, 6 * truth))
    right.title.set_fontsize(9)
    return figure, (
        f"tau = {shown.tau:g}: {shown.undecided:.1%} of the soft gates lie between 0.1 and 0.9; gradient "
        f"{mean:.2g} on average with spread {spread:.2g}, in truth {truth:.2g}."
    )


@dataclass(frozen=True)
class GateMoment:
    """A network with gates at the end of an epoch: what `explore_thinning` shows of it."""

    row: Mapping[str, float]  # of the history: epoch, valid_accuracy
    density: float
    kept: int
    counts: Tensor  # of the probabilities of being open, in equal bins of 0..1
    pixels: Tensor  # (1, inputs): open gates of each input of the first layer


def gate_moment(pruning: GumbelPruning, row: Mapping[str, float]) -> GateMoment:
    """Copy what `explore_thinning` shows, for `fit(on_epoch=...)`; the gates are those of weights."""
    found = [gate.logit.detach().cpu() for gate in gates(pruning.model).values()]
    counts = torch.histc(_flat(dict(enumerate(found))).sigmoid(), BINS, 0, 1)
    kept = sum(int((logit > 0).sum()) for logit in found)
    return GateMoment(dict(row), pruning.density(), kept, counts, (found[0] > 0).sum(0, keepdim=True))


def explore_thinning(moments: Sequence[GateMoment]) -> FrameSlider:
    """Make a slider that scrubs through a run: density, accuracy, the gates, and who reads which pixel.

    Args:
        moments: in order, each of another epoch; their first layer reads images of 28 x 28.

    Raises:
        ValueError: there is none.
    """
    return _scrub(moments, _draw_thinning)


def _draw_thinning(shown: GateMoment, run: Sequence[GateMoment]) -> tuple[Figure, str]:
    figure, (density, right, chances, pixels) = plots.figure(
        columns=2, rows=2, width=7, height=4.8, layout=None
    )
    figure.subplots_adjust(left=0.11, right=0.94, bottom=0.11, top=0.95, wspace=0.35, hspace=0.42)
    so_far = [moment for moment in run if moment.row["epoch"] <= shown.row["epoch"]]
    epochs, now = [moment.row["epoch"] for moment in so_far], shown.row["epoch"]
    plots.path(epochs, [100 * moment.density for moment in so_far], density, now, "density in %")
    density.set(yscale="log", ylim=(80 * min(moment.density for moment in run), 120))
    accuracies = [100 * moment.row["valid_accuracy"] for moment in run]
    plots.path(epochs, accuracies[: len(epochs)], right, now, "accuracy in %")
    right.set_ylim(min(accuracies) - 1, max(accuracies) + 1)
    for ax in (density, right):
        ax.set_xlim(0, run[-1].row["epoch"] + 1)
    plots.chance_histogram(shown.counts, chances)
    chances.set_ylim(0.5, 2 * float(shown.counts.sum()))
    plots.kept_per_pixel(shown.pixels, pixels)
    return figure, (
        f"Epoch {now:g}: density {shown.density:.3%}, {shown.kept:,} gates of P(open) above one half; "
        f"{shown.row['valid_accuracy']:.1%} of the validation images right."
    )


def explore_class(model: nn.Module, data: Data) -> FrameSlider:
    """Make a slider over the classes: the paths to one of them, lit in the network, and its pixels.

    Behind the pixels lies the mean training image of the class; importance counts how much a pixel varies.

    Args:
        model: a pruned chain of linear layers that takes the images of `data`, which are square.
        data: as `load_data` gives it.

    Raises:
        ValueError: as `surviving`.
    """
    order = order_units(model, keep_inputs=True, keep_outputs=True)
    images, labels, whole = data.train.images.flatten(1), data.train.labels, surviving(model)
    shares = importance(model, images.std(0))

    def draw(name: str) -> tuple[Figure, str]:
        index = data.classes.index(name)
        lit = surviving(model, target=index)
        grey = images[labels == index].mean(0) * data.std + data.mean
        # fixed places: to find them anew would take longer than the rest of the frame
        figure, (left, right) = plots.figure(columns=2, width=9.5, height=4.2, layout=None)
        left.set_position((0.01, 0.02, 0.66, 0.96))
        right.set_position((0.7, 0.13, 0.28, 0.74))
        plots.image_pathways(whole, order, left, data.classes, grey, lit)
        plots.importance_maps(shares[index : index + 1], [right], [f"importance for {name}"])
        pixels, edges = int(lit[0].any(0).sum()), sum(int(weight.count_nonzero()) for weight in lit)
        routes, total = count_paths(model, target=index), sum(int(weight.count_nonzero()) for weight in whole)
        return figure, (
            f"Class {name}: {routes:,} paths from {pixels} pixels, along {edges:,} of {total:,} weights; "
            f"the most important pixel has {shares[index].max():.1%} of the strength."
        )

    return FrameSlider(draw, data.classes, label="class")


def explore_frontier(rows: DataFrame) -> FrameSlider:
    """Make a slider for how much is kept: all methods, from the best to the worst, at one density.

    Args:
        rows: of one data set and one number of epochs: method, density (0..1) and test_accuracy (0..1).

    Raises:
        ValueError: there is no row.
    """
    if rows.empty:
        raise ValueError("rows must hold at least one network, got none")
    most = rows["method"].nunique()

    def draw(percent: float) -> tuple[Figure, str]:
        here = rows[(100 * rows["density"]).round(6) == percent]
        figure, (ax,) = plots.figure(width=7.5, height=1 + 0.24 * most)
        plots.ranking(here, ax)
        ax.set_ylim(-0.7, most - 0.3)
        mean = 100 * here.groupby("method")["test_accuracy"].mean().sort_values(ascending=False)
        best = ", ".join(f"{method} {value:.1f} %" for method, value in mean.head(3).items())
        return figure, f"{percent:g} % kept, the best of {len(mean)}: {best}."

    shares = sorted({round(100 * share, 6) for share in rows["density"]}, reverse=True)
    stops = [int(share) if share == int(share) else share for share in shares]
    return FrameSlider(draw, stops, label="weights kept, in %", start=len(stops) // 2)


def _first(split: Split, sample: int) -> Split:
    if sample < 1:
        raise ValueError(f"sample must be at least 1, not {sample}")
    return Split(split.images[:sample], split.labels[:sample])


def explore_savings(model: nn.Module, timings: DataFrame) -> FrameSlider:
    """Make a slider for the share of zeros: bytes of a network in three forms, and time from a table.

    Args:
        model: copies of it are pruned, k % of each layer, to count their bytes.
        timings: as `book.table("latency")` gives it, of one number of threads: another network's, perhaps.

    Raises:
        ValueError: the table has no CSR that is as fast as dense at some k.
    """
    csr = timings[timings["form"] == "csr"]
    ks = [int(k) if k == int(k) else k for k in sorted(csr["k"].unique().tolist())]
    sizes = {k: stored(prune_weights(copy.deepcopy(model), k)) for k in ks}
    largest_first = sorted(csr["batch"].unique().tolist(), reverse=True)
    batches = {f"{batch} image{'' if batch == 1 else 's'}": batch for batch in largest_first}

    def draw(k: float, batch: str) -> tuple[Figure, str]:
        return _draw_savings(sizes, timings[timings["batch"] == batches[batch]], k, batch)

    start = min(range(len(ks)), key=lambda i: abs(ks[i] - 90))
    return FrameSlider(draw, ks, label="zeros in %", start=start, choices={"batch": list(batches)})


def _draw_savings(
    sizes: Mapping[float, Bytes], timings: DataFrame, k: float, batch: str
) -> tuple[Figure, str]:
    # fixed margins: to find them anew would take longer than the rest of the frame
    figure, (left, right) = plots.figure(columns=2, width=8.6, height=3.0, layout=None)
    figure.subplots_adjust(left=0.1, right=0.985, bottom=0.17, top=0.9, wspace=0.3)
    size = {"dense": sizes[k].dense, "CSR": sizes[k].csr, "bit-mask": sizes[k].bitmask}
    plots.size_bars(size, left, max(max(vars(each).values()) for each in sizes.values()))
    csr = timings[timings["form"] == "csr"].sort_values("k")
    plots.speed_curves(timings, right, break_even(csr["k"].tolist(), csr["faster"].tolist()))
    now = csr[csr["k"] == k].iloc[0]
    total = timings.loc[timings["form"] == "dense", "weights"].iloc[0]
    right.plot(100 * now["weights"] / total, now["faster"], "o", markersize=11, color=plots.ORANGE)
    right.set_title(f"{batch} at once", fontsize=9)
    megabytes = ", ".join(f"{name} {each / 1e6:.2f} MB" for name, each in size.items())
    return (
        figure,
        f"{k:g} % zeros: {megabytes}; CSR takes {1 / now['faster']:.2f} of the dense time for {batch}.",
    )
