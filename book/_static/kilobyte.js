// A network in a kilobyte. A classic script without libraries. It draws a QR code for the address of the page that
// reads digits, which holds the network in its fragment, and on that page it unpacks the network from there.
const qrCode = (() => {
  // For each version, the bytes of error correction in a block, and the number of blocks, at level L.
  const CHECKS = [7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28, 28, 28, 30, 30, 26, 28,
    30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30];
  const BLOCKS = [1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8, 8, 9, 9, 10, 12, 12, 12, 13, 14, 15, 16,
    17, 18, 19, 19, 20, 21, 22, 24, 25];
  const times = (a, b) => { // in the field of 256 elements
    let product = 0;
    for (let bit = 7; bit >= 0; bit--) product = (product << 1) ^ ((product >> 7) * 285) ^ (((b >> bit) & 1) * a);
    return product;
  };
  const range = (n) => Array.from({ length: n }, (_, i) => i);
  const bits = (value, length) => range(length).map((i) => (value >> (length - 1 - i)) & 1);
  const remainder = (value, length, divisor) => // of a polynomial with coefficients 0 and 1
    range(length).reduce((rest) => (rest << 1) ^ ((rest >> (length - 1)) * divisor), value);

  const checksOf = (data, count) => { // Reed and Solomon: the remainder after division by (x - 1)(x - 2)(x - 4)...
    let root = 1, divisor = [1];
    for (let i = 0; i < count; i++, root = times(root, 2)) {
      divisor = [...divisor, 0].map((c, k) => c ^ (k ? times(divisor[k - 1], root) : 0));
    }
    let rest = new Array(count).fill(0);
    for (const byte of data) {
      const factor = byte ^ rest[0];
      rest = [...rest.slice(1), 0].map((c, k) => c ^ times(divisor[k + 1], factor));
    }
    return rest;
  };
  const centres = (version) => { // of the small squares
    if (version === 1) return [];
    const count = Math.floor(version / 7) + 2, last = 4 * version + 10;
    const step = version === 32 ? 26 : 2 * Math.ceil((4 * version + 4) / (2 * count - 2));
    return [6, ...range(count - 1).map((i) => last - step * i).reverse()];
  };
  const room = (version) => { // bytes of data and of checks together
    const count = Math.floor(version / 7) + 2, small = version > 1 ? (25 * count - 10) * count - 55 : 0;
    return ((16 * version + 128) * version + 64 - small - (version > 6 ? 36 : 0)) >> 3;
  };

  // The data in blocks, each followed by its checks, all blocks interleaved.
  const codewords = (bytes, version) => {
    const blocks = BLOCKS[version - 1], checks = CHECKS[version - 1], all = room(version), data = all - blocks * checks;
    const stream = [0, 1, 0, 0, ...bits(bytes.length, version < 10 ? 8 : 16), ...bytes.flatMap((byte) => bits(byte, 8)), 0, 0, 0, 0];
    const filled = range(data).map((i) => 8 * i < stream.length
      ? range(8).reduce((value, k) => 2 * value + (stream[8 * i + k] ?? 0), 0)
      : (i - Math.ceil(stream.length / 8)) % 2 ? 17 : 236);
    let at = 0;
    const parts = range(blocks).map((i) => filled.slice(at, at += Math.floor(data / blocks) + (i >= blocks - (data % blocks))));
    const sums = parts.map((part) => checksOf(part, checks));
    const woven = (lists) => range(Math.max(...lists.map((list) => list.length)))
      .flatMap((i) => lists.filter((list) => i < list.length).map((list) => list[i]));
    return [...woven(parts), ...woven(sums)];
  };

  // Rows of 0 and 1, with the first of the eight masks.
  return (text) => {
    const bytes = [...new TextEncoder().encode(text)];
    const version = range(40).map((v) => v + 1).find((v) =>
      room(v) - BLOCKS[v - 1] * CHECKS[v - 1] >= bytes.length + (v < 10 ? 2 : 3));
    if (!version) throw new RangeError(`text must have at most 2,953 bytes, not ${bytes.length}`);
    const size = 4 * version + 17, rows = range(size).map(() => new Array(size).fill(null));
    const set = (x, y, dark) => { if (rows[y]?.[x] !== undefined) rows[y][x] = Number(dark); };
    const square = (cx, cy, half, dark) => {
      for (let y = -half; y <= half; y++) for (let x = -half; x <= half; x++) set(cx + x, cy + y, dark(Math.max(Math.abs(x), Math.abs(y))));
    };
    for (let i = 0; i < size; i++) { set(6, i, i % 2 === 0); set(i, 6, i % 2 === 0); }
    for (const [x, y] of [[3, 3], [size - 4, 3], [3, size - 4]]) square(x, y, 4, (far) => far !== 2 && far !== 4);
    const small = centres(version), end = small.at(-1);
    for (const x of small) for (const y of small) {
      if (!((x === 6 && y === 6) || (x === 6 && y === end) || (x === end && y === 6))) square(x, y, 2, (far) => far !== 1);
    }
    const format = bits(((8 << 10) | remainder(8, 10, 0x537)) ^ 0x5412, 15); // level L is 01, the mask 000
    format.reverse().forEach((bit, i) => {
      set(8, i < 6 ? i : i < 8 ? i + 1 : size - 15 + i, bit);
      set(i < 8 ? size - 1 - i : i < 9 ? 7 : 14 - i, 8, bit);
    });
    set(8, size - 8, 1);
    if (version > 6) bits((version << 12) | remainder(version, 12, 0x1f25), 18).reverse().forEach((bit, i) => {
      const a = size - 11 + (i % 3), b = Math.floor(i / 3);
      set(a, b, bit);
      set(b, a, bit);
    });
    const stream = codewords(bytes, version).flatMap((byte) => bits(byte, 8));
    let at = 0;
    for (let right = size - 1; right > 0; right -= 2) {
      if (right === 6) right = 5; // the column of dashes is left out
      const upwards = ((right + 1) & 2) === 0;
      for (let i = 0; i < size; i++) for (const x of [right, right - 1]) {
        const y = upwards ? size - 1 - i : i;
        if (rows[y][x] === null) rows[y][x] = (stream[at++] ?? 0) ^ ((x + y) % 2 === 0);
      }
    }
    return rows;
  };
})();

