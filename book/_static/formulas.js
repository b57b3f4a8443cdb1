// Four formulas to play with: a threshold on a histogram (chapter on weights), a soft mask and its slope
// (soft masks), a quantile and its tangent (density), and a gate that is a coin (Gumbel-Softmax). First
// comes the mathematics, as pure functions in pb.formulas; the pictures are drawn with the tools of draw.js.
"use strict";
pb.formulas = (() => {
  // How many weights are k %; halves are rounded to the even number, as the package does.
  const exactCount = (k, n) => {
    const exact = (Math.round(k * 1e6) * n) / 1e8, down = Math.floor(exact); // no error for six decimals
    return exact - down === 0.5 ? down + (down % 2) : Math.round(exact);
  };
  // The place of each weight in the order of size, from 0; of equal ones, the first comes first.
  const ranks = (weights) => {
    const order = [...weights.keys()].sort((i, j) => Math.abs(weights[i]) - Math.abs(weights[j]) || i - j);
    const places = new Array(weights.length);
    order.forEach((weight, place) => { places[weight] = place; });
    return places;
  };
  const choose = (k, weights) => // true: pruned
    ranks(weights).map((rank) => rank < exactCount(k, weights.length));

  const softMask = (w, t, tau) => pb.sigmoid(((w - t) * (w + t)) / tau);
  const maskSlope = (w, t, tau) => { // of w m(w)
    const m = softMask(w, t, tau);
    return m + ((2 * w * w) / tau) * m * (1 - m);
  };
  // Between which sizes a weight is undecided: its mask is above 0.1 and below 0.9, odds of 1 : 9 and 9 : 1.
  const undecided = (t, tau) =>
    [-1, 1].map((sign) => Math.sqrt(Math.max(0, t * t + sign * tau * Math.log(9))));

  // The sizes of normal weights: density, the share below t, and the threshold below which the share r lies.
  const density = (t) => Math.sqrt(2 / Math.PI) * Math.exp((-t * t) / 2);
  const shareBelow = (t) => {
    let term = t, sum = 0; // a series of positive terms for the error function: nothing cancels
    for (let n = 1; term > 1e-17 * sum; n += 2) { sum += term; term *= (t * t) / (n + 2); }
    return density(t) * sum;
  };
  const quantile = (r) => {
    let low = 0, high = 9;
    for (let i = 0; i < 60; i += 1) {
      const middle = (low + high) / 2;
      if (shareBelow(middle) < r) low = middle; else high = middle;
    }
    return (low + high) / 2;
  };

  const noise = (u) => Math.log(u / (1 - u));
  const gate = (logit, eps, tau) => {
    const soft = pb.sigmoid((logit + eps) / tau);
    return { soft, hard: logit + eps > 0 ? 1 : 0 }; // as s > 1/2, without its rounding
  };
  const gateSlope = (logit, eps, tau) => {
    const { soft } = gate(logit, eps, tau);
    return (soft * (1 - soft)) / tau;
  };
  const gateDensity = (soft, logit, tau) => { // from the density of the noise behind it, by the chain rule
    const eps = tau * noise(soft) - logit;
    return (pb.sigmoid(eps) * pb.sigmoid(-eps) * tau) / (soft * (1 - soft));
  };

  // What a layer's weights look like after training: most near 0, and a few far out.
  const next = pb.random(5), weights = [];
  while (weights.length < 4000) {
    const weight = (next() < 0.75 ? 0.03 : 0.07) * pb.normal(next);
    if (Math.abs(weight) < 0.195) weights.push(weight);
  }
  const mask = { softMask, maskSlope, undecided }, coin = { noise, gate, gateSlope, gateDensity };
  return { exactCount, ranks, choose, ...mask, density, shareBelow, quantile, ...coin, weights };
})();

