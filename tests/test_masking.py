import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Own, layer_of
from torch import nn
from torch.nn.utils import parametrize

from prunebook.cover import sparsity
from prunebook.layers import dense_weight, maskable
from prunebook.masking import Mask, attach, attach_all, bake, harden, masks, set_masks

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


def tied():
    """Two linear layers and an embedding with one weight."""
    layers = {"first": nn.Linear(3, 3), "second": nn.Linear(3, 3), "table": nn.Embedding(3, 3)}
    layers["second"].weight = layers["table"].weight = layers["first"].weight
    return Own(lambda self, x: self.second(self.first(x + self.table.weight)), **layers)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def ones(*shape, **options):
    return torch.ones(shape, **{"dtype": torch.bool} | options)


def every_other(weight):
    return torch.arange(weight.numel()).view(weight.shape) % 2 == 0


def masked_network():
    model = network()
    attach_all(model, every_other)
    attach(model[0], torch.tensor([True, False, True]), "bias")
    return model


def batch(rows=5):
    return torch.linspace(-1, 1, rows * 4).view(rows, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_mask_of_every_other_weight(dtype, device):
    layer = layer_of([[1.0, -2.0], [3.0, 4.0]]).to(device, dtype)
    nn.init.zeros_(layer.bias)
    attach(layer, torch.eye(2, dtype=torch.bool, device=device))
    assert layer.weight.tolist() == [[1, 0], [0, 4]]
    output = layer(torch.ones(1, 2, device=device, dtype=dtype))
    assert output.tolist() == [[1, 4]]
    output.sum().backward()
    assert dense_weight(layer).grad.tolist() == [[1, 0], [0, 1]]
    assert output.dtype == layer.weight.dtype == dense_weight(layer).grad.dtype == dtype
    assert sparsity(layer) == 0.5


def test_masked_weights_are_zeros_without_a_sign(device):
    masked = Mask(torch.tensor([False, True], device=device))(torch.tensor([-1.0, -1.0], device=device))
    assert torch.signbit(masked).tolist() == [False, True]


def test_a_mask_is_a_copy_of_the_tensor():
    mask = torch.tensor([True, False])
    module = Mask(mask)
    mask[:] = False
    module.kept(torch.ones(2))[:] = False
    assert module.kept(torch.ones(2)).tolist() == [True, False]


def test_masks_are_named_copies_that_set_masks_takes_back():
    model, other = masked_network(), network()
    found = masks(model)
    assert list(found) == ["0.weight", "0.bias", "2.weight"]
    assert found["0.bias"].tolist() == [True, False, True]
    assert found["0.weight"].dtype == torch.bool
    set_masks(other, found)
    assert torch.equal(model(batch()), other(batch()))
    buffer = other[0].parametrizations.weight[0].mask
    set_masks(other, {name: ~mask for name, mask in found.items()})
    assert all(torch.equal(mask, ~found[name]) for name, mask in masks(other).items())
    assert other[0].parametrizations.weight[0].mask is buffer


def test_parametrizations_of_other_origin_are_left_alone():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2))
    assert masks(model) == {}
    assert sparsity(model) == 0
    attach_all(model, every_other, skip=["0"])
    bake(model)
    assert parametrize.is_parametrized(model[0])
    assert sparsity(model) == 0.25
    with pytest.raises(ValueError, match="must be without mask, has a _WeightNorm"):
        attach(model[0], ones(2, 2))
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
    assert keys == ["weight", "parametrizations.weight.0.mask"]
    assert list(layer.state_dict()) == keys


def test_masks_of_a_deepcopy_come_and_go_by_themselves():
    model = masked_network()
    twin = copy.deepcopy(model)
    attach(twin[2], torch.tensor([True, False]), "bias")
    assert list(masks(model)) == ["0.weight", "0.bias", "2.weight"]
    assert model[2].bias.all()
    bake(model)
    assert list(masks(twin)) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert twin[2].bias[1] == 0


def test_shared_weights_share_one_mask_and_one_parameter():
    model = tied()
    made = attach_all(model, every_other)
    assert list(made) == ["first"]
    assert len(list(model.parameters())) == 3
    slots = [layer.parametrizations.weight for layer in (model.first, model.second, model.table)]
    assert all(slot[0] is made["first"] for slot in slots)
    assert sparsity(model) == 4 / 9
    set_masks(model, {"second.weight": torch.zeros(3, 3, dtype=torch.bool)})
    assert not model.table.weight.any()
    assert not masks(model)["first.weight"].any()
    other = tied()
    set_masks(other, {"second.weight": every_other(other.first.weight)})
    assert len(masks(other)) == 3


@pytest.mark.parametrize("mask", [lambda w: every_other(w), lambda w: Soft()])
def test_shared_weights_survive_copy_harden_and_bake(mask):
    model = tied()
    attach_all(model, mask)
    model = copy.deepcopy(model)
    assert harden(model).first.parametrizations.weight[0] is model.second.parametrizations.weight[0]
    expected = model(torch.ones(3))
    bake(model)
    assert model.first.weight is model.second.weight
    assert model.first.weight is model.table.weight
    assert type(model.table) is nn.Embedding
    assert torch.equal(model(torch.ones(3)), expected)
    tied().load_state_dict(model.state_dict(), strict=True)


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


def test_masks_move_with_the_model():
    model = masked_network().to("meta")
    assert model[0].weight.device.type == masks(model)["0.weight"].device.type == "meta"
    assert masked_network().to("cpu", torch.float64)[0].weight.dtype == torch.float64


