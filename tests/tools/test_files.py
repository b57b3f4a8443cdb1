import copy
import io
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small import Own, batch, make_data, network
from torch import nn

import prunebook as pb
from prunebook.tools import files
from prunebook.tools.costs import stored
from prunebook.tools.recording import LAYERS, OPERATIONS, Recorded
from prunebook.training import checkpoint as checkpoints

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
    for name in one:
        assert_same_bits(one[name], other[name]) if "original" not in name else None
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in loaded.named_parameters()]
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


def data_bytes(path):
    raw = path.read_bytes()
    return len(raw) - 8 - int.from_bytes(raw[:8], "little")


def test_a_small_file_by_hand(tmp_path):
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]]))
        layer.bias.copy_(torch.tensor([5.0, 0.0]))
    for form in FORMS:
        pb.save_model(layer, tmp_path / form, form)
        assert_same(layer, pb.load_model(tmp_path / form), batch(inputs=3))
    held = {form: {k: v.tolist() for k, v in load_file(tmp_path / form).items()} for form in FORMS}
    bias, values = {"bias": [5.0, 0.0]}, {"weight.values": [2.0, 3.0, 4.0]}
    assert held["dense"] == bias | {"weight": [[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]]}
    assert held["csr"] == bias | values | {"weight.rows": [0, 1, 3], "weight.columns": [1, 0, 2]}
    assert held["bitmask"] == bias | values | {"weight.bits": [0b01010100]}
    assert held["auto"] == held["bitmask"]  # 13 bytes; CSR needs 36, dense 24


def test_sizes_are_those_that_costs_counts(tmp_path):
    for k in (0, 60, 95):
        masked = pb.prune_weights(pb.mlp([40, 30, 20]), k)
        for model, bits in ((masked, 1200 // 8 + 600 // 8), (pb.bake(copy.deepcopy(masked)), 0)):
            for form, extra in (
                ("dense", bits),
                ("csr", 0),
                ("bitmask", 0),
            ):  # a mask: one bit for each weight
                pb.save_model(model, tmp_path / "model", form)
                assert data_bytes(tmp_path / "model") == getattr(stored(model), form) + extra
            pb.save_model(model, tmp_path / "model", "auto")
            assert data_bytes(tmp_path / "model") <= min(vars(stored(model)).values()) + (k == 0) * bits


def test_a_kept_weight_of_zero_stays_kept():
    model = nn.Sequential(nn.Linear(2, 2))
    nn.init.zeros_(model[0].weight)
    pb.attach(model[0], torch.tensor([[True, False], [True, True]]))
    for form in FORMS:
        assert pb.masks(reload(model, form))["0.weight"].tolist() == [[True, False], [True, True]]


def test_negative_zero_and_what_is_not_finite_come_back():
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-0.0, 0.0, math.nan], [math.inf, -math.inf, 1e-45]]))
    for form in FORMS:
        assert_same_bits(reload(layer, form).weight, layer.weight)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3), st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_any_pattern_of_zeros_comes_back(rows, columns, kernel, density, seed):
    draw = torch.Generator().manual_seed(seed)
    shape = [rows, columns, *[2] * kernel]
    weight, mask = torch.rand(shape, generator=draw) + 1, torch.rand(shape, generator=draw) < density
    for form in files.FORMS:
        for kept in (None, mask):
            parts = {f"w{part}": stored for part, stored in files._encode(weight * mask, kept, form).items()}
            got, present = files._decode("w", shape, parts)
            assert got.equal(weight * mask)
            assert present is None if (form, kept) == ("dense", None) else present.equal(mask)


def train(method, **options):
    """Prune by what learns its masks, as a reader does: ten lines of training are two calls."""

    def prune(net):
        optimizer = torch.optim.Adam(method(net, **options).parameter_groups())
        pb.fit(net, make_data(), epochs=1, batch_size=20, optimizer=optimizer, progress=False)

    return prune


