import copy
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn
from torch.nn.utils import parametrize

from prunebook import masking
from prunebook.masking import (
    Mask,
    attach,
    attach_all,
    bake,
    before_forward,
    dense_weight,
    harden,
    maskable,
    masks,
    set_masks,
    sparsity,
)

LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9, weight_decay=0.1),
}


class Soft(nn.Module):
    """Halves every weight, keeps the positive ones, and folds the half into them."""

    def forward(self, w):
        return w * 0.5

    def kept(self, w):
        return w > 0

    def hardened_weight(self, w):
        return w * 0.5


class Largest(nn.Module):
    """Keeps what is above the mean of all layers: each layer's answer depends on the others."""

    def __init__(self, layers):
        super().__init__()
        self.layers = [layers]  # unregistered

    def forward(self, w):
        return w * self.kept(w)

    def kept(self, w):
        weights = [dense_weight(layer).flatten() for layer in self.layers[0]]
        return w > torch.cat(weights).mean()

    def hardened_weight(self, w):
        return w + 100


class Tied(nn.Module):
    """Two linear layers and an embedding with one weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.table = nn.Embedding(3, 3)
        self.second.weight = self.first.weight
        self.table.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x + self.table.weight))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def every_other(weight):
    return torch.arange(weight.numel()).view(weight.shape) % 2 == 0


def masked_network():
    model = network()
    attach_all(model, every_other)
    attach(model[0], torch.tensor([True, False, True]), "bias")
    return model


def batch(rows=5):
    return torch.linspace(-1, 1, rows * 4).view(rows, 4)


def test_mask_of_every_other_weight():
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))
    attach(layer, torch.tensor([[True, False], [False, True]]))
    assert torch.equal(layer.weight, torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
    assert torch.equal(layer(torch.ones(1, 2)), torch.tensor([[1.0, 4.0]]))
    layer(torch.ones(1, 2)).sum().backward()
    assert torch.equal(dense_weight(layer).grad, torch.eye(2))
    assert sparsity(layer) == 0.5


def test_masked_weights_are_zeros_without_a_sign():
    masked = Mask(torch.tensor([False, True]))(torch.tensor([-1.0, -1.0]))
    assert torch.equal(torch.signbit(masked), torch.tensor([False, True]))


def test_a_mask_is_a_copy_of_the_tensor():
    mask = torch.tensor([True, False])
    module = Mask(mask)
    mask[:] = False
    module.kept(torch.ones(2))[:] = False
    assert module.kept(torch.ones(2)).tolist() == [True, False]


def test_maskable_finds_all_kinds_by_name():
    kinds = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2), *[kind(1, 1, 1) for kind in kinds], nn.BatchNorm1d(2))
    assert list(maskable(model)) == ["1", "2", "3", "4", "5", "6", "7"]
    assert maskable(model)["1"] is model[1]


def test_maskable_of_a_bare_layer_and_of_a_layer_used_twice():
    layer = nn.Linear(2, 2)
    assert maskable(layer) == {"": layer}
    assert maskable(nn.Sequential(layer, layer)) == {"0": layer}
    assert maskable(nn.ReLU()) == {}
    attach(layer, torch.ones(2, 2, dtype=torch.bool))
    assert list(masks(layer)) == ["weight"]


def test_masks_have_the_names_of_the_parameters():
    found = masks(masked_network())
    assert list(found) == ["0.weight", "0.bias", "2.weight"]
    assert found["0.bias"].tolist() == [True, False, True]
    assert found["0.weight"].dtype == torch.bool


def test_masks_are_copies():
    model = masked_network()
    before = masks(model)
    set_masks(model, {name: ~mask for name, mask in before.items()})
    assert all(torch.equal(mask, ~before[name]) for name, mask in masks(model).items())


def test_set_masks_is_the_inverse_of_masks():
    model, other = masked_network(), network()
    set_masks(other, masks(model))
    assert torch.equal(model(batch()), other(batch()))
    buffer = other[0].parametrizations.weight[0].mask
    set_masks(other, {"0.weight": torch.zeros(3, 4, dtype=torch.bool)})
    assert other[0].parametrizations.weight[0].mask is buffer
    assert not other[0].weight.any()


def test_sparsity_counts_weights_not_biases():
    model = masked_network()
    assert sparsity(model) == 9 / 18
    set_masks(model, {"2.weight": torch.zeros(2, 3, dtype=torch.bool)})
    assert sparsity(model) == (6 + 6) / 18
    assert sparsity(model, per_layer=True) == {"0": 0.5, "2": 1.0}


def test_sparsity_without_masks_counts_exact_zeros():
    model = network()
    assert sparsity(model) == 0
    with torch.no_grad():
        model[0].weight[0] = 0
    assert sparsity(model) == 4 / 18
    assert sparsity(nn.ReLU()) == 0


def test_sparsity_of_masks_ignores_kept_zeros():
    layer = nn.Linear(2, 2)
    nn.init.zeros_(layer.weight)
    attach(layer, torch.tensor([[True, True], [True, False]]))
    assert sparsity(layer) == 0.25


def test_sparsity_is_exact_beyond_what_a_float_counts():
    layer = nn.Linear(4099, 4099, bias=False, device="meta")
    layer.to_empty(device="cpu")
    nn.init.zeros_(layer.weight)
    layer.weight.detach()[0, 0] = 1
    n = 4099**2  # 25,000 above 2^24
    assert sparsity(layer) == (n - 1) / n


def test_parametrizations_of_other_origin_are_left_alone():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2))
    assert masks(model) == {}
    assert sparsity(model) == 0
    attach_all(model, every_other, skip=["0"])
    bake(model)
    assert parametrize.is_parametrized(model[0])
    assert sparsity(model) == 0.25
    with pytest.raises(ValueError, match="must be without mask, has a _WeightNorm"):
        attach(model[0], torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="must be a plain parameter"):
        attach_all(model, every_other)


def test_harden_keeps_the_limit_and_folds():
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.detach().copy_(torch.tensor([[2.0, -2.0]]))
    attach(layer, Soft())
    assert layer.weight.tolist() == [[1.0, -1.0]]
    assert masks(layer)["weight"].tolist() == [[True, False]]
    assert sparsity(layer) == 0.5
    harden(layer)
    assert layer.weight.tolist() == [[1.0, 0.0]]
    assert dense_weight(layer).tolist() == [[1.0, -1.0]]
    keys = list(layer.state_dict())
    harden(layer)
    assert layer.weight.tolist() == [[1.0, 0.0]]
    assert (
        list(layer.state_dict())
        == keys
        == ["parametrizations.weight.original", "parametrizations.weight.0.mask"]
    )


def test_harden_reads_all_layers_before_it_writes():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    for layer, value in zip(model, (1.0, 3.0), strict=True):
        nn.init.constant_(layer.weight, value)
    attach_all(model, lambda _: Largest(list(model)))
    harden(model)
    assert [layer.weight.item() for layer in model] == [0.0, 103.0]


def test_bake_leaves_a_plain_network():
    model = masked_network()
    parameter, expected = dense_weight(model[0]), model(batch())
    kept = masks(model)
    assert bake(model) is model
    assert [type(layer) for layer in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert model[0].weight is parameter
    assert list(model.state_dict()) == list(network().state_dict())
    assert torch.equal(model(batch()), expected)
    assert torch.equal(model[0].weight != 0, kept["0.weight"])
    assert sparsity(model) == 0.5


def test_bake_of_a_deepcopy_leaves_the_original_masked_and_the_other_way_round():
    model = masked_network()
    twin = copy.deepcopy(model)
    bake(twin)
    assert torch.equal(model(batch()), twin(batch()))
    twin = copy.deepcopy(model)
    attach(twin[2], torch.tensor([True, False]), "bias")
    assert list(masks(model)) == ["0.weight", "0.bias", "2.weight"]
    assert model[2].bias.all()
    bake(model)
    assert list(masks(twin)) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert twin[2].bias[1] == 0


def test_refresh_runs_in_training_only_and_ends_with_harden():
    model, calls = masked_network(), []
    kept_hook = model.register_forward_pre_hook(lambda *_: None)
    before_forward(model, lambda _: calls.append(torch.is_grad_enabled()))
    model(batch())
    twin = copy.deepcopy(model)
    twin(batch())
    model.eval()(batch())
    assert calls == [False, False]
    bake(model.train())
    model(batch())
    assert calls == [False, False]
    assert list(model._forward_pre_hooks) == [kept_hook.id]


def test_shared_weights_share_one_mask_and_one_parameter():
    model = Tied()
    made = attach_all(model, every_other)
    assert list(made) == ["first"]
    assert len(list(model.parameters())) == 3
    slots = [layer.parametrizations.weight for layer in (model.first, model.second, model.table)]
    assert all(slot[0] is made["first"] and slot.original is slots[0].original for slot in slots)
    assert sparsity(model) == 4 / 9
    set_masks(model, {"second.weight": torch.zeros(3, 3, dtype=torch.bool)})
    assert not model.table.weight.any()
    assert not masks(model)["first.weight"].any()


@pytest.mark.parametrize("mask", [lambda w: every_other(w), lambda w: Soft()])
def test_shared_weights_survive_copy_harden_and_bake(mask):
    model = Tied()
    attach_all(model, mask)
    model = copy.deepcopy(model)
    assert harden(model).first.parametrizations.weight[0] is model.second.parametrizations.weight[0]
    expected = model(torch.ones(3))
    bake(model)
    assert model.first.weight is model.second.weight
    assert model.first.weight is model.table.weight
    assert type(model.table) is nn.Embedding
    assert torch.equal(model(torch.ones(3)), expected)
    Tied().load_state_dict(model.state_dict(), strict=True)


def test_set_masks_attaches_to_all_holders():
    model = Tied()
    set_masks(model, {"second.weight": every_other(model.first.weight)})
    assert len(masks(model)) == 3
    set_masks(Tied(), masks(model))


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_pruned_weights_stay_zero_with_any_optimizer(make):
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = make(model.parameters())
    optimizer.step()  # momentum from before the masks
    attach_all(model, every_other)
    before = dense_weight(model[0]).detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        model(batch()).square().sum().backward()
        optimizer.step()
        assert not model[0].weight[~masks(model)["0.weight"]].any()
        assert not model[2].weight[~masks(model)["2.weight"]].any()
    assert (dense_weight(model[0]) != before).any()


def test_deepcopy_is_independent():
    model = masked_network()
    twin = copy.deepcopy(model)
    assert torch.equal(model(batch()), twin(batch()))
    set_masks(twin, {"0.weight": torch.zeros(3, 4, dtype=torch.bool)})
    dense_weight(twin[2]).detach().zero_()
    assert model[0].weight.any()
    assert model[2].weight.any()


def test_state_dict_goes_both_ways():
    model, other = masked_network(), masked_network()
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    set_masks(other, {"0.weight": torch.ones(3, 4, dtype=torch.bool)})
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(batch()), model(batch()))
    assert torch.equal(masks(other)["0.weight"], masks(model)["0.weight"])
    plain = network()
    plain.load_state_dict(bake(model).state_dict(), strict=True)
    assert torch.equal(plain(batch()), other(batch()))


def test_optimizer_state_of_a_baked_network_fits_a_plain_one():
    model = masked_network()
    bake(model)
    assert [p.shape for p in model.parameters()] == [p.shape for p in network().parameters()]


def test_state_survives_files():
    model, expected = masked_network(), masked_network()(batch())
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    for state in (torch.load(file, weights_only=True), load(save(model.state_dict()))):
        other = masked_network()
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
        other.load_state_dict(state, strict=True)
        assert torch.equal(other(batch()), expected)


def test_masks_move_with_the_model():
    model = masked_network().to("meta")
    assert model[0].weight.device.type == masks(model)["0.weight"].device.type == "meta"
    assert masked_network().to("cpu", torch.float64)[0].weight.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    model = masked_network().to(dtype)
    output = model(batch().to(dtype))
    output.sum().backward()
    assert output.dtype == model[0].weight.dtype == dense_weight(model[0]).grad.dtype == dtype
    assert masks(model)["0.weight"].dtype == torch.bool
    assert sparsity(model) == 0.5
    assert bake(model)[0].weight.dtype == dtype
    layer = nn.Linear(2, 2, dtype=dtype)
    attach(layer, torch.eye(2, dtype=torch.bool))
    assert layer.weight[0, 1] == 0


def test_autocast():
    model = masked_network()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch())
        loss = output.float().square().sum()
    loss.backward()
    assert output.dtype == torch.bfloat16
    assert model[0].weight.dtype == torch.float32
    assert not dense_weight(model[0]).grad[~masks(model)["0.weight"]].any()
    torch.testing.assert_close(output.float(), model(batch()), atol=0.02, rtol=0.02)


def test_compile():
    model = masked_network()
    before_forward(model, lambda model: None)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(batch()), model(batch()))
    compiled(batch()).sum().backward()
    set_masks(model, {"0.weight": torch.zeros(3, 4, dtype=torch.bool)})
    assert torch.equal(compiled(batch()), model(batch()))
    torch.compiler.reset()


DDP = """
import sys, torch
from torch import distributed, nn
from prunebook.masking import attach_all, masks, sparsity

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(rank)
model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
attach_all(model, lambda weight: torch.rand_like(weight) > 0.5)  # differs by rank: DDP sends rank 0's
parallel = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
for step in range(3):
    optimizer.zero_grad()
    parallel(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
for tensor in [*masks(model).values(), *model.state_dict().values(), model[0].weight.detach()]:
    both = [torch.empty_like(tensor) for _ in range(2)]
    distributed.all_gather(both, tensor.contiguous())
    assert torch.equal(*both)
assert not model[0].weight[~masks(model)["0.weight"]].any() and 0 < sparsity(model) < 1
distributed.destroy_process_group()
"""


def test_two_processes(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(masking.__file__).parents[1]),
        "GLOO_SOCKET_IFNAME": LOOPBACK,
    }
    command = [sys.executable, "-W", "error", "-c", DDP]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")], env=environment, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=60)[1].decode() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors


def test_masks_work_inside_attention():
    attention = nn.MultiheadAttention(4, 2)
    attach_all(attention, lambda weight: torch.zeros_like(weight, dtype=torch.bool))
    x = torch.randn(3, 1, 4)
    assert torch.equal(attention(x, x, x)[0], attention.out_proj.bias.expand(3, 1, 4))
    bake(attention)
    assert type(attention.out_proj) is nn.modules.linear.NonDynamicallyQuantizableLinear


def test_non_contiguous_weight():
    layer = nn.Linear(2, 3, bias=False)
    layer.weight = nn.Parameter(torch.arange(1.0, 7).view(2, 3).t())
    mask = torch.tensor([[True, False], [True, True], [False, True]])
    attach(layer, mask)
    assert layer.weight.tolist() == [[1, 0], [2, 5], [0, 6]]
    bake(layer)
    assert layer.weight.tolist() == [[1, 0], [2, 5], [0, 6]]


def linear():
    return nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("make", "mask", "name", "message"),
    [
        (linear, torch.ones(3, 2, dtype=torch.bool), "weight", r"shape of its parameter.*\[2, 3\].*\[3, 2\]"),
        (linear, torch.ones(3, dtype=torch.bool), "weight", "shape of its parameter"),
        (linear, Mask(torch.ones(3, dtype=torch.bool)), "weight", "shape of its parameter"),
        (linear, torch.ones(2, 3), "weight", "torch.bool, got torch.float32"),
        (linear, torch.ones(2, 3, dtype=torch.bool, device="meta"), "weight", "device of its parameter, cpu"),
        (lambda: linear().to("meta"), torch.ones(2, 3, dtype=torch.bool), "weight", "device.*meta, got cpu"),
        (linear, torch.ones(2, dtype=torch.bool), "nose", r"\['weight', 'bias'\], got 'nose'"),
        (lambda: nn.Linear(3, 2, bias=False), torch.ones(2, dtype=torch.bool), "bias", "got 'bias'"),
        (lambda: nn.LazyLinear(2), torch.ones(2, 3, dtype=torch.bool), "weight", "lazily initialised"),
    ],
)
def test_attach_refuses(make, mask, name, message):
    layer = make()
    with pytest.raises(ValueError, match=message):
        attach(layer, mask, name)
    assert not parametrize.is_parametrized(layer)


def test_integer_weights_are_refused():
    layer = nn.Linear(3, 2)
    layer.weight = nn.Parameter(torch.ones(2, 3, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"floating-point weights to be pruned, got torch\.int8"):
        attach(layer, torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"layer '0' must have floating-point"):
        attach_all(nn.Sequential(layer), every_other)


def test_double_attach_is_refused():
    model = masked_network()
    with pytest.raises(ValueError, match="weight must be without mask, has a Mask"):
        attach(model[0], torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="must be without mask"):
        attach_all(model, every_other)
    tied = Tied()
    attach(tied.first, torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="must be without mask"):
        attach_all(tied, every_other)


def test_bake_and_harden_without_mask_are_refused():
    with pytest.raises(ValueError, match="model must have masks"):
        bake(network())
    with pytest.raises(ValueError, match="model must have masks"):
        harden(bake(masked_network()))


def test_models_without_layers_to_mask_are_refused():
    with pytest.raises(ValueError, match="must have a linear or convolution layer"):
        attach_all(nn.ReLU(), every_other)
    with pytest.raises(ValueError, match=r"must have a linear or convolution layer.*skip=\['0', '2'\]"):
        attach_all(network(), every_other, skip=["0", "2"])
    with pytest.raises(ValueError, match=r"skip must name layers out of \['0', '2'\], got \['fc'\]"):
        attach_all(network(), every_other, skip=["0", "fc"])
    with pytest.raises(ValueError, match="layer '0' must have its weights, got a lazily"):
        maskable(nn.Sequential(nn.LazyLinear(2)))


def test_set_masks_refuses():
    model = network()
    with pytest.raises(ValueError, match="got 'nose'"):
        set_masks(model, {"0.nose": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ValueError, match="shape of its parameter"):
        set_masks(model, {"0.weight": torch.ones(4, 3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"names of parameters of the model, got 'fc\.weight'"):
        set_masks(model, {"fc.weight": torch.ones(3, 4, dtype=torch.bool)})
    attach(model[2], Soft())
    with pytest.raises(ValueError, match=r"2\.weight must have a constant mask or none, has a Soft: harden"):
        set_masks(model, {"0.weight": every_other(model[0].weight), "2.weight": every_other(model[2].weight)})
    assert list(masks(model)) == ["2.weight"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=18, max_size=18))
def test_bake_is_exact_for_any_mask(bits):
    model, bits = network(), torch.tensor(bits)
    wanted = {"0.weight": bits[:12].view(3, 4), "2.weight": bits[12:].view(2, 3)}
    dense = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    set_masks(model, wanted)
    assert all(torch.equal(mask, wanted[name]) for name, mask in masks(model).items())
    assert sparsity(model) == int((~bits).sum()) / 18
    bake(model)
    for name, mask in wanted.items():
        assert torch.equal(model.get_parameter(name), dense[name].where(mask, torch.zeros(())))
