"""What the chapter on the comparison and the README say about stored tables, claim by claim."""

from __future__ import annotations

from pathlib import Path

from pandas import DataFrame, read_csv
from scipy import stats

from prunebook.book.paired import Lead, lead
from prunebook.experiments.comparison import IN_BUDGET, MAIN
from prunebook.experiments.search import FROM_RULE, FROM_SOFT, GATES, METHODS, RULE, SOFT

ROOT = Path(__file__).parents[3]
ROWS, SEARCH = (read_csv(ROOT / f"book/results/{name}.csv") for name in ("comparison", "search"))
TEXT = (ROOT / "book/comparison.ipynb").read_text(), (ROOT / "README.md").read_text()
SHORT = ROWS.query("data == 'mnist' and epochs == 15 and shift == 0")
TEST = (100 * SHORT["test_accuracy"]).groupby([SHORT["method"], SHORT["density"]]).mean().unstack()
DENSE = 100 * SHORT.query("method == 'dense'")["test_accuracy"].mean()
SMALL, EXCHANGE, LINEAR = "small dense", "gumbel, then exchange", "linear classifier"
AGAIN, MOVED = "learned mask, other weights", "learned mask, shuffled"
CLOSE = [0.02, 0.01, 0.005, 0.0015]
WORDS = {24: "twenty-four"}
COSTS = [[0.3, 1.0, 2.3], [0.3, 0.8, 1.3]]  # points, of the rule and of gates, at 2, 1 and 0.5 %


def over(one: str, other: str, density: float, rows: DataFrame = SHORT) -> Lead:
    return lead(rows[rows["density"] == density], one, other)


def test_the_text_names_the_numbers_of_networks_and_methods():
    assert (
        f"The table of this chapter holds {len(ROWS)} networks, trained by {WORDS[len(METHODS)]} methods"
        in TEXT[0]
    )
    assert set(ROWS["method"]) == set(METHODS)
    assert not ROWS.get("error", DataFrame()).any(axis=None)


def test_settings_are_chosen_from_six_with_a_seed_that_is_in_no_table():
    assert (SEARCH.groupby(["method", "density"]).size() == 6).all()
    assert set(SEARCH["density"]) == {0.0015, 0.005, 0.05, 1}
    assert not set(SEARCH["seed"]) & set(ROWS["seed"])
    assert "test_accuracy" not in SEARCH


def test_there_are_five_seeds_from_2_percent_down_for_all_that_are_searched_and_two_above():
    seeds = SHORT.groupby(["method", "density"])["seed"].nunique().unstack()
    searched = [name for name, method in METHODS.items() if method.rates and name != "dense"]
    assert seeds.loc[searched, CLOSE].isin([5, float("nan")]).all(axis=None)
    assert (seeds.loc[[name for name in searched if "unit" not in name], CLOSE] == 5).all(axis=None)
    assert (seeds.loc[[*MAIN], [0.05, 0.1]] == 2).all(axis=None)


def test_the_dense_network_has_98_4_percent_and_what_the_rule_and_gates_cost():
    assert round(DENSE, 1) == 98.4
    costs = DENSE - TEST.loc[[RULE, GATES], CLOSE[:3]]
    assert costs.round(1).values.tolist() == COSTS


def test_at_10_and_5_percent_two_seeds_show_no_pruned_network_ahead_of_a_small_dense_one():
    for density in (0.1, 0.05):
        assert not any(over(name, SMALL, density).low > 0 for name in MAIN if name != SMALL)


def test_soft_masks_and_the_rule_with_exchange_tie_with_gates():
    assert all(over(GATES, FROM_SOFT, density).tie for density in (0.01, 0.005, 0.0015))
    assert over(GATES, FROM_RULE, 0.0015).tie


def test_snip_fails_at_0_15_percent():
    assert TEST.loc["SNIP", 0.0015] < 20


