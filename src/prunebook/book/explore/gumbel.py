"""Sliders for Gumbel gates: one for their temperature, one for a run in which they close.

Chapter: book/gumbel.ipynb
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from prunebook.book.explore.frames import first_images, flat, make_room, require_moments, scrub, undecided
from prunebook.book.plots.curves import path, plain_log
from prunebook.book.plots.masks import chance_histogram, gate_histogram, gradient_noise, kept_per_pixel
from prunebook.book.plots.style import counts, even, figure, mark, moving
from prunebook.book.widgets import FrameSlider
from prunebook.methods.gates import NOISE_TAIL, gates, gumbel_gate
from prunebook.methods.gumbel import GumbelPruning
from prunebook.training.data import Data
from prunebook.training.fit import evaluate

GATE_TAUS = (0.03, 0.1, 0.3, 1, 3, 10, 30)
CHANCES = {"open in 1 %": 0.01, "open in 50 %": 0.5, "open in 90 %": 0.9}  # probability of being open
DRAWS = 20_000
BINS = 40  # of the probability of being open
TWO = even(2, left=0.17, right=0.04, bottom=0.18, top=0.9)
FOUR = even(2, left=0.2, right=0.08, bottom=0.11, top=0.95, hspace=0.42)


def explore_gates(taus: Sequence[float] = GATE_TAUS) -> FrameSlider:
    """Return a slider for the temperature of a Gumbel gate, with a choice of how often the gate is open.

    It shows how the soft gates are spread between closed and open, and the mean and the spread of the
    gradient by the logit at each temperature. All frames use the same noise. The loss is the hard gate
    itself, so the true gradient of its mean is p (1 - p), where p is the probability of being open.

    Args:
        taus: The stops of the slider, each above 0.

    Raises:
        ValueError: A temperature is not above 0.
    """
    noise = torch.rand(DRAWS, generator=torch.Generator().manual_seed(0)).logit(eps=NOISE_TAIL)
    pictures = {
        name: _picture([_drawn_gates(chance, noise, tau) for tau in taus], chance)
        for name, chance in CHANCES.items()
    }

    def draw(tau: float, chance: str) -> tuple[Figure, str]:
        fig, show = pictures[chance]
        return fig, show(_drawn_gates(CHANCES[chance], noise, tau))

    start, span = len(taus) // 2, (min(taus), max(taus), 0.02)
    choices = {"chance": list(CHANCES)}
    return FrameSlider(
        draw,
        taus,
        start=start,
        span=span,
        log=True,
        choices=choices,
        label="temperature",
        words="tau = {:g}",
    )


@dataclass(frozen=True)
class _DrawnGates:
    """Samples of a gate, and the gradient by its logit for each of them."""

    tau: float
    soft: Tensor
    gradient: Tensor


def _drawn_gates(chance: float, noise: Tensor, tau: float) -> _DrawnGates:
    logit = torch.full_like(noise, chance).logit_().requires_grad_()
    (gradient,) = torch.autograd.grad(gumbel_gate(logit, noise, tau).sum(), logit)
    return _DrawnGates(tau, gumbel_gate(logit.detach(), noise, tau, hard=False), gradient)


def _picture(line: Sequence[_DrawnGates], chance: float) -> tuple[Figure, Callable[[_DrawnGates], str]]:
    """Draw what stays, and return the figure and the function that shows gates in it and describes them."""
    fig, (left, right) = figure(columns=2, width=8, height=2.9, margins=TWO)
    bars: Any = gate_histogram({"soft": line[0].soft}, left).patches[0]
    left.set(yscale="log", ylim=(0.02, 150))
    truth = chance * (1 - chance)
    # in multiples of the truth, so that one axis serves every chance
    means, spreads = (
        [float(part(gates.gradient)) / truth for gates in line] for part in (torch.mean, torch.std)
    )
    gradient_noise([gates.tau for gates in line], means, spreads, 1, right)
    right.set(ylabel="gradient by the logit, in truth 1", ylim=(-2, 6))
    mark(right, line[0].tau, 1)
    dot = right.lines[-1]
    moving(bars, left.title, dot, right.title)

    def show(gates: _DrawnGates) -> str:
        found = counts(gates.soft, torch.tensor(bars.get_data().edges))
        bars.set_data((100 * found / found.sum()).numpy())
        left.set_title(f"open in {(gates.soft > 0.5).float().mean():.1%} of {DRAWS:,} draws", fontsize=9)
        mean, spread = float(gates.gradient.mean()), float(gates.gradient.std())
        dot.set_data([gates.tau], [mean / truth])
        right.set_title(f"mean {mean / truth:.2g}, spread {spread / truth:.2g}", fontsize=9)
        return (
            f"tau = {gates.tau:g}: {undecided(gates.soft):.1%} of the soft gates lie between 0.1 and 0.9; "
            f"gradient {mean:.2g} on average with spread {spread:.2g}, in truth {truth:.2g}."
        )

    return fig, show


@dataclass(frozen=True)
class GateMoment:
    """A network with gates at a moment of its training, reduced to what `explore_thinning` shows."""

    epoch: float
    accuracy: float
    images: int  # on which it was measured
    density: float
    kept: int
    counts: Tensor  # of the probabilities of being open, in equal bins of 0..1
    pixels: Tensor  # (1, inputs): open gates of each input of the first layer


def gate_moment(pruning: GumbelPruning, data: Data, epoch: float, sample: int = 2000) -> GateMoment:
    """Return what `explore_thinning` shows, with the accuracy on the first `sample` validation images.

    The gates must be on weights. Take four in each epoch:
    `film(lambda epoch: gate_moment(pruning, data, epoch), epochs)`.
    """
    split = first_images(data.valid, sample)
    accuracy = evaluate(pruning.model, split).accuracy
    found = [gate.logit.detach().cpu() for gate in gates(pruning.model).values()]
    bins = torch.histc(flat(found).sigmoid(), BINS, 0, 1)
    kept = sum(int((logit > 0).sum()) for logit in found)
    pixels = (found[0] > 0).sum(0, keepdim=True)
    return GateMoment(epoch, accuracy, len(split), pruning.density(), kept, bins, pixels)


def explore_thinning(moments: Sequence[GateMoment]) -> FrameSlider:
    """Return a slider that goes through a run with gates.

    It shows density and accuracy up to this moment, how many gates have each probability of being open, and
    how many open gates read each pixel.

    Args:
        moments: In order, of a network whose first layer reads images of 28 x 28.

    Raises:
        ValueError: There are no moments.
    """
    require_moments(moments)
    fig, axes = figure(columns=2, rows=2, width=7, height=4.8, margins=FOUR)
    epochs = [shown.epoch for shown in moments]
    lines = {
        axes[0]: ("density in %", [100 * shown.density for shown in moments]),
        axes[1]: ("accuracy in %", [100 * shown.accuracy for shown in moments]),
    }
    for ax, (label, values) in lines.items():
        path(epochs, values, ax, epochs[-1], label)
        moving(*ax.lines)
    axes[0].set(yscale="log")
    plain_log(axes[0].yaxis, (1, 3))
    bars: Any = chance_histogram(moments[0].counts, axes[2]).patches[0]
    axes[2].set_ylim(0.5, 2 * float(moments[0].counts.sum()))
    most = max(2, *(int(shown.pixels.max()) for shown in moments))
    (picture,) = kept_per_pixel(moments[0].pixels, axes[3], most=most).images
    make_room(axes[3], 0.07)
    moving(bars, picture)

    def draw(shown: GateMoment) -> tuple[Figure, str]:
        until = epochs.index(shown.epoch) + 1
        for ax, (_, values) in lines.items():
            so_far, dot = ax.lines
            so_far.set_data(epochs[:until], values[:until])
            dot.set_data([shown.epoch], [values[until - 1]])
        bars.set_data(shown.counts.numpy())
        picture.set_data(shown.pixels.view(28, 28).numpy())
        return fig, (
            f"Epoch {round(shown.epoch, 2):g}: density {shown.density:.3%}, {shown.kept:,} gates of P(open) "
            f"above one half; {shown.accuracy:.1%} of {shown.images:,} validation images right."
        )

    return scrub(moments, draw)
