"""Storages without data: births and deaths in order, in symbolic sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import TypeVar

Dims = tuple[str, ...]
OUTSIDE = -1
"""The layer of code that belongs to none."""
MIDDLE = 1
"""The played layer that stands for all between the first and the last."""
STAND_IN = "stand-in"
"""How names of storages end that a stand-in makes where a layer is left out."""


@dataclass(frozen=True, slots=True)
class Size:
    """The product of `dims` times `itemsize` bytes."""

    dims: Dims
    itemsize: int

    @property
    def formula(self) -> str:
        """As people write it: `4bsh`; numbers are multiplied out, and what is no single letter stands in brackets."""
        number = self.itemsize * prod(int(dim) for dim in self.dims if dim.isdigit())
        symbols = [dim if len(dim) == 1 else f"({dim})" for dim in self.dims if not dim.isdigit()]
        return f"{number}{''.join(symbols)}"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a storage is: its size, its category and its name in the model."""

    size: Size
    category: str
    name: str
    in_every_middle_layer: bool = False
    """One for each layer that the played middle layer stands for."""


class Tape:
    """The life of every storage of a step."""

    def __init__(self) -> None:
        self.kinds: dict[Kind, int] = {}
        self._named: dict[tuple[Dims, int, str, str, str], tuple[Kind, int]] = {}
        """Kinds and their numbers by what they are made of: making and hashing them is most of a play's time."""
        self.events: list[int] = []
        """The kind's number plus one for a birth, its negative for a death."""
        self.births: list[int] = []
        """The position at which the storage of each event was born."""
        self.marks: list[tuple[int, str, str]] = []
        """Position in `events`, what happens there, and to whom."""
        self.needs: dict[tuple[int, str], Kind] = {}
        """What is saved for a backward, by its kind's number and the name of the result whose backward it is."""
        self.scope = [""]
        """What names begin with, and what they began with before the parts that were entered since."""
        self.layer = OUTSIDE
        """The layer whose code runs now."""
        self.in_backward = False
        self.grad_enabled = True
        """Off as under `torch.no_grad`: nothing enters the graph."""
        self.sequence = 0
        self.autocast_cache: list[Parameter] = []
        self.frame: Frame | None = None
        """The checkpointed region whose forward runs now."""
        self.collapsed = True
        """The middle layer stands for several."""
        self.held_by_layers: frozenset[int] | None = None
        """Where stand-ins take the place of layers: which storages of a micro-batch, the first is 0, they hold."""
        self.refilling: Frame | None = None
        """The checkpointed region that is being recomputed."""
        self.splits_sums = False
        """Sums over many rows leave partial sums between blocks of threads, as on a card."""
        self.product: int | None = None
        """Position at which backward's thread runs its first matrix product: cuBLAS takes it a workspace there."""

    def enter(self, name: str) -> None:
        """Names of what is born from now on begin with one more part."""
        self.scope.append(f"{self.scope[-1]}{name}.")

    def leave(self) -> None:
        """They do so no more."""
        self.scope.pop()

    def mark(self, label: str, detail: str = "") -> None:
        """Note a border at the current position."""
        self.marks.append((len(self.events), label, detail))

    def multiply(self) -> None:
        """A matrix product runs now."""
        if self.product is None and (self.in_backward or self.refilling is not None):
            self.product = len(self.events)

    def code_of(self, kind: Kind) -> int:
        """The kind's number, starting from one."""
        return self.kinds.setdefault(kind, len(self.kinds)) + 1

    def empty(self, dims: Sequence[str], itemsize: int, name: str, category: str = "") -> Tensor:
        """A new tensor, whose storage is born now."""
        if not category:
            category = "logits" if "v" in dims else "temporaries" if self.in_backward else "activations"
        dims = tuple(dims)
        parts = dims, itemsize, category, self.scope[-1], name
        found = self._named.get(parts)
        if found is None:
            kind = Kind(Size(dims, itemsize), category, f"{self.scope[-1]}{name}")
            found = self._named[parts] = kind, self.code_of(kind)
        return Tensor(Storage(self, *found), dims, itemsize)


class Storage:
    """The memory of a tensor and its views; it dies with the last of them.

    What a middle layer makes and code outside the layers lets go of (autocast's copies, a key-value cache) dies for all
    the layers that the played one stands for.
    """

    __slots__ = ("birth", "code", "kind", "layer", "tape")

    def __init__(self, tape: Tape, kind: Kind, code: int) -> None:
        self.tape = tape
        self.kind = kind
        self.layer = tape.layer
        self.birth = len(tape.births)
        self.code = code
        tape.events.append(code)
        tape.births.append(self.birth)

    def relabel(self, category: str) -> None:
        """Count it under another category, from its birth on."""
        self.kind = replace(self.kind, category=category)
        self.code = self.tape.events[self.birth] = self.tape.code_of(self.kind)

    def __del__(self) -> None:
        tape, code = self.tape, self.code
        if self.layer == MIDDLE and tape.layer == OUTSIDE and tape.collapsed:
            code = tape.code_of(replace(self.kind, in_every_middle_layer=True))
        tape.events.append(-code)
        tape.births.append(self.birth)


