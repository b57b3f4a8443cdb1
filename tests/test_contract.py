"""The contract, cell by cell, and the table of it in the reference."""

import re
from pathlib import Path

import contract
import pytest
import torch

PAGE = Path(__file__).resolve().parents[1] / "book/contract.md"


@pytest.mark.parametrize("method", contract.METHODS)
@pytest.mark.parametrize("title", contract.SITUATIONS)
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_each_situation_with_each_method(title, method, device):
    shown = dict(re.findall(r"^\| (.+?)(?: \[\d+\])? \| (.+) \|$", PAGE.read_text(), re.MULTILINE))
    column = list(contract.METHODS).index(method)
    with torch.random.fork_rng():
        assert contract.run(title, method, device) == shown[title].split(" | ")[column]


def test_the_page_shows_the_whole_table_and_its_notes():
    text = PAGE.read_text()
    rows = re.findall(r"^\| (.+?)(?: \[\d+\])? \| ", text, re.MULTILINE)
    assert rows == ["situation", *contract.SITUATIONS]
    notes = [note for note, _ in contract.SITUATIONS.values() if note]
    assert re.findall(r"^\d+\. (.+)$", text, re.MULTILINE) == notes
