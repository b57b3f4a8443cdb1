"""What comes back from a file and in which form it is stored, what is refused, and filled networks."""

import copy
import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from saving import FORMS, Doubles, Net, assert_same, forge, put, reload, shared
from small import METHODS, Own, batch, make_data, network
from torch import nn

import prunebook as pb
from prunebook.tools import files
from prunebook.tools.costs import stored_bytes


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
            for form, extra in (("dense", bits), ("csr", 0), ("bitmask", 0)):  # a mask: one bit per weight
                pb.save_model(model, tmp_path / "model", form)
                assert data_bytes(tmp_path / "model") == getattr(stored_bytes(model), form) + extra
            pb.save_model(model, tmp_path / "model", "auto")
            assert data_bytes(tmp_path / "model") <= min(vars(stored_bytes(model)).values()) + (k == 0) * bits


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3), st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=60)
def test_any_pattern_of_zeros_comes_back(rows, columns, kernel, density, seed):
    draw = torch.Generator().manual_seed(seed)
    shape = [rows, columns, *[2] * kernel]
    weight, mask = torch.rand(shape, generator=draw) + 1, torch.rand(shape, generator=draw) < density
    for form in files.FORMS:
        for kept in (None, mask):
            got, present = files._decode("w", shape, files._encode("w", weight * mask, kept, form))
            assert got.equal(weight * mask)
            assert present is None if (form, kept) == ("dense", None) else present.equal(mask)


# Gates of units mask the bias of a BatchNorm before its weight: an order that no file keeps.
@pytest.mark.parametrize("method", [name for name in METHODS if name != "gumbel units"])
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


def tied():
    net = Own(lambda self, x: self.b(self.a(x)), a=nn.Linear(6, 6), b=nn.Linear(6, 6, bias=False))
    net.b.weight = net.a.weight
    net.register_buffer("one", torch.ones(4, 2).t())  # not contiguous
    net.register_buffer("two", net.one)
    return net


def used_twice():
    layer = nn.Linear(6, 6)
    block = Own(lambda self, x: self.a(x).relu() + self.c[0](x), a=layer, b=layer, c=nn.ModuleList([layer]))
    return nn.Sequential(layer, block, block, layer)


def odd_tensors():
    model = nn.Sequential(nn.Linear(6, 4))
    model.register_buffer("count", torch.tensor(7))
    model.register_buffer("none", torch.zeros(0, 3, dtype=torch.int16))
    model[0].weight.requires_grad_(False)
    return model


def empty():
    with pytest.warns(UserWarning, match="zero-element"):
        return nn.Sequential(nn.Linear(6, 0), nn.Linear(0, 2))


def holding(*values):
    """A layer with these weights first: 0 and -0 are two, and a kept weight may be 0."""
    layer = nn.Linear(6, 2)
    with torch.no_grad():
        layer.weight.view(-1)[: len(values)] = torch.tensor(values)
    return layer


