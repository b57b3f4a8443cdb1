import copy
import gc
import warnings

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

import prunebook as pb
from prunebook import step_state
from prunebook.step_state import PATIENCE, StepState, states


class Count(StepState):
    """Counts its renewals, and notes the modes of torch in them."""

    def __init__(self, size=2):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.register_buffer("renewals", torch.zeros(()))
        self.modes = []

    def renew(self):
        self.renewals += 1
        self.modes.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))


def stepped(state, optimizer=None, times=1):
    optimizer = optimizer or SGD(state.parameters(), lr=0.1)
    for _ in range(times):
        state.weight.grad = torch.ones_like(state.weight)
        optimizer.step()
    return int(state.renewals)


def test_each_step_of_an_optimizer_that_holds_a_parameter_renews_once():
    one, other = Count(), Count()
    assert stepped(one, times=3) == 3
    assert other.renewals == 0
    both = SGD([*one.parameters(), *other.parameters()], lr=0.1)
    assert stepped(one, both) == 4
    assert other.renewals == 1
    stepped(one, SGD([nn.Parameter(torch.ones(1))], lr=0.1))
    assert (one.renewals, other.renewals) == (4, 1)


def test_renewals_run_without_gradients_and_without_autocast():
    state = Count()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stepped(state)
        pb.renew(state)
    assert state.modes == [(False, False)] * 2


def test_a_copy_has_a_state_of_its_own():
    state = Count()
    twin = copy.deepcopy(state)
    assert stepped(twin, times=2) == 2
    assert state.renewals == 0
    assert stepped(state) == 1


def test_what_is_gone_is_not_renewed():
    state = Count()
    number = max(step_state._states)
    assert step_state._states[number] is state
    optimizer = SGD(state.parameters(), lr=0.1)
    del state
    gc.collect()
    assert number not in step_state._states
    optimizer.step()


def test_states_are_renewed_in_the_order_in_which_they_were_made():
    order, made = [], [Count() for _ in range(5)]
    for place, state in enumerate(made):
        state.after_step = lambda place=place: order.append(place)
    SGD([p for state in reversed(made) for p in state.parameters()], lr=0.1).step()
    assert order == [0, 1, 2, 3, 4]


def test_a_state_that_is_not_trained_does_not_move():
    state = Count()
    state.weight.requires_grad_(False)
    assert stepped(state, SGD([state.weight], lr=0.1)) == 0


def test_weights_changed_by_hand_are_warned_of_once_for_each_change():
    state, w = Count(), nn.Parameter(torch.ones(3))
    state.require_fresh(w)
    with torch.no_grad():
        w += 1
    with pytest.warns(
        UserWarning, match=r"shape \(3,\) has changed, but its Count is still that of the step"
    ):
        state.require_fresh(w)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state.require_fresh(w)
        with torch.no_grad():
            w += 1
        pb.renew(state)
        state.require_fresh(w)
        w.data += 1  # cannot be seen
        state.require_fresh(w)


def test_inside_a_step_weights_may_change():
    state = Count()

    class Twice(Optimizer):
        @torch.no_grad()
        def step(self):
            for _ in range(2):
                state.require_fresh(state.weight)
                state.weight.add_(1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stepped(state, Twice(state.parameters(), {})) == 1


def test_parameters_that_no_optimizer_holds_are_named():
    net = nn.Sequential(nn.Linear(4, 4))
    optimizer = Adam(net.parameters(), lr=0.01)
    pruning = pb.AdaptivePruning(net)
    (threshold,) = states(net)

    def step(optimizer, times):
        for _ in range(times):
            optimizer.zero_grad()
            (net(torch.ones(2, 4)).square().sum() + pruning.penalty()).backward()
            optimizer.step()

    step(optimizer, PATIENCE - 1)
    with pytest.warns(
        UserWarning, match=rf"after {PATIENCE} steps, no optimizer has trained \['log_tau', 'logit_r'"
    ):
        step(optimizer, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(optimizer, 2 * PATIENCE)  # said once
        other = pb.AdaptivePruning(nn.Linear(4, 4))
        assert other.model is not net
    assert threshold.steps_unheld > PATIENCE


def test_parameters_in_optimizers_of_their_own_are_found():
    net = nn.Sequential(nn.Linear(4, 4))
    pruning = pb.AdaptivePruning(net)
    apart = [SGD([group], lr=0.01) for group in pruning.parameter_groups()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2 * PATIENCE):
            (net(torch.ones(2, 4)).square().sum() + pruning.penalty()).backward()
            for optimizer in apart:
                optimizer.step()
                optimizer.zero_grad()
    assert states(net)[0].steps_unheld == -1


def test_without_states_nothing_happens():
    step_state._states.clear()
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    SGD([weight], lr=1.0).step()
    assert not weight.any()
