"""The handout has every chapter, with nothing missing but solutions and what checks them."""

from __future__ import annotations

import nbformat
import pytest
from handout import BOOK, without_solutions

CHAPTERS = {path.stem: nbformat.read(path, as_version=4) for path in sorted(BOOK.glob("*.ipynb"))}


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_keeps_all_but_its_solutions(name):
    whole, handout = CHAPTERS[name], without_solutions(CHAPTERS[name])
    assert handout.metadata == whole.metadata
    shown = "\n".join(cell.source for cell in handout.cells)
    assert "<summary>Solution" not in shown
    assert "<summary>Answer" not in shown
    assert not [cell for cell in handout.cells if "solution" in cell.metadata.get("tags", [])]
    exercises = [cell for cell in whole.cells if cell.source.startswith("> **Exercise")]
    assert shown.count("> **Exercise") == len(exercises)
    code = [cell.source for cell in whole.cells if cell.cell_type == "code" and "solution" not in tags(cell)]
    kept = [cell.source for cell in handout.cells if cell.cell_type == "code" and cell.source]
    assert len(code) - len(kept) <= 1, "only the cell that checks the solutions is left out"
    assert set(kept) <= set(code)


def tags(cell):
    return cell.metadata.get("tags", [])


def test_the_solutions_place_is_empty_and_the_cell_that_checks_it_is_gone():
    make = nbformat.v4
    cells = [
        make.new_markdown_cell(
            "> **Exercise 1**\n\n<details>\n<summary>Solution</summary>\n\n2\n\n</details>"
        ),
        make.new_code_cell("answer = 1 + 1", metadata={"tags": ["solution"]}),
        make.new_code_cell("assert answer == 2", metadata={"tags": ["remove-cell"]}),
        make.new_code_cell("assert other", metadata={"tags": ["remove-cell"]}),
    ]
    found = without_solutions(make.new_notebook(cells=cells)).cells
    assert [cell.source for cell in found] == ["> **Exercise 1**", "", "assert other"]
