from itertools import pairwise

import pytest
import torch
from torch import nn

from prunebook.masking import attach
from prunebook.tools.costs import Macs, costs, count, effective, latency, macs, race, stored


def perceptron(first, second):
    """A network with one hidden layer and these weights."""
    model = nn.Sequential(
        nn.Linear(len(first[0]), len(first)), nn.ReLU(), nn.Linear(len(second[0]), len(second))
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(first))
        model[2].weight.copy_(torch.tensor(second))
    return model


def test_counts_by_hand():
    # Unit 0 is whole; unit 1 has no way out; unit 2 has no way in.
    model = perceptron([[1.0, 1], [1, 0], [0, 0]], [[1.0, 0, 1], [0, 0, 1]])
    counts = count(model)
    assert (counts.weights, counts.kept, counts.effective) == (12, 6, 3)
    assert (counts.biases, counts.other) == (5, 0)


def brute_force(*weights):
    """Effective weights of a chain: those through which a path of ones leads."""
    linked = [(weight != 0).double() for weight in weights]
    reached = [torch.ones(linked[0].shape[1]).double()]
    for link in linked:
        reached.append(link @ reached[-1])
    left = torch.ones(linked[-1].shape[0]).double()
    total = 0
    for link, before in zip(reversed(linked), reversed(reached[:-1]), strict=True):
        total += int(((left[:, None] * link * before) > 0).sum())
        left = left @ link
    return total


@pytest.mark.parametrize("density", [0.05, 0.1, 0.2, 0.5, 1.0])
def test_effective_weights_are_those_on_paths(density):
    torch.manual_seed(0)
    sizes = [12, 9, 9, 7, 4]
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    with torch.no_grad():
        for layer in layers:
            layer.weight *= torch.rand_like(layer.weight) < density
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.SiLU())))
    assert effective(model) == brute_force(*(layer.weight for layer in layers))


def test_effective_weights_of_convolutions():
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1, groups=3)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)),
    )
    with torch.no_grad():
        model[0].weight[0] = 0  # 9 weights in channel 0, and its bias that the padding shapes is no path
        model[2].weight[1] = 0
        model[5].weight[:, 32:40] = 0  # half of channel 2
    assert effective(model) == 9 + 9 + 2 * 8
    assert count(model).other == 6


def test_masks_and_shared_weights_count_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    attach(model[0], torch.arange(16).view(4, 4) % 2 == 0)
    assert (count(model).weights, count(model).kept) == (32, 24)
    shared = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    shared[2].weight = shared[0].weight
    assert (count(shared).weights, effective(shared)) == (16, 16)
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
    assert vars(stored(model)) == {"dense": dense, "csr": rest + csr, "bitmask": rest + bitmask}


def test_latency_restores_modes_and_has_quartiles():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train()
    model[0].eval()
    timed = latency(model, torch.zeros(6, 4), repeats=8, warmup=1)
    assert 0 < timed.lower <= timed.median <= timed.upper
    assert (timed.batch, timed.threads) == (6, torch.get_num_threads())
    assert [module.training for module in model.modules()] == [True, False, True]


def test_a_race_times_all_in_every_round_and_the_longer_work_loses():
    small, large = nn.Linear(4, 4), nn.Sequential(*(nn.Linear(400, 400) for _ in range(4))).train()
    turns = []
    for name, model in (("small", small), ("large", large)):
        model.register_forward_hook(
            lambda *_, name=name: turns.append((name, torch.is_inference_mode_enabled()))
        )
    times = race({"small": nn.Sequential(nn.Linear(400, 4), small), "large": large}, torch.rand(200, 400), 9)
    assert times["small"].shape == times["large"].shape == (9,)
    assert (times["small"] > 0).all()
    assert times["large"].median() > times["small"].median()
    assert turns == [("small", True)] * 2 + [("large", True)] * 2 + turns[4:]
    assert turns.count(("small", True)) == turns.count(("large", True)) == 2 * (9 + 3)
    assert all(module.training for module in large.modules())
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        race({}, torch.zeros(1), 0)


def test_costs_gather_all():
    model = perceptron([[1.0, 1], [1, 0], [0, 0]], [[1.0, 0, 1], [0, 0, 1]])
    found = costs(model, torch.zeros(3, 2), batches=(1, 8), repeats=3)
    assert (found.weights, found.kept, found.effective) == (12, 6, 3)
    assert found.macs == Macs(12, 6)
    assert found.bytes == stored(model)
    assert [timed.batch for timed in found.latency] == [1, 8]


def test_costs_refuse_what_they_cannot_measure():
    with pytest.raises(ValueError, match="images: got none"):
        costs(nn.Linear(2, 2), torch.zeros(0, 2))
    with pytest.raises(ValueError, match="repeats: got 0"):
        latency(nn.Linear(2, 2), torch.zeros(1, 2), repeats=0)
