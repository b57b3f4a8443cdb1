"""The rendered book in a headless Chromium: every page, as a reader without network finds it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest
from rendered import pages, served, visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(site, tmp_path_factory):
    with served(site, tmp_path_factory.mktemp("served")) as address:
        yield address


def test_every_page_is_sound_and_asks_no_third_party(site, server, chromium):
    found = {}
    for name in pages(site):
        page, wrong = visit(chromium, server + name, server)
        broken = "() => [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        wrong += [f"broken image: {source[:80]}" for source in page.evaluate(broken)]
        without = (
            "() => [...document.images].filter(i => !i.hasAttribute('alt')).map(i => i.src.slice(0, 80))"
        )
        wrong += [f"image without alt: {source}" for source in page.evaluate(without)]
        page.close()
        if wrong:
            found[name] = wrong
    assert not found


def test_a_page_works_from_the_file_system(site, chromium):
    page, wrong = visit(chromium, (site / "book" / "dense.html").as_uri(), "file:")
    assert wrong == []
    assert page.locator("math").count() > 0, "the formulas are not drawn"
    page.close()


def test_every_link_inside_the_book_leads_somewhere(site):
    known = {name: set(re.findall(r'\bid="([^"]+)"', (site / name).read_text())) for name in pages(site)}
    broken = []
    for name in known:
        for link in re.findall(r'<a [^>]*href="([^"]+)"', (site / name).read_text()):
            url, anchor = urldefrag(urljoin(f"http://book/{name}", link.replace("&amp;", "&")))
            if urlparse(url).netloc != "book":
                continue
            target = unquote(urlparse(url).path).lstrip("/")
            found = (site / target).is_file()
            if not found or (anchor and target in known and unquote(anchor) not in known[target]):
                broken.append((name, link))
    assert not broken


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_scrolls_sideways(site, server, chromium, width):
    wide = []
    for name in pages(site):
        page, _ = visit(chromium, server + name, server, width)
        if page.evaluate("() => document.documentElement.scrollWidth > window.innerWidth"):
            wide.append(name)
        page.close()
    assert not wide


def slider_pages(site):
    return [name for name in pages(site) if 'class="frame-slider"' in Path(site / name).read_text()]


def test_sliders_move_by_keyboard_without_a_kernel(site, server, chromium):
    assert slider_pages(site)
    for name in slider_pages(site):
        page, wrong = visit(chromium, server + name, server)
        for slider in page.locator(".frame-slider").all():
            knob, image = slider.locator("input[type=range]"), slider.locator("img")
            knob.focus()
            page.keyboard.press("Home")
            first = image.get_attribute("src"), image.get_attribute("alt")
            page.keyboard.press("ArrowRight")
            second = image.get_attribute("src"), image.get_attribute("alt")
            assert first[0] != second[0]
            assert first[1] != second[1]
            assert knob.get_attribute("aria-valuetext").endswith(
                slider.locator("p[aria-hidden]").inner_text()
            )
            page.keyboard.press("End")
            assert knob.input_value() == knob.get_attribute("max")
            for choice in slider.locator("fieldset").all():
                before = image.get_attribute("src")
                choice.locator("input:checked").focus()
                page.keyboard.press("ArrowRight")
                assert image.get_attribute("src") != before
        assert wrong == []
        page.close()


def test_sliders_move_by_finger(site, server, chromium):
    for name in slider_pages(site):
        context = chromium.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
        page = context.new_page()
        page.goto(server + name)
        for slider in page.locator(".frame-slider").all():
            knob = slider.locator("input[type=range]")
            knob.scroll_into_view_if_needed()
            box = knob.bounding_box()
            page.touchscreen.tap(box["x"] + 0.95 * box["width"], box["y"] + box["height"] / 2)
            assert int(knob.input_value()) >= 0.8 * int(knob.get_attribute("max"))
        context.close()
