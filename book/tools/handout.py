"""Write the chapters without their solutions, for a class, into _build/handout: `make handout`."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

BOOK = Path(__file__).resolve().parents[1]
SOLUTION = re.compile(r"\n*<details>\n<summary>(?:Solution|Answers?)</summary>.*?</details>", re.DOTALL)


def without_solutions(notebook: NotebookNode) -> NotebookNode:
    """Return a notebook with no solutions, no answers, and no cell that checks a solution; change nothing.

    In the place of a solution's code stands an empty cell for the reader's own.
    """
    handout = nbformat.from_dict(notebook)
    handout.cells, names = [], set[str]()
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags:
            names |= set(re.findall(r"^(\w+)(?:, \w+)* =", cell.source, re.MULTILINE))
            handout.cells.append(nbformat.v4.new_code_cell(""))
        elif not ("remove-cell" in tags and any(re.search(rf"\b{name}\b", cell.source) for name in names)):
            copied = nbformat.from_dict(cell)
            if cell.cell_type == "markdown":
                copied.source = re.sub(SOLUTION, "", cell.source)
            handout.cells.append(copied)
    return handout


def main() -> None:
    """Write all chapters."""
    folder = BOOK.parent / "_build/handout"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(BOOK.glob("*.ipynb")):
        nbformat.write(without_solutions(nbformat.read(path, as_version=4)), folder / path.name)
    print(f"The chapters without solutions are in {folder}")


if __name__ == "__main__":
    main()
