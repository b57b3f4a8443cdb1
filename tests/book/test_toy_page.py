"""The toy and the game of the chapter on pathways compute what the package does, and can be played."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import prunebook as pb
from conftest import ROOT
from prunebook.experiments.toy import SIZES, separated
from prunebook.methods.gates import gates
from prunebook.training.models import mlp

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Toy</title>
<meta http-equiv="Content-Security-Policy" content="script-src 'self' file:">
<link rel="stylesheet" href="prunebook.css"><link rel="stylesheet" href="formulas.css">
<script src="draw.js" defer></script><script src="toy.js" defer></script><main>
<div class="formula" data-formula="toy"></div><p style="height: 2000px"></p>
<div class="formula" data-formula="game"></div><p style="height: 2000px"></p></main></html>"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    for name in ("draw.js", "toy.js", "prunebook.css", "formulas.css"):
        shutil.copy(ROOT / "book" / "_static" / name, folder)
    (folder / "toy.html").write_text(PAGE, encoding="utf-8")
    return (folder / "toy.html").as_uri()


def opened(chromium, address, **options):
    """Yield the page; whatever goes wrong in it fails the test."""
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}} | options)
    context.set_default_timeout(120_000)
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    yield page
    context.close()
    assert not wrong


@pytest.fixture(params=[(1280, "light", False), (390, "dark", True)], ids=["desktop", "phone"])
def page(request, chromium, address):
    width, scheme, touch = request.param
    viewport = {"width": width, "height": 800}
    yield from opened(chromium, address, viewport=viewport, color_scheme=scheme, has_touch=touch)


@pytest.fixture
def core(chromium, address):
    yield from opened(chromium, address)


def by_layer(flat):
    """Return a flat list of 160 numbers as three matrices."""
    shapes = [(rows, columns) for columns, rows in pairwise(SIZES)]
    parts = torch.tensor(flat, dtype=torch.float64).split([rows * columns for rows, columns in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def by_torch(state):
    """Return the network of the page in float64."""
    net = mlp(SIZES, nn.SiLU).double()
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    biases = torch.tensor(state["biases"], dtype=torch.float64).split(SIZES[1:])
    with torch.no_grad():
        for layer, weight, bias in zip(linear, by_layer(state["weights"]), biases, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    return net


def points(state):
    return [torch.tensor(state[name], dtype=torch.float64).T for name in "xy"]


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).numpy()


# A copy of what a network of the page is at this moment.
COPY = """net => {
  const list = (numbers) => Array.from(numbers);
  const { x, y, weights, biases, logits, noise, open, gradients, loss, steps } = net;
  const named = Object.entries({ weights, biases, logits, noise, open }).map(([k, v]) => [k, list(v)]);
  const along = Object.fromEntries(Object.entries(gradients).map(([k, v]) => [k, list(v)]));
  const data = { x: x.map(list), y: y.map(list) };
  return { ...Object.fromEntries(named), ...data, gradients: along, loss, steps, error: net.error() };
}"""


def ask(page, script, *values):
    """Return what a script says that knows `copy` and `toy`."""
    return page.evaluate(
        f"(values) => {{ const toy = pb.toy, copy = {COPY}; return ({script})(...values) }}", list(values)
    )


def test_points_are_those_of_the_task(core):
    x, y = points(ask(core, "() => copy(toy.make(5))"))
    assert x.shape == (1000, 4)
    assert x.abs().max() < 1
    assert x.std(0) == pytest.approx([3**-0.5] * 4, abs=0.03)
    expected = torch.stack([3 * ((x[:, 0] - x[:, 1]) ** 2).sin(), (x[:, 2] + x[:, 3]) ** 3], 1)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("lam", "tau"), [(0.1, 1.0), (0.0, 5.0), (0.5, 0.3)])
def test_steps_are_those_of_the_package_with_gates_and_after(core, lam, tau):
    states = ask(
        core,
        """(settings) => {
          const net = toy.make(7, settings), random = pb.random(1), states = [];
          net.logits.forEach((_, i) => { net.logits[i] = 4 * random() - 1; });
          net.steps = toy.GATED - 3;
          states.push(copy(net));
          for (let i = 0; i < 7; i++) { net.step(); states.push(copy(net)); }
          return states;
        }""",
        {"lambda": lam, "tau": tau},
    )
    x, y = points(states[0])
    net = by_torch(states[0])
    pruning = pb.GumbelPruning(net, tau=tau, lam=lam, lr_gates=2e-2)
    found = list(gates(net).values())
    for gate, logit in zip(found, by_layer(states[0]["logits"]), strict=True):
        gate.double().logit.data.copy_(logit)
    adam = torch.optim.Adam(pruning.parameter_groups(), lr=1e-2)
    names = {"weights": "weight$", "biases": "bias$", "logits": "logit$"}
    for before, after in pairwise(states):
        gated = before["steps"] < 4000
        if before["steps"] == 4000:
            pruning.freeze(36)
            kept = flat([gate.open() for gate in found])
            pb.harden(net)
            adam = torch.optim.Adam(net.parameters())
        if gated:
            for gate, noise in zip(found, by_layer(after["noise"]), strict=True):
                gate.noise.copy_(noise)
        else:
            adam.param_groups[0]["lr"] = 4e-2 * (8000 - before["steps"]) / 4000
            assert after["open"] == kept.tolist()
            assert sum(after["open"]) == 36
        loss = mse_loss(net(x), y)
        assert after["loss"] == pytest.approx(loss.item(), rel=1e-9)
        if gated:
            loss = loss + pruning.penalty((36 / 160) ** min(before["steps"] / 3200, 1))
        adam.zero_grad()
        loss.backward()
        for name, pattern in names.items():
            tensors = [p for key, p in net.named_parameters() if re.search(pattern, key)]
            if tensors:
                gradient = flat([p.grad for p in tensors])
                np.testing.assert_allclose(after["gradients"][name], gradient, rtol=1e-8, atol=1e-12)
        adam.step()
        for name, pattern in names.items():
            tensors = [p for key, p in net.named_parameters() if re.search(pattern, key)]
            if tensors:
                np.testing.assert_allclose(after[name], flat(tensors), rtol=1e-7, atol=1e-9)


def test_of_equal_gates_the_same_ones_stay_as_in_the_package(core):
    net = mlp(SIZES, nn.SiLU)
    pruning = pb.GumbelPruning(net)
    logits = [1.0 + (i % 7 == 0) - (i % 5 == 0) for i in range(160)]
    for gate, part in zip(gates(net).values(), by_layer(logits), strict=True):
        gate.logit.data.copy_(part)
    for count in (36, 90, 160):
        script = (
            "(l, n) => { const net = toy.make(0); net.logits.set(l); net.freeze(n); return [...net.open]; }"
        )
        chosen = ask(core, script, logits, count)
        pruning.freeze(count)
        assert sum(chosen) == count
        assert chosen == flat([gate.open() for gate in gates(net).values()]).tolist()
        for gate, part in zip(gates(net).values(), by_layer(logits), strict=True):
            gate.logit.data.copy_(part)


def test_paths_are_those_of_the_package(core):
    draw, verdicts = torch.Generator().manual_seed(0), set()
    half = [torch.arange(size) >= size // 2 for size in SIZES]
    apart = [b[:, None] == a[None, :] for a, b in pairwise(half)]
    for density in (0.15, 0.3, 0.5):
        for blocks in (False, True):
            masks = [torch.rand(part.shape, generator=draw) < density for part in apart]
            masks = [mask & part if blocks else mask for mask, part in zip(masks, apart, strict=True)]
            net = mlp(SIZES, nn.SiLU)
            linear = [layer for layer in net if isinstance(layer, nn.Linear)]
            with torch.no_grad():
                for layer, mask in zip(linear, masks, strict=True):
                    layer.weight.mul_(mask)
            script = "(open) => [toy.separated(open), [0, 1].map((k) => toy.reaching(open, k))]"
            found, reaching = ask(core, script, flat(masks).astype(int).tolist())
            assert found == separated(net)
            counted = [[i for i in range(4) if pb.count_paths(net, i, k)] for k in (0, 1)]
            assert reaching == counted
            verdicts.add(found)
    assert verdicts == {True, False}


def test_nine_of_ten_seeds_separate(core, record_property):
    script = """(seed) => {
      const net = toy.make(seed), start = performance.now();
      while (net.steps < toy.STEPS) net.step();
      const seconds = (performance.now() - start) / 1000, alive = toy.reaching(net.open, 0).length > 0;
      return [toy.separated(net.open), alive, seconds, net.open.reduce((a, b) => a + b), net.error()];
    }"""
    rows = [ask(core, script, seed) for seed in range(10)]
    record_property("seconds", [round(row[2], 1) for row in rows])
    record_property("separated", sum(row[0] for row in rows))
    assert sum(apart and alive for apart, alive, *_ in rows) >= 9
    assert {row[3] for row in rows} == {36}
    assert sorted(row[4] for row in rows)[5] < 1e-3  # the median error


def test_work_that_is_started_anew_while_it_is_painted_runs_once(core):
    script = """() => new Promise((done) => {
      let paints = 0, frames = 0;
      const work = pb.slices(() => false, () => { paints += 1; if (frames < 10) work.start(); });
      const count = () => { frames += 1; if (frames < 10) requestAnimationFrame(count); else done(paints); };
      work.start();
      requestAnimationFrame(count);
    })"""
    assert 9 <= core.evaluate(script) <= 11


def test_gates_of_the_game_are_learned_on_weights_that_stay(core):
    script = """(seed) => {
      const net = toy.make(seed), states = [];
      for (const steps of [toy.DENSE, toy.READY]) {
        while (net.steps < steps) toy.prepare(net);
        states.push(copy(net), net.error(net.weights.map(() => 1)));
      }
      return states;
    }"""
    dense, error, learned, error_after = ask(core, script, 101)
    assert learned["weights"] == dense["weights"]
    assert learned["biases"] == dense["biases"]
    assert dense["logits"] == [2] * 160
    assert len(set(learned["logits"])) > 150
    assert error == error_after < 1e-2
    x, y = points(dense)
    assert mse_loss(by_torch(dense)(x), y).item() == pytest.approx(error, rel=1e-9)


def parts(page, name):
    root = page.locator(f'[data-formula="{name}"]')
    return root, root.locator(".seen"), lambda button: root.get_by_role("button", name=button, exact=True)


def says(page, name, text):
    """Wait until the sentence of a picture has the text."""
    page.wait_for_function(
        "([name, text]) => document.querySelector(`[data-formula=${name}] .seen`).textContent.includes(text)",
        arg=[name, text],
    )


def height(root):
    return root.bounding_box()["height"]


def test_the_toy_is_played_from_the_guess_to_the_answer(page):
    root, sentence, button = parts(page, "toy")
    tall = height(root)
    page.wait_for_timeout(300)
    assert sentence.inner_text().startswith("All 160 wires are there")  # nothing starts by itself
    button("x3 and x4").click()
    assert "You say x3 and x4" in root.locator(".guess").inner_text()
    button("Play").click()
    says(page, "toy", "Gates are learning")
    assert height(root) == tall
    button("Pause").click()
    page.wait_for_timeout(100)
    before = sentence.inner_text()
    page.wait_for_timeout(300)
    assert sentence.inner_text() == before
    button("Play").click()
    says(page, "toy", "Now the weights are tuned")
    assert height(root) == tall
    says(page, "toy", "Two networks")
    assert "y1 is reached by x1 and x2, and y2 by x3 and x4." in sentence.inner_text()
    assert sentence.inner_text().endswith("You said x3 and x4, and that is wrong.")
    assert height(root) == tall
    page.wait_for_timeout(1500)  # the wires have faded, the units arrived
    shown = "path => path.filter((one) => Number(one.getAttribute('opacity')) > 0.5).length"
    assert root.locator(".network path:not(.aim)").evaluate_all(shown) == 36
    assert root.locator(".network.split").count() == 1
    root.get_by_label("Price").press("ArrowRight")  # a slider that is moved after the end starts anew
    assert sentence.inner_text().startswith("All 160 wires are there")
    assert button("Play").is_visible()
    page.wait_for_timeout(1000)
    assert root.locator(".network path:not(.aim)").evaluate_all(shown) == 160
    button("Play").click()
    says(page, "toy", "Gates are learning")
    root.get_by_label("Price").press("ArrowRight")  # one that is moved before works at once
    assert button("Pause").is_visible()
    button("New start").click()
    assert sentence.inner_text().startswith("All 160 wires are there")
    assert button("Play").is_visible()
    page.wait_for_timeout(300)
    assert sentence.inner_text().startswith("All 160 wires are there")


def test_the_page_lives_while_the_toy_trains(page, record_property):
    _, _, button = parts(page, "toy")
    page.evaluate("""() => {
      window.frames = []; window.long = [0];
      new PerformanceObserver((list) => list.getEntries().forEach((entry) => long.push(entry.duration)))
        .observe({ type: "longtask" });
      const tick = (now) => { window.frames.push(now); requestAnimationFrame(tick); };
      requestAnimationFrame(tick);
    }""")
    button("Play").click()
    says(page, "toy", "Now the weights are tuned")
    frames, longest = page.evaluate("[window.frames, Math.max(...window.long)]")
    gaps = np.diff(frames)
    record_property(
        "frames in ms: median, longest; longest task",
        [float(np.median(gaps)), float(gaps.max()), float(longest)],
    )
    assert len(frames) > 30  # the page is drawn again and again, not at the end only


def test_bad_settings_are_said_plainly(core):
    root, sentence, button = parts(core, "toy")
    for slider, key, value in (("Price", "Home", "λ = 0"), ("Temperature", "End", "τ = 5")):
        control = root.get_by_label(slider)
        control.focus()
        core.keyboard.press(key)
        assert control.get_attribute("aria-valuetext") == value
    verdicts = set()
    for _ in range(6):
        button("New start").click()
        button("Play").click()
        button("Play again").wait_for()
        failed = "With λ = 0 and τ = 5 it did not fall in two: y1 is reached by" in sentence.inner_text()
        assert failed != sentence.inner_text().startswith("Two networks")
        assert failed != (root.locator(".network.split").count() == 1)
        verdicts.add(failed)
        if failed:
            break
    assert True in verdicts


def middle_of(root, i):
    """Return where the middle of wire i is on the screen."""
    script = """path => {
      const at = path.getPointAtLength(0.5 * path.getTotalLength());
      const box = path.ownerSVGElement.getBoundingClientRect();
      return [at.x + box.left, at.y + box.top];
    }"""
    return root.locator(".network path:not(.aim)").nth(i).evaluate(script)


@pytest.fixture
def game(page):
    root, _, button = parts(page, "game")
    root.scroll_into_view_if_needed()
    root.locator(".network").scroll_into_view_if_needed()
    page.wait_for_timeout(600)
    lines = root.locator(".network path:not(.aim)")
    drawn = lines.evaluate_all(
        "all => all.map((one) => [one.getAttribute('d'), one.getAttribute('opacity')])"
    )
    assert len({d for d, _ in drawn}) == 160  # before the start, the untrained network is there, pale
    assert {opacity for _, opacity in drawn} == {"0.300"}
    tall = height(root)
    button("New game").click()
    says(page, "game", "Which wire can go?")
    assert height(root) == tall
    root.locator(".over text", has_text="gates").wait_for()
    page.wait_for_timeout(600)
    return root


def test_the_game_is_fair(page, game):
    _, sentence, button = parts(page, "game")
    tall = height(game)
    script = """() => {
      const net = toy.make(101), size = (x) => pb.brief(x, 2);
      while (net.steps < toy.READY) toy.prepare(net);
      const error = (key) => {
        const left = new Array(160).fill(1), order = [...left.keys()].sort((a, b) => key(a) - key(b));
        for (const i of order.slice(0, 20)) left[i] = 0;
        return size(net.error(left));
      };
      return { magnitude: error((i) => Math.abs(net.weights[i])), gates: error((i) => net.logits[i]) };
    }"""
    expected = ask(page, script)
    for _ in range(2):
        button("Cut ten by magnitude").click()
    said = sentence.inner_text()
    assert said.startswith("After 20 cuts, from best to worst: ")
    for player, error in expected.items():
        assert f"{player} {error}" in said
    assert f"you {expected['magnitude']}, magnitude" in said
    numbers = [float(n) for n in re.findall(r"(?:you|magnitude|gates|chance) ([\d.e-]+)", said.rstrip("."))]
    assert len(numbers) == 4
    assert numbers == sorted(numbers)
    assert height(game) == tall
    for _ in range(14):
        button("Cut ten by magnitude").click()
    assert "After 160 cuts" in sentence.inner_text()
    button("Cut ten by magnitude").click()
    button("Undo").click()
    assert "After 159 cuts" in sentence.inner_text()
    button("New game").click()
    says(page, "game", "The network learns")
    says(page, "game", "Which wire can go?")


def cut_wires(page):
    page.wait_for_timeout(1000)  # what is cut has faded
    lines = page.locator('[data-formula="game"] .network path:not(.aim)')
    pale = "all => all.filter((one) => Number(one.getAttribute('opacity')) < 0.5).length"
    return lines.evaluate_all(pale)


def test_wires_are_cut_with_the_mouse(page, game):
    _, sentence, button = parts(page, "game")
    x, y = middle_of(game, 3)
    page.mouse.move(x, y)
    aimed = r"From x\d to h\d+, weight \S?\d.\d\d: cut it, and the error becomes [\d.]+\."
    assert re.match(aimed, sentence.inner_text())
    page.mouse.click(x, y)
    assert "After 1 cut" in sentence.inner_text()
    assert cut_wires(page) == 1
    button("Undo").click()
    assert cut_wires(page) == 0


@pytest.mark.parametrize("page", [(390, "light", True)], indirect=True)
def test_wires_are_cut_by_touch(page, game):
    _, sentence, _ = parts(page, "game")
    x, y = middle_of(game, 3)
    page.touchscreen.tap(x, y)
    assert "cut it, and the error becomes" in sentence.inner_text()
    assert cut_wires(page) == 0
    page.touchscreen.tap(x, y)
    assert "After 1 cut" in sentence.inner_text()
    assert cut_wires(page) == 1


def test_wires_are_cut_by_keyboard(page, game):
    _, sentence, _ = parts(page, "game")
    game.locator(".network").focus()
    page.keyboard.press("ArrowDown")
    first = sentence.inner_text()
    page.keyboard.press("ArrowDown")
    assert sentence.inner_text() != first
    page.keyboard.press("ArrowUp")
    assert sentence.inner_text() == first
    page.keyboard.press("Enter")
    assert "After 1 cut" in sentence.inner_text()
    assert sentence.inner_text().startswith("From ")  # the next wire is aimed at
    page.keyboard.press("Enter")
    assert cut_wires(page) == 2
    page.keyboard.press("Backspace")
    assert "After 1 cut" in sentence.inner_text()
    assert cut_wires(page) == 1
    page.wait_for_timeout(600)
    assert game.locator("[aria-live]").text_content() == sentence.text_content()
