"""Sliders for Gumbel gates: one for their temperature, one for a run in which they close.

Chapter: book/gumbel.ipynb
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from prunebook.book.explore.frames import flat, scrub, undecided
from prunebook.book.plots.curves import path
from prunebook.book.plots.masks import chance_histogram, gate_histogram, gradient_noise, kept_per_pixel
from prunebook.book.plots.style import figure, mark
from prunebook.book.widgets import FrameSlider
from prunebook.methods.gates import NOISE_TAIL, gates, gumbel_gate
from prunebook.methods.gumbel import GumbelPruning

GATE_TAUS = (0.01, 0.03, 0.1, 0.3, 0.5, 1, 2, 3, 10, 30)
CHANCES = {"open in 1 %": 0.01, "open in 50 %": 0.5, "open in 90 %": 0.9}  # probability of being open
DRAWS = 20_000
BINS = 40  # of the probability of being open
TWO = {"left": 0.08, "right": 0.985, "bottom": 0.18, "top": 0.9, "wspace": 0.3}
FOUR = {"left": 0.11, "right": 0.94, "bottom": 0.11, "top": 0.95, "wspace": 0.35, "hspace": 0.42}


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
    drawn = {(tau, name): _drawn_gates(CHANCES[name], noise, tau) for name in CHANCES for tau in taus}

    def draw(tau: float, chance: str) -> tuple[Figure, str]:
        return _draw_gates(drawn[tau, chance], [drawn[stop, chance] for stop in taus], CHANCES[chance])

    return FrameSlider(draw, taus, label="tau", start=len(taus) // 2, choices={"chance": list(CHANCES)})


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


def _draw_gates(shown: _DrawnGates, line: Sequence[_DrawnGates], chance: float) -> tuple[Figure, str]:
    fig, (left, right) = figure(columns=2, width=8, height=2.9, margins=TWO)
    gate_histogram({"soft": shown.soft}, left)
    left.set_title(f"open in {(shown.soft > 0.5).float().mean():.1%} of {DRAWS:,} draws", fontsize=9)
    truth = chance * (1 - chance)
    means, spreads = ([float(part(gates.gradient)) for gates in line] for part in (torch.mean, torch.std))
    gradient_noise([gates.tau for gates in line], means, spreads, truth, right)
    mean, spread = float(shown.gradient.mean()), float(shown.gradient.std())
    mark(right, shown.tau, mean)
    right.set_title(f"mean {mean:.2g}, spread {spread:.2g}", fontsize=9)
    right.set_ylim(-2 * truth, 6 * truth)
    return fig, (
        f"tau = {shown.tau:g}: {undecided(shown.soft):.1%} of the soft gates lie between 0.1 and 0.9; "
        f"gradient {mean:.2g} on average with spread {spread:.2g}, in truth {truth:.2g}."
    )


@dataclass(frozen=True)
class GateMoment:
    """A network with gates at the end of an epoch, reduced to what `explore_thinning` shows."""

    row: Mapping[str, float]  # of the history: epoch, valid_accuracy
    density: float
    kept: int
    counts: Tensor  # of the probabilities of being open, in equal bins of 0..1
    pixels: Tensor  # (1, inputs): open gates of each input of the first layer


def gate_moment(pruning: GumbelPruning, row: Mapping[str, float]) -> GateMoment:
    """Return what `explore_thinning` shows; call it in `fit(on_epoch=...)`. The gates must be on weights."""
    found = [gate.logit.detach().cpu() for gate in gates(pruning.model).values()]
    counts = torch.histc(flat(found).sigmoid(), BINS, 0, 1)
    kept = sum(int((logit > 0).sum()) for logit in found)
    return GateMoment(dict(row), pruning.density(), kept, counts, (found[0] > 0).sum(0, keepdim=True))


def explore_thinning(moments: Sequence[GateMoment]) -> FrameSlider:
    """Return a slider that goes through a run with gates, epoch by epoch.

    It shows density and accuracy up to this epoch, how many gates have each probability of being open, and
    how many open gates read each pixel.

    Args:
        moments: Of different epochs, in order, of a network whose first layer reads images of 28 x 28.

    Raises:
        ValueError: There are no moments.
    """
    return scrub(moments, _draw_thinning)


def _draw_thinning(shown: GateMoment, run: Sequence[GateMoment]) -> tuple[Figure, str]:
    fig, axes = figure(columns=2, rows=2, width=7, height=4.8, margins=FOUR)
    density, right, chances, pixels = axes
    so_far = [moment for moment in run if moment.row["epoch"] <= shown.row["epoch"]]
    epochs, now = [moment.row["epoch"] for moment in so_far], shown.row["epoch"]
    path(epochs, [100 * moment.density for moment in so_far], density, now, "density in %")
    density.set(yscale="log", ylim=(80 * min(moment.density for moment in run), 120))
    accuracies = [100 * moment.row["valid_accuracy"] for moment in run]
    path(epochs, accuracies[: len(epochs)], right, now, "accuracy in %")
    right.set_ylim(min(accuracies) - 1, max(accuracies) + 1)
    for ax in (density, right):
        ax.set_xlim(0, run[-1].row["epoch"] + 1)
    chance_histogram(shown.counts, chances)
    chances.set_ylim(0.5, 2 * float(shown.counts.sum()))
    kept_per_pixel(shown.pixels, pixels)
    return fig, (
        f"Epoch {now:g}: density {shown.density:.3%}, {shown.kept:,} gates of P(open) above one half; "
        f"{shown.row['valid_accuracy']:.1%} of the validation images right."
    )
