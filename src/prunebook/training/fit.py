"""Train and measure: one loop for every method of the book, and one way to measure the result.

Chapter: book/dense.ipynb
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from prunebook.checks import require_whole
from prunebook.cover import sparsity
from prunebook.masking import masks
from prunebook.shrinking.slicing import evaluating, keeping_modes
from prunebook.step_state import renew
from prunebook.training import checkpoint as checkpoints
from prunebook.training.data import Data, Split

if TYPE_CHECKING:
    from tqdm import tqdm

CHECK_EVERY = 50  # steps between two checks of the loss: each check makes a GPU wait


class Score(NamedTuple):
    """Mean cross-entropy in nats per image, and the share of images classified correctly, 0..1."""

    loss: float
    accuracy: float


@dataclass
class History:
    """What happened in each epoch; `rows` is a list of dicts, ready for `pandas.DataFrame`.

    Columns: epoch (from 1), train_loss and train_accuracy (running means over the epoch, while the model
    changed), valid_loss, valid_accuracy, seconds; penalty where there is one, and sparsity (0..1) where masks
    are attached. `history["valid_loss"]` is a column as a list.
    """

    rows: list[dict[str, float]] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of finished epochs."""
        return len(self.rows)

    def __getitem__(self, column: str) -> list[float]:
        """Return one column, an entry per epoch."""
        return [row[column] for row in self.rows]


def evaluate(model: nn.Module, split: Split, batch_size: int = 2000) -> Score:
    """Return the score of a model in eval mode on a whole split; afterwards its modes are as before.

    Raises:
        ValueError: The split is empty or not on the model's device, or batch_size is below 1.
    """
    require_whole("batch_size", batch_size, 1)
    _check_split(model, split, "split")
    loss, correct = 0.0, 0
    # not inference_mode: a tensor that a layer keeps from here could not be used in training
    with evaluating(model):
        batches = zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True)
        for images, labels in batches:
            scores = model(images)
            loss += F.cross_entropy(scores, labels, reduction="sum").item()
            correct += int((scores.argmax(1) == labels).sum())
    return Score(loss / len(split), correct / len(split))


