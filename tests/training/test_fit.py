"""Training: each number by hand or bit for bit, runs that break, stop and go on, and what is refused."""

import copy
import math
import os
import random
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam

import prunebook as pb
from prunebook.training import checkpoint as checkpoints
from prunebook.training.data import Data

STEPS = 7  # per epoch: 50 images in batches of 8, the last of 2
EMPTY = pb.Split(torch.zeros(0, 1, 4, 4), torch.zeros(0).long())


def make_data(n=50, seed=0):
    """Three classes of noisy 4 x 4 images; the first pixel of an image is its number."""
    draw = torch.Generator().manual_seed(seed)

    def split(n):
        labels = torch.arange(n) % 3
        images = torch.randn(n, 1, 4, 4, generator=draw)
        images[torch.arange(n), 0, 1, labels] += 3
        images[:, 0, 0, 0] = torch.arange(n)
        return pb.Split(images, labels)

    return Data(split(n), split(20), split(20), "tiny", ("a", "b", "c"), 0.0, 1.0)


class Skip(nn.Module):
    """Leave out the first pixel, which is only a number."""

    def forward(self, images):
        return images.flatten(1)[:, 1:]


class Seen(nn.Module):
    """Note which images come by in training, batch by batch, and the noise that is drawn, if any."""

    def __init__(self, draws=False):
        super().__init__()
        self.batches, self.draws, self.noise = [], draws, set()

    def forward(self, images):
        if self.training:
            self.batches.append(images[:, 0, 0, 0].int().tolist())
            if self.draws:
                self.noise.add(torch.rand(17)[0].item())
        return images


@pytest.fixture(autouse=True)
def _ctrl_c_interrupts():
    """A process started in the background inherits an ignored Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def data():
    return make_data()


def make_model():
    """A model with all that a resumed run could forget: weights, running statistics and noise."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(
            Skip(), nn.Linear(15, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 3)
        )


def linear(seen=None):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(seen or nn.Identity(), Skip(), nn.Linear(15, 3))


def fit(model, data, **options):
    return pb.fit(model, data, **{"epochs": 2, "batch_size": 8, "progress": False} | options)


def bits(model):
    return checkpoints.digest(model.state_dict())


def without_time(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history.rows]


def test_evaluate_matches_a_computation_by_hand():
    images = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]]).reshape(2, 1, 1, 3)
    score = pb.evaluate(nn.Flatten(), pb.Split(images, torch.tensor([1, 0])))
    assert score.loss == pytest.approx((math.log(3) + math.log(2)) / 2)
    assert score.accuracy == 0.5
    assert score == (score.loss, score.accuracy)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_evaluate_gives_the_same_whatever_the_batch_size(batch_size, data):
    model = make_model().eval()
    score = pb.evaluate(model, data.test, batch_size=batch_size)
    scores = model(data.test.images)
    assert score.loss == pytest.approx(F.cross_entropy(scores, data.test.labels).item(), rel=1e-5)
    assert score.accuracy == (scores.argmax(1) == data.test.labels).double().mean().item()


def test_evaluate_measures_in_evaluation_mode_and_mixed_modes_come_back_even_after_an_error(data):
    model = make_model()
    model[2].eval()
    model[4].eval()
    modes = [module.training for module in model.modules()]
    state = bits(model)
    scores = [pb.evaluate(model, data.valid) for _ in range(3)]
    assert len(set(scores)) == 1
    assert [module.training for module in model.modules()] == modes
    assert len(set(modes)) == 2
    assert bits(model) == state
    with pytest.raises(RuntimeError, match="shapes"):
        pb.evaluate(nn.Sequential(model, nn.Linear(99, 3)), data.valid)
    assert [module.training for module in model.modules()] == modes
    fit(model, data)
    assert [module.training for module in model.modules()] == modes


def test_what_a_layer_keeps_from_evaluate_can_be_used_in_training(data):
    class Scale(nn.Module):
        scale = None

        def forward(self, x):
            if self.scale is None:
                self.scale = x.std(0)
            return x / self.scale

    model = nn.Sequential(Skip(), nn.Linear(15, 8), Scale(), nn.Linear(8, 3))
    pb.evaluate(model, data.valid)
    assert len(fit(model, data)) == 2


