"""The sliders show what pruning by hand, and finding a threshold by hand, gives."""

from __future__ import annotations

import copy
import math
import re

import pandas as pd
import pytest
import torch

import prunebook as pb
from prunebook import book
from prunebook.book import explore
from prunebook.book.explore import CHANCES, GATE_TAUS, RATIOS, SCOPES, STOPS, TAUS
from prunebook.methods.gumbel import gates


@pytest.fixture
def net():
    torch.manual_seed(0)
    return pb.mlp([784, 20, 10])


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    split = pb.Split(torch.randn(40, 1, 28, 28, generator=draw), torch.arange(40) % 10)
    return pb.Data(split, split, split, "noise", tuple("0123456789"), 0.0, 1.0)


@pytest.mark.parametrize("method", ["weights", "units"])
def test_every_frame_says_what_pruning_by_hand_gives(net, data, method):
    slider = book.explore_k(net, data, method, sample=30)
    prune = pb.prune_weights if method == "weights" else pb.prune_units
    sample = pb.Split(data.valid.images[:30], data.valid.labels[:30])
    for option, scope in enumerate(SCOPES.values()):
        for stop, k in [(0, 0), (3, 90)]:
            by_hand = prune(pb.mlp([784, 20, 10]), 0)
            by_hand.load_state_dict(prune(net_copy(net), k, scope=scope).state_dict())
            kept = sum(int(m.sum()) for name, m in pb.masks(by_hand).items() if name.endswith("weight"))
            kept += 200 if method == "units" else 0  # the output layer has no mask
            readout = slider.readouts[slider.index(stop, [option])]
            assert f"k = {k} %: kept {kept:,} of 15,880 weights" in readout
            assert f"{pb.evaluate(by_hand, sample).accuracy:.1%} of 30 validation images" in readout


def test_pixels_are_shown_for_weights_and_layers_for_units(net, data):
    by_weight, by_unit = (
        explore._explored(net, data.valid, method, 50, "layer") for method in ("weights", "units")
    )
    assert by_weight.pixels.shape == (20, 784)
    assert by_unit.pixels is None
    assert by_unit.layers == {"1": 0.5, "3": 1.0}


def net_copy(net):
    copied = pb.mlp([784, 20, 10])
    copied.load_state_dict(net.state_dict())
    return copied


def test_the_network_itself_stays_whole(net, data):
    before = net[1].weight.clone()
    book.explore_k(net, data, sample=10)
    assert pb.masks(net) == {}
    assert torch.equal(net[1].weight, before)


def test_a_frame_for_each_stop_and_scope(net, data):
    slider = book.explore_k(net, data, sample=10)
    assert len(slider.frames) == len(STOPS) * 2
    multiplications = [int(re.search(r"([\d,]+) mult", r)[1].replace(",", "")) for r in slider.readouts]
    assert multiplications[0] == 15_880
    assert multiplications[: len(STOPS)] == sorted(multiplications[: len(STOPS)], reverse=True)


def test_refuses_an_unknown_method_and_an_empty_sample(net, data):
    with pytest.raises(ValueError, match="method must be"):
        book.explore_k(net, data, "neurons")
    with pytest.raises(ValueError, match="sample must be"):
        book.explore_k(net, data, sample=0)


def test_a_run_is_scrubbed_epoch_by_epoch(net, data):
    pruning = pb.AdaptivePruning(net, r=0.5)
    moments = [book.moment(pruning, {"epoch": epoch, "valid_accuracy": 0.25 * epoch}) for epoch in (1, 2)]
    with torch.no_grad():
        pb.dense_weight(net[1]).zero_()
    slider = book.explore_run(moments)
    assert slider.stops == [1, 2]
    assert slider.start == 1
    kept = f"{15_880 - 7_940:,} of 15,880 weights kept"
    assert all(kept in readout and "r = 0.500" in readout for readout in slider.readouts)
    assert "25.0%" in slider.readouts[0]
    assert "50.0%" in slider.readouts[1]
    assert moments[0].weights.count_nonzero() > 15_000, "a moment is a copy"


def test_a_run_without_epochs_cannot_be_scrubbed():
    with pytest.raises(ValueError, match="at least one epoch"):
        book.explore_run([])


def test_each_ratio_says_its_threshold_density_and_slope():
    scores = torch.rand(100_000, generator=torch.Generator().manual_seed(0))  # uniform: t(r) = r, f = 1
    slider = book.explore_ratio(scores)
    assert len(slider.frames) == len(RATIOS)
    for ratio, readout in zip(RATIOS, slider.readouts, strict=True):
        said = re.fullmatch(
            rf"r = {ratio:g}: t = (\S+), density f\(t\) = (\S+), slope dt/dr = (\S+)\.", readout
        )
        t, f, slope = map(float, said.groups())
        assert t == pytest.approx(ratio, abs=0.01)
        assert f == pytest.approx(1, abs=0.06)
        assert slope == pytest.approx(1 / f, rel=0.01)


