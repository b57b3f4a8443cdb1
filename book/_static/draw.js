// The toolkit of the pictures that are computed in the page. It defines one global, pb, and starts nothing.
//
//   pb.start(name, build)   calls build(frame) for each <div class="formula" data-formula="name">, once.
//     frame: root; panels, controls and buttons, three empty elements in this order on the page;
//     title(words); guess(question, choices, reply), above the panels: buttons, in whose place
//     reply(choice, index) is shown; say(words), beneath: a screen reader hears it after 500 ms of rest.
//   pb.chart(parent, { label, x, y, height, left }, paint)   axes, drawn again when the width changes.
//     x, y: { from, to, ticks, label, text, log }. label says in words what the axis shows, text(value)
//     how a tick is written. Parts of a chart: svg; x(value) and y(value) in pixels, x.value(pixels);
//     plot, an SVG group that is clipped to the axes, and over, which is not. For use in paint(chart),
//     which begins with empty groups: curve(points, tone), area(points, tone),
//     boxes([[x0, x1, y0, y1], ...], tone), dot(x, y, tone, radius), words(x, y, text, attributes).
//     repaint() calls paint; call it yourself once all that it paints is there.
//     drag(moved) calls moved(x, y) as a mouse or a finger moves on the picture.
//   pb.range(parent, { label, from, to, step, log, value, text }, changed)   a slider, whose text(value)
//     is its value in words. With log it has 100 steps of equal factors. changed(value) is called when the
//     reader moves it; set(value, words) moves it silently; input is the native control.
//   pb.button(parent, text, pressed), pb.make(parent, tag, attributes, text), and pb.draw(...) for SVG:
//     a new element at the end of parent.
//   pb.slices(step, paint)   work that leaves the page alive: after start(), step() is called again and
//     again for at most 12 ms a frame, then paint(), until step() returns false, or until stop().
//     running says whether it goes on.
//   pb.random(seed) returns a function that draws from 0 to 1; pb.normal(draw) uses it for a normal number.
//   pb.number(value, decimals), pb.brief(value, figures), pb.percent(share, decimals): 266,200; 0.35; 90 %.
//   pb.clamp(value, low, high), pb.sigmoid(x), pb.steps(from, to, count): count + 1 numbers.
//
// Tones are classes: ink, soft, grey, line, pale, plus, minus, green. The style sheet gives them the colours
// of the theme, so a switch to dark mode needs no script. A curve may also be "dashed" or "thin", an area
// "faint". Words over the plot have a halo of the paper's colour, unless they are "bare".
"use strict";
const pb = (() => {
  const clamp = (value, low = 0, high = 1) => Math.min(high, Math.max(low, value));
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const steps = (from, to, count) =>
    Array.from({ length: count + 1 }, (_, i) => from + ((to - from) * i) / count);

  const written = (value, rules) => // "negative": there is no -0
    value.toLocaleString("en-US", { signDisplay: "negative", ...rules }).replace("-", "−");
  const number = (value, decimals = 0) =>
    written(value, { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  const brief = (value, figures = 2) => written(value, { maximumSignificantDigits: figures });
  const percent = (share, decimals = 0) => `${number(100 * share, decimals)}\u00a0%`;

  // Mulberry32: a small generator that gives the same numbers in every browser.
  const random = (seed) => {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    };
  };
  const normal = (next) => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());

  const grow = (parent, element, attributes, text) => {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== "") element.textContent = text;
    return parent.appendChild(element);
  };
  const make = (parent, tag, attributes = {}, text = "") =>
    grow(parent, document.createElement(tag), attributes, text);
  const draw = (parent, tag, attributes = {}, text = "") =>
    grow(parent, document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, text);
  let ids = 0;
  const id = () => `pb-${(ids += 1)}`;

  const button = (parent, text, pressed) => {
    const made = make(parent, "button", { type: "button", "data-lm-suppress-shortcuts": "true" }, text);
    made.addEventListener("click", pressed);
    return made;
  };

  const range = (parent, { label, from, to, step = 1, log = false, value, text }, changed) => {
    const box = make(parent, "div", { class: "range" }), name = id();
    const ends = log ? { min: 0, max: 100, step: 1 } : { min: from, max: to, step };
    make(box, "label", { for: name }, label);
    const output = make(box, "output", { for: name });
    const input = make(box, "input",
      { id: name, type: "range", ...ends, autocomplete: "off", "data-lm-suppress-shortcuts": "true" });
    const outside = (place) => (log ? from * (to / from) ** (place / 100) : place);
    const inside = (amount) => (log ? (100 * Math.log(amount / from)) / Math.log(to / from) : amount);
    const tell = (words) => { output.textContent = words; input.setAttribute("aria-valuetext", words); };
    const set = (amount, words = text(amount)) => { input.value = inside(amount); tell(words); };
    input.addEventListener("input", () => {
      const amount = outside(Number(input.value));
      tell(text(amount));
      changed(amount);
    });
    set(value);
    return { input, set };
  };

  const scale = ({ from, to, log }, start, end) => {
    const bend = log ? Math.log : (value) => value, straight = log ? Math.exp : bend;
    const low = bend(from), share = (value) => (bend(value) - low) / (bend(to) - low);
    const at = (value) => start + (end - start) * clamp(share(value), -50, 50); // far, but not out of range
    at.value = (place) => straight(low + ((place - start) / (end - start)) * (bend(to) - low));
    return at;
  };

  const axes = (chart, x, y, height, left) => {
    const { back, width, bottom } = chart, texts = [x, y].map((axis) => axis.text ?? ((v) => brief(v, 6)));
    const right = width - 10;
    const write = (place, words, rest) => draw(back, "text", { ...place, ...rest }, words);
    back.replaceChildren();
    for (const value of y.ticks ?? []) {
      const at = chart.y(value);
      draw(back, "path", { class: "curve line thin", d: `M${left} ${at}H${right}` });
      write({ x: left - 7, y: at + 4.5 }, texts[1](value), { "text-anchor": "end" });
    }
    draw(back, "path", { class: "curve soft thin", d: `M${left} ${bottom}H${right}` });
    for (const value of x.ticks ?? []) {
      const at = chart.x(value), words = texts[0](value), last = at > right - 14 && words.length > 3;
      draw(back, "path", { class: "curve soft thin", d: `M${at} ${bottom}v5` });
      const place = { x: last ? right + 10 : at, y: bottom + 19 }; // a long last one must not stick out
      write(place, words, { "text-anchor": last ? "end" : "middle" });
    }
    write({ x: 0, y: 14 }, y.label, { class: "name" });
    write({ x: right + 10, y: height - 5 }, x.label, { class: "name", "text-anchor": "end" });
  };

  const chart = (parent, { label, x, y, height = 220, left = 36 }, paint) => {
    const svg = draw(parent, "svg", { class: "chart", role: "img", "aria-label": label, height });
    const name = id(), frame = draw(draw(svg, "clipPath", { id: name }), "rect");
    const top = 26, bottom = height - 44;
    const [back, plot, over] = ["axes", "plot", "over"].map((part) => draw(svg, "g", { class: part }));
    plot.setAttribute("clip-path", `url(#${name})`);
    const path = (points) =>
      points.map(([u, v]) => `${made.x(u).toFixed(2)} ${made.y(v).toFixed(2)}`).join("L");
    const shape = (kind, tone, d) => draw(plot, "path", { class: `${kind} ${tone}`, d });
    const made = {
      svg, back, plot, over, bottom,
      curve: (points, tone) => shape("curve", tone, `M${path(points)}`),
      area: (points, tone) => shape("area", tone, `M${path(points)}Z`),
      boxes: (list, tone) => shape("area", tone, list.map(([u, v, low, high]) =>
        `M${path([[u, low], [u, high], [v, high], [v, low]])}Z`).join("")),
      dot: (u, v, tone, r = 5) =>
        draw(over, "circle", { class: `area ${tone}`, cx: made.x(u), cy: made.y(v), r }),
      words: (u, v, text, attributes = {}) =>
        draw(over, "text", { x: made.x(u), y: made.y(v), ...attributes }, text),
      repaint: () => { plot.replaceChildren(); over.replaceChildren(); paint(made); },
      drag: (moved) => drag(made, moved),
    };
    const fit = () => {
      const width = svg.clientWidth || 320;
      if (width === made.width) return;
      Object.assign(made, { width, x: scale(x, left, width - 10), y: scale(y, bottom, top) });
      const size = { x: left, y: top, width: width - 10 - left, height: bottom - top };
      for (const [key, value] of Object.entries(size)) frame.setAttribute(key, value);
      axes(made, x, y, height, left);
      if (made.ready) made.repaint();
    };
    fit();
    made.ready = true; // the first paint is the caller's, when all that it paints is there
    new ResizeObserver(fit).observe(svg);
    return made;
  };

  // A finger that scrolls the page past a picture must not move it: it counts once it goes sideways, or taps.
  const drag = (chart, moved) => {
    const { svg } = chart;
    let start = null, going = false;
    const tell = (event) => {
      const box = svg.getBoundingClientRect();
      moved(chart.x.value(event.clientX - box.left), chart.y.value(event.clientY - box.top));
    };
    svg.classList.add("drag");
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !event.isPrimary) return;
      start = event;
      going = event.pointerType !== "touch";
      svg.setPointerCapture(event.pointerId);
      if (going) tell(event);
    });
    const follow = (event) => {
      if (event.pointerId !== start?.pointerId) return;
      const [dx, dy] = ["clientX", "clientY"].map((name) => Math.abs(event[name] - start[name]));
      const tap = event.type === "pointerup" && dx + dy < 8;
      going ||= tap || dx > Math.max(8, dy);
      if (going) tell(event);
      if (event.type === "pointerup") start = null;
    };
    for (const name of ["pointermove", "pointerup"]) svg.addEventListener(name, follow);
    svg.addEventListener("pointercancel", () => { start = null; });
  };

  const slices = (step, paint) => {
    let frame = 0;
    const next = () => { cancelAnimationFrame(frame); frame = requestAnimationFrame(slice); }; // never two
    const work = {
      running: false,
      start() { if (!work.running) { work.running = true; next(); } },
      stop() { work.running = false; cancelAnimationFrame(frame); },
    };
    const slice = () => {
      const end = performance.now() + 12;
      while (work.running && performance.now() < end) if (step() === false) work.running = false;
      paint();
      if (work.running) next();
    };
    return work;
  };

  const guess = (parent, question, choices, reply) => {
    const asked = make(parent, "p", { tabindex: "-1" }, question);
    const row = make(parent, "div", { class: "buttons" });
    const answer = (choice, index) => {
      asked.textContent = reply(choice, index);
      row.remove();
      asked.focus({ preventScroll: true }); // its button is gone; a screen reader now reads the answer
    };
    choices.forEach((choice, index) => button(row, choice, () => answer(choice, index)));
  };

  // A slider changes the sentence many times a second; a screen reader gets it when it has come to rest.
  const spoken = (root) => {
    const seen = make(root, "p", { class: "seen", "aria-hidden": "true" });
    const aloud = make(root, "p", { class: "aloud", "aria-live": "polite" });
    let timer;
    return (words) => {
      seen.textContent = words;
      clearTimeout(timer);
      timer = setTimeout(() => { aloud.textContent = words; }, 500);
    };
  };

  const start = (name, build) => {
    for (const root of document.querySelectorAll(`.formula[data-formula="${name}"]:not([data-ready])`)) {
      const title = id();
      root.replaceChildren();
      root.setAttribute("role", "group");
      root.setAttribute("aria-labelledby", title);
      const parts = ["p.title", "div.guess", "div.panels", "div.controls", "div.buttons"].map((part) => {
        const [tag, kind] = part.split(".");
        return make(root, tag, { class: kind });
      });
      const [head, asked, panels, controls, buttons] = parts;
      head.id = title;
      const frame = { root, panels, controls, buttons, say: spoken(root) };
      frame.title = (words) => { head.textContent = words; };
      frame.guess = (...about) => guess(asked, ...about);
      build(frame);
      root.setAttribute("data-ready", "");
    }
  };

  const numbers = { clamp, sigmoid, steps, number, brief, percent, random, normal };
  return { ...numbers, make, draw, button, range, chart, slices, start };
})();
