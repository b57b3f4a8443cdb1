import contextlib
import copy
import io
import math
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small import batch, make_data, network, normal
from torch import nn
from torch.optim import SGD, Adam

import prunebook as pb
from prunebook.masking import bake, dense_weight, harden, masks, optimizer_groups, sparsity
from prunebook.methods.gumbel import FROZEN, Gate, _GatedWeight, gates
from prunebook.methods.units import spread_units, unit_mask, unit_rows
from prunebook.training import checkpoint as checkpoints

fused = _GatedWeight.apply
N = 200_000


def composed(w, logit, noise, tau=1.0, hard=True):
    return (w * pb.gumbel_gate(logit, noise, tau, hard)).to(w.dtype)


@contextlib.contextmanager
def seeded(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def set_logits(model, *values):
    """Give the gates these logits: a number, or what a tensor of the gate's shape can be made of."""
    with torch.no_grad():
        for gate, value in zip(gates(model).values(), values, strict=True):
            gate.logit.copy_(torch.as_tensor(value, dtype=gate.logit.dtype).expand_as(gate.logit))


def train_steps(pruning, steps=3, lr=0.1, **options):
    optimizer = Adam(pruning.parameter_groups(), lr=lr, **options)
    for _ in range(steps):
        loss = pruning.model.train()(batch()).square().mean() + pruning.penalty(0.01)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return optimizer


class Untraceable(nn.Module):
    """torch.fx cannot follow a branch on a tensor."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.last(self.first(x).relu() if x.sum() > -1e9 else x)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.branch, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.branch(x).relu())


# The law


def test_noise_is_logistic():
    with seeded():
        noise = pb.logistic_noise(torch.empty(N))
        two = torch.empty(N, 2).exponential_().log().neg()  # Gumbel variables
    assert noise.shape == (N,)
    assert noise.isfinite().all()
    assert stats.kstest(noise.numpy(), stats.logistic.cdf).pvalue > 1e-3
    assert stats.ks_2samp(noise.numpy(), (two[:, 0] - two[:, 1]).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_noise_of_halves_is_drawn_in_float32(dtype):
    with seeded():
        noise = pb.logistic_noise(torch.empty(N, dtype=dtype))
    assert noise.dtype == torch.float32
    assert stats.kstest(noise.numpy(), stats.logistic.cdf).pvalue > 1e-3


@pytest.mark.parametrize("tau", [1e-3, 0.3, 1.0, 3.0, 1e8])
@pytest.mark.parametrize("logit", [-6.0, -1.0, 0.0, 2.0])
def test_a_gate_is_open_with_the_probability_of_its_logit_whatever_tau(tau, logit):
    one, two = torch.full((N,), logit), torch.tensor([logit + 0.7, 0.7]).expand(N, 2)
    with seeded(1):
        gate = pb.gumbel_gate(one, pb.logistic_noise(one), tau)
        pairs = pb.two_logit_gate(two, tau) if tau < 1e4 else None  # there its rounding closes gates
    p = 1 / (1 + math.exp(-logit))
    bound = 5 * math.sqrt(p * (1 - p) / N)
    assert set(gate.unique().tolist()) <= {0.0, 1.0}  # exactly
    assert abs(gate.double().mean().item() - p) < bound
    if pairs is not None:
        assert pairs.shape == (N,)
        assert abs(pairs.double().mean().item() - p) < bound


@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("logit", [-2.0, 0.5])
def test_soft_gates_of_both_forms_have_one_law(tau, logit):
    one = torch.full((N,), logit, dtype=torch.float64)
    two = torch.tensor([0.0, -logit], dtype=torch.float64).expand(N, 2)
    with seeded(2):
        soft = pb.gumbel_gate(one, pb.logistic_noise(one), tau, hard=False)
        pairs = pb.two_logit_gate(two, tau, hard=False)
    assert stats.ks_2samp(soft.numpy(), pairs.numpy()).pvalue > 1e-3
    inside = soft[(soft > 0) & (soft < 1)]
    assert len(inside) > 0.99 * N
    assert stats.kstest((tau * inside.logit() - logit).numpy(), stats.logistic.cdf).pvalue > 1e-3


def test_the_laws_of_two_logits_differ():  # the test above can fail
    with seeded():
        soft, other = (
            pb.gumbel_gate(torch.full((N,), logit), pb.logistic_noise(torch.empty(N)), hard=False)
            for logit in (0.5, 0.53)
        )
    assert stats.ks_2samp(soft.numpy(), other.numpy()).pvalue < 1e-3


@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("logit", [-2.0, 0.0, 1.0])
def test_both_forms_have_one_gradient_in_the_mean(tau, logit):
    def by_logit(gate, by):
        (found,) = torch.autograd.grad((1.5 * gate - 0.4).square().sum(), by)
        return found

    one = torch.full((N,), logit, dtype=torch.float64, requires_grad=True)
    two = torch.tensor([0.3 + logit, 0.3], dtype=torch.float64).repeat(N, 1).requires_grad_()
    with seeded(3):
        ours = by_logit(pb.gumbel_gate(one, pb.logistic_noise(one), tau), one)
        theirs = by_logit(pb.two_logit_gate(two, tau), two)
    torch.testing.assert_close(theirs[:, 0], -theirs[:, 1])
    error = math.sqrt((ours.var() + theirs[:, 0].var()) / N)
    assert abs(ours.mean() - theirs[:, 0].mean()) < 5 * error
    assert abs(ours.mean()) > 10 * error  # there is something to compare


# One gate by hand


def test_gates_by_hand():
    logit, noise = torch.tensor([2.0, -1.0, 0.0, -2.0]), torch.tensor([-1.0, 0.0, 0.0, 2.5])
    wanted = [1 / (1 + math.exp(-x)) for x in (0.5, -0.5, 0.0, 0.25)]
    assert pb.gumbel_gate(logit, noise, 2.0, hard=False).tolist() == pytest.approx(wanted)
    assert pb.gumbel_gate(logit, noise, 2.0).tolist() == [1, 0, 0, 1]


def test_the_straight_through_gradient_by_hand():
    w, logit, noise = (
        torch.tensor(values, dtype=torch.float64, requires_grad=learned)
        for values, learned in (([3.0, 3.0], True), ([0.0, -1.0], True), ([1.0, 0.0], False))
    )
    for gated in (fused, composed):  # s = sigmoid(1/2) and sigmoid(-1/2), whose slopes are equal
        weight = gated(w, logit, noise, 2.0, True)
        assert weight.tolist() == [3, 0]
        by_w, by_logit = torch.autograd.grad(weight.sum(), (w, logit))
        assert by_w.tolist() == [1, 0]
        s = 1 / (1 + math.exp(-0.5))
        assert by_logit.tolist() == pytest.approx([3 * s * (1 - s) / 2] * 2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=9), st.floats(0.05, 20))
def test_hard_gates_are_exactly_zero_or_one(logits, tau):
    logit = torch.tensor(logits)
    gate = pb.gumbel_gate(logit, torch.zeros_like(logit), tau)
    assert torch.equal(gate, (logit > 0).float())


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf])
def test_temperatures_out_of_range_are_refused(tau):
    message = f"tau must be above 0 and finite, got {tau}"
    pruning = pb.GumbelPruning(network())
    for call in (
        lambda: pb.gumbel_gate(torch.zeros(2), torch.zeros(2), tau),
        lambda: pb.two_logit_gate(torch.zeros(2, 2), tau),
        lambda: setattr(pruning, "tau", tau),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert pruning.tau == 1


# The fused weight


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_fused_is_composed(hard, tau, dtype):
    w = normal(30, 40).to(dtype).requires_grad_()
    wide = torch.promote_types(dtype, torch.float32)
    logit, gradient = 3 * normal(30, 40, seed=1).to(wide), normal(30, 40, seed=2).to(dtype)
    logit.requires_grad_()
    with seeded():
        noise = pb.logistic_noise(logit.detach())
    ours, theirs = (gated(w, logit, noise, tau, hard) for gated in (fused, composed))
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours == 0, theirs == 0)
    found, wanted = (torch.autograd.grad(gated, (w, logit), gradient) for gated in (ours, theirs))
    assert [part.dtype for part in found] == [dtype, wide]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_of_halves_do_not_vanish():
    w = torch.full((3,), 1e-4, dtype=torch.float16, requires_grad=True)
    logit = torch.zeros(3, requires_grad=True)
    gated = fused(w, logit, torch.zeros(3), 1.0, True)
    (found,) = torch.autograd.grad(gated, logit, torch.full((3,), 1e-4, dtype=torch.float16))
    torch.testing.assert_close(found, torch.full((3,), 0.25e-8), rtol=1e-2, atol=0)


@pytest.mark.parametrize("learned", [(0, 1), (0,), (1,)])
@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
def test_soft_gradients_are_those_of_finite_differences(learned, tau):
    w, logit = (normal(3, 4, seed=i).requires_grad_(i in learned) for i in (0, 1))
    noise = normal(3, 4, seed=2)
    assert torch.autograd.gradcheck(lambda w, logit: fused(w, logit, noise, tau, False), (w, logit))
    assert torch.autograd.gradgradcheck(lambda w, logit: fused(w, logit, noise, tau, False), (w, logit))


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("learned", [(0, 1), (0,), (1,)])
def test_second_derivatives_are_those_of_autograd(hard, learned):
    w, logit = (normal(3, 4, seed=i).requires_grad_(i in learned) for i in (0, 1))
    noise, inputs = normal(3, 4, seed=2), [value for value in (w, logit) if value.requires_grad]
    seconds = []
    for gated in (fused, composed):
        loss = gated(w, logit, noise, 0.7, hard).pow(3).sum()
        firsts = torch.autograd.grad(loss, inputs, create_graph=True)
        total = sum(first.square().sum() for first in firsts)
        seconds.append([*firsts, *torch.autograd.grad(total, inputs)])
    for ours, theirs in zip(*seconds, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_fused_weights_that_are_not_contiguous():
    w, logit = normal(4, 6).t().requires_grad_(), normal(6, 4, seed=1).requires_grad_()
    noise, gradient = normal(4, 6, seed=2).t(), normal(4, 6, seed=3).t()
    for hard in (True, False):
        found, wanted = (
            torch.autograd.grad(gated(w, logit, noise, 0.5, hard), (w, logit), gradient)
            for gated in (fused, composed)
        )
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs)


# One sample for each forward


@pytest.mark.parametrize("units", [True, False])
def test_one_sample_for_each_forward(units):
    model, seen = network(), []
    pb.GumbelPruning(model, units=units, logit=0.0)
    model[0].register_forward_hook(lambda layer, inputs, output: seen.append(layer.weight.detach()))
    for _ in range(3):
        model(batch())
        seen.append(model[0].weight.detach())
    for during, after in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(during, after)
    assert not torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[2], seen[4])


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("hard", [True, False])
def test_two_forward_passes_before_one_backward_pass(units, hard):
    model, twice = network(), network()
    for each in (model, twice):
        pb.GumbelPruning(each, units=units, logit=0.0, hard=hard)
    with seeded():
        (model(batch()).sum() + model(-batch()).square().sum()).backward()
    with seeded():
        twice(batch()).sum().backward()
        twice(-batch()).square().sum().backward()
    for one, two in zip(model.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
        assert one.grad.any()


def test_weights_in_training_are_closed_as_often_as_the_logits_say():
    model = nn.Linear(500, 400)
    pb.GumbelPruning(model, logit=-1.0)
    with seeded():
        model(torch.zeros(1, 500))
    p = 1 / (1 + math.e)
    assert (model.weight != 0).double().mean().item() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / N))


@pytest.mark.parametrize("units", [True, False])
def test_evaluation_goes_by_the_sign_and_draws_nothing(units):
    model = network()
    pb.GumbelPruning(model, units=units)
    for gate in gates(model).values():
        set_to = torch.linspace(-3, 3, gate.logit.numel()).view_as(gate.logit)
        with torch.no_grad():
            gate.logit.copy_(set_to)
    model(batch())  # leaves noise behind
    wanted = {name: gate.logit > 0 for name, gate in gates(model).items()}
    before = torch.get_rng_state()
    model.eval()
    outputs = [model(batch()) for _ in range(2)]
    for name, open_gates in wanted.items():
        layer = model.get_submodule(name)
        mask = spread_units(open_gates, dense_weight(layer))
        assert torch.equal(layer.weight, dense_weight(layer) * mask)
        assert torch.equal(masks(model)[f"{name}.weight"], mask)
    outputs.append(harden(copy.deepcopy(model)).train()(batch()))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    assert not harden(model)._forward_pre_hooks
    assert sparsity(model) == sum(int((~masks(model)[f"{n}.weight"]).sum()) for n in wanted) / 100


def test_a_gate_at_zero_is_closed():
    model = nn.Linear(2, 2)
    pb.GumbelPruning(model)
    set_logits(model, [[0.0, 1e-30], [-0.0, -1e-30]])
    assert masks(model)["weight"].tolist() == [[False, True], [False, False]]
    assert (model.eval().weight != 0).tolist() == [[False, True], [False, False]]


# State


@pytest.mark.parametrize("units", [True, False])
def test_a_deepcopy_learns_by_itself(units):
    model = network()
    pruning = pb.GumbelPruning(model, units=units, lam=2.0)
    model(batch())
    twin = copy.deepcopy(model)
    assert torch.equal(twin(batch()).isfinite(), model(batch()).isfinite())
    set_logits(twin, *[-2.0] * len(gates(twin)))
    assert pruning.density() == pytest.approx(1 / (1 + math.exp(-2)))
    both = copy.deepcopy(pruning)
    assert both.model is not model
    set_logits(both.model, *[-1.0] * len(gates(twin)))
    assert both.penalty(0.1).item() == pytest.approx(2 * math.log(10 / (1 + math.e)), rel=1e-5)
    assert pruning.density() > 0.8
    harden(copy.deepcopy(model))
    assert gates(model)


@pytest.mark.parametrize("units", [True, False])
def test_state_dict_goes_both_ways(units):
    model, other = network(), network(seed=1)
    pruning = pb.GumbelPruning(model, units=units)
    train_steps(pruning)
    pb.GumbelPruning(other, units=units, logit=-1.0)
    buffer = io.BytesIO()
    torch.save(pickle.loads(pickle.dumps(model.state_dict())), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    assert not any("noise" in name for name in state)
    other.load_state_dict(state, strict=True)
    assert torch.equal(other.eval()(batch()), model.eval()(batch()))
    assert all(torch.equal(mask, masks(other)[name]) for name, mask in masks(model).items())
    assert pb.masking.plain_state(state).keys() == network().state_dict().keys()


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_precisions(units, dtype):
    model = nn.Sequential(nn.Linear(400, 300), nn.Linear(300, 300))
    pruning = pb.GumbelPruning(model, units=units, logit=1.0)
    model(torch.zeros(1, 400))  # noise in float32
    model = model.to(dtype)
    model[0].weight.sum()
    output = model(normal(2, 400).to(dtype))
    (output.double().square().mean() + pruning.penalty(0.1)).backward()
    assert output.dtype == model[0].weight.dtype == dense_weight(model[0]).grad.dtype == dtype
    for gate in gates(model).values():
        assert gate.logit.grad.dtype == dtype
        assert gate.logit.grad.isfinite().all()
    assert pruning.density() == pytest.approx(1 / (1 + 1 / math.e), abs=1e-6)  # sums beyond 65,504
    assert pruning.density(per_layer=True)["0"] == pytest.approx(pruning.density())
    set_logits(model, *(normal(*gate.logit.shape) for gate in gates(model).values()))
    pruning.freeze(150)
    assert sum(int(gate.open().sum()) for gate in gates(model).values()) == 150
    assert bake(model)[0].weight.dtype == dtype


def test_tied_weights_share_their_gates():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 1))
    model[2].weight = model[0].weight
    pruning = pb.GumbelPruning(model, logit=0.0)
    assert {name: gate.logit.numel() for name, gate in gates(model).items()} == {"0": 16, "3": 4}
    model(torch.ones(1, 4))
    assert torch.equal(model[0].weight, model[2].weight)
    model(torch.ones(1, 4)).sum().backward()
    pruning.freeze(7)
    assert bake(model)[0].weight is model[2].weight
    assert int((model[0].weight != 0).sum() + (model[3].weight != 0).sum()) == 7


def test_convolutions_and_skipped_layers():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2), nn.ConvTranspose2d(4, 2, 3, groups=2), nn.Flatten(), nn.Linear(32, 3)
    )
    pruning = pb.GumbelPruning(model, skip=["3"])
    assert list(masks(model)) == ["0.weight", "1.weight"]
    assert list(gates(model)) == ["0", "1"]
    model(normal(2, 2, 4, 4, dtype=torch.float32)).square().sum().backward()
    assert all(gate.logit.grad.any() for gate in gates(model).values())
    pruning.freeze(11)
    assert int(sum(mask.sum() for mask in masks(model).values())) == 11


def test_a_bare_layer():
    layer = nn.Linear(10, 10)
    pruning = pb.GumbelPruning(layer)
    layer(torch.ones(1, 10)).sum().backward()
    assert list(gates(layer)) == [""]
    pruning.freeze(30)
    assert sparsity(bake(layer)) == 0.7
    assert type(layer) is nn.Linear


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_compile():
    model = network()
    pb.GumbelPruning(model)
    set_logits(model, torch.linspace(-1, 1, 60).view(10, 6), 1.0)
    model.eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch()), model(batch()))
    torch.compiler.reset()


def test_autocast():
    model = network()
    pb.GumbelPruning(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch())
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert all(gate.logit.grad.any() for gate in gates(model).values())


def test_runs_that_differ_in_what_is_no_parameter_look_different():
    texts = set()
    for options in ({}, {"tau": 0.5}, {"hard": False}, {"units": True}):
        model = network()
        pb.GumbelPruning(model, **options)
        texts.add(repr(model))
    assert len(texts) == 4


# The penalty


def test_density_and_penalty_by_hand():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 3))
    pruning = pb.GumbelPruning(model, lam=2.0)
    set_logits(model, math.log(3), -math.log(3))  # open with 3/4, and three with 1/4
    assert pruning.density() == pytest.approx(3 / 8)
    assert pruning.density(per_layer=True) == pytest.approx({"0": 3 / 4, "1": 1 / 4})
    assert pruning.penalty(3 / 16).item() == pytest.approx(2 * math.log(2))
    assert pruning.penalty(1 / 2).item() == 0
    assert pruning.penalty(1 / 2, form="absolute").item() == pytest.approx(1 / 4)
    assert pruning.penalty(1 / 4, form="absolute").item() == pytest.approx(1 / 4)
    assert pruning.penalty(0, form="absolute").item() == pytest.approx(3 / 4)
    assert pruning.penalty().item() == 0  # the target is 1 at the start
    assert pruning.penalty().shape == ()
    pruning.target = 3 / 80
    assert pruning.penalty().item() == pytest.approx(2 * math.log(10), rel=1e-5)


def test_density_is_what_gates_do_in_the_mean():
    model = nn.Linear(100, 100)
    pruning = pb.GumbelPruning(model)
    set_logits(model, 2 * normal(100, 100))
    shares = []
    with seeded():
        for _ in range(40):
            model(torch.zeros(1, 100))
            shares.append((model.weight != 0).double().mean().item())
    p = gates(model)[""].logit.detach().double().sigmoid()
    error = math.sqrt(float((p * (1 - p)).sum()) / 40) / 1e4
    assert sum(shares) / 40 == pytest.approx(pruning.density(), abs=5 * error)
    assert pruning.density() == pytest.approx(p.mean().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("form", "target"), [("log", 0.1), ("log", 0.9), ("absolute", 0.1), ("absolute", 0.9)]
)
def test_the_gradient_of_the_penalty_is_that_of_finite_differences(form, target):
    model = network().double()
    pruning = pb.GumbelPruning(model, lam=3.0)
    set_logits(model, normal(10, 6), normal(4, 10))
    found = torch.autograd.grad(pruning.penalty(target, form), [g.logit for g in gates(model).values()])
    for gate, gradient in zip(gates(model).values(), found, strict=True):
        for index in [(0, 0), (3, 2)]:
            values = []
            for step in (1e-5, -2e-5):
                with torch.no_grad():
                    gate.logit[index] += step
                values.append(pruning.penalty(target, form).item())
            with torch.no_grad():
                gate.logit[index] += 1e-5
            slope = (values[0] - values[1]) / 2e-5
            assert gradient[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)
            assert (slope == 0) == (form == "log" and target == 0.9)


def test_closed_gates_have_a_finite_gradient():
    model = network()
    pruning = pb.GumbelPruning(model)
    set_logits(model, -1000.0, -1000.0)
    assert pruning.density() == 0
    for form in ("log", "absolute"):
        pruning.penalty(0.5, form).backward()
    assert all(gate.logit.grad.eq(0).all() for gate in gates(model).values())


def test_no_penalty_without_lam():
    assert pb.GumbelPruning(network(), lam=0.0).penalty(0.1).item() == 0


@pytest.mark.parametrize(
    ("target", "form", "message"),
    [
        (0, "log", "target must be a share of the gates, above 0, up to 1, got 0"),
        (-0.1, "log", r"target must be a share of the gates, above 0, up to 1, got -0\.1"),
        (1.1, "log", r"target must be a share of the gates, above 0, up to 1, got 1\.1"),
        (math.nan, "log", "target must be a share of the gates, above 0, up to 1, got nan"),
        (-0.1, "absolute", r"target must be a share of the gates, from 0 to 1, got -0\.1"),
        (50, "absolute", "target must be a share of the gates, from 0 to 1, got 50"),
        (0.5, "square", "form must be 'log' or 'absolute', got 'square'"),
    ],
)
def test_penalties_out_of_range_are_refused(target, form, message):
    with pytest.raises(ValueError, match=message):
        pb.GumbelPruning(network()).penalty(target, form)


def test_the_fall_of_the_target_by_hand():
    pruning = pb.GumbelPruning(network())
    schedule = pruning.fall(0.01, until=0.5)
    for progress, wanted in ((0.0, 1.0), (0.25, 0.1), (0.125, 0.1**0.5), (0.5, 0.01), (0.99, 0.01)):
        schedule(progress)
        assert pruning.target == pytest.approx(wanted, rel=1e-12)
    pruning.fall(0.01)(0.3)
    assert pruning.target == pytest.approx(0.1)


@pytest.mark.parametrize("units", [True, False])
def test_the_temperature_moves_by_equal_factors(units):
    pruning = pb.GumbelPruning(network(), tau=4.0, units=units)
    schedule = pruning.anneal(0.25)
    for progress, wanted in ((0.0, 4.0), (0.375, 1.0), (0.75, 0.25), (1.0, 0.25)):
        schedule(progress)
        assert pruning.tau == pytest.approx(wanted, rel=1e-12)
        assert {gate.tau for gate in gates(pruning.model).values()} == {pruning.tau}
    pruning.tau = 2
    pruning.anneal(8.0, until=1.0)(0.5)
    assert pruning.tau == pytest.approx(4.0)


@pytest.mark.parametrize("value", [0.0, -1.0, 1.1, math.nan])
def test_schedules_out_of_range_are_refused(value):
    pruning = pb.GumbelPruning(network())
    with pytest.raises(
        ValueError, match=f"target must be a share of the gates above 0, up to 1, got {value}"
    ):
        pruning.fall(value)
    for schedule in (pruning.fall, pruning.anneal):
        with pytest.raises(
            ValueError, match=f"until must be a share of the run above 0, up to 1, got {value}"
        ):
            schedule(0.1, until=value)
    with pytest.raises(ValueError, match="end must be above 0 and finite, got 0"):
        pruning.anneal(0)


# Freezing


def test_freeze_keeps_the_largest_logits():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    pruning = pb.GumbelPruning(model)
    names = {name: tensor.shape for name, tensor in model.state_dict().items()}
    set_logits(model, [[-5.0, 3.0], [0.5, -1.0]], [[2.0, -7.0]])
    pruning.freeze(4)  # one of them has a negative logit
    assert masks(model)["0.weight"].tolist() == [[False, True], [True, True]]
    assert masks(model)["1.weight"].tolist() == [[True, False]]
    assert gates(model)["1"].logit.tolist() == [[FROZEN, -FROZEN]]
    assert pruning.density() == pytest.approx(4 / 6)
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == names


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-2, 2), min_size=10, max_size=10), st.integers(1, 10))
def test_freeze_is_exact_and_of_ties_the_higher_index_stays(logits, count):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    pruning = pb.GumbelPruning(model)
    set_logits(model, torch.tensor(logits[:6]).view(2, 3), torch.tensor(logits[6:]).view(2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruning.freeze(count)
    kept = torch.cat([mask.flatten() for mask in masks(model).values()])
    ranked = sorted(range(10), key=lambda i: (logits[i], i))
    assert kept.nonzero().flatten().tolist() == sorted(ranked[-count:])


@pytest.mark.parametrize("count", [0, 101, -1, True, 2.0, None, math.nan])
def test_counts_out_of_range_are_refused(count):
    pruning = pb.GumbelPruning(network())
    with pytest.raises(ValueError, match=f"count must be a whole number of gates, 1 to 100, got {count}"):
        pruning.freeze(count)
    assert pruning.density() == pytest.approx(1 / (1 + math.exp(-2)))


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("again", ["train", "nothing"])
def test_frozen_gates_stay_as_they_are(units, again):
    model = network()
    pruning = pb.GumbelPruning(model, units=units, logit=0.5)
    optimizer = train_steps(pruning, weight_decay=0.1)  # its momentum goes on
    count = 5 if units else 50
    pruning.freeze(count)
    if again == "train":
        model.eval()
        model.train()
    logits = {name: gate.logit.detach().clone() for name, gate in gates(model).items()}
    kept, weight = masks(model), dense_weight(model[0]).detach().clone()
    before = torch.get_rng_state()
    for _ in range(5):
        optimizer.zero_grad()
        (model(batch()).square().mean() + pruning.penalty(0.01)).backward()
        optimizer.step()
        assert torch.equal(model[0].weight != 0, kept["0.weight"] & (dense_weight(model[0]) != 0))
    assert torch.equal(torch.get_rng_state(), before)  # no coins
    assert all(torch.equal(gate.logit, logits[name]) for name, gate in gates(model).items())
    assert all(torch.equal(mask, kept[name]) for name, mask in masks(model).items())
    assert not torch.equal(dense_weight(model[0]), weight)
    assert len(pruning.parameter_groups()) == 1
    harden(model)
    assert sum(int(m.sum()) for n, m in masks(model).items() if n == "0.bias" or not units) == count


def test_gates_thaw_with_an_older_state():
    model = network()
    pruning = pb.GumbelPruning(model)
    set_logits(model, normal(10, 6), normal(4, 10))
    state = copy.deepcopy(model.state_dict())
    pruning.freeze(40)
    frozen = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    before = pruning.density()
    train_steps(pruning)
    assert pruning.density() < before
    assert pruning.density() != 0.4
    model.load_state_dict(frozen)
    model.train()
    before = torch.get_rng_state()
    model(batch())
    assert torch.equal(torch.get_rng_state(), before)


def test_logits_that_a_user_fixed_stay_fixed():
    model = network()
    pb.GumbelPruning(model)
    gates(model)["0"].logit.requires_grad_(False)
    model.eval().train()
    model(batch()).square().sum().backward()
    assert gates(model)["0"].logit.grad is None
    assert gates(model)["2"].logit.grad.any()


def cut_in_the_middle():
    """Two weights that do not meet: one feeds unit 0, one reads unit 1."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    pruning = pb.GumbelPruning(model)
    set_logits(model, [[3.0, -1.0], [-1.0, -1.0]], [[-1.0, 3.0]])
    return pruning


def test_freeze_warns_where_all_paths_are_cut():
    pruning = cut_in_the_middle()
    with pytest.warns(UserWarning, match="no path leads from an input to an output") as caught:
        pruning.freeze(2)
    (warning,) = caught
    assert warning.filename == __file__
    assert "through 2 open gates: every image gets the same answer" in str(warning.message)
    assert "Keep more, or let the target fall more slowly" in str(warning.message)
    model = pruning.model.eval()
    assert torch.equal(model(torch.zeros(1, 2)), model(torch.ones(1, 2)))
    assert sparsity(harden(model)) == 4 / 6  # each layer has a weight: nothing more to say


@pytest.mark.parametrize("make", [network, Untraceable])
def test_freeze_warns_once_of_an_empty_layer(make):
    model = make()
    pruning = pb.GumbelPruning(model)
    set_logits(model, 1.0, -1.0)
    with pytest.warns(UserWarning, match="no path leads") as caught:
        pruning.freeze(3)
    assert len(caught) == 1


def test_freeze_of_a_model_that_cannot_be_traced():
    pruning = pb.GumbelPruning(Untraceable())
    pruning.freeze(31)  # 20 gates in the last layer, 11 in the first
    assert sparsity(harden(pruning.model), per_layer=True) == {"first": pytest.approx(19 / 30), "last": 0}


def test_an_empty_branch_cuts_nothing():
    model = Residual()
    pruning = pb.GumbelPruning(model)
    set_logits(model, 1.0, -1.0, 1.0)
    pruning.freeze(50)
    assert sparsity(model, per_layer=True) == {"first": 0, "branch": 1, "last": 0}


@pytest.mark.parametrize("units", [True, False])
def test_harden_warns_of_a_layer_without_weights(units):
    model = network()
    pb.GumbelPruning(model, units=units)
    set_logits(model, *[-1.0] + [1.0] * (not units))
    masks(model), sparsity(model), model.eval()(batch())  # say nothing yet
    count = 10 if units else 60
    message = (
        rf"all {count} gates of a layer with weights of shape \(10, 6\) are closed: nothing of it is left"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        harden(model)
    (warning,) = caught
    assert "Lower lam, or raise the target" in str(warning.message)
    assert sparsity(harden(model), per_layer=True)["0"] == 1  # now constant: said once


@pytest.mark.parametrize("units", [True, False])
def test_logits_that_are_no_numbers_are_refused(units):
    model = network()
    pruning = pb.GumbelPruning(model, units=units)
    with torch.no_grad():
        gates(model)["0"].logit[3] = math.nan
    before = list(model.state_dict())
    for call in (lambda: pruning.freeze(5), lambda: harden(model), lambda: masks(model), lambda: bake(model)):
        with pytest.raises(
            ValueError, match="logits must be numbers, got NaN: lower the learning rates or lam"
        ):
            call()
    assert list(model.state_dict()) == before


# Optimizer groups


@pytest.mark.parametrize("units", [True, False])
def test_parameter_groups_hold_each_parameter_once(units):
    model = network()
    model[0].bias.requires_grad_(False)
    pruning = pb.GumbelPruning(model, units=units, lr_gates=0.25)
    others, ours = pruning.parameter_groups()
    held = [id(p) for group in (others, ours) for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert [id(p) for p in ours["params"]] == [id(gate.logit) for gate in gates(model).values()]
    optimizer = Adam(pruning.parameter_groups(), lr=1e-3, weight_decay=0.5)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(1e-3, 0.5), (0.25, 0.0)]


def test_weight_decay_does_not_move_the_gates():
    model = network()
    optimizer = SGD(pb.GumbelPruning(model).parameter_groups(), lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight = dense_weight(model[0]).detach().clone()
    optimizer.step()
    torch.testing.assert_close(dense_weight(model[0]).detach(), 0.95 * weight)
    assert all(gate.logit.eq(2).all() for gate in gates(model).values())


def test_optimizer_groups_by_hand():
    model = network()
    first, second, last = model[0].weight, model[0].bias, model[2].weight
    model[2].bias.requires_grad_(False)
    assert optimizer_groups(model, [])[0]["params"] == [first, second, last]
    others, one = optimizer_groups(model, [([second], 0.5), ([model[2].bias], 0.1), ([], 0.1)])
    assert list(map(id, others["params"])) == [id(first), id(last)]
    assert one == {"params": [second], "lr": 0.5, "weight_decay": 0.0}


def test_gates_may_be_all_that_learns():
    model = network().requires_grad_(False)
    pruning = pb.GumbelPruning(model)
    train_steps(pruning, steps=20)
    assert pruning.density() < 0.85
    assert torch.equal(dense_weight(model[0]), network()[0].weight)


# Gates on units


def conv_net():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, groups=2, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5, affine=False),
        nn.Flatten(),
        nn.Linear(5 * 36, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )


def test_spread_units_by_hand():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert spread_units(values, torch.empty(4)).tolist() == [1, 2, 3, 4]
    assert spread_units(values, torch.empty(4, 2)).tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]]
    grouped = spread_units(values, torch.empty(6, 2, 5), groups=2)  # three inputs of each group of two units
    assert grouped.shape == (6, 2, 5)
    assert grouped[:, :, 0].tolist() == [[1, 2]] * 3 + [[3, 4]] * 3


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 4),
        nn.Conv1d(6, 4, 3, groups=2),
        nn.ConvTranspose1d(6, 4, 3),
        nn.ConvTranspose2d(6, 4, 3, groups=2),
    ],
)
def test_spread_units_is_the_inverse_of_unit_rows(layer):
    values = torch.arange(4.0)
    groups = layer.groups if isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d)) else 0
    spread = spread_units(values, layer.weight, groups)
    assert spread.shape == layer.weight.shape
    rows = unit_rows(layer, spread)
    assert torch.equal(rows, values[:, None].expand_as(rows))
    assert torch.equal(unit_mask(layer, values > 1), spread > 1)


