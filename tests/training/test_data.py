"""Data sets: how they are split and scaled, and what happens to files that are missing or damaged."""

import hashlib
import http.client
import os
import socket
import subprocess
import sys
import textwrap
import urllib.error
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch

import prunebook as pb
from prunebook.experiments.commands import main
from prunebook.training import data


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    monkeypatch.delenv("PRUNEBOOK_OFFLINE", raising=False)
    monkeypatch.setenv("PRUNEBOOK_DEVICE", "cpu")


def write_raw_files(raw):
    """Write 20 images to learn from and 6 to test on, in the format of MNIST; the same each time."""
    raw.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for part, n in [("train", 20), ("t10k", 6)]:
        header = np.array([2051, n, 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + draw.bytes(n * 784))
        labels = (np.arange(n) % 10).astype(np.uint8).tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([2049, n], ">i4").tobytes() + labels)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty $PRUNEBOOK_DATA, where the published MNIST is what `write_raw_files` writes."""
    write_raw_files(tmp_path / "published")
    published = [(tmp_path / "published" / file).read_bytes() for file in data.RAW_FILES]
    sums = tuple(hashlib.sha256(content).hexdigest() for content in published)
    monkeypatch.setattr(data, "RAW_SHA256", {"mnist": sums})
    monkeypatch.setenv("PRUNEBOOK_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def raw(folder):
    """The whole tiny set, in place."""
    write_raw_files(folder / "MNIST" / "raw")
    return folder / "MNIST" / "raw"


@pytest.fixture
def downloads(monkeypatch):
    """Let torchvision's download write the tiny set; the list counts the calls."""
    calls = []

    def download(self):
        calls.append(self.raw_folder)
        write_raw_files(Path(self.raw_folder))

    monkeypatch.setattr(data.source("mnist"), "download", download)
    return calls


def break_downloads(monkeypatch, error):
    """Let torchvision's download write two whole files and a half, and then fail."""

    def download(self):
        raw = Path(self.raw_folder)
        write_raw_files(raw)
        (raw / "t10k-labels-idx1-ubyte").unlink()
        images = raw / "t10k-images-idx3-ubyte"
        images.write_bytes(images.read_bytes()[:1000])
        raise error

    monkeypatch.setattr(data.source("mnist"), "download", download)