COME_BACK = {
    "half": lambda: pb.prune_weights(network(), 50).half().eval(),
    "bfloat16": lambda: pb.prune_weights(network(), 50).bfloat16().eval(),
    "float64": lambda: pb.prune_weights(network(), 50).double().eval(),
    "tied": tied,
    "tied and pruned": lambda: pb.prune_weights(tied(), 50),
    "used twice": used_twice,
    "used twice and pruned": lambda: pb.prune_weights(used_twice(), 50),
    "odd tensors": odd_tensors,
    "empty": empty,
    "kept zeros": lambda: pb.attach(holding(0.0, 0.0, 0.0), torch.arange(12).view(2, 6) % 3 > 0),
    "not finite": lambda: holding(-0.0, 0.0, math.nan, math.inf, -math.inf, 1e-45),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", COME_BACK.values(), ids=COME_BACK)
def test_what_comes_back(make, form, tmp_path):
    model = make()
    pb.save_model(model, tmp_path / "net", form)
    x = batch().to(next(model.parameters()).dtype)
    assert_same(model, pb.load_model(tmp_path / "net"), x)
    fresh = make()
    fresh = pb.bake(fresh) if pb.masks(fresh) else fresh
    assert_same(model, pb.load_model(tmp_path / "net", into=fresh), x)
    again = [name for name, same in shared(model).items() if name != same and "parametri" not in name]
    assert not {*again} & {*load_file(tmp_path / "net")}  # what is shared is stored once


def test_a_network_is_loaded_onto_a_device(tmp_path):
    pb.save_model(pb.prune_weights(Net(), 50), tmp_path / "net")
    loaded = pb.load_model(tmp_path / "net", "meta")
    assert {tensor.device.type for tensor in loaded.state_dict().values()} == {"meta"}
    with pytest.raises(ValueError, match=r"net describes no network that can be built: .*nowhere"):
        pb.load_model(tmp_path / "net", "nowhere")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_comes_back_on_the_cpu_and_on_the_gpu(tmp_path):
    net = pb.prune_weights(Net(), 50).cuda().eval()
    pb.save_model(net, tmp_path / "net")
    assert_same(net.cpu(), pb.load_model(tmp_path / "net"), torch.rand(3, 1, 4, 4))
    assert_same(net.cuda(), pb.load_model(tmp_path / "net", "cuda"), torch.rand(3, 1, 4, 4).cuda())


# Networks that cannot be recorded, and networks that are loaded into one of their class


class Branches(nn.Module):
    """What torch.fx cannot trace, a branch on a tensor, and layers that no file can name."""

    def __init__(self, width=6):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.deep = nn.Conv2d(width, width, 3, groups=width)
        self.norm, self.slope = nn.BatchNorm2d(width), nn.PReLU(width)
        self.gain = nn.Parameter(torch.rand(width, 1, 1))
        self.lstm, self.out = nn.LSTM(width * 4, 5, batch_first=True), Doubles(5, 3)

    def forward(self, x):
        x = self.slope(self.norm(self.deep(self.conv(x)))) * self.gain
        x = self.lstm(x.flatten(1)[:, None])[0][:, 0]
        return self.out(x) if x.sum() > 1 else self.out(-x)


def shrunk_by_hand():
    """Four of six channels, cut out by code that knows the class."""
    net = Branches()
    for module in (net.conv, net.deep, net.norm, net.slope, net):
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if tensor.dim():
                part = tensor.detach()[:4].clone()
                setattr(module, name, nn.Parameter(part) if isinstance(tensor, nn.Parameter) else part)
    net.conv.out_channels = net.norm.num_features = net.slope.num_parameters = 4
    net.deep.in_channels = net.deep.out_channels = net.deep.groups = 4
    net.lstm = nn.LSTM(16, 5, batch_first=True)
    return net


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: pb.prune_weights(Branches(), 50, skip=["", "lstm"]).eval(),
        shrunk_by_hand,
        lambda: Branches().double(),
    ],
)
def test_a_network_that_cannot_be_traced_is_loaded_into_one_of_its_class(make, form, tmp_path):
    torch.manual_seed(0)
    saved, fresh, path = make(), Branches(), tmp_path / "net"
    with pytest.warns(UserWarning, match=r"net can only be loaded by .*into=network.*cannot trace Branches"):
        pb.save_model(saved, path, form)
    assert pb.load_model(path, into=fresh) is fresh
    assert_same(saved, fresh, torch.randn(5, 1, 4, 4).to(saved.gain.dtype))
    assert repr(fresh) == repr(saved)
    with pytest.raises(ValueError, match=r"net describes .* pass into=.* cannot trace Branches"):
        pb.load_model(path)


def test_a_shrunk_network_is_loaded_into_one_of_full_size(tmp_path):
    torch.manual_seed(0)
    net, path = Net(), tmp_path / "net"
    small = pb.prune_weights(pb.shrink(pb.prune_units(Net(), 40).eval()), 50)
    pb.save_model(small, path)
    net.shift = small.shift  # not persistent, so assert_same does not see it
    assert pb.load_model(path, into=net) is net
    assert_same(small, net, torch.randn(5, 1, 4, 4))
    assert repr(pb.bake(copy.deepcopy(net))) == repr(pb.bake(small))
    assert pb.load_model(path, "meta", into=Net()).gain.is_meta
    assert pb.fit(net, make_data(), epochs=1, batch_size=20, progress=False).rows


def plain(*changed, bias=False):
    """A small network, with other layers at the end if they are given."""
    layers = [nn.Linear(6, 10, bias=bias), nn.ReLU(), nn.Linear(10, 4, bias=False)]
    return nn.Sequential(*layers[: 3 - len(changed)], *changed)


def test_a_bias_that_shrinking_made_is_loaded_into_a_layer_without(tmp_path):
    net = plain(bias=True)
    with torch.no_grad():
        net[0].weight[0], net[0].bias[0] = 0, 1  # says 1, always
    small = pb.shrink(net)
    pb.save_model(small, tmp_path / "net")
    loaded = pb.load_model(tmp_path / "net", into=plain(bias=True))
    assert loaded[2].bias is not None
    assert_same(small, loaded, batch())


OTHERS = {
    r"3 is missing in the file, Linear in the network": lambda: nn.Sequential(*plain(), nn.Linear(4, 4)),
    r"2 is Linear in the file, missing in the network": lambda: plain()[:2],
    r"0\.bias is missing in the file, a tensor in the network": lambda: plain(bias=True),
    r"2 is Linear in the file, Conv1d in the network": lambda: plain(nn.Conv1d(10, 4, 1, bias=False)),
    r"1 is ReLU in the file, Tanh in the network": lambda: plain(nn.Tanh(), plain()[2]),
    r"1\.inplace is False in the file, True": lambda: plain(nn.ReLU(True), plain()[2]),
    r"the network must be without masks": lambda: pb.prune_weights(plain(), 50),
}


