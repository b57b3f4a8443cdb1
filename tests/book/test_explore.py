"""The sliders show what pruning by hand, and finding a threshold by hand, gives."""

from __future__ import annotations

import copy
import html
import math
import re
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from small import make_prototypes, seeded

import prunebook as pb
from prunebook import book
from prunebook.book.explore import weights
from prunebook.book.explore.density import RATIOS
from prunebook.book.explore.frames import scrub
from prunebook.book.explore.gumbel import CHANCES, GATE_TAUS
from prunebook.book.explore.soft import TAUS
from prunebook.book.explore.weights import SCOPES, STOPS
from prunebook.methods.gates import gates


def make_net():
    with seeded():
        return pb.mlp([784, 20, 10])


@pytest.fixture
def net():
    return make_net()


@pytest.fixture(scope="module")
def data():
    return make_prototypes(40, 1)


@pytest.fixture(scope="module")
def sample(data):
    return pb.Split(data.valid.images[:30], data.valid.labels[:30])


@pytest.fixture(scope="module")
def sliders(data):
    """Each slider on a network of its own: the network before, the network after, and the slider."""

    def show(explore, *arguments, **settings):
        net = make_net()
        return copy.deepcopy(net), net, explore(net, data, *arguments, sample=30, **settings)

    return {
        "weights": show(book.explore_k, "weights"),
        "units": show(book.explore_k, "units"),
        "tau": show(book.explore_tau, k=80),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["weights", "units", "tau"])
def test_the_network_itself_stays_whole_and_unmasked(sliders, kind):
    before, after, _ = sliders[kind]
    assert pb.masks(after) == {}
    assert all(torch.equal(each, before.state_dict()[name]) for name, each in after.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["weights", "units"])
def test_every_frame_says_what_pruning_by_hand_gives(sliders, sample, method):
    net, _, slider = sliders[method]
    assert len(slider.frames) == len(STOPS) * len(SCOPES)
    prune = pb.prune_weights if method == "weights" else pb.prune_units
    for option, scope in enumerate(SCOPES.values()):
        for stop, k in [(0, 0), (3, 90)]:
            by_hand = prune(copy.deepcopy(net), k, scope=scope)
            kept = sum(int(m.sum()) for name, m in pb.masks(by_hand).items() if name.endswith("weight"))
            kept += 200 if method == "units" else 0  # the output layer has no mask
            readout = slider.readouts[slider.index(stop, [option])]
            assert f"k = {k} %: kept {kept:,} of 15,880 weights" in readout
            assert f"{pb.evaluate(by_hand, sample).accuracy:.1%} of 30 validation images" in readout
    multiplications = [int(re.search(r"([\d,]+) mult", r)[1].replace(",", "")) for r in slider.readouts]
    assert multiplications[0] == 15_880
    assert multiplications[: len(STOPS)] == sorted(multiplications[: len(STOPS)], reverse=True)


def test_pixels_are_shown_for_weights_and_layers_for_units(net, data):
    by_weight, by_unit = (weights.pruned(net, data.valid, kind, 50, "layer") for kind in ("weights", "units"))
    assert by_weight.pixels.shape == (20, 784)
    assert by_unit.pixels is None
    assert by_unit.layers == {"1": 0.5, "3": 1.0}


def live(slider, value, *choices):
    """Return the readout of the live slider at a value."""
    *controls, _, readout, trouble, _, _ = slider.live().children
    for control, wanted in zip(controls, (value, *choices), strict=True):
        control.value = wanted
    assert trouble.value == ""
    return html.unescape(readout.value)


def test_a_live_slider_prunes_at_any_k(sliders, sample):
    net, _, slider = sliders["weights"]
    by_hand = pb.prune_weights(copy.deepcopy(net), 93.7, scope="global")
    kept = 15_880 - round(0.937 * 15_880)
    said = live(slider, 93.7, "all layers together")
    assert f"k = 93.7 %: kept {kept:,} of 15,880 weights" in said
    assert f"{pb.evaluate(by_hand, sample).accuracy:.1%} of 30 validation images" in said
    assert 93.7 not in STOPS


