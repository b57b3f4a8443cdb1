"""A network to save, and what must come back: shared by the tests of files."""

import copy
import json
import os
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import prunebook as pb
from prunebook.tools import sealed

FORMS = ("dense", "csr", "bitmask", "auto")


class Net(nn.Module):
    """What a reader might write: convolutions, BatchNorm, a residual, dropout in two ways, own tensors."""

    def __init__(self, width=6):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.25)
        self.gain = nn.Parameter(torch.rand(1))
        self.register_buffer("shift", torch.rand(()), persistent=False)
        self.head = nn.ModuleDict({"hidden": nn.Linear(width * 4, 8), "out": nn.Linear(8, 3)})

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.conv(x))
        y += x
        x = F.max_pool2d(F.relu(y), 2) * self.gain + self.shift
        x = F.dropout(x.view(x.size(0), -1), 0.1, self.training)
        return self.head["out"](self.drop(torch.tanh(self.head["hidden"](x))))


class Doubles(nn.Linear):
    def forward(self, x, times=2, flag=None):
        return super().forward(x) * times if flag is None else x


def reload(model, form="auto"):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        pb.save_model(model, path, form)
        assert os.listdir(folder) == ["model"]
        return pb.load_model(path)


def assert_same_bits(one, other):
    assert (one.dtype, one.shape, one.requires_grad) == (other.dtype, other.shape, other.requires_grad)
    assert one.detach().reshape(-1).view(torch.uint8).equal(other.detach().reshape(-1).view(torch.uint8))


def assert_same(model, loaded, *inputs):
    """Same masks, same tensors but for what lies behind masks, same modes, same outputs in both modes."""
    one, other = model.state_dict(keep_vars=True), loaded.state_dict(keep_vars=True)
    assert list(one) == list(other)
    kept, again = pb.masks(model), pb.masks(loaded)
    assert list(kept) == list(again)
    for name in kept:
        assert kept[name].equal(again[name])
    behind = {id(one[name]) for name in kept}
    for name in one:
        assert_same_bits(one[name], other[name]) if id(one[name]) not in behind else None
    assert shared(model) == shared(loaded)
    modes = {name: module.training for name, module in model.named_modules() if "parametri" not in name}
    assert modes.items() <= {name: module.training for name, module in loaded.named_modules()}.items()
    one, other = copy.deepcopy(model), copy.deepcopy(loaded)
    for mode in (False, True):
        for x in inputs:
            results = []
            for each in (one.train(mode), other.train(mode)):
                torch.manual_seed(0)
                results.append(each(x.clone()))
            assert_same_bits(*results)


def shared(model):
    """The names of parameters, buffers and modules, each with the first name of the same object."""
    first = {}
    return {
        name: first.setdefault(id(each), name)
        for listed in (model.named_parameters, model.named_buffers, model.named_modules)
        for name, each in listed(remove_duplicate=False)
        if "parametri" not in name or isinstance(each, torch.Tensor)
    }


def forge(path, change):
    """Change what a file says, and give it a checksum that fits."""
    with safe_open(path, framework="pt") as file:
        contents = json.loads(file.metadata()["prunebook"])
    tensors = load_file(path)
    del contents["sha256"]
    change(contents)
    sealed.write(path, contents["kind"], contents, tensors)


def put(*path, value):
    def change(contents):
        for key in path[:-1]:
            contents = contents[key]
        contents[path[-1]] = value

    return change
