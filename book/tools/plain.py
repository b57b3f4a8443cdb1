r"""A small Sphinx extension: chapters are written in plain Markdown, and this dresses them for the pages.

Colab and JupyterLab know nothing of MyST, so no chapter uses it. When the pages are built, this file turns

- `\tag{eq-name}` at the end of an equation into a number, and `(eq-name)` elsewhere into a link to it;
- a link to an address of `references.bib`, such as `[Han et al. (2015)](https://...)`, into a citation;
- a block quote that begins with a bold line into a box with that title;
- `<details>` into a box that opens, in which a solution takes the cells tagged `solution` that follow it;
- the title of a folded cell, `# @title ...`, into the line that opens it;
- the link "Open in Colab" into a badge. While the address of the book is unknown, no page leads to Colab.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.transforms import SphinxTransform

from address import PLACEHOLDER

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

BOOK = Path(__file__).resolve().parents[1]
ENTRY = re.compile(r"^@\w+\{(\w+),$.*?^  url\s*= \{(.+?)\}$", re.MULTILINE | re.DOTALL)
KEYS = {url: key for key, url in ENTRY.findall((BOOK / "references.bib").read_text(encoding="utf-8"))}

EQUATION = re.compile(r"\s*\\tag\{([a-z][\w-]*)\}\s*\$\$")
REFERENCE = re.compile(r"\((eq-[\w-]+)\)")
LINK = r"\[[^\]]*(?:\d{4}|n\.d\.)\)?\]\((https://[^)\s]+)\)"  # its text ends with a year
IN_BRACKETS = re.compile(rf"\({LINK}(?:; {LINK})*\)")
BOX = re.compile(r"^> \*\*(.+)\*\*(?:\n|$)((?:>.*\n?)*)", re.MULTILINE)
FOLDED = re.compile(r"<details>\n<summary>(.+?)</summary>\n(.*?)\n</details>", re.DOTALL)
TITLE = re.compile(r"# @title (.+)\n")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
BADGE = re.compile(r"\[Open in Colab\]\((.+?)\)")


def dress(text: str) -> str:
    """Return the text of a Markdown cell, or of a page, in MyST; code in it stays as it is."""
    kept = []

    def set_aside(found: re.Match[str]) -> str:
        kept.append(found[0])
        return f"\0{len(kept) - 1}\0"

    text = _dress(CODE.sub(set_aside, text))
    return re.sub(r"\0(\d+)\0", lambda found: kept[int(found[1])], text)


def _dress(text: str) -> str:
    text = EQUATION.sub(r"\n$$ (\1)", text)
    text = REFERENCE.sub(lambda found: _equation(found, text), text)
    text = IN_BRACKETS.sub(lambda found: _cite("p", found), text)
    text = re.sub(LINK, lambda found: _cite("t", found), text)
    text = BOX.sub(_box, text)
    text = FOLDED.sub(_folded, text)
    return BADGE.sub(r"[![Open in Colab](_static/open-in-colab.svg)](\1)", text)


def _equation(found: re.Match[str], text: str) -> str:
    labels_it = text[: found.start()].endswith("$$ ")
    return found[0] if labels_it else f"{{eq}}`{found[1]}`"


def _cite(form: str, found: re.Match[str]) -> str:
    urls = re.findall(r"\]\((\S+?)\)", found[0])
    if not set(urls) <= set(KEYS):
        return found[0]
    return f"{{cite:{form}}}`{','.join(KEYS[url] for url in urls)}`"


def _box(found: re.Match[str]) -> str:
    title, body = found[1], re.sub(r"^> ?", "", found[2], flags=re.MULTILINE).strip("\n")
    kind = "exercise" if title.startswith("Exercise") else "tip"
    return f":::::{{admonition}} {title}\n:class: {kind}\n\n{body}\n:::::\n"


def _folded(found: re.Match[str]) -> str:
    title, body = found[1], found[2].strip("\n")
    return f":::::{{admonition}} {title}\n:class: dropdown\n\n{body}\n:::::\n"


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as JupyterLab names it: `weights.ipynb#By-hand`."""
    return heading.replace(" ", "-")


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """Dress a page, or the cells of a notebook, before it is parsed."""
    if not app.env.doc2path(name).endswith(".ipynb"):
        source[0] = dress(source[0])
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = dress(cell["source"])
        elif found := TITLE.match(cell["source"]):
            cell["source"] = cell["source"][found.end() :]
            prompts = {"code_prompt_show": f"Show: {found[1]}", "code_prompt_hide": f"Hide: {found[1]}"}
            cell["metadata"]["mystnb"] = cell["metadata"].get("mystnb", {}) | prompts
    source[0] = json.dumps(notebook)


class Solutions(SphinxTransform):
    """Move the cells that are tagged `solution` into the folded box that stands before them."""

    default_priority = 400

    def apply(self) -> None:
        """Move them."""
        for box in list(self.document.findall(nodes.admonition)):
            if "dropdown" not in box["classes"]:
                continue
            place, parent = box.parent.index(box) + 1, box.parent
            while place < len(parent) and "tag_solution" in parent[place].get("classes", ()):
                box.append(parent.pop(place))


def settle(app: Sphinx, config: Config) -> None:
    """Take the buttons that lead to the repository and to Colab away while its address is unknown."""
    options = config.html_theme_options
    if options["repository_url"] == PLACEHOLDER:
        options["launch_buttons"] = {}
        for name in [name for name in options if name.startswith("use_") and name != "use_download_button"]:
            options[name] = False


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the handlers and the transform with Sphinx."""
    app.connect("config-inited", settle)
    app.connect("source-read", read)
    app.add_transform(Solutions)
    return {"parallel_read_safe": True}
