"""Named tensors with a formula: the unit that every ledger is made of."""

from collections.abc import Iterable
from dataclasses import dataclass

ALIGNMENT_BYTES = 512
"""The CUDA caching allocator rounds every request up to this (c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize)."""


def rounded(nbytes: int) -> int:
    """Bytes that the allocator counts for a tensor of `nbytes` bytes; an empty tensor takes none."""
    return -(-nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """`count` tensors of one size, with the reason they exist."""

    name: str
    nbytes: int
    """Bytes of one of them."""
    count: int = 1
    category: str = "activations"
    formula: str = ""
    """The size in symbols, for people: `2bsh`."""
    on_host: bool = False
    """Held in host memory, so no part of any GPU figure."""
    needed_by: tuple[str, ...] = ()
    """Whose backward needs them; empty where that is not what keeps them alive."""

    @property
    def exact_bytes(self) -> int:
        """All of them, as `sum(t.nbytes)` counts."""
        return self.nbytes * self.count

    @property
    def live_bytes(self) -> int:
        """All of them on the device, each rounded as the allocator rounds."""
        return 0 if self.on_host else rounded(self.nbytes) * self.count


def exact_bytes(tensors: Iterable[Tensors]) -> int:
    """Sum of `sum(t.nbytes)`, host tensors included."""
    return sum(entry.exact_bytes for entry in tensors)


def live_bytes(tensors: Iterable[Tensors]) -> int:
    """Sum of device bytes, each tensor rounded."""
    return sum(entry.live_bytes for entry in tensors)
