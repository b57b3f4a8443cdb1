"""Networks as pictures: dots and lines, wires from the pixels, and how much each input matters.

Chapter: book/pathways.ipynb
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.path import Path
from torch import Tensor

from prunebook.book.plots.style import BLUE, GREY, RED, SIGNED, SIZE
from prunebook.book.wires import Wires


def pathway_drawing(
    weights: Sequence[Tensor],
    order: Sequence[Tensor],
    ax: Axes,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    focus: Sequence[Tensor] | None = None,
) -> Axes:
    """Draw a small network from left to right: a dot for each unit, a line for each weight that is not 0.

    Orange-red lines are above 0 and blue ones below. The wider and darker a line, the larger its weight
    compared with the largest of the layer. Hidden units without a weight are not drawn, only counted; inputs
    and outputs without one are hollow.

    Args:
        weights: (units, inputs) of each layer.
        order: The units of each layer from top to bottom, inputs first; `order_units` makes one.
        ax: Where to draw.
        inputs: Names of the inputs, by their index; none by default.
        outputs: Names of the outputs.
        focus: The weights to colour, of the same shapes as `weights`; the others are grey. None colours all.
    """
    used = _used(weights)
    shown = [torch.ones_like(used[0]), *used[1:-1], torch.ones_like(used[-1])]
    places = [_column(0.45 * layer, *each) for layer, each in enumerate(zip(order, shown, strict=True))]
    _draw_edges(weights, places, ax, 3.0, focus)
    _draw_units(places, used, _used(focus or weights), ax, 36)
    _name_units(places[0], inputs, ax, -1)
    _describe(ax, places, used, outputs)
    return ax


def image_pathways(
    weights: Sequence[Tensor],
    order: Sequence[Tensor],
    ax: Axes,
    outputs: Sequence[str] = (),
    picture: Tensor | None = None,
    focus: Sequence[Tensor] | None = None,
) -> Axes:
    """Draw a network that reads square images: pixels in their places, then units as in `pathway_drawing`.

    Only pixels and hidden units with a weight are drawn; the numbers below each layer say how many.

    Args:
        weights: (units, inputs) of each layer, with side * side inputs in the first.
        order: The units of each layer from top to bottom, inputs first; that of the inputs is ignored.
        ax: Where to draw.
        outputs: Names of the outputs, by their index.
        picture: (side * side,), shown in grey behind the pixels, such as a mean image; None shows nothing.
        focus: The weights to colour, of the same shapes as `weights`; the others are grey. None colours all.

    Raises:
        ValueError: The inputs do not form a square image.
    """
    used, count = _used(weights), weights[0].shape[1]
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(f"weights must read square images, got {count} inputs")
    shown = [*used[1:-1], torch.ones_like(used[-1])]
    columns = [_column(0.32 * layer, *each) for layer, each in enumerate(zip(order[1:], shown, strict=True))]
    places = [_pixels(side).where(used[0][:, None], torch.nan), *columns]
    grey = torch.zeros(count) if picture is None else picture.detach().flatten().float().cpu()
    shade = ax.imshow(grey.reshape(side, side).numpy(), cmap="gray_r", extent=(-1.05, -0.25, 0.1, 0.9))
    shade.set_clim(0, 2.5 * max(float(grey.max()), 1e-9))
    ax.add_patch(Rectangle((-1.05, 0.1), 0.8, 0.8, fill=False, edgecolor=GREY, linewidth=0.8))
    _draw_edges(weights, places, ax, 1.8, focus)
    bold = _used(focus or weights)
    _draw_units(places[:1], used[:1], bold[:1], ax, 6, "s")
    _draw_units(places[1:], used[1:], bold[1:], ax, 12)
    _describe(ax, places, used, outputs)
    ax.set(aspect="equal", ylim=(-0.17, 1.02))
    return ax


def importance_maps(
    importance: Tensor, axes: Sequence[Axes], names: Sequence[str] = (), side: int = 28
) -> Sequence[Axes]:
    """Show each row of (outputs, side * side) as an image, all on one colour scale with 0 the palest.

    If there are negative values, the scale is symmetric: blue below 0 and orange-red above.
    """
    values = importance.detach().cpu()
    signed = bool((values < 0).any())
    limit = values.abs().amax().item() or 1.0
    for index, (ax, row) in enumerate(zip(axes, values.numpy(), strict=False)):
        low, cmap = (-limit, SIGNED) if signed else (0.0, SIZE)
        ax.imshow(row.reshape(side, side), cmap=cmap, vmin=low, vmax=limit)
        ax.set(xticks=[], yticks=[], title=names[index] if names else "")
        for spine in ax.spines.values():
            spine.set(visible=True, color="#bbbbbb")
    return axes


def symmetry_matrix(matrix: Tensor, ax: Axes, names: Sequence[str] = ()) -> Axes:
    """Draw cosines between inputs, from -1 in blue to 1 in orange-red; with at most ten, write the values."""
    values = matrix.detach().cpu()
    picture = ax.imshow(values.numpy(), cmap=SIGNED, vmin=-1, vmax=1)
    ax.figure.colorbar(picture, ax=ax, label="cosine", shrink=0.85)
    if names:
        ax.set_xticks(range(len(names)), names)
        ax.set_yticks(range(len(names)), names)
    if len(values) <= 10:
        for row, column in torch.cartesian_prod(*map(torch.arange, values.shape)).tolist():
            value = values[row, column].item()
            colour = "white" if value < -0.6 else "black"
            ax.text(column, row, f"{value + 0:.2f}", ha="center", va="center", color=colour, fontsize=9)
    return ax


def _used(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return which units of each layer have a weight that is not 0, inputs first."""
    links = [weight.detach().cpu() != 0 for weight in weights]
    middle = [before.any(1) | after.any(0) for before, after in pairwise(links)]
    return [links[0].any(0), *middle, links[-1].any(1)]


