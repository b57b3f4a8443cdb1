"""Networks that the tests of this folder shrink, ways to prune them, and the comparison that all end with."""

import torch
import torch.nn.functional as F
from torch import nn

from prunebook.shrinking.slicing import shrink


def linear(weight, bias=None):
    """A layer with these weights, and with these biases or with none."""
    weight = torch.as_tensor(weight)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(torch.as_tensor(bias))
    return layer


def zero_units(layer, units, bias=False):
    with torch.no_grad():
        layer.weight[units] = 0
        if bias and layer.bias is not None:
            layer.bias[units] = 0


def randomise_norms(model):
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            if norm.affine:
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)
            if norm.track_running_stats:
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)


def prune(model, seed, rate):
    """Zero rows, columns, single weights, some biases and parts of BatchNorms at random; all at `rate`."""
    generator = torch.Generator().manual_seed(seed)

    def some(shape, share):
        return torch.rand(shape, generator=generator) < share

    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                rows, columns = (some(n, rate) for n in layer.weight.shape[:2])
                layer.weight[rows] = 0
                layer.weight[:, columns & some(len(columns), 0.5)] = 0
                layer.weight[some(layer.weight.shape, rate / 2)] = 0
                if layer.bias is not None:
                    layer.bias[rows & some(len(rows), 0.5)] = 0
            elif isinstance(layer, nn.BatchNorm2d) and layer.affine:
                gone = some(layer.num_features, rate / 2)
                layer.weight[gone] = 0
                layer.bias[gone & some(len(gone), 0.5)] = 0


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
