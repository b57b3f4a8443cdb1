"""The page computes what torch does: its numbers in numpy, its script in a Chromium."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import make_pages, sparse

import prunebook as pb
from prunebook import book
from prunebook.book.wires import ACTIVATIONS

NUMPY = {
    "": lambda x: x,
    "ReLU": lambda x: np.maximum(x, 0),
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def stored(page):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def by_numpy(numbers, grey):
    values = np.asarray(grey, dtype=float)
    for layer in numbers["layers"]:
        sums = np.array(layer["bias"])
        np.add.at(sums, layer["unit"], np.array(layer["weight"]) * values[layer["source"]])
        values = NUMPY[layer["activation"]](sums)
    return values


def by_torch(net, data, grey):
    with torch.no_grad():
        image = (torch.as_tensor(grey, dtype=torch.float64).view(1, 784) - data.mean) / data.std
        return pb.bake(net.double())(image)[0].numpy() if pb.masks(net) else net.double()(image)[0].numpy()


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from(ACTIVATIONS), st.integers(1, 400), st.booleans())
def test_the_numbers_of_the_page_give_the_scores_of_torch(seed, activation, weights, hidden):
    data = make_pages()
    net = sparse([784, *([20, 12] if hidden else []), 3], weights, activation, seed)
    page = book.OnePage(net, data)
    grey = np.random.default_rng(seed).random(784)
    expected = by_torch(net, data, grey)
    np.testing.assert_allclose(by_numpy(stored(page.page()), grey), expected, rtol=1e-6, atol=1e-6)
    assert page.kept == weights


def test_a_page_says_what_is_left_and_holds_its_examples():
    data = make_pages()
    page = book.OnePage(sparse([784, 20, 12, 3], 99), data)
    biases = sum(len(layer.bias) for layer in page.layers)
    right = round(3 * page.accuracy)
    left = f"99 of {784 * 20 + 20 * 12 + 12 * 3:,} weights (0.62%) and {biases} biases"
    assert repr(page) == f"OnePage({left}; {right / 3:.1%} of 3 test images right)"
    numbers = stored(page.page())
    assert numbers["classes"] == ["a", "b", "<c>"]
    example = np.frombuffer(base64.b64decode(numbers["examples"][1]), np.uint8) / 255
    np.testing.assert_allclose((example - 0.5) / 0.25, data.test.images[1].flatten(), atol=1e-5)


def test_a_page_is_the_same_each_time_and_asks_for_nothing():
    page = book.OnePage(sparse([784, 20, 3], 50), make_pages())
    assert page._repr_html_() == page.page() == page.page()
    assert "<c>" not in page.page()
    assert set(re.findall(r"\w+://[^\"\s]+", page.page())) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r'type="module"|fetch\(|import\(|@import|<link', page.page())
    assert 'src="data:image/webp;base64,' in page.page()


def test_the_weights_before_pruning_are_those_of_the_model_or_as_told():
    net, data = sparse([784, 20, 3], 100), make_pages()
    assert book.OnePage(net, data).summary.startswith("100 of 15,740 weights (0.64%)")
    assert book.OnePage(net, data, dense=266_200).summary.startswith("100 of 266,200 weights (0.038%)")
    with pytest.raises(ValueError, match="dense must be at least the 100 weights that are left, not 99"):
        book.OnePage(net, data, dense=99)


@pytest.fixture(scope="module")
def digits():
    return pb.load_data("digits", device="cpu")


@pytest.fixture(scope="module")
def network():
    return sparse([784, 300, 100, 10], 399)


@pytest.fixture(scope="module")
def file(tmp_path_factory, network, digits):
    path = tmp_path_factory.mktemp("page") / "network.html"
    book.OnePage(network, digits).save(path, "A <title>")
    return path


@pytest.fixture(params=[(1280, "light"), (360, "dark")], ids=["desktop", "phone"])
def page(request, chromium, file):
    """The saved file in a browser; whatever goes wrong in it fails the test."""
    width, scheme = request.param
    context = chromium.new_context(
        viewport={"width": width, "height": 800}, has_touch=True, color_scheme=scheme, offline=True
    )
    opened, wrong = context.new_page(), []
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "request", lambda r: None if r.url.startswith((file.as_uri(), "data:")) else wrong.append(r.url)
    )
    opened.goto(file.as_uri())
    yield opened
    context.close()
    assert wrong == []


def state(page):
    return page.evaluate("() => document.querySelector('.one-page').onePage.read()")


def check(found, network, data):
    np.testing.assert_allclose(
        found["outputs"], by_torch(network, data, found["values"][0]), rtol=0, atol=1e-5
    )


def draw(page, points):
    """Draw one stroke with the mouse, through points in pixels of the pad."""
    box = page.locator(".pad").bounding_box()
    for i, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + box["width"] * x / 28, box["y"] + box["height"] * y / 28, steps=4)
        if i == 0:
            page.mouse.down()
    page.mouse.up()


def centre(grey):
    image = np.reshape(grey, (28, 28))
    return [(image.sum(axis) * np.arange(28)).sum() / image.sum() for axis in (0, 1)]


@pytest.mark.browser
def test_the_script_gives_the_scores_of_torch(page, network, digits):
    for i in range(10):
        found = state(page)
        shown = (
            digits.test.images[int((digits.test.labels == i).nonzero()[0])].flatten() * digits.std
            + digits.mean
        )
        np.testing.assert_allclose(found["values"][0], shown, atol=1e-6)
        check(found, network, digits)
        page.locator(".next").click()
    for seed in range(5):
        grey = np.random.default_rng(seed).random(784) * (np.random.default_rng(seed).random(784) > 0.6)
        found = page.evaluate("grey => document.querySelector('.one-page').onePage.show(grey)", grey.tolist())
        check(found, network, digits)


@pytest.mark.browser
def test_activations_of_the_script_are_those_of_torch(chromium, digits, tmp_path):
    for i, activation in enumerate(ACTIVATIONS):
        net = sparse([784, 30, 10], 300, activation)
        book.OnePage(net, digits).save(tmp_path / f"{i}.html")
        page = chromium.new_page()
        page.goto((tmp_path / f"{i}.html").as_uri())
        check(state(page), net, digits)
        page.close()


@pytest.mark.browser
def test_a_drawing_is_scaled_centred_and_computed(page, network, digits):
    draw(page, [(3, 3), (9, 3), (9, 11)])
    found = state(page)
    grey = np.reshape(found["values"][0], (28, 28))
    rows = np.flatnonzero(grey.max(1))
    assert 19 <= rows[-1] - rows[0] + 1 <= 21
    np.testing.assert_allclose(centre(grey), 14, atol=0.1)
    assert grey.max() > 0.9
    check(found, network, digits)
    reached = sum(
        int(np.count_nonzero(np.array(values)[layer["source"]]))
        for values, layer in zip(found["values"], stored(page.content())["layers"], strict=False)
    )
    assert found["products"] == reached < 399
    said = page.locator(".count").inner_text()
    assert said.startswith(f"{reached} multiplications for this image. 399 of 266,200 weights (0.15%) and ")
    lit = sum(np.count_nonzero(flow) for flow in found["flows"])
    assert page.locator(".wire").count() == 399
    assert page.locator(".wire.plus, .wire.minus").count() == lit
    page.locator(".clear").click()
    assert state(page)["blank"]
    assert page.locator(".wire.plus, .wire.minus").count() == 0


@pytest.mark.browser
def test_the_answer_is_written_and_said(page):
    draw(page, [(14, 4), (14, 24)])
    best = state(page)["best"]
    assert page.locator(".answer b").inner_text() == str(best)
    assert page.locator(".best text").first.text_content() == str(best)
    page.wait_for_function(f"document.querySelector('[aria-live]').textContent.includes('reads {best},')")
    for part in (".pad", ".net"):
        assert page.locator(part).get_attribute("aria-label")


@pytest.mark.browser
def test_the_keyboard_draws_clears_and_shows_examples(page, network, digits):
    for _ in range(3):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('pad')"):
            break
    page.keyboard.press("Delete")
    assert state(page)["blank"]
    page.keyboard.press("ArrowRight")
    assert state(page)["blank"]
    page.keyboard.press("Space")
    for _ in range(12):
        page.keyboard.press("ArrowDown")
    drawn = state(page)
    assert not drawn["blank"]
    check(drawn, network, digits)
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    assert state(page)["values"] == drawn["values"]
    page.keyboard.press("7")
    assert "a test image of 7" in page.locator(".answer").inner_text()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Clear"


@pytest.mark.browser
def test_a_finger_draws_and_the_page_stays(page, network, digits):
    page.locator(".clear").click()
    pad = page.locator(".pad")
    box = pad.bounding_box()
    touch = page.context.new_cdp_session(page)
    for i in range(10):
        point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] * (0.2 + 0.06 * i)}
        kind = "touchMove" if i else "touchStart"
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    found = state(page)
    assert sum(found["values"][0]) > 20
    check(found, network, digits)
    assert page.evaluate("scrollY") == 0
    assert page.locator(".pad polyline").count() == 1


@pytest.mark.browser
def test_the_page_fits_and_follows_the_reader_s_colours(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    background = page.evaluate("getComputedStyle(document.querySelector('.one-page')).backgroundColor")
    assert background == ("rgb(22, 23, 27)" if dark else "rgb(255, 255, 255)")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    background = page.evaluate("getComputedStyle(document.querySelector('.one-page')).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    assert not page.locator("img").is_visible()
    assert page.locator("h1").inner_text() == "A <title>"


@pytest.mark.browser
def test_without_scripts_a_picture_stays(chromium, file):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("img").is_visible()
    assert "399 of 266,200 weights" in page.locator("img").get_attribute("alt")
    context.close()
