"""What this process holds of a GPU, as the driver counts it; and why there is no GPU to use, where there is none."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from galore_mem.errors import NoDeviceError

_WITHOUT = "or leave the GPU out: --device cpu"
SAMPLE_SECONDS = 0.02


def why_no_gpu() -> NoDeviceError | None:
    """The driver's reason why no GPU can be used; None where it sees one, or cannot be asked."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return NoDeviceError(
            "this machine has no NVIDIA driver", "libnvidia-ml was not found", f"install it, {_WITHOUT}"
        )
    except pynvml.NVMLError_DriverNotLoaded:
        return NoDeviceError("the NVIDIA driver is installed but not loaded", "", f"load it, {_WITHOUT}")
    except pynvml.NVMLError as error:
        return NoDeviceError("the NVIDIA driver does not answer", f"NVML says: {error}", f"see nvidia-smi, {_WITHOUT}")
    try:
        if pynvml.nvmlDeviceGetCount() == 0:
            return NoDeviceError("the NVIDIA driver sees no GPU", "", f"see nvidia-smi, {_WITHOUT}")
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return None


class ProcessMemory:
    """Bytes that this process holds of one GPU.

    The driver lists processes with what each holds. Where it does not (in containers it may not know this process by
    its number, and some drivers keep the figure to themselves), what the whole GPU holds beyond what it held before is
    taken, which counts others that came since.

    Create it before CUDA is used: that is the time to compare with.
    """

    def __init__(self) -> None:
        self.source = "unknown"
        """`process`, `device` (what the whole GPU gained), or `unknown`."""
        self._nvml: Any = None
        self._handle: Any = None
        self._before: dict[str, tuple[int, frozenset[int]]] = {}
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # no binding, no driver: the figure stays unknown
            return
        self._nvml = pynvml
        with suppress(pynvml.NVMLError):
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
                self._before[uuid] = (self._used(handle), frozenset(self._processes(handle)))

    def choose(self, uuid: str) -> None:
        """Look at this GPU from now on."""
        if self._nvml is None:
            return
        for name in (uuid, f"GPU-{uuid}"):
            with suppress(self._nvml.NVMLError):
                self._handle = self._nvml.nvmlDeviceGetHandleByUUID(name)
                self._uuid = name
                return

    def read(self) -> int | None:
        """Bytes now; None where the driver does not tell."""
        if self._handle is None:
            return None
        try:
            before, others = self._before.get(self._uuid, (None, frozenset()))
            holds = self._processes(self._handle)
            new = set(holds) - others
            own = os.getpid() if os.getpid() in holds else new.pop() if len(new) == 1 else None
            if own is not None and holds[own]:
                self.source = "process"
                return holds[own]
            if before is None:
                return None
            self.source = "device"
            return max(0, self._used(self._handle) - before)
        except self._nvml.NVMLError:
            return None

    def driver(self) -> str:
        """The driver's version; empty where unknown."""
        if self._nvml is None:
            return ""
        try:
            return _text(self._nvml.nvmlSystemGetDriverVersion())
        except self._nvml.NVMLError:
            return ""

    def close(self) -> None:
        """Let NVML go."""
        if self._nvml is not None:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
            self._nvml = self._handle = None

    def _used(self, handle: Any) -> int:  # noqa: ANN401
        return int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used)

    def _processes(self, handle: Any) -> dict[int, int]:  # noqa: ANN401
        """Bytes by process; 0 where the driver does not tell."""
        try:
            rows = self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except self._nvml.NVMLError:
            return {}
        return {int(row.pid): int(row.usedGpuMemory or 0) for row in rows}


class Sampler:
    """Reads a figure again and again in a thread of its own.

    Args:
        read: bytes now, or None.
        seconds: between two readings.
    """

    def __init__(self, read: Callable[[], int | None], seconds: float = SAMPLE_SECONDS) -> None:
        self._read = read
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.current: int | None = None
        self.peak: int | None = None
        self.samples: list[tuple[float, int]] = []
        """(seconds since the start, bytes) whenever the figure changed."""
        self._start = 0.0

    def __enter__(self) -> "Sampler":
        """Starts to read."""
        self._start = time.perf_counter()
        self.sample()
        self._thread = threading.Thread(target=self._run, name="galore-mem sampler", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Reads once more and stops."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self.sample()

    def sample(self) -> None:
        """Read once."""
        value = self._read()
        if value is None:
            return
        if value != self.current:
            self.samples.append((time.perf_counter() - self._start, value))
        self.current = value
        self.peak = max(self.peak or 0, value)

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self.sample()


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
