"""Tables in files: no row is lost, none is there twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from prunebook.experiments import tables
from prunebook.experiments.protocol import Run

RUN = Run(method="weights", k=50, seed=0, tuned=False)


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
    assert tables.is_row_of(RUN, whole | row) is same


def test_processes_that_write_at_once_lose_no_row_and_double_none(tmp_path):
    path, many = tmp_path / "table.csv", [RUN.but(seed=seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda run: tables.append_row(path, run, {}), [*many, *many]))
    assert sorted(int(str(row["seed"])) for row in tables.read_rows(path)) == list(range(40))
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_a_row_keeps_its_text_whatever_is_in_it(tmp_path):
    path = tmp_path / "results" / "table.csv"
    row = tables.append_row(path, RUN, {"note": 'comma, and "quotes"'})
    assert row == RUN.columns() | {"note": 'comma, and "quotes"'}
    tables.append_row(path, RUN.but(seed=1), {"accuracy": 0.5})
    assert tables.read_rows(path) == [
        {"method": "weights", "k": "50", "seed": seed, "tuned": "False", "note": note, "accuracy": accuracy}
        for seed, note, accuracy in (("0", 'comma, and "quotes"', ""), ("1", "", "0.5"))
    ]


def test_a_list_of_rows_becomes_a_table_of_its_own_in_place_of_the_old_rows_of_the_seed(tmp_path):
    path = tmp_path / "table.csv"
    for value, seed, k in ((1.0, 0, 1), (2.0, 1, 1), (3.0, 0, 2)):
        tables.append_row(path, RUN.but(seed=seed, k=k), {"kept": 5, "wires": [{"value": value}] * 2})
    wires = tables.read_rows(tmp_path / "wires.csv")
    assert [(row["seed"], row["value"]) for row in wires] == [("1", "2.0")] * 2 + [("0", "3.0")] * 2
    assert [list(row) for row in tables.read_rows(path)] == [["method", "k", "seed", "tuned", "kept"]] * 3
