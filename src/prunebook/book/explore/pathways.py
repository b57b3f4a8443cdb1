"""A slider over the classes: the paths of a pruned network that lead to one of them.

Chapter: book/pathways.ipynb
"""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor, nn

from prunebook.book.plots.networks import image_pathways, importance_maps
from prunebook.book.plots.style import figure
from prunebook.book.widgets import FrameSlider
from prunebook.read.order import order_units
from prunebook.read.paths import count_paths, importance, surviving_weights
from prunebook.training.data import Data


def explore_class(model: nn.Module, data: Data) -> FrameSlider:
    """Return a slider over the classes.

    It shows the whole network with the paths to one class in colour, over the mean training image of the
    class, and how important each pixel is for it. A pixel that varies more counts for more.

    Args:
        model: A pruned chain of linear layers that takes the images of `data`, which are square.
        data: As `load_data` returns it.

    Raises:
        ValueError: As for `surviving_weights`.
    """
    order = order_units(model, keep_inputs=True, keep_outputs=True)
    images, labels, whole = data.train.images.flatten(1), data.train.labels, surviving_weights(model)
    shares, total = importance(model, images.std(0)), _nonzero(whole)

    def draw(name: str) -> tuple[Figure, str]:
        index = data.classes.index(name)
        lit = surviving_weights(model, target=index)
        grey = images[labels == index].mean(0) * data.std + data.mean
        fig, (left, right) = figure(columns=2, width=9.5, height=4.2, margins={})
        left.set_position((0.01, 0.02, 0.66, 0.96))
        right.set_position((0.7, 0.13, 0.28, 0.74))
        fig.panels = (0, 0.68, 1)
        image_pathways(whole, order, left, data.classes, grey, lit)
        importance_maps(shares[index : index + 1], [right], [f"importance for {name}"])
        pixels, routes = int(lit[0].any(0).sum()), count_paths(model, target=index)
        return fig, (
            f"Class {name}: {routes:,} paths from {pixels} pixels, along {_nonzero(lit):,} of {total:,} "
            f"weights; the most important pixel has {shares[index].max():.1%} of the strength."
        )

    return FrameSlider(draw, data.classes, label="class", words="class {}", sharp=1.35)


def _nonzero(weights: Sequence[Tensor]) -> int:
    return sum(int(weight.count_nonzero()) for weight in weights)
