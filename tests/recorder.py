"""A witness for tests: which storages live when, seen by the operators that make them.

Tests reach it through the `live_bytes` fixture (tests are imported by path, so this module has no importable name):

    def test_something(live_bytes):
        with live_bytes(weights=list(model.parameters())) as live:
            loss = model(batch).sum()
            forward_end = live.now
            loss.backward()
            with live.phase("step"):
                optimizer.step()
        live.claim("gradients", (p.grad for p in model.parameters()))
        live.total_bytes(forward_end)                 # alive at that moment
        live.at_peak("step")                          # {"weights": ..., "gradients": ..., "unclaimed": ...}
        live.timeline()                               # (time, +/- bytes, category, operator) in order

A storage counts from the return of the operator that made it until nothing holds it any more, with the bytes of the
whole storage: a view adds nothing and keeps everything. Operators count as they are dispatched: what a kernel
allocates and frees inside itself (a LAPACK workspace, the copies of a CPU fallback for `_foreach_*`) is not seen, and
neither is what lived before, unless it is named on entry.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ALIGNMENT_BYTES = 512


@dataclass(slots=True, kw_only=True)
class Storage:
    """One storage's life; times are counts of births and deaths seen so far."""

    nbytes: int
    operator: str
    born: int
    died: int | None = None
    category: str = "unclaimed"


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records births and deaths of storages while it is entered.

    Args:
        align: round each storage up to 512 bytes, as the CUDA caching allocator does; else count exact bytes.
        existing: tensors that live already, by category.
    """

    def __init__(self, *, align: bool = True, **existing: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: list[Storage] = []
        self.now = 0
        self._align = align
        self._alive: dict[int, Storage] = {}
        self._watches: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._phases: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for category, tensors in existing.items():
            kept = list(tensors)
            for tensor in kept:
                self._see(tensor, "existing")
            self.claim(category, kept)

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Runs the operator and looks at what it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf, str(func))
        return result

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the recording: later deaths are not noted."""
        super().__exit__(kind, value, trace)  # type: ignore[no-untyped-call]
        self._watches.clear()

    def _see(self, tensor: torch.Tensor, operator: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive or storage.nbytes() == 0:
            return
        nbytes = storage.nbytes()
        if self._align:
            nbytes = -(-nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        self.now += 1
        record = Storage(nbytes=nbytes, operator=operator, born=self.now)
        self.storages.append(record)
        self._alive[key] = record
        self._watches[key] = weakref.ref(storage, lambda _: self._bury(key))

    def _bury(self, key: int) -> None:
        self.now += 1
        self._alive.pop(key).died = self.now
        self._watches.pop(key)

    def claim(self, category: str, tensors: Iterable[torch.Tensor | None]) -> None:
        """Names the category of living tensors' storages, for their whole lives."""
        for tensor in tensors:
            if tensor is not None:
                record = self._alive.get(tensor.untyped_storage()._cdata)
                if record is not None:
                    record.category = category

    @contextmanager
    def phase(self, name: str) -> Iterator[Self]:
        """Names a stretch of time; stretches of one name add up."""
        start = self.now
        yield self
        self._phases[name].append((start, self.now))

    def by_category(self, time: int) -> dict[str, int]:
        """Bytes alive at a moment."""
        totals: dict[str, int] = defaultdict(int)
        for storage in self.storages:
            if storage.born <= time and (storage.died is None or storage.died > time):
                totals[storage.category] += storage.nbytes
        return dict(totals)

    def total_bytes(self, time: int) -> int:
        """Bytes alive at a moment, all categories."""
        return sum(self.by_category(time).values())

    def at_peak(
        self, phase: str | None = None, *, outside: str | None = None, ignoring: str | None = None
    ) -> dict[str, int]:
        """Bytes by category at the moment of the greatest total.

        Args:
            phase: look only inside this phase (its start included); everywhere if None.
            outside: leave out this phase, its end included.
            ignoring: a category that does not count, for instance what a GPU would not hold.
        """
        stretches = self._phases[phase] if phase is not None else [(0, self.now)]
        excluded = self._phases[outside] if outside is not None else []
        # A largest moment begins with a birth, or with the phase.
        counted = [storage for storage in self.storages if storage.category != ignoring]
        candidates = {storage.born for storage in counted} | {start for start, _ in stretches}
        total, best, time = 0, -1, 0
        changes: dict[int, int] = defaultdict(int)
        for storage in counted:
            changes[storage.born] += storage.nbytes
            if storage.died is not None:
                changes[storage.died] -= storage.nbytes
        for moment in range(self.now + 1):
            total += changes[moment]
            inside = moment in candidates and any(start <= moment <= stop for start, stop in stretches)
            if inside and total > best and not any(start < moment <= stop for start, stop in excluded):
                best, time = total, moment
        return {category: size for category, size in self.by_category(time).items() if category != ignoring}

    def timeline(self) -> list[tuple[int, int, str, str]]:
        """Every birth and death: time, bytes gained or lost, category, operator that made the storage."""
        births = [(s.born, s.nbytes, s.category, s.operator) for s in self.storages]
        deaths = [(s.died, -s.nbytes, s.category, s.operator) for s in self.storages if s.died is not None]
        return sorted(births + deaths)
