import copy
import io
import pickle
from itertools import chain, pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Own
from torch import nn
from torch.nn.utils import parametrize

from prunebook.masking import attach
from prunebook.shrinking.flow import MODULES
from prunebook.shrinking.slicing import recalibrate, shrink

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
RATES = st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0])
SEEDS = st.integers(0, 2**31)


def linear(weight, bias=None):
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def zero_units(layer, units, bias=False):
    with torch.no_grad():
        layer.weight[units] = 0
        if bias and layer.bias is not None:
            layer.bias[units] = 0


def assert_equal(model, images, small=None):
    """The shrunk network says what the network says, to 1e-12 of its largest output."""
    model = model.double().eval()
    small = shrink(model) if small is None else small
    with torch.no_grad():
        expected, got = model(images.double()), small.eval()(images.double())
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12 * max(1.0, expected.abs().max().item()))
    return small


def widths(model):
    return [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]


class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        short = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.short = short if stride > 1 else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.short(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.blocks = nn.Sequential(Block(6, 6, 1), Block(6, 8, 2))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def lenet(activation, padding):
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=padding), activation(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 3, padding=padding), activation(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.LazyLinear(10), activation(), nn.Linear(10, 5), activation(), nn.Linear(5, 3)),
    )


# By hand


def test_a_unit_without_incoming_weights_moves_into_the_next_bias():
    model = nn.Sequential(linear([[1.0, 2], [0, 0]], [0.0, 3]), nn.ReLU(), linear([[1.0, 10]], [5.0]))
    small = shrink(model)
    assert small[0].weight.tolist() == [[1, 2]]
    assert small[2].weight.tolist() == [[1]]
    assert small[2].bias.tolist() == [35]  # 5 + 10 relu(3)
    assert (small[0].out_features, small[2].in_features) == (1, 1)


def test_a_layer_without_bias_gets_one_only_for_a_constant_that_is_not_zero():
    for bias, has_bias in ((3.0, True), (-3.0, False)):
        model = nn.Sequential(linear([[1.0], [0]], [0.0, bias]), nn.ReLU(), linear([[1.0, 10]]))
        assert (shrink(model)[2].bias is not None) == has_bias


def test_a_unit_that_no_one_reads_goes():
    model = nn.Sequential(linear([[1.0], [2]], [0.0, 3]), nn.Tanh(), linear([[1.0, 0]], [5.0]))
    small = shrink(model)
    assert small[0].weight.tolist() == [[1]]
    assert small[2].bias.tolist() == [5]


def test_constants_cascade_forward():
    model = nn.Sequential(
        *(linear([[0.0], [1]], [2.0, 0]), nn.ReLU(), linear([[3.0, 0], [0, 1]], [1.0, 0]), nn.ReLU()),
        linear([[10.0, 1]], [0.0]),
    )
    small = shrink(model)
    assert widths(small) == [1, 1, 1]
    assert small[4].bias.tolist() == [70]  # 10 (1 + 3 * 2)


def test_dead_units_cascade_backward():
    model = nn.Sequential(
        *(linear([[1.0], [1]], [2.0, 0]), nn.ReLU(), linear([[3.0, 0], [0, 1]], [1.0, 0]), nn.ReLU()),
        linear([[0.0, 1]], [0.0]),
    )
    assert widths(shrink(model)) == [1, 1, 1]


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


def test_constants_stop_at_a_zero_padded_border():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1))
    zero_units(model[0], [0, 1])
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([1.0, -1.0, 0.0]))
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    small, report = shrink(model.double(), report=True)
    assert report.units["0"] == (3, 2)
    assert report.idle["0"] == {"2 pads with zeros": 1}
    assert_equal(model, images, small)
    folded = copy.deepcopy(model)  # what folding the constant would do: right inside, wrong at the border
    with torch.no_grad():
        folded[2].bias += folded[2].weight[:, 0].sum((1, 2))
        folded[2].weight[:, 0] = 0
    error = (folded(images) - model(images)).abs()
    assert error[..., 1:-1, 1:-1].max() < 1e-12
    assert error.max() > 0.05


