"""Figures draw the data that they were given, and nothing global changes."""

from __future__ import annotations

import io

import matplotlib as mpl
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PathCollection
from pandas import DataFrame
from PIL import Image
from torch import tensor

from prunebook.book import plots
from prunebook.book.plots import curves, gains, masks, networks
from prunebook.book.plots.style import SIGNED, even
from prunebook.book.wires import Wires

NAN = float("nan")


@pytest.fixture(autouse=True)
def _nothing_global_changes():
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


@pytest.fixture
def ax():
    return plots.figure()[1][0]


def test_a_picture_is_sharp_and_small_and_says_how_large_it_is_shown():
    figure, (ax,) = plots.figure(width=4, height=2)
    ax.plot([0, 1])
    data, shown = figure._repr_png_()
    image = Image.open(io.BytesIO(data))
    assert image.size[0] in (2 * shown["width"], 2 * shown["width"] + 1)
    assert image.size[1] in (2 * shown["height"], 2 * shown["height"] + 1)
    assert 350 < shown["width"] < 420
    assert image.getpixel((0, 0)) == image.getpixel((5, 5))
    assert len(data) < 25_000


def test_the_columns_of_even_margins_are_as_wide_as_one_another():
    figure, axes = plots.figure(columns=3, margins=even(3, left=0.2, right=0.1, top=0.9))
    for place, ax in enumerate(axes):
        (left, _), (right, top) = ax.get_position().get_points()
        assert (3 * left - place, 3 * right - place, top) == pytest.approx((0.2, 0.9, 0.9))
    assert figure.panels == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_what_is_kept_falls_from_left_to_right_on_a_logarithmic_axis(ax):
    plots.kept_axis(plots.accuracy_curve([100, 1], [1.0, 0.5], ax))
    assert ax.get_xscale() == "log"
    assert ax.get_xlim()[0] > 100 > 1 > ax.get_xlim()[1]
    ax.figure.canvas.draw()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["100", "50", "20", "10", "5", "2", "1"]


def test_counts_are_written_out_with_commas(ax):
    plots.frontier(SEEDS.assign(kept=[399, 399, 10_000, 10_000, 100_000]), ax)
    ax.figure.canvas.draw()
    assert {"1,000", "10,000", "100,000"} <= {label.get_text() for label in ax.get_xticklabels()}


@pytest.fixture
def pair():
    return plots.figure(columns=2)[1]


def test_figure_has_its_axes_row_by_row():
    figure, axes = plots.figure(columns=3, rows=2, width=6, height=2)
    assert len(axes) == 6
    assert figure.get_size_inches().tolist() == [6, 2]
    assert figure.get_layout_engine() is not None


def test_with_margins_the_axes_stay_where_they_are_put():
    figure, (ax,) = plots.figure(margins={"left": 0.2, "right": 0.9, "bottom": 0.25, "top": 0.75})
    assert figure.get_layout_engine() is None
    assert ax.get_position().extents.tolist() == pytest.approx([0.2, 0.25, 0.9, 0.75])


EPOCHS = [{"epoch": e, "train_accuracy": e / 4, "valid_accuracy": e / 8} for e in (1, 2)]
RUNS = DataFrame({"r": [0.1, 0.1, 0.5], "ratios": ["0.2 0.3", "0.2 0.4", "0.6 0.7"]})
ON_PATH = DataFrame(
    {"method": ["a", "a", "b"], "density": [0.01, 0.1, 1.0], "effective_density": [0.005, 0.1, 1.0]}
)
TIMED = DataFrame(
    {"method": "a", "epochs": [5, 5, 9], "seconds": [4, 6, 20], "test_accuracy": [0.9, 0.8, 0.95]}
)
SEEDS = DataFrame(
    {
        "method": ["a"] * 4 + ["b"],
        "seed": [0, 1, 0, 1, 0],
        "density": [0.01, 0.01, 0.5, 0.5, 0.01],
        "count": [399, 399, 1331, 1331, 7840],
        "kept": [390, 398, 1331, 1331, 7840],
        "test_accuracy": [0.9, 0.94, 0.98, 0.98, 0.92],
    }
)
BEFORE, AFTER = tensor([-3.0, 1.0, 2.0, 0.5]), tensor([4.0, -5.0, 1.0, 0.0])
KEPT = tensor([True, True, False, False])
BEND = tensor([0.0, 1.0, 2.0]), tensor([3.0, 2.0, 1.0])  # points and the density there
ORDERS = {"a": [[0.75, 0.25], [0.75, 0.5]], "b": [[0.5, 0.5]]}


