"""How long a live slider takes from an arrow key to the new picture on the screen.

Run it alone on an idle machine: `OMP_NUM_THREADS=2 python tests/benchmarks/slider.py`, or `make bench` for
all of them. Without a Chromium, JupyterLab or playwright it says so and measures nothing. On two cores the
median should be at most 150 ms.

JupyterLab runs a notebook of two cells in a headless Chromium: train LeNet-300-100 for one epoch, then
`explore_k`. Then arrow keys move the slider back and forth. A tick is the time from the key event in
the page until the new picture is decoded and two animation frames have passed.

The live slider shows frames that were drawn when the cell ran. So a tick is a message to the kernel, a stored
picture sent back and a repaint, whatever the size of the network. The time of pruning, evaluating and drawing
all frames is that of the cell; it is measured in the kernel and printed beside the ticks.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

if TYPE_CHECKING:
    from playwright.sync_api import Page

MOST = 150  # milliseconds: the aim for the median on two cores
KEYS = 4 * (5 * ["ArrowRight"] + 5 * ["ArrowLeft"])
PAUSE = 50  # milliseconds between a picture and the next key
CELLS = (
    """import time
import torch
import prunebook as pb
from prunebook import book

data = pb.load_data()
torch.manual_seed(0)
net = pb.lenet_300_100()
pb.fit(net, data, epochs=1, progress=False)
print(f"{data.name}, {torch.get_num_threads()} threads")""",
    """start = time.perf_counter()
slider = book.explore_k(net, data)
print(f"the cell drew all {len(slider.frames)} frames in {time.perf_counter() - start:.1f} s")
slider""",
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run"
)
# timeStamp is when the key arrived, a little before any script is told
WATCH = """() => {
  const image = document.querySelector("img.widget-image");
  let pressed;
  addEventListener("keydown", (event) => { pressed = event.timeStamp; }, true);
  new MutationObserver(async () => {
    await image.decode();
    requestAnimationFrame(() => requestAnimationFrame(() => { window.tick = performance.now() - pressed; }));
  }).observe(image, {attributeFilter: ["src"]});
}"""


def chromium() -> str | None:
    """Return the path of a Chromium, or None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def missing() -> list[str]:
    """Return what is needed but not installed on this machine."""
    modules = [name for name in ("jupyterlab", "playwright") if importlib.util.find_spec(name) is None]
    return modules if chromium() else ["chromium", *modules]


@contextmanager
def jupyterlab() -> Iterator[str]:
    """Run JupyterLab with default settings in a temporary folder, and yield the notebook's address."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, socket.socket() as probe:
        write_notebook(Path(folder, "slider.ipynb"))
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        options = (
            f"--no-browser --allow-root --ServerApp.ip=127.0.0.1 --ServerApp.port={port} "
            "--ServerApp.port_retries=0 --IdentityProvider.token= "
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"
        )
        command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}", *options.split()]
        folders = (
            "JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR IPYTHONDIR "
            "JUPYTERLAB_SETTINGS_DIR JUPYTERLAB_WORKSPACES_DIR"
        )
        environment = os.environ | {name: str(Path(folder, name)) for name in folders.split()}
        log = Path(folder, "log")
        with log.open("w") as output:
            server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            wait_for(f"http://127.0.0.1:{port}/api/status", server, log)
            yield f"http://127.0.0.1:{port}/lab/tree/slider.ipynb"
        finally:
            server.terminate()  # it ends its kernels first
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def write_notebook(path: Path) -> None:
    """Write the notebook of two cells."""
    blank = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [blank | {"id": f"cell-{i}", "source": source} for i, source in enumerate(CELLS)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook))


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the server answers.

    Raises:
        RuntimeError: It ended, or did not answer within a minute.
    """
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        try:
            urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


def measure(address: str) -> tuple[str, list[float]]:
    """Run the cells, then press the keys; return what the cells print and the milliseconds of each tick."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS.split())
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.goto(address)
            printed = run_cells(page)
            page.evaluate(WATCH)
            page.locator(".widget-slider .noUi-handle").focus()
            return printed, [press(page, key) for key in KEYS]
        finally:
            browser.close()


def run_cells(page: Page) -> str:
    """Run the cells until the slider appears, and return what they print.

    Raises:
        RuntimeError: A cell raised an error.
    """
    page.locator(".jp-Notebook .cm-content").first.click(timeout=60_000)
    for _ in CELLS:
        page.keyboard.press("Shift+Enter")
    picture = page.locator("img.widget-image[src]")
    error = page.locator('[data-mime-type="application/vnd.jupyter.stderr"]', has_text="Traceback")
    picture.or_(error).first.wait_for(timeout=300_000)
    if error.count():
        raise RuntimeError(f"a cell raised:\n{error.first.inner_text()}")
    prints = page.locator('[data-mime-type="application/vnd.jupyter.stdout"]').all_inner_texts()
    return "; ".join(text.strip() for text in prints)


def press(page: Page, key: str) -> float:
    """Press a key, wait for the picture that follows, and return the milliseconds between them."""
    page.evaluate("window.tick = null")
    page.keyboard.press(key)
    page.wait_for_function("tick !== null", timeout=10_000)
    page.wait_for_timeout(PAUSE)
    return float(page.evaluate("tick"))


def main() -> None:
    """Print the times from key to picture."""
    if lacks := missing():
        print(f"skipped: not on this machine: {', '.join(lacks)}")
        return
    with jupyterlab() as address:
        printed, ticks = measure(address)
    first, median, third = statistics.quantiles(ticks, n=4)
    print(f"{printed}, once; a tick of the slider only swaps them")
    note = "" if median <= MOST else "; not reached this time"
    print(
        f"{len(ticks)} ticks, from key to picture: median {median:.0f} ms (aim: at most {MOST}{note}), "
        f"quartiles {first:.0f} and {third:.0f} ms, worst {max(ticks):.0f} ms"
    )


if __name__ == "__main__":
    main()