def fit(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    batch_size: int = 128,
    lr: float = 1e-3,
    optimizer: Optimizer | Callable[[list[nn.Parameter]], Optimizer] | None = None,
    penalty: Callable[[], Tensor] | None = None,
    schedule: Callable[[float], object] | None = None,
    seed: int = 0,
    progress: bool = True,
    on_epoch: Callable[[dict[str, float]], object] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> History:
    """Train a classifier in place and measure it on the validation split after each epoch.

    Minimises cross-entropy plus the penalty. The order of the batches and the noise of random masks depend
    only on `seed` and the epoch, so a run can be repeated bit for bit on the same device, whatever ran
    before.

    Args:
        model: Maps images (n, 1, 28, 28) to class scores (n, classes); on the device of the data. In a model
            in train mode, modules that are in eval mode, such as a frozen BatchNorm, stay in it.
        data: As `load_data` returns it; its test split is not used.
        epochs: Passes over the training split, at least 0.
        batch_size: Images per step, at least 1; the last batch of an epoch may be smaller.
        lr: Learning rate of the default optimizer, Adam; above 0.
        optimizer: An optimizer, or a function that makes one from the list of trainable parameters.
        penalty: Called in every step; returns a scalar tensor that is added to the loss.
        schedule: Called before every step with the share of the run that is done, and with 1 after the last.
        seed: Seed of the batches and the noise, at least 0.
        progress: Whether to show a progress bar.
        on_epoch: Called after each epoch with its row of the history; may add columns or change the model.
        checkpoint: A file that is written after each epoch. If it exists, the run continues after its last
            epoch and ends as if it had never stopped. Functions are compared by name only.

    Raises:
        ValueError: An argument is out of range, a trainable parameter is in no group of the optimizer,
            model and data are on different devices, or the checkpoint belongs to other arguments.
        FloatingPointError: The loss became infinite or NaN; the message says where, with likely causes.
        KeyboardInterrupt: Ctrl-C was pressed. In both cases the model goes back to its last whole epoch.
    """
    require_whole("epochs", epochs, 0)
    require_whole("batch_size", batch_size, 1)
    require_whole("seed", seed, 0)
    _check_split(model, data.train, "data.train")
    optimizer = _make_optimizer(model, optimizer, lr)
    run = _Run(model, data, optimizer, penalty, schedule, epochs, batch_size, seed)
    arguments = run.arguments(lr) if checkpoint else {}
    if checkpoint and os.path.exists(checkpoint):
        run.restore(checkpoints.read(checkpoint, arguments))

    def save(state: dict[str, Any]) -> None:
        if checkpoint:
            checkpoints.write(checkpoint, arguments, state)

    with keeping_modes(model), _own_randomness(data.train.labels.device), run.bar(progress) as bar:
        run.finish(bar, on_epoch, save)
    return History(run.rows)


def linear_decay(optimizer: Optimizer) -> Callable[[float], None]:
    """Return a `schedule` for `fit` that lowers each learning rate in a straight line: lr (1 - progress).

    After the last step the rates stay as they were in it, so that the optimizer can go on.
    """
    first = [float(group["lr"]) for group in optimizer.param_groups]

    def schedule(progress: float) -> None:
        for group, lr in zip(optimizer.param_groups, first, strict=True):
            if progress < 1:
                group["lr"] = lr * (1 - progress)

    return schedule


@dataclass
class _Run:
    """One call of `fit`: what it trains, with which settings, and the rows so far."""

    model: nn.Module
    data: Data
    optimizer: Optimizer
    penalty: Callable[[], Tensor] | None
    schedule: Callable[[float], object] | None
    epochs: int
    batch_size: int
    seed: int
    rows: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check the validation split; note which modules are frozen in eval mode, and stay so."""
        if len(self.data.valid):
            _check_split(self.model, self.data.valid, "data.valid")
        self.frozen = [m for m in self.model.modules() if self.model.training and not m.training]

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return math.ceil(len(self.data.train) / self.batch_size)

    def finish(
        self,
        bar: tqdm[Any],
        on_epoch: Callable[[dict[str, float]], object] | None,
        save: Callable[[dict[str, Any]], object],
    ) -> None:
        """Train the epochs that are left; after an error, go back to the last whole epoch."""
        kept = copy.deepcopy(self.state())
        try:
            for epoch in range(len(self.rows), self.epochs):
                row = self.epoch(epoch, bar)
                if on_epoch is not None:
                    on_epoch(row)
                kept = copy.deepcopy(self.state())
                save(kept)
        except (KeyboardInterrupt, FloatingPointError) as error:
            self.restore(kept)
            done = f"the model is as it was after {len(self.rows)} of {self.epochs} epochs"
            raise type(error)(f"{str(error) or 'fit was interrupted'}; {done}") from None

    def state(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on, sharing memory with the run."""
        return {
            "model": self.model.state_dict(),
            "outside": [p.detach() for p in self.outside()],
            "optimizer": self.optimizer.state_dict(),
            "rows": self.rows,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self.model.load_state_dict(state["model"])
        with torch.no_grad():
            for parameter, value in zip(self.outside(), state["outside"], strict=True):
                parameter.copy_(value)
        groups = self.optimizer.param_groups  # a schedule may hold them: fill them, do not replace them
        self.optimizer.load_state_dict(state["optimizer"])
        for group, loaded in zip(groups, self.optimizer.param_groups, strict=True):
            group.update(loaded)
        self.optimizer.param_groups = groups
        self.rows = list(state["rows"])

    def outside(self) -> list[Tensor]:
        """List the parameters that the optimizer trains besides those of the model."""
        own = {id(p) for p in self.model.parameters()}
        return [p for group in self.optimizer.param_groups for p in group["params"] if id(p) not in own]

    def arguments(self, lr: float) -> dict[str, Any]:
        """Return the settings that must match for a run to be resumed, as JSON data."""
        train, valid, state = self.data.train, self.data.valid, self.state()
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "lr": lr,
            "seed": self.seed,
            "optimizer": type(self.optimizer).__name__,
            "penalty": _name(self.penalty),
            "schedule": _name(self.schedule),
            "model": repr(self.model),
            "data": self.data.name,
            "training split": checkpoints.digest([train.labels, train.images[::100]])[:16],
            "validation split": checkpoints.digest([valid.labels, valid.images[::100]])[:16],
            "weights at the start": checkpoints.digest([state["model"], state["outside"]])[:16],
            "optimizer at the start": checkpoints.digest(state["optimizer"])[:16],
        }

    def bar(self, progress: bool) -> tqdm[Any]:
        """Return the progress bar of the whole run; TQDM_DISABLE=1 in the environment hides it as well."""
        from tqdm.auto import tqdm

        # tqdm reads the variable itself in a terminal, but not in a notebook
        hidden = not progress or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
        done = len(self.rows) * self.steps
        return tqdm(total=self.epochs * self.steps, initial=done, unit="step", disable=hidden)

    def epoch(self, epoch: int, bar: tqdm[Any]) -> dict[str, float]:
        """Train for one epoch and measure; return the new row of the history."""
        start = time.perf_counter()
        order, noise = (int(word) for word in np.random.SeedSequence((self.seed, epoch)).generate_state(2))
        _seed_noise(self.data.train.labels.device, noise)
        bar.set_description(f"epoch {epoch + 1}/{self.epochs}")
        row = {"epoch": epoch + 1, **self.train(epoch, order, bar)}
        valid = evaluate(self.model, self.data.valid) if len(self.data.valid) else Score(math.nan, math.nan)
        if len(self.data.valid) and math.isnan(valid.loss):  # the last step broke the weights
            _stop_if_not_finite(torch.tensor([valid.loss], device="cpu"), epoch, first=self.steps)
        row |= {"valid_loss": valid.loss, "valid_accuracy": valid.accuracy}
        shown = {"loss": f"{row['train_loss']:.3f}", "valid_accuracy": f"{valid.accuracy:.2%}"}
        if masks(self.model):
            row["sparsity"] = sparsity(self.model)
            shown["sparsity"] = f"{row['sparsity']:.2%}"
        row["seconds"] = time.perf_counter() - start
        self.rows.append(row)
        bar.set_postfix(shown)
        return row

    def train(self, epoch: int, order: int, bar: tqdm[Any]) -> dict[str, float]:
        """Take the steps of one epoch; return the means over its images."""
        images, labels = self.data.train.images, self.data.train.labels
        shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(order), device="cpu")
        batches = shuffled.to(labels.device).split(self.batch_size)
        losses = torch.zeros(2, len(batches), device=labels.device)  # cross-entropy, penalty
        correct = torch.zeros((), dtype=torch.int64, device=labels.device)
        self.model.train()
        for module in self.frozen:
            module.training = False
        renew(self.model)  # from the seed of this epoch, so that a run that is resumed here repeats exactly
        for step, batch in enumerate(batches):
            if self.schedule is not None:
                self.schedule((epoch * len(batches) + step) / (self.epochs * len(batches)))
            scores, wanted = self.model(images[batch]), labels[batch]
            loss = F.cross_entropy(scores, wanted)
            losses[0, step] = loss.detach()
            if self.penalty is not None:
                extra = self.penalty()
                losses[1, step] = extra.detach()
                loss = loss + extra
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            correct += (scores.detach().argmax(1) == wanted).sum()
            if step % CHECK_EVERY == CHECK_EVERY - 1 or step == len(batches) - 1:
                _stop_if_not_finite(losses.sum(0)[: step + 1], epoch)
            bar.update()
        if self.schedule is not None and epoch == self.epochs - 1:
            self.schedule(1.0)
        sizes = torch.tensor([len(batch) for batch in batches], device=labels.device)
        means = (losses * sizes).sum(1) / len(labels)
        row = {"train_loss": means[0].item(), "train_accuracy": correct.item() / len(labels)}
        return row if self.penalty is None else row | {"penalty": means[1].item()}


