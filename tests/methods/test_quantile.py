import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small import Operations

from prunebook.methods.quantile import fft_kde, histogram, kernel_width, quantile, quantile_and_slope, smooth

WAITS = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "lift_fresh", "is_nonzero", "equal")
scores_up_to_100 = st.lists(st.floats(0, 100, width=32, allow_subnormal=False), min_size=1, max_size=40)


class OnCuda(torch.Tensor):
    """A CPU tensor that says, as do those computed from it, that it is on a GPU."""

    is_cuda = True


def normal(n=1_000_000, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def uniform(n=1_000_000, seed=0):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def bimodal():
    """Two overlapping clusters, at 0.5 and 1.5."""
    return (0.3 * normal() + torch.tensor([0.5, 1.5]).repeat(500_000)).abs()


def slope_at(scores, r, **options):
    r = torch.tensor(r, requires_grad=True)
    quantile(scores, r, **options).backward()
    return r.grad.item()


def test_half_of_four_weights():
    # cells of width 1/4; 2 lies in [2, 2.25), whose upper edge is reached with the second of four scores
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert quantile(scores, 0.5, grid=16).item() == 2.25
    assert quantile(scores, 0.25, grid=16).item() == 1.25
    assert quantile(scores, 0.125, grid=16).item() == 1.125  # half of the first score, half of its cell
    assert quantile(scores, 0.0, grid=16).item() == 1
    assert quantile(scores, 1.0, grid=16).item() == 4


def test_slope_of_a_full_grid_is_the_range():
    # one score in the middle of each cell is the uniform density 1/2 from 0 to 2: t = 2 r
    scores = (torch.arange(16) + 0.5) / 8
    scores[-1] = 2
    for r in (0.0, 0.3, 0.5, 1.0):
        assert quantile(scores, r, grid=16).item() == pytest.approx(2 * r, abs=1e-6)
        assert slope_at(scores, r, grid=16) == pytest.approx(2, rel=1e-5)


def test_slope_in_a_gap_is_n_times_the_bandwidth():
    # the 1001st of 2001 scores is alone: f = 1 / (n h sqrt(2 pi)) is less than one score per bandwidth
    scores = torch.cat([torch.full((1000,), 1.0), torch.tensor([5.0]), torch.full((1000,), 10.0)])
    assert quantile(scores, 1000.5 / 2001).item() == pytest.approx(5, abs=10 / 4096)
    assert slope_at(scores, 1000.5 / 2001, bandwidth=0.05) == pytest.approx(2001 * 0.05, rel=1e-5)


@pytest.mark.parametrize(("value", "n"), [(3.0, 1000), (0.0, 1000), (1e-20, 10), (7.0, 1)])
def test_constant_scores_have_no_slope_and_a_finite_density(value, n):
    scores = torch.full((n, 1), value)
    for r in (0.0, 0.5, 1.0):
        assert quantile(scores, r).item() == pytest.approx(value, rel=1 / 4096)
        assert quantile(scores, r).shape == ()
        assert 0 < slope_at(scores, r) <= max(3 * value / 4096, 1e-30)
    for reflect in (True, False):
        points, density = fft_kde(scores.flatten(), reflect=reflect)
        assert points.isfinite().all()
        assert density.isfinite().all()
        assert density.sum() > 0


@settings(max_examples=200)
@given(scores_up_to_100, st.integers(0, 64), st.sampled_from([16, 100, 4096]))
def test_quantile_is_the_order_statistic_to_a_cell(values, sixtyfourths, grid):
    t = quantile(torch.tensor(values), sixtyfourths / 64, grid=grid).item()
    exact = np.quantile(values, sixtyfourths / 64, method="inverted_cdf")
    assert abs(t - exact) <= max(max(values), 1e-30) * (1 / grid + 5e-7)  # and what float32 rounds


@settings(max_examples=100)
@given(scores_up_to_100, st.floats(0, 1), st.floats(0, 1))
def test_quantile_is_monotone_and_the_slope_in_its_range(values, one, other):
    scores, (low, high) = torch.tensor(values), sorted([one, other])
    assert quantile(scores, low) <= quantile(scores, high)
    t, slope = quantile_and_slope([scores], torch.tensor(low), bandwidth=1.0)
    h = max(1.0, max(values) / 4096)
    assert 0 <= t <= max(max(values), 1e-30) * (1 + 1e-6)
    assert 0 < slope <= len(values) * h * (1 + 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantile_is_that_of_torch(dtype):
    scores = normal(100_000).abs().to(dtype)
    for r in (0.0, 0.01, 0.5, 0.9, 0.999, 1.0):
        t = quantile(scores, r)
        assert t.dtype == dtype
        assert (t - torch.quantile(scores, r)).abs() <= scores.max() / 4096
    wide = normal(40).abs().view(5, 8)
    assert torch.equal(quantile(wide, 0.3), quantile(wide.t(), 0.3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_not_rounded_further(dtype):
    scores = normal(200_000).abs().to(dtype)  # a float16 ends at 65504, a bfloat16 knows 0.99 to 0.002
    for r in (0.5, 0.99, 0.9995):
        t = quantile(scores, r)
        assert t.dtype == dtype
        assert torch.equal(t, quantile(scores.float(), r).to(dtype))
        assert slope_at(scores, r) == slope_at(scores.float(), r)
    points, density = fft_kde(scores)
    assert points.dtype == density.dtype == torch.float32
    assert torch.equal(density, fft_kde(scores.float())[1])


@pytest.mark.parametrize(
    "make",
    [
        normal,
        lambda: normal().abs(),
        uniform,
        lambda: -(1 - uniform()).log(),  # exponential
        bimodal,
        lambda: torch.cat([0.02 * normal(900_000), 0.05 * normal(100_000)]),  # as of two layers
    ],
)
def test_slope_is_that_of_the_empirical_quantile(make):
    scores = make().abs()
    ordered = scores.double().sort().values.numpy()
    for r in np.linspace(0.05, 0.95, 19).tolist():
        above, below = np.quantile(ordered, [r + 0.01, r - 0.01], method="inverted_cdf")
        assert slope_at(scores, r) == pytest.approx((above - below) / 0.02, rel=0.05), r


def test_slope_is_one_over_the_true_density():
    scores = normal().abs()
    for r in (0.02, 0.3, 0.8, 0.99):
        t = stats.halfnorm.ppf(r)
        assert slope_at(scores, r) == pytest.approx(1 / stats.halfnorm.pdf(t), rel=0.04)


def test_gradient_flows_to_r_and_not_to_the_scores():
    scores, r = normal(100).abs().requires_grad_(), torch.tensor([0.5], requires_grad=True)
    t = quantile(scores, r)
    assert t.shape == (1,)
    (3 * t).sum().backward()
    assert scores.grad is None
    assert r.grad.item() == pytest.approx(3 * slope_at(scores.detach(), 0.5), rel=1e-6)
    assert not quantile(scores, 0.5).requires_grad
    other = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    quantile(scores, other).backward()
    assert other.grad.dtype == torch.float64


def test_the_slope_has_no_gradient_of_its_own():
    r = torch.tensor(0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(quantile(normal(100).abs(), r).square(), r, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.backward()


def test_counts_are_exact_beyond_what_a_float_counts():
    n = 2**24 + 3
    counts = histogram([torch.ones(n), torch.zeros(2)], 16, torch.tensor(1.0))
    assert counts.dtype == torch.int64
    assert counts.tolist() == [2] + [0] * 14 + [n]


@settings(max_examples=50)
@given(scores_up_to_100, st.sampled_from([16, 100, 4096]))
def test_counts_are_the_same_on_a_gpu(values, grid):
    scores = torch.tensor(values)
    top = scores.max().clamp(min=1e-30)
    cpu, gpu = histogram([scores], grid, top), histogram([scores.as_subclass(OnCuda)], grid, top)
    assert torch.equal(cpu, gpu.as_subclass(torch.Tensor))
    assert cpu.sum() == len(values)
    assert cpu[-1] >= 1 or scores.max() < top  # the largest


def test_counts_are_those_of_numpy():
    scores = uniform(10_000)
    counts = histogram([scores[:3000], scores[3000:]], 64, torch.tensor(1.0))
    assert counts.tolist() == np.histogram(scores.numpy(), 64, (0, 1))[0].tolist()


@pytest.mark.parametrize("bandwidth", ["silverman", "scott", 0.1])
def test_a_gpu_is_never_made_to_wait(bandwidth):
    scores, r = normal(1000).abs(), torch.tensor(0.9)
    expected = quantile_and_slope([scores], r, bandwidth=bandwidth)
    with Operations() as seen:
        found = quantile_and_slope([scores.as_subclass(OnCuda)], r, bandwidth=bandwidth)
    assert "scatter_add_.default" in seen.names
    assert [name for name in seen.names if name.startswith(WAITS)] == []
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_the_check_for_waiting_sees_it():
    for wait in (lambda: normal(5)[torch.tensor(2)], lambda: float(normal(1)), lambda: torch.tensor([1.0])):
        with Operations() as seen:
            wait()
        assert any(name.startswith(WAITS) for name in seen.names)


def factor(samples, h):
    """What scipy multiplies its own standard deviation with."""
    return h / samples.std(correction=1).item()


def test_density_of_one_sample_is_the_kernel():
    points, density = fft_kde(torch.tensor([3.0]).double(), bandwidth=0.5, reflect=False)
    assert points[0] > 1
    assert points[-1] < 5
    kernel = torch.exp(-2 * (points - 3) ** 2) / (0.5 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(density, kernel, atol=3e-3, rtol=0)  # the sample moves by up to half a cell


def test_reflection_adds_the_mirror_image():
    points, density = fft_kde(torch.tensor([0.5, 2.0]).double(), bandwidth=0.5)
    assert points[0] == pytest.approx((points[1] - points[0]).item() / 2)
    true = sum(stats.norm.pdf(points, at, 0.5) for at in (-2, -0.5, 0.5, 2)) / 2
    torch.testing.assert_close(density, torch.tensor(true), atol=3e-3, rtol=0)


@pytest.mark.parametrize("bandwidth", ["scott", "silverman", 0.2])
@pytest.mark.parametrize("reflect", [True, False])
def test_density_is_that_of_scipy(bandwidth, reflect):
    samples = normal(2000) * 2 + 1
    samples = samples.abs() if reflect else samples
    deviation = samples.std(correction=0).item()
    quarter, three_quarters = np.quantile(samples, [0.25, 0.75])
    h = {
        "scott": deviation * 2000**-0.2,
        "silverman": 0.9 * min(deviation, (three_quarters - quarter) / 1.34) * 2000**-0.2,
    }.get(bandwidth, bandwidth)
    points, density = fft_kde(samples.double(), bandwidth=bandwidth, reflect=reflect)
    theirs = torch.tensor(stats.gaussian_kde(samples.double(), factor(samples, h))(points))
    inside = (theirs > 0.05 * theirs.max()) & ((points > 4.5 * h) | (not reflect))
    assert inside.sum() > 400
    assert (density / theirs - 1)[inside].abs().max() < 0.01


@pytest.mark.parametrize(("law", "near"), [(stats.halfnorm, 0.03), (stats.expon, 0.1)])
def test_density_at_the_boundary_is_the_true_one_where_that_of_scipy_is_half(law, near):
    samples = torch.tensor(law.ppf((np.arange(100_000) + 0.5) / 100_000))
    points, density = fft_kde(samples)
    assert density[0].item() == pytest.approx(law.pdf(0), rel=near)
    assert stats.gaussian_kde(samples)(0)[0] == pytest.approx(law.pdf(0) / 2, rel=0.1)
    at, leaking = fft_kde(samples, reflect=False)
    assert leaking[at.abs().argmin()] < 0.6 * law.pdf(0)
    bulk = (points > 0.5) & (points < 2)
    np.testing.assert_allclose(density[bulk], law.pdf(points[bulk]), rtol=0.02)


@settings(max_examples=150)
@given(
    st.lists(st.floats(-100, 100, width=32, allow_subnormal=False), min_size=1, max_size=30),
    st.sampled_from(["scott", "silverman", 1e-9, 0.5, 200.0]),
    st.booleans(),
    st.sampled_from([16, 100, 1024]),
)
def test_density_integrates_to_one(values, bandwidth, reflect, grid):
    samples = torch.tensor(values, dtype=torch.float64)
    points, density = fft_kde(samples.abs() if reflect else samples, grid, bandwidth, reflect)
    assert len(points) == len(density) == grid
    assert (density >= 0).all()
    assert (density.sum() * (points[1] - points[0])).item() == pytest.approx(1, abs=0.01)
    assert points[-1] > samples.max()


def test_error_falls_with_the_grid():
    samples = normal(500).double()
    theirs = stats.gaussian_kde(samples, factor(samples, 0.2))
    errors = []
    for grid in (32, 128, 512, 2048):
        points, density = fft_kde(samples, grid, 0.2, reflect=False)
        errors.append(np.abs(density.numpy() - theirs(points)).max())
    assert all(fine < coarse / 3 for coarse, fine in pairwise(errors))
    assert errors[-1] < 1e-3


def test_formulas_of_the_bandwidths():
    samples = normal(10_000).square()
    top = samples.max()
    counts, width = histogram([samples], 4096, top), top / 4096
    deviation, n = samples.std(correction=0).item(), 10_000**-0.2
    middle = np.subtract(*np.quantile(samples, [0.75, 0.25])) / 1.34
    assert middle < deviation
    assert kernel_width(counts, width, "scott").item() == pytest.approx(deviation * n, rel=1e-3)
    assert kernel_width(counts, width, "silverman").item() == pytest.approx(0.9 * middle * n, rel=2e-3)
    assert kernel_width(counts, width, 0.25).item() == 0.25
    assert kernel_width(counts, width, 1e-9) == width
    two = torch.tensor([500, *[0] * 98, 500])  # here the quartiles are far apart, and the deviation counts
    assert kernel_width(two, torch.tensor(1.0), "silverman").item() == pytest.approx(
        0.9 * 49.5 * 1000**-0.2, rel=1e-5
    )


def test_smoothing_by_hand():
    # of one count in the middle cell the neighbours get exp(-1/2) of what it keeps, with h of one cell
    counts = torch.zeros(101, dtype=torch.int64)
    counts[50] = 3
    density = smooth(counts, torch.tensor(0.5), torch.tensor(1.0), mirror=False)
    assert density.argmax() == 50
    assert (density[52] / density[50]).item() == pytest.approx(math.exp(-0.5), rel=1e-4)
    assert density[50].item() == pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-4)
    counts = torch.tensor([4, *[0] * 99])
    leaks, mirrored = (
        smooth(counts, torch.tensor(1.0), torch.tensor(5.0), mirror) for mirror in (False, True)
    )
    assert mirrored.sum().item() == pytest.approx(1, rel=1e-5)
    assert leaks.sum().item() == pytest.approx(0.5 + 0.5 / (5 * math.sqrt(2 * math.pi)), rel=1e-3)


@pytest.mark.parametrize("r", [-0.001, 1.001, math.nan, math.inf])
def test_shares_out_of_range_are_refused(r):
    for value in (r, torch.tensor(r, requires_grad=True), torch.tensor([r, 0.2])):
        with pytest.raises(ValueError, match=f"r must be one share from 0 to 1, got .*{str(r)[:4]}"):
            quantile(torch.ones(3), value)
    with pytest.raises(ValueError, match="r must be one share"):
        quantile(torch.ones(3), torch.tensor([0.1, 0.2]))


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ([1.0], {"grid": 15}, "grid must be a whole number of at least 16, got 15"),
        ([1.0], {"bandwidth": 0}, "bandwidth must be above 0 and finite, got 0"),
        ([1.0], {"bandwidth": "Scott"}, "bandwidth must be 'scott' or 'silverman', got 'Scott'"),
        ([], {}, "scores must have at least one element, got an empty tensor"),
        ([1.0, -2.0], {}, r"scores must be at least 0, got -2\.0"),
    ],
)
def test_scores_and_smoothing_out_of_range_are_refused(scores, options, message):
    for call in (lambda *args, **options: quantile(*args, 0.5, **options), fft_kde):
        with pytest.raises(ValueError, match=message):
            call(torch.tensor(scores), **options)
