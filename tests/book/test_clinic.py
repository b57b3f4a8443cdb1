"""The clinic says what the lines that it prints would do."""

from __future__ import annotations

import copy
import html
import re

import pytest
import torch
from small import seeded
from torch import nn

import prunebook as pb
from prunebook import book
from prunebook.book.clinic import SCOPES, Patient


def make_model():
    with seeded():
        return pb.mlp([20, 16, 12, 3])


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def images():
    return torch.rand(9, 20, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels():
    return torch.arange(9) % 3


def code_of(below):
    return html.unescape(re.search("<pre>(.*?)</pre>", below, re.DOTALL)[1])


@pytest.mark.parametrize("what", ["weights", "units"])
@pytest.mark.parametrize("of", SCOPES)
def test_its_lines_make_the_network_that_it_describes(model, images, labels, what, of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, readout, below = book.clinic(model, images, labels, stops=[50], rounds=1).draw(62.5, what, of)
    names = {"model": model}
    exec(code_of(below), names)
    small = names["small"]
    measured = pb.costs(small, images, batches=[1], rounds=1)
    right = float((small(images).argmax(1) == labels).float().mean())
    assert f"k = 62.5 % of the {what}, {of}: {right:.1%} of 9 images right" in readout
    assert f"{measured.kept:,} of 548 weights" in readout
    for name, number in (
        ("weights kept", measured.kept),
        ("weights on a path", measured.effective),
        ("multiplications", measured.macs.nonzero),
        ("bytes, smallest form", min(vars(measured.bytes).values())),
    ):
        assert re.search(rf">{name}</th><td>[\d,]+</td><td>{number:,}</td>", below), name
    assert pb.load_model("small.safetensors")(images).allclose(small(images))


def test_the_network_itself_stays_as_it_is(model, images):
    book.clinic(model, images, stops=[50], rounds=1)
    assert all(
        torch.equal(each, make_model().state_dict()[name]) for name, each in model.state_dict().items()
    )
    assert pb.masks(model) == {}
    assert model.training


def test_nothing_pruned_costs_all_and_changes_no_answer(model, images):
    treated = Patient(model, images, None, 1).prune(0, "weights", "layer")
    assert treated.pruned.right == 1
    assert treated.difference == 0
    assert (treated.pruned.kept, treated.pruned.macs) == (548, 548)
    assert treated.layers == {"1": 1, "3": 1, "5": 1}
    assert treated.remarks == []


def test_without_labels_equal_answers_count(model, images):
    _, readout, _ = book.clinic(model, images, stops=[50], rounds=1).draw(90, "weights", "each layer")
    pruned = pb.prune_weights(copy.deepcopy(model), 90)
    same = float((pruned(images).argmax(1) == model(images).argmax(1)).float().mean())
    assert f"{same:.1%} of 9 images answered as before" in readout


def test_a_network_that_is_no_classifier_has_no_accuracy(images):
    with seeded():
        net = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 6), nn.Unflatten(1, (2, 3)))
    _, readout, _ = book.clinic(net, images, stops=[50], rounds=1).draw(50, "weights", "each layer")
    assert readout.startswith("k = 50 % of the weights, each layer; ")
    assert "images" not in readout


class Branching(nn.Module):
    """A network that torch.fx cannot trace."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(20, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.first(x).relu() if x.sum() > 0 else self.first(x))


def test_a_network_that_cannot_be_traced_is_pruned_but_keeps_its_sizes_and_the_reason_is_said(images):
    with seeded():
        net = Branching()
    _, readout, below = book.clinic(net, images, stops=[50], rounds=1).draw(50, "weights", "each layer")
    assert "92 of 184 weights" in readout
    assert "pb.shrink refuses this network, so its layers keep their sizes" in below
    assert "on a path" not in below
    assert "pb.bake(net)" in code_of(below)
    assert "was not shrunk" in below


def test_what_was_left_whole_is_said_with_the_reason(images):
    with seeded():
        net = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Bilinear(8, 8, 3))

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            hidden = self.net[1](self.net[0](x))
            return self.net[2](hidden, hidden)

    slider = book.clinic(Twice(), images, stops=[50], rounds=1)
    _, _, below = slider.draw(50, "weights", "each layer")
    assert "Left whole, and why" in below
    assert "net.2.weight (Bilinear, 192 weights)" in below
    _, readout, below = slider.draw(50, "units", "each layer")
    assert "pb.prune_units refuses this network: model must have a linear or convolution layer" in below
    assert "160 of 160 weights" in readout


def test_refuses_what_it_cannot_examine(model, images, labels):
    with pytest.raises(ValueError, match="images must hold at least one"):
        book.clinic(model, images[:0])
    with pytest.raises(ValueError, match="labels must be as many as the 9 images, got 5"):
        book.clinic(model, images, labels[:5])
    with pytest.raises(ValueError, match="rounds must be"):
        book.clinic(model, images, rounds=0)
    with pytest.raises(ValueError, match="without masks"):
        book.clinic(pb.prune_weights(model, 50), images)


def test_the_slider_waits_until_it_is_let_go_and_shows_the_lines_on_both_faces(model, images):
    slider = book.clinic(model, images, stops=[50], rounds=1)
    knob, *_, below, _ = slider.live().children
    assert knob.continuous_update is False
    knob.value = 93.7
    assert 'pb.prune_weights(net, 93.7, scope="layer")' in code_of(below.value)
    assert slider.below[0] in slider.page()
    assert slider.page().count("prune_units(net, 50") == 2
