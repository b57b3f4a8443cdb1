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
    return html.unescape(re.search("<pre[^>]*>(.*?)</pre>", below, re.DOTALL)[1])


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
    assert f"; {measured.kept:,} of 548 weights; " in readout
    for name, number in (
        ("weights, zeros included", measured.weights),
        ("weights not zero", measured.kept),
        ("weights on a path", measured.effective),
        ("multiplications", measured.macs.dense),
        (r"bytes, as [\w-]+", min(vars(measured.bytes).values())),
    ):
        assert re.search(rf">{name}</th><td [^>]*>[\d,]+</td><td [^>]*>{number:,}</td>", below), name
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
    assert treated.found.right == 1
    assert treated.difference == treated.changed == 0
    assert (treated.found.kept, treated.found.stored, treated.found.macs) == (548, 548, 548)
    assert treated.layers == {"1": 1, "3": 1, "5": 1}
    assert treated.remarks == []


def test_without_labels_equal_answers_count(model, images):
    _, readout, _ = book.clinic(model, images, stops=[50], rounds=1).draw(90, "weights", "each layer")
    pruned = pb.prune_weights(copy.deepcopy(model), 90)
    same = float((pruned(images).argmax(1) == model(images).argmax(1)).float().mean())
    assert f"{same:.1%} of 9 images as the dense network answers" in readout


def test_a_network_that_is_no_classifier_has_no_accuracy(images):
    with seeded():
        net = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 6), nn.Unflatten(1, (2, 3)))
    _, readout, _ = book.clinic(net, images, stops=[50], rounds=1).draw(50, "weights", "each layer")
    assert readout.startswith("k = 50 % of the weights, each layer: 104 of 208 weights; ")
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
    assert "192 weights outside linear and convolution layers are neither pruned nor counted" in below
    assert "<summary>where</summary>net.2.weight" in below
    _, readout, below = slider.draw(50, "units", "each layer")
    assert "pb.prune_units refuses this network: model must have a linear or convolution layer" in below
    assert "160 of 160 weights" in readout
    assert "<pre" not in below, "there are no lines that would do it"


class Returning(nn.Module):
    """A network that returns something else than one tensor."""

    def __init__(self, wrap):
        super().__init__()
        self.inner, self.wrap = nn.Linear(20, 3), wrap

    def forward(self, x):
        return self.wrap(self.inner(x))


REFUSED = {
    "images must be a tensor of at least one": lambda m, x, y: book.clinic(m, x[:0]),
    "images must be a tensor": lambda m, x, y: book.clinic(m, x.numpy()),
    "labels must be 9 whole numbers": lambda m, x, y: book.clinic(m, x, y[:5]),
    r"labels must be .* got \(9, 1\)": lambda m, x, y: book.clinic(m, x, y[:, None]),
    r"labels must be .* torch\.float32": lambda m, x, y: book.clinic(m, x, y.float()),
    "labels must be from 0 to 2, got": lambda m, x, y: book.clinic(m, x, y + 1),
    r"labels need outputs \(n, classes\)": lambda m, x, y: book.clinic(nn.Linear(20, 1), x, y),
    "rounds must be": lambda m, x, y: book.clinic(m, x, rounds=0),
    "stops must be": lambda m, x, y: book.clinic(m, x, stops=[101]),
    "without masks": lambda m, x, y: book.clinic(pb.prune_weights(m, 50), x),
    "one tensor, got dict": lambda m, x, y: book.clinic(Returning(lambda out: {"logits": out}), x),
    "one tensor, got tuple": lambda m, x, y: book.clinic(Returning(lambda out: (out, out)), x),
    "finite numbers": lambda m, x, y: book.clinic(Returning(lambda out: out / 0), x),
    "give model.module": lambda m, x, y: book.clinic(nn.DataParallel(m), x),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refuses_what_it_cannot_examine(model, images, labels, reason):
    with pytest.raises(ValueError, match=reason):
        REFUSED[reason](model, images, labels)


def test_says_what_a_reader_should_know_about_the_network(images):
    with seeded():
        net = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        net[3].bias.copy_(torch.tensor([9.0, 0, 0]))
    _, _, below = book.clinic(net, images, stops=[50], rounds=1).draw(0.5, "units", "each layer")
    assert "it has BatchNorm: pb.recalibrate(net, images)" in below
    assert "gives one and the same answer to the whole batch" in below
    assert "k is in percent" not in below
    assert "No layer became smaller" in below


def test_the_slider_waits_until_it_is_let_go_and_shows_the_lines_on_both_faces(model, images):
    slider = book.clinic(model, images, stops=[50], rounds=1)
    knob, *_, below, _ = slider.live().children
    assert knob.continuous_update is False
    knob.value = 93.7
    assert 'pb.prune_weights(net, 93.7, scope="layer")' in code_of(below.value)
    assert slider.below[0] in slider.page()
    assert slider.page().count("prune_units(net, 50") == 2
