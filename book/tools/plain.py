r"""A small Sphinx extension: chapters are written in plain Markdown, and this dresses them for the pages.

Colab and JupyterLab know nothing of MyST, so no chapter uses it. When the pages are built, this file turns

- `\tag{eq-name}` at the end of an equation into a number, and `(eq-name)` elsewhere into a link to it;
- a link to an address of `references.bib`, such as `[Han et al. (2015)](https://...)`, into a citation;
- a block quote that begins with a bold line into a box with that title;
- `<details>` into a box that opens, in which a solution takes the cells tagged `solution` that follow it;
- the title of a folded cell, `# @title ...`, into the line that opens it;
- the space before a percent sign into one at which no line breaks;
- the link "Open in Colab" into a badge;
- on a page that is no notebook, a list in which each item begins with a link to a chapter, into cards.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

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
    text = re.sub(r"(?<=[\dk]) %(?![\w({])", "\N{NO-BREAK SPACE}%", text)
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
    return re.sub(r"\s", "-", heading)


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


class Fold(nodes.General, nodes.Element):
    """A box that opens; its first child is what opens it."""


class Opener(nodes.General, nodes.TextElement):
    """The line of a box that opens it."""


TAGS = {Fold: ("details", {"CLASS": "fold"}), Opener: ("summary", {})}


def begin(page: HTML5Translator, node: Fold | Opener) -> None:
    """Write the start tag of a box that opens, or of its line."""
    tag, attributes = TAGS[type(node)]
    page.body.append(page.starttag(node, tag, **attributes))


def end(page: HTML5Translator, node: Fold | Opener) -> None:
    """Write the end tag."""
    page.body.append(f"</{TAGS[type(node)][0]}>\n")


class Folds(SphinxTransform):
    """Let the boxes of class dropdown open, and put into each the cells tagged `solution` that follow it."""

    default_priority = 400

    def apply(self) -> None:
        """Do it."""
        for box in list(self.document.findall(nodes.admonition)):
            if "dropdown" not in box["classes"]:
                continue
            place, parent = box.parent.index(box) + 1, box.parent
            title, *rest = box.children
            fold = Fold("", Opener("", "", *title.children), *rest)
            while place < len(parent) and "tag_solution" in parent[place].get("classes", ()):
                fold.append(parent.pop(place))
            box.replace_self(fold)


def first_picture(notebook: dict[str, Any]) -> tuple[str, bytes] | None:
    """Return the first picture that a notebook stores, an SVG or a PNG: its type and its bytes."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/svg+xml" in data:
                return "svg", "".join(data["image/svg+xml"]).encode()
            if "image/png" in data:
                return "png", base64.b64decode("".join(data["image/png"]))
    return None


class Cards(SphinxTransform):
    """Turn a list of links to chapters into cards, each with the first picture of its chapter."""

    default_priority = 400

    def apply(self) -> None:
        """Do it on pages that are no notebooks."""
        if self.env.doc2path(self.env.docname).endswith(".ipynb"):
            return
        for listed in self.document.findall(nodes.bullet_list):
            chapters = [self.chapter(item) for item in listed.children]
            if not all(chapters):
                continue
            listed["classes"].append("cards")
            for item, chapter in zip(listed.children, chapters, strict=True):
                if len(item[0]) > 1 and isinstance(item[0][1], nodes.Text):  # the title ends its line
                    item[0][1] = nodes.Text(item[0][1].lstrip(".:, "))
                item.insert(0, nodes.raw("", self.thumbnail(chapter), format="html"))

    def chapter(self, item: nodes.Element) -> Path | None:
        """Return the notebook that the first words of an item lead to, if they do."""
        first = item[0][0] if item.children and item[0].children else None
        if not isinstance(first, pending_xref) or first.get("refdomain") != "doc":
            return None
        path = Path(self.env.doc2path(first["reftarget"]))
        return path if path.suffix == ".ipynb" else None

    def thumbnail(self, chapter: Path) -> str:
        """Return the picture of a card. The build names a picture by its contents, so its name is known."""
        self.env.note_dependency(str(chapter))
        picture = first_picture(json.loads(chapter.read_text(encoding="utf-8")))
        if picture is None:
            return '<span class="thumbnail"></span>'
        name = f"{hashlib.sha256(picture[1]).hexdigest()}.{picture[0]}"
        return f'<img class="thumbnail" src="CARD/{name}" alt="" width="320" height="180" loading="lazy">'


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the handler, the nodes and the transforms with Sphinx."""
    app.connect("source-read", read)
    for node in TAGS:
        app.add_node(node, html=(begin, end))
    app.add_transform(Folds)
    app.add_transform(Cards)
    return {"parallel_read_safe": True}
