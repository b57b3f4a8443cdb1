"""The table of latencies: which forms there are, what they compute, what a row says, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunebook.experiments import latency as latency_runs
from prunebook.experiments.commands import main
from prunebook.experiments.latency import Form, forms, time_forms
from prunebook.experiments.tables import read_rows
from prunebook.tools.csr import CSRLinear, break_even

SIZES = (20, 30, 10, 5)


def weights(net):
    return [layer.weight for layer in net.modules() if isinstance(layer, nn.Linear)]


def test_forms_are_what_they_are_called():
    found = forms(SIZES)
    x = torch.randn(3, 20)
    zeros = found[Form("zeros", 90)]
    assert sum(int(weight.count_nonzero()) for weight in weights(zeros)) == 60 + 30 + 5
    for form in ("masked", "csr"):
        torch.testing.assert_close(found[Form(form, 90)](x), zeros(x))
    assert [type(layer) for layer in found[Form("csr", 50)][1::2]] == [CSRLinear] * 3
    for k, widths in {50: [15, 5, 5], 80: [6, 2, 5], 90: [3, 1, 5]}.items():
        for form in ("shrunk", "fresh"):
            assert [len(weight) for weight in weights(found[Form(form, k)])] == widths


def test_a_row_has_the_time_and_what_it_is_a_time_of(monkeypatch):
    wished, before = [], torch.get_num_threads()
    monkeypatch.setattr(torch, "set_num_threads", wished.append)  # two on a busy machine wait for each other
    rows = time_forms(SIZES, batches=(1, 8), threads=2, rounds=3)
    assert wished == [2, before]
    assert len(rows) == 2 * (2 + 3 + 9 + 2 * 3)
    assert {row["network"] for row in rows} == {"20-30-10-5"}
    for row in rows:
        assert 0 < row["lower"] <= row["milliseconds"] <= row["upper"]
        assert (row["threads"], row["rounds"], row["device"]) == (2, 3, "cpu")
        if row["form"] == "dense":
            assert (row["faster"], row["weights"]) == (1, 600 + 300 + 50)
        if row["form"] in ("masked", "zeros", "csr") and row["k"] == 90:
            assert row["weights"] == 95


@pytest.mark.parametrize(("argument", "value"), [("threads", 0), ("rounds", 0)])
def test_refuses_counts_below_1(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
        time_forms(SIZES, **{argument: value})


def test_the_command_writes_the_table_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(latency_runs, "time_forms", lambda **given: [{"form": "dense", **given}])
    path = tmp_path / "latency.csv"
    for _ in range(2):
        assert main(["latency", "--threads", "1", "2", "--rounds", "5", "--table", str(path)]) == 0
        assert "2 rows in" in capsys.readouterr().out
    assert read_rows(path) == [{"form": "dense", "threads": t, "rounds": "5"} for t in "12"]


def test_break_even_lies_between_two_points_of_the_logarithm():
    assert break_even([50, 80, 90], [0.25, 0.5, 2.0]) == 85
    assert break_even([0, 10], [0.5, 4.0]) == pytest.approx(10 / 3)
    assert break_even([0, 10, 20], [0.5, 1.0, 4.0]) == 10
    for faster in ([0.5, 0.9], [1.5, 2.0]):
        with pytest.raises(ValueError, match="faster must pass 1 on its way"):
            break_even([0, 10], faster)
