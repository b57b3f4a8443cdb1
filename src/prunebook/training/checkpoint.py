"""Write a training run to one file and read it back: tensors by safetensors, the rest as JSON, no pickle.

Chapter: book/dense.ipynb
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def flatten(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split nested dicts, lists and tuples into a JSON skeleton and the tensors, numbered in order.

    Raises:
        TypeError: something in `state` is neither a tensor nor plain JSON data.
    """
    tensors: dict[str, Tensor] = {}

    def visit(value: Any) -> Any:
        if isinstance(value, Tensor):
            key = str(len(tensors))
            tensors[key] = value.detach().clone().contiguous()  # a copy: safetensors refuses shared memory
            return {"tensor": key}
        if isinstance(value, Mapping):
            return {"dict": [[visit(key), visit(item)] for key, item in value.items()]}
        if isinstance(value, tuple | list):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [visit(item) for item in value]}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(
            f"a checkpoint holds tensors, numbers and text; it cannot hold a {type(value).__name__}"
        )

    return visit(state), tensors


def unflatten(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `flatten`."""
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {unflatten(key, tensors): unflatten(item, tensors) for key, item in content}
    items = [unflatten(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def digest(state: Any) -> str:
    """Return the SHA-256 of a nested state: its structure and every byte of its tensors."""
    skeleton, tensors = flatten(state)
    found = hashlib.sha256(json.dumps(skeleton).encode())
    for tensor in tensors.values():
        found.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def write(path: str | os.PathLike[str], arguments: Mapping[str, Any], state: Any) -> None:
    """Write arguments and state to `path` at once: a reader finds the old file or the new one, whole."""
    skeleton, tensors = flatten(state)
    header = {"prunebook": json.dumps({"arguments": arguments, "state": skeleton})}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata=header)
    os.replace(partial, path)


def read(path: str | os.PathLike[str], arguments: Mapping[str, Any]) -> Any:
    """Read back the state that `write` put there for the same arguments.

    Raises:
        ValueError: the file is no checkpoint, is damaged, or was written for other arguments.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["prunebook"])
            before, skeleton = header["arguments"], header["state"]
            # copies, aligned as torch likes it and not tied to the file, which fit will replace
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"checkpoint {path} is damaged or is not a checkpoint of fit: {error}") from error
    now = json.loads(json.dumps(arguments))
    different = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if different:
        said = "; ".join(f"{key}: {before.get(key)!r} there, {now.get(key)!r} here" for key in different)
        raise ValueError(
            f"checkpoint {path} belongs to a run with other arguments ({said}). "
            "Use those arguments with the model as it was at the start, another path, or delete the file."
        )
    return unflatten(skeleton, tensors)
