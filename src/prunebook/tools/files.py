"""One file for a network: its tensors in safetensors and, as JSON beside them, what it is built of.

The JSON names the layers, with their options, and the steps of a network whose class is not torch's own. The
reader looks these names up in fixed tables and calls nothing else: the file holds no code, and loading it
needs no class of yours.

Chapter: book/what-you-gain.ipynb
"""

import copy
import inspect
import math
import os
import re
import warnings
from collections.abc import Mapping, Set
from itertools import chain
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from prunebook.checks import require_one_of
from prunebook.layers import maskable, parameter_name
from prunebook.masking import masks, set_masks
from prunebook.tools import sealed
from prunebook.tools.csr import baked_copy
from prunebook.tools.recording import LAYERS, Recorded, kind_of, pack_argument, steps_of, unpack_argument

KIND = "a file of save_model in format 2"
NAME = re.compile(r"(?a:\w+(\.\w+)*)?")
FORMS = ("dense", "csr", "bitmask")
Form: TypeAlias = Literal["dense", "csr", "bitmask", "auto"]
# Options of layers that follow from the shapes of their tensors. Shrinking changes them.
SIZES = (
    *("in_features", "out_features", "in_channels", "out_channels", "groups", "num_features", "num_channels"),
    *("num_parameters", "num_groups", "num_embeddings", "embedding_dim", "normalized_shape", "input_size"),
)


def save_model(model: nn.Module, path: str | os.PathLike[str], form: Form = "auto") -> None:
    """Write a network to one file, from which `load_model` rebuilds it with the same outputs.

    Masks are saved as bits; the weights behind them are 0 after loading. A class of your own is recorded by
    torch.fx: of the class, the file holds only what forward does to one input, in eval and in train mode.
    Numbers that forward draws from Python's or NumPy's random generators become constants.

    A network that cannot be recorded (torch.fx cannot trace it, or it has a layer or an operation that is
    not in the tables) is saved without its steps, with a warning that says why. Such a file can only be
    loaded into a network of the same class, `load_model(path, into=net)`.

    Args:
        model: Masked and hardened, baked, shrunk, or never pruned; it stays as it is.
        path: The file. A reader finds either the file that was there before or the complete new one.
        form: How weights of linear layers and convolutions are stored: "dense"; "csr", nonzero numbers and
            their indices; "bitmask", nonzero numbers and a bit for each weight, zero or not; "auto", the
            smallest of these for each layer.

    Raises:
        ValueError: `form` is unknown, a mask still learns, or the network has something that no file can
            hold, such as hooks.
        OSError: The file cannot be written.
    """
    require_one_of("form", form, (*FORMS, "auto"))
    bare, kept = baked_copy(model), masks(model)
    weights = {layer.get_parameter("weight") for layer in maskable(bare).values()}  # refuses lazy layers
    for path_of, module in bare.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(f"{path_of or 'model'} has forward hooks, which no file can hold")
    contents, held = _describe(bare)
    for name, entry in contents["tensors"].items():
        first, entry["masked"] = entry.get("same", name), name in kept
        if (first in kept) != entry["masked"]:
            raise ValueError(f"model: {first} and {name} are one tensor and must share a mask")
    stored = _store(held, kept, weights, form)
    try:
        if any(entry.get("kind") == "Module" for entry in contents["modules"].values()):
            contents["steps"] = steps_of(bare)
        _build(contents, stored, "cpu")  # a network that cannot be rebuilt is saved without its steps
    except ValueError as error:
        contents |= {"steps": None, "reason": str(error)}
        warnings.warn(f"{path} can only be loaded by load_model(path, into=network): {error}", stacklevel=2)
    sealed.write(path, KIND, contents, stored)


def load_model(
    path: str | os.PathLike[str],
    device: str | torch.device | None = None,
    *,
    into: nn.Module | None = None,
) -> nn.Module:
    """Return the network that `save_model` wrote, in the mode it was in.

    The file holds no code, so none is run. A network of your own class comes back as a `Recorded`, with
    the same layers under the same names, unless `into` is given.

    Args:
        path: The file.
        device: Where its tensors go. None means the CPU, or the device of `into`.
        into: A network of the class that was saved, without masks, such as a new one of full size. It gets
            the sizes, tensors, masks and modes in the file, and is returned. Other attributes of your
            classes stay as they are. If an error occurs, it is left unchanged.

    Raises:
        ValueError: The file is damaged, altered, or of another kind or version; it does not fit `into`; or it
            holds no steps and `into` is None.
        OSError: There is no such file.
    """
    contents, stored = sealed.read(path, KIND)
    try:
        if into is None:
            return _build(contents, stored, device or "cpu")
        _require_same_class(contents, into)
        device = device or next((tensor.device for tensor in _describe(into)[1].values()), "cpu")
        for network in (copy.deepcopy(into), into):  # whatever can fail fails on the copy
            _fill(network, contents, stored, device)
        return into
    except Exception as error:  # a valid checksum says nothing about who wrote the file
        what = "describes no network that can be built" if into is None else "does not fit into the network"
        raise ValueError(f"{path} {what}: {error}") from error