METHODS = {
    "units": lambda net: pb.prune_units(net, 40),
    "weights": lambda net: pb.prune_weights(net, 70),
    "soft": train(pb.SoftPruning, k=70),
    "adaptive": train(pb.AdaptivePruning, r=0.5),
    "gumbel": train(pb.GumbelPruning),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_network_of_the_readers_own_goes_through_every_method(method, tmp_path):
    torch.manual_seed(0)
    net, images = Net(), make_data().test.images
    METHODS[method](net)
    masked = pb.harden(net).eval()
    baked = pb.bake(copy.deepcopy(masked))
    small = pb.shrink(masked)
    for life in (masked, baked, small):
        for form in FORMS:
            pb.save_model(life, tmp_path / "net", form)
            loaded = pb.load_model(tmp_path / "net")
            assert_same(life, loaded, images)
            assert_same(small, pb.shrink(loaded), images)
    assert pb.costs(loaded, images, batches=()) == pb.costs(small, images, batches=())


def test_a_loaded_network_is_one_like_any_other():
    torch.manual_seed(0)
    net, data = Net(), make_data()
    loaded = reload(net)
    for each in (net, loaded):
        with torch.random.fork_rng():
            pb.fit(
                pb.prune_weights(pb.prune_units(each, 30), 50), data, epochs=2, batch_size=20, progress=False
            )
    assert pb.evaluate(net, data.test) == pb.evaluate(loaded, data.test)
    assert_same(net, loaded, data.test.images)
    again = copy.deepcopy(loaded)
    again.load_state_dict(net.state_dict())
    assert_same(net.double(), reload(again.double()), data.test.images.double())


def test_saving_changes_nothing_and_gives_the_same_file_twice(tmp_path):
    torch.manual_seed(0)
    net = pb.prune_weights(Net(), 50)
    net.norm.eval()
    before, modes = copy.deepcopy(net), [module.training for module in net.modules()]
    random = torch.get_rng_state()
    one, two, three = (tmp_path / name for name in ("new folder/a", "new folder/b", "c"))
    pb.save_model(net, one)
    pb.save_model(net, two)
    pb.save_model(pb.load_model(one), three)
    assert torch.get_rng_state().equal(random)
    assert [module.training for module in net.modules()] == modes
    assert_same(before, net, torch.rand(3, 1, 4, 4))
    assert not pb.load_model(one).norm.training
    assert one.read_bytes() == two.read_bytes() == three.read_bytes()


def test_networks_of_the_book_come_back_as_the_sequential_they_are():
    for net in (pb.lenet_300_100(), pb.lenet5()):
        model = nn.Sequential(pb.RandomShift(1), net)
        loaded = reload(model)
        assert_same(model, loaded, torch.rand(2, 1, 28, 28))
        assert repr(loaded) == repr(model)
        assert type(loaded) is nn.Sequential


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_comes_back(dtype):
    model = pb.prune_weights(network(), 50).to(dtype).eval()
    for form in FORMS:
        assert_same(model, reload(model, form), batch().to(dtype))


def test_tied_weights_are_stored_once_and_tied_again(tmp_path):
    net = Own(lambda self, x: self.b(self.a(x)), a=nn.Linear(6, 6), b=nn.Linear(6, 6, bias=False))
    net.b.weight = net.a.weight
    net.register_buffer("one", torch.ones(4, 2).t())  # not contiguous
    net.register_buffer("two", net.one)
    for form in FORMS:
        for each in (net, pb.prune_weights(copy.deepcopy(net), 50)):
            pb.save_model(each, tmp_path / "net", form)
            loaded = pb.load_model(tmp_path / "net")
            assert_same(each, loaded, batch())
            assert pb.dense_weight(loaded.a) is pb.dense_weight(loaded.b)
            assert loaded.one is loaded.two
            assert not [name for name in load_file(tmp_path / "net") if name.startswith(("b.", "two"))]


def test_a_layer_used_twice_is_one_layer_after_loading():
    layer = nn.Linear(6, 6)
    block = Own(lambda self, x: self.a(x).relu() + self.c[0](x), a=layer, b=layer, c=nn.ModuleList([layer]))
    model = nn.Sequential(layer, block, block, layer)
    for each in (model, pb.prune_weights(copy.deepcopy(model), 50)):
        loaded = reload(each).get_submodule
        assert_same(each, reload(each), batch())
        assert loaded("0") is loaded("3") is loaded("1.b") is loaded("2.c.0")


def test_tensors_of_size_zero_and_whole_numbers_come_back():
    model = nn.Sequential(nn.Linear(6, 4))
    model.register_buffer("count", torch.tensor(7))
    model.register_buffer("none", torch.zeros(0, 3, dtype=torch.int16))
    model[0].weight.requires_grad_(False)
    for form in FORMS:
        assert_same(model, reload(model, form), batch())
        with pytest.warns(UserWarning, match="zero-element"):
            empty = nn.Sequential(nn.Linear(6, 0), nn.Linear(0, 2))
        assert_same(empty, reload(empty, form), batch())


def test_a_network_is_loaded_onto_a_device(tmp_path):
    pb.save_model(pb.prune_weights(Net(), 50), tmp_path / "net")
    loaded = pb.load_model(tmp_path / "net", "meta")
    assert {tensor.device.type for tensor in loaded.state_dict().values()} == {"meta"}
    with pytest.raises(ValueError, match=r"net describes no network that can be built on nowhere"):
        pb.load_model(tmp_path / "net", "nowhere")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_comes_back_on_the_cpu_and_on_the_gpu(tmp_path):
    net = pb.prune_weights(Net(), 50).cuda().eval()
    pb.save_model(net, tmp_path / "net")
    assert_same(net.cpu(), pb.load_model(tmp_path / "net"), torch.rand(3, 1, 4, 4))
    assert_same(net.cuda(), pb.load_model(tmp_path / "net", "cuda"), torch.rand(3, 1, 4, 4).cuda())


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


class Doubles(nn.Linear):
    def forward(self, x, times=2, flag=None):
        return super().forward(x) * times if flag is None else x


def test_further_arguments_have_their_defaults_and_outputs_may_be_nested():
    model = Doubles(6, 6)
    assert_same(model, reload(model), batch())
    model = Own(lambda self, x: {"out": self.a(x), "both": [x, (x * 2, None)]}, a=nn.Linear(6, 6))
    one, other = model(batch()), reload(model)(batch())
    assert one["out"].equal(other["out"])
    assert one["both"][1][0].equal(other["both"][1][0])
    assert type(other["both"][1]) is tuple


# What is refused when saving


@pytest.mark.parametrize("method", [pb.SoftPruning, pb.GumbelPruning, pb.AdaptivePruning])
def test_learned_masks_have_to_be_hardened_first(method, tmp_path):
    net = network()
    method(net, **({"k": 50} if method is pb.SoftPruning else {}))
    with pytest.raises(ValueError, match=r"0\.weight must have a constant mask .* harden it"):
        pb.save_model(net, tmp_path / "net")
    assert os.listdir(tmp_path) == []


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


def hooked():
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda *_: None)
    return nn.Sequential(layer)


