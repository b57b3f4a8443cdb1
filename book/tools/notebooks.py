"""Execute the chapters in place and store their outputs: `make notebooks`, or with names: NAMES="dense".

Each chapter runs from top to bottom in a fresh kernel. What is stored is what a page can show: the live
face of a slider goes, its HTML face stays. A hash of all cell sources is stored beside the outputs, so
that a cell that was edited and not run is found (tests/book/test_chapters.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

BOOK = Path(__file__).resolve().parents[1]
LIVE = "application/vnd.jupyter.widget-view+json"


def chapters() -> list[Path]:
    """Return every notebook of the book."""
    return sorted(BOOK.glob("*.ipynb"))


def source_hash(notebook: nbformat.NotebookNode) -> str:
    """Return the SHA-256 of all code sources, in order."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Remove what only a running kernel understands, and what changes from run to run."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(LIVE, None)


def execute(path: Path) -> None:
    """Run one chapter and write it back, whole or not at all.

    Raises:
        CellExecutionError: a cell raised.
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
        client.execute(env=os.environ | {"TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"})
    tidy(notebook)
    notebook.metadata["prunebook"] = {"source_sha256": source_hash(notebook)}
    partial = path.with_suffix(".ipynb.partial")
    nbformat.write(notebook, partial)
    os.replace(partial, path)


def main() -> int:
    """Execute the chapters named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="chapters without .ipynb; all if none")
    names = parser.parse_args().names
    for path in [BOOK / f"{name}.ipynb" for name in names] or chapters():
        try:
            execute(path)
        except CellExecutionError as error:
            print(f"{path.name} was not stored:\n{error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
