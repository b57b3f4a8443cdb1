"""Every chapter runs to its end where no MNIST lies about and no network answers: on the stand-in digits."""

from __future__ import annotations

import os
import re
import shutil

import nbformat
import pytest
from nbclient import NotebookClient
from notebooks import chapters

NOTICE = "Loading scikit-learn's 1,797 small digits instead of '{}'"
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # refuses at once
HERE = {"PRUNEBOOK_QUICK": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "no_proxy": ""}


@pytest.mark.slow
@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_a_chapter_runs_to_its_end_on_the_stand_in_data(path, tmp_path, monkeypatch):
    monkeypatch.delenv("PRUNEBOOK_OFFLINE", raising=False)
    shutil.copytree(path.with_name("results"), tmp_path / "results")
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=os.environ | HERE | NO_NETWORK | {"PRUNEBOOK_DATA": str(tmp_path / "no-data")})

    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    said = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert all(cell.execution_count for cell in cells)  # a cell that raises has stopped the run before
    asked = set(re.findall(r'load_data\("(\w+)"', "".join(cell.source for cell in cells)))
    assert {name for name in ("mnist", "fashion") if NOTICE.format(name) in said} == asked
