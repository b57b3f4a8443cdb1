"""The order of units in which few edges cross: by hand, by its properties, and by comparing all edges."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from read.networks import HEAD, WEIGHTS, some
from small import chain

import prunebook as pb
from prunebook.read.order import crossings
from prunebook.read.paths import layer_sizes


def test_by_hand_two_crossed_edges_are_uncrossed():
    model = chain([[0.0, 1], [1, 0]])
    given_order = [torch.arange(2), torch.arange(2)]
    assert crossings(model, given_order) == 1
    assert crossings(model, pb.order_units(model)) == 0
    outputs_stay = pb.order_units(model, keep_outputs=True)
    assert [layer.tolist() for layer in outputs_stay] == [[1, 0], [0, 1]]
    both_stay = pb.order_units(model, keep_inputs=True, keep_outputs=True)
    assert [layer.tolist() for layer in both_stay] == [[0, 1], [0, 1]]


def test_by_hand_the_full_2_2_network_has_one_crossing_in_any_order():
    model = chain([[1.0, 1], [1, 1]])
    assert crossings(model, pb.order_units(model)) == 1


def test_units_on_no_path_come_last():
    unreached = chain([[1.0, 1], [0, 0]], [[0.0, 1]])
    assert crossings(unreached, pb.order_units(unreached)) == 0
    assert [layer.tolist()[2:] for layer in pb.order_units(chain(*HEAD))] == [[], [2, 3], []]


def crossings_by_pairs(weights, order):
    """Compare every two edges."""
    count = 0
    for weight, (left, right) in zip(weights, pairwise(order), strict=True):
        x, y = left.argsort().tolist(), right.argsort().tolist()
        edges = [(x[a], y[b]) for b, a in weight.nonzero().tolist()]
        count += sum((a - c) * (b - d) < 0 for a, b in edges for c, d in edges) // 2
    return count


@some
@given(WEIGHTS, st.booleans(), st.booleans())
def test_ordering_never_adds_crossings_and_leaves_none_to_save(weights, keep_inputs, keep_outputs):
    model, sizes = chain(*weights), layer_sizes(weights)
    before, after = [torch.arange(size) for size in sizes], pb.order_units(model, keep_inputs, keep_outputs)
    fewest = crossings(model, after)
    assert fewest <= crossings(model, before)
    assert fewest == crossings_by_pairs(pb.surviving_weights(model), after)
    assert [sorted(layer.tolist()) for layer in after] == [list(range(size)) for size in sizes]
    assert not keep_inputs or torch.equal(after[0], before[0])
    assert not keep_outputs or torch.equal(after[-1], before[-1])
    for layer in range(keep_inputs, len(sizes) - keep_outputs):
        for place in range(sizes[layer] - 1):  # no exchange of neighbours saves anything
            exchanged = [units.clone() for units in after]
            exchanged[layer][[place, place + 1]] = after[layer][[place + 1, place]]
            assert crossings(model, exchanged) >= fewest


def test_networks_without_crossings_are_found_by_the_same_order_each_time():
    ladder = torch.eye(6, dtype=torch.float64)
    tree = torch.kron(torch.eye(3), torch.ones(1, 2)).double()  # two inputs to each unit
    comb = ladder + torch.diag(torch.ones(5), 1).double()
    draw = torch.Generator().manual_seed(1)
    for weights in ((ladder, ladder, ladder), (tree.T, tree), (tree, torch.ones(1, 3)), (comb, ladder)):
        sizes = layer_sizes(weights)
        mixed = [torch.randperm(size, generator=draw) for size in sizes]
        model = chain(
            *(w[after][:, before] for w, (before, after) in zip(weights, pairwise(mixed), strict=True))
        )
        assert crossings(model, [torch.arange(size) for size in sizes]) > 0
        state = torch.get_rng_state()
        found, again = pb.order_units(model), pb.order_units(model)
        assert crossings(model, found) == 0
        assert all(map(torch.equal, found, again))
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "order", [[torch.arange(2)], [torch.arange(2), torch.zeros(4).long(), torch.arange(1)]]
)
def test_what_is_no_order_is_refused(order):
    with pytest.raises(ValueError, match=r"permutations of \[2, 4, 1\] units"):
        crossings(chain(*HEAD), order)
