import warnings

import pytest
import torch
from test_masking import attach_all, masked_network, network, ones
from torch import nn

import prunebook as pb
from prunebook.cover import coverage, sparsity
from prunebook.layers import dense_weight
from prunebook.masking import bake, set_masks


def test_sparsity_by_hand():
    model = masked_network()
    assert sparsity(model) == 9 / 18  # no biases
    set_masks(model, {"2.weight": torch.zeros(2, 3, dtype=torch.bool)})
    assert sparsity(model) == (6 + 6) / 18
    assert sparsity(model, per_layer=True) == {"0": 0.5, "2": 1.0}
    plain = network()
    assert sparsity(plain) == 0
    plain[0].weight.detach()[0] = 0
    assert sparsity(plain) == 4 / 18  # without masks, exact zeros count
    attach_all(plain, lambda weight: ones(*weight.shape))
    assert sparsity(plain) == 0  # with masks, a zero that is kept does not
    assert sparsity(nn.ReLU()) == 0


def test_sparsity_is_exact_beyond_what_a_float_counts():
    layer = nn.Linear(4099, 4099, bias=False, device="meta")
    layer.to_empty(device="cpu")
    nn.init.zeros_(layer.weight)
    layer.weight.detach()[0, 0] = 1
    n = 4099**2  # 25,000 above 2^24
    assert sparsity(layer) == (n - 1) / n


class Conv1D(nn.Module):
    """A linear layer with its weight the other way round, as in GPT-2."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(inputs, outputs)),
            nn.Parameter(torch.zeros(outputs)),
        )

    def forward(self, x):
        return x @ self.weight + self.bias


def recurrent():
    return nn.ModuleDict({"lstm": nn.LSTM(8, 8), "out": nn.Linear(8, 5)})


NETWORKS = {
    "attention": lambda: nn.TransformerEncoderLayer(16, 2, 32),
    "a layer of one's own": lambda: nn.Sequential(
        Conv1D(10, 20), nn.ReLU(), Conv1D(20, 10), nn.Linear(10, 5)
    ),
    "recurrent": recurrent,
    "embedding": lambda: nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3)),
}


def truly_zero(net):
    weights = [p for p in bake(net).parameters() if p.dim() > 1]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("prune", [pb.prune_weights, pb.prune_units, pb.SoftPruning, pb.prune_gradually])
@pytest.mark.filterwarnings("ignore:torch.fx cannot trace")
@pytest.mark.filterwarnings("ignore:k=90 would leave no unit")
def test_sparsity_never_claims_more_than_is_true_and_one_warning_names_what_has_no_mask(make, prune):
    torch.manual_seed(0)
    net = make()
    options = {"outputs": []} if prune is pb.prune_units else {}
    with pytest.warns(UserWarning, match=r"masks cover [\d,]+ weights, but [\d,]+ have none: ") as caught:
        schedule = prune(net, 90, **options)
    said = [each for each in caught if "masks cover" in str(each.message)]
    assert len(said) == 1
    assert said[0].filename == __file__
    if prune is pb.prune_gradually:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            schedule(0.5)  # said once
    pb.harden(net)
    rows = coverage(net)
    bare = sum(row.weights for row in rows if not row.masked)
    assert f"but {bare:,} have none" in str(said[0].message)
    assert all(row.parameter in str(said[0].message) for row in rows if not row.masked)
    claimed = sparsity(net)
    assert claimed == pytest.approx(truly_zero(net), abs=1e-12)
    assert claimed < 0.9


def test_coverage_by_hand():
    net = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3), nn.Linear(3, 3), nn.LayerNorm(3))
    net.append(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    pb.prune_weights(net, 50, skip=["0", "2", "4"])
    assert coverage(net) == [
        ("0.weight", 40, False, "no method prunes this parameter of Embedding: use attach"),
        ("1.weight", 12, True, "has a mask"),
        ("2.weight", 9, False, "was skipped, or not pruned yet"),
        ("4.weight", 6, False, "is computed by a parametrization that is no mask"),
    ]
    assert sparsity(net) == 6 / 67
    assert sparsity(net, per_layer=True) == {"0": 0, "1": 0.5, "2": 0, "4": 0}


def test_masks_of_other_packages_are_counted_once():
    layer = nn.Linear(4, 4)
    nn.utils.prune.l1_unstructured(layer, "weight", amount=0.5)
    assert sparsity(layer) == 0.5
    assert [row.parameter for row in coverage(layer)] == ["weight"]


def test_attach_covers_what_no_method_does():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    pb.prune_weights(layer, 90, skip="self_attn")
    name = "self_attn.in_proj_weight"
    pb.set_masks(layer, {name: torch.rand(48, 16) > 0.9})
    assert all(row.masked for row in coverage(layer))
    claimed, x = sparsity(layer), torch.randn(2, 5, 16)
    with torch.no_grad():  # torch's fast path, which reads the weights of its parts
        fast = layer(x)
    torch.testing.assert_close(fast, layer(x))
    torch.testing.assert_close(fast, bake(layer)(x))
    weights = [p for p in layer.parameters() if p.dim() > 1]
    assert claimed == sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights) > 0.85


def test_masks_work_inside_recurrent_layers():
    torch.manual_seed(0)
    lstm, x = nn.LSTM(3, 4), torch.randn(5, 2, 3)
    keep = torch.rand(16, 4) > 0.5
    pb.attach(lstm, keep, "weight_hh_l0")
    masked = lstm(x)[0]
    masked.sum().backward()
    assert not dense_weight(lstm, "weight_hh_l0").grad[~keep].any()
    bake(lstm)
    assert torch.equal(lstm(x)[0], masked)
    assert not lstm.weight_hh_l0[~keep].any()


@pytest.mark.parametrize("prune", [pb.prune_weights, pb.prune_units, pb.SoftPruning, pb.prune_gradually])
def test_a_percentage_that_looks_like_a_share_is_warned_of(prune):
    with pytest.warns(UserWarning, match=r"k is in percent: k=0\.9 means 0\.9 %, not 90 %") as caught:
        prune(network(), 0.9)
    assert [each.filename for each in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for k in (0, 1, 60):
            prune(network(), k)
