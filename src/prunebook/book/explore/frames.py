"""What the sliders share: the values of a network that a picture shows, and a run of training as a film.

Chapter: book/weights.ipynb
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from prunebook.book.plots.style import mark, moving
from prunebook.book.widgets import FrameSlider
from prunebook.checks import require_whole
from prunebook.layers import dense_weight, maskable, parameter_name
from prunebook.masking import masks
from prunebook.training.data import Split

T = TypeVar("T")
STOPS = 16  # how many pictures of a film a page has at most


def first_images(split: Split, sample: int) -> Split:
    """Return the first `sample` images of a split, at least 1."""
    require_whole("sample", sample, 1)
    return Split(split.images[:sample], split.labels[:sample])


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return the values of all tensors as one flat tensor."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def all_weights(model: nn.Module) -> Tensor:
    """Return a flat copy of all weights of the maskable layers, those behind masks included."""
    return flat([dense_weight(layer).detach() for layer in maskable(model).values()])


def all_kept(model: nn.Module) -> list[Tensor]:
    """Return the mask of each maskable layer, True = kept; without a mask, all weights are kept."""
    found = masks(model)
    return [
        found.get(parameter_name(name, "weight"), torch.ones_like(dense_weight(layer), dtype=torch.bool))
        for name, layer in maskable(model).items()
    ]


def undecided(mask: Tensor) -> float:
    """Return the share of soft values that lie between 0.1 and 0.9: neither kept nor pruned."""
    return float(((mask > 0.1) & (mask < 0.9)).float().mean())


def marker(ax: Axes) -> Callable[[float, float, int], None]:
    """Return a function that marks an accuracy (0..1) on a curve in percent, and says it in the title."""
    mark(ax, 0, 0)
    (dot,) = ax.lines[-1:]
    moving(dot, ax.title)

    def show(x: float, accuracy: float, images: int) -> None:
        dot.set_data([x], [100 * accuracy])
        ax.set_title(f"{accuracy:.1%} of {images:,} validation images", fontsize=9)

    return show


def make_room(ax: Axes, by: float) -> None:
    """Move a picture with its colour bar to the left, by a share of the figure, where it has no labels."""
    for each in (ax, ax.images[0].colorbar.ax):  # type: ignore[union-attr]
        each.set_position(each.get_position(original=True).translated(-by, 0))


def film(
    take: Callable[[float], T],
    epochs: int,
    schedule: Callable[[float], object] | None = None,
    per_epoch: int = 4,
) -> tuple[list[T], Callable[[float], None]]:
    """Return a list of moments, still empty, and the `schedule` with which `fit` fills it as it trains.

    Args:
        take: Takes the time in epochs, which is 0 at the start, and returns a moment.
        epochs: As `fit` gets it, at least 1.
        schedule: What else `fit` shall call before each step.
        per_epoch: How many moments are taken in each epoch, at least 1 and at most one before each step.
    """
    require_whole("epochs", epochs, 1)
    require_whole("per_epoch", per_epoch, 1)
    moments: list[T] = []
    due = 0.0

    def record(progress: float) -> None:
        nonlocal due
        if schedule is not None:
            schedule(progress)
        epoch = epochs * progress
        if epoch >= due - 1e-9 or progress == 1:
            moments.append(take(epoch))
            due = epoch + 1 / per_epoch

    return moments, record


def require_moments(moments: Sequence[Any]) -> None:
    """Refuse a film without a moment."""
    if not moments:
        raise ValueError("moments must hold at least one moment, got none")


def scrub(moments: Sequence[Any], draw: Callable[[Any], tuple[Figure, str]]) -> FrameSlider:
    """Return a slider through moments of a run, set to the last; in a page it goes from epoch to epoch.

    Each moment has the attribute `epoch`, which is a time in epochs.
    """
    times = [moment.epoch for moment in moments]
    first, last = min(times), max(times)
    whole = [*range(math.ceil(first), math.floor(last) + 1)]
    stops = whole[:: -(-len(whole) // STOPS)] if len(whole) > 1 else [first]
    stops += [last] * (stops[-1] < last)
    gap = (last - first) / (len(times) - 1) if last > first else 1

    def at(epoch: float) -> tuple[Figure, str]:
        return draw(min(moments, key=lambda moment: abs(float(moment.epoch) - epoch)))

    span = (first, last, round(gap, 3))
    return FrameSlider(at, stops, label="epoch", words="after epoch {:.3g}", start=len(stops) - 1, span=span)