def _column(x: float, order: Tensor, shown: Tensor) -> Tensor:
    """Return places (units, 2): shown units in order from y = 1 down to 0, NaN for the others."""
    places = torch.full((len(order), 2), torch.nan)
    units = order[shown[order]]
    places[units, 0] = x
    places[units, 1] = 1 - (torch.arange(len(units)) + 0.5) / max(len(units), 1)
    return places


def _pixels(side: int) -> Tensor:
    """Return the places (side * side, 2) of pixels in a square on the left of the units, row by row."""
    pixels = torch.arange(side * side)
    image = torch.stack([(pixels % side + 0.5) / side, 1 - (pixels // side + 0.5) / side], 1)
    return 0.8 * image + torch.tensor([-1.05, 0.1])


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
        # the middle of the map is white, so even weak weights start some way from it
        colours = SIGNED(((share + 0.6 * share.sign()) / 3.2 + 0.5).numpy())
        colours[grey.numpy()] = to_rgba("#e4e4e4")
        widths = (widest * (0.25 + 0.75 * share.abs())).where(~grey, 0.25 * widest)
        lines = torch.stack([left[below], right[above]], 1).tolist()
        ax.add_collection(LineCollection(lines, colors=colours, linewidths=widths.tolist()))


def _draw_units(
    places: Sequence[Tensor],
    used: Sequence[Tensor],
    bold: Sequence[Tensor],
    ax: Axes,
    size: float,
    marker: str = "o",
) -> None:
    """Draw a mark for each unit that has a place: hollow if not `used`, grey and behind if not `bold`."""
    for place, full, black in zip(places, used, bold, strict=True):
        seen = ~place[:, 0].isnan()
        for shown, colour, zorder in ((seen & ~black, "#c8c8c8", 1), (seen & black, "black", 3)):
            x, y = place[shown].T.tolist()
            faces = [colour if each else "white" for each in full[shown].tolist()]
            ax.scatter(x, y, s=size, c=faces, edgecolors=colour, linewidths=0.8, marker=marker, zorder=zorder)


def _name_units(places: Tensor, names: Sequence[str], ax: Axes, side: int) -> None:
    """Write the names of units beside them: on the left for side -1, on the right for 1."""
    align = "left" if side > 0 else "right"
    for place, name in zip(places.tolist(), names, strict=False):
        ax.annotate(name, place, (8 * side, 0), textcoords="offset points", va="center", ha=align)


def _describe(ax: Axes, places: Sequence[Tensor], used: Sequence[Tensor], outputs: Sequence[str]) -> None:
    """Name the outputs, say how many units of each layer are used, and explain the colours."""
    _name_units(places[-1], outputs, ax, 1)
    for place, each in zip(places, used, strict=True):
        ends = place[~place[:, 0].isnan(), 0]
        middle = (ends.min() + ends.max()).item() / 2 if len(ends) else 0.0
        ax.text(middle, -0.03, f"{int(each.sum())} of {len(each)}", ha="center", va="top", fontsize=8)
    lines = [Line2D([], [], color=colour, linewidth=2) for colour in (RED, BLUE)]
    ax.legend(lines, ["above 0", "below 0"], frameon=False, fontsize=9, ncols=2, loc="lower center")
    ax.set_axis_off()
    ax.set_ylim(-0.25, 1.02)
    ax.autoscale_view(scaley=False)


def wiring(layers: Sequence[Wires], classes: Sequence[str], ax: Axes, widest: float = 3.0) -> Axes:
    """Draw a network that reads 28 x 28 images: each weight is a curve from left to right, pixels to classes.

    Orange-red is above 0 and blue below. The wider a curve, the larger its weight compared with the largest
    of the layer, which is `widest` points wide. `layers` is what `wires.wires` returns; one unit of the axes
    is a pixel.
    """
    pixels = torch.arange(784)
    places = [torch.stack([pixels % 28 + 0.5, pixels // 28 + 0.5], dim=1)]
    for depth, layer in enumerate(layers, start=1):
        rows = (torch.arange(len(layer.bias)) + 0.5) * 28 / len(layer.bias)
        places.append(torch.stack([torch.full_like(rows, 28 + 12 * depth), rows], dim=1))
    ax.add_patch(Rectangle((0, 0), 28, 28, fill=False, edgecolor="0.7", linewidth=widest / 4))
    corners = torch.tensor([[-0.3, -0.3], [-0.3, 0.3], [0.3, 0.3], [0.3, -0.3]])
    squares = (places[0][layers[0].source.unique(), None] + corners).tolist()
    # on top of the wires: the picture should show where the network looks
    seen = PolyCollection(squares, facecolors="white", edgecolors="0.4", linewidths=widest / 6)
    seen.set_zorder(3)
    ax.add_collection(seen)
    for layer, (left, right) in zip(layers, pairwise(places), strict=True):
        ax.add_collection(_curves(left[layer.source], right[layer.unit], layer.value, widest))
        x, y = right.T.tolist()
        ax.scatter(x, y, s=6 * widest, c="white", edgecolors="0.4", linewidths=widest / 5, zorder=3)
    for name, (x, y) in zip(classes, places[-1].tolist(), strict=True):
        ax.text(x + 1.2, y, name, va="center", fontsize=3 * widest + 4)
    ax.set(xlim=(-0.5, 32 + 12 * len(layers)), ylim=(28.5, -0.5), aspect="equal")
    ax.set_axis_off()
    return ax


def _curves(start: Tensor, end: Tensor, value: Tensor, widest: float) -> PathCollection:
    """Return a Bezier curve for each pair of points (n, 2), horizontal at both ends; the strongest on top."""
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
