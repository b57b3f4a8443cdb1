"""Every chapter, by glob: its form, its stored outputs, and the one address that all carry."""

from __future__ import annotations

import ast
import copy
import re
import statistics
import tomllib
from html.parser import HTMLParser
from importlib import import_module
from itertools import chain, pairwise
from pathlib import Path

import nbformat
import pytest
import yaml
from address import PLACEHOLDER, ROOT, address, badge
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from notebooks import LIVE, chapters, fold, source_hash
from pandas import read_csv
from picture import PICTURE, digest, table

CHAPTERS = chapters()
READ = {path.stem: nbformat.read(path, as_version=4) for path in CHAPTERS}
CLINIC = "yours"  # the one notebook that is no lesson
each_chapter = pytest.mark.parametrize("name", READ)
each_lesson = pytest.mark.parametrize("name", [name for name in READ if name != CLINIC])
FOLDED = {"hide-cell", "hide-input", "remove-cell", "solution"}

CODE_OR_FORMULA = re.compile(r"```.*?```|`[^`\n]+`|\$\$.*?\$\$|\]\([^)]*\)", re.DOTALL)

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
    return [cell for cell in code(name) if not tags(cell) & {"hide-cell", "remove-cell", "solution"}]


def test_there_are_chapters_and_the_contents_list_them_all():
    listed = (ROOT / "_toc.yml").read_text()
    assert CHAPTERS
    for path in CHAPTERS:
        assert f"book/{path.stem}\n" in listed


def shows_a_picture(cell):
    bundles = [output.get("data", {}) for output in cell.outputs]
    drawn = ("image/png" in bundle or 'class="one-page"' in bundle.get("text/html", "") for bundle in bundles)
    return any(drawn)


@each_chapter
def test_begins_with_a_paragraph_then_a_picture_and_then_the_set_up(name):
    first, picture, explained, set_up, *_ = READ[name].cells
    title, *rest = first.source.split("\n\n")
    assert title.startswith("# ")
    assert re.findall(r"^# .*", text(name), re.MULTILINE) == [title]
    link = [] if address() == PLACEHOLDER else [badge(name, address())]
    assert rest[: len(link)] == link
    assert len(rest[len(link)].split()) > 20
    assert shows_a_picture(picture)
    assert tags(picture) >= {"hide-input"}
    assert "You will learn" in explained.source
    assert "book.setup(" in set_up.source
    assert tags(set_up) >= {"hide-cell", "nbval-ignore-output"}
    assert text(name).count("colab.research") == len(link)


@each_chapter
def test_the_first_code_cell_installs_the_package_where_it_is_missing_and_never_torch(name):
    first, begins = code(name)[0].source, code(CHAPTERS[0].stem)[0].source.splitlines()[:10]
    assert begins[0] == "# @title The picture of this chapter; on Colab, this installs the package"
    assert begins[-1] == "    %pip install -q --no-deps git+{ADDRESS}"
    assert first.splitlines()[:10] == begins
    assert "\nfrom prunebook import book\n" in first
    assert re.findall(r"%pip install .*", text_of_code(name)) == ["%pip install -q --no-deps git+{ADDRESS}"]
    assert f'ADDRESS = "{address()}"' in first


def text_of_code(name):
    return "\n".join(cell.source for cell in code(name))


@each_lesson
def test_has_the_parts_of_a_chapter(name):
    headings = re.findall(r"^## (.+)$", text(name), re.MULTILINE)
    for part in ("What can go wrong", "Recap", "Exercises", "Sources"):
        assert part in headings
    assert "> **You will learn**" in text(name)
    assert "Time: " in text(name)
    assert "Before you start: " in text(name)
    recap = text(name).split("## Recap")[1].split("## ")[0]
    assert len(re.findall(r"^- ", recap, re.MULTILINE)) == 3
    assert "One number" in recap


@each_lesson
def test_exercises_have_folded_solutions_that_are_run(name):
    numbers = [int(number) for number in re.findall(r"^> \*\*Exercise (\d):", text(name), re.MULTILINE)]
    assert 3 <= len(numbers) <= 5
    assert numbers == [*range(1, len(numbers) + 1)]
    cells = READ[name].cells
    for at, cell in enumerate(cells):
        if cell.source.startswith("> **Exercise"):
            solution = cell.source.split("<details>\n<summary>Solution</summary>\n\n")[1]
            words = solution.removesuffix("\n\n</details>").split()
            assert len(words) >= 8, cell.source
            number = re.match(r"> \*\*Exercise (\d)", cell.source)[1]
            if "solution" in tags(cells[at + 1]):
                assert cells[at + 1].source.startswith(f"# @title Solution {number}: ")


# Markup of MyST, which JupyterLab and Colab show as it is written
MYST = r"\{[a-z][\w:-]*\}`|(?:```|:::)+ ?\{|^\([\w-]+\)=|^:[a-z]+:|^%"


@pytest.mark.parametrize("page", [*READ, "intro"])
def test_plain_markdown_shows_no_raw_markup(page):
    cells = READ[page].cells if page in READ else [{"cell_type": "markdown", "source": lines("intro.md")}]
    for cell in cells:
        if cell["cell_type"] == "markdown":
            shown = Text()
            shown.feed(markdown2html_mistune(cell["source"]))
            assert not re.findall(MYST, shown.text, re.MULTILINE), cell["source"]
            assert shown.opened == [], cell["source"]
            quoted = [line for line in cell["source"].splitlines() if line.startswith(">")]
            assert cell["source"].count("$$") % 2 == 0, cell["source"]
            assert all(line.count("$") % 2 == 0 for line in quoted), "JupyterLab takes > into the formula"
            pictures = re.findall(r"!\[|<img", cell["source"])
            assert not pictures, "Colab has no file beside the notebook"


