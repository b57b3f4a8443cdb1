"""The frame of the pages, as a reader meets it: search, themes, menus, boxes, links, weight, and axe."""

from __future__ import annotations

import json
import re
from importlib import resources
from urllib.parse import unquote, urlparse

import pytest
from playwright.sync_api import expect
from rendered import pages, served, visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
CHAPTER = "book/weights.html"
NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def server(site, tmp_path_factory):
    with served(site, tmp_path_factory.mktemp("served")) as address:
        yield address


@pytest.fixture
def open_page(server, chromium):
    """Return a function that opens a page; at the end it is closed, and nothing may have gone wrong."""
    opened = []

    def go(name, width=1280, **context):
        opened.append(visit(chromium, server + name, server, width, **context))
        return opened[-1][0]

    yield go
    for page, wrong in opened:
        page.close()
        assert wrong == []


def findings(page, where="document", **options):
    options = {"resultTypes": ["violations"], **options}
    # the page notices a new width in the next frame, and makes what scrolls then reachable by keyboard
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    run = f"async (options) => (await axe.run({where}, options)).violations"
    return [
        f"{rule['id']}: {node['target']}" for rule in page.evaluate(run, options) for node in rule["nodes"]
    ]


CONTRAST = {"runOnly": ["color-contrast"]}
ALL_ELSE = {"rules": {"color-contrast": {"enabled": False}}}


@pytest.mark.timeout(1800)
def test_axe_finds_nothing_on_any_page_in_either_theme_wide_or_narrow(site, server, chromium):
    """A theme changes colours alone and a width all else, so that not all is asked four times."""
    found = {}
    for name in pages(site):
        page, _ = visit(chromium, server + name, server, color_scheme="light")
        page.evaluate(AXE)
        wrong = findings(page)
        page.set_viewport_size(NARROW)
        wrong += findings(page, **ALL_ELSE)
        wrong += findings(page, "document.querySelector('.bar')", **CONTRAST)  # only narrow pages show it
        page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
        wrong += findings(page, "document.querySelector('.bar')", **CONTRAST)
        page.set_viewport_size(WIDE)
        wrong += findings(page, **CONTRAST)
        page.close()
        if wrong:
            found[name] = wrong
    assert not found


def test_axe_sees_what_is_wrong(open_page):
    page = open_page("search.html")
    page.evaluate(AXE)
    page.evaluate("() => document.querySelector('main').append(document.createElement('button'))")
    assert [found.split(":")[0] for found in findings(page)] == ["button-name"]
    page.evaluate("() => { document.querySelector('main p').style.color = '#999'; }")
    assert [found.split(":")[0] for found in findings(page, **CONTRAST)] == ["color-contrast"]


def requested(site, server, chromium, name):
    """Return the bytes of all files that a page asks for, before any compression."""
    files = set()
    page = chromium.new_page()
    page.on("request", lambda r: files.add(unquote(urlparse(r.url.removeprefix(server)).path)))
    page.goto(server + name, wait_until="networkidle")
    page.evaluate("() => { for (const image of document.images) image.loading = 'eager'; }")
    page.wait_for_load_state("networkidle")
    page.close()
    return sum((site / file).stat().st_size for file in files if (site / file).is_file())


def test_the_site_and_each_page_are_light(site, server, chromium):
    whole = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    heavy = {name: requested(site, server, chromium, name) for name in pages(site)}
    assert max(heavy.values()) > 100_000, "nothing was measured"
    assert whole <= 20_000_000
    assert not {name: size for name, size in heavy.items() if size > 2_000_000}


SHIFT = """new PerformanceObserver((list) => {
  const own = list.getEntries().filter((entry) => !entry.hadRecentInput);
  window.shift = own.reduce((sum, entry) => sum + entry.value, window.shift ?? 0);
}).observe({ type: "layout-shift", buffered: true });"""


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_moves_while_a_page_loads(site, server, chromium, size):
    moved = {}
    for name in pages(site):
        page = chromium.new_page(viewport=size)
        page.add_init_script(SHIFT)
        page.goto(server + name, wait_until="networkidle")
        for step in range(0, page.evaluate("() => document.body.scrollHeight"), 8 * size["height"]):
            page.evaluate(f"() => scrollTo(0, {step})")
        page.wait_for_timeout(100)
        moved[name] = page.evaluate("() => window.shift ?? 0")
        page.close()
    assert not {name: shift for name, shift in moved.items() if shift >= 0.05}