def test_weight_bias_and_batchnorm_share_one_gate():
    with seeded():
        model = conv_net()
    pruning = pb.GumbelPruning(model, units=True, logit=0.0)
    assert {name: gate.logit.numel() for name, gate in gates(model).items()} == {
        "0": 6,
        "3": 4,
        "6": 5,
        "9": 8,
    }
    weights = {f"{name}.weight" for name in (0, 1, 3, 4, 6, 9)}
    assert set(masks(model)) == weights | {f"{name}.bias" for name in (1, 3, 4, 6, 9)}
    with torch.no_grad():
        model[1].parametrizations.bias.original.fill_(0.3)
        model[4].parametrizations.bias.original.fill_(0.3)
    seen = set()
    for _ in range(10):
        model(normal(3, 2, 4, 4, dtype=torch.float32))
        for layer, norm in ((0, 1), (3, 4), (6, None), (9, None)):
            gate = gates(model)[str(layer)]()
            assert set(gate.tolist()) <= {0, 1}
            seen.add((layer, tuple(gate.tolist())))
            speakers = [unit_rows(model[layer], model[layer].weight)[:, 0]]
            speakers += [model[layer].bias] * (layer != 0)
            speakers += [model[norm].weight, model[norm].bias] if norm else []
            for values in speakers:
                assert torch.equal(values != 0, gate != 0)
    assert len(seen) > 20
    assert pruning.density() == 0.5