def test_ratios_can_be_chosen_and_scores_stay_as_they_are():
    scores = torch.tensor([[4.0, 1.0], [3.0, 2.0]], requires_grad=True)
    slider = book.explore_ratio(scores, [0.5, 1.0])
    assert slider.stops == [0.5, 1.0]
    assert "t = 4.0000" in slider.readouts[1]
    assert scores.tolist() == [[4, 1], [3, 2]]
    assert scores.grad is None


def test_every_ratio_works_on_scores_without_spread():
    assert "t = 2.0000" in book.explore_ratio(torch.full((5,), 2.0), [1.0]).readouts[0]


def test_refuses_a_ratio_out_of_range_and_scores_that_are_none():
    with pytest.raises(ValueError, match="r must be"):
        book.explore_ratio(torch.rand(10), [1.5])
    for wrong in (torch.tensor([]), torch.tensor([-1.0, 1.0]), torch.tensor([torch.nan, 1.0])):
        with pytest.raises(ValueError, match="score"):
            book.explore_ratio(wrong, [0.5])


def test_every_temperature_says_what_a_mask_by_hand_gives(net, data):
    slider = book.explore_tau(net, data, k=80, sample=30)
    assert len(slider.frames) == len(TAUS)
    sample = pb.Split(data.valid.images[:30], data.valid.labels[:30])
    layers = [net[1], net[3]]
    weights = torch.cat([layer.weight.detach().flatten() for layer in layers])
    t = float(weights.abs().quantile(0.8))
    for stop in (0, TAUS.index(0.01), len(TAUS) - 1):
        tau = TAUS[stop] * float(weights.std(correction=0))
        mask = ((weights**2 - t**2) / tau).sigmoid()
        undecided = ((mask > 0.1) & (mask < 0.9)).float().mean()
        by_hand = net_copy(net)
        with torch.no_grad():
            for layer in (by_hand[1], by_hand[3]):
                layer.weight.mul_(((layer.weight**2 - t**2) / tau).sigmoid())
        readout = slider.readouts[stop]
        assert f"tau = {TAUS[stop]:g} x std(W) = {tau:.1e}: " in readout
        said = float(re.search(r"([\d.]+)% of the weights are undecided", readout)[1])
        assert said == pytest.approx(100 * float(undecided), abs=0.1)  # t is exact to a cell of its histogram
        assert f"{pb.evaluate(by_hand, sample).accuracy:.1%} of 30 validation images" in readout


def test_the_colder_the_fewer_are_undecided_and_the_network_stays_whole(net, data):
    before = net[1].weight.clone()
    softened = [explore._softened(net, data.valid, 90, tau) for tau in TAUS]
    undecided = [shown.undecided for shown in softened]
    assert undecided == sorted(undecided, reverse=True)
    assert undecided[-1] < 0.01
    assert len({shown.t for shown in softened}) == 1
    assert torch.equal(net[1].weight, before)
    assert pb.masks(net) == {}


def test_the_temperature_slider_refuses_a_masked_network_and_an_empty_sample(net, data):
    with pytest.raises(ValueError, match="sample must be"):
        book.explore_tau(net, data, sample=0)
    pb.prune_weights(net, 50)
    with pytest.raises(ValueError, match="without mask"):
        book.explore_tau(net, data)


def test_every_gate_temperature_says_what_the_law_gives():
    slider = book.explore_gates()
    assert len(slider.frames) == len(GATE_TAUS) * len(CHANCES)
    for option, chance in enumerate(CHANCES.values()):
        for stop, tau in enumerate(GATE_TAUS):
            readout = slider.readouts[slider.index(stop, [option])]
            said = re.fullmatch(
                rf"tau = {tau:g}: (\S+)% of the soft gates lie between 0.1 and 0.9; gradient (\S+) on "
                r"average with spread (\S+), in truth (\S+)\.",
                readout,
            )
            undecided, mean, _, truth = map(float, said.groups())
            # soft in 0.1..0.9: logit + noise between -tau ln 9 and tau ln 9, the noise logistic
            logit, reach = math.log(chance / (1 - chance)), tau * math.log(9)
            law = sigmoid(reach - logit) - sigmoid(-reach - logit)
            assert undecided / 100 == pytest.approx(law, abs=0.011)
            assert truth == pytest.approx(chance * (1 - chance), rel=0.05)
            if tau == 30:  # hot: all gates near one half, whatever their logit
                assert mean == pytest.approx(1 / (4 * tau), rel=0.1)
    cold = re.search(r"gradient (\S+) on average", slider.readouts[slider.index(GATE_TAUS.index(0.1), [1])])
    assert float(cold[1]) == pytest.approx(0.25, rel=0.1)
    warm = re.search(r"gradient (\S+) on average", slider.readouts[slider.index(GATE_TAUS.index(1), [1])])
    assert float(warm[1]) == pytest.approx(1 / 6, rel=0.05)  # the integral of s (1 - s) over 0..1


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_gates_refuse_a_temperature_of_0():
    with pytest.raises(ValueError, match="tau must be"):
        book.explore_gates([0.0])


