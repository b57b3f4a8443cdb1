"""State of a training step that masks read, such as the noise of gates: when it is renewed, and by whom.

The module `masking` tells in ten lines how this works.

Chapter: book/gumbel.ipynb
"""

import warnings
from collections.abc import Callable, Collection
from functools import cache, partial
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

PATIENCE = 50  # steps after which a state says that no optimizer trains its parameters

# in the order of their creation, which is the order in which they draw random numbers
_states: WeakValueDictionary[int, "StepState"] = WeakValueDictionary()
_number = count()
# states to renew when a backward pass ends, by the number of the pass, with the ids of what has stepped in it
_waiting: dict[int, WeakKeyDictionary["StepState", set[int]]] = {}


class StepState(nn.Module):
    """State of a training step: buffers of fixed shape, renewed when an optimizer has taken its step.

    A subclass defines `renew`, and says in `what` what it renews. If something is only due after some steps,
    it also redefines `after_step`.
    """

    what: str
    in_step: bool  # an optimizer that holds a parameter is stepping
    read: bool  # in train mode, since the last step
    held: bool  # an optimizer has held what is learned
    due: bool  # weights were loaded without the buffers

    def __init__(self) -> None:
        super().__init__()
        # (layer, parameter) of what a gate masks, noted by `attach`; a threshold knows its layers instead
        self.places: list[tuple[nn.Module, str]] = []
        self.due = False
        self._enter()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Enter a copy, or what was unpickled, as a state of its own."""
        super().__setstate__(state)
        self._enter()

    def learned(self) -> list[nn.Parameter]:
        """Return its own parameters that are to be trained."""
        return [parameter for parameter in self.parameters(recurse=False) if parameter.requires_grad]

    def watched(self) -> list[nn.Parameter]:
        """Return the parameters whose optimizers end its steps: what it learns, and what it masks."""
        masked = (layer._parameters.get(name) for layer, name in self.places)
        return [*self.learned(), *(weight for weight in masked if weight is not None)]

    def renew(self) -> None:
        """Compute the buffers anew, in place; called without gradients and without autocast."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Do what is due after each step of an optimizer."""
        self.renew()

    def require_fresh(self, w: Tensor) -> None:
        """Warn if a masked weight w is changed again and again by something else than an optimizer.

        A mask calls this when it reads the buffers, except while torch compiles or traces. If weights were
        loaded without the buffers, this renews the buffers.
        """
        if self.due:
            self.refresh()
        if self.training and type(w) is nn.Parameter and not self.in_step:
            self.read = True
            version, changes = self._versions.setdefault(id(w), (w._version, 0))
            if version != w._version:
                self._versions[id(w)] = w._version, changes + 1
                if changes == 1:  # some optimizers change weights by hand once in a step
                    warnings.warn(
                        f"a masked weight of shape {tuple(w.shape)} has changed twice, but no optimizer that "
                        f"holds it has stepped, so the {self.what} of its {type(self).__name__} is old. If "
                        "you change weights by hand, call prunebook.renew(model) after each step",
                        stacklevel=2,
                    )

    def refresh(self) -> None:
        """Renew, and forget what was seen in the step before."""
        self.in_step = self.due = self.read = False
        self._versions.clear()
        _calmly(self, self.renew)

    def finish_step(self, held: Collection[int]) -> None:
        """Note that an optimizer which holds parameters of these ids has stepped; do what is due after it."""
        self.in_step = self.read = False
        self._versions.clear()
        _calmly(self, self.after_step)
        self.note_held(held)

    def note_held(self, held: Collection[int]) -> None:
        """Warn once if, for many steps, no optimizer has held what is to be learned here."""
        if any(id(parameter) in held for parameter in self.learned()):
            self.held = True
        elif not self.held and self.learned():
            self.steps_unheld += 1
            if self.steps_unheld == PATIENCE:
                names = [name for name, p in self.named_parameters(recurse=False) if p.requires_grad]
                warnings.warn(
                    f"in {PATIENCE} steps, no optimizer has held {names} of a {type(self).__name__}: make "
                    "the optimizer after the masks are attached, from parameter_groups()",
                    stacklevel=2,
                )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **options)
        self._versions.clear()  # weights that were loaded have not been changed by hand
        self.due = not any(name.startswith(prefix) for name in state_dict)

    def _enter(self) -> None:
        _listen()
        _states[next(_number)] = self
        self.in_step = self.read = self.held = False  # a copy keeps `due`: its buffers are as old
        self.steps_unheld: int = 0
        self._versions: dict[int, tuple[int, int]] = {}  # by id: version when first read, changes since


def renew(model: nn.Module) -> None:
    """Draw new noise for the gates of a model and compute its thresholds anew.

    Optimizers of `torch.optim` do this by themselves at the end of each step. Call it after each step if you
    update parameters by hand. `fit` calls it at the start of each epoch, after it has seeded torch, so that
    an epoch of a resumed run equals that of the run that was stopped. A loop of your own can do the same.
    """
    for state in states(model):
        state.refresh()


def states(model: nn.Module) -> list[StepState]:
    """Return the states of a training step in a model, each once."""
    return [module for module in model.modules() if isinstance(module, StepState)]


def _calmly(state: StepState, call: Callable[[], None]) -> None:
    """Call without gradients, and without autocast, which would compute a threshold in half precision."""
    kind = next((parameter.device.type for parameter in state.watched()), "cpu")
    kind = kind if torch.amp.is_autocast_available(kind) else "cpu"
    with torch.no_grad(), torch.autocast(kind, enabled=False):
        call()


@cache
def _listen() -> None:
    """Ask torch, once, to report every step of every optimizer."""
    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)


def _held_by(optimizer: Optimizer) -> tuple[set[int], list[StepState]]:
    """Return the ids of an optimizer's parameters and, oldest first, the states that watch one of them."""
    if not _states:
        return set(), []
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return held, [state for state in tuple(_states.values()) if any(id(p) in held for p in state.watched())]


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for state in _held_by(optimizer)[1]:  # an optimizer such as LBFGS changes weights several times in a step
        state.in_step = True


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    held, found = _held_by(optimizer)
    for state in tuple(_states.values()):
        if state.read and not state.held and state not in found:
            state.note_held(held)
            state.read = False
    task = torch._C._current_graph_task_id()
    if task == -1:
        for state in found:
            state.finish_step(held)
    elif found:
        # the optimizer steps inside the backward pass, which may still need the state: wait for its end
        if task not in _waiting:
            _waiting[task] = WeakKeyDictionary()
            torch.autograd.Variable._execution_engine.queue_callback(partial(_finish_waiting, task))
        for state in found:
            _waiting[task].setdefault(state, set()).update(held)


def _finish_waiting(task: int) -> None:
    for state, held in _waiting.pop(task).items():
        state.finish_step(held)