def test_no_page_has_an_inline_script_or_handler(site):
    for name in pages(site):
        text = (site / name).read_text()
        assert not re.findall(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", text), name
        assert not re.findall(r"<[a-z]+ [^<>]*\son[a-z]+=", text), name


def test_the_index_is_the_first_page_and_it_exists_once(site, open_page):
    page = open_page("")
    assert page.locator("h1").inner_text().startswith("The Pruning Book")
    assert not (site / "book/intro.html").exists()
    page.locator(".turn .after").click()
    assert urlparse(page.url).path == "/prunebook/book/dense.html"
    page.locator("#book .home").click()
    assert urlparse(page.url).path == "/prunebook/index.html"


def test_the_search_finds_a_chapter_and_the_first_page(open_page):
    page = open_page("")
    page.keyboard.press("Control+k")
    page.keyboard.type("Silverman bandwidth")
    page.keyboard.press("Enter")
    page.locator('#search-results a[href^="book/density.html"]').first.wait_for()
    page.goto(page.url.replace("Silverman%20bandwidth", "Licence").replace("Silverman+bandwidth", "Licence"))
    first = page.locator('#search-results a[href^="index.html"]').first
    first.wait_for()
    expect(page.locator("#search-results .context").first).not_to_be_empty()
    assert first.inner_text().startswith("The Pruning Book")


def test_the_search_works_from_the_file_system(site, chromium):
    page, wrong = visit(chromium, (site / "search.html").as_uri() + "?q=quantile", "file:")
    page.locator('#search-results a[href^="book/density.html"]').first.wait_for()
    page.close()
    assert wrong == []


def paper(page):
    return page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_that_of_the_system_until_a_reader_chooses(open_page, scheme):
    page = open_page(CHAPTER, color_scheme=scheme)
    other = {"light": "dark", "dark": "light"}
    button, before = page.locator("button.theme"), paper(page)
    assert page.evaluate("() => document.documentElement.dataset.theme") == scheme
    assert button.inner_text() == f"{other[scheme].title()} page"
    button.click()
    assert paper(page) != before
    page.reload()
    assert page.evaluate("() => document.documentElement.dataset.theme") == other[scheme]
    button.click()
    page.emulate_media(color_scheme=other[scheme])  # the choice agreed with the system, so it was forgotten
    page.wait_for_function(f"() => document.documentElement.dataset.theme === '{other[scheme]}'")


def test_in_the_dark_a_picture_has_the_colour_of_the_page(open_page):
    page = open_page(CHAPTER, color_scheme="dark")
    image = page.locator(".cell_output img").first
    assert image.evaluate("(image) => getComputedStyle(image).mixBlendMode") == "screen"
    assert "invert" in image.evaluate("(image) => getComputedStyle(image).filter")


def test_a_solution_opens_with_one_click_anywhere_on_its_title_and_by_keyboard(open_page):
    page = open_page(CHAPTER)
    fold = page.locator("details.fold").first
    title = fold.locator("summary")
    box = title.bounding_box()
    assert box["height"] >= 44
    title.click(position={"x": box["width"] - 5, "y": 5})
    expect(fold).to_have_attribute("open", "")
    title.click(position={"x": 5, "y": box["height"] - 5})
    assert not fold.evaluate("(fold) => fold.open")
    title.focus()
    for key, is_open in (("Enter", True), ("Space", False)):
        page.keyboard.press(key)
        assert fold.evaluate("(fold) => fold.open") is is_open


def test_a_button_copies_the_code_as_it_is_written(open_page):
    page = open_page(CHAPTER, permissions=["clipboard-read", "clipboard-write"])
    code = page.locator(".cell_input > div:visible").first
    code.locator(".copy").click()
    expect(code.locator(".copy")).to_have_text("Copied")
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == code.locator("pre").text_content()
    assert copied.count("\n") >= 3


def test_the_contents_follow_the_scroll(open_page):
    page = open_page(CHAPTER)
    links = page.locator("#contents a")
    for index in (1, 4):
        target = links.nth(index).get_attribute("href")
        page.evaluate(
            f"() => document.getElementById('{target[1:]}').scrollIntoView({{ behavior: 'instant' }})"
        )
        expect(links.nth(index)).to_have_attribute("aria-current", "true")
    assert page.locator("#contents a[aria-current]").count() == 1
    assert page.locator("#book").bounding_box()["y"] == 0


def test_on_a_phone_the_menus_open_and_close(open_page):
    page = open_page(CHAPTER, width=390)
    for name, place in (("Menu", "#book"), ("Contents", "#contents")):
        button = page.get_by_role("button", name=name)
        assert button.bounding_box()["height"] >= 44
        expect(page.locator(place)).to_be_hidden()
        button.click()
        expect(page.locator(place)).to_be_visible()
        assert page.locator(f"{place} li a").first.bounding_box()["height"] >= 40
        page.keyboard.press("Escape")
        expect(page.locator(place)).to_be_hidden()
    page.get_by_role("button", name="Contents").click()
    page.locator("#contents a").nth(3).click()
    expect(page.locator("#contents")).to_be_hidden()


MEASURES = """() => {
  const size = (name) => getComputedStyle(document.querySelector(name)).fontSize;
  const text = document.querySelector("article p");
  const range = document.createRange();
  range.selectNodeContents(text);
  const lines = new Set([...range.getClientRects()].map((r) => Math.round(r.bottom / 8))).size;
  return { h1: size("article h1"), h2: size("article h2"), text: parseFloat(size("article p")),
    letters: text.textContent.length / lines };
}"""


def test_sizes_and_the_length_of_lines(open_page):
    wide = open_page(CHAPTER).evaluate(MEASURES)
    assert (wide["h1"], wide["h2"]) == ("32px", "24px")
    assert 50 <= wide["letters"] <= 80
    assert open_page(CHAPTER, width=390).evaluate(MEASURES)["text"] >= 16


CUT = """() => [...document.querySelectorAll("pre, .wide")].filter((box) => {
  const reach = getComputedStyle(box).overflowX;
  return box.scrollWidth > box.clientWidth + 1 && reach !== "auto";
}).map((box) => box.textContent.slice(0, 80))"""
COLUMNS = """() => {
  const line = document.querySelector(".cell_input pre .line");
  const range = document.createRange();
  line.textContent = "m".repeat(76);
  range.selectNodeContents(line);
  return range.getClientRects().length;
}"""


def test_no_code_is_cut_and_76_columns_fit_on_one_line(site, open_page):
    for name in pages(site):
        assert open_page(name, width=390).evaluate(CUT) == [], name
    assert open_page(CHAPTER).evaluate(COLUMNS) == 1


def test_the_last_column_of_a_wide_table_is_reached_by_keyboard(open_page):
    page = open_page("index.html", width=390)
    box = page.locator(".wide").filter(has_text="who decides")
    expect(box).to_have_attribute("tabindex", "0")
    last = box.locator("th").last
    right = last.bounding_box()
    assert right["x"] + right["width"] > 390
    box.focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "(cell) => cell.getBoundingClientRect().right <= innerWidth", arg=last.element_handle()
    )