def test_the_seed_alone_draws_the_batches_and_each_epoch_has_an_order_and_noise_of_its_own(data):
    quiet, noisy, other = Seen(), Seen(draws=True), Seen()
    fit(linear(quiet), data)
    fit(linear(noisy), data)
    fit(linear(other), data, seed=1)
    assert quiet.batches == noisy.batches != other.batches
    assert [len(batch) for batch in quiet.batches] == [8, 8, 8, 8, 8, 8, 2] * 2
    first, second = ([i for batch in part for i in batch] for part in (quiet.batches[:7], quiet.batches[7:]))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first != sorted(first)
    assert len(noisy.noise) == 2 * STEPS


def test_a_run_is_repeated_bit_for_bit_whatever_ran_before(data):
    first = make_model()
    history = fit(first, data)
    torch.manual_seed(99)
    torch.rand(1000), np.random.default_rng().random(10), random.random()
    fit(make_model(), make_data(seed=3), seed=8)
    second = make_model()
    assert without_time(fit(second, data)) == without_time(history)
    assert bits(second) == bits(first)
    third = make_model()
    fit(third, data, seed=1)
    assert bits(third) != bits(first)


def test_the_global_random_state_is_left_as_it_was(data):
    def stop(row):
        raise RuntimeError("enough")

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    fit(make_model(), data)
    with pytest.raises(RuntimeError, match="enough"):
        fit(make_model(), data, on_epoch=stop)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]  # noqa: NPY002


