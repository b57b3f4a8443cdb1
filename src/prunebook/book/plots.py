"""Figures: data in, Axes out. The only file that draws.

Colours are Okabe and Ito's, which stay apart for colour-blind readers. No function sets global state.

Chapter: book/dense.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import seaborn as sns
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.path import Path
from matplotlib.ticker import LogLocator, NullFormatter
from pandas import DataFrame
from torch import Tensor

from prunebook.book.wires import Wires

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#777777",
)
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY)
MARKERS = "osD^vP*"


def figure(
    columns: int = 1,
    rows: int = 1,
    width: float = 7.0,
    height: float = 3.2,
    layout: Literal["constrained"] | None = "constrained",
) -> tuple[Figure, list[Axes]]:
    """Make a figure of `width` x `height` inches on white, and return it with its axes, row by row.

    The figure is not registered with pyplot: a notebook shows it as the last value of a cell.
    """
    fig = Figure(figsize=(width, height), layout=layout, facecolor="white")
    axes = [fig.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for ax in axes:
        sns.despine(ax=ax)
    return fig, axes


def show_images(images: Tensor, titles: Iterable[str], axes: Sequence[Axes]) -> Sequence[Axes]:
    """Show images (n, 1, h, w) in grey, one per axes, each under its title."""
    for ax, image, title in zip(axes, images.cpu().numpy(), titles, strict=False):
        ax.imshow(image[0], cmap="gray")
        ax.set_title(title, fontsize=9)
        ax.set_axis_off()
    return axes


def show_weights(weights: Tensor, axes: Sequence[Axes], side: int = 28) -> Sequence[Axes]:
    """Show the incoming weights (n, side * side) of n units as images: blue below 0, red above."""
    limit = weights.detach().abs().amax().item() / 2  # the strongest saturate, the others show
    for ax, unit in zip(axes, weights.detach().cpu().numpy(), strict=False):
        ax.imshow(unit.reshape(side, side), cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_axis_off()
    return axes


def weight_histogram(weights: Tensor, ax: Axes, threshold: float = 0.0, bins: int = 120) -> Axes:
    """Draw how many weights have each value; grey are those of absolute value below the threshold."""
    return kept_histogram(weights, weights.detach().abs() >= threshold, ax, bins)


def training_curves(rows: Sequence[Mapping[str, float]], ax: Axes) -> Axes:
    """Draw training and validation accuracy in percent against the epoch, from the rows of a `History`."""
    epochs = [row["epoch"] for row in rows]
    for column, label, colour in (
        ("train_accuracy", "training images, while learning", BLUE),
        ("valid_accuracy", "validation images", ORANGE),
    ):
        ax.plot(epochs, [100 * row[column] for row in rows], "o-", color=colour, label=label)
    ax.set(xlabel="epoch", ylabel="accuracy in %", xticks=epochs)
    ax.legend(frameon=False)
    return ax


def accuracy_curve(
    ks: Sequence[float], accuracies: Sequence[float], ax: Axes, label: str | None = None, colour: str = BLUE
) -> Axes:
    """Draw accuracy (0..1, shown in percent) against k, the percentage pruned."""
    ax.plot(ks, [100 * accuracy for accuracy in accuracies], "o-", color=colour, label=label)
    ax.set(xlabel="k: weights set to zero, in %", ylabel="accuracy in %", ylim=(0, 102))
    ax.grid(alpha=0.3)
    return ax


def kept_histogram(weights: Tensor, kept: Tensor, ax: Axes, bins: int = 100) -> Axes:
    """Draw how many weights have each value: kept ones in blue, on top of them the pruned ones in grey."""
    values, kept = weights.detach().flatten().float().cpu(), kept.flatten().cpu()
    edges = torch.linspace(values.min().item(), values.max().item(), bins + 1)
    below = torch.histogram(values[kept], edges).hist.numpy()
    total = torch.histogram(values, edges).hist.numpy()
    # one artist for each colour: two hundred bars would take ten times as long to draw
    ax.stairs(total, edges.numpy(), fill=True, color=GREY, label="pruned")
    ax.stairs(below, edges.numpy(), fill=True, color=BLUE, label="kept")
    ax.set(xlabel="weight", ylabel="number of weights", yscale="log", ylim=(0.5, None))
    ax.legend(frameon=False, fontsize=8, loc="upper right")
    return ax


def mask_map(mask: Tensor, ax: Axes) -> Axes:
    """Draw a mask (units, inputs): black is kept, white is pruned."""
    ax.imshow(mask.cpu().numpy(), cmap="gray_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set(xlabel="input", ylabel="unit")
    return ax


def kept_per_pixel(mask: Tensor, ax: Axes, side: int = 28) -> Axes:
    """Draw how many of each pixel's weights in the first layer, mask (units, side * side), are kept."""
    kept = mask.sum(0).reshape(side, side).cpu().numpy()
    picture = ax.imshow(kept, cmap="viridis", vmin=0, vmax=max(1, kept.max()))
    ax.figure.colorbar(picture, ax=ax, label="kept weights of a pixel", shrink=0.85)
    ax.set_axis_off()
    return ax