def _describe(model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the description of a network without masks, and its tensors by the first name of each."""
    modules: dict[str, dict[str, Any]] = {}
    tensors: dict[str, dict[str, Any]] = {}
    first: dict[nn.Module | Tensor, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if first.setdefault(module, path) != path:
            modules[path] = {"same": first[module]}
            continue
        kind = kind_of(module)
        modules[path] = {"kind": kind, "options": _options(kind, module), "training": module.training}
        for key, tensor in chain(module._parameters.items(), module._buffers.items()):
            if tensor is None:
                continue
            name = parameter_name(path, key)
            tensors[name] = {"persistent": key not in module._non_persistent_buffers_set}
            if first.setdefault(tensor, name) != name:
                tensors[name]["same"] = first[tensor]
            else:
                trained = tensor.requires_grad if isinstance(tensor, nn.Parameter) else None
                tensors[name] |= {"shape": list(tensor.shape), "trained": trained}
    held = {name: tensor for tensor, name in first.items() if isinstance(tensor, Tensor)}
    return {"modules": modules, "tensors": tensors, "steps": None}, held


def _options(kind: str, module: nn.Module) -> dict[str, Any]:
    """Return the arguments that build this layer: torch.nn keeps them as attributes of the same names."""
    if kind == "Module" or kind not in LAYERS:
        return {name: size for name in SIZES if isinstance(size := vars(module).get(name), int)}
    names = inspect.signature(type(module)).parameters
    found = {name: value for name, value in vars(module).items() if name in names}
    if "bias" in names:
        found["bias"] = getattr(module, "bias", None) is not None
    return {name: pack_argument(value, {}) for name, value in found.items()}


def _store(
    held: Mapping[str, Tensor], kept: Mapping[str, Tensor], weights: Set[Tensor], form: str
) -> dict[str, Tensor]:
    """Return what a file stores for all tensors; weights may be stored sparsely."""
    stored: dict[str, Tensor] = {}
    for name, tensor in held.items():
        forms = (FORMS if form == "auto" else (form,)) if tensor in weights else ("dense",)
        each = [_encode(name, tensor.detach().cpu(), kept.get(name), one) for one in forms]
        smallest = min(each, key=lambda parts: sum(part.nbytes for part in parts.values()))
        stored |= smallest
    return stored


def _encode(name: str, tensor: Tensor, kept: Tensor | None, form: str) -> dict[str, Tensor]:
    """Return what a file stores for one tensor and its mask."""
    if form == "dense":
        whole = {name: tensor.clone(memory_format=torch.contiguous_format)}  # no two may share memory
        return whole if kept is None else {**whole, f"{name}.bits": _bits(kept)}
    present = (tensor != 0) | tensor.signbit() if kept is None else kept.cpu()  # -0 is stored, too
    values = {f"{name}.values": tensor[present]}
    if form == "bitmask":
        return {**values, f"{name}.bits": _bits(present)}
    rows = present.flatten(1)
    ends = nn.functional.pad(rows.sum(1).cumsum(0), (1, 0)).int()
    return {**values, f"{name}.rows": ends, f"{name}.columns": rows.nonzero()[:, 1].int()}


def _bits(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.cpu().numpy().ravel()))


def _decode(name: str, shape: list[int], stored: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Undo `_encode`: return a tensor and a mask of its stored entries, None if there is no mask."""
    present = None
    if (bits := stored.get(f"{name}.bits")) is not None:
        if len(bits) != -(-math.prod(shape) // 8):
            raise ValueError(f"{name} has {len(bits)} bytes of bits for a shape of {shape}")
        present = torch.from_numpy(np.unpackbits(bits.numpy(), count=math.prod(shape))).bool().view(shape)
    elif (ends := stored.get(f"{name}.rows")) is not None:
        row = torch.arange(shape[0], device="cpu").repeat_interleave(ends.long().diff())
        present = torch.zeros(shape, dtype=torch.bool, device="cpu")
        present.flatten(1)[row, stored[f"{name}.columns"].long()] = True
    if present is None or name in stored:
        return stored[name].clone().view(shape), present
    values = stored[f"{name}.values"]
    return torch.zeros(shape, dtype=values.dtype, device="cpu").masked_scatter(present, values), present


def _build(contents: Any, stored: Mapping[str, Tensor], device: str | torch.device) -> nn.Module:
    """Return the network that a file describes, built only from the tables of layers and operations."""
    if "reason" in contents:
        raise ValueError(
            f"its steps were not recorded, so pass into=, one of its class; {contents['reason']}"
        )
    tensors = contents["tensors"]
    modules: dict[str, nn.Module] = {}
    for name in (*contents["modules"], *tensors):
        if not NAME.fullmatch(name):  # torch.fx pastes names into source code if the network is traced
            raise ValueError(f"{name!r} is no name: letters, digits, _ and dots only")
    for path, entry in contents["modules"].items():
        if "same" in entry:
            modules[path] = modules[entry["same"]]
        elif not path and contents["steps"] is not None:
            modules[path] = Recorded(contents["steps"], contents["modules"], tensors)
        else:
            modules[path] = _layer(path, entry["kind"], entry["options"])
        if path:
            above, _, name = path.rpartition(".")
            modules[above].add_module(name, modules[path])  # refuses the names of other attributes
    _, made = _describe(modules[""])  # fails if a module holds itself
    said = {name: tensors[entry.get("same", name)]["shape"] for name, entry in tensors.items()}
    wrong = [name for name, tensor in made.items() if said.get(name) != list(tensor.shape)]
    if wrong:
        raise ValueError(f"model: {wrong} are missing or of another shape than their layers say")
    _fill(modules[""], contents, stored, device)
    return modules[""]


def _layer(path: str, kind: str, options: Mapping[str, Any]) -> nn.Module:
    """Return a layer whose tensors take no memory yet."""
    if kind not in LAYERS:
        raise ValueError(f"{path or 'model'}: {kind} is none of the layers that a file can name")
    if kind == "Module":
        return nn.Module()
    if "device" in options:
        raise ValueError(f"{kind} must not name a device")
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about layers of size 0
        made: nn.Module = LAYERS[kind](**{name: unpack_argument(each, ()) for name, each in options.items()})
    return made


def _fill(net: nn.Module, contents: Any, stored: Mapping[str, Tensor], device: str | torch.device) -> None:
    """Give a network the sizes, modes, tensors and masks of a file."""
    modules = dict(net.named_modules(remove_duplicate=False))
    for path, entry in contents["modules"].items():
        if "same" not in entry:
            modules[path].training = entry["training"]
            for size in entry["options"].keys() & {*SIZES}:
                setattr(modules[path], size, unpack_argument(entry["options"][size], ()))
    held: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for name, entry in contents["tensors"].items():
        owner, _, key = name.rpartition(".")
        if "same" in entry:
            held[name] = held[entry["same"]]
        else:
            tensor, present = _decode(name, entry["shape"], stored)
            trained, tensor = entry["trained"], tensor.to(device)
            held[name] = tensor if trained is None else nn.Parameter(tensor, trained)
            if entry["masked"]:
                kept[name] = cast(Tensor, present).to(device)
        if isinstance(held[name], nn.Parameter):
            modules[owner].register_parameter(key, held[name])  # refuses the names of other attributes
            setattr(modules[owner], key, held[name])  # LSTM and the like keep it in a list of their own, too
        else:
            modules[owner].register_buffer(key, held[name], persistent=entry["persistent"])
    set_masks(net, kept)


def _require_same_class(contents: Any, net: nn.Module) -> None:
    """Refuse a network whose modules, options or tensor names differ from those in a file."""
    if masks(net):
        raise ValueError("the network must be without masks, such as a new one")
    there, here = _facts(contents), _facts(_describe(net)[0])
    empty = {  # a layer without bias gets one when a constant is folded into it
        parameter_name(path, key)
        for path, module in net.named_modules()
        for key, tensor in module._parameters.items()
        if tensor is None
    }
    for name in {**there, **here}:
        one, other = there.get(name, "missing"), here.get(name, "missing")
        if one != other and name not in empty:
            raise ValueError(f"{name or 'the network'} is {one} in the file, {other} in the network")


def _facts(contents: Any) -> dict[str, Any]:
    """Return what networks of one class have in common, whatever their sizes: kinds, options and names."""
    facts: dict[str, Any] = {}
    for path, entry in contents["modules"].items():
        facts[path] = entry.get("kind") or f"the same module as {entry['same']!r}"
        for option, value in entry.get("options", {}).items():
            if option not in (*SIZES, "bias"):
                facts[f"{path}.{option}"] = unpack_argument(value, ())
    return facts | dict.fromkeys(contents["tensors"], "a tensor")