def test_with_60_epochs_gates_with_exchange_gain_more_than_a_point_and_the_rule_does_no_better():
    long = read_csv(ROOT / "book/results/starts.csv").query("epochs == 60")
    means = 100 * long.groupby(["method", "after"])["test_accuracy"].mean()
    assert means[EXCHANGE, "exchange"] - TEST.loc[EXCHANGE, 0.0015] > 1
    assert means[FROM_RULE, "nothing"] < TEST.loc[RULE, 0.0015]


def test_of_soft_masks_rewinding_and_rigl_the_best_second_setting_was_the_last_of_those_tried():
    best = SEARCH.loc[SEARCH.groupby(["method", "density"])["validation_accuracy"].idxmax()]
    at = best.query("density == 0.0015").set_index("method")["settings"]
    for name, last in ((SOFT, "tau=0.5"), ("iterative, rewinding", "rounds=7"), ("RigL", "drop=0.5")):
        assert last in at[name]


def test_at_2_percent_no_method_leads_the_rule_and_gates_tie_with_it():
    rivals = TEST[0.02].dropna().index.drop([RULE, "dense"], errors="ignore")
    assert len(rivals) > 15
    assert not any(over(name, RULE, 0.02).low > 0 for name in rivals)
    assert over(RULE, GATES, 0.02).tie
    six = [SOFT, EXCHANGE, FROM_RULE, "RigL", SMALL, LINEAR]
    assert all(over(RULE, name, 0.02).low > 0 for name in six)


def test_from_1_percent_down_gates_lead_the_rule():
    found = [over(GATES, RULE, density) for density in CLOSE[1:]]
    assert [round(gap.mean, 1) for gap in found] == [0.2, 1.0, 5.5]
    assert all(gap.low > 0 for gap in found)
    sides = [(round(gap.low, 1), round(gap.high, 1)) for gap in found]
    assert sides == [(0.2, 0.3), (0.7, 1.3), (4.6, 6.4)]
    assert [round(TEST.loc[name, 0.0015], 1) for name in (GATES, RULE)] == [93.8, 88.3]


def test_at_0_15_percent_the_rule_ties_with_four_that_gates_lead():
    four = [SOFT, "RigL", SMALL, LINEAR]
    assert all(over(RULE, name, 0.0015).tie for name in four)
    assert all(over(GATES, name, 0.0015).low > 0 for name in four)


def test_at_half_a_percent_soft_masks_lead_the_rule_by_a_fifth_of_a_point():
    found = over(SOFT, RULE, 0.005)
    assert (round(found.mean, 1), found.low > 0) == (0.2, True)


def test_at_1_percent_the_rule_ties_with_soft_masks_and_with_both_exchanges():
    assert all(over(RULE, name, 0.01).tie for name in (SOFT, EXCHANGE, FROM_RULE))


def test_exchange_lifts_the_rule_at_half_a_percent_and_below():
    found = [over(FROM_RULE, RULE, density) for density in (0.005, 0.0015)]
    assert [round(gap.mean, 1) for gap in found] == [0.7, 5.1]
    assert all(gap.low > 0 for gap in found)
    assert (round(found[1].low, 1), round(found[1].high, 1)) == (3.4, 6.8)
    assert round(over(FROM_RULE, RULE, 0.02).mean, 1) == -0.6


def test_in_15_epochs_exchange_after_gates_ties_at_half_a_percent_and_below_and_costs_above():
    found = {density: over(EXCHANGE, GATES, density) for density in CLOSE}
    assert [density for density, gap in found.items() if gap.tie] == [0.005, 0.0015]
    assert all(found[density].high < 0 for density in (0.02, 0.01))


def test_pruning_layer_by_layer_is_worse_than_over_all_layers_where_little_is_left():
    for density in CLOSE:
        assert over("magnitude, global, one-shot", "magnitude, layer, one-shot", density).low > 5


