"""Plain Markdown is dressed for the pages: numbers, citations, boxes, and nothing that was not meant."""

from __future__ import annotations

import base64
import hashlib
import json
from types import SimpleNamespace

import plain
import pytest
from docutils import nodes
from docutils.utils import new_document
from sphinx.addnodes import pending_xref

HAN, SU = "https://arxiv.org/abs/1506.02626", "https://arxiv.org/abs/2009.11094"
DRESSED = {
    "an equation": ("$$\nx = 1\n\\tag{eq-x}\n$$\n", "$$\nx = 1\n$$ (eq-x)\n"),
    "a mention of one": ("By (eq-soft-mask), twice (eq-x).", "By {eq}`eq-soft-mask`, twice {eq}`eq-x`."),
    "an author": (f"[Han et al. (2015)]({HAN}) say", "{cite:t}`han2015` say"),
    "a source": (f"so ([Han et al., 2015]({HAN})).", "so {cite:p}`han2015`."),
    "two sources": (f"([Han et al., 2015]({HAN}); [Su et al., 2020]({SU}))", "{cite:p}`han2015,su2020`"),
    "a box": (
        "> **You will learn**\n>\n> - to read\n",
        ":::::{admonition} You will learn\n:class: tip\n\n- to read\n:::::\n",
    ),
    "an exercise": (
        "> **Exercise 1: Why?**\n>\n> Say so.\n",
        ":::::{admonition} Exercise 1: Why?\n:class: exercise\n\nSay so.\n:::::\n",
    ),
    "an answer": (
        "<details>\n<summary>Answers</summary>\n\nNo: (eq-x).\n\n</details>",
        ":::::{admonition} Answers\n:class: dropdown\n\nNo: {eq}`eq-x`.\n:::::\n",
    ),
    "a percentage": ("5 % and k % of `7 % 2`", "5\N{NO-BREAK SPACE}% and k\N{NO-BREAK SPACE}% of `7 % 2`"),
    "a badge": ("[Open in Colab](https://x.y)", "[![Open in Colab](_static/open-in-colab.svg)](https://x.y)"),
}


@pytest.mark.parametrize("what", DRESSED)
def test_dresses(what):
    written, dressed = DRESSED[what]
    assert plain.dress(f"Before.\n\n{written}\nAfter.") == f"Before.\n\n{dressed}\nAfter."


@pytest.mark.parametrize(
    "text",
    [
        "a link to [its code](https://github.com/noelmat/Pruning-MNIST) is no citation",
        "[A paper (1999)](https://arxiv.org/abs/0000.00000) that is in no list",
        "[Weights](weights.ipynb#By-hand)",
        "> a quotation, without a title",
        "$$\nx\n$$",
        "(equal) and (eq)",
        "code such as `(eq-x)` and `> **x**`",
        "```python\n# (eq-x)\n```",
    ],
)
def test_leaves_alone(text):
    assert plain.dress(text) == text


def test_every_source_can_be_cited_by_its_address():
    assert len(plain.KEYS) == (plain.BOOK / "references.bib").read_text().count("\n}\n")
    assert plain.KEYS[HAN] == "han2015"


def test_in_a_notebook_only_markdown_is_dressed_and_titles_of_folded_cells_become_what_opens_them():
    alt = {"image": {"alt": "a picture"}}
    cells = [
        {"cell_type": "code", "source": ["# (eq-x)"], "outputs": [1]},
        {"cell_type": "markdown", "source": ["by ", "(eq-x)"]},
        {"cell_type": "code", "source": ["# @title Draw it\n", "x"], "metadata": {"mystnb": alt}},
    ]
    source = [json.dumps({"cells": cells, "metadata": {"a": 1}})]
    app = SimpleNamespace(env=SimpleNamespace(doc2path=lambda name: f"{name}.ipynb"))
    plain.read(app, "x", source)
    read = json.loads(source[0])
    assert read["cells"][0] == cells[0] | {"source": "# (eq-x)"}
    assert read["cells"][2]["source"] == "x"
    prompts = {"code_prompt_show": "Show: Draw it", "code_prompt_hide": "Hide: Draw it"}
    assert read["cells"][2]["metadata"]["mystnb"] == alt | prompts
    assert read["cells"][1]["source"] == "by {eq}`eq-x`"
    assert read["metadata"] == {"a": 1}


def test_a_folded_box_takes_the_cells_of_its_solution_and_no_others():
    document = new_document("x")
    section = nodes.section()
    box, other = nodes.admonition(classes=["dropdown"]), nodes.admonition(classes=["tip"])
    first, second = (nodes.container(classes=["cell", "tag_solution"]) for _ in range(2))
    plain_cell, late = nodes.container(classes=["cell"]), nodes.container(classes=["cell", "tag_solution"])
    section += [other, box, first, second, plain_cell, late]
    document += section
    box += [nodes.title("", "Solution"), nodes.paragraph("", "So.")]
    said = box[1]
    plain.Folds(document).apply()
    fold = section[1]
    assert section.children == [other, fold, plain_cell, late]
    assert fold[0].astext() == "Solution"
    assert fold.children[1:] == [said, first, second]


def link(name):
    return pending_xref("", nodes.inline("", name), refdomain="doc", reftarget=f"book/{name}")


def listed(*items):
    return nodes.bullet_list("", *(nodes.list_item("", nodes.paragraph("", "", *parts)) for parts in items))


@pytest.fixture
def cards(tmp_path):
    """Return a function that dresses the lists of a page; the chapter `one` has a picture, `two` has none."""
    picture = {"image/png": base64.b64encode(b"a picture").decode()}
    for name, data in (("one", picture), ("two", {"text/plain": "1"})):
        cells = [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": [{"data": data}]}]
        (tmp_path / f"{name}.ipynb").write_text(json.dumps({"cells": cells}))

    def dressed(page, *lists):
        document = new_document("x")
        document += [*lists]
        names = {
            "book/one": "one.ipynb",
            "book/two": "two.ipynb",
            "page": "page.md",
            "book/other": "other.md",
        }
        document.settings.env = SimpleNamespace(
            docname=page, doc2path=lambda name: str(tmp_path / names[name]), note_dependency=lambda name: None
        )
        plain.Cards(document).apply()
        return document

    return dressed


def test_a_list_of_links_to_chapters_becomes_cards_with_their_first_pictures(cards):
    document = cards("page", listed([link("one"), nodes.Text(": How? 20 minutes")], [link("two")]))
    assert document[0]["classes"] == ["cards"]
    first, second = document[0].children
    assert f"CARD/{hashlib.sha256(b'a picture').hexdigest()}.png" in first[0].astext()
    assert first[1].astext() == "oneHow? 20 minutes"
    assert second[0].astext() == '<span class="thumbnail"></span>'


@pytest.mark.parametrize("page", ["page", "book/two"])
def test_other_lists_and_those_of_notebooks_stay_lists(cards, page):
    mixed, elsewhere = listed([link("one")], [nodes.Text("no link")]), listed([link("other")])
    only = listed([link("one")]) if page == "book/two" else listed([nodes.Text("x"), link("one")])
    assert [one["classes"] for one in cards(page, mixed, elsewhere, only)] == [[], [], []]


def test_anchors_are_those_of_jupyterlab():
    assert plain.anchor("What can go wrong") == "What-can-go-wrong"