pb.start("threshold", (frame) => {
  const { weights, ranks, exactCount } = pb.formulas, n = weights.length, EDGE = 0.2, BIN = 0.005;
  const rank = ranks(weights), sizes = weights.map(Math.abs).sort((a, b) => a - b);
  const bins = weights.map((weight) => Math.floor((weight + EDGE) / BIN));
  const state = { t: 0.04, count: 0, guessed: null, asked: true };
  const share = (count, decimals = count % 40 ? 1 : 0) => pb.percent(count / n, decimals);
  const size = (t) => pb.number(t, 3);
  // Halfway between the last weight that goes and the first that stays.
  const between = (count) => (count === 0 ? 0 : count === n ? EDGE : (sizes[count - 1] + sizes[count]) / 2);

  frame.title("The smallest weights go, whatever their sign");
  const chart = pb.chart(frame.panels, {
    label: "Histogram of 4,000 weights. Those between minus t and t are pruned.", height: 270,
    x: { from: -EDGE, to: EDGE, ticks: [-0.2, -0.1, 0, 0.1, 0.2], label: "weight w" },
    y: { from: 0, to: 280, ticks: [0, 100, 200], label: "number of weights" },
  }, (axes) => {
    const gone = new Array(80).fill(0), kept = new Array(80).fill(0);
    rank.forEach((place, i) => { (place < state.count ? gone : kept)[bins[i]] += 1; });
    const bars = (from, to, low, high) => gone.slice(from, to).map((_, i) => i + from)
      .map((i) => [i * BIN - EDGE, (i + 0.85) * BIN - EDGE, low(i), high(i)]);
    axes.boxes(bars(0, 80, () => 0, (i) => gone[i]), "grey");
    axes.boxes(bars(0, 40, (i) => gone[i], (i) => gone[i] + kept[i]), "minus");
    axes.boxes(bars(40, 80, (i) => gone[i], (i) => gone[i] + kept[i]), "plus");
    const middle = { "text-anchor": "middle" }, line = (w, tone) => axes.curve([[w, 0], [w, 280]], tone);
    for (const sign of [-1, 1]) {
      if (state.guessed !== null) line(sign * state.guessed, "soft dashed");
      line(sign * state.t, "ink");
      axes.dot(sign * state.t, 280, "ink", 8);
    }
    if (state.t > 0.035) axes.words(0, 245, "pruned", middle);
    if (state.t < 0.1) { // further out there is no room beside the threshold
      axes.words(-0.14, 120, "kept, below 0", { ...middle, class: "minus" });
      axes.words(0.14, 120, "kept, above 0", { ...middle, class: "plus" });
    }
    axes.words(Math.min(state.t, 0.155), 280, `t = ${size(state.t)}`, { ...middle, dy: -13, class: "ink" });
  });

  const update = () => {
    const { t, count, asked } = state;
    chart.repaint();
    if (asked) shareRange.set(0, "k = ?"); else shareRange.set((100 * count) / n, `k = ${share(count)}`);
    sizeRange.set(t, `t = ${size(t)}`);
    frame.say(asked
      ? `The threshold is ${size(t)}. It prunes the weights in grey, those between ${size(-t)} and ` +
        `${size(t)}. Are they 90\u00a0% of all?`
      : `At k = ${share(count)}, the ${pb.number(count)} smallest of ${pb.number(n)} weights are pruned: ` +
        `those between ${size(-t)} and ${size(t)}. The other ${pb.number(n - count)} stay as they are.`);
  };
  const byCount = (count) => { Object.assign(state, { count, t: between(count) }); update(); };
  const bySize = (t) => {
    Object.assign(state, { t, count: sizes.filter((other) => other < t).length, moved: true });
    update();
  };
  const shareRange = pb.range(frame.controls, {
    label: "Share that is pruned, k", from: 0, to: 100, step: 0.5, value: 0, text: () => "",
  }, (k) => byCount(exactCount(k, n)));
  const sizeRange = pb.range(frame.controls, {
    label: "Threshold, t", from: 0, to: EDGE, step: 0.001, value: state.t, text: () => "",
  }, bySize);
  shareRange.input.disabled = true;
  chart.drag((w) => bySize(pb.clamp(Math.abs(w), 0, EDGE)));
  frame.guess("Where does the threshold lie that prunes 90\u00a0% of the weights? Drag it there, then look.",
    ["Show the answer"], () => {
      const { t, count, moved } = state, where = size(between(exactCount(90, n)));
      shareRange.input.disabled = state.asked = false;
      if (moved) state.guessed = t;
      byCount(exactCount(90, n));
      const yours = moved ? `Your threshold, ${size(t)}, prunes ${share(count)} (dashed line). ` : "";
      return `${yours}The threshold for 90\u00a0% is ${where}. Most weights crowd around 0, ` +
        "and the few that are large lie far out.";
    });
  bySize(state.t);
  state.moved = false;
});

