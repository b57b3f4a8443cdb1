"""Image data sets as tensors, already on the device: MNIST, Fashion-MNIST and scikit-learn's digits.

Whole sets live in memory, so a batch is one indexing operation and no Python runs per image.

Chapter: book/dense.ipynb
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import tempfile
import warnings
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
import torch.nn.functional as F
from platformdirs import user_cache_dir
from sklearn.datasets import load_digits
from torch import Tensor

from prunebook.training.device import device as best_device

try:
    from torchvision.datasets import MNIST, FashionMNIST
except RuntimeError:
    # A torchvision built for another torch cannot load its compiled operators, and then fails at
    # import because two of them are not declared. Its data sets need none: declare the two, import again.
    for _module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[_module]
    _OPERATORS = torch.library.Library("torchvision", "DEF")
    _OPERATORS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _OPERATORS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision.datasets import MNIST, FashionMNIST

SOURCES = {"mnist": MNIST, "fashion": FashionMNIST}
DIGITS = tuple("0123456789")  # torchvision calls MNIST's classes "0 - zero" and so on
CLASSES = {"mnist": DIGITS, "fashion": tuple(FashionMNIST.classes), "digits": DIGITS}
VALID_SHARE = 0.1  # of what is not test: 6,000 of MNIST's 60,000
PATIENCE = 20.0  # seconds of silence after which a download has failed

# Size in bytes of each raw file, the same for both sets, and the SHA-256 sums in that order.
RAW_SIZES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
RAW_SHA256 = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


class DamagedDataError(RuntimeError):
    """A raw data file on disk is not the published one."""


@dataclass(frozen=True)
class Split:
    """Some images with their labels.

    `images` is float32 (n, 1, 28, 28), normalised; `labels` is int64 (n,). Both are on one device.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __repr__(self) -> str:
        """Return the number of images and the device: never the tensors."""
        return f"Split({len(self):,} images, {self.labels.device})"


@dataclass(frozen=True)
class Data:
    """A data set in three splits; `mean` and `std` are the training split's, in grey values 0..1."""

    train: Split
    valid: Split
    test: Split
    name: str
    classes: tuple[str, ...]
    mean: float
    std: float


def cache_folder() -> Path:
    """Return the folder of this user in which data and check marks are kept."""
    return Path(user_cache_dir("prunebook", appauthor=False))


def data_folder() -> Path:
    """Return the folder that holds the raw files: `$PRUNEBOOK_DATA`, else the user's cache folder."""
    return Path(os.environ.get("PRUNEBOOK_DATA") or cache_folder() / "data").expanduser()


def raw_folder(name: str, folder: Path) -> Path:
    """Return where torchvision keeps the raw files of the set `name` below `folder`."""
    return folder / str(SOURCES[name].__name__) / "raw"


def load_data(name: str = "mnist", device: torch.device | str | None = None, seed: int = 0) -> Data:
    """Load a data set as tensors on the device, split and normalised.

    MNIST and Fashion-MNIST are split 54,000 / 6,000 / 10,000; the test split is the published one, and
    `seed` draws the validation split from the rest. The raw files are read from `$PRUNEBOOK_DATA`, else
    from the user's cache folder, else downloaded. Digits (8 x 8 in scikit-learn) are enlarged to 20 x 20
    and framed to 28 x 28 as MNIST is, and split 1,386 / 154 / 257; the last 257 are the test split.

    Args:
        name: "mnist", "fashion" or "digits".
        device: where the tensors live; `device()` if None.
        seed: of the validation split, at least 0.

    Raises:
        ValueError: an argument is out of range.
        DamagedDataError: a raw file is not the published one; the message says how to repair it.
        ConnectionError: nothing could be downloaded and `PRUNEBOOK_OFFLINE=error`. Without that
            setting the digits are loaded instead, with a warning.

    Source: LeCun et al. 1998; Xiao et al. 2017; Alpaydin & Kaynak 1998.
    """
    if name not in (*SOURCES, "digits"):
        raise ValueError(f"name must be 'mnist', 'fashion' or 'digits', not {name!r}")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0, not {seed!r}")
    where = torch.device(device) if device is not None else best_device()
    if name != "digits":
        try:
            fetch(name, data_folder())
        except ConnectionError as reason:
            _fall_back(name, reason)
            name = "digits"
    if name == "digits":
        return _split(name, *_digits(), where, seed)
    return _split(name, *_read(name, data_folder()), where, seed)