@pytest.mark.parametrize("options", [{}, {"padding": 1, "padding_mode": "reflect"}, {"padding": "valid"}])
def test_constants_pass_convolutions_without_zeros_at_the_border(options):
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sigmoid(), nn.Conv2d(3, 2, 3, **options))
    zero_units(model[0], [0])
    assert assert_equal(model, torch.randn(2, 1, 8, 8))[0].out_channels == 2


def test_flatten_takes_all_places_of_a_channel():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2))
    zero_units(model[0], [1])
    small = assert_equal(model, torch.randn(2, 1, 4, 4))
    assert small[3].in_features == 8


def test_batch_norm_makes_constants_and_is_sliced():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    randomise_norms(model)
    zero_units(model[0], [0])  # the constant is what BatchNorm makes of the bias
    with torch.no_grad():
        model[1].weight[1] = 0  # the constant is beta
    small = assert_equal(model, torch.randn(5, 3))
    assert (small[0].out_features, small[1].num_features, len(small[1].running_mean)) == (2, 2, 2)


# What stands between two layers


def randomise_norms(model):
    for norm in model.modules():
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)


def view_flat(self, x):
    x = self.a(x)
    return self.c(x.view(x.size(0), -1))


def unpacked_shape(self, x):
    x = self.a(x)
    batch, _channels, _height, _width = x.shape
    return self.c(x.reshape(batch, -1))


def counted_channels(self, x):
    x = self.a(x)
    return self.c(x.flatten(1) * x.size(1))


# How many of four filters stay, where one is zero and one says a constant; what stands behind them.
CONVOLUTIONAL = {
    "maximum pool with padding": (
        2,
        lambda self, x: self.c(F.max_pool2d(self.a(x), 3, padding=1).flatten(1)),
    ),
    "average pool": (2, lambda self, x: self.c(F.avg_pool2d(self.a(x), 2).flatten(1))),
    "average pool, ceil": (
        2,
        lambda self, x: self.c(F.avg_pool2d(self.a(x), 4, 4, ceil_mode=True).flatten(1)),
    ),
    "average pool with padding": (
        3,
        lambda self, x: self.c(F.avg_pool2d(self.a(x), 2, padding=1).flatten(1)),
    ),
    "padded average module": (3, lambda self, x: self.c(self.pool(self.a(x)).flatten(1))),
    "mean": (2, lambda self, x: self.c(self.a(x).mean((2, 3)))),
    "mean, kept": (2, lambda self, x: self.c(torch.mean(self.a(x), dim=(-1, -2), keepdim=True).flatten(1))),
    "view": (2, view_flat),
    "unpacked shape": (2, unpacked_shape),
    "counted channels": (4, counted_channels),
    "reshape": (2, lambda self, x: self.c(self.a(x).reshape((x.shape[0], -1)))),
    "view of fixed size": (4, lambda self, x: self.c(self.a(x).view(-1, 4 * 6 * 6))),
    "permute": (4, lambda self, x: self.c(self.a(x).permute(0, 2, 3, 1).flatten(1))),
    "softmax": (4, lambda self, x: self.c(self.a(x).softmax(1).flatten(1))),
    "gate": (3, lambda self, x: self.c((self.a(x) * torch.sigmoid(self.a2(x))).flatten(1))),
    "cat": (2, lambda self, x: self.c(torch.cat([self.a(x), self.a2(x)], 1).flatten(1))),
    "norm": (2, lambda self, x: self.c(self.norm(self.a(x)).flatten(1))),
    "group norm": (4, lambda self, x: self.c(self.group(self.a(x)).flatten(1))),
    "depthwise": (2, lambda self, x: self.c(self.depth(self.a(x)).flatten(1))),
    "padded depthwise": (3, lambda self, x: self.c(self.padded(self.a(x)).flatten(1))),
    "grouped": (4, lambda self, x: self.c(self.grouped(self.a(x)).flatten(1))),
    "transposed": (3, lambda self, x: self.c(self.transposed(self.a(x)).flatten(1))),
    "slopes": (2, lambda self, x: self.c(self.slopes(self.a(x)).flatten(1))),
    "linear along space": (4, lambda self, x: self.c(self.along(self.a(x)).flatten(1))),
    "overwritten": (2, lambda self, x: self.c(F.relu_(self.a(x)).flatten(1))),
    "called twice": (4, lambda self, x: self.c(self.again(self.again(self.a(x))).flatten(1))),
}


