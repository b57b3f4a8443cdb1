"""The pictures that are computed in the page: their mathematics against the package's, and what they do."""

import itertools
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import HalfNormal, RelaxedBernoulli

import prunebook as pb
from prunebook.methods.soft import soft_mask
from prunebook.methods.weights import choose, exact_count

pytestmark = [pytest.mark.browser]

MINUS = "\u2212"
STATIC = Path(__file__).resolve().parents[2] / "book" / "_static"
NAMES = ("threshold", "mask", "quantile", "coin")
CHAPTERS = dict(zip(NAMES, ("weights", "soft-masks", "density", "gumbel"), strict=True))
HEAD = """<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">
<title>Formulas</title><meta name="viewport" content="width=device-width">
<style>
  body {{ margin: 0 }}
  main {{ max-width: 760px; margin: auto; padding: 0 16px }}
</style>
<link rel="stylesheet" href="{0}/prunebook.css"><link rel="stylesheet" href="{0}/formulas.css">"""
SCRIPTS = '<script defer src="{0}/draw.js"></script><script defer src="{0}/formulas.js"></script>'
BOXES = "".join(
    f'<div class="formula" data-formula="{name}"><p>Without a script.</p></div>' for name in NAMES
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return two pages with all four pictures: one with the scripts, and one as it is before they run."""
    folder = tmp_path_factory.mktemp("formulas")
    for name, scripts in (("drawn", SCRIPTS), ("waiting", "")):
        text = (HEAD + scripts).format(STATIC.as_uri()) + f"</head><body><main>{BOXES}</main></body></html>"
        (folder / f"{name}.html").write_text(text)
    return folder


@pytest.fixture
def open_page(chromium, files):
    """Return a function that opens a page; whatever goes wrong in it fails the test."""
    contexts, wrong = [], []

    def opened(width=1280, name="drawn", **options):
        context = chromium.new_context(
            viewport={"width": width, "height": 844}, has_touch=True, offline=True, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith("file:") else wrong.append(r.url))
        page.goto((files / f"{name}.html").as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(params=[390, 1280], ids=["phone", "desktop"])
def page(request, open_page):
    return open_page(request.param)


@pytest.fixture
def call(open_page):
    """Return a function that calls one of the formulas for a list of arguments."""
    page = open_page()
    code = "([name, list]) => list.map((one) => pb.formulas[name](...one))"
    return lambda name, rows: page.evaluate(code, [name, [list(map(float, row)) for row in rows]])


def part(page, name, selector):
    return page.locator(f'[data-formula="{name}"] {selector}')


def seen(page, name):
    return part(page, name, ".seen").inner_text()


def slide(page, name, index, value):
    part(page, name, "input").nth(index).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


def told(page, name, index):
    """Return what a slider says: to the eye and, the same, to a screen reader."""
    text = part(page, name, "output").nth(index).inner_text()
    assert part(page, name, "input").nth(index).get_attribute("aria-valuetext") == text
    return text


def guess(page, name, choice=0):
    part(page, name, ".guess button").nth(choice).click()


def number(text, pattern):
    found = re.search(pattern.replace(" %", r"\s%"), text)
    assert found, text
    return float(found[1].replace(",", "").replace(MINUS, "-"))


# ---- the mathematics


def by_torch(function, rows):
    """Return the values of a function of three numbers, and its slopes by the first, in float64."""
    first, *rest = torch.tensor(rows, dtype=torch.float64).T
    first.requires_grad_()
    values = function(first, *rest)
    (slopes,) = torch.autograd.grad(values.sum(), first)
    return values.detach(), slopes


def test_the_soft_mask_and_its_slope_are_those_of_the_package(call):
    rows = list(itertools.product(np.linspace(-2, 2, 33), (0.0, 0.2, 1.0, 1.6), (1e-9, 0.03, 0.3, 3.0)))
    masks, _ = by_torch(soft_mask, rows)
    _, slopes = by_torch(lambda w, t, tau: w * soft_mask(w, t, tau), rows)
    np.testing.assert_allclose(call("softMask", rows), masks, rtol=1e-11, atol=1e-300)
    np.testing.assert_allclose(call("maskSlope", rows), slopes, rtol=1e-10, atol=1e-300)


def test_a_weight_is_undecided_between_odds_of_one_to_nine_and_nine_to_one(call):
    rows = list(itertools.product((0.5, 1.0, 1.6), (0.03, 0.1)))
    for (low, high), (t, tau) in zip(call("undecided", rows), rows, strict=True):
        found = call("softMask", [(low, t, tau), (high, t, tau)])
        np.testing.assert_allclose(found, [0.1, 0.9], rtol=1e-10)
    assert call("undecided", [(0.5, 3.0)])[0][0] == 0


def test_density_share_and_quantile_are_those_of_normal_sizes(call):
    sizes, normal = np.linspace(0.001, 5, 100), HalfNormal(torch.tensor(1.0, dtype=torch.float64))
    points = torch.tensor(sizes)
    np.testing.assert_allclose(call("density", sizes[:, None]), normal.log_prob(points).exp(), rtol=1e-12)
    np.testing.assert_allclose(call("shareBelow", sizes[:, None]), normal.cdf(points), rtol=1e-12)
    shares = np.linspace(0.01, 0.99, 99)
    np.testing.assert_allclose(
        call("quantile", shares[:, None]), normal.icdf(torch.tensor(shares)), rtol=1e-11
    )
    assert call("shareBelow", [[0]]) == [0]


def test_the_slope_is_that_of_the_package_s_quantile(call):
    even = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    scores = HalfNormal(torch.tensor(1.0, dtype=torch.float64)).icdf(even)
    for share in (0.2, 0.5, 0.9):
        r = torch.tensor(share, dtype=torch.float64, requires_grad=True)
        t = pb.quantile(scores, r)
        t.backward()
        (found,) = call("quantile", [[share]])
        assert found == pytest.approx(float(t.detach()), abs=1e-3)
        assert 1 / call("density", [[found]])[0] == pytest.approx(float(r.grad), rel=0.02)


def test_the_gate_and_its_slope_are_those_of_the_package(call):
    rows = list(itertools.product((-4, -0.5, 0, 2), (-6.0, -0.3, 0.0, 0.47, 5.0), (0.1, 1.0, 3.0)))
    gates = call("gate", rows)
    for hard in (False, True):
        found = [gate["hard" if hard else "soft"] for gate in gates]
        for tau in (0.1, 1.0, 3.0):
            chosen = [i for i, row in enumerate(rows) if row[2] == tau]
            gate = partial(pb.gumbel_gate, tau=tau, hard=hard)
            values, slopes = by_torch(
                lambda logit, eps, _, gate=gate: gate(logit, eps), [rows[i] for i in chosen]
            )
            np.testing.assert_allclose([found[i] for i in chosen], values, rtol=1e-12)
            np.testing.assert_allclose(call("gateSlope", [rows[i] for i in chosen]), slopes, rtol=1e-9)


def test_the_density_of_the_soft_gate_is_that_of_the_relaxed_coin(call):
    soft = np.linspace(0.01, 0.99, 50)
    for logit, tau in itertools.product((-4.0, 0.0, 1.5), (0.1, 1.0, 3.0)):
        gate = RelaxedBernoulli(torch.tensor(tau, dtype=torch.float64), logits=torch.tensor(logit).double())
        found = call("gateDensity", [(s, logit, tau) for s in soft])
        np.testing.assert_allclose(found, gate.log_prob(torch.tensor(soft)).exp(), rtol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_exactly_k_percent_are_chosen_and_ties_by_index(open_page, seed):
    page, rng = open_page(), np.random.default_rng(seed)
    for _ in range(20):
        n, k = int(rng.integers(1, 300)), round(float(rng.uniform(0, 100)), int(rng.integers(0, 3)))
        weights = torch.tensor(rng.integers(-4, 5, n) / 4)  # many ties
        found = page.evaluate("([k, w]) => pb.formulas.choose(k, w)", [k, weights.tolist()])
        assert found == choose([weights.abs()], exact_count(k, n))[0].tolist()


def test_the_choice_is_that_of_prune_weights(open_page):
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.4, -0.1, 0.2], [-0.2, 0.9, 0.3]]))
    weights, page = layer.weight.flatten().tolist(), open_page()
    for k in (20, 33, 50, 75):
        found = page.evaluate("([k, w]) => pb.formulas.choose(k, w)", [k, weights])
        pb.prune_weights(layer, k)
        assert found == layer.weight.flatten().eq(0).tolist()


def test_counts_round_as_in_the_package(call):
    rows = [(1.15, 1000), (0.25, 200), (0.75, 200), (50, 3), (50, 5), (2.5, 4000), (33.3, 4001), (0, 7)]
    rows += [(100, 7), (99.85, 266_200)]
    assert call("exactCount", rows) == [exact_count(k, n) for k, n in rows]


# ---- the pictures


def test_before_the_guess_k_is_not_told(page):
    assert told(page, "threshold", 0) == "k = ?"
    assert part(page, "threshold", "input").first.is_disabled()
    slide(page, "threshold", 1, 0.05)
    assert told(page, "threshold", 0) == "k = ?"
    assert told(page, "threshold", 1) == "t = 0.050"
    sizes = np.abs(page.evaluate("pb.formulas.weights"))
    guess(page, "threshold")
    answer = part(page, "threshold", ".guess").inner_text()
    assert number(answer, r"prunes ([\d.]+) %") == pytest.approx((sizes < 0.05).mean() * 100, abs=0.051)
    assert number(answer, r"for 90 % is (\d\.\d+)") == pytest.approx(np.quantile(sizes, 0.9), abs=1e-3)
    assert told(page, "threshold", 0) == "k = 90\u00a0%"
    assert page.evaluate("document.activeElement.closest('.guess') !== null")


def test_who_does_not_drag_gets_the_answer_alone(page):
    guess(page, "threshold")
    assert part(page, "threshold", ".guess").inner_text().startswith("The threshold for 90\u00a0% is 0.0")
    assert part(page, "threshold", ".plot .dashed").count() == 0


def test_k_and_t_agree_wherever_one_of_them_is_set(page):
    sizes = np.sort(np.abs(page.evaluate("pb.formulas.weights")))
    assert len(sizes) == 4000
    guess(page, "threshold")

    def check(count):
        text = seen(page, "threshold")
        assert number(text, r"the ([\d,]+) smallest") == count
        assert number(text, r"The other ([\d,]+) stay") == 4000 - count
        for shown in (told(page, "threshold", 0), text):
            assert number(shown, r"k = ([\d.]+) %") == pytest.approx(count / 40, abs=0.0501)
        edge = number(told(page, "threshold", 1), r"t = ([\d.]+)")
        assert (sizes < edge - 0.0006).sum() <= count <= (sizes < edge + 0.0006).sum()

    for k in (*range(0, 101, 4), 99.5, 0.5, 100, 0):
        slide(page, "threshold", 0, k)
        check(exact_count(k, 4000))
    for t in np.linspace(0, 0.2, 41).round(3).tolist():
        slide(page, "threshold", 1, t)
        assert told(page, "threshold", 1) == f"t = {t:.3f}"
        check(int((sizes < t).sum()))


def drag(page, name, chart, shares, touch=False):
    """Move mouse or finger over a picture, through shares of its width."""
    picture = part(page, name, ".chart").nth(chart)
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    points = [(box["x"] + share * box["width"], box["y"] + box["height"] / 2) for share in shares]
    if touch:
        session = page.context.new_cdp_session(page)
        for i, (x, y) in enumerate(points):
            kind = "touchMove" if i else "touchStart"
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    else:
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point)
        page.mouse.up()


def place(page, name, chart, axis, value):
    """Return where on a chart the reader finds a value of the horizontal axis, as a share of its width."""
    code = """(svg, [left, from, to, value]) => {
      const width = svg.clientWidth;
      return (left + (width - 10 - left) * (value - from) / (to - from)) / width;
    }"""
    return part(page, name, ".chart").nth(chart).evaluate(code, [36, *axis, value])


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "finger"])
def test_the_threshold_and_the_share_can_be_dragged_in_the_picture(page, touch):
    guess(page, "threshold")
    for w in (0.08, -0.12):
        ends = [place(page, "threshold", 0, (-0.2, 0.2), v) for v in (0.02, 0.05, w)]
        drag(page, "threshold", 0, ends, touch)
        assert number(told(page, "threshold", 1), r"t = ([\d.]+)") == pytest.approx(abs(w), abs=0.0011)
    for t in (0.5, 1.5):
        drag(page, "quantile", 0, [place(page, "quantile", 0, (0, 3.2), v) for v in (1, 1.2, t)], touch)
        share = 100 * float(2 * torch.special.ndtr(torch.tensor(t)) - 1)
        assert number(told(page, "quantile", 0), r"r = (\d+) %") == pytest.approx(share, abs=1)
    for r in (0.3, 0.9):
        drag(page, "quantile", 1, [place(page, "quantile", 1, (0, 1), v) for v in (0.5, 0.6, r)], touch)
        assert number(told(page, "quantile", 0), r"r = (\d+) %") == pytest.approx(100 * r, abs=0.51)


def test_a_finger_that_scrolls_moves_no_picture_and_a_tap_does(open_page):
    page = open_page(390)
    guess(page, "threshold")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    before, box = seen(page, "threshold"), part(page, "threshold", ".chart").bounding_box()
    session, x, y = page.context.new_cdp_session(page), box["x"] + 50, box["y"] + 200
    for i in range(12):
        point, kind = {"x": x, "y": y - 15 * i}, "touchMove" if i else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_function("scrollY > 100")
    assert seen(page, "threshold") == before
    page.evaluate("scrollTo(0, 0)")
    page.touchscreen.tap(x, y)
    assert seen(page, "threshold") != before


def test_the_mask_says_what_the_formula_gives(page):
    for place_of_tau, t in itertools.product((0, 33, 50, 100), (0.2, 1, 1.6)):
        slide(page, "mask", 0, place_of_tau)
        slide(page, "mask", 1, t)
        tau = 0.03 * 100 ** (place_of_tau / 100)
        assert number(told(page, "mask", 0), r"τ = ([\d.]+)") == pytest.approx(tau, rel=0.05)
        assert told(page, "mask", 1) == f"t = {t:.2f}"
        text, bound = seen(page, "mask"), tau * np.log(9)
        assert number(text, r"between ([\d.]+) and") == pytest.approx(
            max(0, t * t - bound) ** 0.5, abs=0.0051
        )
        assert number(text, r"and ([\d.]+) are undecided") == pytest.approx(
            (t * t + bound) ** 0.5, abs=0.0051
        )
        assert number(text, r"receives ([\d.]+) times") == pytest.approx(0.5 + t * t / 2 / tau, rel=0.06)
        dots = part(page, "mask", ".over .ink:is(circle)").count()
        assert number(text, r"So are (\d+) of the 60 dots") == dots
        peak = part(page, "mask", ".chart").nth(2).locator(".over text")
        assert peak.count() == (0.5 + t * t / 2 / tau > 8)


def test_the_quantile_says_what_the_formula_gives(page):
    normal = HalfNormal(1.0)
    for r in (0.01, 0.25, 0.5, 0.8, 0.97):
        slide(page, "quantile", 0, r)
        t, more = normal.icdf(torch.tensor([r, r + 0.02], dtype=torch.float64)).tolist()
        f, text = float(normal.log_prob(torch.tensor(t)).exp()), seen(page, "quantile")
        assert number(text, r"^(\d+) %") == 100 * r
        assert number(text, r"than t = ([\d.]+)\.") == pytest.approx(t, abs=0.0051)
        assert number(text, r"has to move by ([\d.]+)\.") == pytest.approx(more - t, rel=0.06)
        assert number(text, r"density is (\d\.\d+)") == pytest.approx(f, abs=0.0051)
        assert number(text, r"slope is ([\d.]+)\.") == pytest.approx(1 / f, rel=0.06)
        green = part(page, "quantile", ".over text.green").text_content()
        assert number(green, r"= ([\d.]+)") == pytest.approx(1 / f, rel=0.06)


def test_the_temperature_changes_no_coin_and_the_logit_does(page):
    def opened():
        return number(seen(page, "coin"), r"^([\d,]+) of")

    assert number(seen(page, "coin"), r"of ([\d,]+) coins") == 100
    part(page, "coin", "button >> text=Toss 100").click()
    part(page, "coin", "button:text-is('Toss')").click()
    assert number(seen(page, "coin"), r"of ([\d,]+) coins") == 201
    before, dots = opened(), part(page, "coin", "circle.green").count()
    for tau in (0, 30, 100):
        slide(page, "coin", 1, tau)
        assert opened() == before
        assert part(page, "coin", "circle.green").count() == dots
    counts = []
    for logit in (-4, -1, 0, 1, 4):
        slide(page, "coin", 0, logit)
        text, p = seen(page, "coin"), 100 / (1 + np.exp(-logit))
        assert number(text, r"Expected: ([\d.]+) %") == pytest.approx(p, abs=0.051)
        assert number(text, r"open: ([\d.]+) %") == pytest.approx(100 * opened() / 201, abs=0.051)
        assert abs(opened() / 201 - p / 100) < 0.12
        counts.append(opened())
    assert counts == sorted(set(counts))
    assert number(told(page, "coin", 0), r"l = (\S+)") == 4


def test_the_last_coin_is_told_step_by_step(page):
    slide(page, "coin", 0, -0.5)
    for tau in (20, 60, 100):
        slide(page, "coin", 1, tau)
        part(page, "coin", "button:text-is('Toss')").click()
        text, heat = seen(page, "coin"), 0.1 * 30 ** (tau / 100)
        noise, soft = number(text, r"noise (\S+),"), number(text, r"s is (\d\.\d+)")
        exact = 1 / (1 + np.exp(-(noise - 0.5) / heat))
        assert soft == pytest.approx(exact, abs=0.02)
        assert ("it is open" in text) == (noise > 0.5)
        assert number(text, r"logit is ([\d.]+)\.$") == pytest.approx(
            exact * (1 - exact) / heat, rel=0.1, abs=0.01
        )


def test_tossing_ends_and_begins_again(open_page):
    page = open_page()
    part(page, "coin", "button >> text=Toss 100").evaluate(
        "b => { for (let i = 0; i < 110; i++) b.click(); }"
    )
    assert number(seen(page, "coin"), r"of ([\d,]+) coins") == 10_000
    part(page, "coin", "button >> text=Start again").click()
    assert seen(page, "coin").startswith("No coin has been tossed yet.")
    assert part(page, "coin", "circle").count() == 0
    part(page, "coin", "button:text-is('Toss')").click()
    assert number(seen(page, "coin"), r"of ([\d,]+) coins") == 1


def test_the_keyboard_does_all(page):
    for name, index, key in (
        ("threshold", 0, "ArrowRight"),
        ("threshold", 1, "ArrowLeft"),
        ("mask", 0, "PageDown"),
        ("mask", 1, "End"),
        ("quantile", 0, "Home"),
        ("coin", 0, "ArrowRight"),
        ("coin", 1, "PageDown"),
    ):
        if part(page, name, ".guess button").count():
            part(page, name, ".guess button").first.focus()
            page.keyboard.press("Enter")
        part(page, name, "input").nth(index).focus()
        before = seen(page, name), told(page, name, index)
        page.keyboard.press(key)
        assert told(page, name, index) != before[1]
        assert seen(page, name) != before[0]


def test_a_screen_reader_hears_the_sentence_when_it_rests(page):
    guess(page, "quantile", 2)
    assert part(page, "quantile", ".guess").inner_text().startswith("Yes, from 95\u00a0%: it moves by 0.21")
    for name in NAMES:
        assert part(page, name, ".seen").get_attribute("aria-hidden") == "true"
        aloud = f'[data-formula="{name}"] [aria-live="polite"]'
        page.wait_for_function(
            "([aloud, seen]) => document.querySelector(aloud).textContent === seen",
            arg=[aloud, seen(page, name)],
        )
        assert all(
            part(page, name, ".chart").nth(i).get_attribute("aria-label")
            for i in range(2 - (name == "threshold"))
        )


@pytest.mark.parametrize("width", [360, 390, 700, 1280])
def test_all_fits_and_can_be_read_and_touched(open_page, width):
    page = open_page(width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for extreme in (None, "min", "max"):
        if extreme:
            page.evaluate(
                """end => { for (const input of document.querySelectorAll(".formula input")) {
                  input.value = input[end];
                  input.dispatchEvent(new Event("input"));
                } }""",
                extreme,
            )
        assert page.evaluate(CROWDED) == []
    small = "e => e.filter((one) => one.getBoundingClientRect().height < 44).length"
    assert page.locator(".formula input, .formula button").evaluate_all(small) == 0


# texts of the charts that are too small, stick out of their picture, or lie on each other
CROWDED = """() => [...document.querySelectorAll(".formula .chart")].flatMap((svg) => {
  const room = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll("text")];
  const boxes = texts.map((text) => text.getBoundingClientRect());
  const apart = (a, b) => a.right - 1 < b.left || a.bottom - 4 < b.top;
  const over = (a, b) => !apart(a, b) && !apart(b, a);
  return texts.filter((text, i) => parseFloat(getComputedStyle(text).fontSize) < 13
    || boxes[i].left < room.left - 1 || boxes[i].right > room.right + 1
    || boxes[i].top < room.top - 4 || boxes[i].bottom > room.bottom + 4
    || boxes.some((other, j) => j > i && over(boxes[i], other))).map((text) => text.textContent);
})"""


def test_panels_stand_side_by_side_or_below_each_other(open_page):
    for width, rows in ((390, [2, 3]), (1280, [1, 1])):
        page = open_page(width)
        for name, expected in zip(("quantile", "mask"), rows, strict=True):
            tops = {round(box["y"]) for box in (c.bounding_box() for c in part(page, name, ".chart").all())}
            assert len(tops) == expected


@pytest.mark.parametrize("width", [390, 1280])
def test_the_room_is_kept_before_the_script_runs(open_page, width):
    pages = open_page(width), open_page(width, "waiting")
    for name in NAMES:
        after, before = (page.locator(f'[data-formula="{name}"]').bounding_box()["height"] for page in pages)
        assert after == pytest.approx(before, abs=24)
        assert pages[1].locator(f'[data-formula="{name}"] p').is_visible()


def test_the_height_stays_when_a_guess_is_answered_and_a_slider_moves(page):
    def heights():
        return [page.locator(f'[data-formula="{name}"]').bounding_box()["height"] for name in NAMES]

    before = heights()
    slide(page, "threshold", 1, 0.05)
    for name in NAMES:
        guess(page, name)
    assert heights() == pytest.approx(before, abs=1)
    for index, value in ((0, 3), (1, 2)):
        slide(page, "coin", index, value)
    slide(page, "mask", 0, 10)
    assert heights() == pytest.approx(before, abs=1)


def test_a_change_of_the_theme_recolours_at_once(open_page):
    page = open_page()
    code = """() => ["text.name", ".curve.green", ".area.plus", ".area.grey", "button"].map((part) => {
      const style = getComputedStyle(document.querySelector(`.formula ${part}`));
      return part.startsWith(".curve") ? style.stroke : /text|area/.test(part) ? style.fill : style.color;
    })"""
    light = page.evaluate(code)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    dark = page.evaluate(code)
    assert all(one != other for one, other in zip(light, dark, strict=True))
    assert light[1:3] == ["rgb(0, 121, 90)", page.evaluate(PLUS, "light")]
    assert dark[1:3] == ["rgb(63, 199, 154)", page.evaluate(PLUS, "dark")]


PLUS = """theme => {
  document.documentElement.dataset.theme = theme;
  document.body.style.color = "var(--pb-plus)";
  return getComputedStyle(document.body).color;
}"""


def test_the_picture_is_drawn_again_when_the_window_gets_narrow(open_page):
    page = open_page(1280)
    wide = part(page, "threshold", ".chart .soft.thin").first.get_attribute("d")
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function(
        "wide => document.querySelector('.chart .soft.thin').getAttribute('d') !== wide", arg=wide
    )
    assert page.evaluate(CROWDED) == []


def test_slices_work_until_they_are_done_or_stopped(open_page):
    page = open_page()
    found = page.evaluate("""() => new Promise((done) => {
      let steps = 0, paints = 0;
      const work = pb.slices(() => { steps += 1; return steps < 5000; }, () => {
        paints += 1;
        if (!work.running) done([steps, paints > 0, work.running]);
      });
      work.start();
      work.start();
    })""")
    assert found == [5000, True, False]
    stopped = page.evaluate("""() => new Promise((done) => {
      let steps = 0;
      const work = pb.slices(() => { steps += 1; if (steps === 3) work.stop(); }, () => {});
      work.start();
      setTimeout(() => done(steps), 100);
    })""")
    assert stopped == 3


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_each_chapter_begins_with_its_picture(chromium, site, width):
    context = chromium.new_context(viewport={"width": width, "height": 844}, offline=True)
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    for name, chapter in CHAPTERS.items():
        page.goto((site / "book" / f"{chapter}.html").as_uri())
        formula = page.locator(f'[data-formula="{name}"][data-ready]')
        assert formula.bounding_box()["y"] < 2 * 844
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(CROWDED) == []
    context.close()
    assert wrong == []