def test_cudnn_is_repeatable_during_the_run_and_as_before_afterwards(data, monkeypatch):
    cudnn, during = torch.backends.cudnn, []
    monkeypatch.setattr(cudnn, "benchmark", True)
    monkeypatch.setattr(cudnn, "allow_tf32", False)
    fit(linear(), data, on_epoch=lambda _: during.append((cudnn.deterministic, cudnn.benchmark)))
    assert during == [(True, False)] * 2
    assert (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == (False, True, False)


def test_the_penalty_is_added_to_the_loss(data):
    dark = replace(data, train=pb.Split(data.train.images * 0, data.train.labels))
    model = linear()
    weight = model[2].weight.detach().clone()
    history = fit(
        model,
        dark,
        epochs=1,
        batch_size=50,
        optimizer=SGD(model.parameters(), lr=0.25),
        penalty=lambda: model[2].weight.square().sum(),
    )
    torch.testing.assert_close(model[2].weight, weight / 2)  # w - 0.25 * 2 w: dark images have no say
    assert history["penalty"] == pytest.approx([weight.square().sum().item()])


def test_one_step_is_the_gradient_step_of_the_mean_cross_entropy(data):
    model = linear()
    by_hand = copy.deepcopy(model)
    F.cross_entropy(by_hand(data.train.images), data.train.labels).backward()
    fit(model, data, epochs=1, batch_size=1000, optimizer=SGD(model.parameters(), lr=0.5))
    expected = by_hand[2].weight - 0.5 * by_hand[2].weight.grad
    torch.testing.assert_close(model[2].weight, expected)


def test_the_default_is_adam_with_the_given_learning_rate(data):
    one, other = linear(), linear()
    fit(one, data, lr=0.01)
    fit(other, data, optimizer=Adam(other.parameters(), lr=0.01))
    torch.testing.assert_close(one[2].weight, other[2].weight)


def test_the_schedule_gets_the_share_that_is_done_and_sets_the_learning_rate_of_the_step_that_follows(data):
    model = linear()
    optimizer = SGD(model.parameters(), lr=1.0)
    shares, weights = [], []

    def schedule(share):
        optimizer.param_groups[0]["lr"] = 0.1 if len(shares) == 2 else 0.0
        shares.append(share)
        weights.append(bits(model))

    fit(model, data, epochs=2, optimizer=optimizer, schedule=schedule)
    assert shares == [step / 14 for step in range(15)]  # the last after the last step
    assert [weights.count(digest) for digest in (weights[0], weights[-1])] == [3, 12]


def test_a_parameter_that_the_optimizer_does_not_hold_is_named(data):
    model = linear()
    optimizer = Adam(model.parameters())
    model.append(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"hold all 4 trainable .*lacks 3\.weight, 3\.bias\. Build it after"):
        fit(model, data, optimizer=optimizer)
    model[3].requires_grad_(False)
    assert len(fit(model, data, optimizer=optimizer)) == 2


def test_a_function_can_make_the_optimizer_from_the_parameters_that_are_not_frozen(data):
    model = make_model()
    model[1].weight.requires_grad_(False)
    made = []

    def make(parameters):
        made.append(parameters)
        return SGD([{"params": parameters[:1], "lr": 0.0}, {"params": parameters[1:]}], lr=0.1)

    frozen, bias, head = (p.detach().clone() for p in (model[1].weight, model[1].bias, model[5].weight))
    fit(model, data, optimizer=make)
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert [id(p) for p in made[0]] == [id(p) for p in trainable]
    assert torch.equal(model[1].weight, frozen)
    assert torch.equal(model[1].bias, bias)  # of rate 0
    assert not torch.equal(model[5].weight, head)


def test_history_has_a_row_for_each_epoch(data):
    model = linear()
    history = fit(model, data, epochs=3)
    names = ["epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "seconds"]
    assert [list(row) for row in history.rows] == [names] * 3
    assert history["epoch"] == [1, 2, 3]
    assert len(history) == 3
    last = history.rows[-1]
    assert (last["valid_loss"], last["valid_accuracy"]) == pb.evaluate(model, data.valid)
    assert history["train_loss"][2] < history["train_loss"][0]
    assert all(0 <= share <= 1 for share in history["train_accuracy"])


def test_training_means_weigh_every_image_alike(data):
    model = linear()
    history = fit(model, data, epochs=1, optimizer=SGD(model.parameters(), lr=0.0))
    loss, accuracy = pb.evaluate(model, data.train)
    assert history["train_loss"] == pytest.approx([loss])
    assert history["train_accuracy"] == [accuracy]


def test_on_epoch_may_add_columns_and_change_the_model(data):
    model = linear()

    def on_epoch(row):
        row["share"] = row["epoch"] / 4
        with torch.no_grad():
            model[2].weight.zero_()

    assert fit(model, data, on_epoch=on_epoch)["share"] == [0.25, 0.5]
    assert not model[2].weight.any()


def test_the_test_split_is_not_touched_and_without_a_validation_split_its_columns_are_nan(data):
    history = fit(linear(), replace(data, valid=EMPTY, test=None))
    assert len(history) == 2
    assert all(math.isnan(loss) for loss in history["valid_loss"] + history["valid_accuracy"])


@pytest.mark.parametrize("mode", [True, False])
def test_modules_that_are_frozen_in_eval_mode_stay_so(mode, data):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.9), nn.Linear(8, 3))
    model.train(mode)[2].eval()
    seen = set()
    model[3].register_forward_pre_hook(lambda *_: seen.add((model[1].training, model[2].training)))
    fit(model, data)
    assert (True, not mode) in seen  # a model in eval mode as a whole is trained as a whole
    assert bool(model[2].running_mean.any()) == (not mode)
    assert [model[i].training for i in (1, 2, 3)] == [mode, False, mode]


def test_a_short_run_still_reaches_k(data):
    model = make_model()
    with pytest.warns(UserWarning, match="k=90 was reached only after the last step"):
        history = fit(model, data, epochs=1, batch_size=1000, schedule=pb.prune_gradually(model, 90))
    assert history["sparsity"] == [pytest.approx(0.9, abs=0.01)]


