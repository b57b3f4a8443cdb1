import math

import pytest
import torch
from small import METHODS, network, zeros

import prunebook as pb
from prunebook.masking import masks
from prunebook.methods.gates import gates
from prunebook.methods.schedules import cubic, exponential, linear, one_shot, prune_gradually, ramp
from prunebook.methods.soft import thresholds
from prunebook.methods.weights import exact_count, prune_weights

CURVES = [one_shot, linear, cubic, exponential]


@pytest.mark.parametrize("curve", CURVES)
def test_curves_rise_to_one(curve):
    values = [curve(i / 20) for i in range(21)]
    assert values == sorted(values)
    assert values[-1] == 1
    assert curve is one_shot or values[0] == 0
    for progress in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=f"progress must be a share, .* at most 1, got {progress}"):
            curve(progress)


def test_formulas_of_the_curves():
    assert [one_shot(p) for p in (0, 0.5)] == [1, 1]
    assert [linear(p) for p in (0, 0.25)] == [0, 0.25]
    assert cubic(0.5) == 0.875
    assert exponential(0.5) == pytest.approx((1 - math.exp(-2.5)) / (1 - math.exp(-5)), rel=1e-15)
    # equal shares of what is left: 90 % pruned in two steps leaves sqrt(0.1) after the first
    assert 0.9 * exponential(0.5, rate=math.log(10)) == pytest.approx(1 - math.sqrt(0.1), rel=1e-12)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("curve", CURVES)
def test_gradual_pruning_follows_its_curve(curve, scope):
    model = network()
    schedule = prune_gradually(model, 80, curve, scope, start=0.2, end=0.6, updates=4)
    assert list(masks(model)) == ["0.weight", "2.weight"]
    sizes = [60, 40] if scope == "layer" else [100]
    steps = [(0.0, None), (0.19, None), (0.21, 0), (0.35, 1), (0.39, 1), (0.45, 2), (0.6, 4), (0.99, 4)]
    for progress, step in steps:
        schedule(progress)
        share = 0 if step is None else curve(step / 4)
        assert zeros(model) == sum(exact_count(80 * share, n) for n in sizes)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("end", [0.1, 0.75, 0.99])
def test_a_run_of_any_length_ends_at_k(steps, end):
    model = network()
    schedule = prune_gradually(model, 90, end=end)
    for step in range(steps):
        schedule(step / steps)
    if zeros(model) == 90:
        schedule(1.0)  # nothing was left to do
    else:
        with pytest.warns(
            UserWarning, match=rf"k=90 was reached only after the last step.*end={end:g} and 1"
        ):
            schedule(1.0)
    assert zeros(model) == 90


def test_layers_to_skip_may_come_from_a_generator():
    model = network()
    schedule = prune_gradually(model, 50, skip=(name for name in ["2"]))
    schedule(1.0 - 1e-9)
    assert list(masks(model)) == ["0.weight"]


def test_gradual_pruning_leaves_alone_what_is_ahead():
    model = prune_weights(network(), 50)
    schedule = prune_gradually(model, 80, linear, end=0.5)
    before = masks(model)
    schedule(0.2)
    assert all(torch.equal(mask, before[name]) for name, mask in masks(model).items())
    schedule(0.5)
    assert zeros(model) == 80


def test_gradual_pruning_refuses():
    for start, end in [(-0.1, 0.5), (0.5, 0.5), (0.0, 1.0), (0.0, math.nan)]:
        with pytest.raises(ValueError, match=f"0 <= start < end < 1, got {start} and {end}"):
            prune_gradually(network(), 50, start=start, end=end)
    with pytest.raises(ValueError, match="updates must be a whole number of at least 1, got 0"):
        prune_gradually(network(), 50, updates=0)
    with pytest.raises(ValueError, match="scope must be"):
        prune_gradually(network(), 50, scope="all")
    with pytest.raises(ValueError, match=r"k must be a percentage from 0 to 100, got 100\.5"):
        prune_gradually(network(), 100.5)


def test_a_ramp_by_hand():
    assert [ramp(p, 0.5) for p in (0, 0.125, 0.5, 0.75)] == [0, 0.25, 1, 1]
    assert [ramp(p, 0.75, start=0.25) for p in (0, 0.25, 0.5, 1)] == [-0.5, 0, 0.5, 1]


@pytest.mark.parametrize("value", [0.0, -1.0, 1.1, math.nan])
def test_schedules_out_of_range_are_refused(value):
    soft, gumbel = pb.SoftPruning(network(), 50), pb.GumbelPruning(network())
    above = f"must be a share, above 0 and at most 1, got {value}"
    for call, name in (
        (lambda: soft.anneal(value), "factor"),
        (lambda: soft.anneal(0.1, until=value), "until"),
        (lambda: gumbel.fall(value), "target_density"),
        (lambda: gumbel.fall(0.1, until=value), "until"),
        (lambda: gumbel.anneal(0.1, until=value), "until"),
    ):
        with pytest.raises(ValueError, match=f"{name} {above}"):
            call()
    with pytest.raises(ValueError, match=r"tau must be above 0 and finite, got 0"):
        gumbel.anneal(0)


@pytest.mark.parametrize(
    ("method", "options", "moves", "quantity", "to", "until"),
    [
        ("soft", {"relative_tau": 0.5}, "anneal", "tau", 1e-4, 0.75),  # a factor, where Gumbel has a value
        ("gumbel", {"tau": 4.0}, "anneal", "tau", 0.25, 0.75),
        ("gumbel units", {"tau": 4.0}, "anneal", "tau", 8.0, 0.75),
        ("gumbel", {"target_density": 1.0}, "fall", "target_density", 0.01, 0.6),
    ],
)
def test_quantities_move_by_equal_factors(method, options, moves, quantity, to, until):
    pruning = METHODS[method](network(), **options)
    start = getattr(pruning, quantity)
    factor = to if method == "soft" else to / start
    for end in (until, 0.5):
        schedule = getattr(pruning, moves)(to, **{} if end == until else {"until": end})
        for share in (0.0, 0.25, 0.5, 1.0, 0.125):  # no state: back is possible
            schedule(share * end)
            assert getattr(pruning, quantity) == pytest.approx(start * factor**share, rel=1e-5)
        schedule(1.0)
        assert getattr(pruning, quantity) == pytest.approx(start * factor, rel=1e-5)
        schedule(0.0)


def test_all_temperatures_move_together():
    soft, gumbel = pb.SoftPruning(network(), 50), pb.GumbelPruning(network())
    before = [threshold.tau().item() for threshold in thresholds(soft.model)]
    soft.anneal(0.01, until=1.0)(0.5)
    found = [threshold.tau().item() for threshold in thresholds(soft.model)]
    assert found == pytest.approx([0.1 * tau for tau in before], rel=1e-5)
    gumbel.anneal(4.0)(1.0)
    assert {gate.tau.item() for gate in gates(gumbel.model).values()} == {4.0}