def test_a_network_thins_out_epoch_by_epoch(net):
    pruning = pb.GumbelPruning(net, logit=0.0)
    moments = []
    first, last = (gate.logit for gate in gates(net).values())
    for epoch, opened in ((1, 100), (3, 4)):
        with torch.no_grad():
            last.fill_(-8.0)
            first.fill_(-8.0).flatten()[:opened] = 8.0
        moments.append(book.gate_moment(pruning, {"epoch": epoch, "valid_accuracy": epoch / 4}))
    assert moments[0].counts.sum() == 15_880
    assert moments[0].counts[-1] == moments[0].kept == 100
    assert moments[1].pixels.tolist() == [[1] * 4 + [0] * 780]
    slider = book.explore_thinning(moments)
    assert slider.stops == [1, 3]
    assert slider.start == 1
    assert "100 gates" in slider.readouts[0]
    assert "Epoch 3: density 0.059%, 4 gates" in slider.readouts[1]
    assert "75.0%" in slider.readouts[1]
    with pytest.raises(ValueError, match="at least one epoch"):
        book.explore_thinning([])


def test_each_class_says_its_own_paths_and_weights(data):
    torch.manual_seed(1)
    pruned = pb.harden(pb.prune_weights(pb.mlp([784, 20, 12, 10]), 98, scope="global"))
    slider = book.explore_class(pruned, data)
    assert slider.stops == list(data.classes)
    total = sum(int(weight.count_nonzero()) for weight in pb.surviving(pruned))
    shares = pb.importance(pruned, data.train.images.flatten(1).std(0))
    for index, readout in enumerate(slider.readouts):
        lit = pb.surviving(pruned, target=index)
        routes, edges = pb.count_paths(pruned, target=index), sum(int(w.count_nonzero()) for w in lit)
        pixels = int(lit[0].any(0).sum())
        assert f"Class {index}: {routes:,} paths from {pixels} pixels" in readout
        assert f"{edges:,} of {total:,} weights" in readout
        assert f"{shares[index].max():.1%} of the strength" in readout
    assert len(set(slider.frames)) == len(data.classes)


def test_the_frontier_slider_ranks_the_methods_at_each_density():
    rows = pd.DataFrame(
        {
            "method": ["rule", "rule", "gates", "rule"],
            "density": [0.0015, 0.0015, 0.0015, 0.5],
            "test_accuracy": [0.8, 0.9, 0.95, 0.98],
            "kept": [399, 399, 399, 133_100],
        }
    )
    slider = book.explore_frontier(rows)
    assert slider.stops == [50, 0.15]
    assert slider.readouts == [
        "50 % kept, the best of 1: rule 98.0 %.",
        "0.15 % kept, the best of 2: gates 95.0 %, rule 85.0 %.",
    ]
    with pytest.raises(ValueError, match="rows must hold at least one network"):
        book.explore_frontier(rows[:0])


def test_savings_say_the_bytes_of_a_pruned_copy_and_the_time_of_the_table():
    net = pb.mlp([784, 30, 10])
    before = copy.deepcopy(net.state_dict())
    rows = [("dense", 0, 1000, 1.0), ("csr", 50, 500, 0.5), ("csr", 90, 100, 2.0), ("zeros", 90, 100, 1.0)]
    columns = ["form", "k", "weights", "faster"]
    table = pd.concat([pd.DataFrame(rows, columns=columns).assign(batch=batch) for batch in (1, 256)])
    slider = book.explore_savings(net, table)
    assert slider.stops == [50, 90]
    assert slider.stops[slider.start] == 90
    assert slider.choices == {"batch": ["256 images", "1 image"]}
    for index, k in enumerate((50, 90)):
        size = pb.stored(pb.prune_weights(copy.deepcopy(net), k))
        readout = slider.readouts[slider.index(index, [1])]
        assert readout == (
            f"{k} % zeros: dense {size.dense / 1e6:.2f} MB, CSR {size.csr / 1e6:.2f} MB, bit-mask "
            f"{size.bitmask / 1e6:.2f} MB; CSR takes {(2.0, 0.5)[index]:.2f} of the dense time for 1 image."
        )
    assert all(torch.equal(before[name], each) for name, each in net.state_dict().items())
    with pytest.raises(ValueError, match="faster must pass 1"):
        book.explore_savings(net, table[table["faster"] >= 1])
