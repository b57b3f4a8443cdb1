"""The table of adaptive pruning: what a run trains, and what its row says."""

from __future__ import annotations

import pytest
from small import make_prototypes

from prunebook.experiments import adaptive as ar

RUN = ar.RUN.but(lam=1.0, epochs=2, batch_size=30, lr=1e-3, lr_r=0.05)


@pytest.fixture(scope="module")
def data():
    """Small data and a small network for the whole file."""
    given = make_prototypes(300, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ar, "SIZES", (784, 20, 20, 10))
        patch.setattr(ar, "data_of", lambda name: given)
        ar._learned.cache_clear()
        yield given


@pytest.fixture(scope="module")
def rows(data):
    return {
        (run.method, seed): ar.measure(RUN.but(method=run.method, seed=seed))
        for seed in (0, 1)
        for run in ar.EXPERIMENTS["control"]
    }


def ratios(row):
    return [float(ratio) for ratio in str(row["ratios"]).split()]


def test_replaying_a_learned_path_repeats_the_run(rows):
    """The gradient of r moves r and nothing else: with its path given, the weights cannot tell."""
    for seed in (0, 1):
        learned, replayed = rows["adaptive", seed], rows["replayed", seed]
        for column in ("kept", "ratios", "taus", "accuracies", "validation_accuracy"):
            assert learned[column] == replayed[column]


def test_the_other_controls_change_what_their_names_say(rows):
    learned = ratios(rows["adaptive", 0])
    assert learned != ratios(rows["adaptive", 1])
    assert ratios(rows["fixed", 0]) == [learned[-1]] * 2
    assert ratios(rows["zero", 0]) != learned
    assert ratios(rows["flipped", 0]) != ratios(rows["zero", 0])


def test_without_slope_only_the_penalty_moves_r(data):
    trained = ar.train(RUN.but(method="zero", lam=0.0), data)
    assert set(trained.path) == {0.0}  # the logit of one half
    walked = ar.train(RUN.but(method="zero"), data).path
    assert walked == sorted(walked)
    assert walked[-1] > 0


def test_a_row_says_what_was_kept_and_measured(rows):
    row = rows["adaptive", 0]
    total = 784 * 20 + 400 + 200
    assert row["kept"] == total - round(ratios(row)[-1] * total)
    assert row["density"] == pytest.approx(int(row["kept"]) / total, abs=1e-8)
    assert row["validation_accuracy"] == row["test_accuracy"], "the splits are the same here"
    assert row["soft_accuracy"] == pytest.approx(float(str(row["accuracies"]).split()[-1]), abs=1e-4)
    assert row["seconds"] > 0


def test_a_path_that_several_runs_follow_is_learned_once(data, monkeypatch):
    trained, train = [], ar.train
    monkeypatch.setattr(ar, "train", lambda run, *rest: trained.append(run.method) or train(run, *rest))
    ar._learned.cache_clear()
    for method in ("adaptive", "replayed", "fixed"):
        ar.measure(RUN.but(method=method, epochs=1))
    assert trained == ["adaptive", "replayed", "fixed"]


@pytest.mark.usefixtures("data")
def test_the_dense_network_has_no_masks():
    row = ar.measure(RUN.but(method="dense", r=0.0, lam=0.0, decay=True))
    assert (row["density"], row["kept"], row["ratios"]) == (1, 784 * 20 + 400 + 200, "")
    assert row["test_accuracy"] > 0.5
    with pytest.raises(ValueError, match=r"method must be 'dense' or .* got 'learned'"):
        ar.measure(RUN.but(method="learned"))


def test_a_target_takes_the_place_of_the_square(data):
    run = RUN.but(epochs=12, lr_r=0.1, lam=10.0, target=0.8, decay=True)
    assert ar.train(run, data).rows[-1]["r"] == pytest.approx(0.8, abs=0.02)
    assert ar.train(run.but(target=0.0), data).rows[-1]["r"] > 0.85


@pytest.mark.usefixtures("data")
def test_the_rule_prunes_exactly_the_target():
    row = ar.measure(RUN.but(method="gradual", r=0.0, lam=0.0, target=0.75))
    assert row["kept"] == (784 * 20 + 400 + 200) / 4
    assert row["test_accuracy"] > 0.5


def test_an_experiment_can_be_chosen():
    dense, *learned = ar.runs(["thesis"], [3])
    assert {(run.experiment, run.seed) for run in (dense, *learned)} == {("thesis", 3)}
    assert [(run.r, run.lam) for run in learned] == [(0.5, 0), (0.95, 0), (0.5, 10), (0.95, 10)]
