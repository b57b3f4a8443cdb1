"""What is read off a pruned network: by hand, by its properties, and against lists of all paths."""

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import prunebook as pb
from prunebook.masking import attach
from prunebook.read import paths as pathways
from prunebook.read.paths import Component, Path, Twins
from prunebook.tools.costs import effective

SEEDS = st.integers(0, 2**31)
SIZES = st.lists(st.integers(1, 5), min_size=2, max_size=5)
some = settings(max_examples=50, deadline=None)
DENSITY = st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0])


def network(*weights):
    """A chain of linear layers with these weights in float64, SiLU between them, biases of 1."""
    layers = []
    for rows in weights:
        weight = torch.as_tensor(rows, dtype=torch.float64)
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.fill_(1.0)
        layers += [layer, nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def drawn(sizes, density, seed):
    """Weight matrices with about this share of weights that are not zero."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(after, before) for before, after in pairwise(sizes)]
    return [
        torch.randn(shape, generator=draw, dtype=torch.float64)
        * (torch.rand(shape, generator=draw) < density)
        for shape in shapes
    ]


def every_path(weights, source=None, target=None):
    """All routes, by trying every combination of units."""
    sizes = [weights[0].shape[1], *map(len, weights)]
    found = []
    for units in product(*map(range, sizes)):
        used = tuple(w[b, a].item() for w, (a, b) in zip(weights, pairwise(units), strict=True))
        if 0 not in used and source in (None, units[0]) and target in (None, units[-1]):
            found.append(Path(units, used))
    return found


def strengths(found):
    return [abs(path.strength) for path in found]


# The network that is done in the head:
#   y0 = 2 h0 + 3 h1, h0 = x0 - x1, h1 = 4 x1; h2 feeds nothing, h3 hears nothing.
HEAD = ([[1.0, -1], [0, 4], [5, 5], [0, 0]], [[2.0, 3, 0, 7]])


def test_by_hand_only_weights_on_paths_survive():
    first, second = pb.surviving(network(*HEAD))
    assert first.tolist() == [[1, -1], [0, 4], [0, 0], [0, 0]]
    assert second.tolist() == [[2, 3, 0, 0]]
    assert first.dtype == torch.float64


def test_by_hand_the_importance_is_the_share_of_path_strength():
    model = network(*HEAD)
    assert pb.importance(model).tolist() == [[2 / 16, 14 / 16]]  # 1 * 2; 1 * 2 + 4 * 3
    assert pb.importance(model, signed=True).tolist() == [[2 / 16, 10 / 16]]  # -1 * 2 + 4 * 3
    wide = pb.importance(model, spread=torch.tensor([7.0, 1.0]))
    assert wide.tolist() == [[14 / 28, 14 / 28]]


def test_by_hand_the_paths_come_strongest_first():
    found = pb.paths(network(*HEAD))
    assert found == [Path((1, 1, 0), (4, 3)), Path((0, 0, 0), (1, 2)), Path((1, 0, 0), (-1, 2))]
    assert [path.strength for path in found] == [12, 2, -2]
    assert pb.paths(network(*HEAD), source=0) == [found[1]]
    assert pb.paths(network(*HEAD), most=1) == found[:1]
    assert pb.count_paths(network(*HEAD)) == 3
    assert pb.count_paths(network(*HEAD), source=1, target=0) == 2


def test_by_hand_a_difference_and_a_sum_are_seen():
    model = network([[3.0, -3, 0, 0, 0], [0, 0, 2, 2, 0], [1, 1, 1, 1, 1]], [[1.0, 0, 0], [0, 1, 0]])
    cosines = pb.symmetry(model)
    expected = [
        [1.0, -1, 0, 0, 0],
        [-1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0],  # its one weight leads to a unit that nothing hears
    ]
    assert cosines.tolist() == expected
    assert pb.twins(cosines) == [Twins((0, 1), (1, -1)), Twins((2, 3), (1, 1))]


def test_by_hand_one_network_becomes_two():
    model = network([[3.0, -3, 0, 0], [0, 0, 2, 2], [0, 0, 0, 0]], [[1.0, 0, 1], [0, 1, 0]])
    parts = pb.components(model)
    assert parts == [Component(((0, 1), (0,), (0,))), Component(((2, 3), (1,), (1,)))]
    assert [(part.inputs, part.outputs) for part in parts] == [((0, 1), (0,)), ((2, 3), (1,))]


def test_by_hand_the_largest_part_comes_first():
    parts = pb.components(network([[1.0, 0, 0], [0, 1, 1]], [[1.0, 0], [0, 1]]))
    assert [part.inputs for part in parts] == [(1, 2), (0,)]


def test_by_hand_two_crossed_edges_are_uncrossed():
    model = network([[0.0, 1], [1, 0]])
    given_order = [torch.arange(2), torch.arange(2)]
    assert pb.crossings(model, given_order) == 1
    assert pb.crossings(model, pb.order_units(model)) == 0
    outputs_stay = pb.order_units(model, keep_outputs=True)
    assert [layer.tolist() for layer in outputs_stay] == [[1, 0], [0, 1]]
    both_stay = pb.order_units(model, keep_inputs=True, keep_outputs=True)
    assert [layer.tolist() for layer in both_stay] == [[0, 1], [0, 1]]


def test_by_hand_the_full_2_2_network_has_one_crossing_in_any_order():
    model = network([[1.0, 1], [1, 1]])
    assert pb.crossings(model, pb.order_units(model)) == 1


def test_units_on_no_path_come_last():
    assert [layer.tolist()[2:] for layer in pb.order_units(network(*HEAD))] == [[], [2, 3], []]


def test_a_network_without_paths_says_so():
    model = network([[1.0, 1], [0, 0]], [[0.0, 1]])
    assert pb.count_paths(model) == 0
    assert pb.paths(model) == pb.paths(model, most=3) == []
    assert pb.components(model) == []
    assert pb.twins(pb.symmetry(model)) == []
    assert pb.importance(model).tolist() == pb.importance(model, signed=True).tolist() == [[0, 0]]
    assert pb.symmetry(model).tolist() == [[0, 0], [0, 0]]
    assert pb.reached(model).tolist() == [False]
    assert pb.crossings(model, pb.order_units(model)) == 0


def test_a_unit_with_only_a_bias_reaches_nobody():
    model = network([[1.0], [0]], [[1.0, 0], [0, 1]])  # all biases are 1
    assert pb.reached(model).tolist() == [True, False]
    assert pb.importance(model).tolist() == [[1], [0]]


# Properties


@some
@given(SIZES, DENSITY, SEEDS)
def test_rows_of_the_importance_sum_to_one_or_to_zero(sizes, density, seed):
    model = network(*drawn(sizes, density, seed))
    share = pb.importance(model)
    torch.testing.assert_close(share.sum(1), pb.reached(model).double())
    assert ((share >= 0) & (share <= 1 + 1e-12)).all()
    assert (pb.importance(model, signed=True).abs() <= share + 1e-12).all()


@some
@given(SIZES, DENSITY, SEEDS)
def test_importance_is_the_strength_of_all_paths(sizes, density, seed):
    weights = drawn(sizes, density, seed)
    sums = torch.zeros(2, sizes[-1], sizes[0], dtype=torch.float64)
    for path in every_path(weights):
        sums[0, path.units[-1], path.units[0]] += abs(path.strength)
        sums[1, path.units[-1], path.units[0]] += path.strength
    total = sums[0].sum(1, keepdim=True)
    expected = (sums / total).nan_to_num()
    torch.testing.assert_close(pb.importance(network(*weights)), expected[0])
    torch.testing.assert_close(pb.importance(network(*weights), signed=True), expected[1])


@some
@given(SIZES, DENSITY, SEEDS, st.integers(1, 8))
def test_paths_are_those_of_all_combinations(sizes, density, seed, most):
    weights = drawn(sizes, density, seed)
    model = network(*weights)
    for source, target in ((None, None), (0, None), (None, sizes[-1] - 1), (sizes[0] - 1, 0)):
        expected = sorted(every_path(weights, source, target), key=lambda path: -abs(path.strength))
        assert pb.count_paths(model, source, target) == len(expected)
        assert pb.paths(model, source, target) == expected
        assert pb.paths(model, source, target, most=most) == expected[:most]


def test_equally_strong_paths_come_in_order_of_their_units():
    model = network([[1.0, -1], [2, 2]], [[2.0, 1], [-2, 1]])
    found = pb.paths(model)
    assert strengths(found) == [2] * 8
    assert [path.units for path in found] == sorted(path.units for path in found)


@some
@given(SIZES, DENSITY, SEEDS)
def test_surviving_weights_are_those_that_costs_count_and_those_that_paths_use(sizes, density, seed):
    weights = drawn(sizes, density, seed)
    model = network(*weights)
    kept = pb.surviving(model)
    assert sum(int(weight.count_nonzero()) for weight in kept) == effective(model)
    used = [torch.zeros_like(weight) for weight in weights]
    for path in every_path(weights):
        for layer, (a, b) in enumerate(pairwise(path.units)):
            used[layer][b, a] = path.weights[layer]
    assert all(torch.equal(weight, each) for weight, each in zip(kept, used, strict=True))


@some
@given(SIZES, DENSITY, SEEDS)
def test_the_order_of_hidden_units_changes_nothing(sizes, density, seed):
    weights = drawn(sizes, density, seed)
    shuffled, draw = list(weights), torch.Generator().manual_seed(seed)
    for layer in range(len(weights) - 1):
        mixed = torch.randperm(len(weights[layer]), generator=draw)
        shuffled[layer] = shuffled[layer][mixed]
        shuffled[layer + 1] = shuffled[layer + 1][:, mixed]
    one, other = network(*weights), network(*shuffled)
    torch.testing.assert_close(pb.importance(other), pb.importance(one))
    torch.testing.assert_close(pb.symmetry(other), pb.symmetry(one))
    assert strengths(pb.paths(other)) == pytest.approx(strengths(pb.paths(one)))
    shapes = [[(part.inputs, part.outputs) for part in pb.components(model)] for model in (one, other)]
    assert sorted(shapes[0]) == sorted(shapes[1])


@some
@given(SIZES, DENSITY, SEEDS, st.floats(0.1, 10))
def test_scaling_a_layer_changes_strengths_and_no_share(sizes, density, seed, factor):
    weights = drawn(sizes, density, seed)
    one, other = network(*weights), network(-factor * weights[0], *weights[1:])
    torch.testing.assert_close(pb.importance(other), pb.importance(one))
    torch.testing.assert_close(pb.symmetry(other), pb.symmetry(one))
    assert strengths(pb.paths(other)) == pytest.approx([factor * each for each in strengths(pb.paths(one))])


@some
@given(SIZES, DENSITY, SEEDS)
def test_symmetry_is_the_cosine_of_columns(sizes, density, seed):
    model = network(*drawn(sizes, density, seed))
    first, cosines = pb.surviving(model)[0], pb.symmetry(model)
    for i, j in product(range(sizes[0]), repeat=2):
        expected = torch.cosine_similarity(first[:, i], first[:, j], dim=0)
        assert cosines[i, j].item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.equal(cosines, cosines.T)


@some
@given(SIZES, DENSITY, SEEDS)
def test_components_share_no_unit_and_hold_every_path(sizes, density, seed):
    weights = drawn(sizes, density, seed)
    parts = pb.components(network(*weights))
    for layer, weight in enumerate(pb.surviving(network(*weights))):
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


def crossings_by_pairs(weights, order):
    """Compare every two edges."""
    count = 0
    for weight, (left, right) in zip(weights, pairwise(order), strict=True):
        x, y = left.argsort().tolist(), right.argsort().tolist()
        edges = [(x[a], y[b]) for b, a in weight.nonzero().tolist()]
        count += sum((a - c) * (b - d) < 0 for a, b in edges for c, d in edges) // 2
    return count


@some
@given(SIZES, DENSITY, SEEDS, st.booleans(), st.booleans())
def test_ordering_never_adds_crossings(sizes, density, seed, keep_inputs, keep_outputs):
    model = network(*drawn(sizes, density, seed))
    before = [torch.arange(size) for size in sizes]
    after = pb.order_units(model, keep_inputs, keep_outputs)
    assert pb.crossings(model, after) <= pb.crossings(model, before)
    assert pb.crossings(model, after) == crossings_by_pairs(pb.surviving(model), after)
    assert [sorted(layer.tolist()) for layer in after] == [list(range(size)) for size in sizes]
    assert not keep_inputs or torch.equal(after[0], before[0])
    assert not keep_outputs or torch.equal(after[-1], before[-1])


@some
@given(SIZES, DENSITY, SEEDS, st.booleans())
def test_means_never_cost_what_exchanges_alone_save(sizes, density, seed, keep_both):
    model = network(*drawn(sizes, density, seed))
    links = [(weight != 0).double() for weight in pb.surviving(model)]
    used = [links[0].any(0), *(link.any(1) for link in links)]
    links = [link[after][:, before] for link, (before, after) in zip(links, pairwise(used), strict=True)]
    free = list(range(len(sizes)))[1:-1] if keep_both else list(range(len(sizes)))
    alone = pathways._settled(links, [torch.arange(int(units.sum())) for units in used], free)
    for layer in free:  # no exchange is left that saves anything
        assert torch.equal(pathways._exchanged(links, alone, layer), alone[layer])
    found = pb.order_units(model, keep_both, keep_both)
    assert pb.crossings(model, found) <= pathways._crossings(links, alone)


def test_networks_without_crossings_are_found():
    ladder = torch.eye(6, dtype=torch.float64)
    tree = torch.kron(torch.eye(3), torch.ones(1, 2)).double()  # two inputs to each unit
    comb = ladder + torch.diag(torch.ones(5), 1).double()
    draw = torch.Generator().manual_seed(1)
    for weights in ((ladder, ladder, ladder), (tree.T, tree), (tree, torch.ones(1, 3)), (comb, ladder)):
        sizes = [weights[0].shape[1], *map(len, weights)]
        mixed = [torch.randperm(size, generator=draw) for size in sizes]
        model = network(
            *(w[after][:, before] for w, (before, after) in zip(weights, pairwise(mixed), strict=True))
        )
        assert pb.crossings(model, [torch.arange(size) for size in sizes]) > 0
        assert pb.crossings(model, pb.order_units(model)) == 0


def test_ordering_gives_the_same_answer_twice_and_leaves_the_global_generator_alone():
    model, state = network(*drawn([6, 8, 8, 4], 0.4, 0)), torch.get_rng_state()
    first, second = pb.order_units(model), pb.order_units(model)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


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
    layer = network([[1.0, 3]])[0]
    attach(layer, Soft())
    assert pb.surviving(layer)[0].tolist() == [[0, 3]]
    assert isinstance(layer.parametrizations.weight[0], Soft), "the network itself stays soft"


class Free(nn.Module):
    """The same chain written as a forward of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.drop = nn.Linear(4, 3), nn.Linear(3, 2), nn.Dropout()

    def forward(self, x):
        x = x.view(x.size(0), -1)
        return self.second(self.drop(torch.relu(self.first(x))).square() / 2)


def test_chains_of_any_writing_are_read():
    free = Free()
    chain = nn.Sequential(nn.Flatten(), nn.Identity(), free.first, nn.PReLU(3), nn.Dropout(), free.second)
    nested = nn.Sequential(nn.Sequential(free.first, nn.Tanh()), nn.Sequential(free.second, nn.Sigmoid()))
    expected = free.second.weight.abs().double() @ free.first.weight.abs().double()
    expected /= expected.sum(1, keepdim=True)
    for model in (free, chain, nested):
        torch.testing.assert_close(pb.importance(model), expected.detach())


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return x + self.layer(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), "'0', a Conv2d"),
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)), "'1', a BatchNorm1d"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), "'1', a Softmax"),
        (nn.Sequential(nn.Linear(2, 3), nn.Flatten(), nn.Linear(12, 2)), "'2' must read the 3 features"),
        (nn.Sequential(nn.ReLU()), "must have a linear layer, got none in Sequential"),
        (Residual(), "one chain of layers, but add reads"),
    ],
)
def test_other_networks_are_refused_by_name(model, message):
    with pytest.raises(ValueError, match=message):
        pb.importance(model)


