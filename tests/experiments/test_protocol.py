"""What all tables share: runs as values, data that is never replaced, one way to train."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
import torch
from small import make_prototypes

import prunebook as pb
from prunebook.experiments import protocol
from prunebook.experiments.protocol import Run, data_of, train

RUN = Run(method="weights", k=50, seed=0, settings={"lr": 0.002, "before": 0.4})


def test_a_run_is_a_value():
    other = RUN.but(k=50.0, settings=dict(reversed(RUN.settings.items())))
    assert other == RUN
    assert len({RUN, other, RUN.but(seed=1), pickle.loads(pickle.dumps(RUN))}) == 2
    assert RUN.but(settings={"lr": 0.004}) != RUN
    assert (RUN.k, RUN.settings["before"]) == (50, 0.4)


def test_settings_become_one_column():
    assert RUN.columns() == {"method": "weights", "k": 50, "seed": 0, "settings": "lr=0.002 before=0.4"}


def test_a_run_has_no_settings_that_nobody_reads():
    with pytest.raises(ValueError, match=r"settings of this run must be among \['k', .*\], got 'epoch'"):
        RUN.but(epoch=3)
    with pytest.raises(AttributeError, match="epochs"):
        _ = RUN.epochs


def test_data_is_loaded_once_and_never_replaced(monkeypatch):
    loaded = []
    monkeypatch.setattr(protocol, "load_data", lambda name: loaded.append(name) or SimpleNamespace(name=name))
    data_of.cache_clear()
    names = ["mnist", "mnist", "fashion"]
    assert [data_of(name).name for name in names] == names
    assert loaded == ["mnist", "fashion"]
    monkeypatch.setattr(protocol, "load_data", lambda name: SimpleNamespace(name="digits"))
    data_of.cache_clear()
    with pytest.raises(ConnectionError, match="data 'mnist' is not at hand here: python -m prunebook data"):
        data_of("mnist")
    data_of.cache_clear()


@pytest.mark.parametrize("decay", [True, False])
def test_rates_fall_to_0_only_if_asked_to_whatever_else_is_scheduled(decay, monkeypatch):
    made, rates, progress, stepped = [], [], [], []
    adam = torch.optim.Adam
    monkeypatch.setattr(
        torch.optim, "Adam", lambda *given, **named: made.append(adam(*given, **named)) or made[-1]
    )

    def note(share):
        progress.append(share)
        rates.append(made[0].param_groups[0]["lr"])

    rows = train(
        pb.mlp([784, 10]),
        make_prototypes(40, 3),
        0.004,
        epochs=2,
        batch_size=4,
        decay=decay,
        schedule=note,
        after_step=lambda: stepped.append(1),
    )
    assert progress == [step / 20 for step in range(21)]
    assert rates == pytest.approx([0.004 * (1 - min(share, 0.95) * decay) for share in progress])
    assert len(stepped) == 20
    assert [row["epoch"] for row in rows] == [1, 2]