def change_last_byte(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def all_files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mean", "std"), [("mnist", 0.1307, 0.3081), ("fashion", 0.2860, 0.3530)])
def test_published_sets_have_three_splits_on_the_device(name, mean, std):
    if "PRUNEBOOK_DATA" not in os.environ or not data.is_complete(name, data.data_folder()):
        pytest.skip(f"$PRUNEBOOK_DATA holds no {name}")
    loaded = pb.load_data(name, device="cpu")
    for split, n in [(loaded.train, 54_000), (loaded.valid, 6_000), (loaded.test, 10_000)]:
        assert len(split) == n
        assert split.images.shape == (n, 1, 28, 28)
        assert split.labels.shape == (n,)
        assert (split.images.dtype, split.labels.dtype) == (torch.float32, torch.int64)
        assert split.images.device == split.labels.device == torch.device("cpu")
        assert split.images.is_contiguous()
        assert set(split.labels.tolist()) == set(range(10))
    assert loaded.name == name
    assert loaded.classes == tuple(label.partition(" - ")[0] for label in data.source(name).classes)
    assert (loaded.mean, loaded.std) == pytest.approx((mean, std), abs=1e-3)


def test_digits_are_split_and_framed_as_mnist():
    digits = pb.load_data("digits", device="cpu")
    assert [len(split) for split in (digits.train, digits.valid, digits.test)] == [1386, 154, 257]
    assert digits.train.images.shape == (1386, 1, 28, 28)
    assert (digits.train.images.dtype, digits.train.labels.dtype) == (torch.float32, torch.int64)
    grey = digits.train.images * digits.std + digits.mean
    assert grey[:, :, 4:-4, 4:-4].max() > 0.99
    frame = grey.clone()
    frame[:, :, 4:-4, 4:-4] = 0
    assert frame.abs().max() < 1e-6


def test_images_are_normalised_by_the_training_split(raw):
    for loaded in (pb.load_data("mnist"), pb.load_data("digits")):
        pixels = loaded.train.images.double()
        assert abs(pixels.mean().item()) < 1e-4
        assert abs(pixels.std().item() - 1) < 1e-4
        grey = (loaded.test.images * loaded.std + loaded.mean) * 255
        torch.testing.assert_close(grey, grey.round(), atol=1e-3, rtol=0)
        assert (grey.min().round().item(), grey.max().round().item()) == (0, 255)


def grey_rows(loaded, split):
    images = getattr(loaded, split).images
    return {tuple(row) for row in (images * loaded.std + loaded.mean).mul(255).round().flatten(1).tolist()}


def test_the_splits_share_no_image_and_lose_none(raw):
    loaded = pb.load_data("mnist")
    train, valid, test = (grey_rows(loaded, split) for split in ("train", "valid", "test"))
    assert (len(train), len(valid), len(test)) == (18, 2, 6)
    pixels = np.frombuffer((raw / "train-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(20, 784)
    assert train | valid == {tuple(row) for row in pixels.astype(float).tolist()}
    assert not (train | valid) & test


def test_the_seed_alone_draws_the_validation_split_and_not_the_test_split(raw):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    drawn = {seed: pb.load_data("mnist", seed=seed) for seed in range(5)}
    assert torch.equal(torch.get_rng_state(), state)
    assert len({frozenset(grey_rows(loaded, "valid")) for loaded in drawn.values()}) == 5
    assert len({frozenset(grey_rows(loaded, "test")) for loaded in drawn.values()}) == 1
    torch.manual_seed(2)
    assert torch.equal(pb.load_data("mnist").valid.images, drawn[0].valid.images)


@pytest.mark.parametrize("arguments", [{"name": "cifar"}, {"seed": -1}, {"seed": 0.5}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        pb.load_data(**arguments)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [cut_short, change_last_byte])
def test_a_damaged_file_is_named_with_both_sums_and_the_repair(damage, raw):
    images = raw / "train-images-idx3-ubyte"
    damage(images)
    content = images.read_bytes()
    with pytest.raises(data.DamagedDataError) as error:
        pb.load_data("mnist")
    assert str(error.value) == (
        f"{images} is damaged: expected SHA-256 {data.RAW_SHA256['mnist'][0]}, "
        f"found SHA-256 {hashlib.sha256(content).hexdigest()} ({len(content):,} bytes). "
        "To download it again: python -m prunebook data mnist --repair"
    )


def test_a_download_ends_in_place_and_leaves_nothing_else(folder, downloads):
    assert repr(pb.load_data("mnist").train) == "Split(18 images, cpu)"
    raw = folder / "MNIST" / "raw"
    assert sorted(all_files(folder)) == sorted(raw / file for file in data.RAW_FILES)
    assert [path.name for path in folder.iterdir()] == ["MNIST"]
    pb.load_data("mnist")
    assert len(downloads) == 1


def test_without_a_data_folder_the_download_goes_to_the_cache(folder, downloads, tmp_path, monkeypatch):
    monkeypatch.delenv("PRUNEBOOK_DATA")
    pb.load_data("mnist")
    assert (tmp_path / "cache" / "data" / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").is_file()


def test_a_set_that_lacks_one_file_is_downloaded(raw, downloads):
    (raw / "t10k-labels-idx1-ubyte").unlink()
    assert len(pb.load_data("mnist").test) == 6
    assert len(downloads) == 1


FAILURES = [
    RuntimeError("Error downloading t10k-images-idx3-ubyte.gz:\nno mirror answers"),
    urllib.error.URLError("no mirror answers"),
    http.client.IncompleteRead(b"", 100),
    OSError("no space left on device"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_half_a_download_never_counts_and_the_digits_come_with_the_reason(failure, folder, monkeypatch):
    break_downloads(monkeypatch, failure)
    for _ in range(2):
        with pytest.warns(UserWarning, match="Set PRUNEBOOK_OFFLINE=error to forbid this") as warned:
            loaded = pb.load_data("mnist")
        assert (loaded.name, len(loaded.train)) == ("digits", 1386)
        assert not list(folder.iterdir())
    message, reason = str(warned[0].message), " ".join(str(failure).split())
    assert f"MNIST is not in {folder}, and the download failed: {reason}" in message
    assert "THE NUMBERS IN THE TEXT WILL DIFFER" in message
    assert warned[0].filename == __file__


def test_a_download_that_is_cut_by_ctrl_c_leaves_nothing(folder, monkeypatch):
    break_downloads(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        pb.load_data("mnist")
    assert not list(folder.iterdir())


def test_a_download_of_something_else_is_refused(folder, downloads, monkeypatch):
    sums = ("0" * 64, *data.RAW_SHA256["mnist"][1:])
    monkeypatch.setattr(data, "RAW_SHA256", {"mnist": sums})
    with pytest.raises(ConnectionError, match=r"the download failed: .*is damaged"):
        data.fetch("mnist", folder)
    assert not list(folder.iterdir())


def test_a_silent_network_is_given_up_after_a_while(folder, monkeypatch):
    waits = []
    monkeypatch.setattr(data.source("mnist"), "download", lambda _: waits.append(socket.getdefaulttimeout()))
    before = socket.getdefaulttimeout()
    assert before != data.PATIENCE
    with pytest.raises(ConnectionError):
        data.fetch("mnist", folder)
    assert waits == [data.PATIENCE]
    assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize(
    ("wish", "error", "message"),
    [
        ("error", ConnectionError, r"MNIST is not in .*name resolution failed"),
        ("maybe", ValueError, "PRUNEBOOK_OFFLINE must be 'digits' or 'error', got 'maybe'"),
    ],
)
def test_offline_can_be_an_error(wish, error, message, folder, monkeypatch):
    break_downloads(monkeypatch, RuntimeError("name resolution failed"))
    monkeypatch.setenv("PRUNEBOOK_OFFLINE", wish)
    with pytest.raises(error, match=message):
        pb.load_data("mnist")


def test_repair_replaces_a_damaged_file_and_downloads_nothing_where_all_is_well(raw, downloads, capsys):
    assert main(["data", "mnist", "--repair"]) == 0
    assert downloads == []
    change_last_byte(raw / "t10k-images-idx3-ubyte")
    assert main(["data", "mnist"]) == 1
    assert "t10k-images-idx3-ubyte is damaged" in capsys.readouterr().err
    assert main(["data", "mnist", "--repair"]) == 0
    assert "mnist: whole and unaltered" in capsys.readouterr().out
    assert len(pb.load_data("mnist").train) == 18
    assert len(downloads) == 1


def test_a_repair_that_fails_says_so_and_keeps_the_files(raw, monkeypatch, capsys):
    change_last_byte(raw / "t10k-images-idx3-ubyte")
    break_downloads(monkeypatch, RuntimeError("name resolution failed"))
    assert main(["data", "mnist", "--repair"]) == 1
    assert "name resolution failed" in capsys.readouterr().err
    assert len(all_files(raw)) == 4


@pytest.mark.slow
def test_data_can_be_loaded_where_the_operators_are_missing():
    code = """
        import torch
        def missing(path): raise OSError("undefined symbol")
        torch.ops.load_library = missing
        try:
            import torchvision
        except RuntimeError as error:
            assert "torchvision::nms" in str(error)
        else:
            raise SystemExit("the accident did not happen")
        from prunebook.training.data import source
        assert source("mnist") is source("mnist")
        import torchvision.datasets
        assert source("mnist") is torchvision.datasets.MNIST
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
