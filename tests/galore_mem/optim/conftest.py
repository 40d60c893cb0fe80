"""What the optimizer's tests share: a counter of live bytes."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode


def rounded(nbytes: int) -> int:
    """As the CUDA caching allocator rounds."""
    return -(-nbytes // 512) * 512


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that operators make while it is active, each rounded up to 512.

    A storage counts until its last tensor is gone. Host scalars (torch's step counters) would not be on a GPU; with
    `scalars=False` 0-d tensors are left out.
    """

    def __init__(self, *, scalars: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.scalars = scalars
        self.live_bytes = 0
        self.peak_bytes = 0
        self.log: list[tuple[str, int, int]] = []
        self._seen: set[int] = set()

    def know(self, *tensors: torch.Tensor) -> None:
        """These were there before: they count only, downwards, once they are gone."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._seen:
                self._seen.add(storage._cdata)
                weakref.finalize(storage, self._forget, storage._cdata, rounded(storage.nbytes()))

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        given = {
            tensor.untyped_storage()._cdata
            for tensor in torch.utils._pytree.tree_leaves((args, kwargs))
            if isinstance(tensor, torch.Tensor)
        }
        made = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and (tensor.dim() or self.scalars):
                self._count(tensor.untyped_storage(), given, str(func))
        return made

    def _count(self, storage: torch.UntypedStorage, given: set[int], name: str) -> None:
        identity = storage._cdata
        if identity in self._seen or identity in given or not storage.nbytes():
            return
        nbytes = rounded(storage.nbytes())
        self._seen.add(identity)
        self.live_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self.log.append((name, nbytes, self.live_bytes))
        weakref.finalize(storage, self._forget, identity, nbytes)

    def _forget(self, identity: int, nbytes: int) -> None:
        self._seen.discard(identity)
        self.live_bytes -= nbytes


@pytest.fixture
def live_bytes() -> type[LiveBytes]:
    """The counter's class."""
    return LiveBytes