def test_a_function_that_mixes_units_is_refused():
    class Mixing(Free):
        def forward(self, x):
            return torch.softmax(self.second(self.first(x)), 1)

    with pytest.raises(ValueError, match="model: softmax is neither linear nor an activation"):
        pb.paths(Mixing())


def test_bad_input_is_refused():
    model = network(*HEAD)
    with pytest.raises(ValueError, match=r"source must be in 0\.\.1, got 2"):
        pb.paths(model, source=2)
    with pytest.raises(ValueError, match=r"target must be in 0\.\.0, got -1"):
        pb.count_paths(model, target=-1)
    with pytest.raises(ValueError, match="most must be at least 1, got 0"):
        pb.paths(model, most=0)
    for spread in ([1.0], [1.0, -1.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="spread must be 2 finite numbers"):
            pb.importance(model, spread=torch.tensor(spread))
    for threshold in (0.5, 1.1):
        with pytest.raises(ValueError, match=f"above 0.5 and at most 1, got {threshold}"):
            pb.twins(torch.eye(2), threshold)
    for matrix in (torch.ones(2, 3), 2 * torch.eye(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])):
        with pytest.raises(ValueError, match="cosines must be a symmetric matrix"):
            pb.twins(matrix)
    for order in ([torch.arange(2)], [torch.arange(2), torch.zeros(4).long(), torch.arange(1)]):
        with pytest.raises(ValueError, match=r"permutations of \[2, 4, 1\] units"):
            pb.crossings(model, order)
    with pytest.raises(ValueError, match="linear layer 0 must have finite weights"):
        pb.importance(network([[float("inf")]]))


