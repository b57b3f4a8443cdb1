"""What tests share: how notebooks are compared, the order of the tests, and the rendered book."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from nbval.plugin import IPyNbCell, IPyNbFile
from notebooks import KERNEL

from prunebook.training.data import data_folder, fetch, load_data

ROOT = Path(__file__).resolve().parent

# Chapters that train for a minute or more, the longest first: if nothing long starts late, two workers finish
# at about the same time.
LONGEST = ("weights", "soft-masks", "units", "adaptive", "gumbel", "what-you-gain", "dense")

# One thread for each worker of pytest-xdist and each kernel: two workers fill two cores.
os.environ |= KERNEL
torch.set_num_threads(1)

# No time limit for an example of hypothesis: no test may depend on how busy the machine is.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# nbval compares what a cell prints and its text; pictures, pages of sliders and messages on stderr differ
# between machines without being wrong.
_init = IPyNbFile.__init__


def _compare_text_only(self, *args, **kwargs):
    _init(self, *args, **kwargs)
    self.skip_compare = (*self.skip_compare, "stderr", "text/html", "image/png", "image/svg+xml")


IPyNbFile.__init__ = _compare_text_only


def pytest_configure(config):
    """Compare stored outputs only if the real MNIST is available: without it, chapters run on digits."""
    if getattr(config.option, "nbval", False):
        try:
            fetch("mnist", data_folder())
        except ConnectionError:
            config.option.nbval, config.option.nbval_lax = False, True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the chapters as slow, and start with the files that take longest."""
    slow = Counter()
    for item in items:
        if isinstance(item, IPyNbCell):
            item.add_marker(pytest.mark.slow)
        slow[item.path] += item.get_closest_marker("slow") is not None

    def place(path):
        chapter = path.suffix == ".ipynb"
        late = LONGEST.index(path.stem) if chapter and path.stem in LONGEST else len(LONGEST)
        return not chapter, late, -slow[path], path

    items.sort(key=lambda item: place(item.path))


@pytest.fixture(autouse=True)
def _bars_as_readers_see_them(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)


@pytest.fixture(params=["cpu", *["cuda"] * torch.cuda.is_available()])
def device(request):
    """Return the CPU and, if there is one, the GPU: a test with this argument runs on both."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def mnist():
    """Return MNIST, or skip the test where it cannot be reached."""
    try:
        fetch("mnist", data_folder())
    except ConnectionError:
        pytest.skip("MNIST is not here, and cannot be reached")
    return load_data("mnist")


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id):
    """Return the folder of the rendered book, built once for all workers, with warnings as errors."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "site"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "built").is_file():
            build(folder)
            (folder / "built").touch()
    return folder / "_build" / "html"


def build(folder):
    tool = Path(sys.executable).with_name("jupyter-book")
    command = [str(tool), "build", str(ROOT), "--path-output", str(folder)]
    done = subprocess.run(
        [*command, "--all", "--warningiserror", "--keep-going"], capture_output=True, text=True
    )
    assert done.returncode == 0, f"the book does not build without warnings:\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def chromium():
    """Yield a headless Chromium, driven by playwright."""
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