@pytest.mark.parametrize("hard", [True, False])
def test_the_gradient_of_a_unit_gate_is_the_sum_over_what_it_gates(hard):
    model, noise = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).double(), torch.tensor([0.5, -3.0])
    pb.GumbelPruning(model, units=True, tau=2.0, hard=hard)
    (gate,) = gates(model).values()
    gate.noise = noise.double()
    model[0].weight.sum().backward(retain_graph=True)
    model[0].bias.sum().backward()
    s = ((gate.logit.detach() + noise) / 2).sigmoid()
    total = dense_weight(model[0]).sum(1) + dense_weight(model[0], "bias")
    torch.testing.assert_close(gate.logit.grad, (total * s * (1 - s) / 2).detach())
    factor = (s > 0.5).double() if hard else s
    torch.testing.assert_close(dense_weight(model[0]).grad, factor[:, None].expand(2, 3))


def test_hardened_and_shrunk_units_say_the_same():
    with seeded():
        model, images = conv_net().double(), normal(5, 2, 4, 4)
    pruning = pb.GumbelPruning(model, units=True)
    for _ in range(3):
        model(images)  # moves the statistics of BatchNorm
    with seeded():
        set_logits(model, *(torch.randn(gate.logit.shape) for gate in gates(model).values()))
    pruning.freeze(13)
    wanted = model.eval()(images)
    harden(model)
    torch.testing.assert_close(model(images), wanted, atol=1e-12, rtol=0)
    small, report = pb.shrink(model, report=True)
    torch.testing.assert_close(small(images), wanted, atol=1e-12, rtol=0)
    assert (
        sum(int(masks(model)[f"{n}.weight"].flatten(1).any(1).sum()) for n in (0, 6, 9))
        + int(unit_rows(model[3], masks(model)["3.weight"]).any(1).sum())
        == 13
    )
    before, after = report.units["9"]
    assert (before, after) == (8, int(masks(model)["9.bias"].sum()))


