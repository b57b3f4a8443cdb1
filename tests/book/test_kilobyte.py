"""The network in a kilobyte: the program, the QR code, and the page that has the network in its link."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import digits
import numpy as np
import pytest
import segno
import torch
import zxingcpp
from demonstration import layers_of, whole
from kilobyte import chosen, text_of

import prunebook as pb
from prunebook.book import table
from prunebook.book.wires import wires
from prunebook.experiments.gumbel import wired

BOOK = Path(__file__).parents[2] / "book"
PACKAGE = Path(__file__).parents[2] / "src" / "prunebook" / "book"
SCRIPTS = [
    PACKAGE / "pad.js",
    PACKAGE / "onepage.js",
    BOOK / "_static/kilobyte-data.js",
    BOOK / "_static/kilobyte.js",
]


@pytest.fixture(scope="module")
def data(mnist):
    return mnist


@pytest.fixture(scope="module")
def net():
    return wired(table("wires"), chosen())


def grey(data, split):
    """Return grey values from 0 to 255, as a list for each image."""
    pixels = 255 * (split.images * data.std + data.mean)
    return pixels.round().clamp(0, 255).to(torch.int64).flatten(1).tolist()


def test_the_program_has_less_than_four_kilobytes_and_imports_nothing_but_python():
    text = (BOOK / "digits.py").read_text()
    assert len(text.encode()) < 4000
    imported = {
        name.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for name in node.names
    }
    assert imported <= sys.stdlib_module_names
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(ast.parse(text)))


def test_a_network_that_fits_in_the_head(monkeypatch):
    """Two pixels into one unit, the unit into two outputs; the second pixel lies beyond a gap of 255."""
    layers = [([0.5], [(3, 0, 2.0), (300, 0, -1.0)]), ([0.0, 1.0], [(0, 0, 1.0)])]
    monkeypatch.setattr(digits, "layers", lambda: layers)
    image = [0] * 784
    image[3] = 255
    assert digits.scores(image) == [2.5, 1.0]
    image[300] = 255
    assert digits.scores(image) == [1.5, 1.0]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_packed_is_unpacked(seed):
    torch.manual_seed(seed)
    few = pb.prune_weights(pb.mlp([784, 12, 10]), 98, scope="global")
    data = pb.load_data("digits")
    packed = wires(few, data)
    for layer, (biases, found) in zip(packed, digits.layers(text_of(packed)), strict=True):
        source, unit, weight = zip(*found, strict=True)
        assert source == tuple(layer.source.tolist())
        assert unit == tuple(layer.unit.tolist())
        step = float(layer.value.abs().max()) / 127
        np.testing.assert_allclose(weight, layer.value, atol=1.01 * step)
        np.testing.assert_allclose(biases, layer.bias, atol=float(layer.bias.abs().max()) / 127)


def test_the_stored_text_is_that_of_the_network(net, data):
    text = text_of(wires(net, data))
    assert text == digits.NETWORK
    stored = json.loads(re.search(r"= (\{.*\});", (BOOK / "_static/kilobyte-data.js").read_text())[1])
    assert stored["network"] == text


def test_the_page_tells_the_right_numbers(net, data):
    text = (BOOK / "kilobyte.md").read_text() + (BOOK / "intro.md").read_text()
    packed = wires(net, data)
    size = len(digits.base64.urlsafe_b64decode(digits.NETWORK))
    assert set(re.findall(r"(\d+)\s+bytes", text)) == {str(size)}
    assert set(re.findall(r"(\d+)\s+biases", text)) == {str(sum(len(layer.bias) for layer in packed))}
    assert sum(len(layer.value) for layer in packed) == 399


def rounded(net, data):
    """Return the network in float64, for grey values from 0 to 1, with the rounded weights."""
    net = wired(table("wires"), chosen()).double()
    with torch.no_grad():
        first = layers_of(net)[0]
        first.bias -= data.mean / data.std * first.weight.sum(1)
        first.weight /= data.std
        used = [layer.weight.any(1) for layer in layers_of(net)]
        for i, layer in enumerate(layers_of(net)):
            weight, scale = whole(layer.weight, keep=True)
            layer.weight.copy_(weight * scale)
            wired_out = used[i] if i == 2 else used[i] | layers_of(net)[i + 1].weight.any(0)
            _, scale = whole(layer.bias[wired_out])
            layer.bias.copy_((layer.bias / scale).round() * scale)
    return net


def test_it_answers_as_torch_does_on_1000_images(net, data):
    images = grey(data, data.test)[:1000]
    with torch.no_grad():
        scores = rounded(net, data)(torch.tensor(images).double().view(-1, 1, 28, 28) / 255)
    np.testing.assert_allclose(
        [digits.scores(image) for image in images[:20]], scores[:20], rtol=1e-5, atol=1e-5
    )
    assert [digits.read(image) for image in images] == scores.argmax(1).tolist()


def test_rounding_costs_about_a_tenth_of_a_point(net, data):
    valid = [digits.read(image) for image in grey(data, data.valid)]
    right = np.mean(np.array(valid) == data.valid.labels.numpy())
    assert 0 <= pb.evaluate(net, data.valid).accuracy - right < 0.002


def test_the_program_reads_a_file(tmp_path, data):
    pixels = bytes(grey(data, data.test)[0])
    (tmp_path / "seven.pgm").write_bytes(b"P5 28 28 255\n" + pixels)
    command = [sys.executable, "-I", "-S", str(BOOK / "digits.py")]
    run = subprocess.run([*command, str(tmp_path / "seven.pgm")], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "7\n")
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert "28 x 28" in run.stderr


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="784 pixels, this one 10"):
        digits.read([0] * 10)


@pytest.fixture
def page(chromium, tmp_path):
    """A page with the code and with the network, opened from a folder."""
    file = tmp_path / "kilobyte.html"
    scripts = "".join(f'<script defer src="{path.as_uri()}"></script>' for path in SCRIPTS)
    file.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{scripts}</head><body>'
        '<div class="network-in-link">Not yet.</div><a class="reads-digits" href="kilobyte.html">Code</a>'
        "</body></html>"
    )
    with chromium.new_context() as context:
        page, wrong = context.new_page(), []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(file.as_uri())
        yield page
        assert wrong == []


def text_with(length):
    return "".join(chr(33 + (7 * i * i + i) % 90) for i in range(length))


# Texts that fill a version of the code to its last byte: with room left, the library adds a zero too many.
@pytest.mark.browser
@pytest.mark.parametrize("length", [17, 32, 134, 154, 230, 321, 520, 1465, 1952, 2068, 2953])
def test_a_full_code_is_that_of_a_library(page, length):
    theirs = segno.make(text_with(length), error="l", mask=0, mode="byte", boost_error=False, micro=False)
    assert page.evaluate("(text) => qrCode(text)", text_with(length)) == [list(row) for row in theirs.matrix]


@pytest.mark.browser
@pytest.mark.parametrize("length", [1, 18, 100, 231, 500, 1300, 1900])
def test_a_code_with_room_is_read_by_a_library(page, length):
    code = np.array(page.evaluate("(text) => qrCode(text)", text_with(length)))
    image = 255 * np.kron(np.pad(1 - code, 4, constant_values=1), np.ones((6, 6))).astype(np.uint8)
    (found,) = zxingcpp.read_barcodes(image)
    assert found.text == text_with(length)


@pytest.mark.browser
def test_too_long_a_text_is_refused(page):
    with pytest.raises(Exception, match="at most 2,953 bytes, not 2954"):
        page.evaluate("() => qrCode('x'.repeat(2954))")


@pytest.mark.browser
def test_the_code_can_be_read_and_its_link_reads_digits(page, data):
    from PIL import Image

    shot = page.url.removeprefix("file://").replace("kilobyte.html", "code.png")
    page.locator("svg.qr").evaluate("(svg) => { svg.style.width = '500px'; svg.style.background = '#fff'; }")
    page.locator("svg.qr").screenshot(path=shot)
    (found,) = zxingcpp.read_barcodes(np.asarray(Image.open(shot).convert("L")))
    address, network = found.text.split("#")
    assert address == page.url
    assert network == digits.NETWORK
    page.goto(found.text)
    page.reload()
    page.wait_for_selector(".one-page[data-ready]")
    for image in grey(data, data.test)[:50]:
        best = page.evaluate(
            "(image) => document.querySelector('.one-page').onePage.evaluate(image.map((x) => x / 255)).best",
            image,
        )
        assert best == digits.read(image)


@pytest.mark.browser
def test_a_damaged_link_is_said_and_the_book_s_network_shown(page):
    page.goto(f"{page.url}#{digits.NETWORK[:600]}A{digits.NETWORK[601:]}")
    page.reload()
    page.wait_for_selector(".one-page[data-ready]")
    assert "The network in this link is damaged" in page.locator(".network-in-link").inner_text()
    assert "399 weights" in page.locator(".count").inner_text()
