"""The protocol of the comparison: which runs there are, by which settings, and what their rows say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from pandas import read_csv
from small import make_prototypes

import prunebook as pb
from prunebook.experiments import comparison as compare
from prunebook.experiments import recipes
from prunebook.experiments.commands import main
from prunebook.experiments.comparison import BESIDE, CHOSEN, CLOSE, DENSITIES, GRID, LAYERWISE, METHODS
from prunebook.experiments.recipes import CompareRun
from prunebook.experiments.tables import is_row_of, read_rows
from prunebook.tools.costs import macs, stored


class Named(NamedTuple):
    name: str


RESULTS = Path(__file__).parents[2] / "book/results"
RUN = CompareRun("magnitude, global, one-shot", 0.1, 0, 5, "lr=0.004 before=0.4")


@pytest.fixture
def data(monkeypatch):
    given = make_prototypes(400, 3)
    test = pb.Split(given.test.images[:50], given.test.labels[:50])
    given = replace(given, test=test)
    monkeypatch.setattr(compare, "_data", lambda name: given)
    return given


def test_a_row_says_what_the_network_can_do_and_what_it_costs(data):
    row = compare.measure(RUN)
    net = METHODS[RUN.method](RUN, data)  # once more: a run repeats itself
    small = pb.shrink(net)
    assert row["kept"] == 26_620
    assert 0 < row["effective"] <= 26_620
    assert row["validation_accuracy"] == pytest.approx(pb.evaluate(net, data.valid).accuracy, abs=1e-6)
    assert row["test_accuracy"] == pytest.approx(pb.evaluate(net, data.test).accuracy, abs=1e-6)
    assert (row["macs"], row["macs_nonzero"]) == tuple(macs(small, data.test.images[:1]).__dict__.values())
    assert [row[f"bytes_{form}"] for form in ("dense", "csr", "bitmask")] == [
        stored(small).dense,
        stored(small).csr,
        stored(small).bitmask,
    ]
    assert min(row["ms"], row["dense_ms"], row["seconds"]) > 0
    assert row["threads"] == torch.get_num_threads()
    assert torch.__version__ in row["versions"]


def test_settings_are_chosen_without_the_test_split(data, monkeypatch):
    monkeypatch.setattr(compare, "_data", lambda name: replace(data, test=None))
    row = compare.validate(RUN)
    assert row["validation_accuracy"] > 0
    assert "test_accuracy" not in row


def test_every_method_is_searched_as_much_by_a_seed_that_is_in_no_table():
    runs = compare.search_runs()
    assert set(Counter((run.method, run.density) for run in runs).values()) == {6}
    assert {run.seed for run in runs} == {compare.SEARCH_SEED}
    assert compare.SEARCH_SEED not in {run.seed for run in compare.frontier_runs()}
    assert set(GRID) | {"torch.nn.utils.prune", "Torch-Pruning"} == set(METHODS) == set(CHOSEN)


def test_the_settings_are_the_best_of_the_search():
    table = read_csv(RESULTS / "search.csv")
    assert "test_accuracy" not in table
    assert len(table) == len(compare.search_runs())
    for (method, density), rows in table.groupby(["method", "density"]):
        tried = rows.set_index("settings").validation_accuracy
        assert set(tried.index) == set(GRID[method])
        (run, *_) = compare.runs([method], [1.0 if method == "dense" else density], [0], 1, "mnist")
        assert tried[run.settings] == tried.max(), method


def test_the_table_has_ten_methods_at_eight_densities_and_five_seeds_where_they_differ():
    runs = [run for run in compare.frontier_runs() if run.data == "mnist" and run.epochs == compare.EPOCHS]
    seeds = Counter((run.method, run.density) for run in runs)
    whole = [name for name in METHODS if all(seeds[name, density] >= 2 for density in DENSITIES)]
    assert len(whole) >= 10
    close = [name for name in whole if name not in LAYERWISE]
    assert len(close) >= 10
    assert {seeds[name, density] for name in close for density in CLOSE} == {5}
    assert set(METHODS) == {run.method for run in runs} > set(BESIDE)
    assert len(set(runs)) == len(runs)


def test_the_stored_table_is_of_these_runs_and_whole():
    rows = read_rows(RESULTS / "comparison.csv")
    runs = compare.frontier_runs()
    mains = [run for run in runs if run.epochs <= 30]
    keys = Counter(tuple(list(row.values())[:7]) for row in rows)
    assert set(keys.values()) == {1}  # none twice
    assert all(any(is_row_of(run, row) for run in runs) for row in rows)
    assert not [run for run in mains if not any(is_row_of(run, row) for row in rows)]
    assert not any(row.get("error") for row in rows)


def test_runs_that_cannot_be_are_left_out():
    found = compare.runs(["dense", "linear classifier", "unit norm"], [0.5, 0.02, 0.0015], [7], 3, "fashion")
    assert [(run.method, run.density) for run in found] == [
        ("dense", 1.0),
        ("linear classifier", 7840 / 266_200),
        ("linear classifier", 0.02),
        ("linear classifier", 0.0015),
        ("unit norm", 0.5),
        ("unit norm", 0.02),
    ]
    assert {(run.seed, run.epochs, run.data) for run in found} == {(7, 3, "fashion")}


def test_bad_runs_are_told():
    with pytest.raises(ValueError, match=r"methods must be among .*'gumbel'.*, got 'magic'"):
        compare.runs(["magic"], [0.5], [0], 3, "mnist")
    with pytest.raises(ValueError, match="densities must be shares above 0, up to 1, got 2"):
        compare.runs(["gumbel"], [2], [0], 3, "mnist")
    with pytest.raises(ValueError, match="epochs must be at least 0, got -1"):
        compare.runs(["gumbel"], [0.5], [0], -1, "mnist")
    with pytest.raises(ValueError, match="seeds must be at least 0, got -2"):
        compare.runs(["gumbel"], [0.5], [0, -2], 1, "mnist")
    with pytest.raises(ValueError, match="network must be '784-300-100-10', got 'mine'"):
        replace(RUN, network="mine")


def test_the_data_of_a_run_is_loaded_once_and_never_replaced(monkeypatch):
    loaded = []
    monkeypatch.setattr(compare, "load_data", lambda name: loaded.append(name) or Named(name))
    compare._data.cache_clear()
    assert [compare._data(name).name for name in ("mnist", "mnist", "fashion")] == [
        "mnist",
        "mnist",
        "fashion",
    ]
    assert loaded == ["mnist", "fashion"]
    monkeypatch.setattr(compare, "load_data", lambda name: Named("digits"))
    compare._data.cache_clear()
    with pytest.raises(ConnectionError, match="data 'mnist' is not at hand here: python -m prunebook data"):
        compare._data("mnist")
    compare._data.cache_clear()


def test_the_network_is_lenet():
    assert sum(p.numel() for p in pb.lenet_300_100().parameters() if p.dim() == 2) == recipes.WEIGHTS
    assert recipes.NETWORK == "784-300-100-10"


def test_a_comparison_is_a_table_of_rows_that_goes_on(data, tmp_path):
    table = tmp_path / "mine.csv"
    first = compare.compare(["dense", "small dense"], [0.02], seeds=[3], epochs=1, path=table)
    assert list(first.method) == ["dense", "small dense"]
    assert first.test_accuracy.between(0, 1).all()
    assert first.kept.tolist() == [266_200, 5356]
    before = table.read_text()
    more = compare.compare(["small dense", "random"], [0.02], seeds=[3], epochs=1, path=table)
    assert list(more.method) == ["small dense", "random"]
    assert table.read_text().startswith(before)
    assert more.iloc[0].dropna().to_dict() == first.iloc[1].dropna().to_dict()


def test_a_method_that_fails_is_a_row_that_says_why(data, monkeypatch):
    def fail(run, data):
        raise RuntimeError("no such luck")

    monkeypatch.setitem(METHODS, "random", fail)
    with pytest.warns(UserWarning, match="1 of 2 runs failed, such as random: RuntimeError: no such luck"):
        rows = compare.compare(["random", "small dense"], [0.02], seeds=[0], epochs=0)
    assert rows.error.fillna("").tolist() == ["RuntimeError: no such luck", ""]


def test_the_command_compares_and_prints(data, tmp_path, capsys):
    table = str(tmp_path / "mine.csv")
    given = ["compare", "--methods", "small dense", "--densities", "0.02", "0.005", "--seeds", "1", "2"]
    assert main([*given, "--epochs", "1", "--table", table]) == 0
    shown = capsys.readouterr().out
    assert "4 new rows, 4 in all" in shown
    assert "small dense" in shown
    assert main([*given, "--epochs", "1", "--table", table]) == 0
    assert "0 new rows, 4 in all" in capsys.readouterr().out
    assert main([*given, "--epochs", "0", "--table", table]) == 0  # others in the same table
    shown = capsys.readouterr().out.splitlines()[-1].split()
    zero = read_csv(table).query("epochs == 0").groupby("density")["test_accuracy"].mean()
    assert [float(value) for value in shown[2:4]] == pytest.approx(100 * zero.to_numpy(), abs=0.01)
    assert main(["compare", "--densities", "2", "--table", table]) == 2
    assert "densities must be shares above 0, up to 1, got 2" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "runs"), [("frontier", "frontier_runs"), ("search", "search_runs")])
def test_the_commands_of_the_book_fill_its_tables(command, runs, data, tmp_path, monkeypatch, capsys):
    few = [replace(run, epochs=0) for run in getattr(compare, runs)() if run.method == "small dense"][:2]
    monkeypatch.setattr(f"prunebook.experiments.commands.{runs}", lambda: few)
    table = tmp_path / "table.csv"
    assert main([command, "--table", str(table)]) == 0
    assert "2 new rows, 2 in all" in capsys.readouterr().out
    assert ("test_accuracy" in read_csv(table)) == (command == "frontier")


def test_a_command_tells_what_failed_each_time_and_what_it_lacks(data, tmp_path, monkeypatch, capsys):
    def fail(run, data):
        raise RuntimeError("no such luck")

    monkeypatch.setitem(METHODS, "random", fail)
    given = ["compare", "--methods", "random", "--densities", "0.5", "--seeds", "0"]
    for _ in "ab":
        assert main([*given, "--table", str(tmp_path / "table.csv")]) == 1
        assert "random at 0.5, seed 0: RuntimeError: no such luck" in capsys.readouterr().err
    none = ["compare", "--methods", "unit norm", "--densities", "0.0015", "--table", str(tmp_path / "none")]
    assert main(none) == 0
    assert "0 new rows, 0 in all" in capsys.readouterr().out
    assert main([*given, "--processes", "0", "--table", str(tmp_path / "table.csv")]) == 2
    assert "n must be at least 1, got 0" in capsys.readouterr().err


def test_help_teaches_the_methods(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(method in shown for method in METHODS)
    assert "--dask" in shown
