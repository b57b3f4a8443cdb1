// One network on one page. A classic script without libraries: onePage(root) reads the numbers that stand
// in root as JSON, computes the network for a drawing, and shows what each weight carries.
const onePage = (root) => {
  const net = JSON.parse(root.querySelector("script").textContent), depth = net.layers.length;
  const SIDE = 28, BOX = 20, CORE = 0.5, EDGE = 1.8; // a stroke is full up to CORE pixels, gone at EDGE
  const activations = {
    "": (x) => x, ReLU: (x) => Math.max(0, x), Tanh: Math.tanh,
    SiLU: (x) => x / (1 + Math.exp(-x)), Sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  };
  const clamp = (x) => Math.min(1, Math.max(0, x)), sum = (list) => list.reduce((a, b) => a + b, 0);
  const column = (i) => i % SIDE, row = (i) => Math.floor(i / SIDE);

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

  // Strokes, lists of [x, y] in pixels, as an image: each pixel by its distance to the nearest stroke.
  const paint = (strokes) => {
    const grey = new Array(SIDE * SIDE).fill(0);
    const near = (a, b) => [Math.max(0, Math.floor(Math.min(a, b) - 2)), Math.min(SIDE, Math.max(a, b) + 2)];
    for (const stroke of strokes) stroke.forEach(([x, y], k) => {
      const [u, v] = stroke[Math.max(0, k - 1)], dx = x - u, dy = y - v, square = dx * dx + dy * dy;
      const [left, right] = near(x, u), [top, bottom] = near(y, v);
      for (let i = top; i < bottom; i++) for (let j = left; j < right; j++) {
        const px = j + 0.5 - u, py = i + 0.5 - v, along = square && clamp((px * dx + py * dy) / square);
        const shade = clamp((EDGE - Math.hypot(px - along * dx, py - along * dy)) / (EDGE - CORE));
        grey[i * SIDE + j] = Math.max(grey[i * SIDE + j], shade);
      }
    });
    return grey;
  };

  // As the digits of MNIST were made: scaled into a box of 20 x 20, then the centre of mass put in the middle.
  const normalise = (strokes) => {
    if (!strokes.length) return paint([]);
    const ends = [0, 1].map((axis) => strokes.flat().map((point) => point[axis]))
      .map((list) => [Math.min(...list), Math.max(...list)]);
    const size = Math.max(...ends.map(([low, high]) => high - low));
    const scale = size ? Math.min(4, (BOX - CORE - EDGE) / size) : 1;
    const moved = (shift) => strokes.map((stroke) => stroke.map((point) => point.map((value, axis) =>
      (value - (ends[axis][0] + ends[axis][1]) / 2) * scale + SIDE / 2 + shift[axis])));
    const grey = paint(moved([0, 0])), mass = sum(grey);
    // the middle of MNIST's images is the middle of their pixel 14, counted from 0
    return paint(moved([column, row].map((place) => 14 - sum(grey.map((value, i) => value * place(i))) / mass)));
  };

  const keys = `${root.id}-keys`, examples = net.examples.map((text) => Array.from(atob(text), (c) => c.charCodeAt(0) / 255));
  root.insertAdjacentHTML("beforeend", `<svg class="pad" viewBox="0 0 28 28" tabindex="0" role="application"
 aria-label="Drawing pad" aria-describedby="${keys}" data-lm-suppress-shortcuts="true"><g class="drawn"></g>
<circle class="pen" r="1.1"/></svg><div class="said"><p class="answer" aria-hidden="true"><b></b><span></span></p>
<button type="button" class="clear">Clear</button><button type="button" class="next">Test image</button>
<p class="aloud" aria-live="polite"></p></div><svg class="net" role="img" aria-label="The network"></svg>
<p class="count"><b></b><span></span></p>
<p class="note">In the frame: what the network sees, your drawing scaled and centred as the digits of MNIST were.
Squares: the pixels it looks at. Each wire carries weight times activation, the wider the more:
<i class="plus"></i> above 0, <i class="minus"></i> below; a grey one carries nothing.</p>
<p class="keys" id="${keys}">Draw with mouse or finger. By keyboard: arrow keys move the pen, Space puts it down or
lifts it, Delete clears, and the key of a digit shows a test image of it.</p>`);
  const find = (name) => root.querySelector(name);
  const [pad, drawn, pen, sketch] = [".pad", ".drawn", ".pen", ".net"].map(find);
  const make = (parent, tag, attributes = {}, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return parent.appendChild(element);
  };
  const pixel = (parent, name, i, side) => make(parent, "rect",
    { class: name, x: column(i) + (1 - side) / 2, y: row(i) + (1 - side) / 2, width: side, height: side });

  const peak = (name, layer) => Math.max(...examples.flatMap((grey) => evaluate(grey)[name][layer].map(Math.abs)));
  const peaks = net.layers.map((_, l) => ({ flow: peak("flows", l), value: peak("values", l + 1) }));
  find(".count span").textContent = `${net.summary}.`;
  let strokes = [], shown = -1, wide, parts, spoken, state;

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
  const redraw = () => {
    shown = -1;
    drawn.replaceChildren();
    for (const stroke of strokes) make(drawn, "polyline", { points: [...stroke, stroke.at(-1)].join(" ") });
    show(normalise(strokes));
  };
  let cursor = [14, 6], pointer = null, next = 0;
  const lift = () => pen.classList.remove("down"), begin = (point) => { strokes.push([point]); redraw(); };
  const clear = () => { strokes = []; lift(); redraw(); };
  const example = (i) => {
    clear();
    shown = i;
    next = (i + 1) % examples.length;
    examples[i].forEach((grey, k) => grey && pixel(drawn, "ink", k, 1.02).style.setProperty("--share", grey));
    show(examples[i]);
  };

  pad.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button) return;
    pad.setPointerCapture(pointer = event.pointerId);
    lift();
    begin(place(event));
  });
  const place = (event) => {
    const box = pad.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((value) => SIDE * clamp(value / box.width));
  };
  pad.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    strokes.at(-1).push(...(event.getCoalescedEvents?.() ?? [event]).map(place));
    redraw();
  });
  for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { pointer = null; });

  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const point = () => ["cx", "cy"].forEach((name, axis) => pen.setAttribute(name, cursor[axis]));
  pad.addEventListener("blur", lift);
  pad.addEventListener("keydown", (event) => {
    const down = pen.classList.contains("down");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (steps[event.key]) {
      cursor = cursor.map((value, axis) => SIDE * clamp((value + steps[event.key][axis]) / SIDE));
      if (down) { strokes.at(-1).push(cursor); redraw(); }
    } else if (event.key === " " || event.key === "Enter") {
      if (down) lift(); else { begin(cursor); pen.classList.add("down"); }
    } else if (event.key === "Delete" || event.key === "Backspace") clear();
    else if (net.classes.includes(event.key)) example(net.classes.indexOf(event.key));
    else return;
    point();
    event.preventDefault();
    event.stopPropagation(); // the theme and the notebook use these keys too
  });
  find(".clear").addEventListener("click", clear);
  find(".next").addEventListener("click", () => example(next));
  const fit = () => {
    if (root.clientWidth >= 600 !== wide) { wide = root.clientWidth >= 600; build(); if (state) light(); }
  };
  fit();
  new ResizeObserver(fit).observe(root);
  point();
  example(0);
  root.setAttribute("data-ready", "");
  root.onePage = { evaluate, paint, normalise, show, read: () => state }; // to try in the console
};
