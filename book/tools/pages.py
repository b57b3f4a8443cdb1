"""A small Sphinx extension: the frame of the pages, what each of them loads, and what it leaves out.

The frame itself is in `book/templates`, its looks and its behaviour in `prunebook.css` and `prunebook.js`.

The pictures that move come from notebook outputs, or from a container in the text. Each has a class, and a
page loads the scripts of the classes that it contains. A notebook output also carries its script inline, so
that it moves in JupyterLab. On the pages this copy is taken out: no page has an inline script, so that a
Content-Security-Policy can forbid them.
"""

from __future__ import annotations

import json
import re
import struct
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.environment.adapters.toctree import TocTree

from address import PLACEHOLDER

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

ROOT = Path(__file__).resolve().parents[2]
STATIC, PACKAGE = (
    ROOT / "book" / "_static",
    ROOT / "src" / "prunebook" / "book",
)  # where what they load stands

LOADED = {
    "formula": ("draw.js", "formulas.js", "toy.js", "formulas.css"),
    "frame-slider": ("slider.js",),
    "one-page": ("pad.js", "onepage.js"),
    "first-page": ("pad.js", "first-data.js", "first.js", "first.css"),
    "network-in-link": ("pad.js", "onepage.js", "onepage.css", "kilobyte-data.js", "kilobyte.js"),
    "reads-digits": ("kilobyte-data.js", "kilobyte.js", "first.css"),
}
EVERYWHERE = ("prunebook.css", "prunebook.js")

URL = 'URL: <a class="reference external" href="'  # as it stands in the bibliography

# What is changed in the text of a page. The label of a folded cell hides its title from who cannot see.
CHANGES = {
    r"<script>.*?</script>\n?": "",
    r'<summary aria-label="Toggle hidden content">': "<summary>",
    r"(<table.*?</table>)": r'<div class="wide">\1</div>',
    r"<th></th>": "<td></td>",  # a corner is no header
    r'<span class="pre">([^<]*)</span>': r"\1",  # thousands of them, which nothing uses
    r' role="doc-biblioentry"': ' role="listitem"',
    rf'(?:arXiv:[\d.]+\. )?{URL}(https://arxiv\.org/abs/([\d.]+))">.*?</a>': r'<a href="\1">arXiv:\2</a>',
    rf'{URL}(https://doi\.org/([^"]+))">.*?</a>': r'<a href="\1">doi:\2</a>',
    rf'{URL}(https://([^/"]+)[^"]*)">.*?</a>': r'<a href="\1">\2</a>',
}
LINES = re.compile(r"<pre><span></span>(.*?)</pre>", re.DOTALL)  # a mark of Pygments ends where its line ends
IMAGE = re.compile(r'<img (?![^>]*\bwidth=)([^>]*?src="[^"]*/?_images/([^"/]+)"[^>]*?) ?/?>')
STYLE = re.compile(r' style="width: (\d+)px; height: (\d+)px;"')


class Book(StandaloneHTMLBuilder):
    """Pages whose first one is index.html, whatever the name of its source."""

    def get_target_uri(self, docname: str, typ: str | None = None) -> str:
        """Return the address of a page within the site."""
        return super().get_target_uri("index" if docname == self.config.root_doc else docname, typ)

    def get_outfilename(self, pagename: str) -> str:
        """Return the path of the file that a page is written to."""
        return super().get_outfilename("index" if pagename == self.config.root_doc else pagename)


def site(repository: str) -> str:
    """Return the public address of the pages of a repository on GitHub, or "" while it is unknown."""
    owner, name = repository.split("/")[-2:]
    return "" if repository == PLACEHOLDER else f"https://{owner.lower()}.github.io/{name}/"


def find(app: Sphinx, config: Config) -> None:
    """Let the scripts that are package data be copied to the pages beside those of the book."""
    names = {name for names in LOADED.values() for name in names}
    config.html_static_path += [str(path) for path in sorted(PACKAGE.glob("*.*")) if path.name in names]


def loads(body: str) -> list[str]:
    """Return the names of the files that the body of a page needs, in order, each once."""
    classes = set(" ".join(re.findall(r'<\w+ [^>]*?class="([^"]+)"', body)).split())
    return list(dict.fromkeys(name for kind, files in LOADED.items() if kind in classes for name in files))


def size(path: Path) -> tuple[int, int]:
    """Return the width and the height of a picture, a PNG or an SVG, in pixels; zeros if they are unknown."""
    head = path.read_bytes()[:2000]
    if head.startswith(b"\x89PNG"):
        return struct.unpack(">II", head[16:24])
    if box := re.search(rb'viewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)"', head):
        return round(float(box[1])), round(float(box[2]))
    return 0, 0


