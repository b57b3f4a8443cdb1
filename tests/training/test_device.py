import pytest
import torch

import prunebook as pb
from prunebook.training import device as devices


@pytest.fixture(autouse=True)
def no_wish(monkeypatch):
    monkeypatch.delenv("PRUNEBOOK_DEVICE", raising=False)


@pytest.fixture
def rich_machine(monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: ["cuda:0", "cuda:1", "mps", "cpu"])


def test_this_machine_has_its_cpu_last_and_makes_tensors_on_its_best_device():
    assert devices.available()[-1] == "cpu"
    assert torch.zeros(2, device=pb.device()).sum().item() == 0


@pytest.mark.parametrize(
    ("names", "best"),
    [(["cuda:0", "cuda:1", "mps", "cpu"], "cuda"), (["mps", "cpu"], "mps"), (["cpu"], "cpu")],
)
def test_cuda_comes_before_mps_and_mps_before_the_cpu(names, best, monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: names)
    assert pb.device() == torch.device(best)


@pytest.mark.parametrize(
    ("wish", "chosen"),
    [("cpu", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("mps", "mps"), (" CPU ", "cpu"), ("", "cuda")],
)
def test_the_environment_overrides_the_choice_unless_it_is_empty(wish, chosen, rich_machine, monkeypatch):
    monkeypatch.setenv("PRUNEBOOK_DEVICE", wish)
    assert pb.device() == torch.device(chosen)


@pytest.mark.parametrize("wish", ["cuda:2", "gpu", "tpu"])
def test_an_impossible_wish_lists_what_there_is(wish, rich_machine, monkeypatch):
    monkeypatch.setenv("PRUNEBOOK_DEVICE", wish)
    with pytest.raises(ValueError, match=f"must be one of cuda:0, cuda:1, mps, cpu .*got '{wish}'"):
        pb.device()