def noise(ax):
    return masks.gradient_noise([0.1, 1.0], [0.2, 0.3], [0.4, 0.1], 0.25, ax)


LINES = [  # what is drawn, the scale of x, and the points of each line
    # accuracies and shares of 0..1 are shown in percent
    (lambda ax: plots.training_curves(EPOCHS, ax), "linear", [[[1, 25], [2, 50]], [[1, 12.5], [2, 25]]]),
    (lambda ax: plots.accuracy_curve([0, 50], [1.0, 0.5], ax), "linear", [[[0, 100], [50, 50]]]),
    (lambda ax: plots.temperature_curve([1, 0.1], [0.5, 0.9], ax), "log", [[[1, 50], [0.1, 90]]]),
    (
        lambda ax: plots.removal_curves([0, 100], ORDERS, ax),
        "linear",
        [[[0, 75], [100, 37.5]], [[0, 50], [100, 50]]],
    ),
    (lambda ax: plots.effective_share(ON_PATH, ax), "log", [[[1, 50], [10, 100]], [[100, 100]]]),
    (lambda ax: plots.error_curves(SEEDS, ax), "log", [[[1, 8], [50, 2]], [[1, 8]]]),
    (lambda ax: plots.error_curves(TIMED, ax, "seconds", "s"), "log", [[[5, 15], [20, 5]]]),
    # other values are shown as they are
    (lambda ax: curves.path([1, 2], [0.5, 0.7], ax, 2, "r"), "linear", [[[1, 0.5], [2, 0.7]], [[2, 0.7]]]),
    (
        lambda ax: plots.paths(RUNS, "ratios", ax, ["r"]),
        "linear",
        [[[1, 0.2], [2, 0.3]], [[1, 0.2], [2, 0.4]], [[1, 0.6], [2, 0.7]]],
    ),
    (
        lambda ax: plots.loglog({"a": [1, 10], "b": [2, NAN]}, [10, 100], ax, "n", "ms"),
        "log",
        [[[10, 1], [100, 10]], [[10, 2], [100, NAN]]],
    ),
    (lambda ax: plots.density_at(*BEND, ax), "linear", [[[0, 3], [1, 2], [2, 1]]]),
    (
        lambda ax: plots.density_at(*BEND, ax, t=1.0, f=2.0),  # the threshold reaches over the whole height
        "linear",
        [[[0, 3], [1, 2], [2, 1]], [[1, 0], [1, 1]], [[1, 2]]],
    ),
    (
        lambda ax: masks.cumulative(tensor([1.0, 4.0]), tensor([0.0, 1.0]), ax, t=2.0, r=0.5),
        "linear",
        [[[1, 0], [4, 1]], [[0, 0.5], [2, 0.5], [2, 0]], [[2, 0.5]]],
    ),
    (
        lambda ax: plots.mask_curve(tensor([-1.0, 0, 1]), tensor([1.0, 0.25, 1]), ax, 0.5),
        "linear",
        [[[-1, 1], [0, 0.25], [1, 1]], [[-0.5, 0], [-0.5, 1]], [[0.5, 0], [0.5, 1]]],
    ),
    (
        # pruned at the end; kept, and large before; kept, but small before
        lambda ax: plots.weight_moves(BEFORE, AFTER, KEPT, ax, 1.5),
        "linear",
        [[[2, 1], [0.5, 0]], [[3, 4]], [[1, 5]], [[1.5, 0], [1.5, 1]]],
    ),
    (noise, "log", [[[0.1, 0.2], [1, 0.3]], [[0, 0.25], [1, 0.25]]]),
]


