"""Figures of images, weights, thresholds, masks and gates.

Chapter: book/weights.ipynb
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from torch import Tensor

from prunebook.book.plots.style import BLUE, COLOURS, COUNT, GREY, ORANGE, SIGNED, SIZE, SKY, counts, mark


def show_images(images: Tensor, titles: Iterable[str], axes: Sequence[Axes]) -> Sequence[Axes]:
    """Show images (n, 1, h, w), ink dark on white, one on each of the axes, under its title."""
    for ax, image, title in zip(axes, images.cpu().numpy(), titles, strict=False):
        ax.imshow(image[0], cmap="gray_r")
        ax.set_title(title, fontsize=9)
        ax.set_axis_off()
    return axes


def show_weights(weights: Tensor, axes: Sequence[Axes], side: int = 28) -> Sequence[Axes]:
    """Show the incoming weights (n, side * side) of n units as images: blue below 0, orange-red above."""
    limit = weights.detach().abs().amax().item() / 2  # the strongest saturate, so that the others can be seen
    for ax, unit in zip(axes, weights.detach().cpu().numpy(), strict=False):
        ax.imshow(unit.reshape(side, side), cmap=SIGNED, vmin=-limit, vmax=limit)
        ax.set_axis_off()
    return axes


def weight_histogram(weights: Tensor, ax: Axes, threshold: float = 0.0, bins: int = 120) -> Axes:
    """Draw how many weights have each value, in grey if the absolute value is below the threshold."""
    return kept_histogram(weights, weights.detach().abs() >= threshold, ax, bins)


def kept_histogram(weights: Tensor, kept: Tensor, ax: Axes, bins: int = 100) -> Axes:
    """Draw how many weights have each value: blue if kept, and stacked on top, grey if pruned."""
    values, kept, edges = weights.detach().flatten().cpu(), kept.flatten().cpu(), _edges(weights, bins)
    # one artist for each colour: two hundred bars would take ten times as long to draw
    ax.stairs(counts(values, edges).numpy(), edges.numpy(), fill=True, color=GREY, label="pruned")
    ax.stairs(counts(values[kept], edges).numpy(), edges.numpy(), fill=True, color=BLUE, label="kept")
    return _label_histogram(ax)


def masked_histogram(weights: Tensor, masked: Tensor, ax: Axes, bins: int = 100) -> Axes:
    """Draw how many weights have each value, in grey, and how many have it after masking, as a blue line."""
    edges = _edges(weights, bins)
    ax.stairs(counts(weights, edges).numpy(), edges.numpy(), fill=True, color=GREY, alpha=0.6, label="w")
    ax.stairs(counts(masked, edges).numpy(), edges.numpy(), color=BLUE, linewidth=1.4, label="m(w) w")
    return _label_histogram(ax)


def _edges(weights: Tensor, bins: int) -> Tensor:
    values = weights.detach().float()
    return torch.linspace(values.min().item(), values.max().item(), bins + 1)


def _label_histogram(ax: Axes) -> Axes:
    ax.set(xlabel="weight", ylabel="number of weights", yscale="log", ylim=(0.5, None))
    ax.legend(frameon=False, fontsize=8, loc="upper right")
    return ax


def kept_per_pixel(mask: Tensor, ax: Axes, side: int = 28, most: int | None = None) -> Axes:
    """Show how many weights of each pixel are kept by the mask (units, side * side) of a first layer.

    With `most`, colours are on a logarithmic scale that ends there, and pixels without a weight have none.
    """
    kept = mask.sum(0).reshape(side, side).cpu().numpy()
    linear = {"vmin": 0, "vmax": max(1, kept.max()), "cmap": SIZE}
    picture = ax.imshow(kept, **(linear if most is None else {"norm": LogNorm(0.8, most), "cmap": COUNT}))
    ax.figure.colorbar(picture, ax=ax, label="kept weights of a pixel", shrink=0.85)
    ax.set_axis_off()
    return ax


def layer_bars(shares: Mapping[str, float], ax: Axes) -> Axes:
    """Draw a bar for the share (0..1, shown in percent) that each layer keeps."""
    ax.barh(list(shares), [100 * share for share in shares.values()], color=BLUE)
    ax.invert_yaxis()  # the first layer on top
    ax.set(xlabel="weights kept, in %", ylabel="layer", xlim=(0, 100))
    return ax


def mask_curve(
    weights: Tensor, mask: Tensor, ax: Axes, threshold: float, label: str | None = None, colour: str = BLUE
) -> Axes:
    """Draw a mask (0..1) against its sorted weights, with the threshold marked on both sides of 0."""
    ax.plot(weights.detach().cpu(), mask.detach().cpu(), color=colour, label=label)
    for side in (-threshold, threshold):
        ax.axvline(side, color=GREY, linestyle="--", linewidth=1)
    ax.set(xlabel="weight w", ylabel="mask m(w)", ylim=(-0.03, 1.03))
    return ax


def weight_moves(before: Tensor, after: Tensor, kept: Tensor, ax: Axes, threshold: float) -> Axes:
    """Draw the size of each weight after training against its size before.

    A weight that is not kept at the end is grey. A kept one is blue if it was above the threshold before
    training, and orange if it was below.
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
    ax.set(xlabel="size of the weight before training", ylabel="size after training")
    return ax


