"""The slider's two faces say the same."""

from __future__ import annotations

import gc
import io
import json
import re
import weakref
from importlib.resources import files

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from prunebook.book import plots, widgets
from prunebook.book.plots.style import moving
from prunebook.book.widgets import CONTROL, LIVE, FrameSlider, encode


def draw(k):
    figure, (ax,) = plots.figure(width=2, height=1)
    ax.plot([0, k])
    return figure, f"k is <{k}>"


def pixels(image):
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGBA")).astype(int)


def test_frames_of_a_page_are_small_and_on_white():
    picture = encode(draw(1)[0])
    assert picture[:4] == b"RIFF"
    assert picture[8:12] == b"WEBP"
    assert len(picture) < 25_000
    assert pixels(picture)[0, 0].min() > 250


def test_a_live_picture_has_no_background_so_that_it_takes_the_colour_of_the_notebook():
    assert pixels(encode(draw(1)[0], live=True))[0, 0, 3] == 0


def test_a_figure_and_what_was_drawn_of_it_are_forgotten_together():
    fig, _ = draw(1)
    encode(fig, live=True)
    gone = weakref.ref(fig)
    del fig
    gc.collect()
    assert gone() is None


def test_what_moves_is_drawn_as_if_all_had_been_drawn_anew():
    def scene(values, still):
        fig, (ax,) = plots.figure(width=2, height=1, margins={})
        ax.set(xlim=(0, 1), ylim=(0, 10))
        (line,) = ax.plot([0.2, 0.8], values)
        if not still:
            moving(line, ax.title)
        ax.set_title(f"to {values[1]}")
        return fig, ax, line

    fig, ax, line = scene([0, 1], still=False)
    encode(fig, live=True)
    line.set_ydata([3, 9])
    ax.set_title("to 9")
    assert (pixels(encode(fig, live=True)) == pixels(encode(scene([3, 9], still=True)[0], live=True))).all()


def test_page_holds_every_frame_once_and_escapes_text():
    page = FrameSlider(draw, [0, 50, 100], label="k in %", start=1).page()
    stored = json.loads(page.split('<script type="application/json">')[1].split("</script>")[0])
    assert [bool(frame) for frame in stored["frames"]] == [True, False, True], "the first stands in the page"
    assert page.count('<img src="data:image/webp;base64,') == 1
    assert (stored["first"], stored["stops"]) == (1, ["0", "50", "100"])
    assert stored["readouts"] == ["k is <0>", "k is <50>", "k is <100>"]
    assert 'width="200" height="100"' in page, "nothing jumps when the picture is there"
    assert 'max="2"' in page
    assert 'value="1"' in page
    assert 'alt="k is &lt;50&gt;"' in page
    assert "<50>" not in page
    assert "http" not in page


def test_only_what_differs_from_the_first_frame_is_stored_and_over_it_gives_the_frame():
    def step(k):
        figure, (ax,) = plots.figure(width=3, height=2)
        ax.plot([0, 1], [k, k])
        ax.set(ylim=(0, 10))
        return figure, f"{k}"

    slider = FrameSlider(step, [2, 5, 8], label="k", start=1)
    base, patch = (Image.open(io.BytesIO(slider.frames[place])) for place in (1, 2))
    whole = Image.open(io.BytesIO(encode(step(8)[0])))
    assert patch.size == base.size == whole.size == (600, 400)
    clear = (pixels(slider.frames[2])[..., 3] == 0).mean()
    assert 0.5 < clear < 1
    shown = Image.alpha_composite(base.convert("RGBA"), patch.convert("RGBA")).convert("RGB")
    assert (np.asarray(shown) == np.asarray(whole.convert("RGB"))).all()
    assert (np.asarray(shown) != np.asarray(base.convert("RGB"))).any()