def layer_bars(shares: Mapping[str, float], ax: Axes, label: str = "kept, in %") -> Axes:
    """Draw one bar per layer; shares in 0..1, shown in percent."""
    ax.barh(list(shares), [100 * share for share in shares.values()], color=BLUE)
    ax.invert_yaxis()  # the first layer on top
    ax.set(xlabel=label, ylabel="layer", xlim=(0, 100))
    return ax


def accuracy_bands(rows: DataFrame, ax: Axes, x: str = "k", by: str = "method") -> Axes:
    """Draw mean accuracy against `x` for each value of `by`, with a band from the worst to the best seed.

    `rows` has the columns x, by, seed and validation_accuracy (0..1, shown in percent).
    """
    percent = rows.assign(accuracy=100 * rows["validation_accuracy"])
    colours = dict(zip(percent[by].unique(), COLOURS, strict=False))
    sns.lineplot(
        percent, x=x, y="accuracy", hue=by, style=by, markers=True, dashes=False, palette=colours, ax=ax,
        errorbar=("pi", 100),
    )  # fmt: skip
    ax.set(ylabel="accuracy in %", ylim=(0, 102))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax


def cost_curve(costs: Sequence[float], accuracies: Sequence[float], ax: Axes, xlabel: str) -> Axes:
    """Draw accuracy (0..1, shown in percent) against a cost on a logarithmic axis."""
    ax.plot(costs, [100 * accuracy for accuracy in accuracies], "o-", color=BLUE)
    ax.set(xlabel=xlabel, ylabel="accuracy in %", xscale="log", ylim=(0, 102))
    ax.grid(alpha=0.3)
    return ax


def path(
    epochs: Sequence[float], values: Sequence[float], ax: Axes, now: float | None = None, ylabel: str = ""
) -> Axes:
    """Draw a value against the epoch, with a large dot at the epoch `now`."""
    ax.plot(epochs, values, "o-", color=BLUE, markersize=3)
    if now is not None:
        ax.plot(now, values[list(epochs).index(now)], "o", color=ORANGE, markersize=10)
    ax.set(xlabel="epoch", ylabel=ylabel)
    ax.grid(alpha=0.3)
    return ax


def paths(rows: DataFrame, column: str, ax: Axes, by: Sequence[str] = ("r", "lam")) -> Axes:
    """Draw, for each row, a column that holds a value per epoch, "0.5 0.7 0.8"; a colour for each `by`."""
    for colour, (setting, group) in zip(COLOURS, rows.groupby(list(by)), strict=False):
        label = ", ".join(f"{name} {value:g}" for name, value in zip(by, setting, strict=True))
        for index, text in enumerate(group[column]):
            values = [float(value) for value in text.split()]
            ax.plot(
                range(1, len(values) + 1), values, color=colour, alpha=0.8, label=None if index else label
            )
    ax.set(xlabel="epoch", ylabel=column)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=8)
    return ax


def cumulative(
    thresholds: Tensor, shares: Tensor, ax: Axes, t: float | None = None, r: float | None = None
) -> Axes:
    """Draw the share of the scores below each threshold; the point (t, r), with the way from r to t."""
    ax.plot(thresholds, shares, color=BLUE)
    if t is not None and r is not None:
        ax.plot([0, t, t], [r, r, 0], "--", color=GREY, linewidth=1)
        ax.plot(t, r, "o", color=ORANGE)
    ax.set(xlabel="t", ylabel="share below t", xlim=(0, None), ylim=(0, 1.02))
    return ax


def density_at(
    points: Tensor, density: Tensor, ax: Axes, t: float | None = None, f: float | None = None
) -> Axes:
    """Draw a density over what is never negative, grey where it lies below t; the point (t, f)."""
    x, y = points.cpu().numpy(), density.cpu().numpy()
    ax.plot(x, y, color=BLUE)
    if t is not None:
        below = x <= t
        ax.fill_between(x[below], y[below], color=GREY, alpha=0.4, linewidth=0)
        ax.axvline(t, linestyle="--", color=GREY, linewidth=1)
    if t is not None and f is not None:
        ax.plot(t, f, "o", color=ORANGE)
    ax.set(xlabel="absolute value", ylabel="density f", xlim=(0, None), ylim=(0, None))
    return ax


def quantile_tangent(thresholds: Tensor, shares: Tensor, ax: Axes, r: float, t: float, slope: float) -> Axes:
    """Draw t(r), and its tangent at r: the line through (r, t) with the given slope."""
    ax.plot(shares, thresholds, color=BLUE)
    ax.axline((r, t), slope=slope, color=ORANGE, linewidth=1.2)
    ax.plot(r, t, "o", color=ORANGE)
    ax.set(xlabel="r", ylabel="t(r)", xlim=(0, 1.02), ylim=(0, 1.02 * float(thresholds[-1])))
    return ax


def loglog(
    columns: Mapping[str, Sequence[float]], x: Sequence[float], ax: Axes, xlabel: str, ylabel: str
) -> Axes:
    """Draw columns against x, both axes logarithmic: where a line rises as fast as x, cost is linear."""
    for (label, column), colour in zip(columns.items(), COLOURS, strict=False):
        ax.plot(x, column, "o-", color=colour, label=label)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax


def mask_curve(
    weights: Tensor, mask: Tensor, ax: Axes, threshold: float, label: str | None = None, colour: str = BLUE
) -> Axes:
    """Draw a mask (0..1) over the weights that it belongs to, in order, with the threshold on both sides."""
    ax.plot(weights.detach().cpu(), mask.detach().cpu(), color=colour, label=label)
    for side in (-threshold, threshold):
        ax.axvline(side, color=GREY, linestyle="--", linewidth=1)
    ax.set(xlabel="weight w", ylabel="mask m(w)", ylim=(-0.03, 1.03))
    return ax


def masked_histogram(weights: Tensor, masked: Tensor, ax: Axes, bins: int = 100) -> Axes:
    """Draw how many weights have each value, in grey, and on top how many masked weights, as a blue line."""
    values, masked = (tensor.detach().flatten().float().cpu() for tensor in (weights, masked))
    edges = torch.linspace(values.min().item(), values.max().item(), bins + 1)
    counts, masked_counts = (torch.histogram(tensor, edges).hist.numpy() for tensor in (values, masked))
    ax.stairs(counts, edges.numpy(), fill=True, color=GREY, alpha=0.6, label="w")
    ax.stairs(masked_counts, edges.numpy(), color=BLUE, linewidth=1.4, label="m(w) w")
    ax.set(xlabel="weight", ylabel="number of weights", yscale="log", ylim=(0.5, None))
    ax.legend(frameon=False, fontsize=8, loc="upper right")
    return ax


def temperature_curve(
    taus: Sequence[float], accuracies: Sequence[float], ax: Axes, label: str | None = None, colour: str = BLUE
) -> Axes:
    """Draw accuracy (0..1, in percent) against the temperature: hot on the left, frozen on the right."""
    ax.plot(taus, [100 * accuracy for accuracy in accuracies], "o-", color=colour, label=label)
    ax.set(xlabel="temperature, in std(W)", ylabel="accuracy in %", xscale="log", ylim=(0, 102))
    ax.set_xlim(2 * max(taus), min(taus) / 2)
    ax.grid(alpha=0.3)
    return ax


def weight_moves(before: Tensor, after: Tensor, kept: Tensor, ax: Axes, threshold: float) -> Axes:
    """Draw the size of each weight after training against that before; `threshold` is the one before.

    Grey: not kept at the end. Blue: kept, and above the threshold before. Orange: kept, and below it before.
    """
    x, y = before.detach().flatten().abs().cpu(), after.detach().flatten().abs().cpu()
    kept, above = kept.flatten().cpu(), x >= threshold
    for shown, label, colour in (
        (~kept, "pruned at the end", GREY),
        (kept & above, "kept, and large before", BLUE),
        (kept & ~above, "kept, but small before", ORANGE),
    ):
        ax.plot(x[shown], y[shown], ".", markersize=2.5, color=colour, label=label)
    ax.axvline(threshold, color="black", linestyle="--", linewidth=1)
    ax.set(xlabel="abs(w) before", ylabel="abs(w) after")
    return ax


def gate_histogram(gates: Mapping[str, Tensor], ax: Axes, bins: int = 25) -> Axes:
    """Draw which share of each sample of gates (0..1) lies in which bin: a line for each label."""
    edges = torch.linspace(0, 1, bins + 1)
    for (label, sample), colour in zip(gates.items(), COLOURS, strict=False):
        counts = torch.histogram(sample.detach().flatten().float().cpu(), edges).hist
        ax.stairs(100 * counts / counts.sum(), edges.numpy(), color=colour, label=label, fill=len(gates) == 1)
    ax.set(xlabel="soft gate", ylabel="share of the draws, in %", xlim=(0, 1), ylim=(0, None))
    if len(gates) > 1:
        ax.legend(frameon=False)
    return ax


def gradient_noise(
    taus: Sequence[float], means: Sequence[float], spreads: Sequence[float], truth: float, ax: Axes
) -> Axes:
    """Draw a gradient that is sampled against the temperature: its mean, one spread around it, the truth."""
    mean, spread = torch.tensor(means), torch.tensor(spreads)
    ax.fill_between(taus, mean - spread, mean + spread, color=SKY, alpha=0.35, linewidth=0, label="spread")
    ax.plot(taus, means, "o-", color=BLUE, markersize=4, label="mean")
    ax.axhline(truth, color="black", linestyle="--", linewidth=1, label="truth")
    ax.set(xlabel="temperature tau", ylabel="gradient by l", xscale="log")
    ax.legend(frameon=False, fontsize=8)
    return ax


def chance_histogram(counts: Tensor, ax: Axes) -> Axes:
    """Draw how many gates have which probability of being open, from counts in equal bins of 0..1."""
    edges = torch.linspace(0, 1, len(counts) + 1)
    ax.stairs(counts.cpu().numpy(), edges.numpy(), fill=True, color=BLUE)
    ax.set(xlabel="P(open)", ylabel="number of gates", xlim=(0, 1), yscale="log", ylim=(0.5, None))
    return ax


