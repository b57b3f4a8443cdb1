"""Image data sets as tensors, already on the device: MNIST, Fashion-MNIST and scikit-learn's digits.

A whole set lives in memory, so a batch is one indexing operation and no Python code runs per image.

Chapter: book/dense.ipynb
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import sys
import tempfile
import warnings
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunebook.checks import require_one_of, require_whole
from prunebook.training.device import device as best_device

SOURCES = {"mnist": "MNIST", "fashion": "FashionMNIST"}  # torchvision's classes, and its folders
DIGITS = tuple("0123456789")  # torchvision calls MNIST's classes "0 - zero" and so on
CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag"]
CLASSES = {"mnist": DIGITS, "fashion": (*CLOTHES, "Ankle boot"), "digits": DIGITS}
VALID_SHARE = 0.1  # of the images outside the test split: 6,000 of MNIST's 60,000
PATIENCE = 20.0  # seconds without data after which a download fails

RAW_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
RAW_SHA256 = {  # of the raw files, in the same order
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
    """A raw data file on disk differs from the published one."""


@dataclass(frozen=True)
class Split:
    """Images with their labels.

    `images` is float32 (n, 1, 28, 28), normalised; `labels` is int64 (n,). Both are on the same device.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __repr__(self) -> str:
        """Show the number of images and the device, but not the tensors."""
        return f"Split({len(self):,} images, {self.labels.device})"


@dataclass(frozen=True)
class Data:
    """A data set in three splits; `mean` and `std` are those of the training split, in grey values 0..1."""

    train: Split
    valid: Split
    test: Split
    name: str
    classes: tuple[str, ...]
    mean: float
    std: float


def data_folder() -> Path:
    """Return the folder that holds the raw files: `$PRUNEBOOK_DATA`, else one in the user's cache folder."""
    if given := os.environ.get("PRUNEBOOK_DATA"):
        return Path(given).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("prunebook", appauthor=False)) / "data"


def raw_folder(name: str, folder: Path) -> Path:
    """Return where torchvision keeps the raw files of the set `name` below `folder`."""
    return folder / SOURCES[name] / "raw"


def is_complete(name: str, folder: Path) -> bool:
    """Return whether all raw files of the set `name` are below `folder`; `check` compares their contents."""
    return all((raw_folder(name, folder) / file).is_file() for file in RAW_FILES)


def load_data(name: str = "mnist", device: torch.device | str | None = None, seed: int = 0) -> Data:
    """Load a data set as tensors on the device, split and normalised.

    MNIST and Fashion-MNIST are split 54,000 / 6,000 / 10,000. The test split is the published one, and
    `seed` draws the validation split from the rest. The raw files are read from `$PRUNEBOOK_DATA`, else
    from the user's cache folder, and downloaded if they are missing. The digits of scikit-learn, 8 x 8
    pixels, are enlarged to 20 x 20, padded to 28 x 28 as in MNIST, and split 1,386 / 154 / 257, the last
    257 for testing.

    Args:
        name: "mnist", "fashion" or "digits".
        device: Where the tensors live; None means `device()`.
        seed: Draws the validation split; at least 0.

    Raises:
        ValueError: An argument is out of range.
        DamagedDataError: A raw file is not the published one; the message says how to repair it.
        ConnectionError: Nothing could be downloaded and `PRUNEBOOK_OFFLINE=error` is set. Without that
            setting the digits are loaded instead, with a warning.

    Source: LeCun et al. 1998; Xiao et al. 2017; Alpaydin & Kaynak 1998.
    """
    require_one_of("name", name, CLASSES)
    require_whole("seed", seed, 0)
    where = torch.device(device) if device is not None else best_device()
    if name != "digits":
        try:
            fetch(name, data_folder())
        except ConnectionError as reason:
            _allow_digits(name, reason)
            name = "digits"
    learn, test = _digits() if name == "digits" else _read(name, data_folder())
    order = torch.randperm(len(learn[1]), generator=torch.Generator().manual_seed(seed), device="cpu")
    count = round(VALID_SHARE * len(order))
    valid, train = order[:count], order[count:]
    mean, std = _mean_std(learn[0][train])

    def split(images: Tensor, labels: Tensor) -> Split:
        grey = images.to(where).unsqueeze(1).float().div_(255)
        return Split(grey.sub_(mean).div_(std), labels.long().to(where))

    return Data(
        train=split(learn[0][train], learn[1][train]),
        valid=split(learn[0][valid], learn[1][valid]),
        test=split(*test),
        name=name,
        classes=CLASSES[name],
        mean=mean,
        std=std,
    )


