"""The long runs on adaptive pruning: what a run trains, and what its row says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small import make_prototypes

from prunebook.experiments import adaptive as ar
from prunebook.experiments.adaptive import AdaptiveRun


@pytest.fixture(scope="module")
def data():
    return make_prototypes(300, 0.5)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(ar, "SIZES", (784, 20, 20, 10))


RUN = AdaptiveRun("control", "adaptive", 0.5, 1.0, 0, epochs=2, batch_size=30, lr=1e-3, lr_r=0.05)


@pytest.fixture
def rows(data, tmp_path):
    methods = ("adaptive", "flipped", "zero", "replayed", "fixed")
    runs = [replace(RUN, method=method, seed=seed) for seed in (0, 1) for method in methods]
    rows = list(ar.fill_adaptive(runs, tmp_path / "table.csv", data))
    assert ar.fill_adaptive([], tmp_path / "table.csv", data) is not None
    return {(row["method"], row["seed"]): row for row in rows}


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
    trained = ar.train_adaptive(replace(RUN, method="zero", lam=0.0), data)
    assert set(trained.path) == {0.0}  # the logit of one half
    walked = ar.train_adaptive(replace(RUN, method="zero"), data).path
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


def test_the_dense_network_has_no_masks(data, tmp_path):
    runs = [replace(RUN, method="dense", r=0.0, lam=0.0, decay=True)]
    (row,) = ar.fill_adaptive(runs, tmp_path / "table.csv", data)
    assert (row["density"], row["kept"], row["ratios"]) == (1, 784 * 20 + 400 + 200, "")
    assert row["test_accuracy"] > 0.5


def test_a_target_takes_the_place_of_the_square(data):
    run = replace(RUN, epochs=12, lr_r=0.1, lam=10.0, target=0.8, decay=True)
    assert ar.train_adaptive(run, data).rows[-1]["r"] == pytest.approx(0.8, abs=0.02)
    assert ar.train_adaptive(replace(run, target=0.0), data).rows[-1]["r"] > 0.85


@pytest.mark.parametrize("experiment", ar.EXPERIMENTS)
def test_an_experiment_holds_its_runs_once(experiment):
    runs = ar.adaptive_runs(experiment, 3)
    assert len(set(runs)) == len(runs) > 1
    assert {(run.experiment, run.seed) for run in runs} == {(experiment, 3)}
    settings = {(run.r, run.lam) for run in runs if run.method == "adaptive"}
    if experiment == "thesis":
        assert settings == set(ar.THESIS)


def test_unknown_names_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="experiment must be one of"):
        ar.adaptive_runs("theses", 0)
    with pytest.raises(ValueError, match="method must be one that"):
        list(ar.fill_adaptive([replace(RUN, method="learned")], tmp_path / "table.csv", data))
