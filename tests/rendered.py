"""The rendered pages, served as strictly as a host can, under an address such as that of GitHub Pages."""

from __future__ import annotations

import functools
import http.server
import threading
from contextlib import contextmanager

# Scripts and styles from the book alone, no inline script, no other host.
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:"
)


class Strict(http.server.SimpleHTTPRequestHandler):
    def end_headers(self):
        self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def log_message(self, *args):
        pass


@contextmanager
def served(site, folder):
    """Serve the site below /prunebook/; folder is an empty one, in which a link to the site is put."""
    (folder / "prunebook").symlink_to(site, target_is_directory=True)
    handler = functools.partial(Strict, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/prunebook/"
        running.shutdown()


def pages(site):
    return sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))


def visit(chromium, url, allowed, width=1280, **context):
    """Open a page; return it with everything that went wrong on the way."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, **context)
    wrong = []
    page.on(
        "console", lambda m: wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on("response", lambda r: wrong.append(f"status {r.status}: {r.url}") if r.status >= 400 else None)
    page.on(
        "request",
        lambda r: (
            None if r.url.startswith((allowed, "data:", "blob:")) else wrong.append(f"elsewhere: {r.url}")
        ),
    )
    page.goto(url, wait_until="load")
    page.wait_for_load_state("networkidle")
    return page, wrong
