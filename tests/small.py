"""Small networks and data that the tests of learned masks share."""

import contextlib
from itertools import pairwise

import torch
from torch import nn
from torch.optim import Adam, Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

import prunebook as pb
from prunebook.methods.gates import gates
from prunebook.training.data import Data


@contextlib.contextmanager
def seeded(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def network(seed=0):
    with seeded(seed):
        return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))


def layer_of(rows):
    """A linear layer with these weights."""
    weight = torch.tensor(rows)
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight = nn.Parameter(weight)
    return layer


def conv_net():
    """Groups, transposed and plain convolutions, BatchNorm with and without parameters, linear layers."""
    with seeded():
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


# Through what the units of `conv_net` speak.
SPEAKERS = {f"{i}.weight" for i in (0, 1, 3, 4, 6, 9)} | {f"{i}.bias" for i in (1, 3, 4, 6, 9)}


def zeros(model):
    """How many parameters the masks prune."""
    return sum(int((~mask).sum()) for mask in pb.masks(model).values())


def set_logits(model, *values):
    """Give the gates these logits: a number, or what a tensor of the gate's shape can be made of."""
    with torch.no_grad():
        for gate, value in zip(gates(model).values(), values, strict=True):
            logit = torch.as_tensor(value, dtype=gate.logit.dtype, device=gate.logit.device)
            gate.logit.copy_(logit.expand_as(gate.logit))


def _gated(model, **options):
    """Gates of which about half are open."""
    pruning = pb.GumbelPruning(model, **{"target_density": 1.0} | options)  # a penalty of 0
    set_logits(model, *(normal(*g.logit.shape, seed=i) for i, g in enumerate(gates(model).values())))
    return pruning


# Each puts the masks of one method on a model; what learns is returned.
METHODS = {
    "weights": lambda model, **options: pb.prune_weights(model, **{"k": 50} | options),
    "units": lambda model, **options: pb.prune_units(model, **{"k": 50} | options),
    "soft": lambda model, **options: pb.SoftPruning(model, **{"k": 50, "learn_tau": True} | options),
    "adaptive": lambda model, **options: pb.AdaptivePruning(model, **{"r": 0.4} | options),
    "gumbel": _gated,
    "gumbel units": lambda model, **options: _gated(model, units=True, **options),
}
LEARNED = list(METHODS)[2:]


class Own(nn.Module):
    """A reader's class: any forward over any layers."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.path = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.path(self, x)


class Operations(TorchDispatchMode):
    """Notes the names of all operations, and the most numbers in one tensor that they make."""

    def __init__(self):
        super().__init__()
        self.names, self.most = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.names.append(func.__name__)
        if isinstance(made, torch.Tensor):
            self.most = max(self.most, made.numel())
        return made


def batch(rows=5, inputs=6):
    return torch.linspace(-1, 1, rows * inputs).view(rows, inputs)


def train(model, pruning=None, steps=3, optimizer=Adam, x=None, **options):
    """Take some steps towards outputs of 0 and return the optimizer, with which one may go on."""
    if not isinstance(optimizer, Optimizer):
        groups = pruning.parameter_groups() if pruning else list(model.parameters())
        optimizer = optimizer(groups, **{"lr": 0.05} | options)
    for _ in range(steps):
        loss = model.train()(batch() if x is None else x).square().mean()
        if hasattr(pruning, "penalty"):
            loss = loss + pruning.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return optimizer


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

    return Data(split(n), split(20), split(20), "tiny", ("a", "b", "c"), 0.0, 1.0)


def make_pages(classes=("a", "b", "<c>"), mean=0.5, std=0.25):
    """One noisy image of 28 x 28 for each class, in every split."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(classes), 1, 28, 28), generator=draw) / 255
    split = pb.Split((images - mean) / std, torch.arange(len(classes)))
    return Data(split, split, split, "tiny", classes, mean, std)


def sparse(sizes, weights, activation=nn.ReLU, seed=0):
    """A network of which `weights` weights are left, the first of them masked, with biases of all signs."""
    with seeded(seed):
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
    return Data(split, split, split, "noise", tuple("0123456789"), 0.0, 1.0)


def chain(*weights):
    """A chain of linear layers with these weights in float64, SiLU between them, biases of 1."""
    layers = []
    for rows in weights:
        weight = torch.as_tensor(rows, dtype=torch.float64)
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.fill_(1.0)
        layers += [layer, nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def drawn(sizes, density, seed):
    """Weight matrices with about this share of weights that are not zero."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(after, before) for before, after in pairwise(sizes)]
    return [
        torch.randn(shape, generator=draw, dtype=torch.float64)
        * (torch.rand(shape, generator=draw) < density)
        for shape in shapes
    ]


def same_state(one, other):
    """Return whether two models hold the same numbers under the same names."""
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())
