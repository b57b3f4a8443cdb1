// The toy of the chapter on pathways: a network 4-10-10-2 learns two functions that have no input in common,
// and gates on its 160 wires learn which to keep. pb.toy is the mathematics, the same as in
// prunebook.experiments.toy with half its steps. Then come the picture of a network, the toy, and a game.
"use strict";
pb.toy = (() => {
  const SIZES = [4, 10, 10, 2], POINTS = 1000, KEPT = 36, STEPS = 8000, GATED = 4000; // steps, and with gates
  // Units are counted through: inputs 0 to 3, two hidden layers of ten, outputs 24 and 25. Wires come in the
  // order of torch's weights: layer by layer, and in a layer row by row.
  const layers = SIZES.map((size, layer) =>
    Array.from({ length: size }, (_, i) => i + SIZES.slice(0, layer).reduce((a, b) => a + b, 0)));
  const wires = layers.slice(1).flatMap((row, layer) =>
    row.flatMap((to) => layers[layer].map((from) => ({ layer, from, to }))));
  const units = layers.flat(), TOTAL = wires.length, INPUTS = layers[0].length, LAST = layers[3][0];
  const [into, outOf] = ["to", "from"].map((end) =>
    units.map((unit) => [...wires.keys()].filter((i) => wires[i][end] === unit)));

  // Each unit has one number for each point, and nearly all the time goes into these loops.
  const add = (sums, factor, values) => { for (let n = 0; n < POINTS; n++) sums[n] += factor * values[n]; };
  const product = (a, b) => {
    let sum = 0;
    for (let n = 0; n < POINTS; n++) sum += a[n] * b[n];
    return sum;
  };
  const multiply = (values, factors) => { for (let n = 0; n < POINTS; n++) values[n] *= factors[n]; };
  const silu = (values, slopes) => {
    for (let n = 0; n < POINTS; n++) {
      const x = values[n], s = 1 / (1 + Math.exp(-x));
      values[n] = x * s;
      slopes[n] = s * (1 + x * (1 - s));
    }
  };

  const makeAdam = (numbers) => { // with the settings of torch
    const mean = numbers.map(() => 0), square = numbers.map(() => 0);
    let first = 1, second = 1;
    return (gradient, rate) => {
      [first, second] = [first * 0.9, second * 0.999];
      for (let i = 0; i < numbers.length; i++) {
        mean[i] = 0.9 * mean[i] + 0.1 * gradient[i];
        square[i] = 0.999 * square[i] + 0.001 * gradient[i] ** 2;
        numbers[i] -= (rate * mean[i]) / (1 - first) / (Math.sqrt(square[i] / (1 - second)) + 1e-8);
      }
    };
  };

  // For each unit, as bits: which inputs lead to it along open wires, and to which outputs it leads.
  const reach = (open) => {
    const from = units.map((unit) => (unit < INPUTS ? 1 << unit : 0));
    const to = units.map((unit) => (unit < LAST ? 0 : 1 << (unit - LAST)));
    wires.forEach((wire, i) => { if (open[i]) from[wire.to] |= from[wire.from]; });
    for (let i = TOTAL - 1; i >= 0; i--) if (open[i]) to[wires[i].from] |= to[wires[i].to];
    return { from, to };
  };
  const reaching = (open, k) => layers[0].filter((input) => reach(open).to[input] & (1 << k)); // output k
  const separated = (open) => layers[0].every((input) => !(reach(open).to[input] & (input < 2 ? 2 : 1)));

  const make = (seed, { lambda = 0.1, tau = 1 } = {}) => {
    const random = pb.random(seed), zeros = (n) => new Float64Array(n);
    const each = () => units.map(() => zeros(POINTS));
    const x = layers[0].map(() => zeros(POINTS).map(() => 2 * random() - 1));
    const y1 = x[0].map((x1, n) => 3 * Math.sin((x1 - x[1][n]) ** 2));
    const y = [y1, x[2].map((x3, n) => (x3 + x[3][n]) ** 3)], values = [...x, ...each().slice(INPUTS)];
    const pulls = each(), slopes = each().map((list) => list.fill(1)); // the slope of an output stays 1
    const draw = (layer) => (2 * random() - 1) / Math.sqrt(SIZES[layer]);
    const weights = zeros(TOTAL).map((_, i) => draw(wires[i].layer));
    const biases = Float64Array.from(layers.slice(1).flatMap((row, layer) => row.map(() => draw(layer))));
    const [logits, noise, along, real] = [2, 0, 0, 0].map((value) => zeros(TOTAL).fill(value));
    const gradients = { weights: zeros(TOTAL), biases: zeros(biases.length), logits: zeros(TOTAL) };
    const open = new Uint8Array(TOTAL).fill(1), learned = { weights, biases, logits, gradients };
    const net = { x, y, ...learned, noise, open, lambda, tau, steps: 0, fixed: false };
    const used = (unit) => !net.fixed || unit >= LAST || outOf[unit].some((i) => real[i] !== 0);
    const begin = () => ({ weights: makeAdam(weights), biases: makeAdam(biases), logits: makeAdam(logits) });
    let adam = begin();

    net.error = (left = open) => { // mean square over points and outputs, with the wires that are left
      let sum = 0;
      for (let i = 0; i < TOTAL; i++) real[i] = left[i] * weights[i];
      for (let unit = INPUTS; unit < units.length; unit++) if (used(unit)) {
        values[unit].fill(biases[unit - INPUTS]);
        for (const i of into[unit]) if (real[i] !== 0) add(values[unit], real[i], values[wires[i].from]);
        pulls[unit].fill(0); // the gradient of the error, once that is known
        if (unit < LAST) { silu(values[unit], slopes[unit]); continue; }
        add(pulls[unit], 1 / POINTS, values[unit]);
        add(pulls[unit], -1 / POINTS, y[unit - LAST]);
        sum += product(pulls[unit], pulls[unit]);
      }
      return (sum * POINTS) / 2;
    };
    const backward = () => {
      along.fill(0);
      gradients.biases.fill(0);
      for (let unit = units.length - 1; unit >= INPUTS; unit--) if (used(unit)) {
        gradients.biases[unit - INPUTS] = product(pulls[unit], slopes[unit]);
        multiply(pulls[unit], slopes[unit]);
        for (const i of into[unit]) {
          const { from } = wires[i];
          if (open[i] || !net.fixed) along[i] = product(pulls[unit], values[from]);
          if (from >= INPUTS && real[i] !== 0) add(pulls[from], real[i], pulls[unit]);
        }
      }
    };
    net.density = () => logits.reduce((sum, logit) => sum + pb.sigmoid(logit), 0) / TOTAL;
    net.target = () => (KEPT / TOTAL) ** Math.min(net.steps / GATED / 0.8, 1);
    net.toss = () => noise.forEach((_, i) => {
      const u = pb.clamp(random(), 1e-7, 1 - 1e-7);
      noise[i] = Math.log(u / (1 - u));
      open[i] = logits[i] + noise[i] > 0 ? 1 : 0;
    });
    net.descend = (rates, target) => { // one step: rates by the name of what learns
      const density = net.density(), push = density > target ? net.lambda / density / TOTAL : 0;
      net.loss = net.error();
      backward();
      for (let i = 0; i < TOTAL; i++) {
        const soft = pb.sigmoid((logits[i] + noise[i]) / net.tau), chance = pb.sigmoid(logits[i]);
        gradients.weights[i] = open[i] * along[i];
        gradients.logits[i] = (along[i] * weights[i] * soft * (1 - soft)) / net.tau;
        gradients.logits[i] += push * chance * (1 - chance);
      }
      for (const [name, rate] of Object.entries(rates)) adam[name](gradients[name], rate);
    };
    net.freeze = (count) => { // of equal logits the last ones stay, as in the package
      const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || b - a);
      order.forEach((i, rank) => { open[i] = rank < count ? 1 : 0; });
      net.fixed = true;
      adam = begin();
    };
    net.step = () => {
      if (net.steps === GATED) net.freeze(KEPT);
      if (!net.fixed) net.toss();
      const rate = net.fixed ? (4e-2 * (STEPS - net.steps)) / (STEPS - GATED) : 1e-2;
      net.descend({ weights: rate, biases: rate, ...(!net.fixed && { logits: 2e-2 }) }, net.target());
      net.steps += 1;
    };
    return net;
  };

  // For the game: first all weights learn, then gates on these weights, which stay as they are from here on.
  const DENSE = 1500, LEARNED = 2000;
  const prepare = (net) => {
    const late = net.steps - DENSE, rate = (-4e-2 * late) / DENSE;
    if (net.steps === 0) net.freeze(TOTAL);
    if (late === 0) Object.assign(net, { fixed: false, lambda: 1 });
    if (late >= 0) net.toss();
    net.descend(late < 0 ? { weights: rate, biases: rate } : { logits: 2e-2 }, TOTAL ** (-late / LEARNED));
    net.steps += 1;
  };
  const sizes = { STEPS, GATED, KEPT, TOTAL, DENSE, READY: DENSE + LEARNED };
  return { make, prepare, reach, reaching, separated, layers, wires, units, ...sizes };
})();

