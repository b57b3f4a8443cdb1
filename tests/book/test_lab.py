"""Sliders in JupyterLab with a running kernel, driven by a browser, and what is left of them without one."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MAKE = """\
import torch
import prunebook as pb
from prunebook import book

data = pb.load_data("digits", device="cpu")
torch.manual_seed(0)
net = pb.mlp([784, 20, 10])
scores = net[1].weight.detach().abs()
"""
# Of each slider: how it is made, and a value that no frame has.
SLIDERS = {
    "k": ("book.explore_k(net, data, sample=100)", "93.7"),
    "units": ('book.explore_k(net, data, method="units", sample=100)', "37.5"),
    "tau": ("book.explore_tau(net, data, sample=100)", "0.2"),
    "r": ("book.explore_ratio(scores)", "0.937"),
    "gates": ("book.explore_gates()", "0.7"),
}
BROKEN = """\
def fragile(k):
    if k > 60:
        raise ZeroDivisionError("no such k")
    fig, (ax,) = book.plots.figure(width=2, height=1)
    return fig, f"k is {k:g}"

book.FrameSlider(fragile, [0, 50], label="k", span=(0, 100, 1))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab whose folder holds a notebook with all these sliders, not run yet."""
    folder = tmp_path_factory.mktemp("lab")
    sources = (MAKE, *(made for made, *_ in SLIDERS.values()), BROKEN)
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "sliders.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={folder}"]
    places = {
        name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    }
    log = (folder / "log").open("w")
    server = subprocess.Popen(command, env=os.environ | places, stdout=log, stderr=log)
    url = f"http://localhost:{port}/lab/tree/sliders.ipynb"
    try:
        wait_for(url)
        yield url
    finally:
        server.terminate()
        server.wait()
        log.close()


def wait_for(url):
    for _ in range(120):
        try:
            return urllib.request.urlopen(url)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    raise TimeoutError(url)


def opened(chromium, url):
    page = chromium.new_page(
        viewport={"width": 1200, "height": 6000}
    )  # all cells are in view, so all are drawn
    page.set_default_timeout(120_000)
    page.goto(f"{url}?reset")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    return page


@pytest.fixture(scope="module")
def page(chromium, lab):
    """The notebook after a run of all its cells."""
    page = opened(chromium, lab)
    page.get_by_text("| Idle").wait_for()
    page.get_by_text("Run", exact=True).first.click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.locator(".prunebook-live").nth(len(SLIDERS)).wait_for()
    yield page
    page.close()


@pytest.fixture(scope="module")
def here():
    """The same sliders in this process."""
    names = {}
    exec(MAKE, names)
    return names


def type_into(live, value):
    live.locator(".widget-readout").first.click()
    live.page.keyboard.press("ControlOrMeta+A")
    live.page.keyboard.type(value)
    live.page.keyboard.press("Enter")


def check(live, slider, before):
    """Wait for a new text, compare it with what the slider computes here, and return its value."""
    texts = live.locator(".widget-html-content")
    changed = "([text, old]) => text.innerText !== old"
    live.page.wait_for_function(changed, arg=[texts.first.element_handle(), before])
    said = texts.first.inner_text()
    value = float(re.match(r"\w+ = ([\d.]+)", said)[1])
    chosen = {choice: options[0] for choice, options in slider.choices.items()}
    assert said == slider.draw(value, **chosen)[1]
    assert live.locator("[role=alert]").count() == 0
    return value, said


@pytest.mark.parametrize("name", SLIDERS)
def test_each_slider_computes_at_values_that_no_frame_has(page, here, name):
    made, wanted = SLIDERS[name]
    live, slider = page.locator(".prunebook-live").nth([*SLIDERS].index(name)), eval(made, here)
    picture = live.locator("img").get_attribute("src")
    type_into(live, wanted)
    typed, said = check(live, slider, slider.readouts[slider.start])
    live.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    pressed, said = check(live, slider, said)
    bar = live.locator(".noUi-base").bounding_box()
    page.mouse.click(bar["x"] + 0.613 * bar["width"], bar["y"] + bar["height"] / 2)
    clicked, _ = check(live, slider, said)
    assert typed == pytest.approx(float(wanted), rel=0.025)  # a logarithmic slider goes in such steps
    assert typed < pressed < 1.06 * typed
    assert not {typed, pressed, clicked} & set(slider.stops)
    assert live.locator("img").get_attribute("src") != picture


def test_an_error_stands_beside_its_slider(page):
    live = page.locator(".prunebook-live").last
    type_into(live, "70")
    live.get_by_text("ZeroDivisionError: no such k").wait_for()
    type_into(live, "20")
    live.get_by_text("k is 20").wait_for()
    live.locator("[role=alert]").wait_for(state="detached")
    assert live.get_by_text("k is 20").is_visible()


# The last one, for it ends the kernel of the page.
def test_only_the_live_face_is_seen_while_there_is_a_kernel_and_only_the_other_one_after_saving(
    page, chromium, lab
):
    assert (
        page.locator(".prunebook-live").count() == page.locator(".frame-slider").count() == len(SLIDERS) + 1
    )
    assert not any(face.is_visible() for face in page.locator(".frame-slider").all())
    page.keyboard.press("ControlOrMeta+S")
    page.locator(".jp-mod-dirty").wait_for(state="detached")
    for session in page.request.get(lab.replace("lab/tree/sliders.ipynb", "api/sessions")).json():
        page.request.delete(
            lab.replace("lab/tree/sliders.ipynb", f"api/sessions/{session['id']}"), headers=token(page)
        )
    again = opened(chromium, lab)
    again.get_by_text("model not found").first.wait_for(state="attached")
    faces = again.locator(".frame-slider")
    assert faces.count() == len(SLIDERS) + 1
    assert all(face.is_visible() for face in faces.all())
    assert not any(gone.is_visible() for gone in again.get_by_text("model not found").all())
    faces.first.locator("input[type=range]").focus()
    before = faces.first.locator("img").get_attribute("src")
    again.keyboard.press("ArrowRight")
    assert faces.first.locator("img").get_attribute("src") != before
    again.close()


def token(page):
    cookies = {cookie["name"]: cookie["value"] for cookie in page.context.cookies()}
    return {"X-XSRFToken": cookies["_xsrf"]}
