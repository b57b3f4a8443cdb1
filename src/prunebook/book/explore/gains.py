"""A slider for the percentage of zeros: how many bytes and how much time they save.

Chapter: book/what-you-gain.ipynb
"""

import copy
from collections.abc import Mapping

from matplotlib.figure import Figure
from pandas import DataFrame
from torch import nn

from prunebook.book.plots.gains import size_bars, speed_curves
from prunebook.book.plots.style import figure, mark
from prunebook.book.widgets import FrameSlider
from prunebook.methods.weights import prune_weights
from prunebook.tools.costs import Bytes, stored_bytes
from prunebook.tools.csr import break_even

MARGINS = {"left": 0.1, "right": 0.985, "bottom": 0.17, "top": 0.9, "wspace": 0.3}


def explore_savings(model: nn.Module, timings: DataFrame) -> FrameSlider:
    """Return a slider for the percentage of zeros, with a choice of the batch size.

    It shows the bytes of the network as dense, CSR and bit-mask, and how many times as fast as dense each
    form runs. The bytes are counted; the times come from a table, perhaps of another network.

    Args:
        model: Copies of it are pruned, k % of each layer, to count their bytes.
        timings: Rows of `book.table("latency")` for one number of threads.

    Raises:
        ValueError: In the table, CSR never becomes faster than dense.
    """
    csr = timings[timings["form"] == "csr"]
    ks = [int(k) if k == int(k) else k for k in sorted(csr["k"].unique().tolist())]
    sizes = {k: stored_bytes(prune_weights(copy.deepcopy(model), k)) for k in ks}
    largest_first = sorted(csr["batch"].unique().tolist(), reverse=True)
    batches = {f"{batch} image{'' if batch == 1 else 's'}": batch for batch in largest_first}

    def draw(k: float, batch: str) -> tuple[Figure, str]:
        return _draw(sizes, timings[timings["batch"] == batches[batch]], k, batch)

    start = min(range(len(ks)), key=lambda i: abs(ks[i] - 90))
    return FrameSlider(draw, ks, label="zeros in %", start=start, choices={"batch": list(batches)})


def _draw(sizes: Mapping[float, Bytes], timings: DataFrame, k: float, batch: str) -> tuple[Figure, str]:
    fig, (left, right) = figure(columns=2, width=8.6, height=3.0, margins=MARGINS)
    size = {"dense": sizes[k].dense, "CSR": sizes[k].csr, "bit-mask": sizes[k].bitmask}
    size_bars(size, left, max(max(vars(each).values()) for each in sizes.values()))
    csr = timings[timings["form"] == "csr"].sort_values("k")
    speed_curves(timings, right, break_even(csr["k"].tolist(), csr["faster"].tolist()))
    now = csr[csr["k"] == k].iloc[0]
    total = timings.loc[timings["form"] == "dense", "weights"].iloc[0]
    mark(right, 100 * now["weights"] / total, now["faster"])
    right.set_title(f"{batch} at once", fontsize=9)
    megabytes = ", ".join(f"{name} {each / 1e6:.2f} MB" for name, each in size.items())
    slower = 1 / now["faster"]
    return fig, f"{k:g} % zeros: {megabytes}; CSR takes {slower:.2f} of the dense time for {batch}."