pb.start("mask", (frame) => {
  const { softMask, maskSlope, undecided } = pb.formulas, MOST = 8;
  const state = { t: 1, tau: 0.3 }, next = pb.random(3);
  const sample = Array.from({ length: 60 }, () => pb.clamp(0.8 * pb.normal(next), -1.95, 1.95));
  const grid = pb.steps(-2, 2, 800), x = { from: -2, to: 2, ticks: [-2, -1, 0, 1, 2], label: "weight w" };
  const heat = (tau) => `τ = ${pb.brief(tau)}`;
  const through = (formula, points = grid) => points.map((w) => [w, formula(w, state.t, state.tau)]);

  frame.title("A soft mask: a step with a slope that training can follow");
  frame.panels.classList.add("three");
  const charts = [
    pb.chart(frame.panels, {
      label: "The mask m against the weight w", x, height: 190,
      y: { from: -0.04, to: 1.04, ticks: [0, 0.5, 1], label: "the mask, m" },
    }, (axes) => {
      const { t } = state, ends = undecided(t, state.tau);
      for (const sign of [-1, 1]) axes.boxes([[sign * ends[0], sign * ends[1], -1, 2]], "line faint");
      axes.curve([[-2, 1], [-t, 1], [-t, 0], [t, 0], [t, 1], [2, 1]], "soft dashed");
      axes.curve(through(softMask), "green");
      for (const [w, m] of through(softMask, sample)) {
        axes.dot(w, m, m <= 0.1 ? "grey" : m < 0.9 ? "ink" : "green", 3.5);
      }
    }),
    pb.chart(frame.panels, {
      label: "The masked weight, m times w, against the weight w", x, height: 190,
      y: { from: -2.2, to: 2.2, ticks: [-2, 0, 2], label: "what gets through, m · w" },
    }, (axes) => {
      axes.curve([[-2, -2], [2, 2]], "soft dashed");
      const product = through(softMask).map(([w, m]) => [w, w * m]);
      axes.curve(product.filter(([w]) => w <= 0), "minus");
      axes.curve(product.filter(([w]) => w >= 0), "plus");
    }),
    pb.chart(frame.panels, {
      label: "The slope of the masked weight against the weight w", x, height: 190,
      y: { from: 0, to: MOST, ticks: [1, 4, 8], label: "its slope: gradient for w" },
    }, (axes) => {
      axes.curve([[-2, 1], [2, 1]], "soft dashed");
      axes.curve(through(maskSlope), "ink");
      const peak = Math.max(...through(maskSlope).map(([, slope]) => slope));
      if (peak > MOST) axes.words(0, 7, `up to ${pb.brief(peak)}`, { "text-anchor": "middle", class: "ink" });
    }),
  ];

  const update = () => {
    const { t, tau } = state, [low, high] = undecided(t, tau).map((size) => pb.number(size, 2));
    const count = through(softMask, sample).filter(([, m]) => m > 0.1 && m < 0.9).length;
    charts.forEach((chart) => chart.repaint());
    frame.say(`Sizes between ${low} and ${high} are undecided: their mask is between 0.1 and 0.9. ` +
      `So are ${count} of the ${sample.length} dots. A weight at the threshold gets through by half, and ` +
      `receives ${pb.brief(maskSlope(t, t, tau))} times its gradient.`);
  };
  pb.range(frame.controls, {
    label: "Temperature, τ", from: 0.03, to: 3, log: true, value: state.tau, text: heat,
  }, (tau) => { state.tau = tau; update(); });
  pb.range(frame.controls, {
    label: "Threshold, t", from: 0.2, to: 1.6, step: 0.05, value: 1, text: (t) => `t = ${pb.number(t, 2)}`,
  }, (t) => { state.t = t; update(); });
  frame.guess("Cool the mask down. What happens to the gradient of a weight that lies at the threshold?",
    ["Shrinks", "Stays", "Grows"], (_, choice) => `${choice === 2 ? "Yes, it" : "It"} grows: ` +
      "at w = t, the slope is 1/2 + t² / 2τ. Drag the temperature down and watch the two peaks. " +
      "What shrinks is the gradient of the weights far below the threshold.");
  update();
});