// The picture of a network: wires coloured by the sign of their weights, wide by their size, and as opaque as
// their share, 0 to 1. A wire that is on no path is grey. show(state) draws all and lets it glide into place.
pb.sketch = (frame, label) => {
  const { layers, wires, units, reach } = pb.toy, HEIGHT = 400, EDGE = 34, about = { "aria-label": label };
  const svg = pb.draw(frame.root, "svg", { class: "network", role: "img", height: HEIGHT, ...about });
  const add = (tag, attributes, text) => pb.draw(svg, tag, attributes, text);
  frame.panels.before(svg, frame.buttons, frame.root.querySelector(".seen"));
  for (const y of [0, 205]) add("rect", { class: "half", y, width: "100%", height: 195, rx: 8 });
  const lines = wires.map(() => add("path")), aim = add("path", { class: "aim" });
  const dots = units.map(() => add("circle", { r: 5 }));
  ["y1 = 3 sin((x1 − x2)²)", "y2 = (x3 + x4)³"].forEach((task, i) =>
    add("text", { x: "50%", y: i ? HEIGHT - 13 : 22, class: "name", "text-anchor": "middle" }, task));
  const goals = layers.flatMap((row) => row.map((_, i) => (i + 0.5) / row.length)); // 0 top, 1 bottom
  const depth = layers.flatMap((row, layer) => row.map(() => layer / 3));
  const places = [...goals], shares = wires.map(() => 0);
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let width = 0, state = null, moving = false;
  const at = (unit) => [EDGE + depth[unit] * (width - 2 * EDGE), EDGE + places[unit] * (HEIGHT - 2 * EDGE)];
  const set = (element, attributes) => {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  };
  layers[0].forEach((unit, i) => add("text", { class: "name", x: 6, y: at(unit)[1] + 5 }, `x${i + 1}`));
  layers[3].forEach((unit, i) =>
    add("text", { class: "name", x: "100%", dx: -23, y: at(unit)[1] + 5 }, `y${i + 1}`));

  // Each unit moves towards the middle of those that it is joined to: that saves crossings.
  const arrange = ({ weights, share, split }, half) => {
    const sums = goals.map((goal) => [goal * 0.2, 0.2]);
    wires.forEach(({ from, to }, i) => [[from, to], [to, from]].forEach(([unit, other]) => {
      const pull = Math.abs(weights[i]) * share(i);
      sums[unit] = [sums[unit][0] + pull * goals[other], sums[unit][1] + pull];
    }));
    const middles = sums.map(([sum, weight]) => sum / weight);
    for (const row of layers.slice(1, 3)) for (const part of split ? [1, 2] : [3]) {
      const group = row.filter((unit) => (split ? half[unit] === part : half[unit]));
      const top = part === 2 ? 0.57 : 0, step = (split ? 0.43 : 1) / group.length;
      group.sort((a, b) => middles[a] - middles[b]);
      group.forEach((unit, i) => { goals[unit] = top + (i + 0.5) * step; });
    }
  };
  const curve = ({ from, to }) => {
    const [[x, y], [u, v]] = [at(from), at(to)], middle = (x + u) / 2;
    return `M${x} ${y}C${middle} ${y} ${middle} ${v} ${u} ${v}`;
  };
  const glide = (list, goal) => list.forEach((value, i) => {
    const way = goal(i) - value;
    if (Math.abs(way) > 0.002) moving = true;
    list[i] = Math.abs(way) < 0.002 || calm.matches ? goal(i) : value + 0.15 * way;
  });
  const paint = () => {
    const { weights, share, open, fixed } = state, { from, to } = reach(open);
    const half = units.map((unit) => to[unit] | (from[unit] & 3 ? 1 : 0) | (from[unit] & 12 ? 2 : 0));
    if (!state.still) arrange(state, half);
    moving = false;
    glide(places, (unit) => goals[unit]);
    glide(shares, share);
    wires.forEach((wire, i) => {
      const tone = fixed && !(from[wire.from] && to[wire.to]) ? "grey" : weights[i] > 0 ? "plus" : "minus";
      const wide = Math.min(7, 0.5 + 1.8 * Math.abs(weights[i])).toFixed(2);
      set(lines[i], { class: tone, opacity: shares[i].toFixed(3), "stroke-width": wide, d: curve(wire) });
    });
    units.forEach((unit) => {
      const [cx, cy] = at(unit);
      set(dots[unit], { cx, cy, opacity: from[unit] && to[unit] ? 1 : half[unit] ? 0.35 : 0.12 });
    });
    svg.classList.toggle("split", Boolean(state.split));
    aim.setAttribute("d", state.aimed === undefined ? "" : curve(wires[state.aimed]));
    if (moving) requestAnimationFrame(paint);
  };
  const show = (next) => {
    state = next;
    if (!moving) requestAnimationFrame(paint);
    moving = true;
  };
  new ResizeObserver(() => {
    width = svg.clientWidth;
    if (state) show(state);
  }).observe(svg);
  const near = ({ clientX, clientY }) => { // the open wire that runs nearest to a pointer, if one is near
    const box = svg.getBoundingClientRect(), best = { away: 30 };
    const left = Math.floor(clientX) - box.left, top = Math.floor(clientY) - box.top; // whole, as a click is
    wires.forEach((wire, i) => {
      const [x0, y0] = at(wire.from), [x1, y1] = at(wire.to);
      if (state?.open[i]) for (let t = 0.06; t < 0.95; t += 0.04) { // points of the curve
        const x = x0 + (x1 - x0) * t * (1.5 - 1.5 * t + t * t), y = y0 + (y1 - y0) * t * t * (3 - 2 * t);
        const away = Math.hypot(x - left, y - top);
        if (away < best.away) Object.assign(best, { i, away });
      }
    });
    return best.i;
  };
  return { svg, set, show, near, goals };
};

