"""Figures: data in, Axes out. The only file that draws.

Colours are Okabe and Ito's, which stay apart for colour-blind readers. No function sets global state.

Chapter: book/dense.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame
from torch import Tensor

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
