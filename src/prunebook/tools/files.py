"""One file for a network: its tensors by safetensors and, as JSON beside them, what it is built of.

The JSON names layers, with their options, and the steps of a network whose class is not torch's own. Whoever
reads it looks the names up in fixed tables and calls what stands there, nothing else: the file holds no code,
none is made of it, and no class of the writer's is needed.

Chapter: book/what-you-gain.ipynb
"""

import copy
import inspect
import json
import math
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from prunebook.masking import masks, parameter_name, set_masks
from prunebook.shrinking.flow import MIXING
from prunebook.shrinking.slicing import plain
from prunebook.tools.recording import LAYERS, Recorded, pack, steps_of, unpack
from prunebook.training.checkpoint import digest

VERSION = 1
NAME = re.compile(r"(?a:\w+(\.\w+)*)?")
FORMS = ("dense", "csr", "bitmask")
Form: TypeAlias = Literal["dense", "csr", "bitmask", "auto"]


def save_model(model: nn.Module, path: str | os.PathLike[str], form: Form = "auto") -> None:
    """Write a network to one file, from which ``load_model`` builds it again, with the same outputs.

    Masks are saved as bits; weights behind them are 0 after loading. A class of your own is recorded by
    torch.fx: what its forward does to one input, in eval and in train mode, is in the file. Its other methods
    and attributes are not; nor are modes that differ within it, and numbers that forward draws by Python's or
    NumPy's random generators become constants.

    Args:
        model: masked and hardened, baked, shrunk, or never pruned; it stays as it is.
        path: a file there is replaced at once: a reader finds the old one or the new one, whole.
        form: how weights of linear layers and convolutions are stored: "dense"; "csr", numbers and their
            places; "bitmask", numbers and one bit for each place; or "auto", for each weight the smallest.

    Raises:
        ValueError: form is not known, a mask has still to be hardened, or the network holds or does
            something that a file cannot name.
        OSError: the file cannot be written.
    """
    if form not in (*FORMS, "auto"):
        raise ValueError(f"form must be one of {(*FORMS, 'auto')}, got {form!r}")
    contents, tensors = _describe(model, form)
    _build(contents, tensors)  # what cannot be built again is not written
    sealed = json.dumps({**contents, "sha256": _seal(contents, tensors)})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(tensors, partial, {"prunebook": sealed})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_model(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> nn.Module:
    """Build the network that ``save_model`` wrote, in the mode it was in, on a device.

    No code in the file is run, since there is none. A network with a class of the writer's comes back as a
    ``Recorded``, with the same layers under the same names.

    Raises:
        ValueError: the file is truncated, altered, of another kind, or of a newer version.
        OSError: there is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            contents = json.loads((file.metadata() or {})["prunebook"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        version, sealed = contents["version"], contents.pop("sha256")
        seal = _seal(contents, tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is truncated, damaged or no file of save_model: {error!r}") from error
    if sealed != seal:
        raise ValueError(f"{path} is damaged or was altered: its checksum does not fit; get it anew")
    if version != VERSION:
        raise ValueError(f"{path} has format {version}, this prunebook reads {VERSION}: update prunebook")
    try:
        return _build(contents, tensors, device)
    except Exception as error:  # a checksum that fits says nothing about who wrote the file
        raise ValueError(f"{path} describes no network that can be built on {device}: {error!r}") from error


def _seal(contents: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    return digest([json.dumps(contents), dict(sorted(tensors.items()))])


def _describe(model: nn.Module, form: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file holds: the description and the tensors."""
    bare, kept = copy.deepcopy(model), masks(model)
    set_masks(bare, kept)  # refuses masks that have still to be hardened
    bare = plain(bare)
    modules, persistent = _modules(bare), bare.state_dict().keys()
    sparse = {id(layer.weight) for layer in bare.modules() if isinstance(layer, MIXING)}
    names: dict[int, str] = {}
    entries: dict[str, dict[str, Any]] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in _tensors(bare).items():
        first = names.setdefault(id(tensor), name)
        if (name in kept) != (first in kept):
            raise ValueError(f"model: {first} and {name} are one tensor and must share a mask")
        if first == name:
            forms = (FORMS if form == "auto" else (form,)) if id(tensor) in sparse else ("dense",)
            each = [_encode(tensor.detach().cpu(), kept.get(name), one) for one in forms]
            best = min(each, key=lambda parts: sum(part.nbytes for part in parts.values()))
            tensors |= {name + part: stored for part, stored in best.items()}
        trained = tensor.requires_grad if isinstance(tensor, nn.Parameter) else None
        entries[name] = {"same": first, "shape": list(tensor.shape), "masked": name in kept}
        entries[name] |= {"persistent": name in persistent, "trained": trained}
    own = any(entry.get("kind") == "Module" for entry in modules.values())
    steps = steps_of(bare) if own else None
    return {"version": VERSION, "modules": modules, "tensors": entries, "steps": steps}, tensors


def _modules(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Every module by its path: its kind, options and mode, or the path where it was before."""
    paths: dict[nn.Module, str] = {}
    entries: dict[str, dict[str, Any]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        kind = type(module).__name__
        known = LAYERS.get(kind) is type(module)
        own = isinstance(module, (nn.ParameterList, nn.ParameterDict)) or "torch.nn." not in str(type(module))
        if not known and not own:
            raise ValueError(f"{path or 'model'}: {kind} is none of the layers that a file can name")
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(f"{path or 'model'}: {kind} has forward hooks, which no file can hold")
        if paths.setdefault(module, path) != path:
            entries[path] = {"same": paths[module]}
        else:
            made = {"kind": kind, "options": _options(module)} if known else {"kind": "Module", "options": {}}
            entries[path] = {**made, "training": module.training}
    return entries


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, once for each place that holds them."""
    return {
        parameter_name(path, name): tensor
        for path, module in model.named_modules()
        for listed in (module.named_parameters, module.named_buffers)
        for name, tensor in listed(recurse=False, remove_duplicate=False)
    }


def _options(module: nn.Module) -> dict[str, Any]:
    """The arguments that make such a layer: torch.nn keeps them as attributes of the same names."""
    names = inspect.signature(type(module)).parameters
    found = {name: value for name, value in vars(module).items() if name in names}
    if "bias" in names:
        found["bias"] = getattr(module, "bias", None) is not None
    return {name: pack(value, {}) for name, value in found.items()}


def _encode(tensor: Tensor, kept: Tensor | None, form: str) -> dict[str, Tensor]:
    """The tensors that a file stores for one, by what is added to its name."""
    if form == "dense":
        whole = {"": tensor.clone(memory_format=torch.contiguous_format)}  # safetensors refuses shared memory
        return whole if kept is None else {**whole, ".bits": _bits(kept)}
    present = (tensor != 0) | tensor.signbit() if kept is None else kept.cpu()  # -0 is not 0, bit for bit
    if form == "bitmask":
        return {".bits": _bits(present), ".values": tensor[present]}
    rows = present.flatten(1)
    ends = nn.functional.pad(rows.sum(1).cumsum(0), (1, 0)).int()
    return {".rows": ends, ".columns": rows.nonzero()[:, 1].int(), ".values": tensor[present]}


def _bits(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.cpu().numpy().ravel()))


def _decode(name: str, shape: list[int], tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Undo `_encode`: the tensor, and where it is stored; None where that is not said."""
    present = None
    if (bits := tensors.get(f"{name}.bits")) is not None:
        if len(bits) != -(-math.prod(shape) // 8):
            raise ValueError(f"{name} has {len(bits)} bytes of bits for a shape of {shape}")
        present = torch.from_numpy(np.unpackbits(bits.numpy(), count=math.prod(shape))).bool().view(shape)
    elif (ends := tensors.get(f"{name}.rows")) is not None:
        row = torch.arange(shape[0]).repeat_interleave(ends.long().diff())
        present = torch.zeros(shape, dtype=torch.bool)
        present.flatten(1)[row, tensors[f"{name}.columns"].long()] = True
    if present is None or name in tensors:
        return tensors[name].clone().view(shape), present  # a copy: not tied to the file
    values = tensors[f"{name}.values"]
    return torch.zeros(shape, dtype=values.dtype).masked_scatter(present, values), present


def _build(contents: Any, tensors: Mapping[str, Tensor], device: str | torch.device = "cpu") -> nn.Module:
    """The network of a description, out of nothing but the tables of layers and operations."""
    modules: dict[str, nn.Module] = {}
    for name in (*contents["modules"], *contents["tensors"]):
        if not NAME.fullmatch(name):  # torch.fx would paste it into source, should the network be traced
            raise ValueError(f"{name!r} is no name: letters, digits, _ and dots only")
    for path, entry in contents["modules"].items():
        if "same" in entry:
            if f"{path}.".startswith(f"{entry['same']}.") or not entry["same"]:
                raise ValueError(f"{path} would hold itself")
            modules[path] = modules[entry["same"]]
        elif not path and contents["steps"] is not None:
            modules[path] = Recorded(contents["steps"], contents["modules"], contents["tensors"])
        else:
            modules[path] = _layer(entry["kind"], entry["options"])
        if path:
            above, _, name = path.rpartition(".")
            modules[above].add_module(name, modules[path])  # refuses the names of other attributes
        modules[path].training = entry.get("training", modules[path].training)
    shapes = {name: tensor.shape for name, tensor in _tensors(modules[""]).items()}
    held: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for name, entry in contents["tensors"].items():
        owner, _, key = name.rpartition(".")
        if entry["same"] == name:
            if name not in tensors and list(shapes[name]) != entry["shape"]:  # before memory is taken
                raise ValueError(f"{name} has another shape than its layer says")
            held[name], present = _decode(name, entry["shape"], tensors)
            held[name] = held[name].to(device)
            if entry["trained"] is not None:
                held[name] = nn.Parameter(held[name], entry["trained"])
            if entry["masked"]:
                kept[name] = cast(Tensor, present).to(device)
        held[name] = tensor = held[entry["same"]]
        if isinstance(tensor, nn.Parameter):
            modules[owner].register_parameter(key, tensor)
        else:
            modules[owner].register_buffer(key, tensor, persistent=entry["persistent"])
    if wrong := [name for name, shape in shapes.items() if name not in held or held[name].shape != shape]:
        raise ValueError(f"model: {wrong} are missing or of another shape than their layers say")
    set_masks(modules[""], kept)
    return modules[""]


def _layer(kind: str, options: Mapping[str, Any]) -> nn.Module:
    """A layer, without memory for its tensors."""
    made = {name: unpack(value, ()) for name, value in options.items()}
    if "device" in made:
        raise ValueError(f"{kind} must not name a device")
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers of size 0
        module: nn.Module = LAYERS[kind](**made)
    return module
