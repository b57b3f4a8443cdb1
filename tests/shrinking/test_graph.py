import copy

import pytest
import torch
import torch.nn.functional as F
from small import Own
from torch import nn

from prunebook.masking import masks
from prunebook.methods.gumbel import GumbelPruning
from prunebook.methods.units import prune_units
from prunebook.shrinking.graph import norms_after, output_layers, trace, try_trace
from prunebook.shrinking.slicing import shrink


class RunningMean(nn.Module):
    """Keeps a running mean by hand, as vector quantisation does: its forward changes the network."""

    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(6, 8), nn.Linear(8, 2)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        hidden = self.a(x)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * hidden.mean(0).detach()
        return self.c(F.relu(hidden - self.mean))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "use",
    [trace, try_trace, shrink, lambda net: prune_units(net, 50), lambda net: GumbelPruning(net, units=True)],
    ids=["trace", "try_trace", "shrink", "prune_units", "GumbelPruning"],
)
def test_tracing_leaves_the_network_as_it_is(use, training):
    net = RunningMean().train(training)
    before = copy.deepcopy(dict(net.named_buffers()))
    use(net)
    assert all(torch.equal(net.get_buffer(name), value) for name, value in before.items())
    assert all(module.training == training for module in (net, net.a, net.c))
    assert net(torch.randn(4, 6)).shape == (4, 2)


class OwnLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


class OwnNorm(nn.BatchNorm1d):
    def forward(self, x):
        return F.relu(super().forward(x))


def four(*names, **others):
    return {**{name: nn.Linear(4, 4) for name in names}, **others}


def two_heads(self, x):
    x = self.trunk(x).relu()
    return {"left": self.left(x), "right": self.right(x).softmax(1)}


def extra_head(self, x):
    x = self.trunk(x)
    return (self.last(x), self.aux(x)) if self.training else self.last(x)


def names_of_inputs_and_methods(self, x):
    return self.last(self.relu(self.x(self.norm(x)))).relu() * x


def mean_twice(self, x):
    x = self.norm(self.stem(x)).relu()
    x = x + self.shared(self.body(x))
    return self.head(self.shared(x).mean((2, 3)))


def residual():
    return Own(
        mean_twice,
        head=nn.Linear(4, 2),  # registered first, used last
        stem=nn.Conv2d(1, 4, 3, padding=1),
        norm=nn.BatchNorm2d(4),
        body=nn.Conv2d(4, 4, 3, padding=1),
        shared=nn.BatchNorm2d(4),  # follows an addition, too
    )


def chain(linear, norm):
    return nn.Sequential(linear(2, 4), norm(4), linear(4, 2))


TRANSFORMER = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
INSIDE = ["1.self_attn.out_proj", "1.linear1", "1.linear2"]
NAMES = four("x", "relu", "last", norm=nn.BatchNorm1d(4))
QUESTIONS = {  # network, its output layers, which BatchNorm follows which layer
    "any order of registration": (residual(), ["head"], {"norm": "stem"}),
    "every head": (Own(two_heads, **four("trunk", "left", "right")), ["left", "right"], {}),
    "a head for training": (Own(extra_head, **four("trunk", "last", "aux")).train(), ["last", "aux"], {}),
    "the same, evaluated": (Own(extra_head, **four("trunk", "last", "aux")).eval(), ["last"], {}),
    "inputs and methods are no layers": (Own(names_of_inputs_and_methods, **NAMES), ["last"], {}),
    "modules with layers inside": (nn.Sequential(nn.Linear(4, 4), TRANSFORMER), INSIDE, {}),
    "classes of the user's own": (chain(OwnLinear, OwnNorm), ["2"], {"1": "0"}),
    "SyncBatchNorm": (chain(nn.Linear, nn.SyncBatchNorm), ["2"], {"1": "0"}),
    "a bare layer": (nn.Linear(2, 2), [""], {}),
}


@pytest.mark.parametrize(("model", "outputs", "norms"), QUESTIONS.values(), ids=QUESTIONS)
def test_output_layers_and_the_norms_that_follow_a_layer(model, outputs, norms):
    graph = try_trace(model)
    assert output_layers(model, graph) == outputs
    assert norms_after(model, graph) == norms


def test_masked_layers_are_seen_as_well():
    model = prune_units(residual(), 50)
    assert output_layers(model, try_trace(model)) == ["head"]
    assert norms_after(model, try_trace(model)) == {"norm": "stem"}
    assert {name.split(".")[0] for name in masks(model)} == {"stem", "norm", "body"}
    assert torch.equal(masks(model)["norm.weight"], masks(model)["stem.bias"])


# Refused


def branching(self, x):
    return self.a(x) if x.sum() > 0 else x


def test_where_no_graph_is_had_the_last_layer_is_the_output():
    model = Own(branching, **four("a", "norm", norm=nn.BatchNorm1d(4)))
    with pytest.warns(UserWarning, match=r"cannot trace the model \(symbolically traced .* the last layer"):
        graph = (lambda: try_trace(model))()
    assert graph is None
    assert output_layers(model, graph) == ["a"]
    assert norms_after(model, graph) == {}


def add_in_place(x):
    first = x
    x += 1
    return first * x


OVERWRITTEN = "overwrites a, which is read again"
REFUSED = {
    "a branch on tensors": (branching, r"cannot trace Own.*control flow.*must not branch on tensors"),
    "a function": (lambda self, x: self.c(torch.relu_(y := self.a(x)) + y), OVERWRITTEN),
    "a module": (lambda self, x: self.c(self.r(F.dropout(y := self.a(x), training=False)) + y), OVERWRITTEN),
    "an operator": (lambda self, x: self.c(add_in_place(self.a(x))), OVERWRITTEN),
    "a lazy layer": (lambda self, x: self.lazy(x), r"lazy\.weight is not initialised"),
}


@pytest.mark.parametrize(("forward", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_traced_or_is_overwritten_and_read_again_is_refused(forward, message):
    layers = {"a": nn.Linear(2, 2), "c": nn.Linear(2, 2), "r": nn.ReLU(inplace=True)}
    if "lazy" in message:
        layers["lazy"] = nn.LazyLinear(2)
    with pytest.raises(ValueError, match=message):
        shrink(Own(forward, **layers))
