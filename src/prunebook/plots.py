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
