"""What the chapter on the comparison says about stored tables, claim by claim."""

from __future__ import annotations

from pathlib import Path

from pandas import DataFrame, Series, read_csv
from scipy import stats

from prunebook.book.paired import Lead, lead
from prunebook.experiments.comparison import MAIN

RESULTS = Path(__file__).parents[3] / "book/results"
ROWS = read_csv(RESULTS / "earlier.csv")
SEARCH = read_csv(RESULTS / "earlier-search.csv")
SHORT = ROWS.query("data == 'mnist' and epochs == 15")
TEST = (100 * SHORT["test_accuracy"]).groupby([SHORT["method"], SHORT["density"]]).mean().unstack()
RULE, PRUNED, SMALL, EXCHANGE = MAIN[0], [*MAIN[:-1]], MAIN[-1], "gumbel, then exchange"
DENSE = 100 * SHORT.query("method == 'dense'")["test_accuracy"].mean()


def rule_leads(density: float, method: str, rows: DataFrame = SHORT) -> Lead:
    """Return by how many points the rule leads a method."""
    return lead(rows[rows["density"] == density], RULE, method)


def long_runs() -> Series:
    digits = ROWS.query("data == 'mnist'")
    timed = digits[digits["method"].isin(ROWS.query("epochs == 60")["method"])]
    return 100 * timed.groupby(["density", "method", "epochs"])["test_accuracy"].mean()


def test_the_table_holds_486_networks_by_20_methods():
    assert len(ROWS) == 486
    assert ROWS["method"].nunique() == 20


def test_settings_are_chosen_from_six_with_a_seed_that_is_in_no_table():
    assert (SEARCH.groupby(["method", "density"]).size() == 6).all()
    assert not set(SEARCH["seed"]) & set(ROWS["seed"])


def test_there_are_five_seeds_from_2_percent_down():
    seeds = SHORT.groupby(["method", "density"])["seed"].nunique().unstack()
    close = seeds.loc[["gumbel", "soft mask"], [0.02, 0.01, 0.005, 0.0015]]
    assert (close == 5).all(axis=None)


def test_neither_small_dense_networks_nor_random_masks_beat_the_dense_network_below_half_the_weights():
    both = TEST.loc[[SMALL, "random"], [0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.0015]]
    assert (both < DENSE).all(axis=None)


def test_gradual_pruning_by_size_leads_at_1_percent():
    seeds = SHORT.query("density == 0.01").groupby("method")["seed"].nunique()
    rivals = seeds[seeds == 5].index.drop(RULE)
    assert len(rivals) > 10
    assert all(rule_leads(0.01, name).low > 0 for name in rivals)
    assert TEST[0.01].drop("dense").idxmax() == RULE


def test_down_to_10_percent_two_seeds_show_no_pruned_network_ahead_of_a_small_dense_one():
    for density in (0.5, 0.2, 0.1):
        rows = SHORT[SHORT["density"] == density]
        assert not any(lead(rows, name, SMALL).low > 0 for name in PRUNED)


def test_from_5_to_half_a_percent_a_small_dense_network_does_worse_than_gradual_pruning():
    low = TEST[[0.05, 0.02, 0.01, 0.005]]
    assert low.loc[SMALL].lt(low.loc[RULE] - 0.3).all()


def test_the_dense_network_has_98_4_percent_and_the_rule_costs_0_4_then_0_9_then_2_2_points():
    assert 98.3 < DENSE < 98.5
    lost = DENSE - TEST.loc[RULE, [0.02, 0.01, 0.005]]
    assert (lost - [0.4, 0.9, 2.2]).abs().max() < 0.06


def test_96_percent_by_the_plainest_rule_with_half_a_percent_kept():
    assert 95.5 < TEST.loc[RULE, 0.005] < 96.5


def test_at_0_15_percent_a_linear_classifier_and_a_small_dense_network_are_highest():
    assert set(TEST[0.0015].dropna().sort_values().index[-2:]) == {"linear classifier", "small dense"}


def test_from_5_percent_up_exchange_has_the_lower_mean():
    wide = [0.05, 0.1, 0.2, 0.5]
    assert (TEST.loc["gumbel", wide] > TEST.loc[EXCHANGE, wide]).all()