@pytest.mark.parametrize(("draw", "scale", "lines"), LINES)
def test_lines_go_through_the_numbers(ax, draw, scale, lines):
    assert draw(ax) is ax
    assert ax.get_xscale() == scale
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert len(ax.lines) == len(lines)
    for line, points in zip(ax.lines, lines, strict=True):
        assert line.get_xydata().tolist() == [pytest.approx(point, nan_ok=True) for point in points]


PRUNED = DataFrame(
    {"k": [0, 0, 50, 50], "method": "a", "seed": [0, 1, 0, 1], "validation_accuracy": [1, 0.8, 0.6, 0.2]}
)
BANDS = [
    (lambda ax: plots.accuracy_bands(PRUNED, ax), 50, {20, 60}),
    (lambda ax: plots.error_curves(SEEDS, ax), 1, {6, 10}),
    (lambda ax: plots.removal_curves([0, 100], ORDERS, ax), 100, {25, 50}),
    (noise, 0.1, {-0.2, 0.6}),
]


@pytest.mark.parametrize(("draw", "at", "ends"), BANDS)
def test_bands_go_from_the_worst_to_the_best(ax, draw, at, ends):
    draw(ax)
    corners = ax.collections[0].get_paths()[0].vertices.tolist()
    found = {round(y, 6) for x, y in corners if x == pytest.approx(at)}
    assert {min(found), max(found)} == ends


def heights(ax):
    """Return the counts of a histogram by label."""
    return {patch.get_label(): patch.get_data().values.tolist() for patch in ax.patches}


WEIGHTS = tensor([-2.0, -0.5, 0.0, 0.5, 2.0])
SAMPLE = tensor([0.1, 0.1, 0.1, 0.9])
HALVES = {"pruned": [1, 1, 2, 1], "kept": [1, 0, 0, 1]}  # grey counts all: it shows where blue ends
MASKED = WEIGHTS * tensor([1, 0, 0, 0, 0.25])
HISTOGRAMS = [
    (lambda ax: plots.weight_histogram(WEIGHTS, ax, 1, bins=4), HALVES),
    (lambda ax: masks.kept_histogram(WEIGHTS, WEIGHTS.abs() > 1, ax, bins=4), HALVES),
    (
        lambda ax: masks.masked_histogram(WEIGHTS, MASKED, ax, bins=4),
        {"w": [1, 1, 2, 1], "m(w) w": [1, 0, 4, 0]},
    ),
    (lambda ax: plots.gate_histogram({"soft": SAMPLE}, ax, bins=4), {"soft": [75, 0, 0, 25]}),
    (
        lambda ax: plots.gate_histogram({"a": SAMPLE, "b": 1 - SAMPLE}, ax, bins=4),
        {"a": [75, 0, 0, 25], "b": [25, 0, 0, 75]},
    ),
]


@pytest.mark.parametrize(("draw", "expected"), HISTOGRAMS)
def test_histograms_count_every_value(ax, draw, expected):
    assert draw(ax) is ax
    assert heights(ax) == expected
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_one_sample_of_gates_is_filled_and_several_are_lines(pair):
    one, two = pair
    plots.gate_histogram({"soft": SAMPLE}, one)
    plots.gate_histogram({"a": SAMPLE, "b": SAMPLE}, two)
    assert one.patches[0].get_fill()
    assert one.get_legend() is None
    assert not two.patches[0].get_fill()


def test_chances_are_counted_in_equal_bins_and_an_empty_bin_is_white(pair):
    ax, through = pair
    gates = tensor([[8, 0], [3, 5]])
    masks.chance_histogram(gates[1], ax)
    steps = ax.patches[0].get_data()
    assert (steps.values.tolist(), steps.edges.tolist()) == ([3, 5], [0, 0.5, 1])
    plots.chances_through([1, 2], gates, through)
    shown = through.collections[0].get_array().reshape(2, 2)
    assert shown.filled(0).tolist() == [[8, 3], [0, 5]]
    assert through.get_xlim() == (0, 2)


