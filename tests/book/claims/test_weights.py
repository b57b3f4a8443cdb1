"""What book/weights.ipynb says about its stored table and about the six weights that it prunes by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pandas import read_csv
from torch.nn.utils import prune

import prunebook as pb
from prunebook.methods.weights import choose, exact_count

TABLE = read_csv(Path(__file__).parents[3] / "book/results/pruning.csv").query("method == 'weights'")
PRUNED = TABLE[TABLE.epochs_after == 0].groupby("k").validation_accuracy
TUNED = TABLE[TABLE.epochs_after > 0].groupby("k").validation_accuracy
REPORTED = {25: 97.41, 50: 97.33, 60: 97.22, 70: 97.21, 80: 97.00, 90: 96.40, 95: 93.52, 97: 89.15, 99: 54.79}

WEIGHT = torch.tensor([[0.4, -0.1, 0.2], [-0.2, 0.9, 0.3]])
HALF = torch.tensor([[False, True, True], [True, False, False]])  # what pruning half of them removes


def layer_of(weight):
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def test_the_table_holds_three_seeds():
    assert sorted(TABLE.seed.unique()) == [0, 1, 2]


def test_the_fine_tuned_networks_trained_for_four_more_epochs():
    assert set(TABLE.epochs_after) == {0, 4}


def test_without_fine_tuning_at_97_percent_the_seeds_differ_by_over_three_points():
    assert 100 * (PRUNED.max() - PRUNED.min())[97] > 3


def test_after_fine_tuning_at_95_percent_the_seeds_differ_by_less_than_half_a_point():
    assert 100 * (TUNED.max() - TUNED.min())[95] < 0.5


def test_the_mean_stays_above_96_percent_up_to_80_percent_pruned():
    assert 100 * PRUNED.mean()[[25, 50, 60, 70, 80]].min() > 96


def test_tuned_at_95_percent_beats_the_dense_network_before_tuning():
    assert TUNED.mean()[95] > PRUNED.mean()[0]


def test_tuned_at_95_percent_loses_at_most_half_a_point_against_the_dense_network_trained_as_long():
    assert 100 * (TUNED.mean()[0] - TUNED.mean()[95]) <= 0.5


@pytest.mark.parametrize("k", [25, 50, 60, 70, 80])
def test_up_to_80_percent_the_mean_is_within_a_point_of_the_report(k):
    assert abs(100 * PRUNED.mean()[k] - REPORTED[k]) < 1


@pytest.mark.parametrize("k", [90, 95])
def test_at_90_and_95_percent_the_mean_is_one_to_two_points_lower_than_the_report(k):
    assert -2 < 100 * PRUNED.mean()[k] - REPORTED[k] < -1


@pytest.mark.parametrize("k", [90, 95])
def test_at_90_and_95_percent_the_report_lies_between_our_worst_and_our_best_seed(k):
    assert 100 * PRUNED.min()[k] <= REPORTED[k] <= 100 * PRUNED.max()[k]


def test_by_hand_half_of_the_six_weights_go_as_the_package_chooses_them():
    gone = torch.zeros(2, 3, dtype=torch.bool)
    gone.view(-1)[WEIGHT.abs().flatten().argsort(stable=True)[:3]] = True
    assert gone.equal(HALF)
    (chosen,) = choose([WEIGHT.abs()], exact_count(50, 6))
    assert chosen.equal(gone)
    assert pb.prune_weights(layer_of(WEIGHT), 50).weight.eq(0).equal(gone)


def test_if_two_of_the_six_go_only_the_first_of_the_two_equal_weights_is_among_them():
    (chosen,) = choose([WEIGHT.abs()], exact_count(100 / 3, 6))
    assert chosen.tolist() == [[False, True, True], [False] * 3]


def test_the_mask_of_the_tool_of_pytorch_is_the_same():
    theirs = layer_of(WEIGHT)
    prune.l1_unstructured(theirs, "weight", amount=0.5)
    assert theirs.weight_mask.bool().equal(~HALF)
    assert theirs.weight_mask.bool().equal(pb.masks(pb.prune_weights(layer_of(WEIGHT), 50))["weight"])


def test_bake_leaves_a_plain_linear_layer_with_the_zeros_in_it():
    layer = pb.bake(pb.prune_weights(layer_of(WEIGHT), 50))
    assert type(layer) is torch.nn.Linear
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    assert layer.weight.eq(0).equal(HALF)