pb.errors = (frame, label, x, paint) => {
  const y = { from: 1e-5, to: 10, log: true, ticks: [1e-4, 1e-2, 1], label: "error" };
  return pb.chart(frame.panels, { label, x, y, height: 200, left: 56 }, paint);
};

pb.start("toy", (frame) => {
  const { make, reaching, separated, STEPS, GATED, KEPT, TOTAL } = pb.toy, { brief, number } = pb;
  const state = { seed: 0, guess: "" }, settings = { lambda: 0.1, tau: 1 };
  const names = (inputs) => (inputs.length === 4 ? "all four"
    : new Intl.ListFormat("en-GB").format(inputs.map((i) => `x${i + 1}`)) || "no input");
  const reached = () => [0, 1].map((k) => names(reaching(net.open, k)));
  const two = () => net.fixed && separated(net.open) && !reached().includes("no input");
  let net, history;

  frame.title("One network becomes two");
  const { show } = pb.sketch(frame, "Wires lead from four inputs through twenty units to two outputs");
  const x = { from: 0, to: STEPS, ticks: [0, GATED, STEPS], label: "steps of training", text: number };
  const chart = pb.errors(frame, "Error during training", x, (axes) => {
    axes.curve([[GATED, 1e-5], [GATED, 10]], "soft dashed");
    axes.curve(history, "ink");
  });

  const sentence = () => {
    const { guess } = state, [first, second] = reached(), now = `the error is ${brief(history.at(-1)[1])}`;
    if (!net.steps) return `All ${TOTAL} wires are there, each with a gate. Press Play: weights and gates ` +
      "learn together, and gates that are not worth their price close.";
    if (!net.fixed) return `Gates are learning: about ${number(net.density() * TOTAL)} of ${TOTAL} wires ` +
      `are open, and ${now}. It jumps, since each gate is still a coin that is tossed at every step.`;
    if (net.steps < STEPS) return `The ${KEPT} likeliest wires stay, the others are gone. ` +
      `${two() ? "No path joins the two tasks any more. " : ""}Now the weights are tuned: ${now}.`;
    const paths = `y1 is reached by ${first}, and y2 by ${second}`;
    return (two() ? `Two networks, and nobody asked for two: ${paths}. ${KEPT} of ${TOTAL} wires are left, ` +
      `and ${now}.` : `With λ = ${brief(net.lambda)} and τ = ${brief(net.tau)} it did not fall in two: ` +
      `${paths}. Try other sliders, or a new start.`) +
      (guess && ` You said ${guess}, and that is ${guess === first ? "right" : "wrong"}.`);
  };
  const work = pb.slices(() => {
    net.step();
    if (net.steps % 20 === 0) history.push([net.steps, net.loss]);
    return net.steps < STEPS;
  }, () => paint());
  const button = pb.button(frame.buttons, "Play", () => {
    if (net.steps === STEPS) reset();
    if (work.running) work.stop(); else work.start();
    paint();
  });
  const paint = () => {
    const { weights, logits, fixed } = net, likely = logits.map((logit) => Number(logit > 0));
    const open = fixed ? net.open : likely, share = (i) => (fixed ? net.open[i] : pb.sigmoid(logits[i]) ** 2);
    button.textContent = work.running ? "Pause" : net.steps === STEPS ? "Play again" : "Play";
    show({ weights, share, open, fixed, split: two() });
    chart.repaint();
    frame.say(sentence());
  };
  const reset = () => {
    work.stop();
    net = make(state.seed, settings);
    history = [[0, net.error()]];
    paint();
  };
  pb.button(frame.buttons, "New start", () => { state.seed += 1; reset(); });
  const slider = (name, sign, label, ends) => {
    const text = (value) => `${sign} = ${brief(value)}`;
    const about = { label: `${label}, ${sign}`, ...ends, value: settings[name], text };
    pb.range(frame.controls, about, (value) => {
      settings[name] = net[name] = value;
      if (net.fixed) reset(); // the gates of this run have learned, so the setting is for the next one
    });
  };
  slider("lambda", "λ", "Price of an open gate", { from: 0, to: 0.5, step: 0.01 });
  slider("tau", "τ", "Temperature of the coins", { from: 0.1, to: 5, step: 0.1 });
  const choices = ["x1 and x2", "x3 and x4", "all four"];
  frame.guess("Which inputs will still reach y1 at the end?", choices, (choice) => {
    state.guess = choice;
    paint();
    return `You say ${choice}. At the end of a run you see whether that is right.`;
  });
  reset();
});

