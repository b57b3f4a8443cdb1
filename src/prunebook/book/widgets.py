"""Sliders in two forms: ipywidgets where a kernel runs, plain HTML with stored frames in a page.

No other file imports ipywidgets. A slider wraps a function that draws a frame and can be tested on its own.

Chapter: book/dense.ipynb
"""

import base64
import hashlib
import html
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import ipywidgets
import numpy as np
import torch
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL.Image import fromarray, new

from prunebook.checks import require_whole

LIVE = "application/vnd.jupyter.widget-view+json"
# For every HTML input: JupyterLab leaves the arrow keys to it; after a reload it fits the picture shown; it
# is greyed out until the script runs, which never happens in a notebook that is not trusted.
CONTROL = 'data-lm-suppress-shortcuts="true" autocomplete="off" disabled'
# A live picture has no background: it takes that of the notebook. In a dark one, dark and light are swapped.
DARK = ('[data-jp-theme-light="false"]', "body.vscode-dark", 'html[theme="dark"]')
THEME = "<style>{} {{ filter: invert(1) hue-rotate(180deg); }}</style>".format(
    ", ".join(f"{notebook} .prunebook-live img" for notebook in DARK)
)


def encode(figure: Figure, live: bool = False) -> bytes:
    """Return a figure as a WebP image, which every browser can show: on white, or live without a background.

    The first is small, the second is quick. If artists of the figure are marked as moving (`plots.style`),
    everything else is drawn the first time only.
    """
    moving = [artist for ax in figure.axes for artist in ax.get_children() if artist.get_animated()]
    canvas, background = vars(figure).get("_axes_drawn", (None, None))
    if not moving or canvas is None:
        for patch in (figure.patch, *(ax.patch for ax in figure.axes)):
            patch.set_alpha(0)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        background = canvas.copy_from_bbox(figure.bbox)
        vars(figure)["_axes_drawn"] = canvas, background
    canvas.restore_region(background)
    for artist in moving:
        figure.draw_artist(artist)
    buffer = io.BytesIO()
    image = fromarray(np.asarray(canvas.buffer_rgba()))
    if live:
        image.save(buffer, "webp", lossless=True, method=0)
    else:
        white = new("RGBA", image.size, "white")
        white.alpha_composite(image)
        white.convert("RGB").save(buffer, "webp", quality=85, method=4)
    return buffer.getvalue()


