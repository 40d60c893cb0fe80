"""A GPU made of CPU tensors: the recorder is its allocator, and writes the snapshot that torch would."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from galore_mem.profiler.recorder import Recorder
from galore_mem.profiler.recording import rounded
from galore_mem.profiler.rules import Rules

BASE = 0x7000_0000_0000
CONTEXT_BYTES = 400 << 20


class FakeProcess:
    """A driver that knows the process."""

    source = "process"

    def __init__(self, gpu: "FakeGpu") -> None:
        self._gpu = gpu

    def read(self) -> int | None:
        return self._gpu.memory()[1] + CONTEXT_BYTES


class _Allocator(Recorder):  # type: ignore[no-untyped-call]
    """Runs out when it is told to."""

    def __init__(self, gpu: "FakeGpu") -> None:
        super().__init__(Rules())
        self._gpu = gpu

    def _bear(self, life: Any) -> int:  # noqa: ANN401
        gpu = self._gpu
        if gpu.interrupt_at is not None and len(self.recording.events) >= gpu.interrupt_at:
            gpu.interrupt_at = None
            raise KeyboardInterrupt
        if gpu.memory()[0] + rounded(life.nbytes) > gpu.capacity_bytes:
            gpu.refused = (len(self.recording.events), life.nbytes, gpu.capacity_bytes - gpu.memory()[0])
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {life.nbytes} bytes.")
        number = super()._bear(life)
        gpu.born(life.nbytes)
        gpu.tags.append(gpu.tagged)
        return number


class FakeGpu:
    """Every block has an address of its own in one segment, so that nothing is ever reused."""

    name = "cpu:0"
    model = "a fake"
    workspaces: frozenset[int] = frozenset()
    total_bytes = allowed_bytes = 24 << 30

    def __init__(self, capacity_bytes: int = 1 << 62, interrupt_at: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.interrupt_at = interrupt_at
        self.refused: tuple[int, int, int] | None = None
        self.process = FakeProcess(self)
        self.closed = False
        self.tagged = ""
        self.tags: list[str] = []
        self._starts = [BASE]
        self._allocator = _Allocator(self)
        self._most = 0
        self._read = self._now = 0

    def born(self, nbytes: int) -> None:
        self._starts.append(self._starts[-1] + rounded(nbytes))
        self._most = max(self._most, self.memory()[0])

    def use_settings(self, settings: str) -> None:
        self.settings = settings

    def restore_settings(self, settings: str) -> None:
        self.settings = "restored" if settings else ""

    def empty(self) -> None:
        pass

    @contextmanager
    def recording(self) -> Iterator[None]:
        with self._allocator:
            yield
        self._allocator.close()

    def tag(self, text: str) -> None:
        self.tagged = text

    def position(self) -> int:
        return len(self._allocator.recording.events)

    def address(self, tensor: Tensor) -> int:
        number = self._allocator.number_of(tensor)
        return -1 if number is None else self._starts[number]

    def on_device(self, tensor: Tensor) -> bool:
        return self._allocator.number_of(tensor) is not None

    def memory(self) -> tuple[int, int]:
        events, lives = self._allocator.recording.events, self._allocator.recording.lives
        for code in events[self._read :]:
            self._now += rounded(lives[abs(code) - 1].nbytes) * (1 if code > 0 else -1)
        self._read = len(events)
        return self._now, self._starts[-1] - BASE

    def reset_peaks(self) -> None:
        self._most = self.memory()[0]

    def peaks(self) -> tuple[int, int]:
        return self._most, self.memory()[1]

    def statistics(self) -> dict[str, int]:
        return {"num_ooms": int(self.refused is not None)}

    def instant(self) -> float:
        return time.perf_counter()

    def elapsed(self, start: float, stop: float) -> float:
        return stop - start

    def synchronize(self) -> None:
        pass

    def environment(self) -> dict[str, Any]:
        return {"device": "cuda", "gpu": "a fake"}

    def close(self) -> None:
        self.closed = True

    def snapshot(self) -> dict[str, Any]:
        recording = self._allocator.recording
        total = self._starts[-1] - BASE
        entries: list[dict[str, Any]] = [{"action": "segment_alloc", "addr": BASE, "size": total}]
        dead = set()
        for position, code in enumerate(recording.events):
            if self.refused and self.refused[0] == position:
                entries.append(self._oom())
            number = abs(code) - 1
            where = {"addr": self._starts[number], "size": recording.lives[number].nbytes}
            if code > 0:
                entries.append({"action": "alloc", "user_metadata": self.tags[number], **where})
            else:
                dead.add(number)
                entries += [{"action": action, **where} for action in ("free_requested", "free_completed")]
        if self.refused and self.refused[0] == len(recording.events):
            entries.append(self._oom())
        blocks = [
            {
                "address": self._starts[number],
                "size": rounded(life.nbytes),
                "requested_size": life.nbytes,
                "state": "inactive" if number in dead else "active_allocated",
            }
            for number, life in enumerate(recording.lives)
        ]
        segment = {"device": 0, "address": BASE, "total_size": total, "segment_type": "large", "blocks": blocks}
        for entry in entries:
            entry.update(stream=0, frames=[])
        return {"segments": [segment], "device_traces": [entries]}

    def _oom(self) -> dict[str, Any]:
        assert self.refused is not None
        return {"action": "oom", "size": self.refused[1], "device_free": self.refused[2]}