@pytest.mark.parametrize(("message", "make"), OTHERS.items(), ids=OTHERS)
def test_a_network_of_another_class_is_refused_and_stays(message, make, tmp_path):
    pb.save_model(plain(), tmp_path / "net")
    other = make()
    before, held = copy.deepcopy(other), [id(parameter) for parameter in other.parameters()]
    with pytest.raises(ValueError, match=rf"net does not fit into the network: {message}"):
        pb.load_model(tmp_path / "net", into=other)
    assert repr(other) == repr(before)
    assert_same(before, other)
    assert [id(parameter) for parameter in other.parameters()] == held


@pytest.mark.parametrize(
    ("form", "key", "value"),
    [("dense", "masked", True), ("bitmask", "shape", [60000, 60000])],
    ids=["a mask of nothing", "more than its bits"],
)
def test_a_forged_file_leaves_the_network_that_it_is_loaded_into(form, key, value, tmp_path):
    path, net = tmp_path / "net", plain()
    before = copy.deepcopy(net)
    pb.save_model(plain(), path, form)
    forge(path, put("tensors", "2.weight", key, value=value))  # seen when the rest is filled in
    with pytest.raises(ValueError, match="net does not fit into the network"):
        pb.load_model(path, into=net)
    assert_same(before, net, batch())


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


def sliced():
    layer = nn.Linear(3, 3)
    layer.weight = nn.Parameter(torch.ones(3, 2))
    return layer


UNRECORDED = {
    r"0: LSTM is none of the layers": lambda: nn.Sequential(nn.LSTM(2, 2)),
    r"layers: TransformerEncoderLayer is": lambda: Own(
        lambda self, x: x, layers=nn.TransformerEncoderLayer(4, 2)
    ),
    r"'fft_fft', which no file can name": lambda: Own(lambda self, x: torch.fft.fft(x)),
    r"'Tensor.retain_grad', which no file can name": lambda: Own(lambda self, x: x.retain_grad()),
    r"'Tensor.grad', which no file can name": lambda: Own(lambda self, x: x.grad),
    r"'a', which no file can name; make it a parameter": lambda: Own(
        lambda self, x: x + self.a, a=torch.ones(2)
    ),
    r"cannot trace Own.*branch on tensors": lambda: Own(lambda self, x: x if x.sum() > 0 else -x),
    r"cannot trace TwoInputs": TwoInputs,
    r"no file can hold a device": lambda: Own(lambda self, x: x.to(torch.device("cpu"))),
    r"'a-b' is no name": lambda: nn.ModuleDict({"a-b": nn.ReLU()}),
    r"\['weight'\] are missing or of another shape": sliced,
}


@pytest.mark.parametrize(("message", "make"), UNRECORDED.items(), ids=UNRECORDED)
def test_what_cannot_be_recorded_is_saved_with_a_warning(message, make, tmp_path):
    model = make()
    with pytest.warns(UserWarning, match=rf"net can only be loaded by .*: .*{message}"):
        pb.save_model(model, tmp_path / "net")
    assert_same(model, pb.load_model(tmp_path / "net", into=make()))
    with pytest.raises(ValueError, match=message):
        pb.load_model(tmp_path / "net")


# What is refused when saving


def hooked():
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda *_: None)
    return nn.Sequential(layer)


def half_masked():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    pb.attach(net[1], torch.eye(3).bool())
    return net


def learning(method, **options):
    net = network()
    method(net, **options)
    return net


LEARNING = r"hardened masks, got \w+: call harden"
REFUSED = {
    "soft": (LEARNING, lambda: learning(pb.SoftPruning, k=50)),
    "gumbel": (LEARNING, lambda: learning(pb.GumbelPruning)),
    "adaptive": (LEARNING, lambda: learning(pb.AdaptivePruning)),
    "hooks": ("0 has forward hooks", hooked),
    "parametrizations": (
        "no parametrizations but masks",
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
    ),
    "half masked": (r"0\.weight and 1\.weight are one tensor", half_masked),
    "lazy": ("lazily initialised", lambda: nn.Sequential(nn.LazyLinear(2))),
}


@pytest.mark.parametrize(("message", "make"), REFUSED.values(), ids=REFUSED)
def test_what_a_file_cannot_hold_is_refused_by_name(message, make, tmp_path):
    with pytest.raises(ValueError, match=message):
        pb.save_model(make(), tmp_path / "net")
    assert os.listdir(tmp_path) == []


def test_a_form_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(ValueError, match="form must be 'dense' or 'csr' or 'bitmask' or 'auto', got 'coo'"):
        pb.save_model(network(), tmp_path / "net", "coo")
