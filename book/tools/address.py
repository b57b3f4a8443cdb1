"""Set the public address of the repository everywhere: `make address`, or `make address URL=https://...`.

Without a URL it is that of the remote that git calls origin, if this is on GitHub. `_config.yml` holds the
address; chapters, README, CITATION.cff and pyproject.toml repeat it, and so do the links of the chapters to
Colab. While the address is unknown, which means that it is the placeholder below, chapters have no such link.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PLACEHOLDER = "https://github.com/prunebook/prunebook"
ORIGIN = re.compile(r"(?:https://(?:[^/@]+@)?|git@|ssh://git@)github\.com[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def address() -> str:
    """Return the address in `_config.yml`."""
    found = re.search(r"^  url: &address (\S+)$", (ROOT / "_config.yml").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError("_config.yml has no line `url: &address https://...` under repository")
    return found[1]


def origin() -> str | None:
    """Return the address of the remote that git calls origin, or None if that is not on GitHub."""
    asked = subprocess.run(["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True, text=True)
    found = ORIGIN.fullmatch(asked.stdout.strip())
    return f"https://github.com/{found[1]}" if found else None


def source_hash(notebook: Any) -> str:
    """Return the SHA-256 of the sources of all code cells, in order."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(["".join(cell["source"]) for cell in code]).encode()).hexdigest()


def badge(name: str, url: str) -> str:
    """Return the Markdown link that opens a chapter in Colab."""
    slug = url.removeprefix("https://github.com/")
    return f"[Open in Colab](https://colab.research.google.com/github/{slug}/blob/main/book/{name}.ipynb)"


def label(path: Path, url: str) -> None:
    """Give a chapter its link to Colab below the title, or none, and the hash of its present code."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    before = source_hash(notebook)
    first = notebook["cells"][0]
    title, _, text = "".join(first["source"]).partition("\n\n")
    text = re.sub(r"\A\[Open in Colab\]\(.*\)\n\n", "", text)
    parts = [title, text] if url == PLACEHOLDER else [title, badge(path.stem, url), text]
    first["source"] = "\n\n".join(parts).splitlines(keepends=True)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = re.sub(
                r'^ADDRESS = ".*"$', f'ADDRESS = "{url}"', "".join(cell["source"]), flags=re.MULTILINE
            ).splitlines(keepends=True)
    # outputs that belonged to the code still do: only its address has changed
    stored = notebook["metadata"].get("prunebook", {})
    if stored.get("source_sha256") == before:
        stored["source_sha256"] = source_hash(notebook)
    text = json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def change(new: str) -> list[str]:
    """Replace the address in every tracked file, and return the files that changed."""
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", new):
        raise ValueError(f"URL must look like https://github.com/owner/name, not {new!r}")
    old, changed = address(), []
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if name == "book/tools/address.py" or not path.is_file():
            continue
        before = path.read_bytes()
        if name.endswith(".ipynb"):
            label(path, new)
        else:
            path.write_bytes(re.sub(re.escape(old).encode() + rb"(?![\w-])", new.encode(), before))
        if path.read_bytes() != before:
            changed.append(name)
    return changed


def main(arguments: list[str]) -> int:
    """Change the address to the argument, else to that of origin; with --settled, refuse the placeholder."""
    if arguments == ["--settled"]:
        if address() == PLACEHOLDER:
            print("The public address is still the placeholder: make address URL=...", file=sys.stderr)
            return 1
    elif new := arguments[0] if arguments else origin():
        print(*change(new), sep="\n")
    else:
        print("No remote on GitHub is called origin: make address URL=...", file=sys.stderr)
    print(address())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
