"""The slider's two faces say the same."""

from __future__ import annotations

import ipywidgets
import pytest

from prunebook.book import plots
from prunebook.book.widgets import CONTROL, LIVE, FrameSlider, encode


def draw(k):
    figure, (ax,) = plots.figure(width=2, height=1)
    ax.plot([0, k])
    return figure, f"k is <{k}>"


def test_frames_are_small_webp_images():
    picture = encode(draw(1)[0])
    assert picture[:4] == b"RIFF"
    assert picture[8:12] == b"WEBP"
    assert len(picture) < 25_000


def test_page_holds_every_frame_and_escapes_text():
    page = FrameSlider(draw, [0, 50, 100], label="k in %", start=1).page()
    assert page.count("data:image/webp;base64,") == 4  # three frames, and the one that shows first
    assert 'max="2"' in page
    assert 'value="1"' in page
    assert 'alt="k is &lt;50&gt;"' in page
    assert "third" not in page
    assert "http" not in page.replace("data:", "")


def test_live_face_follows_the_slider():
    slider = FrameSlider(draw, [0, 50, 100], label="k in %")
    knob, picture, readout = slider.live().children
    assert picture.value == slider.frames[0]
    knob.value = 2
    assert picture.value == slider.frames[2]
    assert readout.value == "k is &lt;100&gt;"


def test_one_bundle_carries_both_faces_and_a_text_that_never_changes():
    slider = FrameSlider(draw, [0, 50], label="k in %")
    bundle = slider._repr_mimebundle_()
    assert LIVE in bundle
    assert bundle["text/html"] == slider.page() == FrameSlider(draw, [0, 50], label="k in %").page()
    assert bundle["text/plain"] == repr(slider) == "FrameSlider(k in %: 0, 50)"


def test_the_live_face_needs_nothing_that_ipywidgets_7_lacks(monkeypatch):
    monkeypatch.delattr(ipywidgets.Widget, "_repr_mimebundle_", raising=False)
    view = FrameSlider(draw, [0, 50], label="k in %")._repr_mimebundle_()[LIVE]
    assert view["version_major"] == 2
    assert view["model_id"]


def test_inputs_of_the_page_have_names_and_wait_for_the_script():
    slider = FrameSlider(lambda k, scope: draw(k), [0, 1], label="k <%>", choices={"scope": ["one", "all"]})
    page = slider.page()
    assert '<div id="frames-' in page
    assert 'role="group" aria-label="k &lt;%&gt;"' in page
    assert '<label>k &lt;%&gt; <input type="range"' in page
    assert '<fieldset style="border:0;padding:0" aria-label="scope">' in page
    assert page.count(f" {CONTROL}") == page.count("<input") == 3
    assert "control.disabled = false" in page


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
    knob, colour, size, _, readout = slider.live().children
    knob.value, colour.value, size.value = 1, 1, 2
    assert readout.value == "1 blue l"
    assert slider.page().count('type="radio"') == 5
    assert repr(slider) == "FrameSlider(k: 0, 1; colour: red, blue; size: s, m, l)"