def chances_through(epochs: Sequence[float], counts: Tensor, ax: Axes) -> Axes:
    """Draw how many gates have which probability of being open: counts (epochs, bins of 0..1).

    Each column of the picture ends at its epoch, and begins where the one before ends.
    """
    across = torch.linspace(0, 1, counts.shape[1] + 1)
    ends = torch.tensor([0, *epochs], dtype=torch.float)
    shown = counts.T.cpu().double().masked_fill(counts.T.cpu() == 0, torch.nan)  # none is white
    norm = LogNorm(1, max(10, int(counts.max())))
    mesh = ax.pcolormesh(ends.numpy(), across.numpy(), shown.numpy(), cmap="viridis", norm=norm)
    ax.figure.colorbar(mesh, ax=ax, label="number of gates")
    ax.set(xlabel="epoch", ylabel="P(open)", ylim=(0, 1))
    return ax


def frontier(rows: DataFrame, ax: Axes, x: str = "kept") -> Axes:
    """Draw test accuracy against how many weights are kept, on a logarithmic axis, for each method.

    A point is the mean over the seeds, a bar goes from the worst to the best. `rows` has the columns method,
    seed, count, `x` and test_accuracy (0..1, shown in percent); rows of one count make a point.
    """
    for (method, group), colour in zip(rows.groupby("method", sort=False), COLOURS, strict=False):
        points = group.groupby("count").agg({x: "mean", "test_accuracy": ["mean", "min", "max"]})
        low, middle, high = (100 * points["test_accuracy", part] for part in ("min", "mean", "max"))
        ax.errorbar(
            points[x, "mean"], middle, yerr=[(middle - low).tolist(), (high - middle).tolist()],
            fmt="o-", color=colour, label=method, capsize=3, markersize=5,
        )  # fmt: skip
    ax.set(xlabel="weights kept", ylabel="test accuracy in %", xscale="log")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=8)
    return ax


def error_curves(rows: DataFrame, ax: Axes, x: str = "density", label: str = "weights kept, in %") -> Axes:
    """Draw test error against a share or, for several numbers of epochs, a cost, both logarithmic.

    A point is the mean over the seeds, a band goes from the best to the worst. `rows` has the columns method,
    seed, test_accuracy (0..1, shown as errors in percent) and `x`; a share 0..1 called density is shown in
    percent. At most seven methods can be told apart.
    """
    for (method, group), colour, marker in zip(
        rows.groupby("method", sort=False), COLOURS, MARKERS, strict=False
    ):
        scale = 100 if x == "density" else 1
        keys = [x] if x == "density" else ["epochs"]  # seeds differ a little in what they cost
        errors = group.assign(x=scale * group[x], error=100 * (1 - group["test_accuracy"])).groupby(keys)
        places, error = errors["x"].mean(), errors["error"]
        ax.plot(places, error.mean(), marker=marker, color=colour, label=method, markersize=5, linewidth=1.4)
        ax.fill_between(places, error.min(), error.max(), color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel=label, ylabel="test error in %", xscale="log", yscale="log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=8)
    return ax


def frontier_of(
    short: DataFrame, long: DataFrame, published: DataFrame, methods: Sequence[str], ax: Axes
) -> Axes:
    """Draw the error curves of methods at one budget, what more time reaches, and what others published.

    `short` is as for `error_curves`. `long` is the table of Gumbel runs, of which those with exchange are
    drawn as stars. `published` has the columns kept and error, both in percent.
    """
    order = {name: place for place, name in enumerate(methods)}
    chosen = short[short["method"].isin(methods)]
    error_curves(chosen.sort_values("method", key=lambda names: names.map(order)), ax)
    stars = long[long["method"] == "gumbel, then exchange"].groupby("count").mean(numeric_only=True)
    errors = 100 * (1 - stars["test_accuracy"])
    most = int((stars["epochs"] + stars["fine_tune"]).max())
    label = f"gumbel, then exchange, up to {most} epochs"
    ax.plot(100 * stars["density"], errors, "*--", color="black", markersize=9, linewidth=1, label=label)
    ax.plot(published["kept"], published["error"], "x", color="black", label="published", zorder=5)
    ax.legend(frameon=False, fontsize=8)
    return ax


def ranking(rows: DataFrame, ax: Axes) -> Axes:
    """Draw a line of methods from the best to the worst: mean test accuracy, from the worst seed to the best.

    `rows` has the columns method and test_accuracy (0..1, shown in percent).
    """
    found = 100 * rows.groupby("method")["test_accuracy"].agg(["mean", "min", "max"]).sort_values("mean")
    places, mean = range(len(found)), found["mean"]
    ax.hlines(places, found["min"], found["max"], color=SKY, linewidth=6, alpha=0.6)
    ax.plot(mean, places, "o", color=BLUE, markersize=5)
    for place, value in zip(places, mean, strict=True):
        ax.annotate(f"{value:.1f}", (101.5, place), fontsize=8, va="center", annotation_clip=False)
    ax.set(yticks=list(places), yticklabels=list(found.index), xlabel="test accuracy in %", xlim=(0, 101))
    ax.grid(alpha=0.3, axis="x")
    return ax


def effective_share(rows: DataFrame, ax: Axes) -> Axes:
    """Draw how many of the weights kept lie on a path from input to output, in percent; a dot for each row.

    `rows` has the columns method, density and effective_density (0..1); the axis of density is logarithmic.
    """
    for (method, group), colour in zip(rows.groupby("method", sort=False), COLOURS, strict=False):
        on_path = 100 * group["effective_density"] / group["density"]
        ax.plot(100 * group["density"], on_path, "o", color=colour, alpha=0.6, label=method)
    ax.set(xlabel="kept, in %", ylabel="of these on a path, in %", xscale="log", ylim=(0, 103))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=8)
    return ax