def fetch(name: str, folder: Path, repair: bool = False) -> None:
    """Make sure that the raw files of "mnist" or "fashion" are below `folder`, whole and unaltered.

    If all files are there, `check` compares them with the published ones. If one is missing, all are
    downloaded, into a separate folder first, so that half a download never counts as data. With `repair`,
    damaged files count as missing.

    Raises:
        DamagedDataError: A file is damaged and `repair` is False.
        ConnectionError: Something is missing and could not be downloaded.
    """
    if is_complete(name, folder):
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
            f"{SOURCES[name]} is not in {folder}, and the download failed: {reason}"
        ) from error


def check(name: str, folder: Path) -> None:
    """Compare the raw files of a set with the published SHA-256 sums.

    Raises:
        DamagedDataError: A file differs; the message names the file and the command that repairs it.
    """
    for file, expected in zip(RAW_FILES, RAW_SHA256[name], strict=True):
        path = raw_folder(name, folder) / file
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise DamagedDataError(
                f"{path} is damaged: expected SHA-256 {expected}, found SHA-256 {found} "
                f"({len(content):,} bytes). To download it again: python -m prunebook data {name} --repair"
            )


def source(name: str) -> Any:
    """Return torchvision's class for "mnist" or "fashion"."""
    try:
        from torchvision import datasets
    except RuntimeError:
        # A torchvision built for another torch cannot load its compiled operators, and then its import fails
        # because two of them are not declared. The data sets need neither: declare them and import again.
        for module in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
            del sys.modules[module]
        _declare_operators()
        from torchvision import datasets
    return getattr(datasets, SOURCES[name])


@functools.cache  # keeps the library alive, since its declarations vanish with it
def _declare_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _download(name: str, folder: Path) -> None:
    """Download into a separate folder, check, and only then move the files to their place."""
    folder.mkdir(parents=True, exist_ok=True)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # torchvision sets none: a silent network would block for minutes
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
            source(name)(partial, download=True)
            check(name, Path(partial))
            raw_folder(name, folder).mkdir(parents=True, exist_ok=True)
            for file in RAW_FILES:
                os.replace(raw_folder(name, Path(partial)) / file, raw_folder(name, folder) / file)
    finally:
        socket.setdefaulttimeout(patience)


def _allow_digits(name: str, reason: ConnectionError) -> None:
    """Warn that the digits replace a set that is out of reach, or raise the reason if that is forbidden."""
    policy = os.environ.get("PRUNEBOOK_OFFLINE", "digits")
    require_one_of("PRUNEBOOK_OFFLINE", policy, ("digits", "error"))
    if policy == "error":
        raise reason
    warnings.warn(
        f"{reason}. Loading scikit-learn's 1,797 small digits instead of {name!r}: everything runs, "
        "but THE NUMBERS IN THE TEXT WILL DIFFER. Set PRUNEBOOK_OFFLINE=error to forbid this.",
        stacklevel=3,
    )


def _read(name: str, folder: Path) -> list[tuple[Tensor, Tensor]]:
    """Return images (n, 28, 28) in uint8 and labels (n,), first those to learn from, then the test split."""
    sets = [source(name)(str(folder), train=train) for train in (True, False)]
    return [(each.data, each.targets) for each in sets]


def _digits() -> list[tuple[Tensor, Tensor]]:
    """Return scikit-learn's digits as `_read` returns MNIST: 20 x 20 pixels of ink in a 28 x 28 frame."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = torch.from_numpy(raw.images).float()[:, None] * (255 / 16)
    large = F.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    images = F.pad(large, (4, 4, 4, 4)).round().to(torch.uint8).squeeze(1)
    labels = torch.from_numpy(raw.target).long()
    return [(images[:-257], labels[:-257]), (images[-257:], labels[-257:])]


def _mean_std(images: Tensor) -> tuple[float, float]:
    """Return the exact mean and standard deviation of uint8 images, in grey values 0..1, by counting."""
    counts = torch.bincount(images.flatten(), minlength=256).double()
    values = torch.arange(256, dtype=torch.float64, device="cpu") / 255
    mean = (counts @ values) / counts.sum()
    variance = (counts @ (values - mean).square()) / counts.sum()
    return mean.item(), variance.sqrt().item()