def test_all_of_a_card_leads_to_its_chapter_and_its_picture_has_its_place(site, open_page):
    page = open_page("index.html")
    cards = page.locator(".cards > li")
    chapters = {path.stem for path in (site / "_sources").rglob("*.ipynb")}
    assert cards.count() == len(chapters)
    assert {re.sub(r".*/|\.html", "", a.get_attribute("href")) for a in cards.locator("a").all()} == chapters
    card = cards.nth(1)
    card.scroll_into_view_if_needed()
    box = card.locator(".thumbnail").bounding_box()
    assert abs(box["width"] / box["height"] - 16 / 9) < 0.02
    page.wait_for_function("(image) => image.naturalWidth > 0", arg=card.locator("img").element_handle())
    card.click(position={"x": 20, "y": 20})
    assert page.url.endswith("/book/weights.html")


def meta(text):
    return dict(re.findall(r'<meta (?:property|name)="([\w:]+)" content="([^"]*)"', text))


def test_every_page_says_what_it_is_where_its_link_is_shared(site):
    seen = set()
    for name in pages(site):
        if name == "search.html":
            continue
        text = (site / name).read_text()
        said = meta(text)
        assert said["og:site_name"] == "The Pruning Book"
        assert len(said["og:description"]) > 20, name
        assert said["description"] == said["og:description"]
        assert said["twitter:card"] == "summary_large_image"
        assert not re.match(r"\d", said["og:title"])
        assert (site / name).parent.joinpath(said["og:image"]).is_file(), said["og:image"]
        assert 'rel="icon"' in text
        seen.add(said["og:title"])
    assert len(seen) == len(pages(site)) - 1, "two pages have the same title"


def test_sources_have_authors_a_year_and_a_short_link(site):
    text = (site / "book/bibliography.html").read_text()
    entries = re.findall(r'<div class="citation".*?</div>', text, re.DOTALL)
    assert len(entries) > 20
    for entry in entries:
        assert re.search(r"\b(19|20)\d\d\b|n\.d\.", entry), entry
        assert re.search(
            r'<a href="https://arxiv\.org/abs/([\d.]+)">arXiv:\1</a>|<a href="https://', entry
        ), entry
        assert "URL:" not in entry


def test_a_notebook_that_is_downloaded_has_no_outputs_and_all_of_its_code(site, open_page):
    page = open_page(CHAPTER)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download this chapter").click()
    notebook = json.loads(download.value.path().read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert not any(cell["outputs"] for cell in code)
    assert all("".join(cell["source"]).strip() for cell in code)


def test_no_page_of_the_reference_is_endless(site, open_page):
    for path in (site / "book/api").glob("*.html"):
        assert open_page(f"book/api/{path.name}").evaluate("() => document.body.scrollHeight") < 30_000
