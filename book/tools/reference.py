"""A small Sphinx extension on top of AutoAPI: the reference is read from the source, without importing it.

The directive `room` documents every module in one folder of the package, so no page lists modules by hand:

    .. room:: methods
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from docutils.nodes import Node
    from sphinx.application import Sphinx

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "prunebook"
LONG = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])")


def modules(room: str) -> list[str]:
    """Return the dotted names of the modules of a folder, or of a single module, in alphabetical order.

    Raises:
        ValueError: The package has neither a folder nor a module of this name.
    """
    if (PACKAGE / f"{room}.py").is_file():
        return [f"prunebook.{room}"]
    found = sorted(path for path in (PACKAGE / room).rglob("*.py") if not path.stem.startswith("_"))
    if not found:
        raise ValueError(f"src/prunebook has no folder and no module {room!r}")
    return [".".join(("prunebook", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in found]


class Room(SphinxDirective):
    """Document every module in the named folder, or the single module of that name."""

    required_arguments = 1

    def run(self) -> list[Node]:
        """Let AutoAPI document one module after the other."""
        text = "".join(f".. autoapimodule:: {name}\n   :members:\n\n" for name in modules(self.arguments[0]))
        return self.parse_text_to_nodes(text)


def skip(app: Sphinx, what: str, name: str, thing: object, skipped: bool, options: object) -> bool | None:
    """Skip what has no docstring, and what is imported from elsewhere."""
    return True if getattr(thing, "imported", False) or not getattr(thing, "docstring", "") else None


def shorten(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str, returns: str | None
) -> tuple[str, str | None]:
    """Return a signature with `Module` in place of `torch.nn.Module`, as in the source."""
    return LONG.sub("", signature), returns and LONG.sub("", returns)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the two handlers with Sphinx."""
    app.setup_extension("autoapi.extension")
    app.add_directive("room", Room)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True}
