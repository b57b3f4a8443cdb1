"""Linear layers as CSR: what is stored, the same outputs as dense, a plain module's life, what is refused."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shrinking.nets import linear
from small import network, normal
from torch import nn

import prunebook as pb
from prunebook.tools.costs import stored_bytes
from prunebook.tools.csr import BREAK_EVEN, CSRLinear, break_even, to_csr


def test_stores_the_weights_their_columns_and_the_starts_of_rows():
    layer = CSRLinear(linear([[0.0, 5.0, 0.0], [0.0, 0.0, 0.0], [2.0, 0.0, -3.0]], [1.0, 2.0, 3.0]))
    assert layer.values.tolist() == [5, 2, -3]
    assert layer.col.tolist() == [1, 0, 2]
    assert layer.crow.tolist() == [0, 1, 1, 3]
    assert layer(torch.tensor([[1.0, 10.0, 100.0]])).tolist() == [[51, 2, -295]]
    assert layer.weight.to_dense().tolist() == [[0, 5, 0], [0, 0, 0], [2, 0, -3]]
    assert "3, 3, weights=3" in repr(layer)


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 5),
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 99),
)
def test_any_pattern_gives_what_dense_gives(inputs, outputs, batch, density, bias, seed):
    weight = normal(outputs, inputs, seed=seed)
    weight *= torch.rand(outputs, inputs, generator=torch.Generator().manual_seed(seed)) < density
    dense = linear(weight, normal(outputs) if bias else None)
    x = normal(batch, inputs, seed=seed + 1)
    fast = to_csr(dense, above=0)
    assert isinstance(fast, CSRLinear)
    torch.testing.assert_close(fast(x), dense(x), rtol=0, atol=1e-12)
    for shaped in (x[None], x.view(batch, 1, 1, inputs), x.T.contiguous().T):
        torch.testing.assert_close(fast(shaped), dense(shaped), rtol=0, atol=1e-12)


def test_layers_without_a_weight_say_their_bias():
    fast = CSRLinear(linear(torch.zeros(2, 3), [1.0, -1.0]))
    assert fast(torch.randn(2, 3)).tolist() == [[1, -1], [1, -1]]
    assert CSRLinear(linear(torch.zeros(2, 3)))(torch.ones(3)).tolist() == [0, 0]


def test_only_sparse_linear_layers_are_converted_and_the_model_stays():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 3))
    pb.prune_weights(model, 95, skip=["4"])
    before = copy.deepcopy(model.state_dict())
    fast = to_csr(model.eval())
    kinds = [type(layer) for layer in fast]
    assert kinds == [nn.Conv2d, nn.Flatten, CSRLinear, nn.ReLU, nn.Linear]
    assert not pb.masks(fast)
    assert not any(module.training for module in fast.modules())
    images = torch.randn(4, 1, 4, 4)
    torch.testing.assert_close(fast(images), model(images))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_above_is_the_share_of_zeros_at_which_a_layer_is_converted():
    layer = linear(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert isinstance(to_csr(layer, above=0.75), CSRLinear)
    assert isinstance(to_csr(layer, above=0.76), nn.Linear)
    assert isinstance(to_csr(layer), CSRLinear) is (BREAK_EVEN <= 0.75)


def test_a_layer_used_twice_stays_one_layer():
    shared = linear(torch.eye(4))
    fast = to_csr(nn.Sequential(shared, nn.Sequential(nn.Tanh(), shared), shared), above=0.5)
    assert fast[0] is fast[1][1] is fast[2]
    assert isinstance(fast[0], CSRLinear)


def test_attention_which_reads_weights_itself_still_works():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    fast, x = to_csr(model, above=0), torch.randn(3, 5, 8)
    assert isinstance(fast.linear1, CSRLinear)
    assert isinstance(fast.self_attn.out_proj, nn.Linear)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)


def test_lives_as_a_plain_module_does():
    fast = to_csr(pb.prune_weights(network(), 90), above=0)
    x = torch.randn(5, 6)
    expected = fast(x)
    assert torch.equal(copy.deepcopy(fast)(x), expected)
    assert not list(fast.parameters())
    torch.testing.assert_close(fast.double()(x.double()), expected.double())
    assert fast[0].crow.dtype == torch.int32
    file = io.BytesIO()
    torch.save(fast.float().state_dict(), file)
    file.seek(0)
    other = to_csr(pb.prune_weights(network(), 90), above=0)
    other[0].values.zero_()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), expected)


def test_takes_the_bytes_that_costs_promise():
    net = pb.bake(pb.prune_weights(network(), 90))
    assert stored_bytes(to_csr(net, above=0)).dense == stored_bytes(net).csr


def test_masks_that_learn_must_be_hardened_first():
    net = network()
    pb.SoftPruning(net, 50, relative_tau=0.1)
    with pytest.raises(ValueError, match=r"hardened masks, got SoftMask: call harden\(model\)"):
        to_csr(net)
    pb.harden(net)
    torch.testing.assert_close(to_csr(net, above=0)(torch.ones(1, 6)), net(torch.ones(1, 6)))


CPU = "model must have weights of 32 or 64 bits for CSR on the CPU, got"


@pytest.mark.parametrize(
    ("where", "above", "message"),
    [
        ("cpu", -0.1, "above must be a share, at least 0 and at most 1, got -0.1"),
        ("cpu", 1.1, "above must be a share, at least 0 and at most 1, got 1.1"),
        ("cpu", math.nan, "above must be a share, at least 0 and at most 1, got nan"),
        ("meta", 0, r"model must be on one of \('cpu', 'cuda'\) for CSR, got meta"),
        (torch.float16, 0, f"{CPU} torch.float16"),
        (torch.bfloat16, 0, f"{CPU} torch.bfloat16"),
    ],
)
def test_what_cannot_be_converted_is_refused(where, above, message):
    with pytest.raises(ValueError, match=message):
        to_csr(network().to(where), above)


def test_break_even_lies_between_two_points_of_the_logarithm():
    assert break_even([50, 80, 90], [0.25, 0.5, 2.0]) == 85
    assert break_even([0, 10], [0.5, 4.0]) == pytest.approx(10 / 3)
    assert break_even([0, 10, 20], [0.5, 1.0, 4.0]) == 10
    for faster in ([0.5, 0.9], [1.5, 2.0]):
        with pytest.raises(ValueError, match="faster must pass 1 on its way"):
            break_even([0, 10], faster)
