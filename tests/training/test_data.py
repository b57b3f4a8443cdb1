import hashlib
import http.client
import os
import socket
import subprocess
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch

import prunebook as pb
from prunebook.experiments.commands import main
from prunebook.training import data

HELD = {name: data.raw_folder(name, data.data_folder()) for name in data.SOURCES}
needs = {
    name: pytest.mark.skipif(
        not ("PRUNEBOOK_DATA" in os.environ and all((raw / file).is_file() for file in data.RAW_SIZES)),
        reason=f"$PRUNEBOOK_DATA holds no {data.SOURCES[name].__name__}",
    )
    for name, raw in HELD.items()
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("PRUNEBOOK_OFFLINE", raising=False)
    monkeypatch.setenv("PRUNEBOOK_DEVICE", "cpu")


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "cache_folder", lambda: tmp_path_factory.getbasetemp() / "cache")
        return pb.load_data("mnist", device="cpu")


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
    published = {file: (tmp_path / "published" / file).read_bytes() for file in data.RAW_SIZES}
    monkeypatch.setattr(data, "RAW_SIZES", {file: len(content) for file, content in published.items()})
    sums = tuple(hashlib.sha256(content).hexdigest() for content in published.values())
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

    monkeypatch.setattr(data.MNIST, "download", download)
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

    monkeypatch.setattr(data.MNIST, "download", download)


