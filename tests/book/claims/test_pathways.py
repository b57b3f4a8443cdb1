"""What the chapter on pathways works out by hand, and what it says about the stored networks and tables."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from pandas import Series, read_csv
from torch import nn

import prunebook as pb
from prunebook.experiments.gumbel import wired
from prunebook.read.faithful import common_pairs

RESULTS = Path(__file__).parents[3] / "book/results"
TOYS = read_csv(RESULTS / "toy.csv")


@cache
def nets() -> list[nn.Module]:
    """Return the five networks of 399 weights, in the order of their seeds."""
    wires = read_csv(RESULTS / "wires.csv")
    return [wired(wires, seed) for seed in sorted(set(wires["seed"]))]


def toys_that(holds: Series) -> dict[str, int]:
    """Return of how many toy networks by each method something holds."""
    return holds.groupby(TOYS["method"]).sum().to_dict()


def by_hand() -> nn.Module:
    small = pb.mlp([2, 2, 1])
    with torch.no_grad():
        small[1].weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 0.0]]))
        small[3].weight.copy_(torch.tensor([[3.0, -1.0]]))
    return small


def test_by_hand_the_inputs_have_five_and_three_eighths_of_the_importance():
    assert pb.importance(by_hand()).tolist() == [[5 / 8, 3 / 8]]


def test_by_hand_the_paths_have_strengths_3_and_minus_3_and_minus_2():
    assert [path.strength for path in pb.paths(by_hand())] == [3, -3, -2]


def test_there_are_five_networks_and_three_of_399_weights_of_the_first_lie_on_no_path():
    assert len(nets()) == 5
    weights = [layer.weight for layer in nets()[0] if isinstance(layer, nn.Linear)]
    assert sum(int(weight.count_nonzero()) for weight in weights) == 399
    assert sum(int(weight.count_nonzero()) for weight in pb.surviving_weights(nets()[0])) == 396


def test_fewer_than_a_third_of_the_pixels_are_read():
    reads = pb.surviving_weights(nets()[0])[0].any(0)
    assert 100 < reads.sum() < 261


def test_of_235_million_paths_1889_are_left():
    assert 784 * 300 * 100 * 10 == 235_200_000
    assert pb.count_paths(nets()[0]) == 1889


def test_most_pixels_that_are_read_have_one_weight():
    for net in nets():
        links = (pb.surviving_weights(net)[0] != 0).sum(0)
        assert (links == 1).sum() > 0.5 * (links > 0).sum()


def test_eight_of_ten_neighbours_count_alike_and_far_pixels_are_a_coin_toss():
    pairs = [common_pairs(net) for net in nets()]
    away = torch.cat([distance for distance, _ in pairs])
    alike = torch.cat([cosine for _, cosine in pairs]) > 0
    assert alike[(away > 0) & (away <= 1.5)].double().mean() > 0.8
    assert 0.35 < alike[(away > 6) & (away <= 40)].double().mean() < 0.65


def test_there_are_ten_toy_networks_by_each_method_from_seeds_10_to_19():
    assert TOYS["method"].value_counts().to_dict() == {"dense": 10, "gumbel": 10}
    assert set(TOYS["seed"]) == set(range(10, 20))


def test_in_at_least_nine_of_ten_seeds_the_pruned_toy_falls_in_two_and_the_dense_one_never_does():
    separated = toys_that(TOYS["separated"])
    assert separated["gumbel"] >= 9
    assert separated["dense"] == 0


def test_in_at_least_nine_of_ten_seeds_the_signs_are_right_in_the_dense_toy_too():
    for right in (toys_that(TOYS["symmetry_12"] < -0.9), toys_that(TOYS["symmetry_34"] > 0.9)):
        assert min(right["gumbel"], right["dense"]) >= 9


def test_gates_choose_36_of_160_weights_at_most():
    assert TOYS.query("method == 'gumbel'")["kept"].max() <= 36
    assert set(TOYS.query("method == 'dense'")["kept"]) == {160}


def test_the_median_error_of_the_pruned_toy_is_at_most_twice_that_of_the_dense_one():
    errors = TOYS.groupby("method")["test_error"].median()
    assert errors["gumbel"] <= 2 * errors["dense"]
