"""What a chapter's cells ask: quick or full, and does the text hold."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import pytest
from pandas import DataFrame

from prunebook.book import stage as chapters


@pytest.mark.parametrize(("value", "expected"), [("1", 2), ("0", 10), ("", 10)])
def test_quick_chooses_by_the_environment(monkeypatch, value, expected):
    monkeypatch.setenv("PRUNEBOOK_QUICK", value)
    assert chapters.quick(10, 2) == expected


def test_a_claim_that_does_not_hold_stops_the_chapter(monkeypatch):
    monkeypatch.delenv("PRUNEBOOK_QUICK", raising=False)
    with pytest.raises(AssertionError, match="3 is even"):
        chapters.expect("3 is even", False, SimpleNamespace(name="mnist"))


@pytest.mark.parametrize(
    ("quick", "name", "holds"), [("0", "mnist", True), ("1", "mnist", False), ("0", "digits", False)]
)
def test_a_claim_that_holds_is_printed_and_in_a_quick_run_or_on_other_data_any(
    monkeypatch, capsys, quick, name, holds
):
    monkeypatch.setenv("PRUNEBOOK_QUICK", quick)
    chapters.expect("so it is", holds, SimpleNamespace(name=name))
    said = "Checked" if holds else "Not so in this quick or other-data run"
    assert capsys.readouterr().out == f"{said}: so it is.\n"


@pytest.mark.parametrize(("holds", "said"), [(True, "Checked"), (False, "Not so on this machine, this time")])
def test_a_claim_about_time_is_never_an_error(monkeypatch, capsys, holds, said):
    monkeypatch.delenv("PRUNEBOOK_QUICK", raising=False)
    chapters.timing("sparse is faster", holds)
    assert capsys.readouterr().out == f"{said}: sparse is faster.\n"


def test_numbers_of_a_table_are_written_to_be_read():
    frame = DataFrame({"kept": [399.0, 7840], "test": [95.678, 4], "what": ["a", "b"]}, index=[399, 1331])
    frame.loc[1331, "test"] = None
    assert chapters.numbers(frame).to_dict("list") == {
        "kept": ["399", "7,840"],
        "test": ["95.7", "-"],
        "what": ["a", "b"],
    }
    assert chapters.numbers(frame, 2)["test"].tolist() == ["95.68", "-"]
    assert chapters.numbers(frame).index.tolist() == ["399", "1,331"]


def test_setup_names_versions_and_device(capsys, monkeypatch):
    monkeypatch.setenv("PRUNEBOOK_DEVICE", "cpu")
    chapters.setup(minutes=3)
    out = capsys.readouterr().out
    assert out.startswith("The chapter takes about 3 minutes on one CPU core; here: cpu, torch ")
    chapters.setup(minutes=1)
    assert "about 1 minute on" in capsys.readouterr().out
    with pytest.raises(ValueError, match="minutes must be"):
        chapters.setup(minutes=0)


def test_a_table_is_found_beside_the_chapter_and_from_the_root(tmp_path, monkeypatch):
    (tmp_path / "book/results").mkdir(parents=True)
    (tmp_path / "book/results/runs.csv").write_text("k,seed\n90,0\n")
    for folder in (tmp_path, tmp_path / "book"):
        monkeypatch.chdir(folder)
        assert chapters.table("runs").to_dict("list") == {"k": [90], "seed": [0]}


def test_a_table_that_is_not_here_is_read_from_the_repository(tmp_path, monkeypatch):
    asked = []

    def read_csv(address):
        asked.append(address)
        raise OSError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chapters, "read_csv", read_csv)
    with pytest.raises(FileNotFoundError, match=r"no table 'runs'.*no network"):
        chapters.table("runs")
    assert asked[0].startswith("https://raw.githubusercontent.com/")
    assert asked[0].endswith("/main/book/results/runs.csv")


@pytest.mark.parametrize("missing", ["IPython", "ipywidgets", "matplotlib", "pandas", "seaborn"])
def test_without_its_extra_the_stage_says_how_to_install_it(monkeypatch, missing):
    for name in list(sys.modules):
        if name.startswith(("prunebook.book", f"{missing}.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'needs {missing}: pip install "prunebook\[book\]"'):
        importlib.import_module("prunebook.book")