def fetch(name: str, folder: Path, repair: bool = False) -> None:
    """Make sure that the raw files of "mnist" or "fashion" lie below `folder`, whole and unaltered.

    Files that are all there are checked (`check`), missing ones are downloaded: into a folder of their
    own first, so that half a download never counts as data. With `repair`, damaged files count as missing.

    Raises:
        DamagedDataError: a file is damaged, and not `repair`.
        ConnectionError: something is missing and could not be downloaded.
    """
    raw = raw_folder(name, folder)
    if all((raw / file).is_file() for file in RAW_SIZES):
        try:
            check(name, folder)
        except DamagedDataError:
            if not repair:
                raise
        else:
            return
    try:
        _download(name, folder)
    except (RuntimeError, OSError, HTTPException) as error:  # RuntimeError: torchvision tried every mirror
        reason = " ".join(str(error).split())[:200]
        raise ConnectionError(
            f"{SOURCES[name].__name__} is not in {folder}, and the download failed: {reason}"
        ) from error


def _download(name: str, folder: Path) -> None:
    """Download into a folder of its own, check, and only then move the files to their place."""
    folder.mkdir(parents=True, exist_ok=True)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # torchvision sets none: a silent network would stop us for minutes
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
            SOURCES[name](partial, download=True)
            check(name, Path(partial))
            raw_folder(name, folder).mkdir(parents=True, exist_ok=True)
            for file in RAW_SIZES:
                os.replace(raw_folder(name, Path(partial)) / file, raw_folder(name, folder) / file)
    finally:
        socket.setdefaulttimeout(patience)


def check(name: str, folder: Path) -> None:
    """Compare the raw files of a set with the published sizes and SHA-256 sums.

    A file that passed is remembered by path, size and time of change, and not read again.

    Raises:
        DamagedDataError: naming the first file that differs, and the command that repairs it.
    """
    for (file, size), digest in zip(RAW_SIZES.items(), RAW_SHA256[name], strict=True):
        path = (raw_folder(name, folder) / file).absolute()
        status = path.stat()
        stamp = cache_folder() / "checked" / hashlib.sha256(str(path).encode()).hexdigest()
        mark = f"{digest} {status.st_size} {status.st_mtime_ns}"
        if status.st_size != size:
            raise _damaged(name, path, f"{size:,} bytes", f"{status.st_size:,} bytes")
        if stamp.is_file() and stamp.read_text() == mark:
            continue
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != digest:
            raise _damaged(name, path, f"SHA-256 {digest}", f"SHA-256 {found}")
        _remember(stamp, mark)


def _damaged(name: str, path: Path, expected: str, found: str) -> DamagedDataError:
    return DamagedDataError(
        f"{path} is damaged: expected {expected}, found {found}. "
        f"To download it again: python -m prunebook data {name} --repair"
    )


def _remember(stamp: Path, mark: str) -> None:
    """Write a check mark; where the cache cannot be written, the file is simply checked next time too."""
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        partial = stamp.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(mark)
        os.replace(partial, stamp)
    except OSError:
        return


def _fall_back(name: str, reason: ConnectionError) -> None:
    policy = os.environ.get("PRUNEBOOK_OFFLINE", "digits")
    if policy not in ("digits", "error"):
        raise ValueError(f"PRUNEBOOK_OFFLINE must be 'digits' or 'error', not {policy!r}")
    if policy == "error":
        raise reason
    warnings.warn(
        f"{reason}. Loading scikit-learn's 1,797 small digits instead of {name!r}: everything runs, "
        "but THE NUMBERS IN THE TEXT WILL DIFFER. Set PRUNEBOOK_OFFLINE=error to forbid this.",
        stacklevel=3,
    )


def _read(name: str, folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images (uint8) and labels to learn from, then those of the test split."""
    learn, test = (SOURCES[name](str(folder), train=train) for train in (True, False))
    return learn.data, learn.targets, test.data, test.targets


def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return scikit-learn's digits as `_read` returns MNIST: 20 x 20 pixels of ink in a 28 x 28 frame."""
    raw = load_digits()
    small = torch.from_numpy(raw.images).float()[:, None] * (255 / 16)
    large = F.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    images = F.pad(large, (4, 4, 4, 4)).round().to(torch.uint8).squeeze(1)
    labels = torch.from_numpy(raw.target).long()
    return images[:-257], labels[:-257], images[-257:], labels[-257:]


def _split(
    name: str,
    images: Tensor,
    labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    device: torch.device,
    seed: int,
) -> Data:
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    valid, train = order.split(
        [round(VALID_SHARE * len(order)), len(order) - round(VALID_SHARE * len(order))]
    )
    mean, std = _mean_std(images[train])

    def split(images: Tensor, labels: Tensor) -> Split:
        grey = images.to(device).unsqueeze(1).float().div_(255)
        return Split(grey.sub_(mean).div_(std), labels.long().to(device))

    return Data(
        train=split(images[train], labels[train]),
        valid=split(images[valid], labels[valid]),
        test=split(test_images, test_labels),
        name=name,
        classes=CLASSES[name],
        mean=mean,
        std=std,
    )


def _mean_std(images: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of uint8 images in grey values 0..1, exactly, by counting."""
    counts = torch.bincount(images.flatten(), minlength=256).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts @ values) / counts.sum()
    variance = (counts @ (values - mean).square()) / counts.sum()
    return mean.item(), variance.sqrt().item()