def test_another_default_device_changes_nothing(data, tmp_path):
    model, twin = make_model(), make_model()
    fit(model, data, optimizer=partial(SGD, lr=0.1))
    torch.set_default_device("meta")
    try:
        fit(twin, data, optimizer=partial(SGD, lr=0.1))
        pb.save_model(twin, tmp_path / "net")
        assert pb.evaluate(pb.load_model(tmp_path / "net"), data.test) == pb.evaluate(model, data.test)
    finally:
        torch.set_default_device(None)
    assert bits(twin) == bits(model)


def test_no_epochs_leave_everything_as_it_is(data, tmp_path):
    model = make_model()
    before = bits(model)
    assert fit(model, data, epochs=0, checkpoint=tmp_path / "run").rows == []
    assert bits(model) == before


SHORT = pb.Split(make_data().test.images, make_data().test.labels[1:])  # a label is missing
NO_OPTIMIZER = "optimizer must be an Optimizer or a function that makes one, got"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs must be a whole number of at least 0, got -1"),
        ({"epochs": 1.5}, "epochs must be a whole number of at least 0, got 1.5"),
        ({"epochs": True}, "epochs must be a whole number of at least 0, got True"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"lr": 0}, "lr must be a number above 0, got 0"),
        ({"lr": math.nan}, "lr must be a number above 0, got nan"),
        ({"lr": "fast"}, "lr must be a number above 0, got 'fast'"),
        ({"optimizer": "adam"}, f"{NO_OPTIMIZER} 'adam'"),
        ({"optimizer": lambda _: None}, f"{NO_OPTIMIZER} None"),
        ({"model": linear().requires_grad_(False)}, "model must have a trainable parameter, got none"),
        ({"model": linear().to("meta")}, "model is on meta"),
        (
            {"data": replace(make_data(), train=EMPTY)},
            r"data\.train must hold .* a label for each, got 0 images",
        ),
        ({"data": replace(make_data(), train=SHORT)}, r"data\.train .* got 20 images and 19 labels"),
        ({"data": replace(make_data(), valid=SHORT)}, r"data\.valid .* got 20 images and 19 labels"),
    ],
)
def test_bad_arguments_are_named(options, message, data):
    model = linear()
    before = bits(model)
    with pytest.raises(ValueError, match=message):
        fit(**{"model": model, "data": data} | options)
    assert bits(model) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": EMPTY}, "split must hold .* a label for each, got 0 images"),
        ({"split": SHORT}, "split must hold .* got 20 images and 19 labels"),
        ({"model": linear().to("meta")}, r"model is on meta \(its 2.weight\), the images on cpu.*model.to"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
    ],
)
def test_evaluate_names_bad_arguments(options, message, data):
    with pytest.raises(ValueError, match=message):
        pb.evaluate(**{"model": linear(), "split": data.valid} | options)


def after_epochs(epochs, data):
    """The state of a run after some of its epochs: batches and noise depend on the epoch alone."""
    model = make_model()
    fit(model, data, epochs=epochs)
    return bits(model)


def test_a_nan_loss_names_epoch_and_step_and_gives_the_last_whole_epoch_back(data):
    model = make_model()
    share = []

    def penalty():
        return torch.tensor(math.nan if round(share[-1] * 3 * STEPS) == STEPS + 2 else 0.0)

    with pytest.raises(FloatingPointError) as error:
        fit(model, data, epochs=3, schedule=share.append, penalty=penalty)
    message = str(error.value)
    assert message.startswith("the loss became nan in epoch 2, step 3. Likely causes: a learning rate")
    assert message.endswith("the model is as it was after 1 of 3 epochs")
    assert bits(model) == after_epochs(1, data)
    assert model.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda weight: {"optimizer": SGD([weight], lr=1e38)}, r"became (nan|inf) in epoch 1, step \d"),
        # the last step of an epoch breaks the weights, which only the validation split shows
        (
            lambda weight: {"batch_size": 50, "penalty": lambda: (weight * 0).sqrt().sum()},
            r"became nan in epoch 1, step 1\..*after 0 of 2",
        ),
    ],
)
def test_a_loss_that_breaks_gives_the_weights_back(options, message, data):
    model = linear()
    model[2].bias.requires_grad_(False)
    before = bits(model)
    with pytest.raises(FloatingPointError, match=f"the loss {message}"):
        fit(model, data, **options(model[2].weight))
    assert bits(model) == before