def change_last_byte(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def all_files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@needs["mnist"]
def test_mnist_has_its_three_splits_on_the_device(mnist):
    for split, n in [(mnist.train, 54_000), (mnist.valid, 6_000), (mnist.test, 10_000)]:
        assert len(split) == n
        assert split.images.shape == (n, 1, 28, 28)
        assert split.labels.shape == (n,)
        assert (split.images.dtype, split.labels.dtype) == (torch.float32, torch.int64)
        assert split.images.device == split.labels.device == torch.device("cpu")
        assert split.images.is_contiguous()
        assert set(split.labels.tolist()) == set(range(10))
    assert (mnist.name, mnist.classes) == ("mnist", tuple("0123456789"))


@needs["mnist"]
def test_mnist_is_normalised_by_its_training_split(mnist):
    pixels = mnist.train.images.double()
    assert abs(pixels.mean().item()) < 1e-4
    assert abs(pixels.std().item() - 1) < 1e-4
    assert (mnist.mean, mnist.std) == pytest.approx((0.1307, 0.3081), abs=1e-3)
    grey = mnist.test.images * mnist.std + mnist.mean
    torch.testing.assert_close(grey * 255, (grey * 255).round(), atol=1e-3, rtol=0)
    assert grey.min().abs() < 1e-6
    assert (grey.max() - 1).abs() < 1e-6


@needs["mnist"]
def test_mnist_takes_at_most_300_mb(mnist):
    splits = [mnist.train, mnist.valid, mnist.test]
    held = [tensor.untyped_storage().nbytes() for s in splits for tensor in (s.images, s.labels)]
    assert sum(held) == 70_000 * (784 * 4 + 8)
    assert sum(held) <= 300e6


@needs["mnist"]
def test_another_seed_draws_another_validation_split_and_keeps_the_test_split(mnist):
    other = pb.load_data("mnist", device="cpu", seed=1)
    again = pb.load_data("mnist", device="cpu", seed=0)
    assert torch.equal(again.train.images, mnist.train.images)
    assert torch.equal(again.valid.labels, mnist.valid.labels)
    assert not torch.equal(other.valid.labels, mnist.valid.labels)
    assert torch.equal(other.test.labels, mnist.test.labels)
    grey = [d.test.images * d.std + d.mean for d in (mnist, other)]
    torch.testing.assert_close(*grey, atol=1e-6, rtol=0)


@needs["fashion"]
def test_fashion_has_the_names_of_its_classes():
    fashion = pb.load_data("fashion", device="cpu")
    assert [len(split) for split in (fashion.train, fashion.valid, fashion.test)] == [54_000, 6_000, 10_000]
    assert fashion.classes[0] == "T-shirt/top"
    assert (fashion.mean, fashion.std) == pytest.approx((0.2860, 0.3530), abs=1e-3)


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
    assert abs(digits.train.images.double().mean().item()) < 1e-4
    assert abs(digits.train.images.double().std().item() - 1) < 1e-4


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


def test_the_seed_draws_the_validation_split_and_not_the_test_split(raw):
    drawn = {seed: pb.load_data("mnist", seed=seed) for seed in range(5)}
    assert len({frozenset(grey_rows(loaded, "valid")) for loaded in drawn.values()}) == 5
    assert len({frozenset(grey_rows(loaded, "test")) for loaded in drawn.values()}) == 1


def test_loading_neither_uses_nor_changes_the_global_random_state(raw):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = pb.load_data("mnist").valid.images
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(pb.load_data("mnist").valid.images, one)


@pytest.mark.parametrize("arguments", [{"name": "cifar"}, {"seed": -1}, {"seed": 0.5}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        pb.load_data(**arguments)


def test_a_split_shows_its_size_and_not_its_tensors(raw):
    assert repr(pb.load_data("mnist").train) == "Split(18 images, cpu)"


def test_a_truncated_file_is_named_with_what_was_expected_and_the_repair(raw):
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100])
    with pytest.raises(data.DamagedDataError) as error:
        pb.load_data("mnist")
    assert str(error.value) == (
        f"{images} is damaged: expected 15,696 bytes, found 15,596 bytes. "
        "To download it again: python -m prunebook data mnist --repair"
    )


def test_an_altered_file_is_named_with_both_sums(raw):
    images = raw / "t10k-images-idx3-ubyte"
    change_last_byte(images)
    with pytest.raises(data.DamagedDataError, match=r"t10k-images-idx3-ubyte is damaged") as error:
        pb.load_data("mnist")
    assert f"expected SHA-256 {data.RAW_SHA256['mnist'][2]}, found SHA-256 " in str(error.value)
    assert "python -m prunebook data mnist --repair" in str(error.value)


def test_sums_are_computed_once_and_again_when_a_file_changed(raw):
    labels = raw / "train-labels-idx1-ubyte"
    pb.load_data("mnist")
    stamp = labels.stat()
    change_last_byte(labels)
    os.utime(labels, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    pb.load_data("mnist")  # same size, same time of change: the file is not read again
    os.utime(labels, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1000))
    with pytest.raises(data.DamagedDataError, match="train-labels-idx1-ubyte"):
        pb.load_data("mnist")


def test_a_copy_in_another_folder_is_checked_on_its_own(raw, monkeypatch, tmp_path):
    pb.load_data("mnist")
    copied = tmp_path / "copy" / "MNIST" / "raw"
    write_raw_files(copied)
    change_last_byte(copied / "train-labels-idx1-ubyte")
    stamp = (raw / "train-labels-idx1-ubyte").stat()
    os.utime(copied / "train-labels-idx1-ubyte", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    monkeypatch.setenv("PRUNEBOOK_DATA", str(tmp_path / "copy"))
    with pytest.raises(data.DamagedDataError, match="copy"):
        pb.load_data("mnist")


def test_a_cache_folder_that_cannot_be_written_is_no_obstacle(raw, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(pb.load_data("mnist").train) == 18
    assert len(pb.load_data("mnist").train) == 18


def test_a_download_ends_in_place_and_leaves_nothing_else(folder, downloads):
    assert len(pb.load_data("mnist").train) == 18
    raw = folder / "MNIST" / "raw"
    assert sorted(all_files(folder)) == sorted(raw / file for file in data.RAW_SIZES)
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
def test_half_a_download_never_counts_as_data(failure, folder, monkeypatch):
    break_downloads(monkeypatch, failure)
    for _ in range(2):
        with pytest.warns(UserWarning, match="MNIST is not in .* and the download failed"):
            assert pb.load_data("mnist").name == "digits"
        assert not list(folder.iterdir())


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
    monkeypatch.setattr(data.MNIST, "download", lambda _: waits.append(socket.getdefaulttimeout()))
    before = socket.getdefaulttimeout()
    assert before != data.PATIENCE
    with pytest.raises(ConnectionError):
        data.fetch("mnist", folder)
    assert waits == [data.PATIENCE]
    assert socket.getdefaulttimeout() == before


def test_offline_the_digits_come_with_a_warning_that_gives_the_reason(folder, monkeypatch):
    break_downloads(monkeypatch, RuntimeError("Error downloading:\n  name resolution failed"))
    with pytest.warns(UserWarning, match="Set PRUNEBOOK_OFFLINE=error to forbid this") as warned:
        loaded = pb.load_data("mnist")
    assert (loaded.name, len(loaded.train)) == ("digits", 1386)
    message = str(warned[0].message)
    assert f"MNIST is not in {folder}" in message
    assert "Error downloading: name resolution failed" in message
    assert "THE NUMBERS IN THE TEXT WILL DIFFER" in message
    assert warned[0].filename == __file__


def test_offline_can_be_an_error(folder, monkeypatch):
    break_downloads(monkeypatch, RuntimeError("name resolution failed"))
    monkeypatch.setenv("PRUNEBOOK_OFFLINE", "error")
    with pytest.raises(ConnectionError, match=r"MNIST is not in .*name resolution failed"):
        pb.load_data("mnist")


def test_an_unknown_offline_wish_is_an_error(folder, monkeypatch):
    break_downloads(monkeypatch, RuntimeError("name resolution failed"))
    monkeypatch.setenv("PRUNEBOOK_OFFLINE", "maybe")
    with pytest.raises(ValueError, match="PRUNEBOOK_OFFLINE must be 'digits' or 'error', not 'maybe'"):
        pb.load_data("mnist")


def test_repair_replaces_a_damaged_file(raw, downloads, capsys):
    change_last_byte(raw / "t10k-images-idx3-ubyte")
    assert main(["data", "mnist"]) == 1
    assert "t10k-images-idx3-ubyte is damaged" in capsys.readouterr().err
    assert main(["data", "mnist", "--repair"]) == 0
    assert "mnist: whole and unaltered" in capsys.readouterr().out
    assert len(pb.load_data("mnist").train) == 18
    assert len(downloads) == 1


def test_repair_downloads_nothing_where_all_is_well(raw, downloads):
    assert main(["data", "mnist", "--repair"]) == 0
    assert downloads == []


def test_a_repair_that_fails_says_so_and_keeps_the_files(raw, monkeypatch, capsys):
    change_last_byte(raw / "t10k-images-idx3-ubyte")
    break_downloads(monkeypatch, RuntimeError("name resolution failed"))
    assert main(["data", "mnist", "--repair"]) == 1
    assert "name resolution failed" in capsys.readouterr().err
    assert len(all_files(raw)) == 4


def run_python(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)


def test_data_can_be_imported_and_torchvision_works_afterwards():
    done = run_python(
        "import prunebook.training.data, torchvision, torchvision.datasets\n"
        "assert prunebook.training.data.MNIST is torchvision.datasets.MNIST\n"
        "assert prunebook.training.data.load_data('digits', device='cpu').name == 'digits'"
    )
    assert done.returncode == 0, done.stderr


def test_data_can_be_imported_where_the_operators_are_missing():
    done = run_python(
        "import torch\n"
        "def missing(path): raise OSError('undefined symbol')\n"
        "torch.ops.load_library = missing\n"
        "try:\n"
        "    import torchvision\n"
        "except RuntimeError as error:\n"
        "    assert 'torchvision::nms' in str(error)\n"
        "else:\n"
        "    raise SystemExit('the accident did not happen')\n"
        "import prunebook.training.data, torchvision.datasets\n"
        "assert prunebook.training.data.MNIST is torchvision.datasets.MNIST"
    )
    assert done.returncode == 0, done.stderr