def test_a_random_mask_falls_behind_snip_from_2_to_half_a_percent_and_rigl_leads_it_by_far():
    for density in (0.02, 0.01, 0.005):
        assert over("SNIP", "random", density).low > 0
    assert round(over("SNIP", "random", 0.005).mean) == 25
    assert (round(TEST.loc["RigL", 0.0015], 1), round(TEST.loc["random", 0.0015])) == (87.6, 17)
    assert over("RigL", "random", 0.0015).low > 60


def test_whole_units_cost_much_more_accuracy_at_5_percent_and_below():
    for density in (0.02, 0.01, 0.005):
        assert over(GATES, "gumbel units", density).low > 4
    assert TEST.loc["gumbel units", 0.05] < TEST.loc[GATES, 0.05] - 1


def test_pruning_by_torch_gives_the_accuracy_of_our_one_shot_pruning_to_the_last_image():
    names = ["magnitude, global, one-shot", "torch.nn.utils.prune"]
    both = SHORT[SHORT["method"].isin(names) & (SHORT["seed"] < 2) & (SHORT["density"] <= 0.02)]
    pairs = both.groupby(["density", "seed"])["test_accuracy"]
    assert pairs.size().eq(2).all()
    assert pairs.nunique().eq(1).all()


def test_the_factor_of_the_interval_is_2_8_for_five_seeds_and_12_7_for_two():
    assert [round(stats.t(n - 1).ppf(0.975), 1) for n in (5, 2)] == [2.8, 12.7]


def test_the_small_dense_network_of_413_weights_has_90_percent_after_100_epochs():
    small = read_csv(ROOT / "book/results/gumbel.csv").query("network == '49-7-10'")
    assert set(small["epochs"] + small["fine_tune"]) == {100}
    assert 0.89 < small["test_accuracy"].mean() < 0.91


def test_with_the_biases_inside_400_parameters_gates_lead_the_rule_by_10_points():
    rows = SHORT[(SHORT["density"] - IN_BUDGET).abs() < 1e-9]
    assert rows.groupby("method")["seed"].nunique().eq(5).all()
    assert (rows["kept"] + rows["biases"] <= 400).all()
    found = lead(rows, GATES, RULE)
    assert (round(found.mean), found.low > 0) == (10, True)


def places(density: float) -> Lead:
    return over(AGAIN, MOVED, density)


def test_shuffled_places_cost_2_5_18_and_68_points_and_tie_with_random_masks():
    found = [places(density) for density in CLOSE]
    assert [round(gap.mean) for gap in found] == [2, 5, 18, 68]
    assert all(gap.low > 0 and gap.seeds == 2 for gap in found)
    assert all(over(MOVED, "random", density).tie for density in CLOSE)


def test_other_weights_stay_behind_the_gates_by_0_8_and_1_7_points_and_below_that_two_seeds_cannot_tell():
    found = [over(GATES, AGAIN, density) for density in CLOSE]
    assert [round(gap.mean, 1) for gap in found[:2]] == [0.8, 1.7]
    assert [gap.low > 0 for gap in found] == [True, True, False, False]
    assert all(gap.tie for gap in found[2:])


def test_the_solution_on_effective_weights_gives_the_numbers_of_the_table():
    kept = SHORT.query("density == 0.005").groupby("method")["effective"].mean().round()
    assert [kept[name] for name in ("magnitude, layer, one-shot", "random", "SNIP")] == [235, 744, 749]
    assert all(kept[name] > 1250 for name in (RULE, SOFT, GATES, FROM_RULE, FROM_SOFT, "RigL"))


def test_at_5_percent_only_whole_units_and_small_dense_networks_save_multiplications():
    at = SHORT.query("density == 0.05").groupby("method")[["macs", "test_accuracy"]].mean()
    few = ["unit norm", "gumbel units", SMALL]
    assert at["macs"][few].between(12_000, 14_000).all()
    assert at["macs"].drop([*few, "Torch-Pruning"], errors="ignore").min() > 140_000
    assert at["test_accuracy"][few].idxmax() == SMALL