@pytest.mark.parametrize(("units", "forward"), CONVOLUTIONAL.values(), ids=CONVOLUTIONAL)
def test_what_stands_between_layers_keeps_equality(units, forward):
    torch.manual_seed(0)
    images, model = torch.randn(3, 1, 8, 8, dtype=torch.float64), between(forward)
    small, report = shrink(model, report=True)
    assert report.units["a"] == (4, units), str(report)
    assert_equal(model, images, small)
    for seed in range(4):
        prune(model, torch.Generator().manual_seed(seed), 0.4)
        assert_equal(model, images)


@pytest.mark.parametrize("kind", next(kinds for kinds in MODULES if nn.ReLU in kinds))
def test_every_activation_passes_constants(kind):
    model = nn.Sequential(
        nn.Linear(3, 4), kind(*((0.1, 20.0) if kind is nn.Threshold else ())), nn.Linear(4, 2)
    )
    zero_units(model[0], [0, 2])
    assert widths(assert_equal(model, torch.randn(5, 3))) == [2, 2]


@pytest.mark.parametrize(
    "function",
    [
        *(
            F.relu,
            torch.relu,
            lambda x: x.relu_(),
            F.silu,
            F.gelu,
            F.elu,
            F.leaky_relu,
            F.softplus,
            torch.sigmoid,
        ),
        *(lambda x: x.tanh(), F.hardswish, lambda x: x.clamp(-0.1, 0.2), lambda x: 1 - 2 * x / 3, abs),
        *(
            lambda x: x * torch.sigmoid(x),
            lambda x: F.dropout(x, training=False),
            lambda x: torch.maximum(x, -x),
        ),
    ],
)
def test_functions_and_methods_pass_constants(function):
    model = Own(lambda self, x: self.c(function(self.a(x))), a=nn.Linear(3, 4), c=nn.Linear(4, 2))
    zero_units(model.a, [0, 2])
    assert widths(assert_equal(model, torch.randn(5, 3))) == [2, 2]


def between(forward):
    """A convolution with one constant and one zero filter, and what `forward` puts behind it."""
    layers = {
        "a": nn.Conv2d(1, 4, 3),
        "a2": nn.Conv2d(1, 4, 3),
        "norm": nn.BatchNorm2d(4),
        "group": nn.GroupNorm(2, 4),
        "depth": nn.Conv2d(4, 4, 3, groups=4),
        "padded": nn.Conv2d(4, 4, 3, groups=4, padding=1),
        "grouped": nn.Conv2d(4, 4, 3, groups=2),
        "transposed": nn.ConvTranspose2d(4, 3, 3),
        "slopes": nn.PReLU(4),
        "along": nn.Linear(6, 6),
        "again": nn.Conv2d(4, 4, 1),
        "pool": nn.AvgPool2d(2, padding=1),
        "c": nn.LazyLinear(2),
    }
    model = Own(forward, **layers).double()
    model(torch.zeros(1, 1, 8, 8, dtype=torch.float64))
    randomise_norms(model)
    zero_units(model.a, [1, 2])
    zero_units(model.a2, [2], bias=True)
    with torch.no_grad():
        model.a.bias[1], model.a.bias[2] = -0.7, 0.0
    return model.eval()


