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
from importlib.resources import files
from itertools import product
from typing import Any

import ipywidgets
import numpy as np
import torch
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageFilter

from prunebook.book.plots.style import INCH, SHARP
from prunebook.checks import require_whole

LIVE = "application/vnd.jupyter.widget-view+json"
# For every HTML input: JupyterLab leaves the arrow keys to it; after a reload it fits the picture shown; it
# is greyed out until the script runs, which never happens in a notebook that is not trusted.
CONTROL = 'data-lm-suppress-shortcuts="true" autocomplete="off" disabled'
# A live picture has no background: it takes that of the notebook. In a dark one, dark and light are swapped.
DARK = ('[data-jp-theme-light="false"]', "body.vscode-dark", 'html[theme="dark"]')
# Without weight, so that the style of a page always wins. What can be touched is 44 pixels high.
FACE = """:where(.frame-slider .knob) { display: flex; flex-wrap: wrap; align-items: center; gap: 0 0.8em; }
:where(.frame-slider .knob input) { flex: 1 1 14em; max-width: 32em; height: 44px; margin: 0; }
:where(.frame-slider fieldset) { border: 0; padding: 0; margin: 0; display: flex; flex-wrap: wrap;
 align-items: center; gap: 0 1.2em; }
:where(.frame-slider fieldset label) { display: flex; align-items: center; gap: 0.4em; min-height: 44px; }
:where(.frame-slider img) { display: block; max-width: 100%; height: auto; print-color-adjust: exact; }"""
THEME = "<style>{} {{ filter: invert(1) hue-rotate(180deg); }}</style>".format(
    ", ".join(f"{notebook} .prunebook-live img" for notebook in DARK)
)


def encode(
    figure: Figure, live: bool = False, base: Image.Image | None = None, sharp: float = SHARP
) -> bytes:
    """Return a figure as a WebP image, which every browser can show: on white, or live without a background.

    The first is sharp and small, the second is quick. With `base`, a picture of the same size, it holds only
    what differs from that: laid over it, it gives the figure.
    """
    buffer = io.BytesIO()
    if live:
        paint(figure, INCH).save(buffer, "webp", lossless=True, method=0)
        return buffer.getvalue()
    image = on_white(figure, sharp)
    if base is not None and base.size == image.size:
        differs = (np.asarray(image) != np.asarray(base)).any(2)
        # and some pixels around: where a picture is shown smaller, neighbours are mixed
        patch = Image.fromarray(np.uint8(255) * differs).filter(ImageFilter.MaxFilter(9))
        image = Image.composite(image.convert("RGBA"), Image.new("RGBA", image.size), patch)
    image.save(buffer, "webp", lossless=True, method=4, quality=80)
    for quality, large in ((85, 20_000), (60, 60_000)):
        if buffer.tell() > large:  # many lines or grey values: here the other way may be smaller
            other = io.BytesIO()
            image.save(other, "webp", quality=quality, method=4)
            buffer = min(buffer, other, key=io.BytesIO.tell)
    return buffer.getvalue()


def on_white(figure: Figure, sharp: float = SHARP) -> Image.Image:
    """Return the figure as a page shows it, with so many pixels for each pixel of the page."""
    image = paint(figure, round(sharp * INCH))
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


