"""Show the public address of the repository, or change it everywhere: `make address URL=https://...`.

`_config.yml` holds it; set-up cells, badges, README, CITATION.cff and pyproject.toml repeat it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACEHOLDER = "https://github.com/prunebook/prunebook"


def address() -> str:
    """Return the address in `_config.yml`."""
    found = re.search(r"^  url: &address (\S+)$", (ROOT / "_config.yml").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError("_config.yml has no line `url: &address https://...` under repository")
    return found[1]


def slug(url: str) -> str:
    """Return owner/name of a GitHub address, which is the form in Colab links."""
    return url.removeprefix("https://github.com/").rstrip("/")


def change(new: str) -> list[str]:
    """Replace the address, and owner/name in Colab links, in every tracked file; return the files changed."""
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", new):
        raise ValueError(f"URL must look like https://github.com/owner/name, not {new!r}")
    old, changed = address(), []
    listed = subprocess.run(
        ["git", "ls-files", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if name == "book/tools/address.py" or not path.is_file():
            continue
        before = path.read_bytes()
        after = before.replace(old.encode(), new.encode())
        after = after.replace(f"github/{slug(old)}/".encode(), f"github/{slug(new)}/".encode())
        if after != before:
            path.write_bytes(after)
            changed.append(name)
    return changed


def main(arguments: list[str]) -> int:
    """Print the address, change it to the one argument, or with --settled fail if it is the placeholder."""
    if arguments == ["--settled"]:
        if address() == PLACEHOLDER:
            print(
                "The public address is still the placeholder: make address URL=...",
                file=sys.stderr,
            )
            return 1
    elif arguments:
        print(*change(arguments[0]), sep="\n")
        print("Now store the new set-up cells: make notebooks")
    print(address())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
