import pytest
import torch
from torch import nn

import prunebook as pb
from prunebook.layers import all_weights, maskable, prunable, skipped
from prunebook.masking import attach, masks


def deep():
    """An encoder of two linear layers, an embedding, and a head."""
    encoder = nn.ModuleDict({"first": nn.Linear(4, 4), "second": nn.Linear(4, 4)})
    return nn.ModuleDict({"table": nn.Embedding(5, 4), "encoder": encoder, "head": nn.Linear(4, 2)})


def test_maskable_finds_all_kinds_by_name():
    kinds = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2), *[kind(1, 1, 1) for kind in kinds], nn.BatchNorm1d(2))
    layer = model[1]
    assert list(maskable(model)) == ["1", "2", "3", "4", "5", "6", "7"]
    assert maskable(model)["1"] is layer
    assert maskable(layer) == {"": layer}
    assert maskable(nn.Sequential(layer, layer)) == {"0": layer}
    attach(layer, torch.ones(2, 2, dtype=torch.bool))
    assert list(masks(layer)) == ["weight"]


@pytest.mark.parametrize(
    ("skip", "names"),
    [
        ((), []),
        ("head", ["head"]),
        ("encoder.*", ["encoder.first", "encoder.second"]),
        (["*.second", "table"], ["encoder.second", "table"]),
        (["head", "h*"], ["head"]),
        (lambda name, layer: isinstance(layer, nn.Embedding), ["table"]),
        (lambda name, layer: name.startswith("encoder"), ["encoder.first", "encoder.second"]),
    ],
)
def test_layers_to_skip_by_name_by_pattern_and_by_function(skip, names):
    assert skipped(deep(), skip) == names
    assert list(prunable(deep(), skip)) == [n for n in maskable(deep()) if n not in names]


@pytest.mark.parametrize("skip", ["encoder", ["head", "hed"], "tabel*", ""])
def test_what_names_no_layer_is_refused(skip):
    with pytest.raises(ValueError, match=r"skip must name layers out of \['table', .* or patterns such as"):
        skipped(deep(), skip)


@pytest.mark.parametrize("skip", [nn.Linear(1, 1), None, 3, [0], ["head", None]])
def test_what_is_no_name_is_refused(skip):
    with pytest.raises(ValueError, match=r"skip must (be|hold) names"):
        skipped(deep(), skip)


def test_the_name_of_a_lone_layer_is_empty():
    assert skipped(nn.Linear(2, 2), "") == [""]


def test_all_weights_are_there_with_and_without_masks():
    net = nn.Sequential(nn.LSTM(2, 3), nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU())
    net.append(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    names = [(path, name) for path, _, name, _ in all_weights(net)]
    assert names == [("0", "weight_ih_l0"), ("0", "weight_hh_l0"), ("1", "weight"), ("4", "weight")]
    pb.GumbelPruning(net, skip=["0", "4"])
    assert [(path, name) for path, _, name, _ in all_weights(net)] == names  # and no logits


def test_shared_weights_are_skipped_together():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert list(prunable(net)) == ["0", "2"]
    assert list(prunable(net, "1")) == ["2"]


def test_a_weight_that_an_embedding_shares_is_skipped_under_either_name():
    net = nn.ModuleDict({"table": nn.Embedding(3, 4), "head": nn.Linear(4, 3), "other": nn.Linear(4, 4)})
    net["table"].weight = net["head"].weight
    assert list(prunable(net)) == ["head", "other"]
    assert list(prunable(net, "table")) == list(prunable(net, "head")) == ["other"]


def test_layers_on_the_meta_device_are_refused():
    with pytest.raises(
        ValueError, match="layer '' must have values to be pruned, got weights on device meta"
    ):
        prunable(nn.Linear(2, 2, device="meta"))