// The network in the form of book/digits.py, where it is described.
const unpackNetwork = async (text) => {
  const bytes = Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const view = new DataView(await new Response(stream).arrayBuffer());
  let at = 0;
  const byte = () => view.getUint8(at++), signed = () => view.getInt8(at++);
  const scale = () => view.getFloat32((at += 4) - 4, true), list = (n, take) => Array.from({ length: n }, take);
  const depth = byte();
  return list(depth, (_, l) => {
    const units = byte(), scales = [scale(), scale()];
    const counts = list(units, byte), bias = list(units, () => signed() * scales[1]);
    const unit = counts.flatMap((count, i) => list(count, () => i));
    const source = counts.flatMap((count) => {
      let last = -1;
      return list(count, () => {
        for (let gap = 255; gap === 255;) last += gap = byte();
        return (last += 1);
      });
    });
    return { source, unit, weight: list(unit.length, () => signed() * scales[0]), bias, activation: l < depth - 1 ? "ReLU" : "" };
  });
};

for (const place of document.querySelectorAll("a.reads-digits")) { // the link that the code holds
  const page = new URL(place.getAttribute("href"), location.href), link = `${page.href.split("#")[0]}#${kilobyte.network}`;
  const rows = qrCode(link), edge = 4, path = rows.flatMap((row, y) => row.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : "")));
  place.href = link;
  place.insertAdjacentHTML("beforeend", `<svg class="qr" viewBox="${-edge} ${-edge} ${rows.length + 2 * edge}
 ${rows.length + 2 * edge}" role="img" aria-label="QR code with the network in it"><path d="${path.join("")}"/></svg>`);
  const here = "This page is a file on your computer, where no phone can follow. On a server, the code leads to it.";
  if (location.protocol === "file:") place.insertAdjacentHTML("afterend", `<br><small>${here}</small>`);
}

for (const place of document.querySelectorAll(".network-in-link")) {
  const open = async (text) => {
    const layers = await unpackNetwork(text), count = (name) => layers.reduce((sum, layer) => sum + layer[name].length, 0);
    const summary = `${count("weight")} weights and ${count("bias")} biases, from ${text.length.toLocaleString("en")} characters`;
    const root = document.createElement("div"), data = document.createElement("script");
    Object.assign(root, { id: "in-link", className: "one-page" });
    data.type = "application/json";
    data.textContent = JSON.stringify({ layers, summary, classes: [..."0123456789"], examples: kilobyte.examples });
    root.append(data);
    place.replaceChildren(root);
    onePage(root);
  };
  const read = () => {
    const given = location.hash.slice(1);
    open(given.length > 500 ? given : kilobyte.network).catch(() => { // a link that was cut or altered on its way
      open(kilobyte.network).then(() => place.prepend("The network in this link is damaged. This is the one of the book."));
    });
  };
  window.addEventListener("hashchange", read);
  read();
}
