"""What a forward may do, which layers a file may name, and what a malicious file may not."""

import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from saving import Doubles, Net, assert_same, forge, put, reload
from small import Own, batch
from torch import nn

import prunebook as pb
from prunebook.tools.recording import LAYERS, OPERATIONS, Recorded

FORWARDS = {
    "reshape by shape": lambda self, x: self.a(x.reshape(x.shape[0], -1)),
    "unpacked shape": lambda self, x: self.a(x.view(x.shape[0], x.size()[1])),
    "cat and slices": lambda self, x: torch.cat([self.a(x)[:, ::2], x[..., 1:3]], dim=1),
    "index by list": lambda self, x: x[:, [2, 0]] + x[:, None, 1],
    "chunks": lambda self, x: x.chunk(2, dim=1)[0] + torch.split(x, 3, 1)[-1],
    "in place": lambda self, x: self.a(x).mul_(2).add_(1).relu_(),
    "operators": lambda self, x: -(1 - x) / 3 + x @ x.T @ x * 2**2 - x**2,
    "dtypes": lambda self, x: self.a(x.double().to(torch.float32)) * x.to(dtype=torch.float16),
    "softmax": lambda self, x: F.softmax(self.a(x), dim=-1).mean(dim=(1,), keepdim=True),
    "functional": lambda self, x: F.linear(x, self.a.weight * 2, self.a.bias),
    "attention": lambda self, x: F.scaled_dot_product_attention(x[None], self.a(x)[None], x[None]),
    "einsum": lambda self, x: torch.einsum("bi,oi->bo", x, self.a.weight),
    "the mode": lambda self, x: self.a(x) if self.training else x * 2,
    "unused": lambda self, x: (self.a(x), self.a(x) * 3)[0],
    "the input itself": lambda self, x: x,
}


@pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS)
def test_what_a_forward_may_do(forward):
    model = Own(forward, a=nn.Linear(6, 6))
    assert_same(model, reload(model), batch())


def test_further_arguments_have_their_defaults_and_outputs_may_be_nested():
    model = Doubles(6, 6)
    assert_same(model, reload(model), batch())
    model = Own(lambda self, x: {"out": self.a(x), "both": [x, (x * 2, None)]}, a=nn.Linear(6, 6))
    one, other = model(batch()), reload(model)(batch())
    assert one["out"].equal(other["out"])
    assert one["both"][1][0].equal(other["both"][1][0])
    assert type(other["both"][1]) is tuple


ARGUMENTS = {
    "Linear": [(9, 5), (9, 5, False)],
    "Embedding": [(5, 3, 1, 2.0)],
    "LayerNorm": [(9,), ((9, 9), 1e-3, True, False)],
    "RMSNorm": [(9,)],
    "GroupNorm": [(2, 4), (4, 4, 1e-3, False)],
    "LocalResponseNorm": [(2, 0.1, 0.5)],
    "PReLU": [(4, 0.1)],
    "Threshold": [(0.1, 20.0)],
    **{kind: [(1,)] for kind in ("Softmax", "LogSoftmax", "GLU")},
    "LeakyReLU": [(0.3, True)],
    "Hardtanh": [(-0.5, 0.25)],
    "GELU": [("tanh",)],
    "SyncBatchNorm": [(4,), (4, 1e-3, None, False)],
    "Dropout": [(0.7, True)],
    "Flatten": [(0, 1)],
    "Unflatten": [(1, (2, 2))],
    "Upsample": [(None, 2, "nearest"), ((3, 3), None, "bilinear", True)],
    "PixelShuffle": [(2,)],
    "PixelUnshuffle": [(3,)],
}
for n in (1, 2, 3):
    ARGUMENTS |= {
        f"Conv{n}d": [(4, 6, 3), (4, 8, 3, 2, 1, 1, 2, False, "circular"), (4, 4, 3, 1, "same")],
        f"ConvTranspose{n}d": [(4, 6, 3, 2, 1, 1, 2, False)],
        f"BatchNorm{n}d": [(4,), (4, 1e-3, None), (4, 1e-5, 0.3, False), (4, 1e-5, 0.3, True, False)],
        f"InstanceNorm{n}d": [(4, 1e-3, 0.2, True, True)],
        f"MaxPool{n}d": [(3, 2, 1, 1, False, True)],
        f"AvgPool{n}d": [(3, 2, 1, True, False)],
        f"AdaptiveMaxPool{n}d": [(2,)],
        f"AdaptiveAvgPool{n}d": [(1,)],
        **{f"{kind}Pad{n}d": [(1,)] for kind in ("Zero", "Reflection", "Replication")},
        f"ConstantPad{n}d": [(2, 0.5)],
    }
SHAPES = {"1d": (2, 4, 9), "2d": (2, 4, 9, 9), "3d": (2, 4, 5, 5, 5), "Shuffle": (1, 4, 3, 3)}
CONTAINERS = ("Module", "Sequential", "ModuleList", "ModuleDict", "RandomShift")


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind not in CONTAINERS])
def test_every_layer_that_a_file_may_name_comes_back_with_its_options(kind):
    shape = next((shape for end, shape in SHAPES.items() if kind.endswith(end)), SHAPES["2d"])
    x = torch.tensor([[0, 1], [4, 2]]) if kind == "Embedding" else torch.rand(shape)
    for arguments in ARGUMENTS.get(kind, [()]):
        layer = getattr(nn, kind)(*arguments)
        loaded = reload(layer)
        assert repr(loaded) == repr(layer)
        names = [name for name in vars(layer) if not name.startswith("_")]
        assert [getattr(loaded, name) for name in names] == [getattr(layer, name) for name in names]
        assert_same(layer, loaded, x)