@contextmanager
def _one_core_left() -> Iterator[None]:
    """Leave a core to the browser: threads that wait for one without a core take ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, min(threads, (os.cpu_count() or 2) - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class FrameSlider:
    """A figure that changes with a slider and, if wanted, with some choices beside it.

    It shows itself as the last value of a cell. Where a kernel runs, it is an ipywidgets slider over all of
    `span`, and each of its pictures is drawn when you move it. In a rendered page it is an HTML range input
    over the pictures at `stops`, which were drawn when the cell ran; the same appears in a notebook that was
    saved and opened again. Where no scripts run, on GitHub or in a notebook that is not trusted, it is greyed
    out and shows its first picture. An error in `draw` at a stop shows up when the cell runs, and any
    other beside the slider.

    Args:
        draw: Takes a value, and a keyword argument for each choice. It returns the figure and a readout: a
            sentence that says what the figure shows, also for screen readers. It may return the same figure
            each time, with other data in it, and a third value: HTML that is shown below.
        stops: The values of the slider in a page, at least one.
        label: What the slider sets, such as "k in %".
        start: Index of the stop shown at the start.
        span: Lowest value, highest value and step of the live slider. None means that it has the stops, too.
        log: Make the live slider logarithmic; its step is then in powers of ten.
        choices: Further settings by name, each with its options; the first option is the default.
        on_release: Draw when the live slider is let go, not while it moves; for what takes a while.

    Raises:
        ValueError: There are no stops, `start` is not the index of one, a stop lies outside `span`, the step
            of `span` or the lowest value of a logarithmic one is not above 0, or a choice has no options.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[Figure, str] | tuple[Figure, str, str]],
        stops: Sequence[Any],
        *,
        label: str,
        start: int = 0,
        span: tuple[float, float, float] | None = None,
        log: bool = False,
        choices: Mapping[str, Sequence[str]] | None = None,
        on_release: bool = False,
    ) -> None:
        if not stops:
            raise ValueError("stops is empty; a slider needs at least one")
        self.draw, self.stops, self.label = draw, list(stops), label
        self.start = require_whole("start", start, 0, len(stops) - 1)
        self.choices = {name: list(options) for name, options in (choices or {}).items()}
        if not all(self.choices.values()):
            raise ValueError(f"choices must have at least one option each, not {self.choices}")
        if span is not None:
            low, high, step = span
            if not (step > 0 and low <= min(stops) <= max(stops) <= high and (low > 0 or not log)):
                raise ValueError(
                    f"span must be (low, high, step) around all stops, with a step above 0, not {span}"
                )
        self.span, self.log, self.on_release = span, log, on_release
        self.frames, self.readouts, self.below = [], [], []
        for chosen in product(*self.choices.values()):
            for stop in self.stops:
                with _one_core_left():
                    figure, readout, *below = draw(stop, **dict(zip(self.choices, chosen, strict=True)))
                self.frames.append(encode(figure))
                self.readouts.append(readout)
                self.below.append("".join(below))

    def __repr__(self) -> str:
        """Return the settings, which are the same on every machine."""
        settings = {self.label: self.stops, **self.choices}
        lists = (f"{name}: {', '.join(map(str, options))}" for name, options in settings.items())
        return f"FrameSlider({'; '.join(lists)})"

    def index(self, stop: int, chosen: Sequence[int] = ()) -> int:
        """Return the index of a frame, given the index of its stop and of the option of each choice."""
        place = 0
        for options, option in zip(self.choices.values(), chosen, strict=True):
            place = place * len(options) + option
        return place * len(self.stops) + stop

    def live(self) -> ipywidgets.VBox:
        """Return the slider as ipywidgets: control, choices, picture, readout, and a place for an error."""
        knob = self._knob()
        buttons = {
            name: ipywidgets.ToggleButtons(options=options, description=name)
            for name, options in self.choices.items()
        }
        fitting = {"max_width": "100%", "object_fit": "contain", "align_self": "flex-start"}
        picture = ipywidgets.Image(format="webp", layout=fitting)
        readout, trouble, more = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()

        def show(change: object = None) -> None:
            # as a reader sees it, not what steps add up to: 93.69999999999999
            value = float(f"{knob.value:.{3 if self.log else 6}g}") if self.span else knob.value
            try:
                chosen = {name: button.value for name, button in buttons.items()}
                with _one_core_left():
                    figure, text, *below = self.draw(value, **chosen)
                picture.value, readout.value, trouble.value = encode(figure, live=True), html.escape(text), ""
                more.value = "".join(below)
            except Exception as error:
                said = html.escape(f"{type(error).__name__}: {error}")
                trouble.value = f'<p role="alert"><b>This picture could not be drawn.</b> {said}</p>'
                raise

        for control in (knob, *buttons.values()):
            control.observe(show, names="value")
        show()
        box = ipywidgets.VBox(
            [knob, *buttons.values(), picture, readout, trouble, more, ipywidgets.HTML(THEME)]
        )
        for name in ("prunebook-live", self._name("live")):
            box.add_class(name)
        return box

    def _knob(self) -> Any:
        looks = {
            "description": self.label,
            "style": {"description_width": "initial"},
            "layout": {"width": "min(100%, 40em)"},
            "continuous_update": not self.on_release,
        }
        value = self.stops[self.start]
        if self.span is None:
            options = [(str(stop), stop) for stop in self.stops]
            return ipywidgets.SelectionSlider(options=options, value=value, **looks)
        low, high, step = self.span
        if self.log:
            ends = {"min": math.log10(low), "max": math.log10(high)}
            return ipywidgets.FloatLogSlider(value=value, step=step, readout_format=".3g", **ends, **looks)
        shown = f".{len(f'{step:g}'.partition('.')[2])}f"
        return ipywidgets.FloatSlider(
            value=value, min=low, max=high, step=step, readout_format=shown, **looks
        )

    def _name(self, kind: str) -> str:
        shown = "\0".join([self.label, *self.readouts, *self.below]).encode() + b"".join(self.frames)
        return f"{kind}-{hashlib.sha256(shown).hexdigest()[:12]}"

    def page(self) -> str:
        """Return the slider as HTML that needs no kernel, no library and no network."""
        name = self._name("frames")
        label, stop, readout = (
            html.escape(str(text)) for text in (self.label, self.stops[self.start], self.readouts[self.start])
        )
        sources = [f"data:image/webp;base64,{base64.b64encode(frame).decode()}" for frame in self.frames]
        first, sources[self.start] = sources[self.start], ""  # the script takes it from the picture
        # "<" could end the script element
        told = [sources, [str(stop) for stop in self.stops], self.readouts, self.below]
        stored = json.dumps(told).replace("<", "\\u003c")
        return f"""<div id="{name}" class="frame-slider" role="group" aria-label="{label}">
<style>{self._either()}</style>
<label>{label} <input type="range" min="0" max="{len(self.stops) - 1}" step="1" value="{self.start}"
 aria-valuetext="{stop}" {CONTROL}
 style="width:min(100% - 7em,26em);vertical-align:middle"></label> <output>{stop}</output>
{"".join(self._radios(name))}<img src="{first}" alt="{readout}" style="max-width:100%">
<p aria-hidden="true">{readout}</p><div>{self.below[self.start]}</div>
<script>(() => {{
const root = document.currentScript.parentElement, [frames, stops, readouts, below] = {stored};
const [input, output, image, text, more] =
  ["input", "output", "img", "p", "div"].map((tag) => root.querySelector(tag));
frames[{self.start}] = image.src;
const show = () => {{
  let place = 0;
  for (const set of root.querySelectorAll("fieldset")) {{
    const options = [...set.querySelectorAll("input")];
    place = place * options.length + options.findIndex((option) => option.checked);
  }}
  const stop = Number(input.value), i = place * stops.length + stop;
  image.src = frames[i]; image.alt = text.textContent = readouts[i];
  more.innerHTML = below[i];
  output.value = stops[stop]; input.setAttribute("aria-valuetext", stops[stop] + ": " + readouts[i]);
}};
for (const control of root.querySelectorAll("input")) {{
  control.disabled = false; control.addEventListener("input", show);
}}
}})();</script></div>"""

    def _either(self) -> str:
        """Return the CSS that hides the page's form beside a live slider, and a live slider without a kernel.

        The latter is what JupyterLab shows of a notebook that was saved and opened again: an empty view.
        """
        frames, live = self._name("frames"), self._name("live")
        dead = f".jp-OutputArea-child:has(#{frames}) + .jp-OutputArea-child div.jupyter-widgets:not(:has(*))"
        return f"body:has(.{live}) #{frames}, {dead} {{ display: none; }}"

    def _radios(self, group: str) -> Iterator[str]:
        for name, options in self.choices.items():
            said = html.escape(name)
            yield f'<fieldset style="border:0;padding:0" aria-label="{said}">{said}: '
            for i, option in enumerate(options):
                checked = " checked" if i == 0 else ""
                yield (
                    f'<label style="margin-right:1em"><input type="radio" name="{group}-{said}"'
                    f" {CONTROL}{checked}> {html.escape(option)}</label>"
                )
            yield "</fieldset>\n"

    def _ipython_display_(self) -> None:
        """Show both forms. Only one of them can be seen; a stored notebook keeps the first, the page's."""
        display({"text/html": self.page(), "text/plain": repr(self)}, raw=True)
        # What ipywidgets 8 would show, less its text, which differs from run to run; 7 has no such method.
        view = {"version_major": 2, "version_minor": 0, "model_id": self.live().model_id}
        display({LIVE: view}, raw=True)
