"""Tables of long runs: no row is lost, none is measured twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import pytest

from prunebook.experiments import tables


@dataclass(frozen=True)
class Run:
    """A run as a table sees it."""

    method: str
    k: float
    seed: int
    tuned: bool = False


RUNS = [Run("weights", k, seed) for seed in (0, 1) for k in (0, 50.5, 99)]
MANY = [Run("weights", 50, seed) for seed in range(40)]


def measure(run: Run) -> dict[str, object]:
    return {"accuracy": run.k + run.seed, "settings": 'comma, and "quotes"'}


def test_a_stopped_sweep_goes_on_without_losing_or_repeating_a_row(tmp_path):
    path = tmp_path / "results" / "table.csv"
    sweep = tables.fill(RUNS, path, measure)
    first = [next(sweep), next(sweep)]
    sweep.close()
    assert tables.missing(RUNS, path) == RUNS[2:]
    rest = list(tables.fill(RUNS, path, measure))
    assert first + rest == [asdict(run) | measure(run) for run in RUNS]
    assert len(tables.read_rows(path)) == 6
    assert list(tables.fill(RUNS, path, measure)) == []


def test_a_run_that_raises_leaves_the_rows_before_it(tmp_path):
    path = tmp_path / "table.csv"

    def broken(run: Run) -> dict[str, object]:
        if run == RUNS[2]:
            raise ValueError("broken")
        return measure(run)

    with pytest.raises(ValueError, match="broken"):
        list(tables.fill(RUNS, path, broken))
    assert tables.missing(RUNS, path) == RUNS[2:]
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize(
    ("row", "same"),
    [
        ({}, True),
        ({"k": "50.0"}, True),
        ({"k": "50.5"}, False),
        ({"seed": "1"}, False),
        ({"method": "units"}, False),
        ({"tuned": "True"}, False),
    ],
)
def test_a_row_is_told_from_others_by_the_fields_of_its_run(row, same):
    whole = {"method": "weights", "k": "50", "seed": "0", "tuned": "False", "accuracy": "0.9"}
    assert tables.is_row_of(Run("weights", 50, 0), whole | row) is same


def test_what_another_process_measured_meanwhile_is_not_measured_again(tmp_path):
    path = tmp_path / "table.csv"
    one, other = tables.fill(RUNS, path, measure), tables.fill(RUNS[::-1], path, measure)
    done = [next(one), next(other), *one, *other]
    assert sorted(map(str, done)) == sorted(str(asdict(run) | measure(run)) for run in RUNS)
    assert len(tables.read_rows(path)) == len(RUNS)


def test_processes_that_write_at_once_lose_no_row(tmp_path):
    path = tmp_path / "table.csv"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda run: tables.append_row(path, asdict(run), run), [*MANY, *MANY]))
    assert sorted(int(str(row["seed"])) for row in tables.read_rows(path)) == list(range(40))


def test_there_are_no_rows_where_there_is_no_file(tmp_path):
    assert tables.read_rows(tmp_path / "none.csv") == []
    assert "torch" in tables.versions()