def half_masked():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    pb.attach(net[1], torch.eye(3).bool())
    return net


def sliced():
    layer = nn.Linear(3, 3)
    layer.weight = nn.Parameter(torch.ones(3, 2))
    return layer


REFUSED = {
    r"0: LSTM is none of the layers": lambda: nn.Sequential(nn.LSTM(2, 2)),
    r"0: LazyLinear is none of the layers": lambda: nn.Sequential(nn.LazyLinear(2)),
    r"'fft_fft', which no file can name": lambda: Own(lambda self, x: torch.fft.fft(x)),
    r"'Tensor.retain_grad', which no file can name": lambda: Own(lambda self, x: x.retain_grad()),
    r"'Tensor.grad', which no file can name": lambda: Own(lambda self, x: x.grad),
    r"'a', which no file can name; make it a parameter": lambda: Own(
        lambda self, x: x + self.a, a=torch.ones(2)
    ),
    r"0: Linear has forward hooks": hooked,
    r"no parametrizations but masks": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
    r"cannot trace Own.*branch on tensors": lambda: Own(lambda self, x: x if x.sum() > 0 else -x),
    r"cannot trace TwoInputs": TwoInputs,
    r"no file can hold a device": lambda: Own(lambda self, x: x.to(torch.device("cpu"))),
    r"0\.weight and 1\.weight are one tensor": half_masked,
    r"\['weight'\] are missing or of another shape": sliced,
}


