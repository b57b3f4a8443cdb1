"""What the chapter on adaptive pruning says about its stored table, and its example by hand."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pandas as pd
import pytest
import torch

import prunebook as pb
from prunebook.book.paired import lead
from prunebook.methods.adaptive import settled

ROWS = pd.read_csv(Path(__file__).parents[3] / "book/results/adaptive.csv")
PERCENT = ROWS.assign(
    test=100 * ROWS["test_accuracy"],
    accuracy=100 * ROWS["validation_accuracy"],
    zeros=100 * (1 - ROWS["density"]),
)
THESIS = PERCENT.query("experiment == 'thesis' and method == 'adaptive'")
SETTINGS = THESIS.groupby(["r", "lam"])[["test", "zeros"]].mean()
DENSE = PERCENT.query("experiment == 'thesis' and method == 'dense'")["test"].mean()
STARTS = PERCENT.query("experiment == 'start'").groupby(["lam", "r"])["zeros"].mean()
CONTROLS = PERCENT.query("experiment == 'control'")
CONTROL = CONTROLS.groupby("method")[["accuracy", "zeros"]].mean()
BEST = PERCENT.query("experiment == 'best'").groupby("method")[["test", "zeros"]].mean()


def test_the_four_settings_of_the_thesis_come_from_five_seeds_each():
    assert (THESIS.groupby(["r", "lam"])["seed"].nunique() == 5).all()
    assert len(SETTINGS) == 4


def test_from_one_half_with_the_penalty_there_are_more_zeros_and_a_higher_accuracy_than_reported():
    assert SETTINGS.loc[(0.5, 10), "zeros"] > 95.3
    assert SETTINGS.loc[(0.5, 10), "test"] > 98.1


def test_from_95_percent_with_the_penalty_the_accuracy_is_higher_and_the_zeros_fall_just_short():
    assert SETTINGS.loc[(0.95, 10), "test"] > 97.2
    assert 97.6 < SETTINGS.loc[(0.95, 10), "zeros"] < 97.9


def test_the_dense_network_reaches_97_8_percent_which_is_less_than_from_one_half_with_the_penalty():
    assert 97.75 < DENSE < 97.85
    assert SETTINGS.loc[(0.5, 10), "test"] > DENSE


def test_with_the_penalty_the_two_starts_do_not_meet():
    zeros = THESIS.query("lam == 10").groupby("r")["zeros"]
    assert zeros.max()[0.5] == pytest.approx(96.75, abs=0.06)
    assert zeros.min()[0.95] == pytest.approx(97.62, abs=0.06)


def test_without_a_penalty_r_sinks_but_not_to_0():
    assert round(SETTINGS.loc[(0.5, 0), "zeros"]) == 43
    assert round(SETTINGS.loc[(0.95, 0), "zeros"]) == 64


def test_hardening_moves_no_accuracy_by_more_than_0_2_points():
    assert (THESIS["soft_accuracy"] - THESIS["validation_accuracy"]).abs().max() < 0.002


def test_with_the_penalty_r_ends_between_90_and_96_percent_from_every_start():
    assert STARTS[10].min() > 90
    assert STARTS[10].max() < 96
    assert STARTS[10, 0.1] == pytest.approx(91, abs=1)
    assert STARTS[10, 0.9] == pytest.approx(96, abs=1)


def test_without_the_penalty_only_the_highest_of_five_starts_falls():
    assert 45 < STARTS[0, 0.1] < 55
    assert 45 < STARTS[0, 0.3] < 55
    assert STARTS[0, 0.5] == pytest.approx(57, abs=1)
    assert STARTS[0, 0.7] == pytest.approx(68, abs=1)
    assert STARTS[0, 0.9] == pytest.approx(86, abs=1)
    paths = PERCENT.query("experiment == 'start' and lam == 0").groupby("r")["ratios"]
    rises = {r: [float(p.split()[-1]) > float(p.split()[0]) for p in group] for r, group in paths}
    assert not any(rises.pop(0.9))
    assert all(chain(*rises.values()))


def test_without_a_penalty_r_rises_from_one_half_at_first_and_ends_below_it():
    for text in THESIS.query("r == 0.5 and lam == 0")["ratios"]:
        path = [float(r) for r in text.split()]
        assert 0.55 < max(path[:3]) < 0.58
        assert path[-1] < 0.5


def test_the_replayed_run_is_equal_to_the_learned_one_to_the_last_digit():
    same = ["kept", "ratios", "taus", "accuracies", "test_accuracy"]
    learned, replayed = (
        CONTROLS[CONTROLS["method"] == name][same].values.tolist() for name in ("adaptive", "replayed")
    )
    assert learned == replayed


def against_the_learned_run(method, column="validation_accuracy"):
    return lead(CONTROLS.assign(share=CONTROLS["zeros"] / 100), method, "adaptive", column)


def test_each_control_has_five_seeds():
    assert {against_the_learned_run(name).seeds for name in ("zero", "flipped", "fixed", "replayed")} == {5}


def test_without_the_pull_of_the_loss_there_are_five_points_more_zeros_and_a_tie_in_accuracy():
    assert against_the_learned_run("zero", "share").low == pytest.approx(5.0, abs=0.05)
    assert against_the_learned_run("zero").tie


def test_with_the_wrong_sign_r_passes_0_985_and_the_accuracy_falls():
    assert CONTROL.loc["flipped", "zeros"] > 98.5
    assert CONTROLS[CONTROLS["method"] == "flipped"]["zeros"].min() > 98
    assert against_the_learned_run("flipped").high < 0


def test_with_the_last_ratio_from_the_first_step_the_accuracy_is_0_4_points_lower():
    found = against_the_learned_run("fixed")
    assert found.mean == pytest.approx(-0.4, abs=0.05)
    assert found.high < 0


def test_the_best_setting_prunes_98_1_percent_and_beats_the_dense_network_of_the_thesis():
    assert BEST.loc["adaptive", "zeros"] > 98
    assert 98.0 < BEST.loc["adaptive", "test"] < 98.3
    assert BEST.loc["adaptive", "test"] > DENSE + 0.2


def test_the_dense_network_trained_the_same_way_stays_ahead_by_0_2_to_0_6_points():
    found = lead(PERCENT.query("experiment == 'best'"), "dense", "adaptive")
    assert (found.low, found.high) == pytest.approx((0.16, 0.57), abs=0.01)


def test_runs_of_the_thesis_settle_from_epoch_13_to_24_or_never_and_creep_on():
    paths = [[float(r) for r in text.split()] for text in THESIS.query("r == 0.5 and lam == 10")["ratios"]]
    when = [next((e for e in range(len(path) + 1) if settled(path[:e])), None) for path in paths]
    assert when.count(None) == 1
    assert {min(filter(None, when)), max(filter(None, when))} == {13, 24}
    crept = [path[-1] - path[at - 1] for path, at in zip(paths, when, strict=True) if at]
    assert max(crept) == pytest.approx(0.012, abs=0.0005)


def test_the_gradient_of_the_threshold_in_the_example_by_hand_is_8_7():
    w = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)

    def loss(t):
        return ((pb.soft_mask(w, t, 4.0) * w).sum() - 12) ** 2

    t, h = torch.tensor(3.0, dtype=torch.float64, requires_grad=True), 1e-5
    loss(t).backward()
    assert t.grad.item() == pytest.approx(8.7, abs=0.05)
    assert loss(t).item() == pytest.approx(2.6, abs=0.05)
    assert (loss(3 + h) - loss(3 - h)).item() / (2 * h) == pytest.approx(t.grad.item(), abs=1e-5)
