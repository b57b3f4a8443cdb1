"""What pruning gains: how a sparse matrix is stored, how large a network is, how fast it runs.

Chapter: book/what-you-gain.ipynb
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from pandas import DataFrame
from torch import Tensor

from prunebook.book.plots.style import BLUE, GREEN, GREY, ORANGE, SKY, finish

FORMS = {
    "zeros": ("zeros", GREY, "s"),
    "csr": ("zeros left out: CSR", BLUE, "o"),
    "shrunk": ("units removed", GREEN, "D"),
}
LEFT, FASTER = (50, 20, 10, 5, 2, 1, 0.5), (0.5, 1, 2, 5, 10, 20)  # ticks


def storage_forms(weight: Tensor, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw a small matrix as it is stored dense, as CSR and as a bit-mask, with a cell for each number.

    Nonzero weights are blue. Zeros, and the numbers that say where the weights are, are white.
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
    """Draw numbers side by side, each in a square, with their name on the left."""
    ax.text(-0.2, y + 0.5, name, ha="right", va="center", fontsize=8)
    for i, number in enumerate(numbers):
        full = blue and number != 0
        corner = (i * size, y + (1 - size) / 2)
        ax.add_patch(Rectangle(corner, size, size, facecolor=SKY if full else "white", edgecolor=GREY))
        colour = "black" if full or not blue else GREY
        note = ax.text((i + 0.5) * size, y + 0.5, f"{number:g}", ha="center", va="center")
        note.set(fontsize=8 * size + 1, color=colour)


def speed_curves(rows: DataFrame, ax: Axes, even: float | None = None) -> Axes:
    """Draw how many times as fast as dense each form is, against the share of the weights that is left.

    Args:
        rows: Rows of `book.table("latency")`, for one batch size and one number of threads.
        ax: Where to draw; both axes are logarithmic, with all weights on the left.
        even: Percentage of zeros at which CSR is as fast as dense, marked by a line; None marks nothing.
    """
    total = rows.loc[rows["form"] == "dense", "weights"].iloc[0]
    for form, (label, colour, marker) in FORMS.items():
        each = rows[rows["form"] == form].sort_values("weights")
        ax.plot(100 * each["weights"] / total, each["faster"], marker + "-", color=colour, label=label)
    ax.axhline(1, color="black", linewidth=1, linestyle="--")
    if even is not None:
        ax.axvline(100 - even, color=ORANGE, linewidth=1.2)
        ax.annotate(f"{even:.0f} % zeros", (100 - even, 32), (4, 0), textcoords="offset points", fontsize=8)
    ax.set(xlabel="weights left, in %", ylabel="times as fast as dense", xscale="log", yscale="log")
    ax.set(xlim=(60, 0.4), ylim=(0.25, 40), xticks=LEFT, yticks=FASTER)
    ax.set_xticklabels([f"{tick:g}" for tick in LEFT])
    ax.set_yticklabels([f"{tick:g}" for tick in FASTER])
    ax.minorticks_off()
    finish(ax)
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return ax


def size_bars(sizes: Mapping[str, float], ax: Axes, largest: float) -> Axes:
    """Draw a bar for each size, given in bytes and shown in MB, with its percentage of the first size.

    The axis ends a little beyond `largest`.
    """
    first = next(iter(sizes.values()))
    ax.barh(list(sizes), [size / 1e6 for size in sizes.values()], color=BLUE)
    for place, size in enumerate(sizes.values()):
        ax.text(size / 1e6, place, f" {size / first:.0%}", va="center", fontsize=9)
    ax.invert_yaxis()
    ax.set(xlabel="MB", xlim=(0, 1.18 * largest / 1e6))
    return ax


def left_bars(shares: Mapping[str, float], ax: Axes) -> Axes:
    """Draw a bar for each share (0..1, shown in percent) of what a dense network costs."""
    ax.barh(list(shares), [100 * share for share in shares.values()], color=BLUE)
    for place, share in enumerate(shares.values()):
        ax.text(100 * min(share, 1.2), place, f" {share:.1%}", va="center", fontsize=9)
    ax.axvline(100, color=ORANGE, linewidth=1.2)
    ax.invert_yaxis()
    ax.set(xlabel="of the dense network, in %", xlim=(0, 135))
    return ax