def step(kind, target, args=({"value": 0},)):
    """Do this as the first step."""
    made = [kind, target, {"tuple": list(args)}, {"dict": []}]
    return lambda contents: contents["steps"][0].insert(0, made)


MALICIOUS = {
    "a function of os": step("call_function", "os.system", ["echo"]),
    "a function of torch": step("call_function", "torch.load", ["/etc/passwd"]),
    "eval": step("call_function", "builtins.eval", ["1"]),
    "a method": step("call_function", "Tensor.__reduce__"),
    "a method that reads files": step("call_function", "Tensor.numpy"),
    "a method by its own kind": step("call_method", "numpy"),
    "an unknown kind": step("import", "os"),
    "a tensor that is none": step("get_attr", "__class__"),
    "globals": step("get_attr", "__init__.__globals__"),
    "a layer that is none": step("call_module", "a.forward"),
    "source as a name": step("call_module", "a\nimport os"),
    "a value to come": step("call_function", "torch.relu", [{"value": 3}]),
    "a kind of two": step("call_function", "torch.relu", [{"value": 0, "list": []}]),
    "a dtype": step("call_function", "Tensor.to", [{"value": 0}, {"dtype": "torch.load"}]),
    "no steps": put("steps", value=[[], []]),
    "no eval": put("steps", value=[]),
    "no train": lambda contents: contents["steps"].pop(),
    "a class": put("modules", "a", "kind", value="os.system"),
    "a class of torch": put("modules", "a", "kind", value="LSTM"),
    "an option": put("modules", "a", "options", "code", value="1"),
    "an option's type": put("modules", "a", "options", "in_features", value="6"),
    "a child's name": lambda c: c["modules"].update(forward=c["modules"].pop("a")),
    "a dunder name": lambda c: c["modules"].update({"__class__": c["modules"]["a"]}),
    "an orphan": lambda c: c["modules"].update({"b.c": c["modules"]["a"]}),
    "a tensor's name": lambda c: c["tensors"].update({"a.forward": {**c["tensors"]["a.weight"]}}),
    **{
        f"an attribute's name, {name}": lambda c, name=name: c["tensors"].update(
            {name: {"same": "a.weight", "persistent": True, "masked": False}}
        )
        for name in ("a.training", "_graphs", "a._parameters")
    },
    "source in a name": lambda c: c["modules"].update({'a")or exit("b': c["modules"]["a"]}),
    "itself": lambda c: c["modules"].update({"b": {"same": ""}}),
    "its own parent": lambda c: c["modules"].update({"a.b": {"same": "a"}}),
    "a device": put("modules", "a", "options", "device", value="cpu"),
    "more than its bits": put("tensors", "a.weight", "shape", value=[60000, 60000]),
    "a missing tensor": lambda c: c["tensors"].pop("a.weight"),
    "a missing root": lambda c: c["modules"].pop(""),
    "a shape": put("tensors", "a.weight", "shape", value=[2, 3]),
    "a mask of nothing": put("tensors", "a.bias", "masked", value=True),
    "a list": put("modules", value=[]),
}


@pytest.mark.parametrize("change", MALICIOUS.values(), ids=MALICIOUS)
def test_a_file_that_says_what_it_must_not_is_refused(change, tmp_path):
    path = tmp_path / "net"
    pb.save_model(Own(lambda self, x: self.a(x).relu(), a=nn.Linear(6, 6)), path, "bitmask")
    forge(path, lambda contents: None)
    assert isinstance(pb.load_model(path), Recorded)
    forge(path, change)
    with pytest.raises(ValueError, match="net describes no network that can be built"):
        pb.load_model(path)


def test_the_tables_name_layers_and_arithmetic_alone():
    assert all(issubclass(kind, nn.Module) for kind in LAYERS.values())
    places, names = zip(*(name.split(".") for name in OPERATIONS), strict=True)
    assert set(places) == {"torch", "functional", "operator", "Tensor"}
    harmful = (
        "load save compile eval exec open system attrgetter methodcaller itemgetter call apply_ map_ numpy "
        "from_file register_hook requires_grad_ set_ storage data_ptr tolist item hub ops classes"
    )
    assert not set(names) & set(harmful.split())
    assert not [name for name in names if name.startswith("_")]
    assert not [operation for operation in OPERATIONS.values() if isinstance(operation, type)]


@pytest.mark.slow
def test_a_fresh_process_loads_without_the_class_and_makes_no_code(tmp_path):
    torch.manual_seed(0)
    net = pb.prune_weights(Net(), 60).eval()
    images = torch.rand(3, 1, 4, 4)
    pb.save_model(net, tmp_path / "net")
    pb.save_model(nn.Sequential(Doubles(6, 6), nn.Linear(6, 6)), tmp_path / "other")
    save_file({"images": images, "out": net(images).detach()}, tmp_path / "pairs")
    code = """
        import builtins, pickle, sys
        import torch
        from safetensors.torch import load_file
        import prunebook as pb
        pairs = load_file("pairs")
        pb.load_model("other")(torch.zeros(1, 6))  # at first use torch imports modules of its own, by exec
        def refuse(*_, **__):
            raise AssertionError("code was made")
        builtins.eval = builtins.exec = builtins.compile = refuse
        pickle.load = pickle.loads = pickle.Unpickler = refuse
        net = pb.load_model("net")
        assert torch.equal(net(pairs["images"]), pairs["out"])
        print(type(net).__name__, len(pb.masks(net)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Recorded", "4"]
