// A pad to draw a digit on, by mouse, finger or keyboard. A classic script without libraries: drawingPad(svg, ...)
// turns an <svg> into a pad, and hands every drawing on as an image of 28 x 28 grey values, as MNIST has them.
const drawingPad = (() => {
  const SIDE = 28, BOX = 20, CORE = 0.5, EDGE = 1.8; // a stroke is full up to CORE pixels, gone at EDGE
  const clamp = (x) => Math.min(1, Math.max(0, x)), sum = (list) => list.reduce((a, b) => a + b, 0);
  const column = (i) => i % SIDE, row = (i) => Math.floor(i / SIDE);

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

  const make = (parent, tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return parent.appendChild(element);
  };
  const pixel = (parent, name, i, side) => make(parent, "rect",
    { class: name, x: column(i) + (1 - side) / 2, y: row(i) + (1 - side) / 2, width: side, height: side });

  // `drawn(grey, strokes)` is called after every change by the reader; `key(name)` for every other key, and says
  // whether it took it. The pad returned can be cleared, be given strokes, or show an image.
  const pad = (svg, drawn, key) => {
    svg.setAttribute("viewBox", `0 0 ${SIDE} ${SIDE}`);
    svg.setAttribute("tabindex", 0);
    svg.dataset.lmSuppressShortcuts = "true"; // JupyterLab leaves the keys to the pad
    const ink = make(svg, "g", { class: "drawn" }), pen = make(svg, "circle", { class: "pen", r: 1.1 });
    let strokes = [], cursor = [14, 6], pointer = null;
    const redraw = () => {
      ink.replaceChildren();
      for (const stroke of strokes) make(ink, "polyline", { points: [...stroke, stroke.at(-1)].join(" ") });
      drawn(normalise(strokes), strokes);
    };
    const lift = () => pen.classList.remove("down"), begin = (point) => { strokes.push([point]); redraw(); };
    const set = (given) => { [strokes, pointer] = [given, null]; lift(); redraw(); }; // a stroke that is being drawn ends
    const clear = () => set([]);
    const show = (grey) => {
      clear();
      grey.forEach((value, i) => value && pixel(ink, "ink", i, 1.02).style.setProperty("--share", value));
    };

    const place = (event) => {
      const box = svg.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top].map((value) => SIDE * clamp(value / box.width));
    };
    svg.addEventListener("pointerdown", (event) => {
      if (pointer !== null || event.button) return;
      svg.setPointerCapture(pointer = event.pointerId);
      lift();
      begin(place(event));
    });
    svg.addEventListener("pointermove", (event) => {
      if (event.pointerId !== pointer) return;
      strokes.at(-1).push(...(event.getCoalescedEvents?.() ?? [event]).map(place));
      redraw();
    });
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, (event) => {
      if (event.pointerId === pointer) pointer = null;
    });

    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const point = () => ["cx", "cy"].forEach((name, axis) => pen.setAttribute(name, cursor[axis]));
    svg.addEventListener("blur", lift);
    svg.addEventListener("keydown", (event) => {
      const down = pen.classList.contains("down");
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (steps[event.key]) {
        cursor = cursor.map((value, axis) => SIDE * clamp((value + steps[event.key][axis]) / SIDE));
        if (down) { strokes.at(-1).push(cursor); redraw(); }
      } else if (event.key === " " || event.key === "Enter") {
        if (down) lift(); else { begin(cursor); pen.classList.add("down"); }
      } else if (event.key === "Delete" || event.key === "Backspace") clear();
      else if (!key(event.key)) return;
      point();
      event.preventDefault();
      event.stopPropagation(); // the theme and the notebook use these keys too
    });
    point();
    return { clear, set, show };
  };
  return Object.assign(pad, { paint, normalise, make, pixel, clamp });
})();