def test_a_shrunk_network_is_as_plain_as_before():
    model = ResNet()
    zero_units(model.blocks[0].conv1, [0, 1, 2])
    small = shrink(model.train())
    assert (model.blocks[0].conv1.out_channels, small.blocks[0].conv1.out_channels) == (6, 3)
    assert type(small) is ResNet
    assert small.training
    assert all(parameter.dtype == torch.float32 for parameter in small.parameters())
    again = pickle.loads(pickle.dumps(copy.deepcopy(small)))
    torch.save(again.state_dict(), io.BytesIO())
    small(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_masks_are_baked_and_the_network_stays_as_it_is():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    attach(model[0], torch.tensor([[True] * 3, [False] * 3]))
    small = shrink(model)
    assert widths(small) == [1, 2]
    assert not any(parametrize.is_parametrized(module) for module in small.modules())
    assert parametrize.is_parametrized(model[0])
    torch.testing.assert_close(small(torch.eye(3)), model(torch.eye(3)))


def test_parametrizations_that_are_no_masks_are_refused_by_name():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"no parametrizations but masks, got others in \['0'\]"):
        shrink(model)


def test_shrinking_twice_finds_nothing_more():
    model = ResNet()
    prune(model, torch.Generator().manual_seed(1), 0.5)
    once = shrink(model)
    assert [p.shape for p in shrink(once).parameters()] == [p.shape for p in once.parameters()]


# Random masks: 200 cases


def prune(model, generator, rate):
    """Random weights without rows, without columns, with single zeros, biases without some; all at `rate`."""
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                rows, columns = (torch.rand(n, generator=generator) < rate for n in layer.weight.shape[:2])
                layer.weight[rows] = 0
                layer.weight[:, columns & (torch.rand(len(columns), generator=generator) < 0.5)] = 0
                layer.weight[torch.rand(layer.weight.shape, generator=generator) < rate / 2] = 0
                if layer.bias is not None:
                    layer.bias[rows & (torch.rand(len(rows), generator=generator) < 0.5)] = 0
            elif isinstance(layer, nn.BatchNorm2d):
                gone = torch.rand(layer.num_features, generator=generator) < rate / 2
                layer.weight[gone] = 0
                layer.bias[gone & (torch.rand(len(gone), generator=generator) < 0.5)] = 0


@settings(max_examples=100, deadline=None)
@given(
    SEEDS, RATES, st.sampled_from(sorted(ACTIVATIONS)), st.booleans(), st.lists(st.integers(1, 9), max_size=4)
)
def test_random_perceptrons(seed, rate, activation, bias, hidden):
    torch.manual_seed(seed)
    sizes = [5, *hidden, 3]
    layers = [(nn.Linear(a, b, bias=bias), ACTIVATIONS[activation]()) for a, b in pairwise(sizes)]
    model = nn.Sequential(*list(chain(*layers))[:-1])
    prune(model, torch.Generator().manual_seed(seed), rate)
    assert_equal(model, torch.randn(4, 5))


@settings(max_examples=50, deadline=None)
@given(SEEDS, RATES, st.sampled_from(sorted(ACTIVATIONS)), st.integers(0, 1))
def test_random_lenets(seed, rate, activation, padding):
    torch.manual_seed(seed)
    model = lenet(ACTIVATIONS[activation], padding)
    images = torch.randn(3, 1, 12, 12)
    model(images)
    prune(model, torch.Generator().manual_seed(seed), rate)
    assert_equal(model, images)


@settings(max_examples=50, deadline=None)
@given(SEEDS, RATES)
def test_random_resnets(seed, rate):
    torch.manual_seed(seed)
    model = ResNet()
    randomise_norms(model)
    prune(model, torch.Generator().manual_seed(seed), rate)
    assert_equal(model, torch.randn(3, 1, 9, 9))


# Left alone, or refused


def test_attention_is_left_whole():
    layers = {
        "a": nn.Linear(4, 4),
        "attend": nn.MultiheadAttention(4, 2, batch_first=True),
        "c": nn.Linear(4, 2),
    }
    model = Own(lambda self, x: self.c(self.attend(y := self.a(x), y, y)[0]), **layers)
    zero_units(model.a, [0])
    small, report = shrink(model.double(), report=True)
    assert report.whole == {"attend": "attend (MultiheadAttention) is not followed"}
    assert report.units["a"] == (4, 4)
    assert_equal(model, torch.randn(2, 3, 4), small)


