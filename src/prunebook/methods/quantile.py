"""The distribution of the weights from one histogram: quantile, its slope, and the density by FFT-KDE.

Counting n scores on a grid of m cells costs O(n); smoothing the counts with a Gaussian by the fast Fourier
transform costs O(m log m). Nothing is sorted, and `quantile_and_slope` never makes a GPU wait.

Chapter: book/density.ipynb
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from prunebook.checks import require_one_of, require_positive, require_scores, require_whole
from prunebook.methods.learned import widened

Bandwidth = Literal["scott", "silverman"] | float
GRID = 4096  # cells between 0 and the largest score
PIECE = 2**18  # scores that a CPU counts at a time, so that intermediate results stay in its cache


def quantile(
    scores: Tensor, r: Tensor | float, grid: int = GRID, bandwidth: Bandwidth = "silverman"
) -> Tensor:
    """Return t(r), below which the share r of the scores lies, differentiable with respect to r.

    The backward pass gives dt/dr = 1 / f(t), where f is the density of the scores, estimated by FFT-KDE.
    The scores themselves get no gradient from t, so a weight learns only through its own mask.

    Args:
        scores: At least one, finite, at least 0, of any shape; such as abs(w).
        r: Share of the scores, 0 to 1, as a number or a tensor with one element.
        grid: Cells of the histogram, at least 16; t is exact to max(scores) / grid.
        bandwidth: "scott", "silverman", or the kernel's standard deviation in units of the scores.

    Raises:
        ValueError: An argument is out of range, or a score is negative, NaN or infinite.

    Source: Pereira, A Gradient-Based Approach to Adaptive Neural Network Pruning, eq. 2.12 to 2.16.
    """
    require_scores("scores", scores, least=0)
    require_smoothing(grid, bandwidth)
    flat = widened(scores.detach().flatten())
    ratio = torch.as_tensor(r, dtype=flat.dtype, device=flat.device)  # float16 has too few digits for a share
    if ratio.numel() != 1 or not 0 <= float(ratio.detach()) <= 1:
        raise ValueError(f"r must be one share from 0 to 1, got {r}")
    threshold: Tensor = _Quantile.apply(ratio.reshape(()), flat, grid, bandwidth)
    return threshold.to(scores.dtype).reshape(ratio.shape)


def fft_kde(
    scores: Tensor, grid: int = 1024, bandwidth: Bandwidth = "scott", reflect: bool = True
) -> tuple[Tensor, Tensor]:
    """Return `grid` points and the density of the scores at each, from a Gaussian kernel and the FFT.

    The scores are counted on the grid and the counts convolved with the kernel: O(n + m log m) for n scores
    and m points, where a sum over all scores at each point costs O(n m).

    Args:
        scores: At least one, finite, of any shape.
        grid: Number of points m, at least 16, over the scores and 4 bandwidths beyond.
        bandwidth: "scott" (std n^(-1/5)), "silverman" (0.9 min(std, IQR / 1.34) n^(-1/5)), or the kernel's
            standard deviation. It is never less than the distance between two points.
        reflect: Whether to mirror the density at 0, for scores that cannot be negative, such as abs(w).
            Otherwise half of the mass near 0 leaks below 0, and the density at 0 is halved.

    Raises:
        ValueError: An argument is out of range, or a score is NaN, infinite, or negative with `reflect`.

    Source: Silverman 1982, Applied Statistics 31, AS 176; bandwidths: Silverman 1986, section 3.4.2.
    """
    require_scores("scores", scores, least=0 if reflect else -math.inf)
    require_smoothing(grid, bandwidth)
    samples = widened(scores.detach().flatten())
    lowest = torch.zeros_like(samples[0]) if reflect else samples.min()
    spread = float(samples.std(correction=0))
    kernel = spread * len(samples) ** -0.2 if isinstance(bandwidth, str) else bandwidth
    cell = float(samples.max() - lowest) / (grid - 8)  # the kernel is as wide as a cell at least
    least = max(1e-6 * float(samples.abs().max()), 1e-30)  # constant samples have no spread
    margin = max(4 * kernel, 4 * cell, least)
    low = lowest if reflect else lowest - margin
    width = (samples.max() + margin - low) / grid
    counts = histogram([samples - low], grid, width * grid)
    density = smooth(counts, width, kernel_width(counts, width, bandwidth), mirror=reflect)
    points = low + width * (torch.arange(grid, device=scores.device, dtype=samples.dtype) + 0.5)
    return points, density


def histogram(scores: Sequence[Tensor], grid: int, top: Tensor) -> Tensor:
    """Return the exact int64 number of scores (flat, in [0, top]) in each of `grid` equal cells."""
    counts = torch.zeros(grid, dtype=torch.int64, device=top.device)
    for part in scores:
        # a GPU takes all at once; bincount would make us wait for it, to learn the largest cell
        for piece in part.split(max(1, len(part)) if part.is_cuda else PIECE):
            cells = (piece * (grid / top)).int().clamp_(0, grid - 1)
            if cells.is_cuda:
                counts.scatter_add_(0, cells.long(), torch.ones_like(counts[:1]).expand(len(cells)))
            else:  # torch.histc would take four times as long, and count in float32, up to 2^24
                counts += torch.bincount(cells, minlength=grid)
    return counts


def kernel_width(counts: Tensor, width: Tensor, bandwidth: Bandwidth) -> Tensor:
    """Return the kernel's standard deviation for counts in cells of `width`; at least `width`."""
    if not isinstance(bandwidth, str):
        return torch.full_like(width, bandwidth).maximum(width)
    mass = counts.to(width.dtype)
    share = mass / mass.sum()
    cells = torch.arange(len(counts), device=counts.device, dtype=width.dtype)
    mean = share @ cells
    spread = (share @ (cells - mean).square()).sqrt()
    if bandwidth == "silverman":
        quarters = torch.linspace(0.25, 0.75, 2, device=counts.device, dtype=width.dtype)
        quartiles = quantile_cell(counts, quarters)
        middle = (quartiles[1] - quartiles[0]) / 1.34
        spread = 0.9 * torch.where(middle > 0, spread.minimum(middle), spread)  # eq-silverman
    return (spread * mass.sum() ** -0.2).clamp(min=1.0) * width  # eq-scott