def test_a_frame_of_another_size_is_stored_whole():
    def grow(k):
        return plots.figure(width=1 + k, height=1)[0], f"{k}"

    slider = FrameSlider(grow, [0, 1], label="k")
    assert pixels(slider.frames[1])[..., 3].min() == 255
    assert pixels(slider.frames[1]).shape[:2] == (200, 400)


def test_a_picture_of_many_lines_can_have_fewer_pixels_at_the_same_size():
    slider = FrameSlider(draw, [0], label="k", sharp=1.5)
    assert pixels(slider.frames[0]).shape[:2] == (150, 300)
    assert 'width="200" height="100"' in slider.page()


def test_a_page_says_values_in_words():
    page = FrameSlider(draw, [50, 99.5], label="k", words="{:g} % pruned").page()
    assert 'aria-valuetext="50 % pruned"' in page
    assert '"stops":["50 % pruned","99.5 % pruned"]' in page
    assert "half or more" in FrameSlider(draw, [50], label="k", words=lambda k: "half or more").page()


def test_a_page_knows_where_the_panels_of_a_figure_are():
    def beside(k):
        return plots.figure(columns=2, width=4, height=1)[0], f"{k}"

    assert '"panels":[0.0,0.5,1.0]' in FrameSlider(beside, [0], label="k").page()
    assert '"panels":[0.0,1.0]' in FrameSlider(draw, [0], label="k").page()


def test_the_script_of_the_page_is_that_of_the_package_in_a_block_of_its_own():
    script = files("prunebook.book").joinpath("slider.js").read_text()
    assert script in FrameSlider(draw, [0], label="k").page()
    code = [line for line in script.splitlines() if not line.startswith("//")]
    assert (code[0], code[-1]) == ("{", "}"), "several outputs of a notebook carry it"
    assert "</script" not in script
    assert 'querySelectorAll(".frame-slider:not([data-ready])")' in script


def parts(live):
    """Return the controls of a live slider, its picture, its readout, and the place for an error."""
    *controls, picture, readout, trouble, _, _ = live.children
    return controls, picture, readout, trouble


def test_live_face_draws_at_values_that_no_frame_has():
    slider = FrameSlider(draw, [0, 50, 100], label="k in %", span=(0, 100, 0.1))
    (knob,), picture, readout, trouble = parts(slider.live())
    assert isinstance(knob, ipywidgets.FloatSlider)
    assert (knob.min, knob.max, knob.step, knob.readout_format) == (0, 100, 0.1, ".1f")
    before = picture.value
    knob.value = 93.69999999999999  # what 937 steps of 0.1 add up to
    assert readout.value == "k is &lt;93.7&gt;"
    assert picture.value == encode(draw(93.7)[0], live=True) != before
    assert trouble.value == ""


def test_live_face_can_be_logarithmic_or_have_only_the_stops():
    (knob,), *_ = parts(
        FrameSlider(draw, [0.01, 1, 10], label="tau", span=(0.01, 10, 0.02), log=True, start=1).live()
    )
    assert isinstance(knob, ipywidgets.FloatLogSlider)
    assert (knob.min, knob.max, knob.value) == (-2, 1, 1)
    (knob,), _, readout, _ = parts(FrameSlider(lambda name: (draw(1)[0], name), ["a", "b"], label="x").live())
    knob.value = "b"
    assert readout.value == "b"


def test_a_live_slider_leaves_a_core_to_the_browser_and_the_threads_as_they_were(monkeypatch):
    before, used = torch.get_num_threads(), []

    def draw_and_count(k):
        used.append(torch.get_num_threads())
        return draw(k)

    monkeypatch.setattr(widgets.os, "cpu_count", lambda: 4)
    torch.set_num_threads(4)
    try:
        (knob,), *_ = parts(FrameSlider(draw_and_count, [0], label="k", span=(0, 1, 0.1)).live())
        assert used == [3, 3]
        assert torch.get_num_threads() == 4
        monkeypatch.setattr(widgets.os, "cpu_count", lambda: 1)
        knob.value = 0.5
        assert used[2:] == [1]
    finally:
        torch.set_num_threads(before)


