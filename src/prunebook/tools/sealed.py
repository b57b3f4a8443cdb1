"""JSON and tensors in one file, with a checksum that reveals damage: safetensors, no pickle.

Chapter: book/what-you-gain.ipynb
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def write(
    path: str | os.PathLike[str], kind: str, contents: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a sealed file in one go: whoever reads `path` finds either the old file or the complete new one.

    Args:
        path: The file; its folder is created if needed.
        kind: What the file is, such as "a checkpoint of fit"; `read` refuses other kinds.
        contents: Anything that JSON can hold.
        tensors: Contiguous; no two may share memory.
    """
    contents = {"kind": kind, **contents}
    header = json.dumps({**contents, "sha256": _seal(contents, tensors)})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(dict(tensors), partial, metadata={"prunebook": header})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the contents and the tensors that `write` put into a file.

    Raises:
        ValueError: The file is damaged, was altered or is of another kind.
        OSError: There is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            contents = json.loads((file.metadata() or {})["prunebook"])
            # copies: aligned in memory, and independent of the file, which may be replaced
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        found, intact = contents["kind"], contents.pop("sha256") == _seal(contents, tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or is not {kind}: {error!r}") from error
    if not intact:
        raise ValueError(f"{path} is damaged or was altered: its checksum does not fit")
    if found != kind:
        raise ValueError(f"{path} is {found}, and cannot be read as {kind}")
    return contents, tensors


def _seal(contents: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    return digest([json.dumps(contents), dict(sorted(tensors.items()))])


def digest(state: Any) -> str:
    """Return the SHA-256 of a nested state, over its structure and every byte of its tensors."""
    skeleton, tensors = flatten(state)
    found = hashlib.sha256(json.dumps(skeleton).encode())
    for tensor in tensors.values():
        found.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def flatten(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return a JSON skeleton of nested dicts, lists and tuples, and their tensors, numbered in order.

    Raises:
        TypeError: Something in `state` is neither a tensor nor plain JSON data.
    """
    tensors: dict[str, Tensor] = {}

    def number(value: Any) -> Any:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"a checkpoint holds tensors, numbers and text; it cannot hold a {type(value).__name__}"
            )
        key = str(len(tensors))
        tensors[key] = value.detach().clone().contiguous()  # a copy: safetensors refuses shared memory
        return {"tensor": key}

    return pack(state, number), tensors


def unflatten(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `flatten`."""
    return unpack(skeleton, {"tensor": tensors.__getitem__})


def pack(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """Return nested dicts, lists and tuples as JSON; `leaf` turns anything else into {kind: JSON}."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {"dict": [[pack(key, leaf), pack(item, leaf)] for key, item in value.items()]}
    if isinstance(value, tuple | list):
        return {"tuple" if isinstance(value, tuple) else "list": [pack(item, leaf) for item in value]}
    return leaf(value)


def unpack(packed: Any, leaves: Mapping[str, Callable[[Any], Any]]) -> Any:
    """Undo `pack`; `leaves` holds, for each kind, the function that turns its JSON back into a value."""
    if not isinstance(packed, dict):
        return packed
    ((kind, inside),) = packed.items()
    if kind == "dict":
        return {unpack(key, leaves): unpack(item, leaves) for key, item in inside}
    if kind in ("tuple", "list"):
        items = [unpack(item, leaves) for item in inside]
        return tuple(items) if kind == "tuple" else items
    return leaves[kind](inside)