@pytest.mark.parametrize(("message", "make"), REFUSED.items(), ids=REFUSED)
def test_what_a_file_cannot_hold_is_refused_by_name(message, make, tmp_path):
    with pytest.raises(ValueError, match=message):
        pb.save_model(make(), tmp_path / "net")
    assert os.listdir(tmp_path) == []


def test_a_form_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"form must be one of .*, got 'coo'"):
        pb.save_model(network(), tmp_path / "net", "coo")


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net"
    pb.save_model(network(0), path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        pb.save_model(network(1), path)
    assert_same(network(0), pb.load_model(path), batch())
    assert os.listdir(tmp_path) == ["net"]


# What is refused when loading


def test_every_altered_byte_is_told_or_alters_nothing(tmp_path):
    path = tmp_path / "net"
    model = pb.prune_weights(nn.Sequential(nn.Linear(3, 2)), 50)
    pb.save_model(model, path, "csr")
    whole, told = path.read_bytes(), []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert_same(model, pb.load_model(path), batch(inputs=3))
        except ValueError as error:
            told.append(str(path) in str(error))
    assert all(told)
    assert len(told) > len(whole) - 3


def test_every_truncated_file_is_told(tmp_path):
    path = tmp_path / "net"
    pb.save_model(nn.Sequential(nn.Linear(3, 2)), path)
    whole = path.read_bytes()
    for broken in (*(whole[:end] for end in range(len(whole))), whole + b"\0", whole + whole):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"net is truncated, damaged or no file of save_model"):
            pb.load_model(path)


def test_foreign_files_are_told(tmp_path):
    buffer = io.BytesIO()
    torch.save(network().state_dict(), buffer)
    contents = [b"import os", pickle.dumps(network()), buffer.getvalue(), bytes(1000), b"\xff" * 1000]
    contents.append((100000).to_bytes(8, "little") + b"[" * 100000)
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    save_file(network().state_dict(), tmp_path / "weights")
    for number, text in enumerate(("[1]", "1", '"a"', "{}", "[" * 10000)):
        save_file(network().state_dict(), tmp_path / f"metadata{number}", {"prunebook": text})
    checkpoints.write(tmp_path / "checkpoint", {}, {"a": torch.ones(2)})
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=f"{path.name} is truncated, damaged or no file of save_model"):
            pb.load_model(path)
    with pytest.raises(FileNotFoundError):
        pb.load_model(tmp_path / "none")


def forge(path, change):
    """Change what a file says, and give it a checksum that fits."""
    with safe_open(path, framework="pt") as file:
        contents = json.loads(file.metadata()["prunebook"])
    tensors = load_file(path)
    del contents["sha256"]
    change(contents)
    contents["sha256"] = files._seal(contents, tensors)
    save_file(tensors, path, {"prunebook": json.dumps(contents)})


def test_a_newer_format_asks_for_an_update(tmp_path):
    path = tmp_path / "net"
    pb.save_model(network(), path)
    forge(path, lambda contents: contents.update(version=2))
    with pytest.raises(ValueError, match="net has format 2, this prunebook reads 1: update prunebook"):
        pb.load_model(path)


def step(kind, target, args=({"value": 0},), kwargs=None):
    """Do this as the first step."""
    made = [kind, target, {"tuple": list(args)}, {"dict": kwargs or []}]
    return lambda contents: contents["steps"][0].insert(0, made)


def put(*path, value):
    def change(contents):
        for key in path[:-1]:
            contents = contents[key]
        contents[path[-1]] = value

    return change


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


def test_a_fresh_process_loads_without_the_class_and_makes_no_code(tmp_path):
    torch.manual_seed(0)
    net = pb.prune_weights(Net(), 60).eval()
    images = torch.rand(3, 1, 4, 4)
    pb.save_model(net, tmp_path / "net")
    save_file({"images": images, "out": net(images).detach()}, tmp_path / "pairs")
    code = """
        import builtins, pickle, sys
        import torch
        from safetensors.torch import load_file
        import prunebook as pb
        pairs = load_file("pairs")
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