def test_images_are_shown_under_their_titles(pair):
    plots.show_images(torch.rand(3, 1, 4, 4), ["a", "b"], pair)
    assert [ax.get_title() for ax in pair] == ["a", "b"]
    assert pair[0].images[0].get_array().shape == (4, 4)


def test_weights_share_one_symmetric_scale(pair):
    plots.show_weights(tensor([[1.0, 0, 0, 0], [0, -4.0, 0, 0]]), pair, side=2)
    assert {ax.images[0].get_clim() for ax in pair} == {(-2.0, 2.0)}


def test_importance_maps_share_one_scale(pair, ax):
    plots.importance_maps(tensor([[0.25, 0.75, 0, 0], [0, 0, 0.5, 0.5]]), pair, ["a", "b"], side=2)
    arrays = [each.images[0].get_array().tolist() for each in pair]
    assert arrays == [[[0.25, 0.75], [0, 0]], [[0, 0], [0.5, 0.5]]]
    assert {each.images[0].get_clim() for each in pair} == {(0, 0.75)}
    assert [each.get_title() for each in pair] == ["a", "b"]
    plots.importance_maps(tensor([[0.25, -0.75, 0, 0]]), [ax], side=2)
    assert ax.images[0].get_clim() == (-0.75, 0.75)


def test_pixels_show_how_many_of_their_weights_are_kept(ax):
    mask = tensor([[True, False, True, True], [True, False, False, False]])
    plots.kept_per_pixel(mask, ax, side=2)
    assert ax.images[0].get_array().tolist() == [[2, 0], [1, 1]]
    plots.kept_per_pixel(mask & False, ax, side=2)
    assert ax.images[-1].get_clim() == (0, 1), "nothing kept is the white end of the scale"


def test_bars_are_in_their_units_with_the_first_on_top(pair):
    masks.layer_bars({"1": 0.25, "3": 1.0}, pair[0])
    gains.size_bars({"dense": 8e6, "CSR": 2e6}, pair[1], largest=1e7)
    assert [[bar.get_width() for bar in ax.patches] for ax in pair] == [[25, 100], [8, 2]]
    assert all(ax.get_ylim()[0] > ax.get_ylim()[1] for ax in pair)
    assert [text.get_text().strip() for text in pair[1].texts] == ["100%", "25%"]
    assert pair[1].get_xlim()[1] == pytest.approx(11.8)


def test_paths_of_one_setting_share_a_colour_and_a_label(ax):
    plots.paths(RUNS, "ratios", ax, by=["r"])
    first, second, other = (line.get_color() for line in ax.lines)
    assert first == second != other
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["r = 0.1", "r = 0.5"]


def test_density_is_grey_below_the_threshold(pair):
    plots.density_at(*BEND, pair[0], t=1.0)
    plots.density_at(*BEND, pair[1])
    assert pair[0].collections[0].get_paths()[0].vertices[:, 0].max() == 1
    assert not pair[1].collections


def test_tangent_has_the_slope_and_goes_through_the_point(ax):
    masks.quantile_tangent(tensor([0.0, 8.0]), tensor([0.0, 1.0]), ax, r=0.25, t=2.0, slope=8.0)
    curve, tangent, point = ax.lines
    assert curve.get_xydata().tolist() == [[0, 0], [1, 8]]
    assert tangent.get_xydata().tolist() == [[0, 0], [1, 8]]
    assert point.get_xydata().tolist() == [[0.25, 2]]


def test_temperature_goes_from_hot_on_the_left_to_frozen(ax):
    assert plots.temperature_curve([1, 0.1], [0.5, 0.9], ax).get_xlim() == (2, 0.05)