def cumulative(thresholds: Tensor, shares: Tensor, ax: Axes, t: float, r: float) -> Axes:
    """Draw the share of the scores below each threshold, and dashed lines that lead from r to t."""
    ax.plot(thresholds, shares, color=BLUE)
    ax.plot([0, t, t], [r, r, 0], "--", color=GREY, linewidth=1)
    mark(ax, t, r, 6)
    ax.set(xlabel="threshold t", ylabel="share of the scores below t", xlim=(0, None), ylim=(0, 1.02))
    return ax


def density_at(
    points: Tensor, density: Tensor, ax: Axes, t: float | None = None, f: float | None = None
) -> Axes:
    """Draw the density of absolute values; with t and f, grey the area below t and mark the point (t, f)."""
    x, y = points.cpu().numpy(), density.cpu().numpy()
    ax.plot(x, y, color=BLUE)
    if t is not None:
        below = x <= t
        ax.fill_between(x[below], y[below], color=GREY, alpha=0.4, linewidth=0)
        ax.axvline(t, linestyle="--", color=GREY, linewidth=1)
    if t is not None and f is not None:
        mark(ax, t, f, 6)
    ax.set(xlabel="absolute value", ylabel="density f", xlim=(0, None), ylim=(0, None))
    return ax


def quantile_tangent(thresholds: Tensor, shares: Tensor, ax: Axes, r: float, t: float, slope: float) -> Axes:
    """Draw the quantile t(r), and its tangent: the line through (r, t) with the given slope."""
    ax.plot(shares, thresholds, color=BLUE)
    ax.plot([0, 1], [t - slope * r, t + slope * (1 - r)], color=ORANGE, linewidth=1.2)
    mark(ax, r, t, 6)
    ax.set(
        xlabel="share pruned, r",
        ylabel="threshold t(r)",
        xlim=(0, 1.02),
        ylim=(0, 1.02 * float(thresholds[-1])),
    )
    return ax


def gate_histogram(gates: Mapping[str, Tensor], ax: Axes, bins: int = 25) -> Axes:
    """Draw the share of each sample of gates (0..1) in each bin: one filled, or up to three as lines."""
    edges = torch.linspace(0, 1, bins + 1)
    for (label, sample), colour, dash in zip(gates.items(), COLOURS, ("-", "--", ":"), strict=False):
        found = counts(sample, edges)
        looks = {"fill": True} if len(gates) == 1 else {"linestyle": dash, "linewidth": 1.6}
        ax.stairs(100 * found / found.sum(), edges.numpy(), color=colour, label=label, **looks)
    ax.set(
        xlabel="soft gate, from closed (0) to open (1)",
        ylabel="share of the draws, in %",
        xlim=(0, 1),
        ylim=(0, None),
    )
    if len(gates) > 1:
        ax.legend(frameon=False)
    return ax


def gradient_noise(
    taus: Sequence[float], means: Sequence[float], spreads: Sequence[float], truth: float, ax: Axes
) -> Axes:
    """Draw a sampled gradient against the temperature: mean, mean +- spread, and the true value."""
    mean, spread = torch.tensor(means), torch.tensor(spreads)
    ax.fill_between(taus, mean - spread, mean + spread, color=SKY, alpha=0.35, linewidth=0, label="spread")
    ax.plot(taus, means, "o-", color=BLUE, markersize=4, label="mean")
    ax.axhline(truth, color="black", linestyle="--", linewidth=1, label="truth")
    ax.set(xlabel="temperature tau", ylabel="gradient by the logit", xscale="log")
    ax.legend(frameon=False, fontsize=8)
    return ax


def chance_histogram(gates: Tensor, ax: Axes) -> Axes:
    """Draw how many gates have each probability of being open; `gates` are counts in equal bins of 0..1."""
    edges = torch.linspace(0, 1, len(gates) + 1)
    ax.stairs(gates.cpu().numpy(), edges.numpy(), fill=True, color=BLUE)
    ax.set(
        xlabel="chance of being open", ylabel="number of gates", xlim=(0, 1), yscale="log", ylim=(0.5, None)
    )
    return ax


def chances_through(epochs: Sequence[float], gates: Tensor, ax: Axes) -> Axes:
    """Show how many gates have each probability of being open, over the epochs.

    `gates` holds counts (epochs, equal bins of 0..1). Each column of the picture ends at its epoch and begins
    where the previous one ends.
    """
    across = torch.linspace(0, 1, gates.shape[1] + 1)
    ends = torch.tensor([0, *epochs], dtype=torch.float)
    shown = gates.T.cpu().double().masked_fill(gates.T.cpu() == 0, torch.nan)  # an empty bin is white
    norm = LogNorm(1, max(10, int(gates.max())))
    mesh = ax.pcolormesh(ends.numpy(), across.numpy(), shown.numpy(), cmap=COUNT, norm=norm)
    ax.figure.colorbar(mesh, ax=ax, label="number of gates")
    ax.set(xlabel="epoch", ylabel="chance of being open", ylim=(0, 1))
    return ax
