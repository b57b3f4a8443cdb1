// The demonstration of the first page: draw a digit, and take the weights away from the network that reads it. A classic
// script without libraries. It needs pad.js, and first-data.js, which holds the networks (book/tools/demonstration.py).
const firstPage = async (root) => {
  const { sizes, levels, sure, dense, trained, labels, packed } = firstData;
  const FEWEST = 100, DRAWN = 700, STOPS = 1000, SIDE = 28; // below DRAWN weights, every one is drawn as a wire
  const offsets = sizes.slice(1).reduce((list, size, l) => [...list, list[l] + size * sizes[l]], [0]);
  const TOTAL = offsets.at(-1), spell = (n) => n.toLocaleString("en"), { clamp } = drawingPad;

  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new DataView(await new Response(stream).arrayBuffer());
  };
  const layerOf = (index) => offsets.findLastIndex((offset) => index >= offset);

  // A network of wires in the order of their size, largest first, from where each stands in the list of all weights, and
  // what it weighs. Its `from` has, for each layer and each source, the numbers of the wires that leave there.
  const network = (index, weight, bias, places) => {
    const from = bias.map((_, l) => Array.from({ length: sizes[l] }, () => []));
    const layer = Uint8Array.from(index, layerOf), at = (k) => index[k] - offsets[layer[k]];
    const source = Uint16Array.from(layer, (l, k) => at(k) % sizes[l]), unit = Uint16Array.from(layer, (l, k) => at(k) / sizes[l]);
    layer.forEach((l, k) => from[l][source[k]].push(k));
    return { from, bias, layer, source, unit, weight: Float64Array.from(weight), sample: sample(index, places) };
  };

  // The wires that are drawn: all of few; of many a part, so that equal pulls at the slider take equally many away.
  const sample = (wires, places) => {
    const most = DRAWN * (1 + Math.log(Math.max(1, wires.length / DRAWN)));
    return wires.map((_, k) => k).filter((k) => {
      const chance = places ? DRAWN / (k + 1) : most / wires.length;
      return (Math.imul(k + 1, 2654435761) >>> 0) / 2 ** 32 < chance;
    });
  };

  const readAll = (view) => {
    let at = 0;
    const byte = () => view.getInt8(at++);
    const gap = () => { // seven bits in each byte, the lowest first; the eighth says that more follow
      let value = 0;
      for (let shift = 0; ; shift += 7) {
        const next = view.getUint8(at++);
        value += (next & 127) << shift;
        if (next < 128) return value;
      }
    };
    const all = Int8Array.from({ length: TOTAL }, byte), bySize = new Map();
    for (let i = TOTAL - 1; i >= 0; i--) { // of equal ones the last counts as the largest, as in prune_weights
      const size = Math.abs(all[i]) * dense.scales[layerOf(i)];
      if (!bySize.has(size)) bySize.set(size, []);
      bySize.get(size).push(i);
    }
    const order = [...bySize.keys()].sort((a, b) => b - a).flatMap((size) => bySize.get(size));
    const nets = { largest: network(order, order.map((i) => all[i] * dense.scales[layerOf(i)]), dense.bias, true) };
    for (const [way, scales] of Object.entries(trained)) nets[way] = levels.map((count, level) => {
      let last = -1;
      const index = Array.from({ length: count }, () => (last += gap() + 1));
      const weight = index.map((i) => byte() * scales[level].weight[layerOf(i)]);
      const bias = sizes.slice(1).map((size, l) => Array.from({ length: size }, () => byte() * scales[level].bias[l]));
      return network(index, weight, bias, false);
    });
    const image = () => Array.from({ length: SIDE * SIDE }, () => (byte() & 255) / 255);
    return { nets, examples: labels.map(image) };
  };

  // Grey values in, scores out, by the `count` largest weights. A source that is 0 needs no multiplication.
  const evaluate = (net, grey, count = Infinity) => {
    const values = [grey], sums = net.bias.map((bias) => Float64Array.from(bias));
    net.from.forEach((leaving, l) => {
      values[l].forEach((value, source) => {
        if (value !== 0) for (const k of leaving[source]) {
          if (k >= count) break;
          sums[l][net.unit[k]] += net.weight[k] * value;
        }
      });
      values.push(l < sums.length - 1 ? sums[l].map((x) => Math.max(0, x)) : sums[l]);
    });
    const scores = values.at(-1), top = Math.max(...scores), powers = scores.map((x) => Math.exp(x - top));
    const all = powers.reduce((a, b) => a + b);
    return { values, sums, scores, chances: Array.from(powers, (x) => x / all), best: scores.indexOf(top) };
  };

  // The answers as the largest weights go one by one, the smallest first: a list of [count, answer], a new entry where
  // the answer changes. What one weight changes is carried through the network. Yields now and then, to let others work.
  const trace = function* (net, grey) {
    const { values, sums, scores, best } = evaluate(net, grey), found = [[TOTAL, best]];
    const carry = (l, unit, count) => {
      if (sums[l] === scores) return;
      const value = Math.max(0, sums[l][unit]), change = value - values[l + 1][unit];
      if (change === 0) return;
      values[l + 1][unit] = value;
      for (const k of net.from[l + 1][unit]) {
        if (k >= count) break;
        sums[l + 1][net.unit[k]] += net.weight[k] * change;
        carry(l + 1, net.unit[k], count);
      }
    };
    for (let count = TOTAL - 1; count >= FEWEST; count--) {
      const layer = net.layer[count], unit = net.unit[count], value = values[layer][net.source[count]];
      if (value !== 0) {
        sums[layer][unit] -= net.weight[count] * value;
        carry(layer, unit, count);
        let answer = 0;
        for (let i = 1; i < scores.length; i++) if (scores[i] > scores[answer]) answer = i;
        if (answer !== found.at(-1)[1]) found.push([count, answer]);
      }
      if (count % 512 === 0) yield found;
    }
    return found;
  };

  const ways = {
    largest: "the largest, nothing trained again",
    exchange: "the largest, some exchanged, trained on",
    lot: "some drawn by lot, trained on",
  };
  const { nets, examples } = readAll(await unpack(packed)); // where this fails, the text of the page stays
  root.innerHTML = `<svg class="pad" role="application" aria-label="Drawing pad" aria-describedby="first-keys"></svg>
<div class="said"><p class="whole"><b></b><span></span></p><p class="now"><b></b><span></span></p>
<button type="button" class="clear">Clear</button><button type="button" class="next">Test image</button></div>
<canvas role="img"></canvas><ol class="chances" aria-hidden="true">${[..."0123456789"].map((digit) =>
  `<li data-digit="${digit}"><i class="whole"></i><i class="now"></i></li>`).join("")}</ol>
<label class="how-many">Weights left: <output></output><input type="range" min="0" aria-label="Weights left" data-lm-suppress-shortcuts="true"></label>
<canvas class="story" aria-hidden="true"></canvas><p class="survives"></p>
<fieldset><legend>Which weights stay?</legend>${Object.entries(ways).map(([way, text]) => `<label><input type="radio"
 name="first-way" value="${way}" data-lm-suppress-shortcuts="true"> ${text}</label>`).join("")}</fieldset>
<p class="keys" id="first-keys">Draw with mouse or finger. By keyboard: arrow keys move the pen, Space puts it down or
lifts it, Delete clears, and the key of a digit shows a test image of it. In the picture, each wire is a weight; of many,
only some are drawn. What it passes on is <i class="plus">above 0</i> or <i class="minus">below 0</i>; a grey one passes on
nothing. Bars: how sure the <i class="whole">whole</i> network is, and how sure <i class="now">what is left</i> of it.</p>
<p class="more"><button type="button" class="link">Link to this</button> <span role="status"></span></p>
<p class="aloud" aria-live="polite"></p>`;
  const find = (name) => root.querySelector(name), sketch = find("canvas"), slider = find("[type=range]");
  let way = "largest", stop = 0, grey = examples[0], strokes = null, shown = 0, lowest = TOTAL;
  let whole, now, story = null, colours, waiting, spoken, frame;

  // The slider: any count of the largest weights, in equal factors; else all, then the counts of the trained networks.
  const stops = () => (way === "largest" ? STOPS : levels.length);
  const countAt = (s) => (way !== "largest" ? [TOTAL, ...levels][s] : Math.round(TOTAL * (FEWEST / TOTAL) ** (s / STOPS)));
  const stopOf = (count) => {
    const near = (s) => Math.abs(Math.log(countAt(s) / count));
    return Array.from({ length: stops() + 1 }, (_, s) => s).reduce((a, b) => (near(b) < near(a) ? b : a));
  };
  const chosen = (s = stop) => (way === "largest" || s === 0 ? [nets.largest, countAt(s)] : [nets[way][s - 1], Infinity]);

  const paintWires = () => {
    const ratio = window.devicePixelRatio || 1, wide = sketch.clientWidth, high = sketch.clientHeight;
    [sketch.width, sketch.height] = [wide * ratio, high * ratio];
    const pen = sketch.getContext("2d"), [net, count] = chosen(), size = Math.min(high, 0.46 * wide), cell = size / SIDE;
    pen.scale(ratio, ratio);
    const top = (high - size) / 2;
    pen.fillStyle = colours.fill;
    pen.fillRect(0, top, size, size);
    for (let i = 0; i < grey.length; i++) { // pixels that a weight reads stand out, with what is drawn on them
      const read = net.from[0][i][0] < count;
      const paint = (colour, alpha) => {
        [pen.fillStyle, pen.globalAlpha] = [colour, alpha];
        pen.fillRect((i % SIDE) * cell, top + Math.floor(i / SIDE) * cell, cell + 0.3, cell + 0.3);
      };
      if (read) paint(colours.paper, 1);
      if (grey[i]) paint(colours.ink, (read ? 0.85 : 0.15) * grey[i]);
    }
    pen.globalAlpha = 1;
    const columns = [0, 0.66, 0.86, 1].map((share) => share * (wide - 6));
    const at = (layer, i) => (layer ? [columns[layer], ((i + 0.5) * high) / sizes[layer]]
      : [((i % SIDE) + 0.5) * cell, top + (Math.floor(i / SIDE) + 0.5) * cell]);
    // Wires in five kinds, each drawn in one go: those that carry nothing, and little or much on either side of 0.
    const kinds = [[], [], [], [], []], left = Math.min(count, net.weight.length);
    const peaks = net.bias.map((_, l) => (l ? 6 : 2.5) / Math.sqrt(1 + Math.log10(left / 100)));
    for (const k of net.sample) {
      if (k >= count) break;
      const layer = net.layer[k], source = net.source[k];
      const flow = (net.weight[k] * now.values[layer][source]) / peaks[layer];
      const kind = flow === 0 ? 0 : (flow > 0 ? 1 : 3) + (Math.abs(flow) > 0.25 ? 1 : 0);
      kinds[kind].push(at(layer, source), at(layer + 1, net.unit[k]));
    }
    const few = clamp(Math.log(2e4 / left) / 4);
    kinds.forEach((points, kind) => {
      pen.globalAlpha = kind === 0 ? 0.35 + 0.3 * few : kind % 2 ? 0.35 + 0.4 * few : 0.6 + 0.4 * few;
      pen.lineWidth = kind === 0 ? 0.4 + 0.3 * few : (kind % 2 ? 0.5 : 0.9) * (1 + few);
      pen.strokeStyle = [colours.line, colours.plus, colours.plus, colours.minus, colours.minus][kind];
      pen.beginPath();
      for (let k = 0; k < points.length; k += 2) { pen.moveTo(...points[k]); pen.lineTo(...points[k + 1]); }
      pen.stroke();
    });
    pen.globalAlpha = 1;
    for (let layer = 1; layer < sizes.length; layer++) for (let i = 0; i < sizes[layer]; i++) {
      const value = layer === 3 ? now.chances[i] : now.values[layer][i];
      pen.fillStyle = value > 0 ? colours.ink : colours.line;
      pen.fillRect(at(layer, i)[0] - 1.5, at(layer, i)[1] - 0.5, 3, layer === 3 ? 3 : 1.2);
    }
    sketch.setAttribute("aria-label", `The network with ${spell(left)} of its ${spell(TOTAL)} weights, drawn as wires`);
  };

  const percent = (chance) => (chance > 0.99 ? "> 99" : Math.round(100 * chance)) + "\u00a0%";
  const blank = () => grey.every((value) => value === 0), isSure = () => Math.max(...whole.chances) >= sure;
  // The smallest count at which the answer of the whole network still holds, at every larger count too.
  const survives = () => {
    const fails = story.findIndex(([, answer]) => answer !== whole.best);
    if (fails < 0) return FEWEST;
    return way === "largest" ? story[fails][0] + 1 : story[fails - 1][0];
  };
  const failed = () => story && lowest <= Math.max(survives() - 1, FEWEST); // told once the reader has seen it
  const verdict = () => {
    const digit = `${strokes ? "Your" : "This"} ${whole.best}`;
    if (blank()) return "Draw a digit, or take a test image.";
    if (!isSure()) return "The network is not sure that this is a digit. In training it was shown scribbles too, so that it can say so.";
    if (lowest === TOTAL) return `Guess: how few weights are enough to read ${digit.toLowerCase()}? Then drag the slider.`;
    if (!failed()) return now.best === whole.best ? `Still ${whole.best === 8 ? "an" : "a"} ${whole.best}. Drag on.` : "…";
    const last = survives();
    const fewest = last === FEWEST ? "even with 100 weights" : `down to ${spell(last)} weights`;
    return last === TOTAL ? `${digit} needs all the weights: the first network with fewer fails.` : `${digit} survives ${fewest}.`;
  };
  const paintStory = () => {
    const strip = find(".story"), pen = strip.getContext("2d");
    [strip.width, strip.height] = [strip.clientWidth, 1];
    if (!story || !failed() || blank() || !isSure()) return;
    for (let x = 0; x < strip.width; x++) {
      const count = countAt(Math.round((x / strip.width) * stops()));
      const [, answer] = story.findLast(([from]) => from >= count);
      pen.fillStyle = answer === whole.best ? colours.green : colours.plus;
      pen.fillRect(x, 0, 1, 1);
    }
  };
  const tell = () => {
    const doubt = blank() ? "" : "?", count = countAt(stop), spare = `${((100 * count) / TOTAL).toPrecision(2)}\u00a0%`;
    const show = (name, { best, chances }, text) => {
      find(`${name} b`).textContent = blank() || !isSure() ? doubt : best;
      const said = isSure() ? `${percent(chances[best])} sure` : `not sure: ${best}, ${percent(chances[best])}`;
      find(`${name} span`).innerHTML = `${text}<br>${blank() ? "" : said}`;
      root.querySelectorAll(`.chances ${name}`).forEach((bar, i) => bar.style.setProperty("--share", blank() ? 0 : chances[i]));
    };
    show(".whole", whole, "all its weights");
    show(".now", now, `${spell(count)} weights`);
    find(".now").classList.toggle("wrong", !blank() && isSure() && now.best !== whole.best);
    find("output").textContent = stop ? `${spell(count)} of ${spell(TOTAL)}, or ${spare}` : `all ${spell(TOTAL)}`;
    slider.setAttribute("aria-valuetext", `${spell(count)} of ${spell(TOTAL)} weights`);
    const labelled = shown >= 0 && strokes === null ? ` (A test image, labelled ${labels[shown]}.)` : "";
    find(".survives").textContent = verdict() + labelled;
    paintStory();
    clearTimeout(spoken); // spoken once the hand rests
    spoken = setTimeout(() => {
      const again = story && count < survives() && now.best === whole.best;
      const reads = !blank() && isSure() ? `With ${spell(count)} weights the network reads ${now.best}${again ? " again" : ""}. ` : "";
      find(".aloud").textContent = reads + verdict();
    }, 600);
  };
  const update = () => {
    const [net, count] = chosen();
    now = evaluate(net, grey, count);
    find(".more span").textContent = ""; // what was copied is no longer what is seen
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => { paintWires(); tell(); });
  };

  // What each count answers is computed while the hand rests, a few milliseconds at a time.
  const follow = () => {
    clearTimeout(waiting);
    story = null;
    if (way !== "largest") {
      story = [[TOTAL, whole.best], ...levels.map((count, i) => [count, evaluate(nets[way][i], grey).best])];
      return;
    }
    const steps = trace(nets.largest, grey);
    const work = () => {
      const until = performance.now() + 6;
      for (let step = steps.next(); ; step = steps.next()) {
        if (step.done) { story = step.value; tell(); return; }
        if (performance.now() > until) break;
      }
      waiting = setTimeout(work, 0);
    };
    waiting = setTimeout(work, 150);
  };
  const see = (image) => {
    lowest = countAt(stop);
    grey = image;
    whole = evaluate(nets.largest, grey);
    follow();
    update();
  };
  const slide = (s) => { slider.max = stops(); slider.value = stop = s; lowest = Math.min(lowest, countAt(s)); update(); };
  const choose = (name) => {
    const count = countAt(stop);
    way = name;
    find(`[value=${way}]`).checked = true;
    lowest = TOTAL;
    slide(stopOf(count));
    follow();
  };
  const pad = drawingPad(find(".pad"), (image, drawn) => { [strokes, shown] = [drawn, -1]; see(image); }, (key) => {
    const i = labels.indexOf(Number(key));
    if (key.trim() === "" || i < 0) return false;
    example(i);
    return true;
  });
  const example = (i) => { pad.show(examples[i]); [strokes, shown] = [null, i]; see(examples[i]); };

  // A link holds all that can be seen: the count, the way, and the drawing, two characters for each coordinate.
  const link = () => {
    const state = { by: way, n: countAt(stop) };
    const write = (x) => Math.round(45 * x).toString(36).padStart(2, "0");
    if (strokes) state.d = strokes.map((stroke) => stroke.flat().map(write).join("")).join("-");
    else state.t = shown;
    return "#" + new URLSearchParams(state);
  };
  const restore = (text) => {
    const state = new URLSearchParams(text.slice(1)), by = state.get("by"), n = Number(state.get("n")), d = state.get("d");
    if (!Object.hasOwn(ways, by) || !(n >= FEWEST && n <= TOTAL)) return false;
    const read = (four) => [four.slice(0, 2), four.slice(2)].map((two) => Math.min(SIDE, parseInt(two, 36) / 45));
    if (d === null) example(examples[Number(state.get("t"))] ? Number(state.get("t")) : 0);
    else if (/[^\da-z-]/.test(d)) return false;
    else pad.set(d.split("-").filter((part) => part.length > 3).map((part) => part.match(/.{4}/g).map(read)));
    choose(by);
    slide(stopOf(n));
    return true;
  };

  slider.addEventListener("input", () => slide(Number(slider.value)));
  find("fieldset").addEventListener("change", (event) => choose(event.target.value));
  find(".clear").addEventListener("click", pad.clear);
  find(".next").addEventListener("click", () => example((shown + 1) % examples.length));
  find(".link").addEventListener("click", async () => {
    history.replaceState(null, "", link());
    const copied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
    find(".more span").textContent = copied ? "Copied." : "The address of this page is the link now.";
  });
  window.addEventListener("hashchange", () => restore(location.hash));
  const dress = () => {
    const style = getComputedStyle(root), names = ["ink", "paper", "line", "fill", "plus", "minus", "green"];
    colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--pb-${name}`)]));
    if (now) update();
  };
  new MutationObserver(dress).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  new ResizeObserver(() => { if (now) update(); }).observe(root);
  dress();
  root.setAttribute("data-ready", "");
  if (!restore(location.hash)) { example(0); choose("largest"); }
  root.firstPage = { ...drawingPad, nets, examples, evaluate, trace, see, read: () => ({ whole, now, story, stop, way }) };
};
document.querySelectorAll(".first-page:not([data-ready])").forEach(firstPage);