def test_a_live_slider_softens_at_any_temperature(sliders):
    net, _, slider = sliders["tau"]
    tau = 0.2 * float(torch.cat([net[i].weight.detach().flatten() for i in (1, 3)]).std(correction=0))
    assert f"tau = 0.2 x std(W) = {tau:.1e}: " in live(slider, 0.2)


def test_a_film_has_a_moment_before_training_one_for_each_part_of_an_epoch_and_one_at_the_end(data):
    asked, net = [], make_net()
    moments, schedule = book.film(lambda epoch: epoch, 3, asked.append, per_epoch=2)
    steps = 8
    for step in range(3 * steps + 1):
        schedule(step / (3 * steps))
    assert moments == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3])
    assert len(asked) == 25
    every_step, schedule = book.film(lambda epoch: epoch, 1, per_epoch=1000)
    history = pb.fit(net, data, epochs=1, batch_size=10, schedule=schedule, progress=False)
    assert len(history.rows) == 1
    assert len(every_step) == math.ceil(len(data.train) / 10) + 1
    assert (every_step[0], every_step[-1]) == (0, 1)


@pytest.mark.parametrize(
    ("times", "stops"),
    [
        ([0], [0]),
        ([0, 0.5, 0.75], [0, 0.75]),
        ([0, 1, 1.5], [0, 1, 1.5]),
        (range(41), [*range(0, 40, 3), 40]),
    ],
)
def test_the_pictures_of_a_film_in_a_page_go_to_its_end(times, stops):
    fig, _ = book.plots.figure(width=1, height=1)
    slider = scrub([SimpleNamespace(epoch=time) for time in times], lambda moment: (fig, f"{moment.epoch:g}"))
    assert slider.stops == stops
    assert slider.readouts[slider.start] == f"{[*times][-1]:g}"


def test_a_run_is_a_film_of_its_moments(net, data):
    pruning = pb.AdaptivePruning(net, r=0.5)
    moments = [book.moment(pruning, data, epoch, sample=30) for epoch in (0, 0.5, 1.0, 1.5, 2.0)]
    with torch.no_grad():
        pb.dense_weight(net[1]).zero_()
    slider = book.explore_run(moments)
    assert slider.stops == [0, 1, 2]
    assert slider.start == 2
    assert slider.span == (0, 2, 0.5)
    kept = f"{15_880 - 7_940:,} of 15,880 weights kept"
    assert all(kept in readout and "r = 0.500" in readout for readout in slider.readouts)
    assert live(slider, 1.5).startswith("Epoch 1.5: r = 0.500")
    assert moments[0].weights.count_nonzero() > 15_000, "a moment is a copy"
    assert f"{moments[0].accuracy:.1%} of 30 validation images" in slider.readouts[0]


REFUSALS = [
    (lambda net, data: book.explore_k(net, data, "neurons"), "method must be"),
    (lambda net, data: book.explore_k(net, data, sample=0), "sample must be"),
    (lambda net, data: book.explore_tau(net, data, sample=0), "sample must be"),
    (lambda net, data: book.explore_tau(pb.prune_weights(net, 50), data), "without mask"),
    (lambda net, data: book.explore_run([]), "at least one moment"),
    (lambda net, data: book.explore_thinning([]), "at least one moment"),
    (lambda net, data: book.explore_ratio(torch.rand(10), [1.5]), "r must be"),
    (lambda net, data: book.explore_ratio(torch.tensor([-1.0, 1.0]), [0.5]), "score"),
    (lambda net, data: book.explore_gates([0.0]), "tau must be"),
    (lambda net, data: book.explore_frontier(pd.DataFrame({"method": []})), "rows must hold at least one"),
]


@pytest.mark.parametrize(("explore", "reason"), REFUSALS)
def test_refuses_what_it_cannot_show(net, data, explore, reason):
    with pytest.raises(ValueError, match=reason):
        explore(net, data)


@pytest.mark.slow
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