pb.start("quantile", (frame) => {
  const { density, shareBelow, quantile } = pb.formulas, state = { r: 0.8 }, TOP = 3.2, MORE = 0.02;
  const sizes = pb.steps(0, TOP, 320), percents = [0, 0.25, 0.5, 0.75, 1];
  const step = (r) => quantile(r + MORE) - quantile(r);
  const under = (from, to) => [[from, 0], ...pb.steps(from, to, 100).map((t) => [t, density(t)]), [to, 0]];

  frame.title("Where the weights are crowded, the threshold moves slowly");
  const charts = [
    pb.chart(frame.panels, {
      label: "Density of the sizes of the weights; the share r below the threshold is shaded", height: 250,
      x: { from: 0, to: TOP, ticks: [0, 1, 2, 3], label: "size of a weight, |w|" },
      y: { from: 0, to: 1, ticks: [0, 0.4, 0.8], label: "density, f" },
    }, (axes) => {
      const { r } = state, t = quantile(r), f = density(t);
      axes.area(under(0, t), "grey faint");
      axes.area(under(t, t + step(r)), "green");
      axes.curve(sizes.map((size) => [size, density(size)]), "ink");
      axes.dot(t, f, "ink");
      axes.words(t, f, `f(t) = ${pb.number(f, 2)}`, { dx: 10, dy: -8, class: "ink" });
      if (r >= 0.3) axes.words(t / 2, 0.08, pb.percent(r), { "text-anchor": "middle", class: "bare ink" });
    }),
    pb.chart(frame.panels, {
      label: "Threshold against the share pruned, with its tangent", height: 250,
      x: { from: 0, to: 1, ticks: percents, label: "share that is pruned, r", text: (r) => pb.percent(r) },
      y: { from: 0, to: TOP, ticks: [0, 1, 2, 3], label: "threshold, t(r)" },
    }, (axes) => {
      const { r } = state, t = quantile(r), slope = 1 / density(t);
      const reach = 0.3 / Math.hypot(1, slope / TOP); // a tangent of the same length everywhere
      axes.curve([[r, 0], [r, t], [0, t]], "soft dashed");
      axes.curve(sizes.map((size) => [shareBelow(size), size]), "ink");
      axes.curve([-1, 1].map((sign) => [r + sign * reach, t + sign * reach * slope]), "green");
      axes.dot(r, t, "ink");
      axes.words(0.03, 2.7, `slope 1 / f(t) = ${pb.brief(slope)}`, { class: "green" });
    }),
  ];

  const text = (r) => `r = ${pb.percent(r)}`;
  const update = () => {
    const t = quantile(state.r), size = pb.number(t, 2);
    charts.forEach((chart) => chart.repaint());
    range.set(state.r);
    frame.say(`${pb.percent(state.r)} of the weights, in grey, are smaller than t = ${size}. To pass the ` +
      `next ${pb.percent(MORE)}, in green, the threshold has to move by ${pb.brief(step(state.r))}. The ` +
      `density is ${pb.number(density(t), 2)} here, so the slope is ${pb.brief(1 / density(t))}.`);
  };
  const move = (r) => { state.r = pb.clamp(Math.round(100 * r) / 100, 0.01, 0.97); update(); };
  const range = pb.range(frame.controls,
    { label: "Share that is pruned, r", from: 0.01, to: 0.97, step: 0.01, value: state.r, text }, move);
  charts[0].drag((t) => move(shareBelow(pb.clamp(t, 0, TOP))));
  charts[1].drag(move);
  frame.guess(`You prune ${pb.percent(MORE)} more. From which r does the threshold have to move furthest?`,
    [0.1, 0.5, 0.95].map((r) => pb.percent(r)), (_, choice) => {
      move(0.95);
      return `${choice === 2 ? "Yes, from" : "From"} 95\u00a0%: it moves by ${pb.brief(step(0.95))}, but ` +
        `from 10\u00a0% only by ${pb.brief(step(0.1))}. Large weights are rare, so the threshold has to ` +
        `travel far until it has passed ${pb.percent(MORE)} of them all.`;
    });
  update();
});

