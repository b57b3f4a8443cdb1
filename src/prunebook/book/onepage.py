"""A pruned network on one page: every weight is a wire, which lights up for the digit that you draw.

The page computes the network by itself, in two classic scripts without libraries (`pad.js`, `onepage.js`), so
it needs neither a kernel nor a server.

Chapter: book/pathways.ipynb
"""

import base64
import hashlib
import html
import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn

from prunebook.book.plots.networks import wiring
from prunebook.book.plots.style import figure
from prunebook.book.widgets import encode
from prunebook.book.wires import wires
from prunebook.layers import dense_weight, maskable
from prunebook.shrinking.slicing import plain
from prunebook.training.data import Data
from prunebook.training.fit import evaluate


class OnePage:
    """A page that shows a pruned network and computes it for the digit that you draw.

    It shows itself as the last value of a cell. Where scripts do not run, as in a notebook that is not
    trusted, there is a picture of the network instead. Instead of drawing, you can choose the first test
    image of each class.

    Args:
        model, data, order: As for `wires`.
        dense: Number of weights before pruning, for a model that was shrunk afterwards. None means the number
            of weights of the model, zeros included.

    Raises:
        ValueError: `dense` is less than the number of weights that are left, or as for `wires`.
    """

    def __init__(
        self, model: nn.Module, data: Data, order: Sequence[Tensor] | None = None, dense: int | None = None
    ) -> None:
        self.layers = wires(model, data, order)
        self.classes = data.classes
        self.kept = sum(len(layer.value) for layer in self.layers)
        held = sum(dense_weight(layer).numel() for layer in maskable(model).values())
        self.dense = held if dense is None else dense
        if self.dense < self.kept:
            raise ValueError(f"dense must be at least the {self.kept} weights that are left, not {dense}")
        self.biases = sum(len(layer.bias) for layer in self.layers)
        self.tested, self.accuracy = len(data.test), evaluate(plain(model), data.test).accuracy
        first = [int((data.test.labels == i).nonzero()[0]) for i in range(len(data.classes))]
        grey = data.test.images[first].flatten(1).double().cpu() * data.std + data.mean
        self.examples = (255 * grey).round().clamp(0, 255).to(torch.uint8)

    def __repr__(self) -> str:
        """Return the summary of the network, which is the same on every machine."""
        return f"OnePage({self.summary})"

    @property
    def summary(self) -> str:
        """Return in words what is left of the network and how well it does."""
        share = f"{100 * self.kept / self.dense:.2g}%"
        left = f"{self.kept:,} of {self.dense:,} weights ({share}) and {self.biases:,} biases"
        return f"{left}; {self.accuracy:.1%} of {self.tested:,} test images right"

    def page(self) -> str:
        """Return the page as one HTML element with its style, numbers and script."""
        numbers = {
            "summary": self.summary,
            "classes": self.classes,
            "layers": [
                {
                    "source": layer.source.tolist(),
                    "unit": layer.unit.tolist(),
                    "weight": [float(f"{value:.9g}") for value in layer.value.tolist()],
                    "bias": [float(f"{value:.9g}") for value in layer.bias.tolist()],
                    "activation": layer.activation,
                }
                for layer in self.layers
            ],
            "examples": [base64.b64encode(bytes(image.tolist())).decode() for image in self.examples],
        }
        stored = json.dumps(numbers, separators=(",", ":")).replace(
            "<", "\\u003c"
        )  # "</" would end the script
        name = "onepage-" + hashlib.sha256(stored.encode()).hexdigest()[:12]
        drawn, (ax,) = figure(width=8, height=3.2)
        wiring(self.layers, self.classes, ax, widest=1.5)
        picture = base64.b64encode(encode(drawn)).decode()
        text = f"The whole network: {html.escape(self.summary)}"
        return f"""<div id="{name}" class="one-page" role="group" aria-label="{text}">
<style>{_resource("onepage.css")}</style>
<img src="data:image/webp;base64,{picture}" alt="{text}, drawn as wires from pixels to classes."
 width="800" height="320" style="max-width:100%;height:auto">
<script type="application/json">{stored}</script>
<script>{{{_resource("pad.js")}
{_resource("onepage.js")}}}</script></div>"""

    def _repr_html_(self) -> str:
        return self.page()

    def save(self, path: str | os.PathLike[str], title: str = "The whole network on one page") -> None:
        """Write the page to a file that works without a server and without the internet."""
        Path(path).write_text(
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(title)}</title></head>\n"
            f'<body class="one-page-alone"><main><h1>{html.escape(title)}</h1>\n{self.page()}\n'
            "</main></body></html>\n",
            encoding="utf-8",
        )


def _resource(name: str) -> str:
    return files("prunebook.book").joinpath(name).read_text(encoding="utf-8").strip()
