"""What of a card decides the sizes of kernels' scratch."""

from dataclasses import dataclass
from functools import lru_cache

from profiles.gpus import Gpu

_SHARED_KIB = {7.0: 96, 7.5: 64, 8.0: 163, 8.7: 163}
"""Shared memory that a block may ask for (CUDA C++ Programming Guide, specifications per compute capability)."""
_SHARED_KIB_OF_ALL = {6: 48, 7: 96, 8: 99, 9: 227, 10: 227, 11: 227, 12: 99}
"""The same where a major number has one figure, or one but for those above."""
_THREADS = {7.5: 1024, 8.6: 1536, 8.7: 1536, 8.9: 1536, 12.0: 1536, 12.1: 1536}
"""Resident threads of a multiprocessor, from the same table."""
_THREADS_OF_OTHERS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class CardTraits:
    """A card as far as kernels ask for it before they allocate.

    Without a card given, the largest consumer card of Ampere or Ada is meant.
    """

    capability: float = 8.9
    multiprocessors: int = 128
    rocm: bool = False

    @property
    def shared_bytes(self) -> int:
        """Shared memory that one block may ask for (`sharedMemPerBlockOptin`)."""
        return 1024 * (_SHARED_KIB.get(self.capability) or _SHARED_KIB_OF_ALL[int(self.capability)])

    @property
    def threads(self) -> int:
        """Threads that a multiprocessor runs at once (`maxThreadsPerMultiProcessor`)."""
        return _THREADS_OF_OTHERS if self.rocm else _THREADS.get(self.capability, _THREADS_OF_OTHERS)


USUAL = CardTraits()


@lru_cache(maxsize=64)
def card_of(gpu: Gpu | None) -> CardTraits:
    """What of a GPU decides scratch; None as in `estimate`."""
    if gpu is None:
        return USUAL
    multiprocessors = gpu.multiprocessors or USUAL.multiprocessors
    if gpu.vendor != "nvidia":
        return CardTraits(multiprocessors=multiprocessors, rocm=True)
    return CardTraits(capability=float(gpu.compute_capability), multiprocessors=multiprocessors)
