"""Figures draw the data that they were given, and nothing global changes."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from prunebook import plots


@pytest.fixture(autouse=True)
def _nothing_global_changes():
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_figure_has_its_axes_row_by_row():
    figure, axes = plots.figure(columns=3, rows=2, width=6, height=2)
    assert len(axes) == 6
    assert figure.get_size_inches().tolist() == [6, 2]


def heights(ax):
    """The counts of a histogram by colour: all, and of these the kept."""
    return {patch.get_label(): patch.get_data().values.tolist() for patch in ax.patches}


def test_histogram_counts_every_weight_and_shades_below_the_threshold():
    weights = torch.tensor([-1.0, -0.1, 0.0, 0.1, 1.0])
    _, (ax,) = plots.figure()
    plots.weight_histogram(weights, ax, threshold=0.5, bins=4)
    assert heights(ax) == {"pruned": [1, 1, 2, 1], "kept": [1, 0, 0, 1]}  # grey shows where blue ends


def test_curve_is_in_percent():
    _, (ax,) = plots.figure()
    plots.accuracy_curve([0, 50], [1.0, 0.5], ax)
    assert ax.lines[0].get_xydata().tolist() == [[0, 100], [50, 50]]
    assert "%" in ax.get_ylabel()
    assert "%" in ax.get_xlabel()


def test_training_curves_show_both_splits():
    rows = [{"epoch": e, "train_accuracy": e / 4, "valid_accuracy": e / 8} for e in (1, 2)]
    _, (ax,) = plots.figure()
    plots.training_curves(rows, ax)
    assert [line.get_ydata().tolist() for line in ax.lines] == [[25, 50], [12.5, 25]]


def test_images_are_shown_under_their_titles():
    _, axes = plots.figure(columns=2)
    plots.show_images(torch.rand(3, 1, 4, 4), ["a", "b"], axes)
    assert [ax.get_title() for ax in axes] == ["a", "b"]
    assert axes[0].images[0].get_array().shape == (4, 4)


def test_weights_share_one_symmetric_scale():
    _, axes = plots.figure(columns=2)
    plots.show_weights(torch.tensor([[1.0, 0, 0, 0], [0, -4.0, 0, 0]]), axes, side=2)
    assert {ax.images[0].get_clim() for ax in axes} == {(-2.0, 2.0)}


def test_kept_histogram_stacks_kept_and_pruned_weights():
    weights = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])
    _, (ax,) = plots.figure()
    plots.kept_histogram(weights, weights.abs() > 1, ax, bins=4)
    assert heights(ax) == {"pruned": [1, 1, 2, 1], "kept": [1, 0, 0, 1]}


def test_mask_map_and_pixel_map_show_the_mask():
    mask = torch.tensor([[True, False, True, True], [True, False, False, False]])
    _, (left, right) = plots.figure(columns=2)
    plots.mask_map(mask, left)
    plots.kept_per_pixel(mask, right, side=2)
    assert left.images[0].get_array().tolist() == mask.tolist()
    assert right.images[0].get_array().tolist() == [[2, 0], [1, 1]]
    plots.kept_per_pixel(mask & False, right, side=2)
    assert right.images[-1].get_clim() == (0, 1), "nothing kept is the dark end of the scale"


def test_layer_bars_are_in_percent_with_the_first_layer_on_top():
    _, (ax,) = plots.figure()
    plots.layer_bars({"1": 0.25, "3": 1.0}, ax)
    assert [bar.get_width() for bar in ax.patches] == [25, 100]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_bands_go_from_the_worst_to_the_best_seed():
    rows = pd.DataFrame(
        {
            "k": [0, 0, 50, 50],
            "method": "weights",
            "seed": [0, 1, 0, 1],
            "validation_accuracy": [1, 0.8, 0.6, 0.2],
        }
    )
    _, (ax,) = plots.figure()
    plots.accuracy_bands(rows, ax)
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([90, 40])
    corners = ax.collections[0].get_paths()[0].vertices
    assert {round(y) for x, y in corners.tolist() if x == 50} == {20, 60}


def test_cost_curve_is_logarithmic_and_in_percent():
    _, (ax,) = plots.figure()
    plots.cost_curve([10, 1000], [0.5, 0.9], ax, "multiplications")
    assert ax.get_xscale() == "log"
    assert ax.lines[0].get_xydata().tolist() == [[10, 50], [1000, 90]]


def test_a_path_marks_the_epoch_that_is_shown():
    _, (ax,) = plots.figure()
    plots.path([1, 2, 3], [0.5, 0.7, 0.8], ax, now=2, ylabel="ratio r")
    line, dot = ax.lines
    assert line.get_xydata().tolist() == [[1, 0.5], [2, 0.7], [3, 0.8]]
    assert dot.get_xydata().tolist() == [[2, 0.7]]
    assert ax.get_ylabel() == "ratio r"
    assert len(plots.path([1], [0.5], plots.figure()[1][0]).lines) == 1


def test_paths_of_one_setting_share_a_colour_and_a_label():
    rows = pd.DataFrame({"r": [0.1, 0.1, 0.5], "ratios": ["0.2 0.3", "0.2 0.4", "0.6 0.7"]})
    _, (ax,) = plots.figure()
    plots.paths(rows, "ratios", ax, by=["r"])
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0.2, 0.3], [0.2, 0.4], [0.6, 0.7]]
    first, second, other = (line.get_color() for line in ax.lines)
    assert first == second != other
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["r 0.1", "r 0.5"]


def test_cumulative_leads_from_the_share_to_the_threshold():
    _, (ax,) = plots.figure()
    plots.cumulative(torch.tensor([1.0, 4.0]), torch.tensor([0.0, 1.0]), ax, t=2.0, r=0.5)
    curve, way, point = (line.get_xydata().tolist() for line in ax.lines)
    assert curve == [[1, 0], [4, 1]]
    assert way == [[0, 0.5], [2, 0.5], [2, 0]]
    assert point == [[2, 0.5]]


def test_density_is_grey_below_the_threshold():
    _, (ax,) = plots.figure()
    plots.density_at(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([3.0, 2.0, 1.0]), ax, t=1.0, f=2.0)
    assert ax.lines[0].get_xydata().tolist() == [[0, 3], [1, 2], [2, 1]]
    assert ax.lines[-1].get_xydata().tolist() == [[1, 2]]
    assert ax.collections[0].get_paths()[0].vertices[:, 0].max() == 1
    _, (plain,) = plots.figure()
    plots.density_at(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]), plain)
    assert len(plain.lines) == 1
    assert not plain.collections


def test_tangent_has_the_slope_and_goes_through_the_point():
    _, (ax,) = plots.figure()
    plots.quantile_tangent(torch.tensor([0.0, 8.0]), torch.tensor([0.0, 1.0]), ax, r=0.25, t=2.0, slope=8.0)
    curve, tangent, point = ax.lines
    assert curve.get_xydata().tolist() == [[0, 0], [1, 8]]
    assert (tangent.get_xy1(), tangent.get_slope()) == ((0.25, 2), 8)
    assert point.get_xydata().tolist() == [[0.25, 2]]


def test_loglog_draws_each_column_and_leaves_gaps():
    _, (ax,) = plots.figure()
    plots.loglog({"a": [1, 10], "b": [2, float("nan")]}, [10, 100], ax, "n", "ms")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    assert ax.lines[0].get_xydata().tolist() == [[10, 1], [100, 10]]


def test_mask_curve_marks_the_threshold_on_both_sides():
    _, (ax,) = plots.figure()
    plots.mask_curve(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([1.0, 0.25, 1.0]), ax, threshold=0.5)
    curve, *sides = ax.lines
    assert curve.get_xydata().tolist() == [[-1, 1], [0, 0.25], [1, 1]]
    assert [line.get_xdata()[0] for line in sides] == [-0.5, 0.5]


def test_masked_histogram_counts_weights_before_and_after_the_mask():
    weights = torch.tensor([-2.0, -0.5, 0.5, 2.0])
    _, (ax,) = plots.figure()
    plots.masked_histogram(weights, weights * torch.tensor([1.0, 0.0, 0.0, 0.25]), ax, bins=4)
    assert heights(ax) == {"w": [1, 1, 1, 1], "m(w) w": [1, 0, 3, 0]}


def test_temperature_curve_goes_from_hot_to_frozen_in_percent():
    _, (ax,) = plots.figure()
    plots.temperature_curve([1, 0.1], [0.5, 0.9], ax)
    assert ax.lines[0].get_xydata().tolist() == [[1, 50], [0.1, 90]]
    assert ax.get_xscale() == "log"
    assert ax.get_xlim() == (2, 0.05)


def test_weight_moves_tell_who_crossed_the_threshold():
    before, after = torch.tensor([-3.0, 1.0, 2.0, 0.5]), torch.tensor([4.0, -5.0, 1.0, 0.0])
    _, (ax,) = plots.figure()
    plots.weight_moves(before, after, torch.tensor([True, True, False, False]), ax, threshold=1.5)
    points = {line.get_label(): line.get_xydata().tolist() for line in ax.lines[:3]}
    assert points == {
        "pruned at the end": [[2, 1], [0.5, 0]],
        "kept, and large before": [[3, 4]],
        "kept, but small before": [[1, 5]],
    }
