"""Choose the device that everything runs on.

Chapter: book/dense.ipynb
"""

from __future__ import annotations

import os

import torch


def available() -> list[str]:
    """List the devices of this machine, best first: every CUDA device, MPS, then the CPU."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    names += ["mps"] if torch.backends.mps.is_available() else []
    return [*names, "cpu"]


def device() -> torch.device:
    """Return the best device of this machine: CUDA, else MPS, else the CPU.

    The environment variable `PRUNEBOOK_DEVICE` ("cpu", "cuda", "cuda:1", "mps") overrides the choice.

    Raises:
        ValueError: `PRUNEBOOK_DEVICE` names a device that this machine does not have.
    """
    names = available()
    wish = os.environ.get("PRUNEBOOK_DEVICE", "").strip().lower()
    if not wish:
        return torch.device(names[0].partition(":")[0])
    if wish not in names and wish not in {name.partition(":")[0] for name in names}:
        raise ValueError(f"PRUNEBOOK_DEVICE must be one of {', '.join(names)} on this machine, got {wish!r}")
    return torch.device(wish)