def test_an_error_stands_beside_the_slider_and_is_raised_and_goes_with_the_next_picture():
    def fragile(k):
        if k > 60:
            raise ZeroDivisionError(f"no <{k}>")
        return draw(k)

    (knob,), _, readout, trouble = parts(FrameSlider(fragile, [0, 50], label="k", span=(0, 100, 1)).live())
    with pytest.raises(ZeroDivisionError):
        knob.value = 70
    assert "ZeroDivisionError: no &lt;70.0&gt;" in trouble.value
    assert 'role="alert"' in trouble.value
    knob.value = 20
    assert (trouble.value, readout.value) == ("", "k is &lt;20.0&gt;")


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, bundle by bundle."""
    bundles = []
    monkeypatch.setattr(widgets, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def test_the_page_is_shown_first_and_the_live_slider_apart(shown):
    slider = FrameSlider(draw, [0, 50], label="k in %")
    slider._ipython_display_()
    page, live = shown
    assert page == {"text/html": slider.page(), "text/plain": "FrameSlider(k in %: 0, 50)"}
    assert slider.page() == FrameSlider(draw, [0, 50], label="k in %").page()
    assert [*live] == [LIVE]
    assert live[LIVE]["version_major"] == 2
    assert live[LIVE]["model_id"]


def test_sliders_that_show_something_else_have_other_names():
    one, other = (FrameSlider(lambda k, b=b: draw(k + b), [0], label="k") for b in (0, 5))
    same = FrameSlider(draw, [0], label="k")
    assert one._name("live") == same._name("live") != other._name("live")


def test_either_face_hides_the_other_by_its_name():
    slider = FrameSlider(draw, [0, 50], label="k in %")
    name = slider._name("live")
    assert name in slider.live()._dom_classes
    assert f"body:has(.{name}) #{slider._name('frames')}," in slider.page()


def test_the_live_face_needs_nothing_that_ipywidgets_7_lacks(monkeypatch, shown):
    monkeypatch.delattr(ipywidgets.Widget, "_repr_mimebundle_", raising=False)
    FrameSlider(draw, [0, 50], label="k in %")._ipython_display_()
    assert shown[1][LIVE]["model_id"]


def test_inputs_of_the_page_have_names_and_wait_for_the_script():
    slider = FrameSlider(lambda k, scope: draw(k), [0, 1], label="k <%>", choices={"scope": ["one", "all"]})
    page = slider.page()
    assert '<div id="frames-' in page
    assert 'role="group" aria-label="k &lt;%&gt;"' in page
    (name,) = re.findall(r'<label for="([\w-]+)">k &lt;%&gt;</label>', page)
    assert f'<input id="{name}" type="range"' in page
    assert '<fieldset aria-label="scope"><span>scope</span>' in page
    assert page.count(f" {CONTROL}") == page.count("<input") == 3
    assert "control.disabled = false" in page


@pytest.fixture
def opened(chromium, tmp_path):
    """Return a function that opens a slider with two panels in a window of some width."""

    def two(k, side):
        figure, (left, right) = plots.figure(columns=2, width=8, height=3)
        left.plot([0, 1], [0, k])
        right.plot([0, 1], [k, 0])
        return figure, f"from {k} to 0, {side}"

    sides = {"side": ["left", "right"]}
    page = FrameSlider(two, [1, 2, 3], label="k", words="{} steps", start=1, choices=sides).page()
    (tmp_path / "slider.html").write_text(
        f"<!doctype html><meta name='viewport' content='width=device-width'>{page}"
    )

    def visit(width):
        tab = chromium.new_page(viewport={"width": width, "height": 900})
        tab.goto((tmp_path / "slider.html").as_uri())
        tabs.append(tab)
        return tab

    tabs = []
    yield visit
    for tab in tabs:
        tab.close()


@pytest.mark.browser
def test_on_a_phone_the_panels_stand_one_below_the_other_and_fill_the_width(opened):
    page = opened(390)
    boxes = [image.bounding_box() for image in page.locator("img").all()]
    assert len(boxes) == 2
    assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]
    assert all(box["width"] > 360 for box in boxes)
    assert all(box["width"] / box["height"] == pytest.approx(4 / 3, abs=0.02) for box in boxes)
    places = page.evaluate("[...document.images].map((each) => each.style.objectPosition.split(' ')[0])")
    assert places == ["0%", "100%"]
    assert page.evaluate("[...document.images].map((each) => each.alt)") == ["from 2 to 0, left", ""]
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_function("document.images.length === 1")
    assert page.locator("img").bounding_box()["width"] == 800


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_slider_is_moved_by_keys_says_its_value_in_words_and_nothing_jumps(opened, width):
    page = opened(width)
    knob, sizes = page.locator("input[type=range]"), "[...document.images].map((each) => each.offsetHeight)"
    before, first = page.evaluate(sizes), page.locator("img").first.get_attribute("src")
    assert knob.get_attribute("aria-valuetext") == "2 steps: from 2 to 0, left"
    knob.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("output").inner_text() == "3 steps"
    assert knob.get_attribute("aria-valuetext") == "3 steps: from 3 to 0, left"
    assert len(set(page.evaluate("[...document.images].map((each) => each.src)"))) == 1
    assert page.locator("img").first.get_attribute("src") != first
    page.locator("text=right").click()
    assert page.locator("p").inner_text() == "from 3 to 0, right"
    assert page.evaluate(sizes) == before
    page.keyboard.press("ArrowLeft")
    knob.fill("1")
    assert page.locator("img").first.get_attribute("src") == first


@pytest.mark.browser
def test_what_is_touched_is_44_pixels_high(opened):
    page = opened(390)
    heights = [page.locator("input[type=range]").bounding_box()["height"]]
    heights += [label.bounding_box()["height"] for label in page.locator("fieldset label").all()]
    assert len(heights) == 3
    assert min(heights) >= 44


def test_an_error_while_drawing_is_an_error_of_the_cell():
    def broken(k):
        raise ZeroDivisionError(k)

    with pytest.raises(ZeroDivisionError):
        FrameSlider(broken, [0], label="k")


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("stops", {"stops": []}),
        ("start", {"start": 1}),
        ("start", {"start": -1}),
        ("choices", {"choices": {"scope": []}}),
        ("span", {"span": (0, 0.5, 1)}),
        ("span", {"span": (2, 3, 1)}),
        ("span", {"span": (0, 2, 0)}),
        ("span", {"span": (0, 2, 1), "log": True}),
    ],
)
def test_refuses_a_slider_without_a_stop_or_an_option(argument, given):
    with pytest.raises(ValueError, match=argument):
        FrameSlider(draw, **{"stops": [1], "label": "k"} | given)


def test_choices_stand_beside_the_slider_on_both_faces():
    def draw_two(k, colour, size):
        return draw(k)[0], f"{k} {colour} {size}"

    choices = {"colour": ["red", "blue"], "size": ["s", "m", "l"]}
    slider = FrameSlider(draw_two, [0, 1], label="k", choices=choices)
    assert len(slider.frames) == 12
    assert slider.readouts[slider.index(1, [1, 2])] == "1 blue l"
    assert slider.readouts[slider.index(0, [0, 1])] == "0 red m"
    (knob, colour, size), _, readout, _ = parts(slider.live())
    knob.value, colour.value, size.value = 1, "blue", "l"
    assert readout.value == "1 blue l"
    assert slider.page().count('type="radio"') == 5
    assert repr(slider) == "FrameSlider(k: 0, 1; colour: red, blue; size: s, m, l)"