def lines(page):
    return (ROOT / "book" / page).read_text()


class Text(HTMLParser):
    """The text of a page outside of code, and the tags that are left open."""

    def __init__(self):
        super().__init__()
        self.text, self.opened = "", []

    def handle_starttag(self, tag, attrs):
        if tag not in ("br", "img", "hr"):
            self.opened.append(tag)

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag

    def handle_data(self, data):
        if not {"code", "pre"} & set(self.opened):
            self.text += data


@pytest.mark.parametrize("page", [*READ, "intro"])
def test_links_between_chapters_lead_to_files_and_headings_that_are_there(page):
    written = text(page) if page in READ else lines("intro.md")
    for file, anchor in re.findall(r"\]\(([\w-]*(?:\.ipynb|\.md)?)(?:#([^)]*))?\)", written):
        own = f"{page}.ipynb" if page in READ else f"{page}.md"
        target = ROOT / "book" / (file or own)
        assert target.is_file(), file
        if anchor:
            there = text(target.stem) if target.suffix == ".ipynb" else target.read_text()
            headings = re.findall(r"^#+ (.*)$", there, re.MULTILINE)
            assert anchor in [heading.replace(" ", "-") for heading in headings], (file, anchor)


@each_chapter
def test_cells_fold_in_colab_and_in_jupyterlab_as_in_the_pages(name):
    for cell in code(name):
        before = copy.deepcopy(cell)
        fold(cell)
        assert cell == before, f"make notebooks NAMES={name}"
        assert bool(tags(cell) & FOLDED) == (cell.metadata.get("cellView") == "form")
        assert bool(tags(cell) & FOLDED) == cell.source.startswith("# @title "), cell.source
        hidden = cell.metadata.get("jupyter", {})
        assert hidden.get("source_hidden", False) == bool(tags(cell) & FOLDED)
        assert hidden.get("outputs_hidden", False) == bool(tags(cell) & {"remove-cell", "solution"})


@each_chapter
def test_at_most_four_cells_check_the_text(name):
    assert sum("remove-cell" in tags(cell) for cell in code(name)) <= 4


def test_at_most_a_tenth_of_all_code_cells_check_the_text():
    cells = [cell for name in READ for cell in code(name)]
    assert sum("remove-cell" in tags(cell) for cell in cells) <= len(cells) / 10


@each_lesson
def test_is_short_enough(name):
    prose = re.sub(CODE_OR_FORMULA, "", re.sub(r"\]\([^)]*\)", "]", text(name)))
    assert len(re.findall(r"[A-Za-z]+", prose)) <= 2500
    own = [cell.source.split("{ADDRESS}\n")[-1] for cell in body(name)]  # less the lines that install
    lines = [sum(bool(line.strip()) for line in source.splitlines()) for source in own]
    assert max(lines) <= 25
    assert statistics.median(lines) <= 6


@each_chapter
def test_prose_stands_between_code_cells(name):
    kinds = [
        cell.cell_type
        for cell in READ[name].cells
        if cell.cell_type == "markdown" or not tags(cell) & {"remove-cell", "hide-cell", "solution"}
    ]
    assert "code code code" not in " ".join(kinds)


@each_lesson
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
def test_every_figure_has_a_caption_below_that_says_what_to_see(name):
    for cell, below in pairwise(READ[name].cells):
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            caption = re.match(r"\*[^*](?:[^*]|\*\*)+\*$", below.source.split("\n\n")[0])
            assert caption, f"no caption in italics below {cell.source}"
            assert len(caption[0].split()) >= 5, caption[0]


@each_chapter
def test_lines_of_code_fit_the_column_of_a_page(name):
    assert [line for line in text_of_code(name).splitlines() if len(line) > 76] == []


@pytest.mark.parametrize("page", [*READ, "intro", "contract", "recipes", "teachers"])
def test_no_line_breaks_between_a_number_and_its_percent_sign(page):
    written = text(page) if page in READ else lines(f"{page}.md")
    assert re.findall(r".{0,20}[\w$][ \n]%(?!\w)", re.sub(CODE_OR_FORMULA, "x", written)) == []


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


def test_one_address_everywhere():
    wrong = [
        (path.name, found)
        for path in [
            *ROOT.glob("*.md"),
            *ROOT.glob("*.toml"),
            *ROOT.glob("*.cff"),
            *ROOT.glob("book/*.[imb]*"),
        ]
        if path.is_file()
        for found in re.findall(r"https://github\.com/[\w.-]+/prunebook\b", path.read_text())
        if found != address()
    ]
    assert not wrong
    for file in ("README.md", "CITATION.cff", "pyproject.toml"):
        assert address() in (ROOT / file).read_text(), file


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
    assert all(f"| `{room}" in (ROOT / "README.md").read_text() for room in expected)
    overview = (ROOT / "book/api.md").read_text()
    for path in (ROOT / "book/api").glob("*.md"):
        shown = re.findall(r"^\.\. room:: (\w+)$", path.read_text(), re.MULTILINE)
        assert f"(api/{path.name}): {', '.join(f'`prunebook.{room}`' for room in shown)}\n" in overview
        expected -= set(shown)
    assert not expected


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


WITHIN = {
    "graph",
    "flow",
    "recording",
    "chosen",
    "commands",
    "slots",
}  # tested through the modules that use them


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