@pytest.mark.slow
def test_every_temperature_says_what_a_mask_by_hand_gives(sliders, sample):
    net, _, slider = sliders["tau"]
    assert len(slider.frames) == len(TAUS)
    values = torch.cat([net[i].weight.detach().flatten() for i in (1, 3)])
    t = float(values.abs().quantile(0.8))
    shares = []
    for stop, readout in enumerate(slider.readouts):
        tau = TAUS[stop] * float(values.std(correction=0))
        mask = ((values**2 - t**2) / tau).sigmoid()
        by_hand = copy.deepcopy(net)
        with torch.no_grad():
            for layer in (by_hand[1], by_hand[3]):
                layer.weight.mul_(((layer.weight**2 - t**2) / tau).sigmoid())
        assert f"tau = {TAUS[stop]:g} x std(W) = {tau:.1e}: " in readout
        undecided = 100 * float(((mask > 0.1) & (mask < 0.9)).float().mean())
        shares.append(float(re.search(r"([\d.]+)% of the weights are undecided", readout)[1]))
        assert shares[-1] == pytest.approx(undecided, abs=0.1)  # t is exact to a cell of its histogram
        if stop in (0, TAUS.index(0.01), len(TAUS) - 1):
            assert f"{pb.evaluate(by_hand, sample).accuracy:.1%} of 30 validation images" in readout
    assert shares == sorted(shares, reverse=True), "the colder, the fewer are undecided"
    assert shares[-1] < 1


@pytest.mark.slow
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


def test_a_network_thins_out_epoch_by_epoch(net, data):
    pruning = pb.GumbelPruning(net, logit=0.0)
    moments = []
    first, last = (gate.logit for gate in gates(net).values())
    for epoch, opened in ((1, 100), (3, 4)):
        with torch.no_grad():
            last.fill_(-8.0)
            first.fill_(-8.0).flatten()[:opened] = 8.0
        moments.append(book.gate_moment(pruning, data, epoch, sample=30))
    assert moments[0].counts.sum() == 15_880
    assert moments[0].counts[-1] == moments[0].kept == 100
    assert moments[1].pixels.tolist() == [[1] * 4 + [0] * 780]
    slider = book.explore_thinning(moments)
    assert slider.stops == [1, 2, 3]
    assert slider.start == 2
    assert "100 gates" in slider.readouts[0]
    assert "Epoch 3: density 0.059%, 4 gates" in slider.readouts[2]
    assert f"{moments[1].accuracy:.1%} of 30 validation images" in slider.readouts[2]


@pytest.mark.slow
def test_each_class_says_its_own_paths_and_weights(data):
    torch.manual_seed(1)
    pruned = pb.harden(pb.prune_weights(pb.mlp([784, 20, 12, 10]), 98, scope="global"))
    slider = book.explore_class(pruned, data)
    assert slider.stops == list(data.classes)
    total = sum(int(weight.count_nonzero()) for weight in pb.surviving_weights(pruned))
    shares = pb.importance(pruned, data.train.images.flatten(1).std(0))
    for index, readout in enumerate(slider.readouts):
        lit = pb.surviving_weights(pruned, target=index)
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


def test_between_two_densities_the_frontier_slider_says_so_and_takes_the_line_between_them():
    rows = pd.DataFrame(
        {"method": ["rule", "rule", "gates"], "density": [0.001, 0.1, 0.1], "test_accuracy": [0.5, 0.9, 0.95]}
    )
    slider = book.explore_frontier(rows)
    assert live(slider, 1) == "1 % kept (between two measured densities), the best of 1: rule 70.0 %."
    rows = pd.DataFrame({"method": ["a", "b"], "density": [0.123456, 0.9], "test_accuracy": [0.5, 0.9]})
    slider = book.explore_frontier(rows)
    assert live(slider, 50) == "50 % kept: no method was measured on both sides."
    assert live(slider, 12.3456) == "12.3456 % kept, the best of 1: a 50.0 %."


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
        size = pb.stored_bytes(pb.prune_weights(copy.deepcopy(net), k))
        readout = slider.readouts[slider.index(index, [1])]
        assert readout == (
            f"{k} % zeros: dense {size.dense / 1e6:.2f} MB, CSR {size.csr / 1e6:.2f} MB, bit-mask "
            f"{size.bitmask / 1e6:.2f} MB; CSR takes {(2.0, 0.5)[index]:.2f} of the dense time for 1 image."
        )
    assert all(torch.equal(before[name], each) for name, each in net.state_dict().items())
    with pytest.raises(ValueError, match="faster must pass 1"):
        book.explore_savings(net, table[table["faster"] >= 1])
