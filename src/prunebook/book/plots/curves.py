"""Accuracy, error and other numbers as curves, and methods side by side.

Chapter: book/comparison.ipynb
"""

from collections.abc import Mapping, Sequence

import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from pandas import DataFrame

from prunebook.book.plots.style import BLUE, COLOURS, ORANGE, PERCENT, SKY, finish, mark

MARKERS = "osD^vP*"
LEFT = (100, 50, 20, 10, 5, 2, 1)
ACCURACIES = (10, 50, 80, 90, 95, 98)  # ticks where errors are on a logarithmic scale
PLAIN = FuncFormatter(lambda x, _: f"{x:,.9g}")  # 1,000 and not 10 to the power of 3


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
    return finish(ax, xlabel="k: weights set to zero, in %", **PERCENT)


def kept_axis(ax: Axes, label: str = "weights kept, in %", ticks: Sequence[float] = LEFT) -> Axes:
    """Give axes over the percentage kept a logarithmic scale, on which it falls from left to right.

    On a linear scale of k all that happens would happen in the last tenth of the axis.
    """
    ax.set(xscale="log", xlim=(1.2 * max(ticks), min(ticks) / 1.2), xlabel=label, xticks=ticks)
    ax.xaxis.set_major_formatter(PLAIN)
    ax.minorticks_off()
    return ax


def plain_log(axis: Axis, digits: Sequence[float] = (1,)) -> None:
    """Write the numbers of a logarithmic axis out, those that begin with one of the digits."""
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(PLAIN)
    axis.set_minor_formatter(NullFormatter())


def temperature_curve(
    taus: Sequence[float], accuracies: Sequence[float], ax: Axes, label: str | None = None, colour: str = BLUE
) -> Axes:
    """Draw accuracy (0..1, shown in percent) against the temperature, which falls from left to right."""
    accuracy_curve(taus, accuracies, ax, label, colour)
    ax.set(xlabel="temperature, in multiples of std(W)", xscale="log", xlim=(2 * max(taus), min(taus) / 2))
    return ax


def accuracy_bands(rows: DataFrame, ax: Axes, x: str = "k", by: str = "method") -> Axes:
    """Draw mean accuracy against `x` for each value of `by`, with a band from the worst to the best seed.

    `rows` has the columns x, by, seed and validation_accuracy (0..1, shown in percent).
    """
    percent = rows.assign(accuracy=100 * rows["validation_accuracy"])
    colours = dict(zip(percent[by].unique(), COLOURS, strict=False))
    looks = {"hue": by, "style": by, "palette": colours, "markers": True, "dashes": False}
    sns.lineplot(percent, x=x, y="accuracy", ax=ax, errorbar=("pi", 100), **looks)
    return finish(ax, legend=10, **PERCENT)


def path(epochs: Sequence[float], values: Sequence[float], ax: Axes, now: float, ylabel: str) -> Axes:
    """Draw a value against the epoch, with a large dot at the epoch `now`."""
    ax.plot(epochs, values, "o-", color=BLUE, markersize=3)
    mark(ax, now, values[list(epochs).index(now)], 10)
    return finish(ax, xlabel="epoch", ylabel=ylabel)


def paths(rows: DataFrame, column: str, ax: Axes, by: Sequence[str] = ("r", "lam")) -> Axes:
    """Draw a line over the epochs for each row, with a colour for each combination of the columns `by`.

    In each row, `column` is a text with a number for each epoch, such as "0.5 0.7 0.8".
    """
    for colour, (setting, group) in zip(COLOURS, rows.groupby(list(by)), strict=False):
        label = ", ".join(f"{name} = {value:g}" for name, value in zip(by, setting, strict=True))
        for index, text in enumerate(group[column]):
            values = [float(value) for value in text.split()]
            epochs = range(1, len(values) + 1)
            ax.plot(epochs, values, color=colour, alpha=0.8, label=None if index else label)
    return finish(ax, legend=8, xlabel="epoch", ylabel=column)


