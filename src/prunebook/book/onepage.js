// One network on one page. A classic script without libraries, which needs pad.js: onePage(root) reads the numbers
// that stand in root as JSON, computes the network for a drawing, and shows what each weight carries.
const onePage = (root) => {
  const net = JSON.parse(root.querySelector("script").textContent), depth = net.layers.length;
  const SIDE = 28, { clamp, pixel } = drawingPad;
  const activations = {
    "": (x) => x, ReLU: (x) => Math.max(0, x), Tanh: Math.tanh,
    SiLU: (x) => x / (1 + Math.exp(-x)), Sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  };
  const sum = (list) => list.reduce((a, b) => a + b, 0), column = (i) => i % SIDE, row = (i) => Math.floor(i / SIDE);

  // The network: 784 grey values 0..1 in, scores out. A source that is 0 needs no multiplication.
  const evaluate = (grey) => {
    const values = [grey], flows = [];
    let products = 0;
    for (const layer of net.layers) {
      const sums = [...layer.bias], from = values.at(-1);
      flows.push(layer.weight.map((weight, i) => {
        const source = from[layer.source[i]];
        if (source === 0) return 0;
        products += 1;
        sums[layer.unit[i]] += weight * source;
        return weight * source;
      }));
      values.push(sums.map(activations[layer.activation]));
    }
    const outputs = values.at(-1), top = Math.max(...outputs), powers = outputs.map((x) => Math.exp(x - top));
    const chances = powers.map((x) => x / sum(powers)), blank = grey.every((value) => value === 0);
    return { values, flows, products, outputs, chances, blank, best: outputs.indexOf(top) };
  };

  const keys = `${root.id}-keys`, examples = net.examples.map((text) => Array.from(atob(text), (c) => c.charCodeAt(0) / 255));
  root.insertAdjacentHTML("beforeend", `<svg class="pad" role="application"
 aria-label="Drawing pad" aria-describedby="${keys}"></svg><div class="said"><p class="answer" aria-hidden="true"><b></b><span></span></p>
<button type="button" class="clear">Clear</button><button type="button" class="next">Test image</button>
<p class="aloud" aria-live="polite"></p></div><svg class="net" role="img" aria-label="The network"></svg>
<p class="count"><b></b><span></span></p>
<p class="note">In the frame: what the network sees, your drawing scaled and centred as the digits of MNIST were.
Squares: the pixels it looks at. Each wire carries weight times activation, the wider the more:
<i class="plus"></i> above 0, <i class="minus"></i> below; a grey one carries nothing.</p>
<p class="keys" id="${keys}">Draw with mouse or finger. By keyboard: arrow keys move the pen, Space puts it down or
lifts it, Delete clears, and the key of a digit shows a test image of it.</p>`);
  const find = (name) => root.querySelector(name);
  const sketch = find(".net");
  const make = (parent, tag, attributes = {}, text = "") =>
    Object.assign(drawingPad.make(parent, tag, attributes), { textContent: text });

  const peak = (name, layer) => Math.max(...examples.flatMap((grey) => evaluate(grey)[name][layer].map(Math.abs)));
  const peaks = net.layers.map((_, l) => ({ flow: peak("flows", l), value: peak("values", l + 1) }));
  find(".count span").textContent = `${net.summary}.`;
  let shown = -1, next = 0, wide, parts, spoken, state;

  // The picture: from left to right where there is room, else from top to bottom.
  const build = () => {
    const gap = wide ? 14 : 10, far = SIDE + gap * depth, turn = (x, y) => (wide ? [x, y] : [y, x]);
    const at = (layer, i) => layer ? turn(SIDE + gap * layer, ((i + 0.5) * SIDE) / net.layers[layer - 1].bias.length)
      : [column(i) + 0.5, row(i) + 0.5];
    sketch.replaceChildren();
    sketch.setAttribute("viewBox", `-0.5 -0.5 ${turn(far + (wide ? 14.5 : 8.5), SIDE + 1).join(" ")}`);
    for (const sign of ["plus", "minus"]) { // wires start pale: the picture has to show through
      const id = `${root.id}-${sign}`, [x2, y2] = turn(SIDE, 0);
      const along = { gradientUnits: "userSpaceOnUse", x1: 0, y1: 0, x2, y2 };
      const gradient = make(sketch, "linearGradient", { id, class: sign, ...along });
      sketch.style.setProperty(`--first-${sign}`, `url(#${id})`);
      make(gradient, "stop", { offset: 0.3, "stop-opacity": 0.3 });
      make(gradient, "stop", { offset: 1 });
    }
    make(sketch, "rect", { class: "frame", width: SIDE, height: SIDE });
    const inks = examples[0].map((_, i) => pixel(sketch, "ink", i, 1.02));
    const lines = net.layers.map((layer, l) => layer.weight.map((_, i) => {
      const [x, y] = at(l, layer.source[i]), [u, v] = at(l + 1, layer.unit[i]);
      const bend = wide ? `${(x + u) / 2} ${y} ${(x + u) / 2} ${v}` : `${x} ${(y + v) / 2} ${u} ${(y + v) / 2}`;
      return make(sketch, "path", { class: l ? "wire" : "wire first", d: `M${x} ${y}C${bend} ${u} ${v}` });
    }));
    const eyes = [...new Set(net.layers[0].source)].map((i) => [i, pixel(sketch, "eye", i, 0.6)]);
    const units = net.layers.map((layer, l) => layer.bias.map((_, i) => {
      const [cx, cy] = at(l + 1, i);
      return make(sketch, "circle", { class: "unit", cx, cy, r: Math.min(0.6, (0.45 * SIDE) / layer.bias.length) });
    }));
    const ends = net.classes.map((name, i) => {
      const [x, y] = at(depth, i), [u, v] = wide ? [x + 2.8, y - 0.5] : [x - 0.5, y + 2.8];
      const group = make(sketch, "g");
      make(group, "text", { x: wide ? x + 1.8 : x, y: wide ? y + 0.55 : y + 2.1 }, name);
      const bar = make(group, "rect", { x: u, y: v, width: 1, height: 1 });
      return { group, end: u + 0.6, bar, text: make(group, "text", { y: y + 0.55 }) };
    });
    parts = { inks, lines, eyes, units, ends };
  };

  const mark = (element, value, most) => {
    element.classList.toggle("plus", value > 0);
    element.classList.toggle("minus", value < 0);
    element.style.setProperty("--share", most ? clamp(Math.abs(value) / most) : 0);
  };
  const percent = (chance) => (chance > 0.99 ? "> 99" : Math.round(100 * chance)) + " %";
  const light = () => {
    const { values, flows, chances, best, blank } = state, on = blank ? 0 : 1;
    parts.inks.forEach((ink, i) => ink.style.setProperty("--share", values[0][i]));
    parts.eyes.forEach(([i, eye]) => eye.style.setProperty("--share", values[0][i]));
    parts.lines.forEach((list, l) => list.forEach((line, i) => mark(line, on * flows[l][i], peaks[l].flow)));
    parts.units.forEach((list, l) => list.forEach((unit, i) =>
      l === depth - 1 ? mark(unit, on * chances[i], 1) : mark(unit, on * values[l + 1][i], peaks[l].value)));
    parts.ends.forEach(({ group, end, bar, text }, i) => {
      const length = 4.5 * on * chances[i];
      group.classList.toggle("best", !blank && i === best);
      bar.setAttribute(wide ? "width" : "height", length);
      text.setAttribute("x", end + length);
      text.textContent = wide && on * chances[i] >= 0.005 ? percent(chances[i]) : "";
    });
    const answer = blank ? "" : net.classes[best], sure = blank ? "Draw a digit." : `${percent(chances[best])} sure`;
    const verdict = shown === best ? "right" : "wrong";
    const told = shown < 0 ? "" : `; ${verdict}: a test image of ${net.classes[shown]}`;
    find(".answer b").textContent = answer;
    find(".answer span").textContent = sure + told;
    find(".count b").textContent = blank ? "" : `${state.products} multiplications for this image. `;
    clearTimeout(spoken); // spoken once the drawing rests
    const speak = () => { find(".aloud").textContent = (blank ? "" : `The network reads ${answer}, `) + sure + told; };
    spoken = setTimeout(speak, 500);
  };
  const show = (grey) => { state = evaluate(grey); light(); return state; };
  const pad = drawingPad(find(".pad"), (grey) => { shown = -1; show(grey); }, (key) => {
    const digit = net.classes.indexOf(key);
    if (digit >= 0) example(digit);
    return digit >= 0;
  });
  const example = (i) => {
    pad.show(examples[i]);
    shown = i;
    next = (i + 1) % examples.length;
    show(examples[i]);
  };
  find(".clear").addEventListener("click", pad.clear);
  find(".next").addEventListener("click", () => example(next));
  const fit = () => {
    if (root.clientWidth >= 600 !== wide) { wide = root.clientWidth >= 600; build(); if (state) light(); }
  };
  fit();
  new ResizeObserver(fit).observe(root);
  example(0);
  root.setAttribute("data-ready", "");
  root.onePage = { ...drawingPad, evaluate, show, read: () => state }; // to try in the console
};
document.querySelectorAll(".one-page:not([data-ready])").forEach(onePage);