def test_frontier_has_a_point_per_count_with_bars_to_the_worst_and_best_seed(ax):
    plots.frontier(SEEDS, ax)
    first, second = ax.containers
    assert [first.get_label(), second.get_label()] == ["a", "b"]
    assert first.lines[0].get_xydata().ravel().tolist() == pytest.approx([394, 92, 1331, 98])
    assert first.lines[2][0].get_segments()[0][:, 1].tolist() == pytest.approx([90, 94])
    assert ax.get_xscale() == "log"


def test_error_curves_have_a_marker_for_each_method(ax):
    first, second = plots.error_curves(SEEDS, ax).lines
    assert first.get_marker() != second.get_marker()
    assert ax.get_yscale() == "log"


def test_the_frontier_puts_long_runs_and_published_points_beside_the_curves(ax):
    short = DataFrame({"method": ["b", "a", "c"], "density": [0.01] * 3, "test_accuracy": [0.9, 0.8, 0.7]})
    long = DataFrame(
        {
            "method": ["gumbel, then exchange"] * 2 + ["gumbel"],
            "count": [399, 399, 399],
            "density": [0.0015, 0.0015, 0.0015],
            "epochs": [40, 40, 40],
            "fine_tune": [200, 200, 200],
            "test_accuracy": [0.95, 0.97, 0.5],
        }
    )
    published = DataFrame({"kept": [1, 5], "error": [2.4, 1.6]})
    plots.frontier_of(short, long, published, ("a", "b"), ax)
    a, b, stars, crosses = ax.lines
    assert (a.get_label(), b.get_label()) == ("a", "b")
    assert a.get_xydata().ravel().tolist() == pytest.approx([1, 20])
    assert stars.get_xydata().ravel().tolist() == pytest.approx([0.15, 4])
    assert stars.get_label().endswith("up to 240 epochs")
    assert crosses.get_xydata().tolist() == [[1, 2.4], [5, 1.6]]


def test_ranking_goes_from_the_worst_at_the_bottom_to_the_best(ax):
    rows = DataFrame({"mean": [85, 50], "min": [80, 50], "max": [90, 50]}, index=["a", "b"])
    curves.ranking(rows, ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a"]
    # the axis is one of errors, with accuracies written on it
    assert ax.lines[0].get_xydata().ravel().tolist() == pytest.approx([50, 0, 15, 1])
    assert ax.get_xscale() == "log"
    written = {
        label.get_text(): place for label, place in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)
    }
    assert written["90"] == pytest.approx(10)
    assert [text.get_text() for text in ax.texts] == ["50.0", "85.0"]
    spread = [part[:, 0].tolist() for part in ax.collections[0].get_segments()]
    assert spread == [pytest.approx([50, 50]), pytest.approx([20, 10])]


SMALL = [tensor([[2.0, 0, 0], [0, 0, 0], [1.0, -4.0, 0]]), tensor([[3.0, 0, -1.0]])]
ORDER = [tensor([1, 0, 2]), tensor([2, 0, 1]), tensor([0])]


def segments(ax):
    """Return the lines between units, layer by layer, as ((x, y), (x, y))."""
    edges = [each for each in ax.collections if isinstance(each, LineCollection)]
    return [[[tuple(point) for point in line.tolist()] for line in each.get_segments()] for each in edges]


def marks(ax):
    """Return places of the marks with the colours of their rims and faces, 0 = black and 1 = white."""
    found = [each for each in ax.collections if isinstance(each, PathCollection) and len(each.get_offsets())]
    return [
        (round(each.get_edgecolors()[0][0], 1), face[0], tuple(place))
        for each in found
        for place, face in zip(each.get_offsets().tolist(), each.get_facecolors().tolist(), strict=True)
    ]


def test_pathways_have_a_line_for_each_weight_between_the_places_of_its_units(ax):
    plots.pathway_drawing(SMALL, ORDER, ax, inputs=["a", "b", "c"], outputs=["y"])
    first, second = segments(ax)
    height = {note.get_text(): note.xy[1] for note in ax.texts if len(note.get_text()) == 1}
    assert height["b"] > height["a"] > height["c"], "inputs stand in the given order, under their own names"
    # weak weights first: 1 from a to unit 2, 2 from a to unit 0, -4 from b to unit 2
    assert [line[0][1] for line in first] == pytest.approx([height["a"], height["a"], height["b"]])
    assert [line[1][1] for line in first] == [0.75, 0.25, 0.75], "unit 2 stands above unit 0, unit 1 nowhere"
    assert [line[1][1] for line in second] == [height["y"]] * 2
    said = [text.get_text() for text in ax.texts if " of " in text.get_text()]
    assert said == ["2 of 3", "2 of 3", "1 of 1"]


