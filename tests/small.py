"""Small networks and data that the tests of learned masks share."""

import torch
from torch import nn

import prunebook as pb


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))


class Own(nn.Module):
    """A reader's class: any forward over any layers."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.path = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.path(self, x)


def batch(rows=5, inputs=6):
    return torch.linspace(-1, 1, rows * inputs).view(rows, inputs)


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def make_data(n=40):
    """Three classes of noisy 4 x 4 images; 5 batches of 8."""
    draw = torch.Generator().manual_seed(0)

    def split(n):
        labels = torch.arange(n) % 3
        images = torch.randn(n, 1, 4, 4, generator=draw)
        images[torch.arange(n), 0, 1, labels] += 3
        return pb.Split(images, labels)

    return pb.Data(split(n), split(20), split(20), "tiny", ("a", "b", "c"), 0.0, 1.0)


def make_pages(classes=("a", "b", "<c>"), mean=0.5, std=0.25):
    """One noisy image of 28 x 28 for each class, in every split."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(classes), 1, 28, 28), generator=draw) / 255
    split = pb.Split((images - mean) / std, torch.arange(len(classes)))
    return pb.Data(split, split, split, "tiny", classes, mean, std)


def sparse(sizes, weights, activation=nn.ReLU, seed=0):
    """A network of which `weights` weights are left, the first of them masked, with biases of all signs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = pb.mlp(sizes, activation)
        scores = [torch.rand_like(layer.weight) for layer in net if isinstance(layer, nn.Linear)]
    cut = torch.cat([score.flatten() for score in scores]).topk(weights).values.min()
    for layer, score in zip((layer for layer in net if isinstance(layer, nn.Linear)), scores, strict=True):
        nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(seed))
        layer.weight.data *= 10
        pb.attach(layer, score >= cut)
    return net


def make_prototypes(n, noise):
    """Ten classes of 28 x 28 images, each a pattern of its own with noise; all three splits are the same."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 10
    images = torch.randn(10, 1, 28, 28, generator=draw)[labels]
    split = pb.Split(images + noise * torch.randn(n, 1, 28, 28, generator=draw), labels)
    return pb.Data(split, split, split, "noise", tuple("0123456789"), 0.0, 1.0)