def loglog(
    columns: Mapping[str, Sequence[float]], x: Sequence[float], ax: Axes, xlabel: str, ylabel: str
) -> Axes:
    """Draw columns against x on two logarithmic axes, where a cost linear in x has slope 1."""
    for (label, column), colour in zip(columns.items(), COLOURS, strict=False):
        ax.plot(x, column, "o-", color=colour, label=label)
    return finish(ax, legend=10, xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")


def removal_curves(
    removed: Sequence[int], accuracies: Mapping[str, Sequence[Sequence[float]]], ax: Axes
) -> Axes:
    """Draw accuracy (0..1, shown in percent) against the number of pixels removed, for each order of removal.

    Each order has a row of accuracies for each seed. The line is the mean over the seeds, and the band goes
    from the worst to the best.
    """
    for (label, rows), colour in zip(accuracies.items(), COLOURS, strict=False):
        percent = 100 * torch.tensor(rows, dtype=torch.float64)
        ax.plot(removed, percent.mean(0), "o-", color=colour, label=label)
        ax.fill_between(removed, percent.amin(0), percent.amax(0), color=colour, alpha=0.2, linewidth=0)
    return finish(ax, legend=10, xlabel="pixels removed", **PERCENT)


def frontier(rows: DataFrame, ax: Axes, x: str = "kept") -> Axes:
    """Draw test accuracy against the number of weights kept, on a logarithmic axis, for each method.

    A point is the mean over the seeds, and its bar goes from the worst to the best. `rows` has the columns
    method, count, `x` and test_accuracy (0..1, shown in percent). Rows with the same count form one point.
    """
    for (method, group), colour in zip(rows.groupby("method", sort=False), COLOURS, strict=False):
        points = group.groupby("count").agg({x: "mean", "test_accuracy": ["mean", "min", "max"]})
        low, middle, high = (100 * points["test_accuracy", part] for part in ("min", "mean", "max"))
        places, reach = points[x, "mean"], [(middle - low).tolist(), (high - middle).tolist()]
        ax.errorbar(places, middle, reach, fmt="o-", color=colour, label=method, capsize=3, markersize=5)
    finish(ax, legend=8, xlabel="weights kept", ylabel="test accuracy in %", xscale="log")
    plain_log(ax.xaxis)
    return ax


def error_curves(rows: DataFrame, ax: Axes, x: str = "density", label: str = "weights kept, in %") -> Axes:
    """Draw test error against the density, or against a cost that grows with the epochs; both logarithmic.

    A point is the mean over the seeds, and the band goes from the best to the worst. `rows` has the columns
    method, test_accuracy (0..1, shown as an error in percent) and `x`. A density (0..1) is shown in percent;
    for a cost, `rows` needs the column epochs, too. There are colours for seven methods.
    """
    for (method, group), colour, marker in zip(
        rows.groupby("method", sort=False), COLOURS, MARKERS, strict=False
    ):
        scale = 100 if x == "density" else 1
        keys = [x] if x == "density" else ["epochs"]  # the cost differs a little between seeds
        errors = group.assign(x=scale * group[x], error=100 * (1 - group["test_accuracy"])).groupby(keys)
        places, error = errors["x"].mean(), errors["error"]
        ax.plot(places, error.mean(), marker=marker, color=colour, label=method, markersize=5, linewidth=1.4)
        ax.fill_between(places, error.min(), error.max(), color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel=label, ylabel="test error in %", xscale="log", yscale="log")
    for axis in (ax.xaxis, ax.yaxis):
        plain_log(axis, (1, 2, 5))
    return finish(ax, legend=8)


def frontier_of(
    short: DataFrame, long: DataFrame, published: DataFrame, methods: Sequence[str], ax: Axes
) -> Axes:
    """Draw the error of methods at one budget, what one reaches with more time, and what others published.

    `short` is as for `error_curves`. `long` is the table of Gumbel runs; those with an exchange of weights
    are drawn as stars. `published` has the columns kept and error, both in percent.
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
    """Draw the mean test accuracy of each method, best on top, with a bar from the worst to the best seed.

    The axis is logarithmic in the error, so that the best methods stand apart. `rows` has a row for each
    method, and the columns mean, min and max, all in percent.
    """
    found = rows.sort_values("mean")
    places, mean, low, high = range(len(found)), *((100 - found[name]) for name in ("mean", "min", "max"))
    ax.hlines(places, low, high, color=SKY, linewidth=6, alpha=0.6)
    ax.plot(mean, places, "o", color=BLUE, markersize=5)
    for place, value in zip(places, found["mean"], strict=True):
        ax.annotate(f"{value:.1f}", (1.15, place), fontsize=8, va="center", annotation_clip=False)
    ax.set(xscale="log", xlim=(95, 1.2), xlabel="test accuracy in %", yticks=list(places))
    ax.set_yticklabels(list(found.index))
    ax.set_xticks([100 - accuracy for accuracy in ACCURACIES], [f"{each}" for each in ACCURACIES])
    ax.minorticks_off()
    ax.grid(alpha=0.3, axis="x")
    return ax


def effective_share(rows: DataFrame, ax: Axes) -> Axes:
    """Draw the percentage of kept weights on a path from input to output, as a dot for each row.

    `rows` has the columns method, density and effective_density (0..1); the density axis is logarithmic.
    """
    for (method, group), colour in zip(rows.groupby("method", sort=False), COLOURS, strict=False):
        on_path = 100 * group["effective_density"] / group["density"]
        ax.plot(100 * group["density"], on_path, "o", color=colour, alpha=0.6, label=method)
    labels = {"xlabel": "weights kept, in %", "ylabel": "of these on a path, in %"}
    return finish(ax, legend=8, xscale="log", ylim=(0, 103), **labels)
