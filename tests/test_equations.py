"""Every numbered equation of the book is one line of the package, found by its label."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What the package does not compute, and why.
NOT_IN_THE_PACKAGE = {
    "eq-gain-time": "a model of times, to set beside those that `latency` measures",
}
LABEL = re.compile(r"\\tag\{(eq-[a-z0-9-]+)\}")
LABELS = [label for page in sorted(ROOT.glob("book/*.ipynb")) for label in LABEL.findall(page.read_text())]


def test_labels_are_unique():
    assert LABELS
    assert len(LABELS) == len(set(LABELS))
    assert set(NOT_IN_THE_PACKAGE) <= set(LABELS)


@pytest.mark.parametrize("label", LABELS)
def test_the_line_that_computes_an_equation_carries_its_label(label):
    lines = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in ROOT.glob("src/**/*.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(rf"# {label}\b(?!-)", line)
    ]
    assert len(lines) == (label not in NOT_IN_THE_PACKAGE), lines
