"""Follow the channels of a network: what each one carries, and whether an output depends on it.

A forward pass through the graph finds the channels that are constant because nothing that varies reaches
them. A backward pass finds the channels on which an output depends. A channel that is constant or not needed
may be removed; channels that are added to each other are removed together. `rules` says what each kind of
module does to its channels; this file holds what the rules have in common.

Chapter: book/units.ipynb
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, fx, nn

from prunebook.shrinking.graph import asks_batch_size, count_uses, tensors, trace

NAN = float("nan")


@dataclass(eq=False)
class Channels:
    """The channels of one tensor in the graph.

    Attributes:
        ids: (C,) ids of the channels; positions with the same id stay or go together.
        value: (C,) the value of a constant channel, the same throughout each image; NaN if it varies.
        rank: Number of dimensions of the tensor before any flattening; channels are dimension 1.
        flat: Whether dimensions 1.. were flattened; only the layer that reads the tensor knows the factor.
        need: (C,) whether an output depends on what varies in the channel.
    """

    ids: Tensor
    value: Tensor
    rank: int
    flat: bool
    need: Tensor

    @property
    def varies(self) -> Tensor:
        """Return which channels are not known to be constant, (C,)."""
        return self.value.isnan()

    @property
    def live(self) -> Tensor:
        """Return which channels carry something from an input to an output, (C,)."""
        return self.need & self.varies

    def fits(self, count: int, rank: int) -> bool:
        """Return whether a layer that reads `count` channels in `rank` dimensions reads exactly these."""
        channels = len(self.ids)
        if not self.flat:
            return self.rank == rank and channels == count
        return rank == 2 and (channels == count or (self.rank > 2 and count % channels == 0))


@dataclass(eq=False, frozen=True)
class Mix:
    """A layer that mixes channels: a constant input i contributes total[j, i] times its value to output j.

    Attributes:
        name: Name of the layer.
        source: Channels that it reads.
        out: Channels that it writes.
        total: (out, in) its weights in float64, summed over the kernel.
        passes: (in,) values of the inputs that contribute a constant; zero for the others.
    """

    name: str
    source: Channels
    out: Channels
    total: Tensor
    passes: Tensor


class Flow:
    """What flows through a plain network in eval mode.

    Attributes:
        layers: Channels that each layer with units writes, by layer name, in order of execution.
        mixes: Those of the layers that can lose rows and columns.
        scales: (name, channels) of the layers that work channel by channel.
        keep: (ids,) bool, which channels have to stay.
        reasons: Why a channel that carries nothing stays, by id.
        whole: Why a layer is left whole, by name.
        inputs: Channels of the network's input, by the layer that reads them.
        held: Channels that each node of the graph holds, or None if they are not known.

    Args:
        model: A network without parametrizations.
        rule_of: Returns the rule of a node, which says what it does to channels, or None.
        borders: Whether zero-padding turns a constant into something that varies: True to keep the outputs
            equal, False to count paths, because padding carries nothing from an input.

    Raises:
        ValueError: torch.fx cannot trace the network, a layer is uninitialised, or an in-place
            operation overwrites a tensor that is read again.
    """

    def __init__(
        self,
        model: nn.Module,
        rule_of: Callable[[nn.Module, fx.Node], "Rule | None"],
        borders: bool = True,
    ) -> None:
        self.model = model
        self.borders = borders
        self.layers: dict[str, Channels] = {}
        self.mixes: list[Mix] = []
        self.scales: list[tuple[str, Channels]] = []
        self.reasons: dict[int, str] = {}
        self.whole: dict[str, str] = {}
        self.inputs: dict[str, Channels] = {}
        self._rule_of = rule_of
        self._states: list[Channels] = []
        self._pinned: list[Tensor] = []
        self._ties: list[tuple[Tensor, Tensor]] = []
        self._pulls: list[Callable[[], None]] = []  # each sets `need` in what a node reads
        self._count = 0
        graph = trace(model)
        self._uses = count_uses(model, graph)
        self.held: dict[fx.Node, Channels | None] = {}
        self._raw: set[fx.Node] = set()  # inputs of the network, and what follows before any layer
        for node in graph.nodes:
            self._visit(node)
        for pull in reversed(self._pulls):
            pull()
        self.keep = self._settle()

    def module(self, node: fx.Node) -> nn.Module:
        """Return the module that a node calls."""
        return self.model.get_submodule(str(node.target))

    def sources(self, node: fx.Node) -> list[Channels | None]:
        """Return the channels that the inputs of a node hold."""
        return [self.held[source] for source in node.all_input_nodes]

    def make(self, ids: Tensor, value: Tensor, rank: int, flat: bool = False) -> Channels:
        """Return new channels under the given ids. A constant that is not finite counts as varying."""
        value = value.where(value.isfinite(), NAN)
        made = Channels(ids, value, rank, flat, torch.zeros(len(ids), dtype=torch.bool, device="cpu"))
        self._states.append(made)
        return made

    def fresh(self, value: Tensor, rank: int) -> Channels:
        """Return new channels under new ids."""
        self._count += len(value)
        return self.make(torch.arange(self._count - len(value), self._count, device="cpu"), value, rank)

    def copies(self, out: Channels, source: Channels, index: Tensor | None = None, start: int = 0) -> None:
        """Note that channel start + p of `out` depends on channel index[p] of `source` alone."""
        index = torch.arange(len(source.ids), device="cpu") if index is None else index

        def pull() -> None:
            source.need[index[out.live[start : start + len(index)]]] = True

        self._pulls.append(pull)

    def pin(self, source: Channels, reason: str) -> None:
        """Keep all channels of `source`, since something that cannot be followed reads them."""
        source.need[:] = True
        self.explain(source.ids, reason)

    def explain(self, ids: Tensor, reason: str) -> None:
        """Note why these channels may have to stay. The first reason counts."""
        for i in ids.tolist():
            self.reasons.setdefault(i, reason)

    def read(self, node: fx.Node, count: int, rank: int) -> Channels:
        """Return the channels that a layer reads: `count` of them in a tensor of `rank` dimensions.

        Flattened channels are expanded here, where the factor is known. Unknown ones get new ids and stay.
        """
        before = node.all_input_nodes[0]
        source = self.held[before]
        if source is not None and source.fits(count, rank):
            if not source.flat:
                return source
            index = torch.arange(len(source.ids), device="cpu").repeat_interleave(count // len(source.ids))
            wide = self.make(source.ids[index], source.value[index], rank)
            self.copies(wide, source, index)
            return wide
        if source is not None:
            self.pin(source, f"{node.target} reads them along another dimension")
        unknown = self.fresh(torch.full((count,), NAN, dtype=torch.float64, device="cpu"), rank)
        self._pinned.append(unknown.ids)
        if before in self._raw:
            self.inputs[str(node.target)] = unknown
        return unknown

    def mix(self, node: fx.Node, source: Channels, weight: Tensor, bias: Tensor, pads: bool) -> Channels:
        """Return the channels after a layer that mixes those of `source`, with zero-padding if `pads`.

        The weight is (out, in, kernel), the bias (out,) or (1,), both in float64.
        """
        blocked = source.value != 0 if pads else source.varies  # NaN != 0: what varies is blocked as well
        linked = (weight != 0).any(2)
        total = weight.sum(2)
        passes = source.value.where(~blocked, 0.0)
        value = total @ passes + bias
        reads = linked & blocked
        out = self.fresh(value.where(~reads.any(1), NAN), source.rank)

        def pull() -> None:
            source.need |= reads[out.live].any(0)

        self._pulls.append(pull)
        self.explain(source.ids[blocked & ~source.varies & linked.any(0)], f"{node.target} pads with zeros")
        self.layers[str(node.target)] = out
        self.mixes.append(Mix(str(node.target), source, out, total, passes))
        return out

    def same(self, value: Tensor, *sources: Channels, rank: int = 0, flat: bool = False) -> Channels:
        """Return the channels after an operation that combines all `sources` channel by channel.

        `rank` is the new number of dimensions if it changes; `flat` says whether dimensions 1.. become one.
        """
        first = sources[0]
        out = self.make(first.ids, value, rank or first.rank, flat or first.flat)
        for source in sources:
            self.copies(out, source)
        self._ties += [(first.ids, other.ids) for other in sources[1:]]
        return out

    def scale(self, node: fx.Node, value: Tensor, source: Channels) -> Channels:
        """Return the channels after a layer that has parameters for each channel."""
        out = self.same(value, source)
        self.scales.append((str(node.target), out))
        return out

    def _visit(self, node: fx.Node) -> None:
        """Find the channels that a node holds; if it cannot be followed, keep all that it reads."""
        sources = [source for source in self.sources(node) if source is not None]
        rule, why = self._rule(node)
        out = rule(self, node) if rule else None
        self.held[node] = out
        if out is not None or asks_batch_size(node):
            return
        if node.op == "placeholder" or (node.all_input_nodes and self._raw.issuperset(node.all_input_nodes)):
            self._raw.add(node)
        for source in sources:
            self.pin(source, why)
        if node.op == "call_module" and any(True for _ in self.module(node).parameters()):
            self._raw.discard(node)
            self.whole[str(node.target)] = why

    def _rule(self, node: fx.Node) -> tuple["Rule | None", str]:
        """Return the rule of a node, and the reason to give if the node cannot be followed."""
        if node.op == "output":
            return None, "the network returns them"
        if node.op in ("call_function", "call_method"):
            return self._rule_of(self.model, node), f"{node.name} is not followed"
        if node.op != "call_module":
            return None, f"{node.name} is not followed"
        module = self.module(node)
        if module._forward_hooks or module._forward_pre_hooks:
            return None, f"{node.target} has hooks"
        if any(self._uses[id(tensor)] > 1 for tensor in tensors(module)):
            return None, f"{node.target} is called twice or shares its parameters"
        return self._rule_of(self.model, node), f"{node.target} ({type(module).__name__}) is not followed"

    def _settle(self) -> Tensor:
        """Return which ids stay: what is needed, what is tied to it, and at least one channel per layer."""
        keep = torch.zeros(self._count, dtype=torch.bool, device="cpu")
        for state in self._states:
            keep[state.ids[state.need]] = True
        for ids in self._pinned:
            keep[ids] = True
        self._couple(keep)
        for mix in self.mixes:
            if not keep[mix.out.ids].any():
                keep[mix.out.ids[0]] = True
                self.explain(mix.out.ids[:1], "a layer keeps one unit")
                self._couple(keep)
        return keep

    def _couple(self, keep: Tensor) -> None:
        """Keep what is tied to something kept, until nothing changes."""
        before = -1
        while int(keep.sum()) != before:
            before = int(keep.sum())
            for one, other in self._ties:
                either = keep[one] | keep[other]
                keep[one[either]] = True
                keep[other[either]] = True


Rule: TypeAlias = Callable[[Flow, fx.Node], Channels | None]
