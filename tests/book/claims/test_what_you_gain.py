"""What the chapter on gains works out by hand, and what it says about the stored table of latencies."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import torch
from pandas import read_csv

import prunebook as pb
from prunebook.tools.csr import break_even

ROWS = read_csv(Path(__file__).parents[3] / "book/results/latency.csv").query("threads == 1")
AT = ROWS.set_index(["form", "k", "batch"])
MS, RATIO = AT["milliseconds"], AT["faster"]


def by_hand() -> torch.nn.Linear:
    """Return the layer of 24 weights in the picture, five of them not zero."""
    layer = torch.nn.Linear(6, 4, bias=False)
    rows = [0.0, 5, 0, 0, 0, 0], [0] * 6, [2, 0, -3, 0, 0, 0], [0, 0, 0, 0, 1, 4]
    layer.weight = torch.nn.Parameter(torch.tensor(rows))
    return layer


def test_csr_keeps_the_column_of_each_value_and_where_each_row_starts():
    stored = pb.CSRLinear(by_hand())
    assert stored.crow.tolist() == [0, 1, 1, 3, 5]
    assert stored.col.tolist() == [1, 0, 2, 4, 5]
    assert torch.equal(stored.weight.to_dense(), by_hand().weight)


def test_by_hand_the_forms_take_96_and_60_and_23_bytes():
    size = pb.stored_bytes(by_hand())
    n, z, rows = 24, 5, 4
    assert (size.dense, size.csr, size.bitmask) == (96, 60, 23)
    assert (size.dense, size.csr, size.bitmask) == (4 * n, 8 * z + 4 * (rows + 1), n // 8 + 4 * z)


def test_without_rows_csr_is_smaller_than_dense_below_a_half_and_than_the_bitmask_below_a_thirtysecond():
    for size, dense in ((4, Fraction(1, 2)), (2, Fraction(1, 3))):
        assert (size + 4) * dense == size
        assert (size + 4) * Fraction(1, 32) == Fraction(1, 8) + size * Fraction(1, 32)


def test_csr_breaks_even_near_80_percent_of_zeros():
    for batch in (256, 1):
        csr = ROWS[(ROWS["form"] == "csr") & (ROWS["batch"] == batch)]
        assert 75 < break_even([*csr["k"]], [*csr["faster"]]) < 85


def test_at_99_percent_zeros_csr_is_twelve_times_as_fast_for_a_batch_and_three_to_four_times_for_one_image():
    assert RATIO["csr", 99, 256] > 8
    assert abs(RATIO["csr", 99, 256] - 12) < 0.5
    assert 3 < RATIO["csr", 99, 1] < 4


def test_zeros_lie_on_the_line_of_1():
    assert (ROWS.query("form == 'zeros'")["faster"] - 1).abs().max() < 0.15


def test_a_mask_that_is_still_attached_costs_time():
    assert RATIO["masked", 90, 256] < 1
    assert RATIO["masked", 90, 1] < 0.5


def test_removed_units_are_as_fast_as_a_network_of_that_size_that_was_never_pruned():
    for k in (50, 80, 90):
        for batch in (256, 1):
            assert abs(MS["shrunk", k, batch] / MS["fresh", k, batch] - 1) < 0.1


def test_removed_units_win_over_csr():
    assert RATIO["shrunk", 80, 256] > 4 * RATIO["csr", 90, 256]


def test_one_multiplication_of_csr_costs_about_five_dense_ones():
    assert 4.5 < MS["csr", 90, 256] / MS["dense", 0, 256] / 0.1 < 6.5


def test_at_half_zeros_csr_takes_more_than_twice_the_dense_time():
    assert RATIO["csr", 50, 256] < 0.5
    assert RATIO["csr", 50, 1] < 0.5
