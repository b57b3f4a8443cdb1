"""A small Sphinx extension: sources are cited with round brackets, as in the notebooks: Han et al. (2015)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sphinxcontrib.bibtex.plugin import register_plugin
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def rounded() -> BracketStyle:
    """Return round brackets."""
    return BracketStyle(left="(", right=")")


@dataclass
class Rounded(AuthorYearReferenceStyle):
    """Author and year, as in Han et al. (2015), or (Han et al., 2015)."""

    bracket_textual: BracketStyle = field(default_factory=rounded)
    bracket_parenthetical: BracketStyle = field(default_factory=rounded)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the style, which `_config.yml` then chooses."""
    register_plugin("sphinxcontrib.bibtex.style.referencing", "rounded", Rounded)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
