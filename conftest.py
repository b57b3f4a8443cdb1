"""How notebooks are compared, and what the tests of the rendered book share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nbval.plugin import IPyNbFile

from prunebook.training.data import data_folder, fetch

ROOT = Path(__file__).resolve().parent

# Notebook kernels inherit these: no bars in outputs, one order of sets.
os.environ |= {"TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}
torch.set_num_threads(min(2, torch.get_num_threads()))

# nbval compares what a cell prints and its text; pictures, pages of sliders and messages on stderr differ
# between machines without being wrong.
_init = IPyNbFile.__init__


def _compare_text_only(self, *args, **kwargs):
    _init(self, *args, **kwargs)
    self.skip_compare = (*self.skip_compare, "stderr", "text/html", "image/png", "image/svg+xml")


IPyNbFile.__init__ = _compare_text_only


def pytest_configure(config):
    """Compare stored outputs only where the real MNIST is at hand: without it the chapters run on digits."""
    if getattr(config.option, "nbval", False):
        try:
            fetch("mnist", data_folder())
        except ConnectionError:
            config.option.nbval, config.option.nbval_lax = False, True


@pytest.fixture(autouse=True)
def _bars_as_readers_see_them(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The rendered book, built strictly: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    tool = Path(sys.executable).with_name("jupyter-book")
    command = [str(tool), "build", str(ROOT), "--path-output", str(folder)]
    done = subprocess.run(
        [*command, "--all", "--warningiserror", "--keep-going"], capture_output=True, text=True
    )
    assert done.returncode == 0, f"the book does not build without warnings:\n{done.stdout}\n{done.stderr}"
    return folder / "_build" / "html"


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium, driven by playwright."""
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if executable is None:
        pytest.skip("no Chromium on this machine")
    quiet = "--disable-background-networking --disable-component-update --disable-sync --no-first-run"
    flags = f"--headless --no-sandbox --disable-gpu --disable-quic {quiet}".split()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=flags)
        yield browser
        browser.close()
