"""Execute the chapters in place and store their outputs: `make notebooks`, or only some: NAMES="dense".

Each chapter runs from top to bottom in a fresh kernel, two chapters at a time. Only what a page can show is
stored: the HTML form of a slider stays, its live form is removed. Cells are folded by their tags. A hash of
all code cells is stored, by which tests/book/test_chapters.py notices a cell that was edited but not run.
With --check, nothing is stored: the chapters only have to run to their end.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

from address import source_hash

BOOK = Path(__file__).resolve().parents[1]
LIVE = "application/vnd.jupyter.widget-view+json"
# The environment of kernels, here and in the tests (conftest.py): no progress bars in outputs, a fixed order
# of sets, and one thread, because sums in another order differ in their last digits.
KERNEL = {"TQDM_DISABLE": "1", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}


def chapters() -> list[Path]:
    """Return every notebook of the book."""
    return sorted(BOOK.glob("*.ipynb"))


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Remove what only works with a running kernel, and what changes from run to run."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if LIVE not in output.get("data", {})]
            fold(cell)


def fold(cell: nbformat.NotebookNode) -> None:
    """Set what folds a code cell in Colab and in JupyterLab, from the tags that fold it in the pages."""
    tags = set(cell.metadata.get("tags", []))
    for name in ("cellView", "jupyter", "collapsed"):
        cell.metadata.pop(name, None)
    if tags & {"hide-cell", "hide-input", "remove-cell", "solution"}:
        cell.metadata["cellView"] = "form"
        cell.metadata["jupyter"] = {"source_hidden": True}
    if tags & {"remove-cell", "solution"}:
        cell.metadata["jupyter"]["outputs_hidden"] = cell.metadata["collapsed"] = True


def execute(path: Path, keep: bool) -> nbformat.NotebookNode:
    """Run one chapter and return it with its outputs; with `keep`, stand-in data are an error.

    Raises:
        CellExecutionError: A cell raised an error.
    """
    notebook = nbformat.read(path, as_version=4)
    code = sum(cell.cell_type == "code" for cell in notebook.cells)
    with tqdm(total=code, desc=path.stem, unit="cell") as bar:
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": str(BOOK)}},
            on_cell_executed=lambda cell, cell_index, execute_reply: bar.update(),
        )
        client.execute(env=os.environ | KERNEL | ({"PRUNEBOOK_OFFLINE": "error"} if keep else {}))
    return notebook


def store(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Write a chapter back, either completely or not at all."""
    tidy(notebook)
    notebook.metadata["prunebook"] = {"source_sha256": source_hash(notebook)}
    partial = path.with_suffix(".ipynb.partial")
    nbformat.write(notebook, partial)
    os.replace(partial, path)


def run(path: Path, keep: bool) -> str:
    """Run one chapter, store it if `keep` says so, and return what went wrong, or ""."""
    try:
        notebook = execute(path, keep)
    except CellExecutionError as error:
        return f"{path.name} did not run to its end:\n{error}"
    if keep:
        store(path, notebook)
    return ""


def main() -> int:
    """Execute the chapters named on the command line, or all of them; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="chapters without .ipynb; all if none")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at once")
    parser.add_argument("--check", action="store_true", help="run them only, and store nothing")
    options = parser.parse_args()
    paths = [BOOK / f"{name}.ipynb" for name in options.names] or chapters()
    with ThreadPoolExecutor(options.jobs) as pool:
        wrong = list(filter(None, pool.map(lambda path: run(path, not options.check), paths)))
    print(*wrong, sep="\n", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
