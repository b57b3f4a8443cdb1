"""What is read off a pruned network: by hand, by its properties, and against lists of all paths."""

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from read.networks import HEAD, SEEDS, WEIGHTS, some
from small import Own, chain
from torch import nn

import prunebook as pb
from prunebook.masking import attach
from prunebook.read import paths as pathways
from prunebook.read.paths import Component, Path, Twins, components, layer_sizes, reached, twins
from prunebook.shrinking.effective import effective_weights


def every_path(weights, source=None, target=None):
    """All routes, by trying every combination of units."""
    found = []
    for units in product(*map(range, layer_sizes(weights))):
        used = tuple(w[b, a].item() for w, (a, b) in zip(weights, pairwise(units), strict=True))
        if 0 not in used and source in (None, units[0]) and target in (None, units[-1]):
            found.append(Path(units, used))
    return found


def strengths(found):
    return [abs(path.strength) for path in found]


def test_by_hand_only_weights_on_paths_survive():
    first, second = pb.surviving_weights(chain(*HEAD))
    assert first.tolist() == [[1, -1], [0, 4], [0, 0], [0, 0]]
    assert second.tolist() == [[2, 3, 0, 0]]
    assert first.dtype == torch.float64


def test_by_hand_the_importance_is_the_share_of_path_strength():
    model = chain(*HEAD)
    assert pb.importance(model).tolist() == [[2 / 16, 14 / 16]]  # 1 * 2; 1 * 2 + 4 * 3
    assert pb.importance(model, signed=True).tolist() == [[2 / 16, 10 / 16]]  # -1 * 2 + 4 * 3
    wide = pb.importance(model, spread=torch.tensor([7.0, 1.0]))
    assert wide.tolist() == [[14 / 28, 14 / 28]]


def test_by_hand_the_paths_come_strongest_first():
    found = pb.paths(chain(*HEAD))
    assert found == [Path((1, 1, 0), (4, 3)), Path((0, 0, 0), (1, 2)), Path((1, 0, 0), (-1, 2))]
    assert [path.strength for path in found] == [12, 2, -2]
    assert pb.paths(chain(*HEAD), source=0) == [found[1]]
    assert pb.paths(chain(*HEAD), most=1) == found[:1]
    assert pb.count_paths(chain(*HEAD)) == 3
    assert pb.count_paths(chain(*HEAD), source=1, target=0) == 2


def test_by_hand_a_difference_and_a_sum_are_seen():
    model = chain([[3.0, -3, 0, 0, 0], [0, 0, 2, 2, 0], [1, 1, 1, 1, 1]], [[1.0, 0, 0], [0, 1, 0]])
    cosines = pb.symmetry(model)
    expected = [
        [1.0, -1, 0, 0, 0],
        [-1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0],  # its one weight leads to a unit that nothing hears
    ]
    assert cosines.tolist() == expected
    assert twins(cosines) == [Twins((0, 1), (1, -1)), Twins((2, 3), (1, 1))]


def test_by_hand_one_network_becomes_two_and_the_larger_part_comes_first():
    parts = components(chain([[1.0, 0, 0], [0, 1, 1]], [[1.0, 0], [0, 1]]))
    assert [part.inputs for part in parts] == [(1, 2), (0,)]
    model = chain([[3.0, -3, 0, 0], [0, 0, 2, 2], [0, 0, 0, 0]], [[1.0, 0, 1], [0, 1, 0]])
    parts = components(model)
    assert parts == [Component(((0, 1), (0,), (0,))), Component(((2, 3), (1,), (1,)))]
    assert [(part.inputs, part.outputs) for part in parts] == [((0, 1), (0,)), ((2, 3), (1,))]


def test_a_network_without_paths_says_so():
    model = chain([[1.0, 1], [0, 0]], [[0.0, 1]])
    assert pb.count_paths(model) == 0
    assert pb.paths(model) == pb.paths(model, most=3) == []
    assert components(model) == []
    assert twins(pb.symmetry(model)) == []
    assert pb.importance(model).tolist() == pb.importance(model, signed=True).tolist() == [[0, 0]]
    assert pb.symmetry(model).tolist() == [[0, 0], [0, 0]]
    assert reached(model).tolist() == [False]
    biased = chain([[1.0], [0]], [[1.0, 0], [0, 1]])  # all biases are 1: they start no path
    assert reached(biased).tolist() == [True, False]
    assert pb.importance(biased).tolist() == [[1], [0]]


# Properties


@some
@given(WEIGHTS)
def test_importance_is_the_strength_of_all_paths(weights):
    sums = torch.zeros(2, len(weights[-1]), weights[0].shape[1], dtype=torch.float64)
    for path in every_path(weights):
        sums[0, path.units[-1], path.units[0]] += abs(path.strength)
        sums[1, path.units[-1], path.units[0]] += path.strength
    total = sums[0].sum(1, keepdim=True)
    expected, model = (sums / total).nan_to_num(), chain(*weights)
    torch.testing.assert_close(pb.importance(model), expected[0])
    torch.testing.assert_close(pb.importance(model, signed=True), expected[1])
    assert torch.equal(reached(model), total.flatten() > 0)


