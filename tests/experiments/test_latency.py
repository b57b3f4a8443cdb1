"""The table of latencies: which forms there are, what they compute, what a row says, what is refused."""

from __future__ import annotations

import torch
from torch import nn

from prunebook.experiments.latency import forms, time_forms
from prunebook.tools.csr import CSRLinear

SIZES = (20, 30, 10, 5)


def weights(net):
    return [layer.weight for layer in net.modules() if isinstance(layer, nn.Linear)]


def test_forms_are_what_they_are_called():
    found = forms(SIZES)
    x = torch.randn(3, 20)
    zeros = found["zeros", 90]
    assert sum(int(weight.count_nonzero()) for weight in weights(zeros)) == 60 + 30 + 5
    for form in ("masked", "csr"):
        torch.testing.assert_close(found[form, 90](x), zeros(x))
    assert [type(layer) for layer in found["csr", 50][1::2]] == [CSRLinear] * 3
    for k, widths in {50: [15, 5, 5], 80: [6, 2, 5], 90: [3, 1, 5]}.items():
        for form in ("shrunk", "fresh"):
            assert [len(weight) for weight in weights(found[form, k])] == widths


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