def polish(body: str, pictures: dict[str, Path]) -> str:
    """Return the body of a page without inline scripts, its tables in boxes, its pictures with their size."""
    for pattern, new in CHANGES.items():
        body = re.sub(pattern, new, body, flags=re.DOTALL)

    def with_lines(found: re.Match[str]) -> str:
        lines = found[1].removesuffix("\n").split("\n")
        return "<pre>" + "".join(f'<span class="line">{line}\n</span>' for line in lines) + "</pre>"

    def with_size(found: re.Match[str]) -> str:
        width, height = size(pictures[found[2]]) if found[2] in pictures else (0, 0)
        if told := STYLE.search(found[1]):  # a figure of a notebook, drawn in twice as many pixels
            width, height = int(told[1]), int(told[2])
        known = f' width="{width}" height="{height}"' if width else ""
        return f'<img {STYLE.sub("", found[1])}{known} decoding="async">'

    return IMAGE.sub(with_size, LINES.sub(with_lines, body))


def contents(app: Sphinx, page: str) -> str:
    """Return the list of the sections of a page, two levels deep, as HTML; "" if there is none."""
    if page not in app.env.tocs:
        return ""
    whole = TocTree(app.env).get_toc_for(page, app.builder)
    lists = [part for part in whole.findall(nodes.bullet_list) if part is not whole]
    if not lists:
        return ""
    for inner in list(lists[0].findall(nodes.bullet_list)):
        if inner.parent.parent.parent is not lists[0].parent and inner.parent.parent is not lists[0]:
            inner.parent.remove(inner)
    return app.builder.render_partial(lists[0])["fragment"]


def described(doctree: nodes.document | None) -> str:
    """Return the first paragraph of a page, as far as 200 letters reach, for who finds a link to it."""
    first = next(doctree.findall(nodes.paragraph), None) if doctree else None
    text = " ".join(first.astext().split()) if first else ""
    return text if len(text) <= 200 else text[:200].rsplit(" ", 1)[0] + " …"


def tags(app: Sphinx, page: str, context: dict[str, Any], doctree: nodes.document | None) -> str:
    """Return what a link to the page shows where it is shared: a title, a sentence and a picture."""
    base = site(app.config.html_context["repository"])
    url = base + app.builder.get_target_uri(page).removesuffix("index.html")
    picture = re.search(r'src="[^"]*(_images/[\w.-]+\.png)"', context.get("body", ""))
    title = re.sub(
        r"<[^>]+>|^[\d.]+ ",
        "",
        re.sub(r"<span class=.section-number.*?</span>", "", context.get("title", "Search")),
    )
    found = {
        "og:site_name": app.config.html_title,
        "og:type": "article",
        "og:title": title,
        "og:description": described(doctree),
        "og:image": (base or context["content_root"]) + (picture[1] if picture else "_static/card.png"),
        "og:url": base and url,
    }
    lines = [f'<meta property="{name}" content="{escape(text)}">' for name, text in found.items() if text]
    if found["og:description"]:
        lines.append(f'<meta name="description" content="{escape(found["og:description"])}">')
    lines.append('<meta name="twitter:card" content="summary_large_image">')
    if base:
        lines.append(f'<link rel="canonical" href="{escape(url)}">')
    return "\n".join(lines)


def frame(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give a page what its frame needs, and its body what it loads."""
    body = context.get("body", "")
    files = [*EVERYWHERE, *loads(body)]
    for kind in ("css_files", "script_files"):  # what extensions of Sphinx add is not used
        context[kind].clear()
    for name in files:
        if name.endswith(".css"):
            app.add_css_file(name)
        else:
            app.add_js_file(name, **({} if name in EVERYWHERE else {"defer": "defer"}))
    if body:
        pictures = {name: Path(app.srcdir, source) for source, name in app.builder.images.items()}
        if page == app.config.root_doc:  # it moved: its links in HTML are to the neighbours of its source
            folder = page.rpartition("/")[0]
            body = re.sub(r'(<a [^>]*href=")(?=[\w-]+\.html)', rf"\g<1>{folder}/", body)
        context["body"] = polish(body, pictures).replace("CARD/", context["content_root"] + "_images/")
    context["author"] = app.config.author
    context["contents"] = contents(app, page)
    context["metatags"] = tags(app, page, context, doctree)
    source = context.get("sourcename", "")
    context["notebook"] = context["pathto"](f"_sources/{source}", 1) if source.endswith(".ipynb") else ""
    context["repository"] = (
        app.config.html_context["repository"] if site(app.config.html_context["repository"]) else ""
    )


def finish(app: Sphinx, error: Exception | None) -> None:
    """Take the outputs out of the notebooks that can be downloaded: they are on the pages."""
    for path in [] if error else Path(app.outdir, "_sources").rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"] = []
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the builder and the handlers with Sphinx."""
    app.add_builder(Book, override=True)
    app.connect("config-inited", find)
    app.connect("html-page-context", frame, priority=900)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
