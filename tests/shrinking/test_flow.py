import pytest
import torch
import torch.nn.functional as F
from shrinking.nets import assert_equal, linear, widths, zero_units
from small import Own
from torch import nn

from prunebook.shrinking.rules import analyse
from prunebook.shrinking.slicing import shrink


def test_constants_and_needs_by_hand():
    model = nn.Sequential(linear([[1.0], [0], [2]], [0.0, 3, 0]), nn.ReLU(), linear([[1.0, 10, 0]], [5.0]))
    flow = analyse(model)
    hidden, out = flow.layers["0"], flow.layers["2"]
    assert hidden.varies.tolist() == [True, False, True]
    assert hidden.value[1] == 3
    assert hidden.need.tolist() == hidden.live.tolist() == [True, False, False]
    assert flow.keep[hidden.ids].tolist() == [True, False, False]
    assert out.varies.tolist() == flow.keep[out.ids].tolist() == [True]
    assert flow.mixes[1].total.tolist() == [[1, 10, 0]]
    assert flow.mixes[1].passes.tolist() == [0, 3, 0]


@pytest.mark.parametrize(
    ("first", "last", "bias"),
    [([[0.0], [1]], [[10.0, 1]], 70), ([[1.0], [1]], [[0.0, 1]], 0)],  # 70 = 10 (1 + 3 * 2)
    ids=["constants, forward", "units that nobody needs, backward"],
)
def test_units_go_one_after_the_other(first, last, bias):
    model = nn.Sequential(
        *(linear(first, [2.0, 0]), nn.ReLU(), linear([[3.0, 0], [0, 1]], [1.0, 0]), nn.ReLU()),
        linear(last, [0.0]),
    )
    small = shrink(model)
    assert widths(small) == [1, 1, 1]
    assert small[4].bias.tolist() == [bias]


def test_unused_inputs_are_reported_and_stay():
    model = nn.Sequential(nn.Flatten(), linear([[1.0, 0, 0, 2]], [0.0]), nn.ReLU(), linear([[1.0]]))
    small, report = shrink(model, report=True)
    assert report.unused_inputs == {"1": (1, 2)}
    assert small[1].in_features == 4
    assert "1: 2 inputs not used" in str(report)


def test_one_unit_stays_where_all_could_go():
    model = nn.Sequential(linear([[0.0], [0]], [1.0, 2]), nn.ReLU(), linear([[3.0, 4]], [5.0]))
    small, report = shrink(model, report=True)
    assert widths(small) == [1, 1]
    assert small(torch.randn(2, 1)).tolist() == [[16], [16]]  # 5 + 3 relu(1) + 4 relu(2)
    assert report.idle == {"0": {"a layer keeps one unit": 1}, "2": {"the network returns them": 1}}
    assert "0: 1 idle units stay: a layer keeps one unit" in str(report)


def test_zero_outputs_stay():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5))
    zero_units(model[2], [0, 1])
    assert widths(assert_equal(model, torch.randn(2, 3)))[-1] == 5


def test_a_sum_loses_a_unit_only_when_both_summands_can():
    layers = {"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 2)}
    model = Own(lambda self, x: self.c(torch.relu(self.a(x)) + F.silu(self.b(x))), **layers)
    zero_units(model.a, [0, 1])
    zero_units(model.b, [0])
    small, report = shrink(model.double(), report=True)
    assert report.units == {"a": (3, 2), "b": (3, 2), "c": (2, 2)}
    assert report.idle == {"a": {"the channel is needed further on": 1}}
    assert_equal(model, torch.randn(4, 3), small)


def attention(self, x):
    return self.c(self.attend(y := self.a(x), y, y)[0])


def chain(self, x):
    return self.c(self.b(self.a(x).relu()).relu())


SHARED = "is called twice or shares its parameters"
WHOLE = {
    "attention": (attention, {"attend": "attend (MultiheadAttention) is not followed"}),
    "shared weights": (chain, {"a": f"a {SHARED}", "b": f"b {SHARED}"}),
    "hooks": (lambda self, x: self.c(self.hooked(x)), {"hooked": "hooked has hooks"}),
    "a weight that forward reads": (lambda self, x: F.linear(self.a(x), self.a.weight), {"a": f"a {SHARED}"}),
    "a buffer that forward reads": (
        lambda self, x: self.c(self.norm(self.a(x)) + self.norm.running_mean),
        {"norm": f"norm {SHARED}"},
    ),
    "dropout that is always on": (lambda self, x: self.c(F.dropout(self.a(x), 0.5)), {}),
    "a class of the user's own": (lambda self, x: self.c(self.own(self.a(x))), {}),
}


class Twice(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


@pytest.mark.parametrize(("forward", "whole"), WHOLE.values(), ids=WHOLE)
def test_what_cannot_be_followed_is_left_whole(forward, whole):
    torch.manual_seed(0)
    layers = {name: nn.Linear(4, 4) for name in ("a", "b", "hooked")}
    model = Own(
        forward,
        **layers,
        attend=nn.MultiheadAttention(4, 2, batch_first=True),
        norm=nn.BatchNorm1d(4),
        own=Twice(4, 4),
        c=nn.Linear(4, 2),
    )
    model.b.weight = model.a.weight
    model.hooked.register_forward_hook(lambda layer, inputs, output: output + 1)
    for layer in (model.a, model.hooked, model.own):
        zero_units(layer, [0])
    images = torch.randn(2, 3, 4) if forward is attention else torch.randn(2, 4)
    small, report = shrink(model.double().eval(), report=True)
    assert report.whole == whole
    assert report.units.get("a", (4, 4)) == (4, 4)
    shapes = [parameter.shape for parameter in model.parameters()]  # of a shared one, once
    assert [parameter.shape for parameter in small.parameters()] == shapes
    torch.manual_seed(1)
    expected = model(images.double())
    torch.manual_seed(1)
    torch.testing.assert_close(small(images.double()), expected, rtol=0, atol=1e-12)