pb.start("coin", (frame) => {
  const { noise, gate, gateSlope, gateDensity } = pb.formulas, MOST = 10000, TOP = 5, BINS = 20, STRIP = 50;
  const state = { logit: 0.5, tau: 1, coins: [], next: pb.random(8) };
  const tens = [1, 100, MOST], heat = (tau) => `τ = ${pb.brief(tau)}`;
  const tone = (hard) => (hard ? "green" : "grey");

  frame.title("A gate is a coin: the logit loads it, the temperature does not");
  const charts = [
    pb.chart(frame.panels, {
      label: "Histogram of the soft values of the coins, with their density", height: 270,
      x: { from: 0, to: 1, ticks: [0, 0.5, 1], label: "soft value s: closed below 1/2, open above" },
      y: { from: 0, to: 6.6, ticks: [0, 1, 2, 3, 4, 5], label: "density of the soft values" },
    }, (axes) => {
      const { logit, tau, coins } = state, counts = new Array(BINS).fill(0);
      const soft = coins.map((eps) => gate(logit, eps, tau).soft);
      for (const s of soft) counts[Math.min(BINS - 1, Math.floor(s * BINS))] += 1;
      const bars = counts.map((count, i) =>
        [(i + 0.06) / BINS, (i + 0.94) / BINS, 0, Math.min(TOP, (count * BINS) / Math.max(1, coins.length))]);
      axes.boxes(bars.slice(0, BINS / 2), "grey faint");
      axes.boxes(bars.slice(BINS / 2), "green faint");
      axes.curve([[0.5, 0], [0.5, 6.6]], "soft dashed");
      const grid = pb.steps(0.002, 0.998, 400).map((s) => [s, gateDensity(s, logit, tau)]);
      axes.curve(grid.filter(([, f]) => f <= TOP), "ink");
      [[0, 0.07, "start"], [BINS - 1, 0.93, "end"]].forEach(([i, s, side]) => { // bars that are cut off
        const share = counts[i] / Math.max(1, coins.length);
        if (share * BINS > TOP) axes.words(s, 4.4, `${pb.percent(share)} of all`, { "text-anchor": side });
      });
      soft.slice(-STRIP).forEach((s, i) => axes.dot(s, 5.3 + 0.25 * (i % 5), tone(s > 0.5), 4));
    }),
    pb.chart(frame.panels, {
      label: "Share of the coins that are open, against the number of coins", height: 270, left: 54,
      x: { from: 1, to: MOST, log: true, ticks: tens, label: "coins tossed", text: pb.number },
      y: { from: 0, to: 1, ticks: [0, 0.5, 1], label: "share that is open", text: pb.percent },
    }, (axes) => {
      const { logit, coins } = state, p = pb.sigmoid(logit), points = [];
      let open = 0;
      coins.forEach((eps, i) => { open += gate(logit, eps, 1).hard; points.push([i + 1, open / (i + 1)]); });
      axes.curve([[1, p], [MOST, p]], "ink dashed");
      const few = points.filter(([i]) => i % Math.ceil(i / 200) === 0 || i === coins.length);
      if (few.length) axes.curve(few, "green");
      if (few.length) axes.dot(...few.at(-1), "green");
      const dy = p > 0.85 ? 20 : -9;
      axes.words(MOST, p, `P(open) = ${pb.percent(p)}`, { dy, "text-anchor": "end", class: "ink" });
    }),
  ];

  const update = () => {
    const { logit, tau, coins } = state, count = coins.length, p = pb.percent(pb.sigmoid(logit), 1);
    charts.forEach((chart) => chart.repaint());
    if (!count) {
      frame.say(`No coin has been tossed yet. Each will be open with a probability of ${p}.`);
      return;
    }
    const open = coins.filter((eps) => gate(logit, eps, tau).hard).length, eps = coins.at(-1);
    const { soft, hard } = gate(logit, eps, tau);
    frame.say(`${pb.number(open)} of ${pb.number(count)} coins are open: ${pb.percent(open / count, 1)}. ` +
      `Expected: ${p}, at any temperature. The last coin has logit ${pb.number(logit, 1)} and noise ` +
      `${pb.number(eps, 2)}, so s is ${pb.number(soft, 2)}, and it is ${hard ? "open" : "closed"}. ` +
      `The slope of its logit is ${pb.brief(gateSlope(logit, eps, tau))}.`);
  };
  const toss = (count) => {
    for (let i = 0; i < count && state.coins.length < MOST; i += 1) {
      state.coins.push(noise(pb.clamp(state.next(), 1e-7, 1 - 1e-7)));
    }
    update();
  };
  pb.range(frame.controls, {
    label: "Logit, l", from: -4, to: 4, step: 0.1, value: state.logit, text: (l) => `l = ${pb.number(l, 1)}`,
  }, (logit) => { state.logit = logit; update(); });
  pb.range(frame.controls, {
    label: "Temperature, τ", from: 0.1, to: 3, log: true, value: state.tau, text: heat,
  }, (tau) => { state.tau = tau; update(); });
  pb.button(frame.buttons, "Toss", () => toss(1));
  pb.button(frame.buttons, "Toss 100", () => toss(100));
  pb.button(frame.buttons, "Start again", () => { state.coins = []; update(); });
  frame.guess("Cool the temperature from 1 to 0.1. How many of the coins will be open?",
    ["More", "As many", "Fewer"], (_, choice) => `${choice === 1 ? "Yes, as" : "As"} many as before. ` +
      "Drag the temperature down: the dots move towards 0 and 1, but none of them crosses the middle. " +
      "Only the logit can make a coin change sides.");
  toss(100);
});