class Tensor:
    """A view on a storage, with its place in the autograd graph."""

    __slots__ = ("dims", "is_view", "itemsize", "node", "storage")

    def __init__(
        self, storage: Storage, dims: Dims, itemsize: int, node: Node | None = None, *, is_view: bool = False
    ) -> None:
        self.storage = storage
        self.dims = dims
        self.itemsize = itemsize
        self.node = node
        self.is_view = is_view
        """As a gradient: it came through a view, whose base shares the storage, so nothing is added into it."""

    @property
    def tape(self) -> Tape:
        """Where its life is recorded."""
        return self.storage.tape

    @property
    def requires_grad(self) -> bool:
        """Whether backward passes through it."""
        return self.node is not None

    def view(self, *dims: str) -> Tensor:
        """The same memory under other dimensions."""
        return Tensor(self.storage, dims, self.itemsize, self.node)

    def detach(self) -> Tensor:
        """The same memory outside the graph."""
        return Tensor(self.storage, self.dims, self.itemsize, is_view=self.is_view)

    def as_view(self) -> Tensor:
        """The same gradient, arrived through a view."""
        return Tensor(self.storage, self.dims, self.itemsize, is_view=True)


class Parameter:
    """A leaf: its own memory is counted elsewhere; its gradient lives here."""

    def __init__(self, name: str, dims: Dims, itemsize: int, *, trainable: bool = True, optimized: bool = True) -> None:
        self.name = name
        self.dims = dims
        self.itemsize = itemsize
        self.requires_grad = trainable
        self.optimized = optimized
        """An optimizer steps it."""
        self.deliveries = 0
        """Gradients still to come; a shared weight expects several."""
        self.pending: Tensor | None = None
        self.grad: Tensor | None = None
        self.cast: Tensor | None = None
        """The half-precision copy that autocast keeps until the forward ends."""


Apply = Callable[["Tensor"], "list[Tensor | None]"]


class Node:
    """One backward function."""

    __slots__ = ("apply", "broadcast", "inputs", "itemsizes", "layer", "saved", "sequence")

    def __init__(
        self,
        sequence: int,
        layer: int,
        apply: Apply,
        inputs: Sequence[Node | Parameter | None],
        itemsizes: Sequence[int],
        saved: list[Tensor | Holder | Frame],
        broadcast: Mapping[int, Dims],
    ) -> None:
        self.sequence = sequence
        self.layer = layer
        self.apply = apply
        self.inputs = inputs
        self.itemsizes = itemsizes
        """Bytes per element of what it was given; its gradients are cast to them."""
        self.saved = saved
        self.broadcast = broadcast
        """Dimensions of inputs that were broadcast, by their place: their gradients are summed up to them."""

    def __lt__(self, other: Node) -> bool:
        return self.sequence > other.sequence


class Holder:
    """Stands for a saved tensor that checkpointing recomputes."""

    __slots__ = ("__weakref__", "frame", "value")

    def __init__(self, frame: Frame) -> None:
        self.frame: Frame | None = frame
        self.value: Tensor | None = None


class Frame:
    """One checkpointed region: how to run it again, and what its nodes wait for."""

    def __init__(self, recompute: Callable[[], object], layer: int, scope: list[str]) -> None:
        self.recompute = recompute
        self.layer = layer
        self.scope = scope
        self.holders: list[Holder] = []
        self.refilled = 0


class EarlyStopError(Exception):
    """Recomputation has refilled every holder."""


def record(
    out: Tensor,
    apply: Apply,
    inputs: Sequence[Tensor | Parameter | None],
    saved: Sequence[Tensor] = (),
    broadcast: Mapping[int, Dims] = MappingProxyType({}),
    *,
    saves_parameter: bool = False,
) -> Tensor:
    """Put `out` into the graph; `apply(gradient)` returns one gradient, or None, for each of `inputs`.

    A parameter that is saved takes no memory, but in a checkpointed region it stands for the region like all that is
    saved there: inputs of the region live as long as any of it.
    """
    tape = out.storage.tape
    if not tape.grad_enabled:
        return out
    edges: list[Node | Parameter | None] = []
    leaves: list[Parameter] = []
    itemsizes: list[int] = []
    is_wanted = False
    for value in inputs:
        edge: Node | Parameter | None = None
        if isinstance(value, Tensor):
            edge = value.node
        elif value is not None and value.requires_grad:
            edge = value
            leaves.append(value)
        edges.append(edge)
        itemsizes.append(0 if value is None else value.itemsize)
        is_wanted = is_wanted or edge is not None
    if not is_wanted:
        return out
    kept: list[Tensor | Holder | Frame] = []
    if saved:
        needer = out.storage.kind.name
        for needed in saved:
            tape.needs[needed.storage.code, needer] = needed.storage.kind
            kept.append(needed.detach())
    if tape.refilling is not None:
        _refill(tape.refilling, kept)
    else:
        if tape.frame is not None:
            kept = [Holder(tape.frame) for _ in kept]
            tape.frame.holders.extend(kept)  # type: ignore[arg-type]
            kept += [tape.frame] * saves_parameter
        for leaf in leaves:
            leaf.deliveries += 1
    tape.sequence += 1
    out.node = Node(tape.sequence, tape.layer, apply, edges, itemsizes, kept, broadcast)
    return out


def _refill(frame: Frame, saved: Sequence[Tensor | Holder | Frame]) -> None:
    for value in saved:
        holder = frame.holders[frame.refilled]
        assert isinstance(value, Tensor)
        holder.value = value
        frame.refilled += 1
    if frame.refilled == len(frame.holders):
        raise EarlyStopError


def stop_before(tape: Tape, saved: Sequence[Tensor]) -> None:
    """End a recomputation before an operator that has nothing but `saved` to contribute: its result is not made."""
    frame = tape.refilling
    if frame is not None and saved and frame.refilled + len(saved) == len(frame.holders):
        _refill(frame, [value.detach() for value in saved])


Made = TypeVar("Made")


def checkpoint(tape: Tape, function: Callable[[], Made]) -> Made:
    """Run `function` without keeping what its nodes save (torch.utils.checkpoint, not reentrant)."""
    frame = Frame(function, tape.layer, list(tape.scope))
    tape.frame = frame
    try:
        return function()
    finally:
        tape.frame = None
