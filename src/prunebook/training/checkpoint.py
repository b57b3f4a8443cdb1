"""Write a training run to one file and read it back.

Chapter: book/dense.ipynb
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from prunebook.tools import sealed
from prunebook.tools.sealed import digest, flatten, unflatten

__all__ = ["digest", "read", "write"]

KIND = "a checkpoint of fit"


def write(path: str | os.PathLike[str], arguments: Mapping[str, Any], state: Any) -> None:
    """Write arguments and state to `path` in one step: a reader finds the old file or the new one."""
    skeleton, tensors = flatten(state)
    sealed.write(path, KIND, {"arguments": arguments, "state": skeleton}, tensors)


def read(path: str | os.PathLike[str], arguments: Mapping[str, Any]) -> Any:
    """Read back the state that `write` put there for the same arguments.

    Raises:
        ValueError: The file is no checkpoint, is damaged, or was written for other arguments.
    """
    header, tensors = sealed.read(path, KIND)
    before, now = header["arguments"], json.loads(json.dumps(arguments))
    different = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if different:
        said = "; ".join(f"{key}: {before.get(key)!r} there, {now.get(key)!r} here" for key in different)
        raise ValueError(
            f"checkpoint {path} belongs to a run with other arguments ({said}). "
            "Use those arguments with the model as it was at the start, another path, or delete the file."
        )
    return unflatten(header["state"], tensors)
