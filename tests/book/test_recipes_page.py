"""Every recipe of the page runs after the page's first lines, and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "book/recipes.md"
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
INTRO, *SECTIONS = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
QUESTIONS = {section.splitlines()[0]: section for section in SECTIONS}


def blocks(text: str) -> list[tuple[str, str]]:
    return BLOCK.findall(text)


def test_there_are_15_questions_with_one_answer_in_code_each():
    assert len(QUESTIONS) == 15
    assert all(title.endswith("?") and len(blocks(text)) == 1 for title, text in QUESTIONS.items())


@pytest.mark.parametrize("title", QUESTIONS)
@pytest.mark.filterwarnings("default")
def test_a_recipe_prints_what_the_page_says(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRUNEBOOK_DEVICE", "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ((start, _),), ((code, wanted),) = blocks(INTRO), blocks(QUESTIONS[title])
    said, space = io.StringIO(), {"__name__": "recipe"}
    try:
        exec(compile(start, "the first lines", "exec"), space)
        with contextlib.redirect_stdout(said):
            exec(compile(code, title, "exec"), space)
    finally:
        torch.set_num_threads(threads)
    assert said.getvalue() == wanted


def test_lines_of_code_fit_the_column_of_a_page():
    assert [
        line for code, _ in blocks(PAGE.read_text("utf-8")) for line in code.splitlines() if len(line) > 76
    ] == []
