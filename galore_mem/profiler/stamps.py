"""What was known at which point of a history that somebody else records.

torch's allocator writes its own history on a GPU, and says of no allocation what it was for. Whoever watches the step
leaves stamps beside it: after how many allocations and frees a window began, a module was entered, an address belonged
to a weight. `attribution` lays the two together. The count is the allocator's own: `allocation.all.allocated` plus
`freed` of its statistics advance exactly with the history's `alloc` and `free_requested` entries
(c10/cuda/CUDACachingAllocator.cpp, `alloc_found_block` and `free`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from galore_mem.profiler.places import Places
from galore_mem.profiler.windows import Windows
from galore_mem.witness import HOST

Kind = Literal["window", "place", "claim", "saved", "scope", "unscope"]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Something that was known after so many events."""

    position: int
    """Allocations and frees before it."""
    kind: Kind
    name: str = ""
    """Window, module path, or category."""
    detail: str = ""
    """Of a window its iteration; of a claim whose the tensor is; of a place `forward` where a module's forward runs."""
    address: int = 0
    """Of a claim or a saved tensor."""


class StampingWitness(Windows):
    """Watches a step through hooks, without a dispatch mode, which would change what autograd allocates.

    Args:
        position: allocations and frees so far.
        address: of a tensor's storage.
        on_device: whether a tensor is on the device whose history is recorded.
        tag: writes where the step is into the history itself, where torch can.
    """

    def __init__(
        self,
        position: Callable[[], int],
        address: Callable[[Tensor], int] = lambda tensor: tensor.untyped_storage().data_ptr(),
        on_device: Callable[[Tensor], bool] = lambda tensor: tensor.is_cuda,
        tag: Callable[[str], object] | None = None,
    ) -> None:
        self.stamps: list[Stamp] = []
        self.places = _StampedPlaces(self._moved)
        self.host_bytes: dict[int, int] = {}
        """Of states that stay in host memory, by address."""
        self._position = position
        self._address = address
        self._on_device = on_device
        self._tag = tag
        self._place = ("", "")
        self._handles: list[Any] = []

    # What the step tells.

    def enter(self, window: str) -> None:
        """Another window of the step begins."""
        self.window = window
        self._stamp("window", window, self.iteration)
        self._write_tag()
        self.entered(window)

    def entered(self, window: str) -> None:
        """For those who want to know when; nobody does unless it is replaced."""

    @contextmanager
    def scope(self, category: str) -> Iterator[None]:
        """Whatever is born in here has this category."""
        self._stamp("scope", category)
        try:
            yield
        finally:
            self._stamp("unscope", category)

    def claim(self, category: str, tensors: Iterable[object], owner: str = "") -> None:
        """Name the category of living tensors' storages, for their whole lives, and whose they are."""
        position = self._position()
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                continue
            if self._on_device(tensor) and category != HOST:
                self.stamps.append(Stamp(position, "claim", category, owner, self._address(tensor)))
            elif category == HOST:
                self.host_bytes[self._address(tensor)] = tensor.untyped_storage().nbytes()

    def hold(self, category: str, name: str, tensor: Tensor) -> None:
        """A tensor that lives already."""
        self.claim(category, (tensor,), name)

    @contextmanager
    def following(self, model: nn.Module, *, accumulates: bool = False) -> Iterator[None]:
        """Follow the modules of a model, what autograd saves, and what arrives at parameters, while entered.

        Args:
            model: its parameters' gradients are named as they are born.
            accumulates: gradients meet earlier ones, and are named before they are added.
        """
        self.watch_gradients(model, accumulates=accumulates)
        with self.places.following(model), self.watching_saved():
            try:
                yield
            finally:
                self.release()

    def watch_gradients(self, model: nn.Module, *, accumulates: bool) -> None:
        """Hear of the gradients of a model's parameters, until `release`."""
        for parameter in model.parameters():
            if parameter.requires_grad:
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._claim_gradient))  # type: ignore[no-untyped-call]
                if accumulates:
                    self._handles.append(parameter.register_hook(self._claim_arriving))  # type: ignore[no-untyped-call]

    def watching_saved(self) -> Any:  # noqa: ANN401
        """While entered, hear of what autograd saves and takes up again."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def release(self) -> None:
        """Hear of no gradients any more."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    # What hooks tell.

    def _claim_gradient(self, parameter: Tensor) -> None:
        if self.window == "forward_end":
            self.enter("backward_start")
        self.claim("gradients", (parameter.grad,))

    def _claim_arriving(self, gradient: Tensor) -> None:
        self.claim("gradients", (gradient,))

    def _pack(self, tensor: Tensor) -> Tensor:
        if self._on_device(tensor):
            self._stamp("saved", "activations", self.places.entered, self._address(tensor))
        return tensor

    def _unpack(self, tensor: Tensor) -> Tensor:
        node: Any = torch._C._current_autograd_node()
        if node is not None and node._sequence_nr() < 1 << 62:
            self._in_backward(self.places.of_node(node._sequence_nr()))
        return tensor

    def _in_backward(self, path: str) -> None:
        path = self.places.entered or path
        self._at(path)
        if self.window == "forward_end":
            self.enter("backward_start")
        if self.window in ("backward_start", "backward_end"):
            self.follow_layer(path, self.places.last_layer)

    def _moved(self) -> None:
        self._at(self.places.entered)

    def _at(self, path: str) -> None:
        place = (path, "forward" if self.places.in_forward else "")
        if place != self._place:
            self._place = place
            self._stamp("place", *place)
            self._write_tag()

    def _write_tag(self) -> None:
        if self._tag is not None:
            self._tag(" ".join(filter(None, (self.iteration, self.window, self._place[0]))))

    def _stamp(self, kind: Kind, name: str, detail: str = "", address: int = 0) -> None:
        self.stamps.append(Stamp(self._position(), kind, name, detail, address))


class _StampedPlaces(Places):
    """Places that tell whenever a module is entered or left."""

    def __init__(self, moved: Callable[[], None]) -> None:
        super().__init__()
        self._moved = moved

    def _note(self) -> None:
        super()._note()
        self._moved()