def _make_optimizer(
    model: nn.Module, optimizer: Optimizer | Callable[[list[nn.Parameter]], Optimizer] | None, lr: float
) -> Optimizer:
    if not (isinstance(lr, float | int) and 0 < lr < math.inf):
        raise ValueError(f"lr must be a number above 0, got {lr!r}")
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("model must have a trainable parameter, got none")
    if optimizer is None:
        # one kernel for all parameters where it exists, else a loop over them
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in trainable.values())
        optimizer = Adam(trainable.values(), lr=lr, fused=fused)
    elif not isinstance(optimizer, Optimizer) and callable(optimizer):
        optimizer = optimizer(list(trainable.values()))
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"optimizer must be an Optimizer or a function that makes one, got {optimizer!r}")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    forgotten = [name for name, p in trainable.items() if id(p) not in held]
    if forgotten:
        raise ValueError(
            f"optimizer must hold all {len(trainable)} trainable parameters, lacks {', '.join(forgotten)}. "
            "Build it after masks are attached, or set requires_grad to False"
        )
    return optimizer


def _check_split(model: nn.Module, split: Split, said: str) -> None:
    """Raise a ValueError if the split is empty or not on the model's device."""
    if len(split) == 0 or len(split.images) != len(split.labels):
        raise ValueError(
            f"{said} must hold at least one image and a label for each, got {len(split.images)} images and "
            f"{len(split.labels)} labels"
        )
    for name, parameter in model.named_parameters():
        if parameter.device != split.images.device:
            raise ValueError(
                f"model is on {parameter.device} (its {name}), the images on {split.images.device}; "
                "move the model with model.to(pb.device())"
            )


def _stop_if_not_finite(losses: Tensor, epoch: int, first: int = 1) -> None:
    """Raise if a loss is infinite or NaN; `losses` holds one per step, from step `first` on."""
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        index = int(bad[0])
        raise FloatingPointError(
            f"the loss became {losses[index].item()} in epoch {epoch + 1}, step {first + index}. Likely "
            "causes: a learning rate that is too large, images that are not normalised or hold NaN, "
            "a penalty or a temperature out of range"
        )


def _name(function: Callable[..., object] | None) -> str | None:
    return None if function is None else getattr(function, "__qualname__", type(function).__name__)


def _seed_noise(device: torch.device, seed: int) -> None:
    """Seed the generators that a model on the device uses; `torch.manual_seed` would seed every GPU."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Restore the global random state at the end, and let cuDNN use only repeatable kernels until then."""
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = flags
        if mps is not None:
            torch.mps.set_rng_state(mps)
