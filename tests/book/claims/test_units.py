"""What book/units.ipynb says about its stored table and about the small layers that it prunes by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from pandas import DataFrame, read_csv
from torch import nn

import prunebook as pb

TABLE = read_csv(Path(__file__).parents[3] / "book/results/pruning.csv")
PRUNED = TABLE[TABLE.epochs_after == 0]
UNITS = PRUNED.query("method == 'units' and k > 0").groupby("k").validation_accuracy
SPREAD = 100 * UNITS.agg(["min", "mean", "max"])
REPORTED = [97.06, 95.91, 94.45, 89.88, 60.73, 42.70, 29.62, 10.93, 9.28]  # from k = 25 to 99, as SPREAD
DENSE = 2_386_000  # weights of 784-1000-1000-500-200-10

W = torch.tensor([[3.0, 4.0], [0.6, 0.8], [-5.0, 12.0]])
B = torch.tensor([0.0, 2.0, 1.0])
W_NEXT = torch.tensor([[1.0, 10.0, 2.0], [4.0, -1.0, 1.0]])
MASK = torch.tensor([[1.0], [0.0], [1.0]])
X = torch.tensor([[1.0, 1.0], [-4.0, 7.0]])


def tuned() -> DataFrame:
    rows = TABLE.query("epochs_after > 0 and (k == 0 or method == 'units')")
    return 100 * rows.pivot_table("validation_accuracy", "seed", "k")


def weights_of(*sizes):
    return sum(before * after for before, after in pairwise(sizes))


def test_the_table_holds_three_seeds_and_four_epochs_of_training_on():
    assert sorted(TABLE.seed.unique()) == [0, 1, 2]
    assert set(TABLE.epochs_after) == {0, 4}


def test_the_star_is_of_units_pruned_and_trained_on():
    assert set(TABLE.query("epochs_after > 0 and k == 80").method) == {"units"}


def test_weights_at_80_percent_lose_less_than_two_points():
    means = 100 * PRUNED.query("method == 'weights'").groupby("k").validation_accuracy.mean()
    assert means[0] - means[80] < 2


def test_up_to_50_percent_ours_and_the_report_agree_to_one_and_a_half_points():
    assert (SPREAD["mean"] - REPORTED).loc[[25, 50]].abs().max() < 1.5


def test_from_60_percent_on_the_report_lies_within_our_range_at_90_percent_only():
    inside = (SPREAD["min"] <= REPORTED) & (SPREAD["max"] >= REPORTED)
    inside = inside[inside.index >= 60]
    assert [*inside[inside].index] == [90]


def test_at_90_percent_our_seeds_differ_by_more_than_20_points():
    assert (SPREAD["max"] - SPREAD["min"]).loc[90] > 20


def test_trained_on_the_network_without_80_percent_of_its_units_loses_about_half_a_point():
    fair = tuned()
    assert 0.3 < fair[0].mean() - fair[80].mean() < 0.7


def test_80_percent_of_the_units_take_91_percent_of_the_weights_with_them():
    left = weights_of(784, 200, 200, 100, 40, 10) / weights_of(784, 1000, 1000, 500, 200, 10)
    assert weights_of(784, 1000, 1000, 500, 200, 10) == DENSE
    assert round(100 * (1 - left)) == 91


def test_half_of_the_units_leave_a_third_of_the_multiplications():
    assert round(DENSE / weights_of(784, 500, 500, 250, 100, 10)) == 3


def test_by_hand_the_lengths_of_the_rows_are_5_1_and_13():
    assert W.norm(dim=1).allclose(torch.tensor([5.0, 1.0, 13.0]))


def test_by_hand_the_silent_unit_says_2_whatever_the_input_is():
    hidden = (X @ (W * MASK).T + B).relu()
    assert hidden[:, 1].tolist() == [2.0, 2.0]


def test_by_hand_folding_the_bias_and_removing_the_unit_changes_no_output():
    folded = B[1].relu() * W_NEXT[:, 1]
    assert folded.tolist() == [20.0, -2.0]
    keep = [0, 2]
    smaller = (X @ W[keep].T + B[keep]).relu() @ W_NEXT[:, keep].T + folded
    assert smaller.equal((X @ (W * MASK).T + B).relu() @ W_NEXT.T)


def test_half_of_the_units_with_sigmoids_go_the_shortest_and_the_outputs_stay():
    torch.manual_seed(0)
    toy = pb.mlp([784, 300, 100, 10], activation=nn.Sigmoid).double()
    weakest = toy[1].weight.norm(dim=1).argsort()[:150]
    small = pb.shrink(pb.prune_units(toy, 50))
    silent = (toy[1].weight == 0).all(dim=1).nonzero().flatten()
    assert silent.equal(weakest.sort().values)
    assert [layer.out_features for layer in small[1::2]] == [150, 50, 10]
    images = torch.rand(100, 1, 28, 28, dtype=torch.float64)
    assert (toy(images) - small(images)).abs().max() < 1e-12


def test_pruning_over_all_layers_warns_of_a_layer_that_would_lose_all_its_units():
    lopsided = pb.mlp([784, 100, 100, 10])
    nn.init.normal_(lopsided[1].weight, std=0.001)
    with pytest.warns(UserWarning, match=r"no unit in layers \['1'\]"):
        pb.prune_units(lopsided, 50, scope="global")


def test_behind_a_padded_convolution_silent_sigmoids_stay_and_the_report_says_so():
    padded = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 2, 3, padding=1))
    _, report = pb.shrink(pb.prune_units(padded, 50), report=True)
    assert "2 idle units stay" in str(report)
