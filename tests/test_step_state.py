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

    what = "count"

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


def change(w):
    with torch.no_grad():
        w += 1


def test_weights_changed_by_hand_are_warned_of_when_they_change_again():
    state, w = Count(), nn.Parameter(torch.ones(3))
    for _ in range(3):
        state.require_fresh(w)
    change(w)
    state.require_fresh(w)  # one change alone may belong to a step, such as the first half of SAM's
    change(w)
    message = r"shape \(3,\) has changed twice, .* stepped, so the count of its Count is old"
    with pytest.warns(UserWarning, match=message):
        state.require_fresh(w)
    for _ in range(3):
        change(w)
        pb.renew(state)
        state.require_fresh(w)
        w.data += 1  # cannot be seen
        state.require_fresh(w)
    assert state.renewals == 3


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
        UserWarning, match=rf"in {PATIENCE} steps, no optimizer has held \['log_tau', 'logit_r'"
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
    assert states(net)[0].held


def test_gates_whose_optimizer_holds_nothing_of_them_are_named():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = SGD(net[1].parameters(), lr=0.01)
    pb.GumbelPruning(net, skip="1")

    def step():
        net(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()

    for _ in range(PATIENCE - 1):
        step()
    with pytest.warns(
        UserWarning, match=rf"in {PATIENCE} steps, no optimizer has held \['logit'\] of a WeightGate"
    ):
        step()


def test_the_training_of_another_network_counts_for_nothing():
    net, other = nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 4)
    pb.GumbelPruning(net)
    net(torch.ones(2, 4))  # read once
    optimizer = SGD(other.parameters(), lr=0.01)
    for _ in range(2 * PATIENCE):
        other(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    assert states(net)[0].steps_unheld == 1


def test_a_backward_pass_that_fails_does_not_end_all_renewals():
    state = Count()
    own = SGD(state.parameters(), lr=0.1)

    def step(_):
        own.step()
        if state.fail:
            raise RuntimeError("out of memory")

    state.weight.register_post_accumulate_grad_hook(step)
    for state.fail, renewals in ((False, 1), (True, 1), (False, 2), (False, 3)):
        try:
            state.weight.sum().backward()
        except RuntimeError:
            assert state.fail
        assert state.renewals == renewals


def test_weights_loaded_without_their_threshold_get_one():
    net, dense = nn.Sequential(nn.Linear(20, 20)), nn.Linear(20, 20)
    pb.SoftPruning(net, 50)
    with torch.no_grad():
        dense.weight.mul_(10)
    net.load_state_dict({"0.weight": dense.weight, "0.bias": dense.bias}, strict=False)
    net.eval()(torch.ones(1, 20))
    (threshold,) = states(net)
    assert (dense.weight.abs() < threshold.t).double().mean() == pytest.approx(0.5, abs=0.01)


def test_without_states_nothing_happens():
    step_state._states.clear()
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    SGD([weight], lr=1.0).step()
    assert not weight.any()