@some
@given(WEIGHTS, st.integers(1, 8))
def test_paths_are_those_of_all_combinations(weights, most):
    model = chain(*weights)
    inputs, *_, outputs = layer_sizes(weights)
    for source, target in ((None, None), (0, None), (None, outputs - 1), (inputs - 1, 0)):
        expected = sorted(every_path(weights, source, target), key=lambda path: -abs(path.strength))
        assert pb.count_paths(model, source, target) == len(expected)
        assert pb.paths(model, source, target) == expected
        assert pb.paths(model, source, target, most=most) == expected[:most]


def test_equally_strong_paths_come_in_order_of_their_units():
    model = chain([[1.0, -1], [2, 2]], [[2.0, 1], [-2, 1]])
    found = pb.paths(model)
    assert strengths(found) == [2] * 8
    assert [path.units for path in found] == sorted(path.units for path in found)


@some
@given(WEIGHTS)
def test_surviving_weights_are_those_that_costs_count_and_those_that_paths_use(weights):
    model = chain(*weights)
    kept = pb.surviving_weights(model)
    assert sum(int(weight.count_nonzero()) for weight in kept) == effective_weights(model)
    used = [torch.zeros_like(weight) for weight in weights]
    for path in every_path(weights):
        for layer, (a, b) in enumerate(pairwise(path.units)):
            used[layer][b, a] = path.weights[layer]
    assert all(torch.equal(weight, each) for weight, each in zip(kept, used, strict=True))


@some
@given(WEIGHTS, st.floats(0.1, 10))
def test_the_order_of_hidden_units_and_the_scale_of_a_layer_change_no_share(weights, factor):
    changed, draw = [-factor * weights[0], *weights[1:]], torch.Generator().manual_seed(0)
    for layer in range(len(weights) - 1):
        mixed = torch.randperm(len(weights[layer]), generator=draw)
        changed[layer] = changed[layer][mixed]
        changed[layer + 1] = changed[layer + 1][:, mixed]
    one, other = chain(*weights), chain(*changed)
    torch.testing.assert_close(pb.importance(other), pb.importance(one))
    torch.testing.assert_close(pb.symmetry(other), pb.symmetry(one))
    assert strengths(pb.paths(other)) == pytest.approx([factor * each for each in strengths(pb.paths(one))])
    shapes = [[(part.inputs, part.outputs) for part in components(model)] for model in (one, other)]
    assert sorted(shapes[0]) == sorted(shapes[1])


@some
@given(WEIGHTS)
def test_symmetry_is_the_cosine_of_columns(weights):
    model = chain(*weights)
    first, cosines = pb.surviving_weights(model)[0], pb.symmetry(model)
    for i, j in product(range(len(cosines)), repeat=2):
        expected = torch.cosine_similarity(first[:, i], first[:, j], dim=0)
        assert cosines[i, j].item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.equal(cosines, cosines.T)


def test_symmetry_is_exact_where_a_matrix_product_rounds():
    torch.manual_seed(0)
    cosines = pb.symmetry(pb.prune_weights(pb.mlp([64, 30, 20, 10]), 92))
    assert torch.equal(cosines, cosines.T)
    assert set(cosines.diagonal().tolist()) == {0, 1}
    assert twins(cosines, 0.7)


@some
@given(WEIGHTS)
def test_components_share_no_unit_and_hold_every_path(weights):
    parts = components(chain(*weights))
    for layer, weight in enumerate(pb.surviving_weights(chain(*weights))):
        listed = [unit for part in parts for unit in part.units[layer]]
        assert sorted(listed) == weight.any(0).nonzero().flatten().tolist()
    home = {(layer, u): i for i, p in enumerate(parts) for layer, us in enumerate(p.units) for u in us}
    for path in every_path(weights):
        assert len({home[place] for place in enumerate(path.units)}) == 1
    for part in parts:  # none can be split: its paths hang together
        within = [set(enumerate(p.units)) for p in every_path(weights) if p.units[0] in part.inputs]
        joined = within.pop()
        while touching := [units for units in within if units & joined]:
            joined |= set().union(*touching)
            within = [units for units in within if units not in touching]
        assert not within
    sizes_found = [sum(map(len, part.units)) for part in parts]
    assert sizes_found == sorted(sizes_found, reverse=True)


# What may be read


def test_masked_baked_and_shrunk_networks_tell_the_same():
    torch.manual_seed(0)
    masked = pb.prune_weights(pb.mlp([12, 9, 7, 3]).double(), 75)
    before = {name: value.clone() for name, value in masked.state_dict().items()}
    told = pb.importance(masked), pb.symmetry(masked), strengths(pb.paths(masked))
    assert all(torch.equal(value, before[name]) for name, value in masked.state_dict().items())
    assert told[2]
    for other in (pb.shrink(masked), pb.bake(masked)):
        torch.testing.assert_close(pb.importance(other), told[0])
        torch.testing.assert_close(pb.symmetry(other), told[1])
        assert strengths(pb.paths(other)) == pytest.approx(told[2])