def test_compile():
    model = masked_network()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(batch()), model(batch()))
    compiled(batch()).sum().backward()
    set_masks(model, {"0.weight": torch.zeros(3, 4, dtype=torch.bool)})
    assert torch.equal(compiled(batch()), model(batch()))
    torch.compiler.reset()


class Broken(nn.Module):
    def forward(self, w):
        raise RuntimeError("no mask after all")

    def kept(self, w):
        return w > 0


def test_a_mask_that_fails_leaves_the_layer_as_it_was():
    layer = nn.Linear(3, 2)
    weight = layer.weight
    with pytest.raises(RuntimeError, match="no mask after all"):
        attach(layer, Broken())
    assert layer.weight is weight
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert not list(layer.buffers())


def test_others_find_the_parameter_where_torch_keeps_it():
    layer = attach(nn.Linear(3, 2), ones(2, 3))
    for each in (layer, copy.deepcopy(layer)):
        (masks_of,) = each.parametrizations.values()
        assert masks_of.original is dense_weight(each)
    with pytest.raises(
        ValueError, match="weight must be without mask to be parametrized, has a mask: bake it"
    ):
        parametrize.register_parametrization(layer, "weight", nn.Identity())
    weight = dense_weight(layer)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    assert layer.weight is weight


def test_a_masked_layer_is_reset_as_a_plain_one():
    layer, plain = attach(nn.Linear(3, 2), every_other(torch.ones(2, 3))), nn.Linear(3, 2)
    for each in (layer, plain):
        torch.manual_seed(1)
        each.reset_parameters()
    assert torch.equal(dense_weight(layer), plain.weight)
    assert torch.equal(layer.bias, plain.bias)
    assert layer.weight.tolist() == (plain.weight * every_other(plain.weight)).tolist()


def test_masks_work_inside_attention():
    attention = nn.MultiheadAttention(4, 2)
    attach_all(attention, lambda weight: torch.zeros_like(weight, dtype=torch.bool))
    x = torch.randn(3, 1, 4)
    assert torch.equal(attention(x, x, x)[0], attention.out_proj.bias.expand(3, 1, 4))
    bake(attention)
    assert type(attention.out_proj) is nn.modules.linear.NonDynamicallyQuantizableLinear


def linear(**options):
    return nn.Linear(3, 2, **options)


def integers():
    layer = nn.Linear(3, 2)
    layer.weight = nn.Parameter(torch.ones(2, 3, dtype=torch.int8), requires_grad=False)
    return layer


@pytest.mark.parametrize(
    ("make", "mask", "name", "message"),
    [
        (linear, ones(3, 2), "weight", r"shape of its parameter.*\[2, 3\].*\[3, 2\]"),
        (linear, ones(3), "weight", "shape of its parameter"),
        (linear, Mask(ones(3)), "weight", "shape of its parameter"),
        (linear, ones(2, 3, dtype=torch.float32), "weight", "torch.bool, got torch.float32"),
        (linear, ones(2, 3, device="meta"), "weight", "device of its parameter, cpu"),
        (lambda: linear(device="meta"), ones(2, 3), "weight", "device.*meta, got cpu"),
        (linear, ones(2), "nose", r"\['weight', 'bias'\], got 'nose'"),
        (lambda: linear(bias=False), ones(2), "bias", "got 'bias'"),
        (lambda: nn.LazyLinear(2), ones(2, 3), "weight", "lazily initialised"),
        (integers, ones(2, 3), "weight", r"floating-point weights to be pruned, got torch\.int8"),
    ],
)
def test_attach_refuses(make, mask, name, message):
    layer = make()
    with pytest.raises(ValueError, match=message):
        attach(layer, mask, name)
    assert not parametrize.is_parametrized(layer)


def partly_masked():
    model = tied()
    attach(model.first, ones(3, 3))
    return model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attach(masked_network()[0], ones(3, 4)), "weight must be without mask, has a Mask"),
        (lambda: attach_all(masked_network(), every_other), "must be without mask"),
        (lambda: attach_all(partly_masked(), every_other), "must be without mask"),
        (lambda: attach_all(network(), every_other, ["0", "2"]), r"layer to prune.*skip=\['0', '2'\]"),
        (
            lambda: attach_all(network(), every_other, ["0", "fc"]),
            r"out of \['0', '2'\], or patterns .* got \['fc'\]",
        ),
        (lambda: maskable(nn.Sequential(nn.LazyLinear(2))), "layer '0' must have its weights, got a lazily"),
        (lambda: bake(network()), "model must have masks"),
        (lambda: harden(bake(masked_network())), "model must have masks"),
        (lambda: set_masks(network(), {"0.nose": ones(1)}), "got 'nose'"),
        (lambda: set_masks(network(), {"0.weight": ones(4, 3)}), "shape of its parameter"),
        (lambda: set_masks(network(), {"fc.weight": ones(3, 4)}), r"of the model, got 'fc\.weight'"),
    ],
)
def test_models_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_set_masks_refuses_before_it_changes_anything():
    model = network()
    attach(model[2], Soft())
    with pytest.raises(ValueError, match=r"2\.weight must have a constant mask or none, has a Soft: harden"):
        set_masks(model, {"0.weight": ones(3, 4), "2.weight": ones(2, 3)})
    assert list(masks(model)) == ["2.weight"]


@settings(max_examples=50)
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
