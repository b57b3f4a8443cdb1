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


def test_this_machine_has_its_cpu_last():
    assert devices.available()[-1] == "cpu"


def test_a_tensor_can_be_made_on_the_chosen_device():
    assert torch.zeros(2, device=pb.device()).sum().item() == 0


@pytest.mark.parametrize(
    ("names", "best"),
    [(["cuda:0", "cuda:1", "mps", "cpu"], "cuda"), (["mps", "cpu"], "mps"), (["cpu"], "cpu")],
)
def test_cuda_comes_before_mps_and_mps_before_the_cpu(names, best, monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: names)
    assert pb.device() == torch.device(best)


@pytest.mark.parametrize("wish", ["cpu", "cuda", "cuda:1", "mps", " CPU "])
def test_the_environment_overrides_the_choice(wish, rich_machine, monkeypatch):
    monkeypatch.setenv("PRUNEBOOK_DEVICE", wish)
    assert pb.device() == torch.device(wish.strip().lower())


@pytest.mark.parametrize("wish", ["cuda:2", "gpu", "tpu"])
def test_an_impossible_wish_lists_what_there_is(wish, rich_machine, monkeypatch):
    monkeypatch.setenv("PRUNEBOOK_DEVICE", wish)
    with pytest.raises(ValueError, match=f"'{wish}' is not on this machine.*cuda:0, cuda:1, mps, cpu"):
        pb.device()


def test_an_empty_wish_is_none(rich_machine, monkeypatch):
    monkeypatch.setenv("PRUNEBOOK_DEVICE", "")
    assert pb.device() == torch.device("cuda")