def test_shared_weights_are_left_whole():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    zero_units(model[0], [0])
    small, report = shrink(model, report=True)
    assert report.whole.keys() == {"0", "2"}
    assert small[0].weight is small[2].weight
    assert_equal(model, torch.randn(2, 4))


def test_weights_that_forward_reads_are_left_whole():
    model = Own(lambda self, x: F.linear(self.a(x), self.a.weight.t()), a=nn.Linear(3, 4, bias=False))
    zero_units(model.a, [0])
    assert_equal(model, torch.randn(2, 3))


def test_layers_with_hooks_are_left_whole():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    zero_units(model[0], [0])
    model[0].register_forward_hook(lambda layer, inputs, output: output + 1)
    small, report = shrink(model, report=True)
    assert report.whole == {"0": "0 has hooks"}
    assert_equal(model, torch.randn(2, 3), small.double())


def test_buffers_that_forward_reads_are_left_whole():
    layers = {"a": nn.Linear(3, 4), "norm": nn.BatchNorm1d(4), "c": nn.Linear(4, 2)}
    model = Own(lambda self, x: self.c(self.norm(self.a(x)) + self.norm.running_mean), **layers)
    zero_units(model.a, [0])
    assert_equal(model, torch.randn(2, 3))


def test_dropout_that_is_always_on_is_not_followed():
    model = Own(lambda self, x: self.c(F.dropout(self.a(x), 0.5)), a=nn.Linear(3, 4), c=nn.Linear(4, 2))
    zero_units(model.a, [0])
    assert shrink(model, report=True)[1].units["a"] == (4, 4)


def test_a_branch_on_tensors_is_refused():
    def forward(self, x):
        return self.a(x) if x.sum() > 0 else x

    with pytest.raises(ValueError, match=r"cannot trace Own.*control flow"):
        shrink(Own(forward, a=nn.Linear(2, 2)))


def overwrite_by_function(self, x):
    x = self.a(x)
    return self.c(torch.relu_(x) + x)


def overwrite_by_module(self, x):
    x = self.a(x)
    return self.c(self.relu(F.dropout(x, training=False)) + x)


def overwrite_by_operator(self, x):
    x = self.a(x)
    first = x
    x += 1
    return self.c(first * x)


@pytest.mark.parametrize("forward", [overwrite_by_function, overwrite_by_module, overwrite_by_operator])
def test_a_tensor_overwritten_and_read_again_is_refused(forward):
    with pytest.raises(ValueError, match="overwrites a, which is read again"):
        shrink(Own(forward, a=nn.Linear(2, 2), c=nn.Linear(2, 2), relu=nn.ReLU(inplace=True)))


def test_a_lazy_layer_is_refused():
    with pytest.raises(ValueError, match=r"0\.weight is not initialised"):
        shrink(nn.Sequential(nn.LazyLinear(2)))


# BatchNorm measured anew


def test_recalibrate_takes_the_statistics_of_all_images():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=0.3), nn.Linear(3, 2)).train()
    images = torch.randn(12, 3) * 2 + 5
    recalibrate(model, images, batch_size=12)
    torch.testing.assert_close(model[1].running_mean, images.mean(0))
    torch.testing.assert_close(model[1].running_var, images.var(0))
    assert model[1].momentum == 0.3
    assert all(module.training for module in model.modules())


def test_recalibrate_weights_all_batches_alike():
    model = nn.Sequential(nn.BatchNorm1d(1)).eval()
    recalibrate(model, torch.arange(9.0)[:, None], batch_size=4)  # three batches of three
    assert model[0].running_mean.item() == pytest.approx(4)
    assert model[0].running_var.item() == pytest.approx(1)
    assert not model[0].training


def test_recalibrate_leaves_no_image_alone():
    model = nn.BatchNorm1d(1)
    recalibrate(model, torch.tensor([[0.0], [3], [6]]), batch_size=2)
    assert model.running_mean.item() == pytest.approx(3)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (4, 1)])
def test_recalibrate_refuses_batches_of_one(count, batch_size):
    with pytest.raises(ValueError, match="at least 2"):
        recalibrate(nn.BatchNorm1d(1), torch.zeros(count, 1), batch_size)
