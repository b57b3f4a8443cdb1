"""Sliders in two forms: ipywidgets where a kernel runs, plain HTML with stored frames in a page.

No other file imports ipywidgets. A slider wraps a function that draws a frame and can be tested on its own.

Chapter: book/dense.ipynb
"""

import base64
import hashlib
import html
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from prunebook.checks import require_whole

LIVE = "application/vnd.jupyter.widget-view+json"
# For every HTML input: JupyterLab leaves the arrow keys to it; after a reload it fits the picture shown; it
# is greyed out until the script runs, which never happens in a notebook that is not trusted.
CONTROL = 'data-lm-suppress-shortcuts="true" autocomplete="off" disabled'


def encode(figure: Figure, dpi: int = 100) -> bytes:
    """Return a figure as a WebP image, a third of the size of a PNG; every browser can show it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=dpi, pil_kwargs={"quality": 85, "method": 4})
    return buffer.getvalue()


class FrameSlider:
    """A figure that changes with a slider and, if wanted, with some choices beside it.

    It shows itself as the last value of a cell. Where a kernel runs, it is an ipywidgets slider. In a
    rendered page it is an HTML range input over the same frames, which were stored when the cell ran. Where
    no scripts run, on GitHub or in a notebook that is not trusted, the slider is greyed out and shows its
    first picture. If you save a notebook, its ipywidgets slider comes back when the cell runs again. Every
    frame is drawn when the cell runs, so an error in `draw` shows up there.

    Args:
        draw: Takes a stop, and a keyword argument for each choice. It returns the figure and a readout: a
            sentence that says what the figure shows, also for screen readers.
        stops: The values of the slider, at least one.
        label: What the slider sets, such as "k in %".
        start: Index of the stop shown at the start.
        choices: Further settings by name, each with its options; the first option is the default.

    Raises:
        ValueError: There are no stops, `start` is not the index of one, or a choice has no options.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[Figure, str]],
        stops: Sequence[Any],
        *,
        label: str,
        start: int = 0,
        choices: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if not stops:
            raise ValueError("stops is empty; a slider needs at least one")
        self.stops, self.label = list(stops), label
        self.start = require_whole("start", start, 0, len(stops) - 1)
        self.choices = {name: list(options) for name, options in (choices or {}).items()}
        if not all(self.choices.values()):
            raise ValueError(f"choices must have at least one option each, not {self.choices}")
        drawn = [
            draw(stop, **dict(zip(self.choices, chosen, strict=True)))
            for chosen in product(*self.choices.values())
            for stop in self.stops
        ]
        self.frames = [encode(figure) for figure, _ in drawn]
        self.readouts = [readout for _, readout in drawn]

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
        """Return the slider as ipywidgets, for a running kernel."""
        slider = ipywidgets.SelectionSlider(
            options=[(str(stop), i) for i, stop in enumerate(self.stops)],
            value=self.start,
            description=self.label,
            style={"description_width": "initial"},
            layout={"width": "min(100%, 32em)"},
        )
        buttons = [
            ipywidgets.ToggleButtons(
                options=[(option, i) for i, option in enumerate(options)], description=name
            )
            for name, options in self.choices.items()
        ]
        picture = ipywidgets.Image(format="webp", layout={"max_width": "100%", "object_fit": "contain"})
        readout = ipywidgets.HTML()

        def show(change: object = None) -> None:
            i = self.index(slider.value, [button.value for button in buttons])
            picture.value, readout.value = self.frames[i], html.escape(self.readouts[i])

        for control in (slider, *buttons):
            control.observe(show, names="value")
        show()
        return ipywidgets.VBox([slider, *buttons, picture, readout])

    def page(self) -> str:
        """Return the slider as HTML that needs no kernel, no library and no network."""
        name = "frames-" + hashlib.sha256("\0".join([self.label, *self.readouts]).encode()).hexdigest()[:12]
        label, stop, readout = (
            html.escape(str(text)) for text in (self.label, self.stops[self.start], self.readouts[self.start])
        )
        sources = [f"data:image/webp;base64,{base64.b64encode(frame).decode()}" for frame in self.frames]
        # "</" would end the script element
        stored = json.dumps([sources, [str(stop) for stop in self.stops], self.readouts]).replace(
            "</", "<\\/"
        )
        return f"""<div id="{name}" class="frame-slider" role="group" aria-label="{label}">
<label>{label} <input type="range" min="0" max="{len(self.stops) - 1}" step="1" value="{self.start}"
 aria-valuetext="{stop}" {CONTROL}
 style="width:min(100% - 7em,26em);vertical-align:middle"></label> <output>{stop}</output>
{"".join(self._radios(name))}<img src="{sources[self.start]}" alt="{readout}" style="max-width:100%">
<p aria-hidden="true">{readout}</p>
<script>(() => {{
const root = document.getElementById("{name}"), [frames, stops, readouts] = {stored};
const [input, output, image, text] = ["input", "output", "img", "p"].map((tag) => root.querySelector(tag));
const show = () => {{
  let place = 0;
  for (const set of root.querySelectorAll("fieldset")) {{
    const options = [...set.querySelectorAll("input")];
    place = place * options.length + options.findIndex((option) => option.checked);
  }}
  const stop = Number(input.value), i = place * stops.length + stop;
  image.src = frames[i]; image.alt = text.textContent = readouts[i];
  output.value = stops[stop]; input.setAttribute("aria-valuetext", stops[stop] + ": " + readouts[i]);
}};
for (const control of root.querySelectorAll("input")) {{
  control.disabled = false; control.addEventListener("input", show);
}}
}})();</script></div>"""

    def _radios(self, group: str) -> Iterator[str]:
        for name, options in self.choices.items():
            yield f'<fieldset style="border:0;padding:0" aria-label="{html.escape(name)}">'
            for i, option in enumerate(options):
                checked = " checked" if i == 0 else ""
                yield (
                    f'<label style="margin-right:1em"><input type="radio" name="{group}-{html.escape(name)}"'
                    f" {CONTROL}{checked}> {html.escape(option)}</label>"
                )
            yield "</fieldset>\n"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """Return both forms: a front end shows the live one if it can; a stored notebook keeps the HTML."""
        # what ipywidgets 8 would return; ipywidgets 7, as on Colab, can only display
        view = {"version_major": 2, "version_minor": 0, "model_id": self.live().model_id}
        return {LIVE: view, "text/html": self.page(), "text/plain": repr(self)}