def test_at_5_percent_the_pruned_networks_tie():
    at_5 = TEST.loc[PRUNED, 0.05].drop(EXCHANGE)
    assert at_5.max() - at_5.min() < 0.4


def test_small_dense_networks_are_no_better_at_1_percent_than_at_half_a_percent():
    assert TEST.loc[SMALL, 0.01] < TEST.loc[SMALL, 0.005] + 0.3


def test_of_the_methods_of_the_frontier_only_two_have_a_best_rate_between_those_tried():
    tried = SEARCH.query("density == 0.005").copy()
    tried["lr"] = tried["settings"].str.extract(r"lr=(\S+)")[0].astype(float)
    best = tried.loc[tried.groupby("method")["validation_accuracy"].idxmax()].set_index("method")["lr"]
    ends = tried.groupby("method")["lr"].agg(["min", "max"])
    inner = {name for name in MAIN if best[name] not in set(ends.loc[name])}
    assert inner == {RULE, "iterative, rewinding"}


def test_the_factor_of_the_interval_is_2_8_for_five_seeds_and_12_7_for_two():
    assert [round(stats.t(n - 1).ppf(0.975), 1) for n in (5, 2)] == [2.8, 12.7]


def test_at_1_percent_the_rule_leads_all_five_and_at_2_percent_it_ties_with_gates():
    rivals = ["soft mask", "gumbel", EXCHANGE, SMALL, "linear classifier"]
    assert all(rule_leads(0.01, name).low > 0 for name in rivals)
    assert [name for name in rivals if rule_leads(0.02, name).tie] == ["gumbel"]


def test_at_half_a_percent_the_rule_ties_with_exchange():
    assert [n for n in ("soft mask", "gumbel", EXCHANGE, SMALL) if rule_leads(0.005, n).tie] == [EXCHANGE]
    assert rule_leads(0.005, "linear classifier").low > 0


def test_at_0_15_percent_the_rule_leads_gates_alone_and_ties_with_three_and_a_linear_classifier_wins():
    assert rule_leads(0.0015, "linear classifier").high < 0
    leads = {name: rule_leads(0.0015, name) for name in ("soft mask", "gumbel", EXCHANGE, SMALL)}
    assert leads["gumbel"].low > 0
    assert all(found.tie for name, found in leads.items() if name != "gumbel")
    assert 3.5 < max(abs(found.mean) for name, found in leads.items() if name != "gumbel") < 4.5


def test_two_seeds_tell_nothing_apart_at_5_percent():
    assert all(rule_leads(0.05, name).tie for name in ("soft mask", "gumbel", EXCHANGE, SMALL))


def test_pruning_layer_by_layer_is_worse_than_over_all_layers_where_little_is_left():
    low = TEST[[0.02, 0.01, 0.005]]
    by_layer, over_all = low.loc["magnitude, layer, one-shot"], low.loc["magnitude, global, one-shot"]
    assert (by_layer < over_all - 5).all()


def test_a_random_mask_falls_far_behind_snip():
    for density in (0.02, 0.01, 0.005):
        assert lead(SHORT[SHORT["density"] == density], "SNIP", "random").low > 8


def test_whole_units_cost_much_more_accuracy_at_5_percent_and_below():
    for density in (0.02, 0.01, 0.005):
        assert lead(SHORT[SHORT["density"] == density], "gumbel", "gumbel units").low > 4
    assert TEST.loc["gumbel units", 0.05] < TEST.loc["gumbel", 0.05] - 1


def test_pruning_by_torch_gives_the_accuracy_of_our_one_shot_pruning_to_the_last_image():
    names = ["magnitude, global, one-shot", "torch.nn.utils.prune"]
    both = SHORT[SHORT["method"].isin(names) & (SHORT["seed"] < 2) & (SHORT["density"] <= 0.02)]
    pairs = both.groupby(["density", "seed"])["test_accuracy"]
    assert pairs.size().eq(2).all()
    assert pairs.nunique().eq(1).all()


def test_at_0_15_percent_with_60_epochs_gates_lead_the_rule_by_9_points_and_with_exchange_by_11():
    rows = ROWS[(ROWS["data"] == "mnist") & (ROWS["epochs"] == 60) & (ROWS["density"] == 0.0015)]
    found = [lead(rows, name, RULE) for name in ("gumbel", EXCHANGE)]
    assert [[round(value) for value in gap[:3]] for gap in found] == [[9, 6, 11], [11, 9, 14]]