def test_above_zero_is_orange_red_below_is_blue_and_zero_is_white_in_every_picture(pair, ax):
    ends = [mpl.colors.to_hex(SIGNED(place)) for place in (0.0, 1.0)]
    assert ends == [plots.BLUE, plots.RED]
    assert min(SIGNED(0.5)) > 0.99
    plots.show_weights(tensor([[1.0, 0, 0, -1]]), pair[:1], side=2)
    plots.importance_maps(tensor([[0.25, -0.75, 0, 0]]), pair[1:], side=2)
    plots.symmetry_matrix(torch.eye(2), ax)
    assert all(each.images[0].get_cmap() is SIGNED for each in (*pair, ax))


def test_pathways_are_red_above_zero_and_blue_below_and_wide_where_strong(ax):
    plots.pathway_drawing(SMALL, ORDER, ax)
    edges = ax.collections[0]
    redder = [red > blue for red, _, blue, _ in edges.get_colors().tolist()]
    assert redder == [True, True, False]
    assert edges.get_linewidths() == sorted(edges.get_linewidths())
    assert edges.get_linewidths()[-1] == 3.0


def test_an_input_without_weights_is_hollow(ax):
    plots.pathway_drawing(SMALL, ORDER, ax)
    assert [(face, y) for _, face, (x, y) in marks(ax) if x == 0] == [
        (1, pytest.approx(1 / 6)),  # c, which is last in the order, has no weight
        (0, pytest.approx(1 / 2)),
        (0, pytest.approx(5 / 6)),
    ]
    assert len(marks(ax)) == 6, "a hidden unit without weights is not drawn"


def test_pathways_outside_the_focus_are_grey(ax):
    focus = [SMALL[0] * tensor([[1.0], [1.0], [0]]), SMALL[1] * tensor([1.0, 1, 0])]
    plots.pathway_drawing(SMALL, ORDER, ax, focus=focus)
    coloured = [
        [len(set(colour[:3])) > 1 for colour in each.get_colors().tolist()] for each in ax.collections[:2]
    ]
    assert coloured == [[False, False, True], [False, True]], "grey lines lie below"
    black = {place for rim, _, place in marks(ax) if rim == 0}
    lines = {end for each, ends in zip(coloured, segments(ax), strict=True) for end in ends[each.index(True)]}
    assert black == lines, "units off the focus are grey"


def test_image_pathways_start_at_the_places_of_the_pixels(ax):
    weights = [tensor([[5.0, 0, 0, 0], [0, 0, 0, -5.0]]), torch.eye(2)]
    order = [torch.arange(4), tensor([1, 0]), torch.arange(2)]
    networks.image_pathways(weights, order, ax, outputs=["0", "1"], picture=torch.arange(4.0))
    (top_left, left_end), (bottom_right, right_end) = segments(ax)[0]
    assert top_left[0] < bottom_right[0]
    assert top_left[1] > bottom_right[1]
    assert left_end[1] < right_end[1], "unit 1 stands above unit 0"
    assert ax.images[0].get_array().tolist() == [[0, 1], [2, 3]]
    left, right, bottom, top = ax.images[0].get_extent()
    assert (top_left[0] - left) / (right - left) == pytest.approx(0.25)
    assert (top_left[1] - bottom) / (top - bottom) == pytest.approx(0.75)
    assert len([mark for mark in marks(ax) if mark[2][0] < left_end[0]]) == 2, "pixels without a weight"


