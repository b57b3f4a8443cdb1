"""What masks must survive in real training: one row for each situation, one column for each method.

`python tests/contract.py` runs it and prints the table of book/contract.md. `tests/test_contract.py` tests
each cell, on a GPU too where there is one. A cell holds, is refused with an error, gives a warning, or has a
note on what to do.
"""

from __future__ import annotations

import copy
import os
import pickle
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.optim import LBFGS, SGD, Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import prunebook as pb
from prunebook.layers import dense_weight
from prunebook.masking import mask_of, masks
from prunebook.step_state import states

METHODS: dict[str, Callable[..., object]] = {
    "weights": lambda net, **options: pb.prune_weights(net, 50, **options),
    "units": lambda net, **options: pb.prune_units(net, 50, **options),
    "soft": lambda net, **options: pb.SoftPruning(net, 50, learn_tau=True, update_every=1, **options),
    "adaptive": lambda net, **options: pb.AdaptivePruning(net, r=0.4, update_every=1, **options),
    "gates": lambda net, **options: pb.GumbelPruning(net, logit=0.3, target_density=0.5, **options),
    "unit gates": lambda net, **options: pb.GumbelPruning(
        net, logit=0.3, target_density=0.5, units=True, **options
    ),
}
HOLDS, REFUSED, WARNED, NOTED = "✓", "error", "warns", "note"


