"""Where a mask stands: beside a Parameter that stays in its layer.

Masks are parametrizations, which is torch's way to compute a parameter anew each time it is read. Only this
file adds them and takes them away.

Chapter: book/weights.ipynb
"""

import weakref
from copy import deepcopy
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize


def insert(layer: nn.Module, name: str, mask: nn.Module) -> None:
    """Put a mask on a parameter of a layer. The Parameter keeps its name and its place in the layer."""
    _own_class(layer)
    before = dict(layer._parameters), dict(layer._buffers)
    # torch gets a stand-in: it would strip the Parameter of the hooks that DistributedDataParallel needs
    layer._buffers[name] = layer.get_parameter(name).detach()
    del layer._parameters[name]
    try:
        parametrize.register_parametrization(layer, name, mask)
    finally:  # the mask may not fit; in any case, the Parameter goes back to its place
        layer._parameters, layer._buffers = before
    masks = slot(layer, name)
    masks.__class__ = MaskList
    masks.hold(layer, name)
    _put_property(type(layer), name)


def remove(layer: nn.Module, name: str) -> None:
    """Take a mask away; the layer gets its own class back if it was the last one."""
    _own_class(layer)
    parametrize.remove_parametrizations(layer, name, leave_parametrized=False)


def slot(layer: nn.Module, name: str) -> Any:
    """Return the list of parametrizations of a parameter; its [0] is the mask."""
    return layer.get_submodule(f"parametrizations.{name}")


def has_mask(layer: nn.Module, name: str) -> bool:
    """Return whether a parameter has a mask; other parametrizations are not in a `MaskList`."""
    return parametrize.is_parametrized(layer, name) and isinstance(slot(layer, name), MaskList)


class MaskList(parametrize.ParametrizationList):
    """torch's list of parametrizations, but the Parameter stays in its layer, with its name and its place.

    A masked network therefore has the parameters of a plain one, in the same order. The only new ones are
    those that its masks learn.
    """

    def hold(self, layer: nn.Module, name: str) -> None:
        """Note which Parameter this is for, without keeping its layer alive."""
        self._buffers.pop("original", None)
        self.layer, self.name = weakref.ref(layer), name

    @property
    def original(self) -> Any:  # type: ignore[override]
        """The Parameter, where others expect it; `torch.ao` copies it into a new layer."""
        layer: Any = self.layer()
        return layer._parameters[self.name]

    def forward(self, w: Tensor) -> Tensor:  # type: ignore[override]
        """Return the masked weight."""
        for parametrization in self:
            w = parametrization(w)
        return w

    def append(self, module: nn.Module) -> "MaskList":
        """Refuse a second parametrization of the parameter."""
        raise ValueError(f"{self.name} must be without mask to be parametrized, has a mask: bake it first")

    def __deepcopy__(self, memo: dict[int, Any]) -> "MaskList":
        """Copy, and hold the Parameter of the copied layer if the layer is copied, too."""
        twin = memo[id(self)] = MaskList.__new__(MaskList)
        twin.__dict__ = deepcopy(self.__dict__, memo)
        layer: Any = self.layer()
        twin.layer = weakref.ref(memo.get(id(layer), layer))
        return twin


def _put_property(cls: type, name: str) -> None:
    """Let `layer.weight` return the masked weight, and keep the layer's own methods working."""

    def masked(layer: Any) -> Tensor:
        parameters = layer._parameters if name in layer._parameters else layer.__dict__
        if name not in parameters:
            raise AttributeError(name)  # then torch says that the layer has no such attribute
        return cast(Tensor, layer.parametrizations[name](parameters[name]))

    def put(layer: Any, value: Tensor) -> None:
        layer.__dict__[name] = value  # DataParallel and FSDP put views in the place of parameters

    def take(layer: Any) -> None:
        del layer.__dict__[name]

    def reset_parameters(layer: Any) -> None:
        own, layer.__class__ = type(layer), plain  # whose weight is the dense one, which is to be reset
        try:
            layer.reset_parameters()
        finally:
            layer.__class__ = own

    plain = cls.__bases__[0]
    setattr(cls, name, property(masked, put, take))
    if hasattr(plain, "reset_parameters"):
        cls.reset_parameters = reset_parameters  # type: ignore[attr-defined]


def _own_class(layer: nn.Module) -> None:
    """Give a parametrized layer its own class: deep copies share one, which attaching a mask changes."""
    if parametrize.is_parametrized(layer):
        cls = type(layer)
        layer.__class__ = type(cls.__name__, cls.__bases__, dict(cls.__dict__))
