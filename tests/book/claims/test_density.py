"""What the chapter on the slope of a quantile works out by hand, and what it says about a stored table."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from pandas import read_csv

import prunebook as pb

TOY = torch.tensor([1.0, 2, 3, 4, 5, 6, 8, 16])


def bumps(x: torch.Tensor, scores: torch.Tensor, h: float) -> torch.Tensor:
    z = (x[:, None] - scores) / h
    return torch.exp(-z.square() / 2) / (len(scores) * h * math.sqrt(2 * math.pi))


def test_in_the_crowd_the_slope_is_8_and_at_the_end_of_the_tail_64():
    slopes = TOY.diff() / (torch.arange(1, 9) / 8).diff()
    assert slopes.tolist() == [8, 8, 8, 8, 8, 16, 64]
    assert (TOY <= 4).float().mean() == 0.5


def test_bumps_of_width_1_add_up_to_an_eighth_in_the_crowd_and_to_one_bump_in_the_tail():
    at_3, at_16 = bumps(torch.tensor([3.0, 16.0]), TOY, h=1.0).sum(dim=1).tolist()
    assert abs(at_3 - 1 / 8) < 0.002
    assert abs(at_16 - 0.05) < 0.001


def test_a_fourier_transform_blurs_counts_as_by_hand():
    counts = torch.tensor([0, 4.0, 0, 0, 0, 8, 0, 0])
    blur = torch.tensor([0.5, 0.25, 0, 0, 0, 0, 0, 0.25])
    blurred = torch.fft.irfft(torch.fft.rfft(counts) * torch.fft.rfft(blur), n=8)
    assert blurred.allclose(torch.tensor([1.0, 2, 1, 0, 2, 4, 2, 0]))


def test_the_estimate_by_fft_agrees_with_the_sum_of_bumps():
    points, fast = pb.fft_kde(TOY, bandwidth=1.0, reflect=False)
    assert fast.allclose(bumps(points, TOY, h=1.0).sum(dim=1), atol=1e-3)


def test_the_package_finds_threshold_3_and_slope_8_as_by_hand():
    r = torch.tensor(3 / 8, requires_grad=True)
    t = pb.quantile(TOY, r, bandwidth=1.0)
    t.backward()
    assert abs(t.item() - 3) < 0.01
    assert abs(r.grad.item() - 8) < 0.15


def test_at_the_score_16_the_slope_is_capped_at_8():
    r = torch.tensor(1.0, requires_grad=True)
    pb.quantile(TOY, r, bandwidth=1.0).backward()
    assert abs(r.grad.item() - 8) < 1e-3


def test_in_float32_two_to_the_24_stays_what_it_is_if_1_is_added():
    full = torch.tensor(2.0**24)
    assert bool(full + 1 == full)
    assert int(full) == 16_777_216


@pytest.mark.parametrize("scores", [[1.0, math.nan], [-1.0]])
def test_what_is_not_an_absolute_value_has_no_quantile(scores):
    with pytest.raises(ValueError, match="scores"):
        pb.quantile(torch.tensor(scores), 0.5)


def test_from_a_million_scores_on_threshold_and_slope_take_less_than_a_tenth_of_a_sort():
    times = read_csv(Path(__file__).parents[3] / "book/results/density.csv").query("device == 'cpu'")
    sorted_too = times[(times["n"] >= 1_000_000) & times["seconds_sort"].notna()]
    assert len(sorted_too)
    assert (sorted_too["seconds_quantile"] < 0.1 * sorted_too["seconds_sort"]).all()


def test_for_a_hundred_million_scores_they_take_less_than_a_second():
    times = read_csv(Path(__file__).parents[3] / "book/results/density.csv").query("device == 'cpu'")
    assert times["n"].max() == 100_000_000
    assert times["n"].iloc[-1] == 100_000_000
    assert times["seconds_quantile"].iloc[-1] < 1