class Net(nn.Module):
    """Convolution and BatchNorm, then two linear layers: an encoder and a head that can be called apart."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(6 * 16, 12), nn.Tanh(), nn.Linear(12, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x))


@dataclass
class Case:
    """One method on one device, with a batch of 16 images of three classes."""

    method: str
    device: torch.device
    x: torch.Tensor = field(init=False)
    y: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.x = torch.randn(16, 1, 6, 6, generator=draw).to(self.device)
        self.y = (torch.arange(16) % 3).to(self.device)

    @property
    def learned(self) -> bool:
        return self.method not in ("weights", "units")

    @property
    def noisy(self) -> bool:
        return "gate" in self.method

    def masked(self, make: Callable[[], nn.Module] = Net, **options):
        """Return a network with masks, in train mode, and what prunes it, or None."""
        torch.manual_seed(0)
        net = make().to(self.device)
        pruning = METHODS[self.method](net, **options)
        return net.train(), pruning if self.learned else None

    def parameters(self, net, pruning):
        return pruning.parameter_groups() if pruning else list(net.parameters())

    def loss(self, net, pruning=None, x=None):
        loss = F.cross_entropy(net(self.x if x is None else x).float(), self.y)
        return loss + pruning.penalty() if hasattr(pruning, "penalty") else loss

    def steps(self, net, pruning, count=1, optimizer=None, loss=None):
        optimizer = optimizer or Adam(self.parameters(net, pruning), lr=0.02)
        for _ in range(count):
            optimizer.zero_grad()
            (loss or self.loss)(net, pruning).backward()
            optimizer.step()
        return optimizer

    def state(self, net):
        """Return what the masks of a step read: noise, thresholds."""
        return [buffer.clone() for state in states(net) for buffer in state.buffers()]

    def moved(self, before, after):
        """Return whether the state of a step was renewed; masks that do not learn have none."""
        return not self.learned or any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


SITUATIONS: dict[str, tuple[str, Callable[[Case], str | None]]] = {}


def situation(title: str, note: str = ""):
    """Enter a function in the table; it asserts, and returns what was checked if not that it holds."""

    def enter(function):
        SITUATIONS[title] = note, function
        return function

    return enter


def refusal(kind, *words):
    """Expect an error whose message holds these words."""
    return pytest.raises(kind, match=".*".join(map(re.escape, words)))


def grads(net):
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **tolerance)


@situation("weights are read twice in a step")
def repeated_reads(case):
    net, pruning = case.masked()
    case.steps(net, pruning)
    layer = net.head[0]
    first = layer.weight.detach().clone()
    case.loss(net, pruning).backward()
    assert torch.equal(layer.weight, first)
    assert torch.equal(layer.weight, layer.weight)


@situation("each step has its own noise and threshold")
def renewed(case):
    net, pruning = case.masked()
    optimizer, seen = case.steps(net, pruning), []
    for _ in range(3):
        seen.append(case.state(net))
        case.steps(net, pruning, optimizer=optimizer)
    assert all(case.moved(a, b) for a, b in pairwise(seen))


@situation("double backward")
def double_backward(case):
    net, _ = case.masked()
    weights = [p for p in net.parameters() if p.requires_grad]
    firsts = torch.autograd.grad(case.loss(net), weights, create_graph=True, allow_unused=True)
    sum(g.square().sum() for g in firsts if g is not None).backward()
    assert dense_weight(net.head[0]).grad.isfinite().all()
    assert dense_weight(net.head[0]).grad.any()


@situation("a deep copy")
def deep_copy(case):
    net, pruning = case.masked()
    before, kept = case.state(net), {k: v.clone() for k, v in net.state_dict().items()}
    twin = copy.deepcopy(pruning) if pruning else None
    other = twin.model if twin else copy.deepcopy(net)
    start = case.state(other)
    case.steps(other, twin)
    assert case.moved(start, case.state(other))
    assert all(torch.equal(a, b) for a, b in zip(before, case.state(net), strict=True))
    same(kept, net.state_dict())


@situation(
    "pickle of a whole network", "torch pickles no parametrized module, and says so: use a state_dict."
)
def pickled(case):
    with refusal(RuntimeError, "state_dict"):
        pickle.dumps(case.masked()[0])
    return REFUSED


@situation("a state_dict, saved and loaded, also with `assign=True`")
def state_dicts(case):
    net, pruning = case.masked()
    case.steps(net, pruning)
    saved = copy.deepcopy(net.state_dict())
    for assign in (False, True):
        other, its = case.masked()
        other.load_state_dict(copy.deepcopy(saved), assign=assign)
        assert torch.equal(other.eval()(case.x), net.eval()(case.x))
        assert all(torch.equal(mask, masks(other)[name]) for name, mask in masks(net).items())
        before = case.state(other.train())
        case.steps(other, its)
        assert case.moved(before, case.state(other))


@situation("a state_dict to and from a network without masks")
def plain_states(case):
    net, pruning = case.masked()
    case.steps(net, pruning)
    torch.manual_seed(0)
    plain = Net().to(case.device)
    assert [n for n, _ in plain.named_parameters()] == [
        n for n, _ in net.named_parameters() if "parametri" not in n
    ]
    plain.load_state_dict(pb.plain_state(net), strict=True)
    assert torch.equal(plain.eval()(case.x), pb.harden(copy.deepcopy(net)).eval()(case.x))
    assert set(net.load_state_dict(plain.state_dict(), strict=False).unexpected_keys) == set()
    assert torch.equal(dense_weight(net.head[0]), plain.head[0].weight)


@situation(
    "an optimizer's state from before the masks",
    "What learns has parameters of its own, so torch refuses an optimizer's state without them.",
)
def optimizer_states(case):
    torch.manual_seed(0)
    dense = Net().to(case.device)
    saved = case.steps(dense, None, 2).state_dict()
    net, pruning = case.masked()
    optimizer = Adam(case.parameters(net, pruning), lr=0.02)
    if case.learned:
        with refusal(ValueError, "group"):
            optimizer.load_state_dict(saved)
        return REFUSED
    optimizer.load_state_dict(saved)
    for parameter, state in optimizer.state.items():
        assert state["exp_avg"].shape == parameter.shape
    assert optimizer.state[dense_weight(net.head[0])]["exp_avg"].any()
    case.steps(net, pruning, optimizer=optimizer)
    return None


@situation("activation checkpointing, both kinds")
def checkpointing(case):
    net, _ = case.masked()
    net.encoder[1].eval()  # a recomputed BatchNorm would count the batch twice
    x = case.x.clone().requires_grad_()
    F.cross_entropy(net(x), case.y).backward()
    wanted = grads(net)
    for reentrant in (False, True):
        net.zero_grad()
        hidden = checkpoint(net.encoder, x, use_reentrant=reentrant)
        F.cross_entropy(checkpoint(net.head, hidden, use_reentrant=reentrant), case.y).backward()
        same(grads(net), wanted)


@situation("gradient accumulation equals the large batch")
def accumulation(case):
    net, _ = case.masked()
    net.encoder[1].eval()
    case.loss(net).backward()
    wanted = grads(net)
    net.zero_grad()
    for x, y in zip(case.x.split(4), case.y.split(4), strict=True):
        (F.cross_entropy(net(x), y) / 4).backward()
    same(grads(net), wanted, atol=1e-6, rtol=1e-4)


@situation("training that does not enter through `model(x)`")
def other_entries(case):
    class Lit(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x):
            return self.net(x)

        def training_step(self, x, y):
            return F.cross_entropy(self.net.head(self.net.encoder(x)), y)

    net, pruning = case.masked(Lit)
    before = case.state(net)
    case.steps(net, pruning, loss=lambda net, pruning: net.training_step(case.x, case.y))
    assert case.moved(before, case.state(net))
    if case.noisy:
        first = next(iter(states(net)))
        assert first.logit.grad.any()


@situation("two networks, two optimizers")
def two_optimizers(case):
    net, pruning = case.masked()
    other, _ = case.masked()
    before, unmoved = case.state(net), case.state(other)
    case.steps(net, pruning)
    assert case.moved(before, case.state(net))
    assert all(torch.equal(a, b) for a, b in zip(unmoved, case.state(other), strict=True))


@situation("weights and masks in an optimizer each")
def split_optimizers(case):
    net, pruning = case.masked()
    groups = case.parameters(net, pruning)
    optimizers = [Adam([group], lr=0.01) for group in groups] if case.learned else [Adam(groups, lr=0.01)]
    for _ in range(2):
        before = case.state(net)
        case.loss(net, pruning).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        assert case.moved(before, case.state(net))
    assert all(p.grad is None or not p.grad.any() for p in net.parameters())


@situation("an optimizer that evaluates the loss many times in a step (LBFGS)")
def many_evaluations(case):
    net, _ = case.masked()
    net.encoder[1].eval()
    optimizer, seen = LBFGS([p for p in net.parameters() if p.requires_grad], max_iter=4), []

    def closure():
        optimizer.zero_grad()
        loss = case.loss(net)
        loss.backward()
        seen.append(case.state(net))
        return loss

    before = case.state(net)
    optimizer.step(closure)
    assert len(seen) > 1
    for each in seen:
        assert all(torch.equal(a, b) for a, b in zip(before, each, strict=True))
    assert case.moved(before, case.state(net))


@situation(
    "an optimizer that steps inside the backward pass",
    "With reentrant checkpointing, torch reports the end of each segment: use the other kind.",
)
def step_in_backward(case):
    net, _ = case.masked()
    seen, before = [], case.state(net)
    for parameter in net.parameters():
        if parameter.requires_grad:
            own = SGD([parameter], lr=0.01)

            def hook(_, own=own):
                own.step()
                own.zero_grad()
                seen.append(case.state(net))

            parameter.register_post_accumulate_grad_hook(hook)
    hidden = checkpoint(net.encoder, case.x.clone().requires_grad_(), use_reentrant=False)
    F.cross_entropy(net.head(hidden), case.y).backward()
    for each in seen:
        assert all(torch.equal(a, b) for a, b in zip(before, each, strict=True))
    assert case.moved(before, case.state(net))


@situation(
    "an optimizer made before the masks that learn",
    "It does not hold what is to be learned: after 50 steps a warning says so.",
)
def optimizer_before(case):
    torch.manual_seed(0)
    net = Net().to(case.device)
    optimizer = Adam(net.parameters(), lr=0.01)
    METHODS[case.method](net)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        case.steps(net, None, 51, optimizer)
    said = [
        str(each.message)
        for each in caught
        if "the optimizer after the masks are attached" in str(each.message)
    ]
    assert bool(said) == case.learned
    return WARNED if case.learned else None


@situation(
    "updates by hand (`p -= lr * p.grad`)",
    "After the second such change, a forward pass in train mode warns and asks for `pb.renew(model)`.",
)
def updates_by_hand(case):
    net, _ = case.masked()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            case.loss(net).backward()
            with torch.no_grad():
                for parameter in net.parameters():
                    if parameter.grad is not None:
                        parameter -= 0.01 * parameter.grad
    assert bool(caught) == case.learned
    before = case.state(net)
    pb.renew(net)
    assert case.moved(before, case.state(net))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        case.loss(net)
    return WARNED if case.learned else None


@situation("updates through `.data`", "Nobody can see them: call `pb.renew(model)` after each step.")
def updates_of_data(case):
    if not case.learned:
        return None
    net, _ = case.masked()
    before = case.state(net)
    for parameter in net.parameters():
        parameter.data = parameter.data * 0.9
    assert not case.moved(before, case.state(net))
    pb.renew(net)
    assert case.moved(before, case.state(net))
    return NOTED


@situation(
    "harden or bake of a part",
    "The masks of one unit can only be hardened together: a part that holds some of them is refused.",
)
def in_parts(case):
    net, pruning = case.masked()
    case.steps(net, pruning)
    wanted = sum(int(mask.sum()) for mask in masks(net).values())
    if case.method == "unit gates":
        with refusal(ValueError, "parameters that share a Gate"):
            pb.harden(net.encoder[0])
    pb.harden(net.encoder)
    case.loss(net, pruning).backward()
    assert sum(int(mask.sum()) for mask in masks(net).values()) == wanted
    if "unit" in case.method:
        pb.harden(net.head)
    else:
        case.steps(net, pruning, loss=lambda net, pruning: case.loss(net))
        pb.harden(net.head[0])
        assert mask_of(net.head[2]) is not None
    pb.harden(net)
    assert not states(net)
    pb.bake(net.head)
    assert mask_of(net.head[0]) is None
    assert mask_of(net.encoder[0]) is not None
    case.loss(net).backward()


@situation(
    "AveragedModel (EMA, SWA), made before the first step",
    "With `use_buffers=True` torch averages masks of bits into their union: "
    "`pb.set_masks(ema.module, pb.masks(net))` sets them again.",
)
def averaged(case):
    net, pruning = case.masked()
    ema = AveragedModel(net)
    optimizer = Adam(case.parameters(net, pruning), lr=0.02)
    for _ in range(3):
        case.steps(net, pruning, optimizer=optimizer)
        ema.update_parameters(net)
    assert ema.eval()(case.x).isfinite().all()
    assert abs(pb.sparsity(ema.module) - pb.sparsity(net)) < (0.15 if case.learned else 1e-9)
    if case.learned:
        return None
    union = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(2):
        union.update_parameters(net)
        pb.set_masks(net, {name: ~mask for name, mask in masks(net).items()})
    union.update_parameters(net)
    assert pb.sparsity(union.module) == 0
    pb.set_masks(union.module, masks(net))
    assert pb.sparsity(union.module) == pb.sparsity(net)
    return NOTED


@situation("a BatchNorm that stays in eval mode")
def frozen_norm(case):
    net, pruning = case.masked()
    norm = net.encoder[1].eval()
    case.steps(net, pruning)
    assert not norm.running_mean.any()
    if case.method == "unit gates":
        for _ in range(8):  # weight, bias and BatchNorm open and close together, in training too
            pb.renew(net)
            alive = net.encoder[0].weight.flatten(1).any(1)
            assert torch.equal(norm.weight != 0, alive)
        assert next(iter(states(net))).sampled()


@situation("recalibrate before and after harden")
def recalibrated(case):
    net, pruning = case.masked()
    case.steps(net, pruning, 3)
    found = []
    for each in (net, pb.harden(copy.deepcopy(net))):
        with torch.no_grad():  # by hand, with masks as in eval mode
            wanted = each.eval().encoder[0](case.x).mean((0, 2, 3))
        pb.recalibrate(each, case.x)
        torch.testing.assert_close(each.encoder[1].running_mean, wanted)
        found.append(wanted)
    if case.noisy:  # a gate without noise is what it is when it is hardened
        torch.testing.assert_close(*found)


@situation(
    "autocast in float16 and bfloat16 with GradScaler; a skipped step keeps its state",
    "An optimizer that skips steps by itself, such as fused Adam, renews the state all the same.",
)
def half_precision(case):
    for dtype in (torch.float16, torch.bfloat16):
        net, pruning = case.masked()
        optimizer = Adam(case.parameters(net, pruning), lr=0.01)
        scaler = torch.amp.GradScaler(case.device.type, init_scale=1024.0)
        for step in range(12):
            before = case.state(net)
            with torch.autocast(case.device.type, dtype=dtype):
                loss = case.loss(net, pruning)
            optimizer.zero_grad()
            scaler.scale(loss * torch.inf if step == 5 else loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if step == 5:
                assert all(torch.equal(a, b) for a, b in zip(before, case.state(net), strict=True))
            else:
                assert case.moved(before, case.state(net))
        assert all(p.isfinite().all() for p in [*net.parameters(), *net.buffers()])
        assert all(buffer.dtype != dtype for buffer in case.state(net))


@situation("networks in half, bfloat16 and float64")
def precisions(case):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        net, pruning = case.masked()
        net.to(dtype)
        loss = net(case.x.to(dtype)).double().square().mean()
        if hasattr(pruning, "penalty"):
            loss = loss + pruning.penalty()
        loss.backward()
        SGD([p for p in net.parameters() if p.grad is not None], lr=0.01).step()
        assert net(case.x.to(dtype)).isfinite().all()
        assert all(p.dtype == dtype for p in net.parameters())
        assert pb.bake(net).head[0].weight.dtype == dtype


@situation("channels_last")
def channels_last(case):
    net, pruning = case.masked()
    wanted = net(case.x)
    net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(case.x.to(memory_format=torch.channels_last)), wanted)
    case.steps(net, pruning)


@situation("meta tensors", "Weights without values cannot be ranked.")
def on_meta(case):
    with torch.device("meta"):
        net = Net()
    with refusal(ValueError, "must have values", "meta"):
        METHODS[case.method](net)
    moved, _ = case.masked()
    assert moved.to("meta").head[0].weight.device.type == "meta"
    return REFUSED


@situation("`torch.set_default_device` to another device")
def default_device(case):
    torch.set_default_device("meta")
    try:
        net, pruning = case.masked(lambda: Net().to_empty(device=case.device).apply(_fill))
        x = case.x
        # not Adam: in older releases of torch, it puts its own state on the default device
        case.steps(net, pruning, 2, SGD(case.parameters(net, pruning), lr=0.01))
        assert net(x).isfinite().all()
        pb.bake(pb.harden(net))
        assert pb.shrink(net.eval())(x).isfinite().all()
    finally:
        torch.set_default_device(None)


def _fill(module):
    for tensor in [*module._parameters.values(), *module._buffers.values()]:
        if tensor is not None and tensor.is_floating_point():
            values = torch.linspace(-1, 1, tensor.numel(), device=tensor.device).view(tensor.shape)
            tensor.data.copy_(values if isinstance(tensor, nn.Parameter) else torch.ones_like(values))
        elif tensor is not None:
            tensor.zero_()


@situation(
    "writing into `layer.weight` (`nn.init`, `.data`), `reset_parameters`",
    "`layer.weight` is computed anew each time it is read: write into `pb.dense_weight(layer)`. "
    "`layer.reset_parameters()` works; `bake` before tools that replace weights, such as fusion.",
)
def written(case):
    net, _ = case.masked()
    layer = net.head[0]
    before = dense_weight(layer).detach().clone()
    nn.init.zeros_(layer.weight)
    assert torch.equal(dense_weight(layer), before)
    layer.reset_parameters()
    assert not torch.equal(dense_weight(layer), before)
    assert mask_of(layer) is not None
    kept = masks(pb.harden(net))["head.0.weight"]
    assert not layer.weight[~kept].any()
    return NOTED


@situation(
    "`torch.nn.DataParallel` and FSDP, which put views in the place of parameters",
    "FSDP with `use_orig_params=True`, and `fully_shard`, do not take masks: torch raises an error.",
)
def replicated(case):
    net, _ = case.masked()
    layer = net.head[0].eval()
    replica = layer._replicate_for_data_parallel()
    for name, module in layer.named_children():
        replica._modules[name] = module
    replica._parameters = {}
    for name, parameter in layer._parameters.items():
        setattr(replica, name, parameter * 1.0)
    torch.testing.assert_close(replica.weight, layer.weight)
    replica.weight.sum().backward()
    assert dense_weight(layer).grad.any()
    del replica.weight  # as FSDP does before it puts the next view
    replica.weight = layer._parameters["weight"] * 0.0
    assert not replica.weight.any()


@situation("tied weights")
def tied(case):
    def make():
        net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
        net[2].weight = net[0].weight
        return net

    net, pruning = case.masked(make)
    case.x = torch.linspace(-1, 1, 64, device=case.device).view(16, 4)
    case.steps(net, pruning)
    assert torch.equal(net[0].weight, net[2].weight)
    assert pb.bake(net)[0].weight is net[2].weight


@situation("`torch.compile` of 50 training steps, with schedules")
def compiled(case):
    torch.compiler.reset()
    net, pruning = case.masked()
    optimizer = Adam(case.parameters(net, pruning), lr=0.001)
    anneal = getattr(pruning, "anneal", lambda _: lambda progress: None)(0.5)
    fast, seen = torch.compile(net, backend="aot_eager", fullgraph=True), []
    graphs = torch._dynamo.utils.counters["stats"]
    for step in range(50):
        anneal(step / 50)
        seen.append(case.state(net))
        case.steps(fast, pruning, optimizer=optimizer, loss=lambda fast, _: case.loss(fast))
        if step == 1:
            early = graphs["unique_graphs"]
    assert graphs["unique_graphs"] == early
    assert all(case.moved(a, b) for a, b in pairwise(seen))
    with torch.no_grad():
        torch.testing.assert_close(fast.eval()(case.x), net(case.x))
    torch.compiler.reset()


@situation("`torch.export` and `torch.jit.trace`")
def exported(case):
    net, _ = case.masked()
    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of TorchScript
        traced = torch.jit.trace(net, case.x)
    program = torch.export.export(net, (case.x,)).module()
    for other in (traced, program):
        torch.testing.assert_close(other(case.x), net(case.x))


@situation("`torch.func`: `functional_call`, `vmap` of `grad`")
def functional(case):
    net, _ = case.masked()
    net.encoder[1].eval()
    parameters, buffers = dict(net.named_parameters()), dict(net.named_buffers())

    def loss(parameters, x, y):
        return F.cross_entropy(functional_call(net, (parameters, buffers), (x[None],)), y[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, case.x, case.y)
    case.loss(net).backward()
    for name, gradient in grads(net).items():
        torch.testing.assert_close(each[name].mean(0), gradient, atol=1e-5, rtol=1e-4)


@contextmanager
def one_process():
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=0, world_size=1)
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()


@situation("DistributedDataParallel around a masked network")
def inside_ddp(case):
    with one_process():
        net, pruning = case.masked()
        parallel = nn.parallel.DistributedDataParallel(net)
        before = case.state(net)
        case.steps(net, pruning, 3, loss=lambda _, pruning: case.loss(parallel, pruning))
        assert case.moved(before, case.state(net))


@situation(
    "masks attached inside DistributedDataParallel",
    "DistributedDataParallel would never average what these masks learn.",
)
def after_ddp(case):
    with one_process():
        torch.manual_seed(0)
        net = Net().to(case.device)
        parallel = nn.parallel.DistributedDataParallel(net)
        if case.learned:
            with refusal(ValueError, "before DistributedDataParallel wraps it"):
                METHODS[case.method](net)
            assert masks(net) == {}
            return REFUSED
        METHODS[case.method](net)
        case.steps(net, None, 3, loss=lambda *_: case.loss(parallel))
        assert not net.head[0].weight[~masks(net)["head.0.weight"]].any()
    return None


class Tape(TorchDispatchMode):
    """Stands in for a CUDA graph on a CPU: records the operations below autograd, and runs them again."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host waits for a value"
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            pairs = zip(
                torch.utils._pytree.tree_leaves(out), torch.utils._pytree.tree_leaves(again), strict=True
            )
            for old, new in pairs:
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@situation("a step captured as a CUDA graph; on a CPU, recorded and run again")
def captured(case):
    net, pruning = case.masked()
    optimizer = SGD(case.parameters(net, pruning), lr=0.01)

    def step():
        optimizer.zero_grad(set_to_none=True)
        case.loss(net).backward()
        optimizer.step()

    if case.device.type == "cuda":
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    else:
        step()
        graph = Tape()
        with graph:
            step()
    seen = [case.state(net)]
    for _ in range(3):
        graph.replay()
        seen.append(case.state(net))
    assert all(case.moved(a, b) for a, b in pairwise(seen))
    assert all(p.isfinite().all() for p in net.parameters())


def run(title: str, method: str, device: torch.device) -> str:
    """Return the cell of a situation and a method."""
    outcome = SITUATIONS[title][1](Case(method, device))
    return outcome or HOLDS


def table(device: torch.device) -> str:
    """Return the table in Markdown, with its notes below."""
    notes = [title for title, (note, _) in SITUATIONS.items() if note]
    lines = ["| situation | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    for title in SITUATIONS:
        mark = f" [{notes.index(title) + 1}]" if title in notes else ""
        lines.append(f"| {title}{mark} | " + " | ".join(run(title, m, device) for m in METHODS) + " |")
    return "\n".join([*lines, "", *(f"{i}. {SITUATIONS[title][0]}" for i, title in enumerate(notes, 1))])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    found = table(torch.device("cuda" if "cuda" in sys.argv[1:] else "cpu"))
    if "--write" in sys.argv[1:]:
        page = Path(__file__).resolve().parents[1] / "book/contract.md"
        text = page.read_text()
        start, end = (text.index(mark) for mark in ("<!-- table -->", "<!-- end of table -->"))
        page.write_text(text[:start] + "<!-- table -->\n" + found + "\n" + text[end:])
    sys.stdout.write(found + "\n")