class Soft(nn.Module):
    """A mask that halves what it keeps; hardened, it keeps it whole."""

    def forward(self, w):
        return w / 2 * (w > 2)

    def kept(self, w):
        return w > 2


def test_a_soft_mask_is_read_by_what_it_keeps():
    layer = chain([[1.0, 3]])[0]
    attach(layer, Soft())
    assert pb.surviving_weights(layer)[0].tolist() == [[0, 3]]
    assert isinstance(layer.parametrizations.weight[0], Soft), "the network itself stays soft"


def written_out(self, x):
    x = x.view(x.size(0), -1)
    return self.second(self.drop(torch.relu(self.first(x))).square() / 2)


def test_chains_of_any_writing_are_read():
    free = Own(written_out, first=nn.Linear(4, 3), second=nn.Linear(3, 2), drop=nn.Dropout())
    chain = nn.Sequential(nn.Flatten(), nn.Identity(), free.first, nn.PReLU(3), nn.Dropout(), free.second)
    nested = nn.Sequential(nn.Sequential(free.first, nn.Tanh()), nn.Sequential(free.second, nn.Sigmoid()))
    expected = free.second.weight.abs().double() @ free.first.weight.abs().double()
    expected /= expected.sum(1, keepdim=True)
    for model in (free, chain, nested):
        torch.testing.assert_close(pb.importance(model), expected.detach())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), "'0', a Conv2d"),
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)), "'1', a BatchNorm1d"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), "'1', a Softmax"),
        (nn.Sequential(nn.Linear(2, 3), nn.Flatten(), nn.Linear(12, 2)), "'2' must read the 3 features"),
        (nn.Sequential(nn.ReLU()), "must have a linear layer, got none in Sequential"),
        (Own(lambda self, x: x + self.a(x), a=nn.Linear(3, 3)), "one chain of layers, but add reads"),
        (
            Own(lambda self, x: torch.softmax(self.a(x), 1), a=nn.Linear(3, 3)),
            "softmax is neither linear nor an activation",
        ),
    ],
)
def test_other_networks_are_refused_by_name(model, message):
    with pytest.raises(ValueError, match=message):
        pb.importance(model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: pb.paths(net, source=2), r"source must be in 0\.\.1, got 2"),
        (lambda net: pb.count_paths(net, target=-1), r"target must be in 0\.\.0, got -1"),
        (lambda net: pb.paths(net, most=0), "most must be at least 1, got 0"),
        (lambda net: pb.importance(net, torch.ones(1)), "spread must be 2 finite numbers"),
        (lambda net: pb.importance(net, torch.tensor([1.0, -1.0])), "spread must be 2 finite numbers"),
        (lambda net: pb.importance(net, torch.tensor([1.0, torch.nan])), "spread must be 2 finite numbers"),
        (lambda _: pb.importance(chain([[torch.inf]])), "linear layer 0 must have finite weights"),
        (lambda _: twins(torch.eye(2), 0.5), "above 0.5 and at most 1, got 0.5"),
        (lambda _: twins(torch.eye(2), 1.1), "above 0.5 and at most 1, got 1.1"),
        (lambda _: twins(torch.ones(2, 3)), "cosines must be a symmetric matrix"),
        (lambda _: twins(2 * torch.eye(2)), "cosines must be a symmetric matrix"),
        (lambda _: twins(torch.ones(2, 2).triu() / 2), "cosines must be a symmetric matrix"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(chain(*HEAD))


def test_too_many_paths_are_counted_and_not_listed(monkeypatch):
    model = chain(*(torch.ones(40, 40) for _ in range(14)))
    assert pb.count_paths(model) == 40**15, "exact beyond what a float holds"
    with pytest.raises(ValueError, match=f"there are {40**15} paths, over 1000000"):
        pb.paths(model)
    assert len(pb.paths(model, most=5)) == 5
    monkeypatch.setattr(pathways, "MOST_PATHS", 3)
    assert len(pb.paths(chain(*HEAD))) == 3, "as many as allowed are listed"


# Twins


def test_each_two_of_a_group_are_alike():
    # 0 and 1 are alike, 1 and 2 are, 0 and 2 are not: a chain is no group
    angles = torch.tensor([0.0, 0.3, 0.6], dtype=torch.float64)
    cosines = (angles[:, None] - angles).cos()
    assert [len(group.inputs) for group in twins(cosines, threshold=0.94)] == [2]
    assert [group.inputs for group in twins(cosines, threshold=0.8)] == [(0, 1, 2)]


@some
@given(st.integers(2, 8), SEEDS, st.floats(0.55, 1))
def test_signs_of_a_group_agree(inputs, seed, threshold):
    columns = torch.randn(2, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    cosines = pb.symmetry(chain(columns))
    listed = []
    for group in twins(cosines, threshold):
        listed += group.inputs
        for (i, sign), (j, other) in product(zip(group.inputs, group.signs, strict=True), repeat=2):
            assert sign * other * cosines[i, j] >= threshold - 1e-9
    assert len(listed) == len(set(listed))
