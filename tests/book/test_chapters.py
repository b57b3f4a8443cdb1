"""Every chapter, by glob: its form, its stored outputs, and the one address that all carry."""

from __future__ import annotations

import ast
import re
import statistics
import tomllib
from importlib import import_module
from itertools import chain
from pathlib import Path

import nbformat
import pytest
import yaml
from address import ROOT, address, slug
from notebooks import LIVE, chapters, source_hash
from pandas import read_csv
from picture import PICTURE, digest, table

CHAPTERS = chapters()
READ = {path.stem: nbformat.read(path, as_version=4) for path in CHAPTERS}
each_chapter = pytest.mark.parametrize("name", READ)

NOT_IN_A_CELL = {
    "a loop or a network of its own": r"^(def train|class \w*(Net|Mask|Prun))",
    "an assert about time": r"book\.expect\([^)]*\b(fast|slow)(er)?\b",  # book.timing notes it
}


def lines_of(file):
    return [line for line in (ROOT / file).read_text().splitlines() if line]


def tags(cell):
    return set(cell.metadata.get("tags", []))


def code(name):
    return [cell for cell in READ[name].cells if cell.cell_type == "code"]


def text(name):
    return "\n\n".join(cell.source for cell in READ[name].cells if cell.cell_type == "markdown")


def body(name):
    """The code cells that a reader works through: no set-up, no asserts, no solutions."""
    cells, in_solution = [], False
    for cell in READ[name].cells:
        if cell.cell_type == "markdown":
            in_solution = "{solution-start}" in cell.source or (
                in_solution and "{solution-end}" not in cell.source
            )
        elif not in_solution and not tags(cell) & {"hide-cell", "remove-cell"}:
            cells.append(cell)
    return cells


def test_there_are_chapters_and_the_contents_list_them_all():
    listed = (ROOT / "_toc.yml").read_text()
    assert CHAPTERS
    for path in CHAPTERS:
        assert f"book/{path.stem}\n" in listed


@each_chapter
def test_starts_with_one_title_and_its_colab_badge(name):
    first = READ[name].cells[0].source.splitlines()
    assert first[0].startswith("# ")
    link = f"https://colab.research.google.com/github/{slug(address())}/blob/main/book/{name}.ipynb"
    assert first[2] == f"[![Open in Colab](_static/open-in-colab.svg)]({link})"
    assert len(re.findall(r"^# ", text(name), re.MULTILINE)) == 1


@each_chapter
def test_has_the_parts_of_a_chapter(name):
    headings = re.findall(r"^## (.+)$", text(name), re.MULTILINE)
    for part in ("What can go wrong", "Recap", "Exercises", "Sources"):
        assert part in headings
    assert "You will learn" in text(name)
    assert "Time: " in text(name)
    assert "To know first: " in text(name)
    recap = text(name).split("## Recap")[1].split("## ")[0]
    assert len(re.findall(r"^- ", recap, re.MULTILINE)) == 3
    assert "One number" in recap


@each_chapter
def test_exercises_have_executed_folded_solutions(name):
    labels = re.findall(r"^:label: (\S+)$", text(name), re.MULTILINE)
    exercises = [label for label in labels if f"{{solution-start}} {label}\n:class: dropdown" in text(name)]
    assert 3 <= len(exercises) <= 5
    assert len(exercises) == text(name).count("{exercise}") == text(name).count("{solution-end}")


@each_chapter
def test_is_short_enough(name):
    words = len(re.findall(r"[A-Za-z]+", text(name)))
    assert words <= 1800
    lines = [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in body(name)]
    assert max(lines) <= 25
    assert statistics.median(lines) <= 6


@each_chapter
def test_prose_stands_between_code_cells(name):
    kinds = [
        cell.cell_type
        for cell in READ[name].cells
        if cell.cell_type == "markdown" or not tags(cell) & {"remove-cell", "hide-cell"}
    ]
    assert "code code code" not in " ".join(kinds)


@each_chapter
@pytest.mark.parametrize("what", NOT_IN_A_CELL)
def test_no_cell_holds(name, what):
    found = re.compile(NOT_IN_A_CELL[what], re.MULTILINE)
    assert not [cell.source for cell in code(name) if found.search(cell.source)]


@each_chapter
def test_notes_about_time_are_not_compared(name):
    timed = [cell for cell in code(name) if "book.timing(" in cell.source]
    assert all("nbval-ignore-output" in tags(cell) for cell in timed)


@each_chapter
def test_takes_names_from_the_package_that_are_there(name):
    places = {"pb": "prunebook", "book": "prunebook.book", "plots": "prunebook.book.plots"}
    for cell in code(name):
        for node in ast.walk(ast.parse(re.sub(r"^\s*%.*$", "    pass", cell.source, flags=re.MULTILINE))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("prunebook"):
                for taken in node.names:
                    found = hasattr(import_module(node.module), taken.name)
                    assert found or import_module(f"{node.module}.{taken.name}")
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in places
            ):
                assert hasattr(import_module(places[node.value.id]), node.attr), (
                    f"{node.value.id}.{node.attr}"
                )


@each_chapter
def test_every_figure_has_an_alternative_text(name):
    for cell in code(name):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert len(cell.metadata["mystnb"]["image"]["alt"]) >= 40, cell.source


@each_chapter
def test_has_a_slider(name):
    pages = [output.get("data", {}).get("text/html", "") for cell in code(name) for output in cell.outputs]
    assert any('class="frame-slider"' in page for page in pages)


@each_chapter
def test_outputs_are_those_of_a_fresh_run_of_these_sources(name):
    assert [cell.execution_count for cell in code(name)] == list(range(1, len(code(name)) + 1))
    assert READ[name].metadata["prunebook"]["source_sha256"] == source_hash(READ[name]), (
        f"a cell of {name}.ipynb was edited and not run: make notebooks NAMES={name}"
    )


