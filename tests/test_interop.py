"""Masks in other training loops: Lightning, where it is installed, two processes with DDP, half precision."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from contract import METHODS
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import prunebook as pb
from prunebook.masking import masks
from prunebook.methods.gates import gates
from prunebook.step_state import states
from prunebook.training.data import source

LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
LEARNED = [name for name in METHODS if name not in ("weights", "units")]


def classes(n=256):
    """Images of 1 x 6 x 6 whose class is the brightest of three pixels."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    images = torch.randn(n, 1, 6, 6, generator=draw)
    images[torch.arange(n), 0, 2, labels] += 3
    return images, labels


def lightning():
    source("mnist")  # Lightning imports torchvision, which load_data knows how to import beside any torch
    return pytest.importorskip("lightning", exc_type=ImportError)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore")  # Lightning's own, of its loggers and workers
def test_lightning(method, tmp_path):
    pl, seen = lightning(), []

    class Lit(pl.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 3))
            self.pruning = METHODS[method](self.net)

        def training_step(self, batch, index):
            seen.append([buffer.clone() for state in states(self.net) for buffer in state.buffers()])
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            return loss + self.pruning.penalty() if hasattr(self.pruning, "penalty") else loss

        def configure_optimizers(self):
            learned = method in LEARNED
            groups = self.pruning.parameter_groups() if learned else self.net.parameters()
            return torch.optim.Adam(groups, lr=0.02)

    lit = Lit()
    before = {name: parameter.detach().clone() for name, parameter in lit.named_parameters()}
    trainer = pl.Trainer(
        max_epochs=10,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(lit, DataLoader(TensorDataset(*classes()), batch_size=16))
    assert all(not torch.equal(p, before[name]) for name, p in lit.named_parameters() if p.requires_grad)
    if method in LEARNED:
        assert all(any(not a.equal(b) for a, b in zip(*pair, strict=True)) for pair in pairwise(seen))
    if "gate" in method:  # gates of one layer have learned different things
        assert all(gate.logit.std() > 0.02 for gate in gates(lit.net).values())
        lit.pruning.freeze()
    images, labels = classes(300)
    accuracy = (pb.harden(lit.net).eval()(images).argmax(1) == labels).float().mean()
    assert accuracy > 0.8
    assert 0.2 < pb.sparsity(lit.net) < 0.9


RANK = """
import sys, torch
import torch.nn.functional as F
from torch import distributed, nn
from contract import METHODS, Net
import prunebook as pb
from prunebook.masking import masks
from prunebook.step_state import states

rank, store, method = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(rank)
net = Net()
pruning = METHODS[method](net)
learned = method not in ("weights", "units")
parallel = nn.parallel.DistributedDataParallel(net)
optimizer = torch.optim.Adam(pruning.parameter_groups() if learned else net.parameters(), lr=0.02)
start = [p.detach().clone() for p in net.parameters()]
for step in range(40):
    x, y = torch.randn(8, 1, 6, 6), torch.arange(8) % 3  # other images in each process
    before = [buffer.clone() for state in states(net) for buffer in state.buffers()]
    loss = F.cross_entropy(parallel(x), y)
    loss = loss + pruning.penalty() if hasattr(pruning, "penalty") else loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    after = [buffer.clone() for state in states(net) for buffer in state.buffers()]
    assert not learned or any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
assert all(not torch.equal(a, p) for a, p in zip(start, net.parameters()) if p.requires_grad)
if "gate" in method:
    assert all(state.logit.std() > 1e-3 for state in states(net))
    pruning.freeze()
for tensor in [*net.parameters(), *masks(net).values(), *masks(pb.harden(net)).values()]:
    both = [torch.empty_like(tensor) for _ in range(2)]
    distributed.all_gather(both, tensor.detach().contiguous())
    assert torch.equal(*both)
assert 0 < pb.sparsity(net) < 1
distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_learn_the_same_masks(method, tmp_path):
    paths = [str(Path(pb.__file__).parents[1]), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "GLOO_SOCKET_IFNAME": LOOPBACK}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-Werror", "-c", RANK, str(rank), str(tmp_path / "store"), method],
            env=environment,
            stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    errors = [rank.communicate()[1].decode() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors


@pytest.mark.slow
def test_half_precision_trains_as_well_as_single(device):
    """300 steps on MNIST-like digits in float16 with GradScaler: finite, and within 10 % of float32."""
    found = {}
    for dtype in (torch.float32, torch.float16):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no MNIST here: the stand-in will do
            data = pb.load_data("mnist", device)
        net = pb.lenet_300_100().to(device)
        pruning = pb.AdaptivePruning(net)
        optimizer = torch.optim.Adam(pruning.parameter_groups(), lr=1e-3)
        scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        draw, losses = torch.Generator().manual_seed(0), []
        for _ in range(300):
            index = torch.randint(len(data.train), (128,), generator=draw).to(device)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype == torch.float16):
                scores = net(data.train.images[index]).float()
                loss = F.cross_entropy(scores, data.train.labels[index]) + pruning.penalty()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(float(loss.detach()))
        assert all(parameter.isfinite().all() for parameter in net.parameters())
        found[dtype] = torch.tensor(losses)
        assert found[dtype].isfinite().all()
        assert masks(net)
    last = [losses[-50:].mean() for losses in found.values()]
    assert abs(last[1] / last[0] - 1) < 0.1, last
