"""What the sliders share: the values of a network that a frame shows, and the epochs of a run as frames.

Chapter: book/weights.ipynb
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from prunebook.book.plots.style import mark
from prunebook.book.widgets import FrameSlider
from prunebook.checks import require_whole
from prunebook.layers import dense_weight, maskable, parameter_name
from prunebook.masking import masks
from prunebook.training.data import Split


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


def mark_accuracy(ax: Axes, x: float, accuracy: float, images: int) -> None:
    """Mark an accuracy (0..1) on a curve in percent, and put it in the title with the number of images."""
    mark(ax, x, 100 * accuracy)
    ax.set_title(f"{accuracy:.1%} of {images:,} validation images", fontsize=9)


def scrub(
    moments: Sequence[Any], draw_moment: Callable[[Any, Sequence[Any]], tuple[Figure, str]]
) -> FrameSlider:
    """Return a slider over the epochs of a run, set to the last; each moment has the `row` of its epoch."""
    if not moments:
        raise ValueError("moments must hold at least one epoch, got none")
    by_epoch = {int(shown.row["epoch"]): shown for shown in moments}

    def draw(epoch: int) -> tuple[Figure, str]:
        return draw_moment(by_epoch[epoch], moments)

    return FrameSlider(draw, list(by_epoch), label="epoch", start=len(by_epoch) - 1)