def smooth(counts: Tensor, width: Tensor, bandwidth: Tensor, mirror: bool) -> Tensor:
    """Return the density in each cell: counts convolved with a Gaussian and, with `mirror`, reflected.

    The kernel's Fourier transform is known, exp(-(2 pi f h)^2 / 2), so two FFTs are enough.
    """
    mass = counts.to(bandwidth.dtype)
    line = torch.cat([mass, mass.flip(0) if mirror else torch.zeros_like(mass)])
    frequency = torch.fft.rfftfreq(len(line), device=line.device, dtype=line.dtype)
    kernel = torch.exp(-2 * (torch.pi * frequency * (bandwidth / width)).square())
    smoothed: Tensor = torch.fft.irfft(torch.fft.rfft(line) * kernel, n=len(line))[: len(mass)]  # eq-kde
    return smoothed.clamp(min=0) / (mass.sum() * width)


def quantile_cell(counts: Tensor, r: Tensor) -> Tensor:
    """Return the place, in cells from 0, where the share r of the counts is reached; linear within a cell."""
    below = counts.cumsum(0)
    wanted = r * below[-1]
    # eq-quantile
    cell = torch.searchsorted(below, wanted.ceil().long().clamp(min=1).minimum(below[-1]))
    own = counts.gather(0, cell)  # counts[cell] would wait for a GPU, to learn the cell
    inside = (wanted - (below.gather(0, cell) - own)) / own
    return (cell + inside.clamp(0, 1)).to(r.dtype)


def quantile_and_slope(
    scores: Sequence[Tensor], r: Tensor, grid: int = GRID, bandwidth: Bandwidth = "silverman"
) -> tuple[Tensor, Tensor]:
    """Return t(r) and dt/dr = 1 / f(t) of flat scores, as `quantile` does, but without checks.

    The slope is capped where f vanishes: f counts as at least one score per bandwidth, since fewer say
    nothing about a density. If all scores are equal, the slope is 0 to within the width of a cell.
    """
    top = torch.stack([part.max() for part in scores]).max().clamp(min=1e-30)
    counts = histogram(scores, grid, top)
    width = top / grid
    cell = quantile_cell(counts, r)
    h = kernel_width(counts, width, bandwidth)
    density = smooth(counts, width, h, mirror=True)
    # the density is known at the middle of each cell: interpolate between the two around t
    place = (cell - 0.5).clamp(0, grid - 1)
    left = place.floor().long().clamp(max=grid - 2)
    f = torch.lerp(density.gather(0, left), density.gather(0, left + 1), place - left)
    least = 1 / (counts.sum() * h)
    return cell * width, 1 / f.maximum(least)  # eq-slope


def require_smoothing(grid: int, bandwidth: Bandwidth) -> None:
    """Raise a ValueError unless grid and bandwidth are in range."""
    require_whole("grid", grid, 16)
    if isinstance(bandwidth, str):
        require_one_of("bandwidth", bandwidth, ("scott", "silverman"))
    else:
        require_positive("bandwidth", bandwidth)


class _Quantile(torch.autograd.Function):
    """t(r) forward, dt/dr = 1 / f(t) backward."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, scores: Tensor, grid: int, bandwidth: Bandwidth) -> Tensor:
        threshold, slope = quantile_and_slope([scores], r, grid, bandwidth)
        ctx.save_for_backward(slope)
        return threshold

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None, None