def pathway_drawing(
    weights: Sequence[Tensor],
    order: Sequence[Tensor],
    ax: Axes,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    focus: Sequence[Tensor] | None = None,
) -> Axes:
    """Draw a small network from left to right: a dot for each unit, a line for each weight that is not 0.

    Red is positive, blue is negative; wide and dark is large, compared to the largest of its layer. Hidden
    units without a weight are counted, not drawn; inputs and outputs without one are hollow.

    Args:
        weights: (units, inputs) of each layer.
        order: of the units of each layer from top to bottom, inputs first; `order_units` makes one.
        ax: to draw on.
        inputs: names of the inputs, by their index; none by default.
        outputs: names of the outputs.
        focus: weights to colour, as `weights`; the others are grey. None colours them all.
    """
    used = _used(weights)
    shown = [torch.ones_like(used[0]), *used[1:-1], torch.ones_like(used[-1])]
    places = [_column(0.45 * layer, *each) for layer, each in enumerate(zip(order, shown, strict=True))]
    _draw_edges(weights, places, ax, 3.0, focus)
    _draw_units(places, used, _used(focus or weights), ax, 36)
    _name_units(places[0], inputs, ax, -1)
    _finish(ax, places, used, outputs)
    return ax


def image_pathways(
    weights: Sequence[Tensor],
    order: Sequence[Tensor],
    ax: Axes,
    outputs: Sequence[str] = (),
    picture: Tensor | None = None,
    focus: Sequence[Tensor] | None = None,
) -> Axes:
    """Draw a network that reads square images: pixels at their places, then units as `pathway_drawing` does.

    Only pixels and hidden units with a weight are drawn; below stands how many these are.

    Args:
        weights: (units, inputs) of each layer, with side * side inputs in the first.
        order: of the units of each layer from top to bottom, inputs first; that of the inputs is not used.
        ax: to draw on.
        outputs: names of the outputs, by their index.
        picture: (side * side,) shown in grey behind the pixels, such as the mean image; None for none.
        focus: weights to colour, as `weights`; the others are grey. None colours them all.

    Raises:
        ValueError: the inputs make no square image.
    """
    used, count = _used(weights), weights[0].shape[1]
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(f"weights must read square images, got {count} inputs")
    pixels = torch.arange(count)
    image = torch.stack([(pixels % side + 0.5) / side, 1 - (pixels // side + 0.5) / side], 1)
    image = 0.8 * image + torch.tensor([-1.05, 0.1])
    shown = [*used[1:-1], torch.ones_like(used[-1])]
    columns = [_column(0.32 * layer, *each) for layer, each in enumerate(zip(order[1:], shown, strict=True))]
    places = [image.where(used[0][:, None], torch.nan), *columns]
    grey = torch.zeros(count) if picture is None else picture.detach().flatten().float().cpu()
    ax.imshow(
        grey.reshape(side, side).numpy(), cmap="gray_r", vmin=0, vmax=2.5 * max(float(grey.max()), 1e-9),
        extent=(-1.05, -0.25, 0.1, 0.9),
    )  # fmt: skip
    ax.add_patch(Rectangle((-1.05, 0.1), 0.8, 0.8, fill=False, edgecolor=GREY, linewidth=0.8))
    _draw_edges(weights, places, ax, 1.8, focus)
    bold = _used(focus or weights)
    _draw_units(places[:1], used[:1], bold[:1], ax, 6, "s")
    _draw_units(places[1:], used[1:], bold[1:], ax, 12)
    _finish(ax, places, used, outputs)
    ax.set(aspect="equal", ylim=(-0.17, 1.02))
    return ax


def _used(weights: Sequence[Tensor]) -> list[Tensor]:
    """Which units of each layer have a weight that is not 0, inputs first."""
    links = [weight.detach().cpu() != 0 for weight in weights]
    middle = [before.any(1) | after.any(0) for before, after in pairwise(links)]
    return [links[0].any(0), *middle, links[-1].any(1)]


def _column(x: float, order: Tensor, shown: Tensor) -> Tensor:
    """Places (units, 2) of the units shown, from y = 1 down to 0 in this order; NaN for the others."""
    places = torch.full((len(order), 2), torch.nan)
    units = order[shown[order]]
    places[units, 0] = x
    places[units, 1] = 1 - (torch.arange(len(units)) + 0.5) / max(len(units), 1)
    return places


def _draw_edges(
    weights: Sequence[Tensor],
    places: Sequence[Tensor],
    ax: Axes,
    widest: float,
    focus: Sequence[Tensor] | None,
) -> None:
    """Draw a line for each weight that is not 0: grey ones first, then from weak to strong."""
    for weight, colour, (left, right) in zip(weights, focus or weights, pairwise(places), strict=True):
        values = weight.detach().cpu()
        above, below = values.nonzero().T
        share = values[above, below] / max(values.abs().amax().item(), 1e-30)
        grey = colour.detach().cpu()[above, below] == 0
        upwards = (share.abs() + (~grey)).argsort()
        above, below, share, grey = above[upwards], below[upwards], share[upwards], grey[upwards]
        # the middle of the map is white: even a weak weight starts where its colour can be told
        colours = colormaps["RdBu_r"](((share + 0.6 * share.sign()) / 3.2 + 0.5).numpy())
        colours[grey.numpy()] = to_rgba("#e4e4e4")
        widths = (widest * (0.25 + 0.75 * share.abs())).where(~grey, 0.25 * widest)
        lines = torch.stack([left[below], right[above]], 1).tolist()
        ax.add_collection(LineCollection(lines, colors=colours, linewidths=widths.tolist()))


def _draw_units(
    places: Sequence[Tensor], used: Sequence[Tensor], bold: Sequence[Tensor], ax: Axes, size: float,
    marker: str = "o",
) -> None:  # fmt: skip
    """Draw a mark for each unit that has a place: hollow where not used, grey and behind where not bold."""
    for place, full, black in zip(places, used, bold, strict=True):
        seen = ~place[:, 0].isnan()
        for shown, colour, zorder in ((seen & ~black, "#c8c8c8", 1), (seen & black, "black", 3)):
            x, y = place[shown].T.tolist()
            faces = [colour if each else "white" for each in full[shown].tolist()]
            ax.scatter(x, y, s=size, c=faces, edgecolors=colour, linewidths=0.8, marker=marker, zorder=zorder)


def _name_units(places: Tensor, names: Sequence[str], ax: Axes, side: int) -> None:
    """Write the names of units beside them: on the left for side -1, on the right for 1."""
    for (x, y), name in zip(places.tolist(), names, strict=False):
        ax.annotate(
            name, (x, y), (8 * side, 0), textcoords="offset points", va="center",
            ha="left" if side > 0 else "right",
        )  # fmt: skip


def _finish(ax: Axes, places: Sequence[Tensor], used: Sequence[Tensor], outputs: Sequence[str]) -> None:
    """Name the outputs, say how many units of each layer are used, and what the colours mean."""
    _name_units(places[-1], outputs, ax, 1)
    for place, each in zip(places, used, strict=True):
        ends = place[~place[:, 0].isnan(), 0]
        middle = (ends.min() + ends.max()).item() / 2 if len(ends) else 0.0
        ax.text(middle, -0.03, f"{int(each.sum())} of {len(each)}", ha="center", va="top", fontsize=8)
    lines = [Line2D([], [], color=colour, linewidth=2) for colour in colormaps["RdBu_r"]([0.85, 0.15])]
    ax.legend(lines, ["positive", "negative"], frameon=False, fontsize=9, ncols=2, loc="lower center")
    ax.set_axis_off()
    ax.set_ylim(-0.25, 1.02)
    ax.autoscale_view(scaley=False)


def importance_maps(
    importance: Tensor, axes: Sequence[Axes], names: Sequence[str] = (), side: int = 28
) -> Sequence[Axes]:
    """Show each row of (outputs, side * side) as an image, all on one scale, the palest for 0.

    With negative values the scale is symmetric, blue below 0 and red above.
    """
    values = importance.detach().cpu()
    signed = bool((values < 0).any())
    limit = values.abs().amax().item() or 1.0
    for index, (ax, row) in enumerate(zip(axes, values.numpy(), strict=False)):
        low, cmap = (-limit, "RdBu_r") if signed else (0.0, "Blues")
        ax.imshow(row.reshape(side, side), cmap=cmap, vmin=low, vmax=limit)
        ax.set(xticks=[], yticks=[], title=names[index] if names else "")
        for spine in ax.spines.values():
            spine.set(visible=True, color="#bbbbbb")
    return axes


def symmetry_matrix(matrix: Tensor, ax: Axes, names: Sequence[str] = ()) -> Axes:
    """Draw cosines between inputs, -1 in blue to 1 in red; up to ten inputs carry their values."""
    values = matrix.detach().cpu()
    picture = ax.imshow(values.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    ax.figure.colorbar(picture, ax=ax, label="cosine", shrink=0.85)
    if names:
        ax.set_xticks(range(len(names)), names)
        ax.set_yticks(range(len(names)), names)
    if len(values) <= 10:
        for row, column in torch.cartesian_prod(*map(torch.arange, values.shape)).tolist():
            value = values[row, column].item()
            colour = "white" if abs(value) > 0.6 else "black"
            ax.text(column, row, f"{value + 0:.2f}", ha="center", va="center", color=colour, fontsize=9)
    return ax


def removal_curves(
    counts: Sequence[int], accuracies: Mapping[str, Sequence[Sequence[float]]], ax: Axes
) -> Axes:
    """Draw accuracy (0..1, shown in percent) against how many pixels are removed; one line per order.

    Each order has a row of accuracies for each seed: the line is their mean, the band from worst to best.
    """
    for (label, rows), colour in zip(accuracies.items(), COLOURS, strict=False):
        percent = 100 * torch.tensor(rows, dtype=torch.float64)
        ax.plot(counts, percent.mean(0), "o-", color=colour, label=label)
        ax.fill_between(counts, percent.amin(0), percent.amax(0), color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel="pixels removed", ylabel="accuracy in %", ylim=(0, 102))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax


def wiring(
    layers: Sequence[Wires],
    classes: Sequence[str],
    ax: Axes,
    values: Sequence[Tensor] | None = None,
    image: Tensor | None = None,
    best: int | None = None,
    widest: float = 3.0,
) -> Axes:
    """Draw a network that reads 28 x 28 images: each weight a curve, from its pixel on towards the classes.

    Red is above 0 and blue below; the width says how far, compared with the largest of the layer. Curves of
    value 0 are thin and grey.

    Args:
        layers: as `wires.wires` lists them.
        classes: a name for each output.
        ax: where to draw; its units are pixels.
        values: what the wires of each layer carry, of shape (wires,); the weights if None.
        image: grey values 0..1, of shape (784,), drawn behind the wires, dark on white.
        best: the output to print in bold.
        widest: width of the strongest wires, in points.
    """
    pixels = torch.arange(784)
    places = [torch.stack([pixels % 28 + 0.5, pixels // 28 + 0.5], dim=1)]
    for depth, layer in enumerate(layers, start=1):
        rows = (torch.arange(len(layer.bias)) + 0.5) * 28 / len(layer.bias)
        places.append(torch.stack([torch.full_like(rows, 28 + 12 * depth), rows], dim=1))
    if image is not None:
        ax.imshow(image.reshape(28, 28).numpy(), cmap="gray_r", vmin=0, vmax=1.6, extent=(0, 28, 28, 0))
    ax.add_patch(Rectangle((0, 0), 28, 28, fill=False, edgecolor="0.7", linewidth=widest / 4))
    seen = layers[0].source.unique()
    corners = torch.tensor([[-0.3, -0.3], [-0.3, 0.3], [0.3, 0.3], [0.3, -0.3]])
    greys = ["white" if image is None else str(1 - float(image[i])) for i in seen]
    squares = (places[0][seen, None] + corners).tolist()
    # above the wires: where the network looks is what the picture is about
    ax.add_collection(
        PolyCollection(squares, facecolors=greys, edgecolors="0.4", linewidths=widest / 6, zorder=3)
    )
    for depth, layer in enumerate(layers):
        value = layer.value if values is None else values[depth]
        ax.add_collection(_curves(places[depth][layer.source], places[depth + 1][layer.unit], value, widest))
        x, y = places[depth + 1].T.tolist()
        ax.scatter(x, y, s=6 * widest, c="white", edgecolors="0.4", linewidths=widest / 5, zorder=3)
    for i, (name, (right, middle)) in enumerate(zip(classes, places[-1].tolist(), strict=True)):
        weight = "bold" if i == best else "normal"
        ax.text(right + 1.2, middle, name, va="center", fontsize=3 * widest + 4, fontweight=weight)
    ax.set(xlim=(-0.5, 32 + 12 * len(layers)), ylim=(28.5, -0.5), aspect="equal")
    ax.set_axis_off()
    return ax


def _curves(start: Tensor, end: Tensor, value: Tensor, widest: float) -> PathCollection:
    """Make one Bezier curve for each pair of points (n, 2), level at both ends; the strongest on top."""
    strength = value.abs() / max([1e-12, *value.abs().tolist()])
    order = strength.argsort()
    middle = (start[:, 0] + end[:, 0]) / 2
    bends = [start, torch.stack([middle, start[:, 1]], 1), torch.stack([middle, end[:, 1]], 1), end]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3]
    colours = [RED if v > 0 else BLUE if v < 0 else "0.85" for v in value[order].tolist()]
    return PathCollection(
        [Path(points, codes) for points in torch.stack(bends, 1)[order].numpy()],
        facecolors="none",
        edgecolors=colours,
        linewidths=(widest * (0.08 + 0.92 * strength[order])).tolist(),
        zorder=2,
    )


def poster(
    layers: Sequence[Wires],
    classes: Sequence[str],
    images: Tensor,
    lit: Sequence[Sequence[Tensor]],
    title: str,
    line: str,
) -> Figure:
    """Draw a network on A3: all its weights, and below them what each image lights up.

    Args:
        layers: as `wires.wires` lists them.
        classes: a name for each output.
        images: one for each class, grey values 0..1, of shape (classes, 784).
        lit: for each image what the wires of each layer carry, as `wires.flows` returns it.
        title: above all.
        line: below the title.
    """
    fig = Figure(figsize=(16.54, 11.69), facecolor="white")
    fig.text(0.04, 0.945, title, fontsize=32, fontweight="bold", va="center")
    fig.text(0.04, 0.905, line, fontsize=15, color="0.3", va="center")
    wiring(layers, classes, fig.add_axes((0.04, 0.325, 0.92, 0.56)))
    columns = -(-len(classes) // 2)
    width = 0.92 / columns
    for i, (image, carried) in enumerate(zip(images, lit, strict=True)):
        ax = fig.add_axes((0.04 + i % columns * width, 0.175 - i // columns * 0.135, 0.97 * width, 0.12))
        scores = layers[-1].bias.index_add(0, layers[-1].unit, carried[-1])
        wiring(layers, classes, ax, carried, image, int(scores.argmax()), widest=1.2)
    note = (
        "Above: the weights. Below: weight times activation for one image of each class, the answer in bold. "
        "Red is above 0, blue below, grey carries nothing."
    )
    fig.text(0.04, 0.015, note, fontsize=11, color="0.3")
    return fig


def storage_forms(weight: Tensor, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw what is stored of a small matrix as dense, as CSR and as a bit-mask: a cell for each number.

    Weights are blue, zeros and what says where the weights are stand in white cells.
    """
    values = weight.detach().cpu()
    stored = values[values != 0].tolist()
    starts = [0, *(values != 0).sum(1).cumsum(0).tolist()]
    columns = (values != 0).nonzero()[:, 1].tolist()
    bits = (values != 0).flatten().int().tolist()
    forms = {
        "dense": [("", row) for row in values.tolist()],
        "CSR": [("values", stored), ("columns", columns), ("starts", starts)],
        "bit-mask": [("values", stored), ("bits", bits[: len(bits) // 2]), ("", bits[len(bits) // 2 :])],
    }
    for ax, (title, rows) in zip(axes, forms.items(), strict=True):
        for place, (name, numbers) in enumerate(rows):
            size = 0.5 if title == "bit-mask" and set(numbers) <= {0, 1} else 1.0
            blue = title == "dense" or name == "values"
            _cells(numbers, name, 1.3 * place, size, blue, ax)
        ax.set(title=title, xlim=(-2.1, 6.2), ylim=(5.2, -0.2), aspect="equal")
        ax.set_axis_off()
    return axes


def _cells(numbers: Sequence[float], name: str, y: float, size: float, blue: bool, ax: Axes) -> None:
    """Draw numbers side by side, each in a square, and their name on the left."""
    ax.text(-0.2, y + 0.5, name, ha="right", va="center", fontsize=8)
    for i, number in enumerate(numbers):
        full = blue and number != 0
        corner = (i * size, y + (1 - size) / 2)
        ax.add_patch(Rectangle(corner, size, size, facecolor=SKY if full else "white", edgecolor=GREY))
        colour = "black" if full or not blue else GREY
        ax.text((i + 0.5) * size, y + 0.5, f"{number:g}", ha="center", va="center", fontsize=8 * size + 1,
                color=colour)  # fmt: skip


def speed_curves(rows: DataFrame, ax: Axes, even: float | None = None) -> Axes:
    """Draw how many times faster than dense each form is, against the share of the weights that are left.

    Args:
        rows: of the table of latencies, for one batch size and number of threads.
        ax: to draw on; both axes are logarithmic, all weights on the left.
        even: percent of zeros at which CSR is as fast as dense, marked where given.
    """
    total = rows.loc[rows["form"] == "dense", "weights"].iloc[0]
    looks = {
        "zeros": ("zeros", GREY, "s"),
        "csr": ("zeros left out: CSR", BLUE, "o"),
        "shrunk": ("units removed", GREEN, "D"),
    }
    for form, (label, colour, marker) in looks.items():
        each = rows[rows["form"] == form].sort_values("weights")
        ax.plot(100 * each["weights"] / total, each["faster"], marker + "-", color=colour, label=label)
    ax.axhline(1, color="black", linewidth=1, linestyle="--")
    if even is not None:
        ax.axvline(100 - even, color=ORANGE, linewidth=1.2)
        ax.annotate(f"{even:.0f} % zeros", (100 - even, 32), (4, 0), textcoords="offset points", fontsize=8)
    ticks = (50, 20, 10, 5, 2, 1, 0.5)
    ax.set(xlabel="weights left, in %", ylabel="times as fast as dense", xscale="log", yscale="log")
    ax.set(xlim=(60, 0.4), ylim=(0.25, 40), xticks=ticks, yticks=(0.5, 1, 2, 5, 10, 20))
    ax.set_xticklabels([f"{tick:g}" for tick in ticks])
    ax.set_yticklabels(["0.5", "1", "2", "5", "10", "20"])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return ax


def size_bars(sizes: Mapping[str, float], ax: Axes, largest: float | None = None) -> Axes:
    """Draw a bar for each size in bytes, in MB, with its share of the first; the axis ends past `largest`."""
    first = next(iter(sizes.values()))
    ax.barh(list(sizes), [size / 1e6 for size in sizes.values()], color=BLUE)
    for place, size in enumerate(sizes.values()):
        ax.text(size / 1e6, place, f" {size / first:.0%}", va="center", fontsize=9)
    ax.invert_yaxis()
    ax.set(xlabel="MB", xlim=(0, 1.18 * (largest or max(sizes.values())) / 1e6))
    return ax