def interrupt(*_):
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": lambda share: share > 0.6 and interrupt()},
        {"on_epoch": lambda row: row["epoch"] == 2 and interrupt()},
        {"checkpoint": "never written"},
    ],
    ids=["in a step", "in on_epoch", "while the checkpoint is written"],
)
def test_ctrl_c_leaves_the_model_at_the_last_whole_epoch(options, data, monkeypatch):
    monkeypatch.setattr(checkpoints, "write", interrupt)
    model = make_model()
    message = "^fit was interrupted; the model is as it was after 1 of 3 epochs$"
    with pytest.raises(KeyboardInterrupt, match=message):
        fit(model, data, epochs=3, **options)
    assert bits(model) == after_epochs(1, data)
    assert model.training


def test_ctrl_c_gives_the_optimizer_and_what_it_trains_outside_the_model_back(data):
    model, outside = linear(), nn.Parameter(torch.ones(2))
    optimizer = Adam([*model.parameters(), outside], lr=0.1)
    groups = optimizer.param_groups
    before = checkpoints.digest(optimizer.state_dict())
    with pytest.raises(KeyboardInterrupt):
        fit(model, data, optimizer=optimizer, penalty=lambda: outside.square().sum(), on_epoch=interrupt)
    assert outside.tolist() == [1, 1]
    assert checkpoints.digest(optimizer.state_dict()) == before
    assert optimizer.param_groups is groups


class KilledError(Exception):
    pass


def demanding_run(path, kill_after=None):
    """A run with all that could be forgotten: noise, statistics, moments, masks, a parameter outside."""
    model, outside = make_model(), nn.Parameter(torch.ones(()))
    prune = pb.prune_gradually(model, 80)
    groups = [{"params": list(model.parameters())}, {"params": [outside], "lr": 0.1}]
    optimizer = Adam(groups, lr=0.01)

    def schedule(share):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - share)
        groups[1]["lr"] = 0.1 * (1 - share)
        prune(share)

    def penalty():
        return 0.01 * (outside - model[1].weight.square().sum()).square()

    def on_epoch(row):
        row["outside"] = outside.item()
        if row["epoch"] == kill_after:
            raise KilledError

    history = fit(
        model,
        make_data(),
        epochs=5,
        optimizer=optimizer,
        schedule=schedule,
        penalty=penalty,
        on_epoch=on_epoch,
        checkpoint=path,
    )
    return without_time(history), bits(model), outside.item(), checkpoints.digest(optimizer.state_dict())


def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path):
    whole = demanding_run(None)
    assert whole[0][-1]["sparsity"] == pytest.approx(0.8, abs=0.01)
    for kill_after in (1, 3, 3, 5):
        with pytest.raises(KilledError):
            demanding_run(tmp_path / "run", kill_after)
    assert demanding_run(tmp_path / "run") == whole
    assert demanding_run(tmp_path / "other") == whole


def test_a_checkpoint_is_written_after_each_epoch_and_a_finished_run_returns_at_once(data, tmp_path):
    path, written, calls = tmp_path / "runs" / "one", [], []
    first, second = make_model(), make_model()
    history = fit(first, data, checkpoint=str(path), on_epoch=lambda _: written.append(path.exists()))
    assert written == [False, True]
    again = fit(second, data, checkpoint=path, on_epoch=calls.append)
    assert (again.rows, bits(second), calls) == (history.rows, bits(first), [])