@pytest.mark.parametrize("draw", [plots.pathway_drawing, networks.image_pathways])
def test_networks_without_weights_are_drawn_as_their_ends(ax, draw):
    weights, order = [torch.zeros(3, 4), torch.zeros(2, 3)], [torch.arange(size) for size in (4, 3, 2)]
    draw(weights, order, ax)
    ax.figure.canvas.draw()
    assert segments(ax) == [[], []]


def test_only_square_images_have_pixels(ax):
    with pytest.raises(ValueError, match="square images, got 3 inputs"):
        networks.image_pathways(SMALL, ORDER, ax)


def test_symmetry_matrix_writes_small_values_and_not_large_ones(pair):
    small, large = pair
    plots.symmetry_matrix(tensor([[1.0, -0.5], [-0.5, 1.0]]), small, ["a", "b"])
    assert [text.get_text() for text in small.texts] == ["1.00", "-0.50", "-0.50", "1.00"]
    assert [tick.get_text() for tick in small.get_xticklabels()] == ["a", "b"]
    assert small.images[0].get_clim() == (-1, 1)
    plots.symmetry_matrix(torch.eye(11), large)
    assert not large.texts


def test_wiring_goes_from_pixels_to_classes_by_sign_and_size(ax):
    layers = [
        Wires(tensor([0, 783]), tensor([0, 1]), tensor([1.0, -2.0]), torch.zeros(2), "ReLU"),
        Wires(tensor([1, 1]), tensor([0, 1]), tensor([3.0, 0.0]), torch.zeros(2), ""),
    ]
    networks.wiring(layers, ["a", "b"], ax, widest=2)
    drawn = [each for each in ax.collections if len(each.get_paths()[0].vertices) == 4]
    ends = [[[*path.vertices[0], *path.vertices[-1]] for path in each.get_paths()] for each in drawn]
    assert ends[0] == [[0.5, 0.5, 40, 7], [27.5, 27.5, 40, 21]]  # the strongest last: on top
    assert ends[1] == [[40, 21, 52, 21], [40, 21, 52, 7]]
    colours = [[mpl.colors.to_hex(edge) for edge in each.get_edgecolors()] for each in drawn]
    assert colours == [[plots.RED, plots.BLUE], ["#d9d9d9", plots.RED]]
    assert drawn[0].get_linewidths() == pytest.approx([2 * (0.08 + 0.92 / 2), 2])
    assert [text.get_text() for text in ax.texts] == ["a", "b"]


def test_storage_has_a_cell_for_each_number_and_colours_weights():
    _, axes = plots.figure(columns=3)
    plots.storage_forms(tensor([[0.0, 5.0], [0.0, 0.0], [-3.0, 0.0]]), axes)
    assert [" ".join(text.get_text() for text in ax.texts) for ax in axes] == [
        " 0 5  0 0  -3 0",
        "values 5 -3 columns 1 0 starts 0 1 1 2",
        "values 5 -3 bits 0 1 0  0 1 0",
    ]
    blue = [[patch.get_facecolor() == mpl.colors.to_rgba(plots.SKY) for patch in ax.patches] for ax in axes]
    assert [sum(each) for each in blue] == [2, 2, 2]
    assert blue[0] == [False, True, False, False, True, False]


def test_speed_is_drawn_against_the_weights_left(ax):
    rows = DataFrame(
        {
            "form": ["dense", "csr", "csr", "zeros", "shrunk", "masked"],
            "weights": [200, 4, 40, 40, 20, 40],
            "faster": [1.0, 8.0, 0.9, 1.0, 9.0, 0.8],
        }
    )
    plots.speed_curves(rows, ax, even=82.0)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn["zeros left out: CSR"] == [[2, 8], [20, 0.9]]
    assert drawn["zeros"] == [[20, 1]]
    assert drawn["units removed"] == [[10, 9]]
    assert [18, 18] in [list(line.get_xdata()) for line in ax.lines]
    assert [text.get_text() for text in ax.texts] == ["82 % zeros"]
    assert ax.get_xlim()[0] > ax.get_xlim()[1]  # all weights on the left
