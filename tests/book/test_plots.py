"""Figures draw the data that they were given, and nothing global changes."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PathCollection

from prunebook.book import plots
from prunebook.book.wires import Wires


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


def test_gates_are_shown_as_shares_and_compared_as_lines():
    _, (one, two) = plots.figure(columns=2)
    sample = torch.tensor([0.1, 0.1, 0.1, 0.9])
    plots.gate_histogram({"soft": sample}, one, bins=2)
    plots.gate_histogram({"a": sample, "b": 1 - sample}, two, bins=2)
    assert heights(one) == {"soft": [75, 25]}
    assert heights(two) == {"a": [75, 25], "b": [25, 75]}
    assert one.patches[0].get_fill()
    assert not two.patches[0].get_fill()
    assert one.get_legend() is None


def test_gradient_noise_is_a_band_around_the_mean_beside_the_truth():
    _, (ax,) = plots.figure()
    plots.gradient_noise([0.1, 1.0], [0.2, 0.3], [0.4, 0.1], 0.25, ax)
    mean, truth = ax.lines
    assert mean.get_xydata().tolist() == [[0.1, 0.2], [1, 0.3]]
    assert list(truth.get_ydata()) == [0.25, 0.25]
    corners = ax.collections[0].get_paths()[0].vertices.tolist()
    assert {round(y, 6) for x, y in corners if x == 0.1} == {-0.2, 0.6}


def test_chances_are_counted_in_equal_bins_and_an_empty_bin_is_white():
    counts = torch.tensor([[8, 0], [3, 5]])
    _, (ax, through) = plots.figure(columns=2)
    plots.chance_histogram(counts[1], ax)
    steps = ax.patches[0].get_data()
    assert (steps.values.tolist(), steps.edges.tolist()) == ([3, 5], [0, 0.5, 1])
    plots.chances_through([1, 2], counts, through)
    shown = through.collections[0].get_array().reshape(2, 2)
    assert shown.filled(0).tolist() == [[8, 3], [0, 5]]
    assert through.get_xlim() == (0, 2)


def test_frontier_has_a_point_per_count_with_bars_to_the_worst_and_best_seed():
    rows = pd.DataFrame(
        {
            "method": ["gates"] * 4 + ["linear"],
            "count": [399, 399, 1331, 1331, 7840],
            "kept": [390, 398, 1331, 1331, 7840],
            "test_accuracy": [0.9, 0.94, 0.96, 0.98, 0.92],
        }
    )
    _, (ax,) = plots.figure()
    plots.frontier(rows, ax)
    gates, linear = ax.containers
    assert [gates.get_label(), linear.get_label()] == ["gates", "linear"]
    assert gates.lines[0].get_xydata().ravel().tolist() == pytest.approx([394, 92, 1331, 97])
    low, high = gates.lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((90, 94))
    assert ax.get_xscale() == "log"


def test_error_curves_are_means_in_percent_with_bands_from_best_to_worst():
    rows = pd.DataFrame(
        {
            "method": ["gates"] * 4 + ["rule"],
            "density": [0.01, 0.01, 0.5, 0.5, 0.01],
            "test_accuracy": [0.9, 0.94, 0.98, 0.98, 0.92],
        }
    )
    _, (ax,) = plots.figure()
    plots.error_curves(rows, ax)
    gates, rule = ax.lines
    assert gates.get_xydata().ravel().tolist() == pytest.approx([1, 8, 50, 2])
    assert rule.get_xydata().ravel().tolist() == pytest.approx([1, 8])
    band = ax.collections[0].get_paths()[0].vertices
    assert sorted(set(band[:, 1].round(6))) == pytest.approx([2, 6, 10])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert gates.get_marker() != rule.get_marker()


def test_errors_against_time_have_a_point_for_each_number_of_epochs():
    rows = pd.DataFrame(
        {"method": "rule", "epochs": [5, 5, 9], "cpu_seconds": [4, 6, 20], "test_accuracy": [0.9, 0.8, 0.95]}
    )
    _, (ax,) = plots.figure()
    plots.error_curves(rows, ax, x="cpu_seconds", label="seconds")
    assert ax.lines[0].get_xydata().ravel().tolist() == pytest.approx([5, 15, 20, 5])
    assert ax.get_xlabel() == "seconds"


def test_the_frontier_puts_long_runs_and_published_points_beside_the_curves():
    short = pd.DataFrame(
        {"method": ["b", "a", "c"], "density": [0.01, 0.01, 0.01], "test_accuracy": [0.9, 0.8, 0.7]}
    )
    long = pd.DataFrame(
        {
            "method": ["gumbel, then exchange"] * 2 + ["gumbel"],
            "count": [399, 399, 399],
            "density": [0.0015, 0.0015, 0.0015],
            "epochs": [40, 40, 40],
            "fine_tune": [200, 200, 200],
            "test_accuracy": [0.95, 0.97, 0.5],
        }
    )
    published = pd.DataFrame({"kept": [1, 5], "error": [2.4, 1.6]})
    _, (ax,) = plots.figure()
    plots.frontier_of(short, long, published, ("a", "b"), ax)
    a, b, stars, crosses = ax.lines
    assert (a.get_label(), b.get_label()) == ("a", "b")
    assert a.get_xydata().ravel().tolist() == pytest.approx([1, 20])
    assert stars.get_xydata().ravel().tolist() == pytest.approx([0.15, 4])
    assert stars.get_label().endswith("up to 240 epochs")
    assert crosses.get_xydata().tolist() == [[1, 2.4], [5, 1.6]]


def test_ranking_goes_from_the_worst_at_the_bottom_to_the_best():
    rows = pd.DataFrame({"method": ["b", "a", "a"], "test_accuracy": [0.5, 0.9, 0.8]})
    _, (ax,) = plots.figure()
    plots.ranking(rows, ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a"]
    assert ax.lines[0].get_xydata().ravel().tolist() == pytest.approx([50, 0, 85, 1])
    assert [text.get_text() for text in ax.texts] == ["50.0", "85.0"]
    (spread,) = ax.collections
    assert [list(part[:, 0]) for part in spread.get_segments()] == [
        pytest.approx([50, 50]),
        pytest.approx([80, 90]),
    ]


def test_effective_share_is_in_percent_of_the_weights_kept():
    rows = pd.DataFrame(
        {"method": ["a", "a", "b"], "density": [0.01, 0.1, 1.0], "effective_density": [0.005, 0.1, 1.0]}
    )
    _, (ax,) = plots.figure()
    plots.effective_share(rows, ax)
    first, second = ax.lines
    assert first.get_xydata().ravel().tolist() == pytest.approx([1, 50, 10, 100])
    assert second.get_xydata().ravel().tolist() == pytest.approx([100, 100])
    assert ax.get_xscale() == "log"


WEIGHTS = [torch.tensor([[2.0, 0, 0], [0, 0, 0], [1.0, -4.0, 0]]), torch.tensor([[3.0, 0, -1.0]])]
ORDER = [torch.tensor([1, 0, 2]), torch.tensor([2, 0, 1]), torch.tensor([0])]


def segments(ax):
    """The lines between units, layer by layer, as ((x, y), (x, y))."""
    edges = [each for each in ax.collections if isinstance(each, LineCollection)]
    return [[[tuple(point) for point in line.tolist()] for line in each.get_segments()] for each in edges]


def test_pathways_have_a_line_for_each_weight_between_the_places_of_its_units():
    _, (ax,) = plots.figure()
    plots.pathway_drawing(WEIGHTS, ORDER, ax, inputs=["a", "b", "c"], outputs=["y"])
    first, second = segments(ax)
    height = {note.get_text(): note.xy[1] for note in ax.texts if len(note.get_text()) == 1}
    assert height["b"] > height["a"] > height["c"], "inputs stand in the given order, under their own names"
    # weak weights first: 1 from a to unit 2, 2 from a to unit 0, -4 from b to unit 2
    assert [line[0][1] for line in first] == pytest.approx([height["a"], height["a"], height["b"]])
    assert [line[1][1] for line in first] == [0.75, 0.25, 0.75], "unit 2 stands above unit 0, unit 1 nowhere"
    assert [line[1][1] for line in second] == [height["y"]] * 2
    assert [text.get_text() for text in ax.texts if " of " in text.get_text()] == [
        "2 of 3",
        "2 of 3",
        "1 of 1",
    ]


def test_pathways_are_red_above_zero_and_blue_below_and_wide_where_strong():
    _, (ax,) = plots.figure()
    plots.pathway_drawing(WEIGHTS, ORDER, ax)
    edges = ax.collections[0]
    redder = [red > blue for red, _, blue, _ in edges.get_colors().tolist()]
    assert redder == [True, True, False]
    assert edges.get_linewidths() == sorted(edges.get_linewidths())
    assert edges.get_linewidths()[-1] == 3.0


def marks(ax):
    """Places of the marks by the colours of their rims and faces, 0 = black and 1 = white."""
    found = [each for each in ax.collections if isinstance(each, PathCollection) and len(each.get_offsets())]
    return [
        (round(each.get_edgecolors()[0][0], 1), face[0], tuple(place))
        for each in found
        for place, face in zip(each.get_offsets().tolist(), each.get_facecolors().tolist(), strict=True)
    ]


def test_an_input_without_weights_is_hollow():
    _, (ax,) = plots.figure()
    plots.pathway_drawing(WEIGHTS, ORDER, ax)
    assert [(face, y) for _, face, (x, y) in marks(ax) if x == 0] == [
        (1, pytest.approx(1 / 6)),  # c, which is last in the order, has no weight
        (0, pytest.approx(1 / 2)),
        (0, pytest.approx(5 / 6)),
    ]
    assert len(marks(ax)) == 6, "a hidden unit without weights is not drawn"


def test_pathways_outside_the_focus_are_grey():
    focus = [WEIGHTS[0] * torch.tensor([[1.0], [1.0], [0]]), WEIGHTS[1] * torch.tensor([1.0, 1, 0])]
    _, (ax,) = plots.figure()
    plots.pathway_drawing(WEIGHTS, ORDER, ax, focus=focus)
    coloured = [
        [len(set(colour[:3])) > 1 for colour in each.get_colors().tolist()] for each in ax.collections[:2]
    ]
    assert coloured == [[False, False, True], [False, True]], "grey lines lie below"
    black = {place for rim, _, place in marks(ax) if rim == 0}
    lines = {end for each, ends in zip(coloured, segments(ax), strict=True) for end in ends[each.index(True)]}
    assert black == lines, "units off the focus are grey"


def test_image_pathways_start_at_the_places_of_the_pixels():
    weights = [torch.tensor([[5.0, 0, 0, 0], [0, 0, 0, -5.0]]), torch.eye(2)]
    order = [torch.arange(4), torch.tensor([1, 0]), torch.arange(2)]
    _, (ax,) = plots.figure()
    plots.image_pathways(weights, order, ax, outputs=["0", "1"], picture=torch.arange(4.0))
    (top_left, left_end), (bottom_right, right_end) = segments(ax)[0]
    assert top_left[0] < bottom_right[0]
    assert top_left[1] > bottom_right[1]
    assert left_end[1] < right_end[1], "unit 1 stands above unit 0"
    assert ax.images[0].get_array().tolist() == [[0, 1], [2, 3]]
    left, right, bottom, top = ax.images[0].get_extent()
    assert (top_left[0] - left) / (right - left) == pytest.approx(0.25)
    assert (top_left[1] - bottom) / (top - bottom) == pytest.approx(0.75)
    assert len([mark for mark in marks(ax) if mark[2][0] < left_end[0]]) == 2, (
        "only pixels with a weight are marked"
    )


def test_networks_without_weights_are_drawn_as_their_ends():
    weights, order = [torch.zeros(3, 4), torch.zeros(2, 3)], [torch.arange(size) for size in (4, 3, 2)]
    for draw in (plots.pathway_drawing, plots.image_pathways):
        figure, (ax,) = plots.figure()
        draw(weights, order, ax)
        figure.canvas.draw()
        assert segments(ax) == [[], []]


def test_only_square_images_have_pixels():
    with pytest.raises(ValueError, match="square images, got 3 inputs"):
        plots.image_pathways(WEIGHTS, ORDER, plots.figure()[1][0])


def test_importance_maps_share_one_scale():
    _, axes = plots.figure(columns=2)
    plots.importance_maps(torch.tensor([[0.25, 0.75, 0, 0], [0, 0, 0.5, 0.5]]), axes, ["a", "b"], side=2)
    assert [ax.images[0].get_array().tolist() for ax in axes] == [
        [[0.25, 0.75], [0, 0]],
        [[0, 0], [0.5, 0.5]],
    ]
    assert {ax.images[0].get_clim() for ax in axes} == {(0, 0.75)}
    assert [ax.get_title() for ax in axes] == ["a", "b"]
    _, (signed,) = plots.figure()
    plots.importance_maps(torch.tensor([[0.25, -0.75, 0, 0]]), [signed], side=2)
    assert signed.images[0].get_clim() == (-0.75, 0.75)


def test_symmetry_matrix_writes_small_values_and_not_large_ones():
    _, (small, large) = plots.figure(columns=2)
    plots.symmetry_matrix(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]), small, ["a", "b"])
    assert [text.get_text() for text in small.texts] == ["1.00", "-0.50", "-0.50", "1.00"]
    assert [tick.get_text() for tick in small.get_xticklabels()] == ["a", "b"]
    assert small.images[0].get_clim() == (-1, 1)
    plots.symmetry_matrix(torch.eye(11), large)
    assert not large.texts


def test_removal_curves_are_in_percent_by_order():
    _, (ax,) = plots.figure()
    orders = {"most important first": [[0.75, 0.25], [0.75, 0.5]], "at random": [[0.5, 0.5]]}
    plots.removal_curves([0, 100], orders, ax)
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert lines == {"most important first": [[0, 75], [100, 37.5]], "at random": [[0, 50], [100, 50]]}
    band = ax.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band[band[:, 0] == 100].tolist()} == {(100, 25), (100, 50)}


def wired():
    """Pixels 0 and 783 to two units, unit 1 to both classes."""
    first = Wires(
        torch.tensor([0, 783]), torch.tensor([0, 1]), torch.tensor([1.0, -2.0]), torch.zeros(2), "ReLU"
    )
    second = Wires(torch.tensor([1, 1]), torch.tensor([0, 1]), torch.tensor([3.0, 0.0]), torch.zeros(2), "")
    return [first, second]


def curves(ax):
    """End points, colours and widths of the wires of each layer."""
    drawn = [c for c in ax.collections if c.get_paths() and len(c.get_paths()[0].vertices) == 4]
    ends = [[[*path.vertices[0], *path.vertices[-1]] for path in c.get_paths()] for c in drawn]
    return (
        ends,
        [[mpl.colors.to_hex(e) for e in c.get_edgecolors()] for c in drawn],
        [c.get_linewidths() for c in drawn],
    )


def test_wiring_goes_from_pixels_to_classes_by_sign_and_size():
    _, (ax,) = plots.figure()
    plots.wiring(wired(), ["a", "b"], ax, best=1, widest=2)
    ends, colours, widths = curves(ax)
    assert ends[0] == [[0.5, 0.5, 40, 7], [27.5, 27.5, 40, 21]]  # the strongest last: on top
    assert ends[1] == [[40, 21, 52, 21], [40, 21, 52, 7]]
    assert colours[0] == [plots.RED, plots.BLUE]
    assert colours[1] == ["#d9d9d9", plots.RED]
    assert widths[0] == pytest.approx([2 * (0.08 + 0.92 / 2), 2])
    assert [(text.get_text(), text.get_fontweight()) for text in ax.texts] == [("a", "normal"), ("b", "bold")]


def test_wiring_shows_an_image_and_what_the_wires_carry():
    _, (ax,) = plots.figure()
    image = torch.zeros(784)
    image[783] = 1
    plots.wiring(wired(), ["a", "b"], ax, [torch.tensor([0.0, 5.0]), torch.tensor([-1.0, 1.0])], image)
    assert ax.images[0].get_array()[27, 27] == 1
    assert curves(ax)[1] == [["#d9d9d9", plots.RED], [plots.BLUE, plots.RED]]
    seen = next(c for c in ax.collections if len(c.get_paths()) == 2 and len(c.get_paths()[0].vertices) == 5)
    assert seen.get_facecolors()[:, 0].tolist() == [1, 0]


def test_poster_has_one_large_picture_and_one_for_each_image(tmp_path):
    carried = [[torch.tensor([0.0, 5.0]), torch.tensor([-1.0, 1.0])]] * 2
    figure = plots.poster(wired(), ["a", "b"], torch.zeros(2, 784), carried, "A title", "a line")
    assert len(figure.axes) == 3
    assert [text.get_text() for text in figure.texts][:2] == ["A title", "a line"]
    assert [ax.texts[1].get_fontweight() for ax in figure.axes] == ["normal", "bold", "bold"]
    figure.savefig(tmp_path / "poster.pdf")
    figure.savefig(tmp_path / "poster.svg")
    assert (tmp_path / "poster.pdf").read_bytes().startswith(b"%PDF")
    assert "<image" not in (tmp_path / "poster.svg").read_text().split("axes_2")[0]  # vectors, no pixels


def test_storage_has_a_cell_for_each_number_and_colours_weights():
    _, axes = plots.figure(columns=3)
    plots.storage_forms(torch.tensor([[0.0, 5.0], [0.0, 0.0], [-3.0, 0.0]]), axes)
    cells = [[text.get_text() for text in ax.texts] for ax in axes]
    assert cells[0] == ["", "0", "5", "", "0", "0", "", "-3", "0"]
    assert cells[1] == ["values", "5", "-3", "columns", "1", "0", "starts", "0", "1", "1", "2"]
    assert cells[2] == ["values", "5", "-3", "bits", "0", "1", "0", "", "0", "1", "0"]
    blue = [[patch.get_facecolor() == mpl.colors.to_rgba(plots.SKY) for patch in ax.patches] for ax in axes]
    assert [sum(each) for each in blue] == [2, 2, 2]
    assert blue[0] == [False, True, False, False, True, False]


def test_speed_is_drawn_against_the_weights_left():
    rows = pd.DataFrame(
        {
            "form": ["dense", "csr", "csr", "zeros", "shrunk", "masked"],
            "weights": [200, 4, 40, 40, 20, 40],
            "faster": [1.0, 8.0, 0.9, 1.0, 9.0, 0.8],
        }
    )
    _, (ax,) = plots.figure()
    plots.speed_curves(rows, ax, even=82.0)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn["zeros left out: CSR"] == [[2, 8], [20, 0.9]]
    assert drawn["zeros"] == [[20, 1]]
    assert drawn["units removed"] == [[10, 9]]
    assert [18, 18] in [list(line.get_xdata()) for line in ax.lines]
    assert [text.get_text() for text in ax.texts] == ["82 % zeros"]
    assert ax.get_xlim()[0] > ax.get_xlim()[1]  # all weights on the left


def test_size_bars_say_their_share_of_the_first():
    _, (ax,) = plots.figure()
    plots.size_bars({"dense": 8e6, "CSR": 2e6}, ax, largest=1e7)
    assert [bar.get_width() for bar in ax.patches] == [8, 2]
    assert [text.get_text().strip() for text in ax.texts] == ["100%", "25%"]
    assert ax.get_xlim()[1] == pytest.approx(11.8)