def l1():
    return torch.zeros(())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"epochs": 3}, "epochs: 2 there, 3 here"),
        ({"batch_size": 9}, "batch_size: 8 there, 9 here"),
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"lr": 0.5}, "lr: 0.001 there, 0.5 here"),
        ({"penalty": l1}, "penalty: None there, 'l1' here"),
        ({"schedule": id}, "schedule: None there, 'id' here"),
        ({"optimizer": SGD}, "optimizer: 'Adam' there, 'SGD' here"),
        ({"optimizer": lambda p: Adam(p, lr=1e-3, weight_decay=1.0)}, r"\(optimizer at the start: "),
        ({"data": make_data(seed=1)}, "training split: .* validation split: "),
        ({"data": make_data(n=49)}, "training split: "),
        ({"model": make_model()}, "model: "),
        ({"model": nn.Sequential(nn.Identity(), Skip(), nn.Linear(15, 3))}, r"\(weights at the start: "),
    ],
)
def test_a_checkpoint_of_other_arguments_is_refused_naming_them(options, named, data, tmp_path):
    path = tmp_path / "run"
    fit(linear(), data, checkpoint=path)
    written = path.read_bytes()
    model = options.get("model", linear())
    before = bits(model)
    with pytest.raises(ValueError, match=f"belongs to a run with other arguments.*{named}"):
        fit(**{"model": model, "data": data, "checkpoint": path} | options)
    assert bits(model) == before
    assert path.read_bytes() == written


KILLING = """
import os, signal, sys
import torch
torch.set_num_threads(1)
folder, path = sys.argv[1:]
sys.path.insert(0, folder)
from test_fit import demanding_run
from prunebook.training import checkpoint

def deadly(function, call, before):
    calls = []
    def run(*arguments, **options):
        calls.append(call)
        if before and len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        function(*arguments, **options)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
    return run

whole = demanding_run(None)
for module, name in ((checkpoint, "write"), (os, "replace")):
    for before in (True, False):
        run = f"{path}-{name}-{before}"
        for call in (1, 2, 2):
            child = os.fork()
            if child == 0:
                setattr(module, name, deadly(getattr(module, name), call, before))
                demanding_run(run)
                os._exit(0)
            assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the child was not killed"
        assert demanding_run(run) == whole, "the killed run ends otherwise"
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_run_that_is_killed_around_its_checkpoint_ends_as_one_that_was_never_killed(tmp_path):
    command = [sys.executable, "-c", KILLING, os.path.dirname(__file__), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # the program asserts that the bits are the same


def test_the_progress_bar_shows_epoch_loss_accuracy_and_where_there_are_masks_sparsity(data, capsys):
    history = fit(pb.prune_weights(linear(), 60), data, progress=True)
    assert history["sparsity"] == [27 / 45] * 2
    shown = capsys.readouterr().err
    assert "epoch 2/2: 100%" in shown
    assert "14/14" in shown
    assert f"loss={history['train_loss'][1]:.3f}" in shown
    assert f"valid_accuracy={history['valid_accuracy'][1]:.2%}" in shown
    assert "sparsity=60.00%" in shown


def test_a_resumed_progress_bar_goes_on_where_it_stopped(data, capsys, tmp_path):
    def stop(row):
        if row["epoch"] == 2:
            raise KilledError

    for on_epoch, error in [(stop, pytest.raises(KilledError)), (None, nullcontext())]:
        with error:
            fit(linear(), data, epochs=3, on_epoch=on_epoch, checkpoint=tmp_path / "run", progress=True)
        shown = capsys.readouterr().err
    assert "| 7/21" in shown
    assert "| 0/21" not in shown
    assert "epoch 3/3: 100%" in shown


@pytest.mark.parametrize(("progress", "wish"), [(False, "0"), (True, "1")])
def test_the_progress_bar_can_be_hidden_by_argument_or_environment(progress, wish, data, capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", wish)
    fit(linear(), data, progress=progress)
    assert capsys.readouterr() == ("", "")


def test_linear_decay_is_a_straight_line_to_zero_for_each_group():
    net = linear()
    groups = [{"params": [net[2].weight], "lr": 1.0}, {"params": [net[2].bias], "lr": 0.1}]
    optimizer = SGD(groups, lr=1.0)
    schedule = pb.linear_decay(optimizer)
    rates = []
    for progress in (0.0, 0.5, 0.75, 0.0):
        schedule(progress)
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert rates == [[1.0, 0.1], [0.5, 0.05], [0.25, pytest.approx(0.025)], [1.0, 0.1]]
