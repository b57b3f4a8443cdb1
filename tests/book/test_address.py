"""The public address: where it comes from, and what changes with it."""

from __future__ import annotations

import json
import subprocess

import address as tool
import pytest
from notebooks import source_hash

COLAB = "https://colab.research.google.com/github"


def chapter(url, *, link):
    source = f'ADDRESS = "{url}"\n1 + 1'
    first = ["# A title\n", "\n", *([f"[Open in Colab]({link})\n", "\n"] if link else []), "A paragraph."]
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": first},
        {"cell_type": "code", "metadata": {}, "source": source.splitlines(True), "outputs": ["kept"]},
    ]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    notebook["metadata"]["prunebook"] = {"source_sha256": tool.source_hash(notebook)}
    return notebook


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A repository with all that carries the address, which is still the placeholder."""
    (tmp_path / "_config.yml").write_text(f"repository:\n  url: &address {tool.PLACEHOLDER}\n")
    (tmp_path / "README.md").write_text(f"git clone {tool.PLACEHOLDER}, and {tool.PLACEHOLDER}/issues")
    (tmp_path / "other.txt").write_text(f"{tool.PLACEHOLDER}let is another")
    (tmp_path / "one.ipynb").write_text(json.dumps(chapter(tool.PLACEHOLDER, link=None)))
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def read(book):
    return json.loads((book / "one.ipynb").read_text())


def test_changing_the_address_changes_all_of_it_and_gives_chapters_their_link(book):
    assert sorted(tool.change("https://github.com/new/name")) == ["README.md", "_config.yml", "one.ipynb"]
    assert tool.address() == "https://github.com/new/name"
    assert (book / "README.md").read_text() == (
        "git clone https://github.com/new/name, and https://github.com/new/name/issues"
    )
    first, code = read(book)["cells"]
    link = f"[Open in Colab]({COLAB}/new/name/blob/main/book/one.ipynb)"
    assert "".join(first["source"]) == f"# A title\n\n{link}\n\nA paragraph."
    assert code["source"][0] == 'ADDRESS = "https://github.com/new/name"\n'
    assert code["outputs"] == ["kept"]


def test_a_second_change_replaces_the_link_and_a_third_to_the_placeholder_takes_it_away(book):
    before = read(book)
    tool.change("https://github.com/new/name")
    tool.change("https://github.com/other/fork")
    assert "".join(read(book)["cells"][0]["source"]).count("Open in Colab") == 1
    assert "github/other/fork/blob" in "".join(read(book)["cells"][0]["source"])
    assert tool.change("https://github.com/other/fork") == []
    tool.change(tool.PLACEHOLDER)
    assert read(book) == before


def test_outputs_stay_those_of_the_code_unless_a_cell_was_edited(book):
    tool.change("https://github.com/new/name")
    assert read(book)["metadata"]["prunebook"]["source_sha256"] == source_hash(read(book))
    edited = read(book)
    edited["cells"][1]["source"].append("\n2 + 2")
    (book / "one.ipynb").write_text(json.dumps(edited))
    tool.change("https://github.com/other/fork")
    assert read(book)["metadata"]["prunebook"]["source_sha256"] != source_hash(read(book))


@pytest.mark.parametrize("wrong", ["http://elsewhere.example/x", "https://github.com/owner", "owner/name"])
def test_refuses_what_is_no_address(book, wrong):
    with pytest.raises(ValueError, match="must look like"):
        tool.change(wrong)
    assert tool.address() == tool.PLACEHOLDER


@pytest.mark.parametrize(
    "remote",
    [
        "https://github.com/owner/name",
        "https://github.com/owner/name.git",
        "git@github.com:owner/name.git",
        "https://someone@github.com/owner/name",
        "ssh://git@github.com/owner/name.git",
    ],
)
def test_without_a_url_the_address_is_that_of_origin(book, capsys, remote):
    subprocess.run(["git", "remote", "add", "origin", remote], cwd=book, check=True)
    assert tool.main([]) == 0
    assert tool.address() == "https://github.com/owner/name"
    assert capsys.readouterr().out.endswith("https://github.com/owner/name\n")


@pytest.mark.parametrize("remote", [None, "/srv/book", "file:///srv/book.git", "https://example.org/a/b"])
def test_a_remote_elsewhere_or_none_changes_nothing(book, capsys, remote):
    if remote:
        subprocess.run(["git", "remote", "add", "origin", remote], cwd=book, check=True)
    assert tool.main([]) == 0
    assert capsys.readouterr().out == f"{tool.PLACEHOLDER}\n"
    assert "Open in Colab" not in (book / "one.ipynb").read_text()


def test_a_release_needs_an_address(book, capsys):
    assert tool.main(["--settled"]) == 1
    assert "still the placeholder" in capsys.readouterr().err
    tool.change("https://github.com/new/name")
    assert tool.main(["--settled"]) == 0
