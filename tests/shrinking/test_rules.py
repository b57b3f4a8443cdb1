import copy

import pytest
import torch
import torch.nn.functional as F
from shrinking.nets import assert_equal, prune, randomise_norms, widths, zero_units
from small import Own
from torch import nn

from prunebook.shrinking.rules import MODULES
from prunebook.shrinking.slicing import shrink


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
    assert assert_equal(model, torch.randn(2, 1, 4, 4))[3].in_features == 8


@pytest.mark.parametrize(
    ("layer", "norm", "image"),
    [
        (nn.Linear(3, 4), nn.BatchNorm1d, (3,)),
        (nn.Conv1d(3, 4, 1), nn.BatchNorm1d, (3, 2)),
        (nn.Conv2d(3, 4, 1), nn.BatchNorm2d, (3, 2, 1)),
        (nn.Conv3d(3, 4, 1), nn.BatchNorm3d, (3, 2, 1, 1)),
        (nn.Linear(3, 4), nn.SyncBatchNorm, (3,)),
        (nn.Conv2d(3, 4, 1), nn.SyncBatchNorm, (3, 2, 1)),
    ],
)
def test_batch_norm_makes_constants_and_is_sliced(layer, norm, image):
    places = torch.Size(image[1:]).numel()
    model = nn.Sequential(layer, norm(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * places, 2))
    randomise_norms(model)
    zero_units(model[0], [0])  # the constant is what BatchNorm makes of the bias
    with torch.no_grad():
        model[1].weight[1] = 0  # the constant is beta
    small = assert_equal(model, torch.randn(5, *image))
    assert (len(small[0].weight), small[1].num_features, len(small[1].running_mean)) == (2, 2, 2)
    assert small[4].in_features == 2 * places


# What stands between two layers


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


def flat(between):
    """A forward that flattens what `between` makes of the first layer's output."""
    return lambda self, x: self.c(between(self, self.a(x)).flatten(1))


# How many of four filters stay, where one is zero and one says a constant; what stands behind them.
CONVOLUTIONAL = {
    "maximum pool with padding": (2, flat(lambda self, x: F.max_pool2d(x, 3, padding=1))),
    "average pool": (2, flat(lambda self, x: F.avg_pool2d(x, 2))),
    "average pool, ceil": (2, flat(lambda self, x: F.avg_pool2d(x, 4, 4, ceil_mode=True))),
    "average pool with padding": (3, flat(lambda self, x: F.avg_pool2d(x, 2, padding=1))),
    "padded average module": (3, flat(lambda self, x: self.pool(x))),
    "mean": (2, lambda self, x: self.c(self.a(x).mean((2, 3)))),
    "mean, kept": (2, flat(lambda self, x: torch.mean(x, dim=(-1, -2), keepdim=True))),
    "mean over channels": (4, flat(lambda self, x: x.mean(1))),
    "mean over everything": (4, flat(lambda self, x: x - x.mean())),
    "pool of places": (4, lambda self, x: self.c(F.max_pool1d(self.a(x).flatten(1), 2))),
    "cat with what is not followed": (4, flat(lambda self, x: torch.cat([x, x.transpose(2, 3)], 1))),
    "cat of one thing twice": (4, flat(lambda self, x: torch.cat([x, x], 1))),
    "cat of places": (4, flat(lambda self, x: torch.cat([x, x.relu()], 2))),
    "flattened places": (4, flat(lambda self, x: x.flatten(2))),
    "view": (2, view_flat),
    "unpacked shape": (2, unpacked_shape),
    "counted channels": (4, counted_channels),
    "reshape": (2, lambda self, x: self.c(self.a(x).reshape((x.shape[0], -1)))),
    "view of fixed size": (4, lambda self, x: self.c(self.a(x).view(-1, 4 * 6 * 6))),
    "permute": (4, flat(lambda self, x: x.permute(0, 2, 3, 1))),
    "softmax": (4, flat(lambda self, x: x.softmax(1))),
    "gate": (3, lambda self, x: self.c((self.a(x) * torch.sigmoid(self.a2(x))).flatten(1))),
    "cat": (2, lambda self, x: self.c(torch.cat([self.a(x), self.a2(x)], 1).flatten(1))),
    "norm": (2, flat(lambda self, x: self.norm(x))),
    "norm without slopes": (2, flat(lambda self, x: self.bare_norm(x))),
    "norm over the batch": (4, flat(lambda self, x: self.batch_norm(x))),
    "group norm": (4, flat(lambda self, x: self.group(x))),
    "depthwise": (2, flat(lambda self, x: self.depth(x))),
    "depthwise along another dimension": (4, flat(lambda self, x: self.depth(x.transpose(2, 3)))),
    "padded depthwise": (3, flat(lambda self, x: self.padded(x))),
    "grouped": (4, flat(lambda self, x: self.grouped(x))),
    "transposed": (3, flat(lambda self, x: self.transposed(x))),
    "slopes": (2, flat(lambda self, x: self.slopes(x))),
    "slopes of places": (4, lambda self, x: self.c(self.many_slopes(self.a(x).flatten(1)))),
    "linear along space": (4, flat(lambda self, x: self.along(x))),
    "overwritten": (2, flat(lambda self, x: F.relu_(x))),
    "called twice": (4, flat(lambda self, x: self.again(self.again(x)))),
}