def test_skipped_units_and_outputs_are_left_alone():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 4))
    pb.GumbelPruning(model, units=True, skip=["2"])
    assert sorted(masks(model)) == ["0.bias", "0.weight"]


def test_units_of_tied_layers_share_their_gates():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    pruning = pb.GumbelPruning(model, units=True, logit=0.0)
    assert len(gates(model)) == 1
    model(torch.ones(2, 4))
    assert torch.equal(model[0].bias != 0, model[2].bias != 0)
    pruning.freeze(3)
    assert int(masks(model)["2.bias"].sum()) == 3


def test_units_of_a_model_that_cannot_be_traced():
    model = Untraceable()
    with pytest.warns(UserWarning, match="torch.fx cannot trace the model") as caught:
        pb.GumbelPruning(model, units=True)
    assert [warning.filename for warning in caught] == [__file__]
    assert list(gates(model)) == ["first"]


# Training


class StoppedError(Exception):
    pass


def run(units, stop_after=None, checkpoint=None):
    with seeded(3):
        model = pb.mlp([16, 12, 3])
    pruning = pb.GumbelPruning(model, units=units, logit=0.5, lr_gates=0.05)
    falling, annealing, once = pruning.fall(0.3, until=0.4), pruning.anneal(0.5), []

    def schedule(progress):
        falling(progress)
        annealing(progress)
        if progress >= 0.55 and not once:  # in the midst of the third epoch
            once.append(pruning.freeze(5 if units else 60))

    def stop(row):
        row["density"] = pruning.density()
        if row["epoch"] == stop_after:
            raise StoppedError

    history = pb.fit(
        model,
        make_data(),
        epochs=4,
        batch_size=8,
        optimizer=Adam(pruning.parameter_groups(), lr=0.01),
        penalty=pruning.penalty,
        schedule=schedule,
        on_epoch=stop,
        checkpoint=checkpoint,
        progress=False,
    )
    return history, checkpoints.digest(model.state_dict()), model