pb.start("game", (frame) => {
  const { make, prepare, wires, TOTAL, DENSE, READY } = pb.toy, { brief, number } = pb;
  const TONES = { you: "ink", magnitude: "soft", gates: "green", chance: "soft dashed" };
  const name = (unit) => (unit < 4 ? `x${unit + 1}` : unit < 24 ? `h${unit - 3}` : `y${unit - 23}`);
  const state = { seed: 100 };
  const ready = () => net.steps >= DENSE;
  let net;

  frame.title("Beat the algorithms: cut wires, and keep the error low");
  const { svg, set, show, near, goals } = pb.sketch(frame,
    `Network of ${TOTAL} wires. Arrows choose a wire, Enter cuts it, Backspace takes back`);
  set(svg, { tabindex: 0, role: "application", "data-lm-suppress-shortcuts": "true" });
  svg.before(pb.make(frame.root, "p", { class: "note" }, "You and three algorithms cut wires from the same " +
    "dense network, one by one, and nobody trains it again. Magnitude cuts the smallest weight, chance " +
    "any, and gates, learned on these very weights, the likeliest closed. Grey wires lead nowhere."));
  const x = { from: 0, to: 215, ticks: [0, 40, 80, 120, TOTAL], label: "wires cut" };
  const chart = pb.errors(frame, "Error against the number of wires that are cut", x, (axes) => {
    const cuts = state.cuts.length;
    let last = 0; // names stand at the ends of the curves, none on another
    for (const [player, error] of ranking().reverse()) {
      axes.curve(state.curves[player].slice(0, cuts + 1).map((value, i) => [i, value]), TONES[player]);
      last = Math.max(axes.y(error), last + 16);
      const place = { dx: 9, dy: last - axes.y(error) + 4, class: TONES[player].split(" ")[0] };
      axes.words(cuts, error, player, place);
    }
  });

  const by = (key) => [...wires.keys()].sort((a, b) => key(a) - key(b));
  const smallest = () => by((i) => Math.abs(net.weights[i]));
  const without = (cuts) => wires.map((_, i) => (cuts.includes(i) ? 0 : 1));
  const follow = (cuts) => [0, ...cuts].map((_, count) => net.error(without(cuts.slice(0, count)))); // errors
  const ranking = () => Object.entries(state.curves)
    .map(([player, curve]) => [player, curve[state.cuts.length]]).sort((a, b) => a[1] - b[1]);
  const sentence = () => {
    const { aimed, cuts } = state, count = `${cuts.length} ${cuts.length === 1 ? "cut" : "cuts"}`;
    if (!net.steps) return "Press New game. The network learns for a few seconds; then you cut.";
    if (!ready()) return `The network learns, with all ${TOTAL} wires. The error is ${brief(net.loss)}.`;
    const places = ranking().map(([player, error]) => `${player} ${brief(error)}`).join(", ");
    const result = cuts.length ? `After ${count}, from best to worst: ${places}.` : "Which wire can go? " +
      "Click it, or tap it twice. By keyboard: up and down choose, Enter cuts, Backspace takes back.";
    if (aimed === undefined) return result;
    const { from, to } = wires[aimed], error = net.error(without([...cuts, aimed]));
    return `From ${name(from)} to ${name(to)}, weight ${number(net.weights[aimed], 2)}: cut it, and the ` +
      `error becomes ${brief(error)}. ${result}`;
  };
  const paint = () => {
    const { left, aimed } = state, share = (i) => left[i] * (net.steps ? 1 : 0.3);
    show({ weights: net.weights, share, open: left, fixed: true, still: ready(), aimed });
    chart.repaint();
    frame.say(sentence());
  };
  const change = (aimed, cuts = state.cuts) => {
    if (!ready() || (aimed === state.aimed && cuts === state.cuts)) return;
    if (cuts !== state.cuts) state.curves.you = follow(cuts);
    Object.assign(state, { cuts, aimed, left: without(cuts) });
    paint();
  };
  const cut = (chosen, next) => change(next, [...state.cuts, ...chosen]);
  const undo = () => { if (state.cuts.length) change(state.cuts.at(-1), state.cuts.slice(0, -1)); };

  const work = pb.slices(() => {
    prepare(net);
    return net.steps !== DENSE && net.steps < READY;
  }, () => {
    const lots = wires.map(pb.random(state.seed));
    if (net.steps === READY) state.curves.gates = follow(by((i) => net.logits[i]));
    if (net.steps !== DENSE) return paint();
    state.curves = { you: [], magnitude: follow(smallest()), chance: follow(by((i) => lots[i])) };
    change(undefined, []);
    work.start(); // the reader can begin; gates go on learning
  });
  const deal = () => {
    net = make(state.seed += 1);
    Object.assign(state, { cuts: [], left: without([]), curves: {}, aimed: undefined });
    paint();
  };
  pb.button(frame.buttons, "New game", () => {
    if (net.steps) deal();
    work.start();
  });
  pb.button(frame.buttons, "Undo", undo);
  pb.button(frame.buttons, "Cut ten by magnitude", () => {
    if (ready()) cut(smallest().filter((i) => state.left[i]).slice(0, 10));
  });

  const list = () => by((i) => 9 * wires[i].layer + goals[wires[i].from] + goals[wires[i].to])
    .filter((i) => state.left[i]);
  const beside = (steps) => list()[list().indexOf(state.aimed) + steps];
  const press = () => { if (state.aimed !== undefined) cut([state.aimed], beside(1) ?? beside(-1)); };
  const walk = (steps) => change(beside(steps) ?? state.aimed);
  const keys = { Enter: press, Backspace: undo, ArrowUp: () => walk(-1), ArrowDown: () => walk(1) };
  const touched = (event) => event.pointerType === "touch";
  svg.addEventListener("keydown", (event) => {
    if (!ready() || !keys[event.key]) return;
    event.preventDefault(); // an arrow must not scroll the page
    keys[event.key]();
  });
  svg.addEventListener("pointermove", (event) => { if (!touched(event)) change(near(event)); });
  svg.addEventListener("pointerleave", (event) => { if (!touched(event)) change(); });
  svg.addEventListener("click", (event) => {
    const wire = near(event);
    if (wire !== state.aimed) change(wire); // a first tap: no finger aims beforehand, as a mouse does
    else if (wire !== undefined) cut([wire]);
  });
  deal();
});
