"""The rooms of the package: each floor imports only from those below it, and nothing in them is large."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
FLOORS = (
    ("checks", "layers", "slots", "step_state", "masking", "cover"),
    ("shrinking",),
    ("methods",),
    ("tools",),
    ("read",),
    ("training",),
    ("experiments",),
    ("book",),
    ("__init__", "__main__"),
)
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 60


def module_name(path):
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(SRC.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
each_module = pytest.mark.parametrize("name", FILES)


def floor(name):
    room = [*name.split("."), "__init__"][1]
    (number,) = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    return number


def imported(name):
    """Return the modules of the package that a module imports anywhere, in functions too."""
    package = name if FILES[name].stem == "__init__" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, (parent, node.module)))
            below = {f"{module}.{alias.name}" for alias in node.names} & FILES.keys()
            names_of_the_module = len(below) < len(node.names)
            found |= below | ({module} if names_of_the_module else set())
    return found & FILES.keys()


def test_the_reading_of_imports_finds_some():
    assert "prunebook.masking" in imported("prunebook.methods.soft")


@each_module
def test_imports_only_from_the_floors_below(name):
    above = {other for other in imported(name) if floor(other) > floor(name)}
    assert not above


def test_no_module_imports_itself_by_a_circle():
    circle = []
    try:
        TopologicalSorter({name: imported(name) for name in FILES}).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert not circle


@each_module
def test_files_and_functions_are_small(name):
    assert len(FILES[name].read_text().splitlines()) <= MOST_LINES
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION
    }
    assert not long