def test_too_many_paths_are_counted_and_not_listed(monkeypatch):
    model = network(*(torch.ones(40, 40) for _ in range(14)))
    assert pb.count_paths(model) == 40**15, "exact beyond what a float holds"
    with pytest.raises(ValueError, match=f"there are {40**15} paths, over 1000000"):
        pb.paths(model)
    assert len(pb.paths(model, most=5)) == 5
    monkeypatch.setattr(pathways, "MOST_PATHS", 3)
    assert len(pb.paths(network(*HEAD))) == 3, "as many as allowed are listed"


# Twins


def test_each_two_of_a_group_are_alike():
    # 0 and 1 are alike, 1 and 2 are, 0 and 2 are not: a chain is no group
    angles = torch.tensor([0.0, 0.3, 0.6], dtype=torch.float64)
    cosines = (angles[:, None] - angles).cos()
    assert [len(group.inputs) for group in pb.twins(cosines, threshold=0.94)] == [2]
    assert [group.inputs for group in pb.twins(cosines, threshold=0.8)] == [(0, 1, 2)]


@some
@given(st.integers(2, 8), SEEDS, st.floats(0.55, 1))
def test_signs_of_a_group_agree(inputs, seed, threshold):
    columns = torch.randn(2, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    cosines = pb.symmetry(network(columns))
    listed = []
    for group in pb.twins(cosines, threshold):
        listed += group.inputs
        for (i, sign), (j, other) in product(zip(group.inputs, group.signs, strict=True), repeat=2):
            assert sign * other * cosines[i, j] >= threshold - 1e-9
    assert len(listed) == len(set(listed))


# The problem of the chapter, trained


def test_a_trained_and_pruned_network_falls_apart_into_the_two_formulas():
    torch.manual_seed(0)
    x = torch.rand(500, 4) * 2 - 1
    y = torch.stack([3 * (x[:, 0] - x[:, 1]).square().sin(), (x[:, 2] + x[:, 3]) ** 3], 1)
    model = pb.mlp([4, 10, 10, 2], activation=nn.SiLU)
    weights = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(600):
        loss = (model(x) - y).square().mean() + 3e-3 * sum(weight.abs().sum() for weight in weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pb.prune_weights(model, 88, scope="global")
    parts = {(part.inputs, part.outputs) for part in pb.components(model)}
    assert parts == {((0, 1), (0,)), ((2, 3), (1,))}
    assert set(pb.twins(pb.symmetry(model))) == {Twins((0, 1), (1, -1)), Twins((2, 3), (1, 1))}
    assert pb.importance(model)[0, 2:].tolist() == pb.importance(model)[1, :2].tolist() == [0, 0]