def test_at_1_percent_none_can_be_told_from_the_rule_with_30_epochs_or_60():
    for epochs in (30, 60):
        rows = ROWS[(ROWS["data"] == "mnist") & (ROWS["epochs"] == epochs)]
        assert all(rule_leads(0.01, name, rows).tie for name in ("soft mask", "gumbel", EXCHANGE))


def test_of_399_weights_the_rule_has_346_on_a_path_after_15_epochs_and_280_after_60():
    rows = ROWS.query("data == 'mnist' and density == 0.0015 and method == @RULE")
    assert rows.groupby("epochs")["effective"].mean().round()[[15, 60]].tolist() == [346, 280]
    assert (rows["kept"] == 399).all()


def test_the_long_runs_have_two_seeds_and_the_short_ones_five():
    seeds = ROWS[ROWS["method"].isin(ROWS.query("epochs == 60")["method"])]
    seeds = seeds.query("data == 'mnist' and density in (0.01, 0.0015)")
    counts = seeds.groupby(["epochs", "method", "density"])["seed"].nunique()
    assert (counts[15] == 5).all()
    assert (counts[[30, 60]] == 2).all()


def test_the_small_dense_network_of_413_weights_has_90_percent_after_100_epochs():
    small = read_csv(RESULTS / "gumbel.csv").query("network == '49-7-10'")
    assert set(small["epochs"] + small["fine_tune"]) == {100}
    assert 0.89 < small["test_accuracy"].mean() < 0.91


AGAIN, MOVED = "learned mask, other weights", "learned mask, shuffled"


def at_once(density: float, one: str, other: str, rows: DataFrame = SHORT) -> Lead:
    found = lead(rows[rows["density"] == density], one, other)
    assert found.seeds == 2
    return found


def test_at_2_and_1_percent_shuffled_masks_beat_random_ones_by_11_and_49_points():
    found = [at_once(density, MOVED, "random") for density in (0.02, 0.01)]
    assert [round(gap.mean) for gap in found] == [11, 49]
    assert all(gap.low > 0 for gap in found)


def test_what_the_places_are_worth_two_seeds_cannot_tell():
    places = {density: at_once(density, AGAIN, MOVED) for density in (0.02, 0.01, 0.005, 0.0015)}
    assert all(gap.tie for gap in places.values())
    assert round(places[0.0015].mean) == 53


def test_on_clothes_neither_gates_nor_exchange_can_be_told_from_the_rule():
    fashion = ROWS.query("data == 'fashion'")
    assert sorted(fashion["density"].unique())[:3] == [0.0015, 0.005, 0.02]
    for density in (0.02, 0.005, 0.0015):
        assert all(at_once(density, RULE, name, fashion).tie for name in ("gumbel", EXCHANGE))


def test_random_masks_and_one_shot_pruning_by_layer_waste_most_of_their_weights():
    at = SHORT.query("density == 0.005").groupby("method")[["effective", "kept"]].mean()
    share = at["effective"] / at["kept"]
    assert share["random"] < 0.1
    assert share["magnitude, layer, one-shot"] < 0.5 < share["SNIP"]


def test_the_solution_on_effective_weights_gives_the_numbers_of_the_table():
    wasted = SHORT.query("density == 0.005 and kept == 1331").groupby("method")["effective"].mean().round()
    assert wasted["random"] == 35
    assert wasted["magnitude, layer, one-shot"] == 212
    assert wasted["SNIP"] == 749


def test_at_5_percent_only_whole_units_and_small_dense_networks_save_multiplications():
    at = SHORT.query("density == 0.05").groupby("method")[["macs", "test_accuracy"]].mean()
    few = ["unit norm", "gumbel units", "small dense"]
    assert at["macs"]["unit norm"] < 0.1 * at["macs"][RULE]
    assert at["macs"][few].between(12_000, 14_000).all()
    assert at["macs"].drop(few).min() > 160_000
    assert at["test_accuracy"][few].idxmax() == "small dense"
    assert abs(at["test_accuracy"]["small dense"] - 0.978) < 0.0005
