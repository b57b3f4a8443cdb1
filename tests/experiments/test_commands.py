"""The command line: what is the same for every table, and what only some commands do."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pandas import read_csv
from small import make_prototypes

import prunebook as pb
from prunebook.experiments import adaptive, comparison, gumbel, latency, pruning, search, starts
from prunebook.experiments.commands import TABLES, main, make_parser, runs_of
from prunebook.experiments.comparison import METHODS
from prunebook.experiments.tables import missing, read_rows, rewriting, rows_of

RESULTS = Path(__file__).parents[2] / "book/results"
STORED = {  # of each command that fills a table of the book: its runs, and how many have a row today
    "pruning": (69, 69),
    "adaptive": (115, 86),
    "gumbel": (60, 60),
    "toy": (20, 20),
    "frontier": (777, 480),
    "search": (306, 306),
    "trials": (90, 60),
    "starts": (45, 45),
}
SHORT = {
    "steps": 20,
    "fine_tune": 1,
    "epochs_after": 0,
    "epochs": 1,
    "density": 0.5,
}  # if a run has them
each_table = pytest.mark.parametrize("command", TABLES)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    given = make_prototypes(60, 3)
    given = replace(given, test=pb.Split(given.test.images[:50], given.test.labels[:50]))
    for module in (pruning, adaptive, gumbel, comparison, search, starts):
        monkeypatch.setattr(module, "data_of", lambda name: given)
    for module in (pruning, adaptive):
        monkeypatch.setattr(module, "SIZES", (784, 20, 20, 10))
    for cached in (pruning._dense, adaptive._learned, gumbel._trained_gates, starts._begin):
        cached.cache_clear()


def default_runs(command):
    return runs_of(TABLES[command], make_parser().parse_args([command]))


def fail(run, data):
    raise RuntimeError("no such luck")


@pytest.fixture
def no_luck(monkeypatch):
    monkeypatch.setitem(METHODS, "random", METHODS["random"]._replace(train=fail))


@pytest.mark.parametrize("command", [*TABLES, "latency", "data", "check"])
def test_every_command_starts_with_its_defaults_and_explains_itself(command, capsys):
    given = [command, *{"data": ["mnist"], "check": ["toy"]}.get(command, [])]
    assert callable(make_parser().parse_args(given).run)
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert ("--table" in shown) == (command not in ("data", "check"))
    assert ("--dask" in shown) == (command in TABLES)
    assert command != "compare" or all(method in shown for method in METHODS)


@each_table
@pytest.mark.filterwarnings("ignore:k=50 was reached only after the last step")  # a run of one step
def test_a_command_fills_its_table_once_and_goes_on_where_it_stopped(command, tmp_path, monkeypatch, capsys):
    path, runs = tmp_path / "results" / "table.csv", default_runs(command)
    few = [
        run.but(**{name: value for name, value in SHORT.items() if name in vars(run)})
        for run in (runs[0], runs[1])
    ]
    known = [0]
    short = replace(TABLES[command], runs=lambda **given: [few[number] for number in known])
    monkeypatch.setitem(TABLES, command, short)
    for known, new in (([0], 1), ([1, 0], 1), ([1, 0], 0)):
        assert main([command, "--table", str(path)]) == 0
        assert f"{new} new rows, {len(known)} in all" in capsys.readouterr().out
    assert len(read_rows(path)) == 2
    assert missing(few, path) == []
    rows = rows_of(few, path)
    assert [row["versions"].split()[-1] for row in rows] == [torch.__version__] * 2
    assert "error" not in rows[0]
    assert ("test_accuracy" in rows[0]) == (command not in ("search", "trials", "toy"))


@pytest.mark.parametrize("change", [{}, {"test_accuracy": "0.5"}, {"test_accuracy": "0.5", "threads": "64"}])
def test_rows_are_trained_again_and_compared(change, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (run,) = comparison.runs(["small dense"], [0.005], [0], 1, "mnist")
    monkeypatch.setitem(TABLES, "frontier", replace(TABLES["frontier"], runs=lambda: [run]))
    assert main(["frontier"]) == 0
    with rewriting(TABLES["frontier"].file) as rows:
        rows[0].update(change)
    capsys.readouterr()
    assert main(["check", "frontier", "--rows", "1"]) == int(change == {"test_accuracy": "0.5"})
    shown = capsys.readouterr().out
    assert "method=small dense, density=0.005, seed=0" in shown
    assert ("    equal" in shown) == (not change)
    assert ("    test_accuracy: 0.5, now " in shown) == bool(change)
    assert main(["check", "frontier", "--rows", "2"]) == 2
    assert "rows must be" in capsys.readouterr().err


@pytest.mark.parametrize("command", STORED)
def test_stored_tables_load_and_have_the_rows_of_their_runs(command):
    (count, found), path = STORED[command], RESULTS.parents[1] / TABLES[command].file
    runs = default_runs(command)
    rows = read_rows(path)
    assert len(set(runs)) == len(runs) == count
    assert len(runs) - len(missing(runs, path)) == found == len(rows) == len(rows_of(runs, path))
    assert not any(row.get("error") for row in rows)


@pytest.mark.parametrize("command", ["pruning", "adaptive", "gumbel", "toy", "starts"])
def test_seeds_can_be_chosen_and_each_has_each_run_once(command):
    chosen = runs_of(TABLES[command], make_parser().parse_args([command, "--seeds", "3"]))
    assert {run.seed for run in chosen} == {3}
    assert len(set(chosen)) == len(chosen) == STORED[command][0] // len(TABLES[command].seeds)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.csv")), ids=lambda path: path.stem)
def test_every_stored_table_loads(path):
    rows = read_rows(path)
    assert len(rows) > 5
    assert not any(None in row or None in row.values() for row in rows)


def test_the_command_compares_and_prints(tmp_path, capsys):
    table = str(tmp_path / "mine.csv")
    given = ["compare", "--methods", "small dense", "--densities", "0.02", "0.005", "--seeds", "1", "2"]
    assert main([*given, "--epochs", "1", "--table", table]) == 0
    shown = capsys.readouterr().out
    assert "4 new rows, 4 in all" in shown
    assert "Test accuracy in %, of 2 seeds" in shown
    assert main([*given, "--epochs", "0", "--table", table]) == 0  # others in the same table
    shown = capsys.readouterr().out.splitlines()[-1].split()
    zero = read_csv(table).query("epochs == 0").groupby("density")["test_accuracy"].mean()
    assert [float(value) for value in shown[2:4]] == pytest.approx(100 * zero.to_numpy(), abs=0.01)


@pytest.mark.usefixtures("no_luck")
def test_a_command_tells_what_failed_each_time(tmp_path, capsys):
    given = ["compare", "--methods", "random", "--densities", "0.5", "--seeds", "0"]
    for _ in "ab":
        assert main([*given, "--table", str(tmp_path / "table.csv")]) == 1
        shown = capsys.readouterr()
        assert "method=random, density=0.5, seed=0, epochs=15, shift=0, settings=lr=0.016" in shown.err
        assert "RuntimeError: no such luck" in shown.err
        assert "Test accuracy" not in shown.out


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["compare", "--densities", "2"], "densities must be a share, above 0 and at most 1, got 2.0"),
        (["compare", "--methods", "magic"], "methods must be 'dense' or "),
        (["compare", "--epochs", "-1"], "epochs must be a whole number of at least 0, got -1"),
        (["compare", "--seeds", "0", "-2"], "seeds must be a whole number of at least 0, got -2"),
        (["adaptive", "theses"], "experiments must be 'thesis' or "),
        (["toy", "--processes", "0"], 'address must be "local:N" with N from 1 on, got "local:0"'),
        (["latency", "--threads", "0"], "threads must be a whole number of at least 1, got 0"),
        (["latency", "--rounds", "0"], "rounds must be at least 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_line(given, complaint, tmp_path, capsys):
    assert main([*given, "--table", str(tmp_path / "none.csv")]) == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_where_no_run_is_possible_nothing_is_done(tmp_path, capsys):
    given = ["compare", "--methods", "unit norm", "--densities", "0.0015", "--table", str(tmp_path / "none")]
    assert main(given) == 0
    assert "0 new rows, 0 in all" in capsys.readouterr().out


def test_the_command_writes_the_latencies_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(latency, "time_forms", lambda **given: [{"form": "dense", **given}])
    path = tmp_path / "latency.csv"
    for _ in range(2):
        assert main(["latency", "--threads", "1", "2", "--rounds", "5", "--table", str(path)]) == 0
        assert "2 rows in" in capsys.readouterr().out
    assert read_rows(path) == [{"form": "dense", "threads": t, "rounds": "5"} for t in "12"]


@pytest.mark.usefixtures("no_luck")
def test_a_comparison_in_python_warns_of_what_failed():
    with pytest.warns(UserWarning, match="1 of 2 runs failed, such as random: RuntimeError: no such luck"):
        rows = comparison.compare(["random", "small dense"], [0.02], seeds=[0], epochs=0)
    assert rows.error.fillna("").tolist() == ["RuntimeError: no such luck", ""]


def test_a_comparison_in_python_is_a_table_of_rows_that_goes_on(tmp_path):
    table = tmp_path / "mine.csv"
    first = comparison.compare(["dense", "small dense"], [0.02], seeds=[3], epochs=1, path=table)
    assert list(first.method) == ["dense", "small dense"]
    assert first.test_accuracy.between(0, 1).all()
    assert first.kept.tolist() == [266_200, 5369]
    before = table.read_text()
    more = comparison.compare(["small dense", "random"], [0.02], seeds=[3], epochs=1, path=table)
    assert list(more.method) == ["small dense", "random"]
    assert table.read_text().startswith(before)
    assert more.iloc[0].to_dict() == first.iloc[1].to_dict()


@pytest.mark.slow
def test_the_commands_need_no_extra_to_start():
    code = (
        "import sys; sys.modules |= dict.fromkeys(['pandas', 'distributed', 'matplotlib', 'torch_pruning']);"
    )
    code += "from prunebook.experiments.commands import main; main(['compare', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "usage: python -m prunebook compare" in done.stdout, done.stderr


def test_without_pandas_it_says_what_to_install_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r'pip install "prunebook\[experiments\]"'):
        comparison.compare(["dense"], [0.02], path=tmp_path / "none.csv")
    assert list(tmp_path.iterdir()) == []
