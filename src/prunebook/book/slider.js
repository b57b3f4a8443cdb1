// A slider over stored pictures of a figure, as FrameSlider of the package prunebook writes it into a page. The
// data stand in the page as JSON. The first picture is stored whole. Of each other one only the part that differs
// is stored; the rest is clear, and the first picture shows through it.
{
  const WEBP = "data:image/webp;base64,";
  const SMALLEST = 0.6; // if the figure would be shown smaller than this, its panels go one below the other

  const startSlider = (root) => {
    root.dataset.ready = "";
    const find = (selector) => root.querySelector(selector);
    const { stops, readouts, below, frames, first, panels } = JSON.parse(find("script[type]").textContent);
    const [knob, output, image, said, more] = ["input", "output", "img", "p", ".below"].map(find);
    const whole = image.src, [width, height] = ["width", "height"].map((side) => Number(image.getAttribute(side)));
    const pictures = [image]; // one, or one for each panel

    // Let an image show the figure from one share of its width to another, and the first picture behind it.
    const crop = (picture, from, to) => {
      const share = to - from, place = `${share < 1 ? (100 * from) / (1 - share) : 0}% 0`;
      Object.assign(picture.style, {
        width: share < 1 ? "100%" : `${width}px`,
        aspectRatio: (share * width) / height,
        objectFit: "cover",
        objectPosition: place,
        backgroundImage: `url(${whole})`,
        backgroundPosition: place,
        backgroundSize: `${100 / share}% 100%`,
      });
    };

    // On a phone every panel becomes as wide as the screen.
    const arrange = () => {
      if (!root.clientWidth) return; // it is not shown now
      const edges = root.clientWidth < SMALLEST * width ? panels : [0, 1];
      while (pictures.length >= edges.length) pictures.pop().remove();
      while (pictures.length < edges.length - 1) {
        const copy = image.cloneNode();
        copy.alt = ""; // the text of the first one speaks for all
        pictures.at(-1).after(copy);
        pictures.push(copy);
      }
      pictures.forEach((picture, i) => crop(picture, edges[i], edges[i + 1]));
    };

    const show = () => {
      let place = 0;
      for (const choice of root.querySelectorAll("fieldset")) {
        const options = [...choice.querySelectorAll("input")];
        place = place * options.length + options.findIndex((option) => option.checked);
      }
      const stop = Number(knob.value), i = place * stops.length + stop;
      for (const picture of pictures) picture.src = i === first ? whole : WEBP + frames[i];
      image.alt = said.textContent = readouts[i];
      more.innerHTML = below[i] ?? "";
      output.value = stops[stop];
      knob.setAttribute("aria-valuetext", `${stops[stop]}: ${readouts[i]}`);
    };

    for (const control of root.querySelectorAll("input")) {
      control.disabled = false;
      control.addEventListener("input", show);
    }
    arrange();
    show();
    new ResizeObserver(arrange).observe(root);
  };

  document.querySelectorAll(".frame-slider:not([data-ready])").forEach(startSlider);
}