def between(forward):
    """A convolution with one constant and one zero filter, and what `forward` puts behind it."""
    model = Own(
        forward,
        a=nn.Conv2d(1, 4, 3),
        a2=nn.Conv2d(1, 4, 3),
        norm=nn.BatchNorm2d(4),
        bare_norm=nn.BatchNorm2d(4, affine=False),
        batch_norm=nn.BatchNorm2d(4, track_running_stats=False),
        group=nn.GroupNorm(2, 4),
        depth=nn.Conv2d(4, 4, 3, groups=4),
        padded=nn.Conv2d(4, 4, 3, groups=4, padding=1),
        grouped=nn.Conv2d(4, 4, 3, groups=2),
        transposed=nn.ConvTranspose2d(4, 3, 3),
        slopes=nn.PReLU(4),
        many_slopes=nn.PReLU(4 * 6 * 6),
        along=nn.Linear(6, 6),
        again=nn.Conv2d(4, 4, 1),
        pool=nn.AvgPool2d(2, padding=1),
        c=nn.LazyLinear(2),
    ).double()
    model(torch.zeros(1, 1, 8, 8, dtype=torch.float64))
    randomise_norms(model)
    zero_units(model.a, [1, 2])
    zero_units(model.a2, [2], bias=True)
    with torch.no_grad():
        model.a.bias[1], model.a.bias[2] = -0.7, 0.0
    return model.eval()


@pytest.mark.parametrize(("units", "forward"), CONVOLUTIONAL.values(), ids=CONVOLUTIONAL)
def test_what_stands_between_layers_keeps_equality(units, forward):
    torch.manual_seed(0)
    images, model = torch.randn(3, 1, 8, 8, dtype=torch.float64), between(forward)
    small, report = shrink(model, report=True)
    assert report.units["a"] == (4, units), str(report)
    assert_equal(model, images, small)
    for seed in range(4):
        prune(model, seed, 0.4)
        assert_equal(model, images)


ACTIVATIONS = next(kinds for kinds in MODULES if nn.ReLU in kinds)
FUNCTIONS = {
    **{kind.__name__: kind(0.1, 20.0) if kind is nn.Threshold else kind() for kind in ACTIVATIONS},
    **{
        name: getattr(F, name)
        for name in ["relu", "silu", "gelu", "elu", "leaky_relu", "softplus", "hardswish"]
    },
    **{f"torch.{name}": getattr(torch, name) for name in ("relu", "sigmoid", "abs")},
    **{f"x.{name}": lambda x, name=name: getattr(x, name)() for name in ("relu_", "tanh")},
    "clamp": lambda x: x.clamp(-0.1, 0.2),
    "operators": lambda x: 1 - 2 * x / 3,
    "builtin": abs,
    "swish": lambda x: x * torch.sigmoid(x),
    "dropout": lambda x: F.dropout(x, training=False),
    "maximum": lambda x: torch.maximum(x, -x),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_activations_and_functions_pass_constants(function):
    model = Own(lambda self, x: self.c(self.f(self.a(x))), a=nn.Linear(3, 4), f=function, c=nn.Linear(4, 2))
    zero_units(model.a, [0, 2])
    assert widths(assert_equal(model, torch.randn(5, 3))) == [2, 2]