@each_chapter
def test_stored_outputs_hold_no_error_and_nothing_that_needs_a_kernel(name):
    assert "widgets" not in READ[name].metadata
    for cell in code(name):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert LIVE not in output.get("data", {})
            assert "Traceback" not in str(output)


@each_chapter
def test_set_up_cell_is_the_same_everywhere_and_never_installs_torch(name):
    first = code(name)[0].source
    assert first == code(CHAPTERS[0].stem)[0].source
    installs = re.findall(r"%pip install .*", first)
    assert installs == ["%pip install -q --no-deps git+{ADDRESS}"]
    assert f'ADDRESS = "{address()}"' in first


def test_one_address_everywhere():
    wrong = [
        (path.name, found)
        for path in [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.cff"), *ROOT.glob("book/*.*")]
        if path.is_file()
        for found in re.findall(r"https://github\.com/[\w.-]+/prunebook\b", path.read_text())
        if found != address()
    ]
    assert not wrong
    for file in ("README.md", "CITATION.cff", "pyproject.toml"):
        assert address() in (ROOT / file).read_text(), file


def test_changing_the_address_changes_all_of_it(tmp_path, monkeypatch):
    import address as tool

    (tmp_path / "_config.yml").write_text("repository:\n  url: &address https://github.com/a/b\n")
    (tmp_path / "page.md").write_text("https://github.com/a/b and colab/github/a/b/blob/main/x.ipynb")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    for command in (["init", "-q"], ["add", "."]):
        tool.subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert tool.change("https://github.com/new/name") == ["_config.yml", "page.md"]
    assert tool.address() == "https://github.com/new/name"
    assert (tmp_path / "page.md").read_text() == (
        "https://github.com/new/name and colab/github/new/name/blob/main/x.ipynb"
    )
    with pytest.raises(ValueError, match="must look like"):
        tool.change("http://elsewhere.example/x")


def test_the_picture_and_the_table_of_the_readme_are_of_the_stored_tables():
    readme = (ROOT / "README.md").read_text()
    assert digest() in PICTURE.read_text(), "python book/tools/picture.py"
    assert f"({PICTURE.relative_to(ROOT)})" in readme
    assert table() in readme, "python book/tools/picture.py"
    long = read_csv(ROOT / "book/results/gumbel.csv").query("method == 'gumbel, then exchange'")
    epochs = long["epochs"] + long["fine_tune"]
    assert f"Stars: what {epochs.min()} to {epochs.max()} epochs" in readme


def test_the_reference_and_the_readme_show_every_room():
    rooms = [path for path in (ROOT / "src/prunebook").iterdir() if path.is_dir() or path.suffix == ".py"]
    expected = {path.stem for path in rooms if not path.stem.startswith("_")}
    reference = (ROOT / "book/api.md").read_text()
    assert set(re.findall(r"^\.\. room:: (\w+)$", reference, re.MULTILINE)) == expected
    assert all(f"| `{room}" in (ROOT / "README.md").read_text() for room in expected)


def test_readme_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    commands = set(re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"book", "test"} <= commands
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command


@pytest.mark.slow
@pytest.mark.parametrize("file", ["README.md", "book/intro.md"])
def test_the_ten_lines_run(file, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.chdir(tmp_path)  # what they save
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)
    names = {}
    exec(lines, names)
    score = names["pb"].evaluate(names["small"], names["data"].test)
    assert score.accuracy > 0.8
    assert names["small"][0].out_channels == 10
    assert "latency" in capsys.readouterr().out


def test_version_lives_in_one_place():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    import prunebook

    assert str(citation["version"]) == prunebook.__version__


def test_every_dependency_has_one_pin():
    *pins, package = [line for line in lines_of("requirements.txt") if not line.startswith("#")]
    assert package == "-e ."
    pinned = [re.fullmatch(r"([\w-]+)==[\w.]+", pin)[1] for pin in pins]
    assert len(pinned) == len(set(pinned))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: wanted for name, wanted in project["optional-dependencies"].items() if name != "interop"}
    wanted = [*project["dependencies"], *chain(*extras.values())]
    assert {re.match(r"[\w-]+", name)[0] for name in wanted} <= set(pinned)


def test_one_range_of_python_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: "
    claimed = [line.removeprefix(prefix) for line in project["classifiers"] if line.startswith(prefix)]
    assert project["requires-python"] == f">={claimed[0]}"
    assert f"Python {claimed[0]} to {claimed[-1]}" in (ROOT / "README.md").read_text()
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == [*claimed, "3.14"]


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.stem)
def test_every_test_asserts_something(path):
    checks = ("assert", "raises", "warns", "check", "expect", "skip")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            assert any(word in ast.unparse(node).split(":", 1)[1] for word in checks), node.name


WITHIN = {"graph", "flow", "recording", "commands", "slots"}  # tested through the modules that use them


def test_every_module_has_its_tests_and_names_its_chapter():
    source = ROOT / "src/prunebook"
    for path in sorted(source.rglob("[!_]*.py")):
        test = ROOT / "tests" / path.relative_to(source).with_name(f"test_{path.name}")
        of_folder = test.parent.with_name(f"test_{path.parent.name}.py")
        assert path.stem in WITHIN or test.is_file() or of_folder.is_file(), path.name
        last = ast.get_docstring(ast.parse(path.read_text())).splitlines()[-1]
        chapter = re.fullmatch(r"Chapter: (book/\S+)", last)
        assert chapter, path.name
        assert Path(ROOT / chapter[1]).is_file(), last
