"""A slider for the share r: the threshold that it sets, and the slope dt/dr by which r learns.

Chapter: book/density.ipynb
"""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from prunebook.book.plots.masks import cumulative, density_at, quantile_tangent
from prunebook.book.plots.style import GREY, even, figure, moving
from prunebook.book.widgets import FrameSlider
from prunebook.methods.quantile import GRID, fft_kde, quantile

RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
MARGINS = even(3, left=0.2, right=0.05, bottom=0.18, top=0.88)


def explore_ratio(scores: Tensor, ratios: Sequence[float] = RATIOS) -> FrameSlider:
    """Return a slider for the share r of the scores that lies below the threshold t(r).

    It shows three pictures of one threshold: the share of scores below it, the density of the scores
    there, and t(r) with its tangent, whose slope is one over that density.

    Args:
        scores: At least two, as for `quantile`, such as the absolute weights of a network.
        ratios: The stops of the slider, values of r in [0, 1].

    Raises:
        ValueError: As `quantile` does.
    """
    flat = scores.detach().flatten().float().cpu()
    points, density = fft_kde(flat, grid=GRID, bandwidth="silverman")
    ordered = flat.sort().values
    shares = torch.linspace(0, 0.999, 400)  # the end of the tail would squeeze the rest against the axis
    thresholds = ordered[(shares * (len(ordered) - 1)).long()]
    seen = points <= thresholds[-1]
    fig, axes = figure(columns=3, width=9, height=2.9, margins=MARGINS)
    cumulative(thresholds, shares, axes[0], 0, 0)
    density_at(points[seen], density[seen], axes[1], 0, 0)
    quantile_tangent(thresholds, shares, axes[2], 0, 0, 1)
    (_, dashes, share_dot), (_, line, density_dot), (_, tangent, dot) = (ax.lines for ax in axes)
    moving(dashes, share_dot, line, density_dot, tangent, dot, *(ax.title for ax in axes))

    def draw(ratio: float) -> tuple[Figure, str]:
        r = torch.tensor(ratio, requires_grad=True)
        t = quantile(flat, r)
        (slope,) = torch.autograd.grad(t, r)
        at, steep = float(t.detach()), float(slope)
        f = 1 / steep
        dashes.set_data([0, at, at], [ratio, ratio, 0])
        line.set_xdata([at, at])
        tangent.set_data([0, 1], [at - steep * ratio, at + steep * (1 - ratio)])
        for mark, x, y in ((share_dot, at, ratio), (density_dot, at, f), (dot, ratio, at)):
            mark.set_data([x], [y])
        for old in axes[1].collections:
            old.remove()
        below = points <= at
        under = points[below].numpy(), density[below].numpy()
        moving(axes[1].fill_between(*under, color=GREY, alpha=0.4, linewidth=0))
        titles = f"share below t: {ratio:g}", f"density at t: {f:.3g}", f"slope: 1 / {f:.3g} = {steep:.3g}"
        for ax, title in zip(axes, titles, strict=True):
            ax.set_title(title, fontsize=9)
        return fig, f"r = {ratio:g}: t = {at:.4f}, density f(t) = {f:.3g}, slope dt/dr = {steep:.3g}."

    span = (min(ratios), max(ratios), 0.001)
    start = len(ratios) // 2
    return FrameSlider(draw, ratios, label="r", words=_percent, start=start, span=span)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:g} % pruned"
