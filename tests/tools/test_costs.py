import pytest
import torch
from shrinking.nets import linear
from torch import nn

from prunebook.masking import attach
from prunebook.shrinking.effective import effective_weights
from prunebook.tools.costs import (
    Macs,
    costs,
    count_weights,
    latencies,
    latency,
    macs,
    stored_bytes,
)


def perceptron():
    """Unit 0 is whole; unit 1 has no way out; unit 2 has no way in."""
    first = linear([[1.0, 1], [1, 0], [0, 0]], [1.0, 1, 1])
    return nn.Sequential(first, nn.ReLU(), linear([[1.0, 0, 1], [0, 0, 1]], [1.0, 1]))


def test_counts_by_hand():
    model = perceptron()
    counts = count_weights(model)
    assert (counts.weights, counts.kept, counts.effective) == (12, 6, 3)
    assert (counts.biases, counts.other) == (5, 0)
    counts = count_weights(nn.Sequential(model, nn.BatchNorm1d(2)))
    assert (counts.biases, counts.other) == (5, 4)


def test_masks_and_shared_weights_count_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    attach(model[0], torch.arange(16).view(4, 4) % 2 == 0)
    assert (count_weights(model).weights, count_weights(model).kept) == (32, 24)
    shared = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    shared[2].weight = shared[0].weight
    assert (count_weights(shared).weights, effective_weights(shared)) == (16, 16)
    assert (count_weights(shared).biases, count_weights(shared).other) == (8, 0)
    assert macs(shared, torch.zeros(1, 4)) == Macs(32, 32)


def test_macs_by_hand():
    model = nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, groups=3), nn.ConvTranspose2d(3, 2, 2, stride=2)),
        *(nn.Flatten(), nn.Linear(2 * 4 * 4, 5)),
    )
    dense = 16 * 2 * 3 * 9 + 4 * 3 * 9 + 4 * 3 * 2 * 4 + 32 * 5
    assert macs(model, torch.zeros(3, 2, 4, 4)) == Macs(dense, dense)
    with torch.no_grad():
        model[0].weight[0] = 0
        model[4].weight[:, ::2] = 0
    assert macs(model, torch.zeros(3, 2, 4, 4)).nonzero == dense - 16 * 2 * 9 - 16 * 5


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_bytes_are_those_of_the_formats():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(13, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)).double()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight *= torch.rand_like(layer.weight) < 0.3
    weights = [model[0].weight.detach(), model[2].weight.detach()]
    state = model.state_dict().values()
    dense = sum(tensor.numel() * tensor.element_size() for tensor in state)
    rest = dense - 8 * (91 + 21)
    compressed = [weight.to_sparse_csr() for weight in weights]
    csr = sum(4 * c.crow_indices().numel() + (4 + 8) * c.values().numel() for c in compressed)
    bitmask = sum(-(-weight.numel() // 8) + 8 * int(weight.count_nonzero()) for weight in weights)
    assert vars(stored_bytes(model)) == {"dense": dense, "csr": rest + csr, "bitmask": rest + bitmask}


def test_latency_restores_modes_and_has_quartiles():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train()
    model[0].eval()
    timed = latency(model, torch.zeros(6, 4), rounds=8)
    assert 0 < timed.lower <= timed.median <= timed.upper
    assert (timed.batch, timed.threads) == (6, torch.get_num_threads())
    assert [module.training for module in model.modules()] == [True, False, True]


def test_latencies_time_every_model_in_every_round():
    models, turns = {name: nn.Linear(4, 4).train() for name in "ab"}, []
    for model in models.values():
        model.register_forward_hook(
            lambda layer, *_: turns.append((layer, layer.training, torch.is_inference_mode_enabled()))
        )
    times = latencies(models, torch.rand(2, 4), 9)
    assert turns == [(models[name], False, True) for name in "aabb"] * (3 + 9)
    assert all(each.shape == (9,) and (each > 0).all() for each in times.values())
    assert all(model.training for model in models.values())


def test_costs_gather_all():
    model = perceptron()
    found = costs(model, torch.zeros(3, 2), batches=(1, 8), rounds=3)
    assert (found.weights, found.kept, found.effective) == (12, 6, 3)
    assert found.macs == Macs(12, 6)
    assert found.bytes == stored_bytes(model)
    assert [timed.batch for timed in found.latency] == [1, 8]


def test_costs_refuse_what_they_cannot_measure():
    with pytest.raises(ValueError, match="images must hold at least one, got none"):
        costs(nn.Linear(2, 2), torch.zeros(0, 2))
    for measure in (latency, lambda model, *given: latencies({"a": model}, *given)):
        with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
            measure(nn.Linear(2, 2), torch.zeros(1, 2), 0)
