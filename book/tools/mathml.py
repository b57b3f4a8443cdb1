r"""A small Sphinx extension: formulas become MathML when the pages are built.

Browsers draw MathML by themselves. So no page loads a script for its formulas, nothing moves while they
appear, and a screen reader can read them. The converter is that of docutils, which knows most of LaTeX. What
it does not know stops the strict build with the name of the command.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

# LaTeX that docutils does not know, in words that it knows.
OTHERWISE = {
    r"\\iff\b": r"\\;\\Longleftrightarrow\\;",
    r"\\(big|Big)(?=[()\[\]|])": r"\\\1l",
    r"\\textstyle\s*(\\[a-z]+)": r"{\\textstyle\1}",
}


def mathml(tex: str, *, block: bool = False) -> str:
    """Return a formula in MathML, on one line.

    Raises:
        MathError: The formula has a command that is not known.
    """
    for pattern, known in OTHERWISE.items():
        tex = re.sub(pattern, known, tex)
    return re.sub(r">\s+<", "><", tex2mathml(tex, as_block=block))


def draw(page: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write the formula of a node, or warn of it."""
    try:
        page.body.append(mathml(node.astext(), block=isinstance(node, nodes.math_block)))
    except MathError as error:
        logging.getLogger(__name__).warning("%s in the formula %s", error, node.astext(), location=node)


def inline(page: HTML5Translator, node: nodes.math) -> None:
    """Write a formula that stands in a line."""
    page.body.append(page.starttag(node, "span", "", CLASS="math"))
    draw(page, node)
    page.body.append("</span>")
    raise nodes.SkipNode


def block(page: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula that stands alone, with its number if it has one."""
    page.body.append(page.starttag(node, "div", "", CLASS="math"))
    draw(page, node)
    if node["number"]:
        page.body.append(f'<span class="eqno">({get_node_equation_number(page, node)})</span>')
    page.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the way to draw formulas, which `_config.yml` then chooses."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