@pytest.mark.parametrize("units", [True, False])
def test_a_resumed_run_ends_with_the_same_bits(units, tmp_path):
    history, whole, model = run(units)
    assert history["sparsity"][-1] < 1
    gate_count = sum(int(gate.open().sum()) for gate in gates(model).values())
    assert gate_count == (5 if units else 60)
    for stop_after in (1, 3):  # before and after the freezing
        path = tmp_path / str(stop_after)
        with pytest.raises(StoppedError):
            run(units, stop_after=stop_after, checkpoint=path)
        resumed, bits, _ = run(units, checkpoint=path)
        assert bits == whole
        assert resumed["density"] == history["density"]
    assert len(set(history["density"])) == 3


def test_training_finds_the_weights_that_the_data_need():
    data = make_data(300)
    with seeded(3):
        model = pb.mlp([16, 30, 3])
    pruning = pb.GumbelPruning(model, lr_gates=0.1)
    optimizer = Adam(pruning.parameter_groups(), lr=0.01)
    options = {"batch_size": 32, "optimizer": optimizer, "progress": False}
    pb.fit(model, data, epochs=15, penalty=pruning.penalty, schedule=pruning.fall(0.05), **options)
    assert pruning.density() < 0.1
    pruning.freeze(28)
    pb.fit(model, data, epochs=5, seed=1, **options)
    pb.bake(model)
    assert sparsity(model) == 1 - 28 / 570
    assert pb.evaluate(model, data.train).accuracy > 0.85


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": 0.0}, r"tau must be above 0 and finite, got 0\.0"),
        ({"tau": -1.0}, r"tau must be above 0 and finite, got -1\.0"),
        ({"tau": math.nan}, "tau must be above 0 and finite, got nan"),
        ({"tau": math.inf}, "tau must be above 0 and finite, got inf"),
        ({"lam": -1.0}, r"lam must be at least 0 and finite, got -1\.0"),
        ({"lam": math.nan}, "lam must be at least 0 and finite, got nan"),
        ({"lam": math.inf}, "lam must be at least 0 and finite, got inf"),
        ({"lr_gates": 0.0}, r"lr_gates must be above 0 and finite, got 0\.0"),
        ({"lr_gates": math.nan}, "lr_gates must be above 0 and finite, got nan"),
        ({"logit": math.nan}, "logit must lie between -5000 and 5000, got nan"),
        ({"logit": math.inf}, "logit must lie between -5000 and 5000, got inf"),
        ({"logit": -5000.0}, r"logit must lie between -5000 and 5000, got -5000\.0"),
        ({"skip": ["9"]}, r"skip must name layers out of \['0', '2'\], got \['9'"),
        ({"skip": ["0", "2"]}, "must have a linear or convolution layer to prune"),
    ],
)
def test_arguments_out_of_range_are_refused(units, arguments, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        pb.GumbelPruning(model, units=units, **arguments)
    assert masks(model) == {}
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("units", [True, False])
def test_a_model_with_masks_is_refused_and_left_alone(units):
    model = pb.prune_weights(network(), 50, skip=["2"])
    before = list(model.state_dict())
    with pytest.raises(ValueError, match="weight must be without mask, has a Mask: bake it first"):
        pb.GumbelPruning(model, units=units)
    assert list(model.state_dict()) == before
    assert not model._forward_pre_hooks


def test_a_masked_bias_is_refused_before_anything_changes():
    model = network()
    pb.attach(model[0], torch.ones(10, dtype=torch.bool), "bias")
    before = list(model.state_dict())
    with pytest.raises(ValueError, match=r"parameters must be without mask, got masks on \['0.bias'\]"):
        pb.GumbelPruning(model, units=True)
    assert list(model.state_dict()) == before
    pb.GumbelPruning(model)  # gates on weights leave it alone
    assert sorted(masks(model)) == ["0.bias", "0.weight", "2.weight"]


def test_nothing_is_left_to_learn_once_hardened():
    model = network()
    pruning = pb.GumbelPruning(model)
    harden(model)
    assert not any(isinstance(module, Gate) for module in model.modules())
    calls = (pruning.penalty, lambda: pruning.freeze(3), pruning.parameter_groups, pruning.density)
    for call in (*calls, lambda: pruning.tau, lambda: pruning.anneal(0.1)):
        with pytest.raises(ValueError, match="model must have Gumbel gates, got none: they were hardened"):
            call()