def paint(figure: Figure, dpi: int) -> Image.Image:
    """Return a figure without its background.

    If artists of the figure are marked as moving (`plots.style`), everything else is drawn the first time
    only.
    """
    moving = [artist for ax in figure.axes for artist in ax.get_children() if artist.get_animated()]
    drawn = vars(figure).setdefault("_axes_drawn", {})
    figure.set_dpi(dpi)
    if not moving or dpi not in drawn:
        for patch in (figure.patch, *(ax.patch for ax in figure.axes)):
            patch.set_alpha(0)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn[dpi] = canvas, canvas.copy_from_bbox(figure.bbox)
    canvas, background = drawn[dpi]
    canvas.restore_region(background)
    for artist in moving:
        artist.draw(canvas.get_renderer())
    return Image.fromarray(np.asarray(canvas.buffer_rgba()))


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
        words: How a page says a value: a text with {} in its place, such as "{:g} % pruned", or a function.
        start: Index of the stop shown at the start.
        span: Lowest value, highest value and step of the live slider. None means that it has the stops, too.
        log: Make the live slider logarithmic; its step is then in powers of ten.
        choices: Further settings by name, each with its options; the first option is the default.
        on_release: Draw when the live slider is let go, not while it moves; for what takes a while.
        sharp: Pixels drawn for each pixel of a page in a line; fewer where a picture of many lines is large.

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
        words: str | Callable[[Any], str] = "{}",
        start: int = 0,
        span: tuple[float, float, float] | None = None,
        log: bool = False,
        choices: Mapping[str, Sequence[str]] | None = None,
        on_release: bool = False,
        sharp: float = SHARP,
    ) -> None:
        if not stops:
            raise ValueError("stops is empty; a slider needs at least one")
        self.draw, self.stops, self.label = draw, list(stops), label
        self.say: Callable[[Any], str] = words.format if isinstance(words, str) else words
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
        self.span, self.log, self.on_release, self.sharp = span, log, on_release, sharp
        self._take_frames()

    def _take_frames(self) -> None:
        """Draw all frames: the one shown at the start whole, of each other one what differs from that."""
        settings = [(stop, chosen) for chosen in product(*self.choices.values()) for stop in self.stops]
        self.frames: list[bytes] = [b""] * len(settings)
        self.readouts, self.below = [""] * len(settings), [""] * len(settings)
        base = None
        for place in sorted(range(len(settings)), key=lambda place: place != self.start):
            stop, chosen = settings[place]
            with _one_core_left():
                figure, readout, *below = self.draw(stop, **dict(zip(self.choices, chosen, strict=True)))
            self.frames[place] = encode(figure, base=base, sharp=self.sharp)
            self.readouts[place], self.below[place] = readout, "".join(below)
            if base is None:
                base, self.panels = on_white(figure, self.sharp), list(getattr(figure, "panels", (0, 1)))
                self.size = [round(INCH * side) for side in figure.get_size_inches()]

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
            options = [(self.say(stop), stop) for stop in self.stops]
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
        name, said = self._name("frames"), [self.say(stop) for stop in self.stops]
        label, stop, readout = (
            html.escape(text) for text in (self.label, said[self.start], self.readouts[self.start])
        )
        frames = [base64.b64encode(frame).decode() for frame in self.frames]
        first, frames[self.start] = frames[self.start], ""  # the script takes it from the picture
        told = {
            "stops": said,
            "readouts": self.readouts,
            "below": self.below if any(self.below) else [],
            "frames": frames,
            "first": self.start,
            "panels": self.panels,
        }
        stored = json.dumps(told, separators=(",", ":")).replace(
            "<", "\\u003c"
        )  # it could end the script element
        width, height = self.size
        return f"""<div id="{name}" class="frame-slider" role="group" aria-label="{label}">
<style>{self._either()}
{FACE}</style>
<div class="knob"><label for="{name}-knob">{label}</label>
<input id="{name}-knob" type="range" min="0" max="{len(self.stops) - 1}" step="1" value="{self.start}"
 aria-valuetext="{stop}" {CONTROL}>
<output aria-live="off" style="min-width:{max(map(len, said))}ch">{stop}</output></div>
{"".join(self._radios(name))}<img src="data:image/webp;base64,{first}" alt="{readout}"
 width="{width}" height="{height}">
<p aria-hidden="true">{readout}</p><div class="below">{self.below[self.start]}</div>
<script type="application/json">{stored}</script>
<script>{files("prunebook.book").joinpath("slider.js").read_text(encoding="utf-8")}</script></div>"""

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
            yield f'<fieldset aria-label="{said}"><span>{said}</span>'
            for i, option in enumerate(options):
                checked = " checked" if i == 0 else ""
                yield (
                    f'<label><input type="radio" name="{group}-{said}"'
                    f" {CONTROL}{checked}> {html.escape(option)}</label>"
                )
            yield "</fieldset>\n"

    def _ipython_display_(self) -> None:
        """Show both forms. Only one of them can be seen; a stored notebook keeps the first, the page's."""
        display({"text/html": self.page(), "text/plain": repr(self)}, raw=True)
        # What ipywidgets 8 would show, less its text, which differs from run to run; 7 has no such method.
        view = {"version_major": 2, "version_minor": 0, "model_id": self.live().model_id}
        display({LIVE: view}, raw=True)
