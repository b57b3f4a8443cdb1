"""A slider for the percentage of zeros: how many bytes and how much time they save.

Chapter: book/what-you-gain.ipynb
"""

import copy

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from torch import nn

from prunebook.book.plots.gains import size_bars, speed_curves
from prunebook.book.plots.style import even, figure, mark
from prunebook.book.widgets import FrameSlider
from prunebook.methods.weights import prune_weights
from prunebook.tools.costs import Bytes, stored_bytes
from prunebook.tools.csr import break_even

MARGINS = even(2, left=0.19, right=0.03, bottom=0.17, top=0.9)


def explore_savings(model: nn.Module, timings: DataFrame) -> FrameSlider:
    """Return a slider for the percentage of zeros, with a choice of the batch size.

    It shows the bytes of the network as dense, CSR and bit-mask, and how many times as fast as dense each
    form runs. The bytes are counted at any percentage. The times come from a table, perhaps of another
    network; between two of its percentages they follow the line that joins them in the picture.

    Args:
        model: Copies of it are pruned, k % of each layer, to count their bytes.
        timings: Rows of `book.table("latency")` for one number of threads.

    Raises:
        ValueError: In the table, CSR never becomes faster than dense.
    """
    csr = timings[timings["form"] == "csr"]
    ks = [int(k) if k == int(k) else k for k in sorted(csr["k"].unique().tolist())]
    largest_first = sorted(csr["batch"].unique().tolist(), reverse=True)
    batches = {f"{batch} image{'' if batch == 1 else 's'}": batch for batch in largest_first}
    largest = max(vars(stored_bytes(prune_weights(copy.deepcopy(model), ks[0]))).values())

    def draw(k: float, batch: str) -> tuple[Figure, str]:
        size = stored_bytes(prune_weights(copy.deepcopy(model), k))
        return _draw(size, timings[timings["batch"] == batches[batch]], k, batch, largest)

    start = min(range(len(ks)), key=lambda i: abs(ks[i] - 90))
    span, choices = (min(ks), max(ks), 0.1), {"batch": list(batches)}
    return FrameSlider(
        draw,
        ks,
        start=start,
        span=span,
        choices=choices,
        label="zeros in %",
        words="{:g} % zeros",
    )


def _draw(counted: Bytes, timings: DataFrame, k: float, batch: str, largest: float) -> tuple[Figure, str]:
    fig, (left, right) = figure(columns=2, width=8.6, height=3.0, margins=MARGINS)
    size = {"dense": counted.dense, "CSR": counted.csr, "bit-mask": counted.bitmask}
    size_bars(size, left, largest)
    csr = timings[timings["form"] == "csr"].sort_values("k", ascending=False)
    ks, faster, weights = (csr[column].to_numpy(float) for column in ("k", "faster", "weights"))
    speed_curves(timings, right, break_even([*ks[::-1]], [*faster[::-1]]))
    ours = np.exp(np.interp(np.log(100 - k), np.log(100 - ks), np.log(faster)))
    total = timings.loc[timings["form"] == "dense", "weights"].iloc[0]
    mark(right, 100 * np.interp(100 - k, 100 - ks, weights) / total, ours)
    right.set_title(f"{batch} at once", fontsize=9)
    megabytes = ", ".join(f"{name} {each / 1e6:.2f} MB" for name, each in size.items())
    return fig, f"{k:g} % zeros: {megabytes}; CSR takes {1 / ours:.2f} of the dense time for {batch}."
