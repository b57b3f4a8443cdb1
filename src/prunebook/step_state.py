"""State of a training step that masks read, such as the noise of gates: when it is renewed, and by whom.

The module `masking` tells in ten lines how this works.

Chapter: book/gumbel.ipynb
"""

import warnings
from collections.abc import Callable, Collection
from functools import cache
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

PATIENCE = 20  # steps after which a state says that no optimizer trains its parameters

_states: WeakValueDictionary[int, "StepState"] = WeakValueDictionary()  # in the order of their creation
_number = count()
_waiting: dict["StepState", set[int]] = {}  # for the end of the backward pass that runs now


class StepState(nn.Module):
    """State of a training step: buffers of fixed shape, renewed when an optimizer has taken its step.

    A subclass defines `renew`. If something is only due after some steps, it also redefines `after_step`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: list[
            tuple[nn.Module, str]
        ] = []  # (layer, parameter) for all that it masks; see `attach`
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
        """Warn if w has changed since the last step, but no step of an optimizer was seen; w is a weight."""
        if type(w) is nn.Parameter and not self.in_step:
            version = self._versions.setdefault(id(w), w._version)
            if version != w._version:
                self._versions[id(w)] = w._version
                warnings.warn(
                    f"a masked weight of shape {tuple(w.shape)} has changed, but its {type(self).__name__} "
                    "is still that of the step before: no optimizer that holds its parameters has stepped. "
                    "Make the optimizer after the masks are attached or, if you change weights by hand, "
                    "call prunebook.renew(model) after each step",
                    stacklevel=2,
                )

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self._versions.clear()  # weights that were loaded have not been changed by hand

    def _enter(self) -> None:
        _listen()
        _states[next(_number)] = self
        self.in_step, self.steps_unheld = False, 0
        self._versions: dict[int, int] = {}

    def finish_step(self, held: Collection[int]) -> None:
        """Note that an optimizer which holds parameters of these ids has stepped; do what is due after it."""
        self.in_step = False
        self._versions.clear()
        _calmly(self, self.after_step)
        if any(id(parameter) in held for parameter in self.learned()):
            self.steps_unheld = -1  # from now on, do not count
        elif self.learned() and self.steps_unheld >= 0:
            self.steps_unheld += 1
            if self.steps_unheld == PATIENCE:
                names = [name for name, p in self.named_parameters(recurse=False) if p.requires_grad]
                warnings.warn(
                    f"after {PATIENCE} steps, no optimizer has trained {names} of a {type(self).__name__}: "
                    "make the optimizer after the masks are attached, from parameter_groups()",
                    stacklevel=2,
                )


def renew(model: nn.Module) -> None:
    """Draw new noise for the gates of a model and compute its thresholds anew.

    Optimizers of `torch.optim` do this by themselves at the end of each step. Call it after each step if you
    update the parameters by hand. It is also how a run that is resumed begins like the run that was stopped:
    seed torch, then call it.
    """
    for state in states(model):
        state.in_step = False
        state._versions.clear()
        _calmly(state, state.renew)


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
    if torch._C._current_graph_task_id() == -1:
        for state in found:
            state.finish_step(held)
        return
    # the optimizer steps inside the backward pass, which may still need the state: wait for its end
    if found and not _waiting:
        torch.autograd.Variable._execution_engine.queue_callback(_finish_waiting)
    for state in found:
        _waiting.setdefault(state, set()).update(held)


def _finish_waiting() -> None:
    while _waiting:
        state = next(iter(_waiting))
        state.finish_step(_waiting.pop(state))
