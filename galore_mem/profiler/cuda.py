"""One GPU under torch's own recorder: its history, its counters, its clock, and what it is."""

import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from galore_mem.errors import NoDeviceError, UsageError
from galore_mem.profiler.nvml import ProcessMemory, why_no_gpu

MOST_ENTRIES = 5_000_000
"""Of the history; a step has thousands."""
WORKSPACES = frozenset({8_519_680, 33_554_432, 1 << 20})
"""What cuBLAS (2 x 4096 KiB + 8 x 16 KiB; 32 MiB on Hopper) and cuBLASLt take unless the environment says so."""
_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE")


def require_gpu() -> int:
    """The number of the GPU that torch uses.

    Raises:
        NoDeviceError: there is none that it can use; says why.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what is said in the error below
        if torch.cuda.is_available():
            return torch.cuda.current_device()
    reason = why_no_gpu()
    if reason is not None:
        raise reason
    if torch.version.cuda is None and torch.version.hip is None:
        raise NoDeviceError(
            f"torch {torch.__version__} cannot use a GPU",
            "it is a build for CPUs",
            "install a CUDA build of torch, or leave the GPU out: --device cpu",
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        raise NoDeviceError(f"CUDA_VISIBLE_DEVICES={hidden} leaves no GPU", "", "unset it, or use --device cpu")
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        raise NoDeviceError("torch cannot use the GPU", str(error).splitlines()[0], "or use --device cpu") from None
    raise NoDeviceError("torch sees no GPU", "", "see nvidia-smi, or use --device cpu")


class Gpu:
    """The GPU that torch uses, ready to be recorded.

    Raises:
        NoDeviceError: there is none.
    """

    is_measured = True

    def __init__(self) -> None:
        self.process = ProcessMemory()
        self.index = require_gpu()
        self.name = f"cuda:{self.index}"
        self._properties = torch.cuda.get_device_properties(self.index)
        self.process.choose(str(getattr(self._properties, "uuid", "")))
        self._base = 0

    @property
    def total_bytes(self) -> int:
        """The memory that torch sees."""
        return int(self._properties.total_memory)

    @property
    def allowed_bytes(self) -> int:
        """What this process may take: less than all under `set_per_process_memory_fraction`."""
        fraction = getattr(torch.cuda, "get_per_process_memory_fraction", lambda index: 1.0)(self.index)
        return int(self.total_bytes * fraction)

    @property
    def model(self) -> str:
        """The card, as its driver calls it."""
        return str(self._properties.name)

    @property
    def workspaces(self) -> frozenset[int]:
        """Sizes that cuBLAS may ask for."""
        found = set(WORKSPACES)
        setting = os.environ.get("CUBLAS_WORKSPACE_CONFIG", "")
        parts = [part for part in setting.split(":") if part.isdigit()]
        pairs = zip(parts[::2], parts[1::2], strict=False)
        total = sum(int(kib) * 1024 * int(count) for kib, count in pairs)
        return frozenset(found | {total}) if total else frozenset(found)

    def use_settings(self, settings: str) -> None:
        """Apply allocator settings, as in PYTORCH_CUDA_ALLOC_CONF, from now on."""
        if settings:
            apply = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
            (apply or torch.cuda.memory._set_allocator_settings)(settings)

    def restore_settings(self, settings: str) -> None:
        """Take back what `use_settings` applied: what the environment says again, or torch's defaults."""
        if settings:
            own = os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF")
            self.use_settings(own or "expandable_segments:False")

    def empty(self) -> None:
        """Give back what is cached, and what cuBLAS keeps."""
        clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
        if clear is not None:
            clear()
        torch.cuda.empty_cache()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep a history while entered.

        Raises:
            UsageError: the allocator in use keeps none.
        """
        backend = torch.cuda.memory.get_allocator_backend()
        if backend != "native":
            raise UsageError(
                f"the allocator {backend} keeps no history",
                "PYTORCH_CUDA_ALLOC_CONF chose it",
                "leave its backend out",
            )
        words: dict[str, Any] = {"context": "all", "stacks": "python", "max_entries": MOST_ENTRIES}
        try:
            torch.cuda.memory._record_memory_history("all", clear_history=True, **words)
        except TypeError:  # before torch 2.8
            torch.cuda.memory._record_memory_history("all", **words)
        self._base = self._count()
        try:
            yield
        finally:
            torch.cuda.memory._record_memory_history(None)
            self.tag("")

    def tag(self, text: str) -> None:
        """Write a text beside every allocation from now on, where this torch can (from 2.10 on): viewers show it."""
        write = getattr(torch._C, "_cuda_setMemoryMetadata", None)
        if write is not None:
            write(text)

    def position(self) -> int:
        """Allocations and frees since the recording began."""
        return self._count() - self._base

    def _count(self) -> int:
        found = torch.cuda.memory.memory_stats_as_nested_dict(self.index)
        allocation = found["allocation"]["all"] if found else {"allocated": 0, "freed": 0}
        return int(allocation["allocated"] + allocation["freed"])

    def address(self, tensor: Tensor) -> int:
        """Where a tensor's storage lies."""
        return tensor.untyped_storage().data_ptr()

    def on_device(self, tensor: Tensor) -> bool:
        """Whether a tensor lives on this GPU."""
        return tensor.is_cuda and tensor.get_device() == self.index

    def snapshot(self) -> Any:  # noqa: ANN401
        """The history and the segments, as torch's memory viewer reads them."""
        torch.cuda.synchronize(self.index)
        return torch.cuda.memory._snapshot()

    def reset_peaks(self) -> None:
        """Forget the peaks so far."""
        torch.cuda.reset_peak_memory_stats(self.index)

    def peaks(self) -> tuple[int, int]:
        """Largest allocated and reserved bytes since the last reset."""
        return torch.cuda.max_memory_allocated(self.index), torch.cuda.max_memory_reserved(self.index)

    def memory(self) -> tuple[int, int]:
        """Allocated and reserved bytes now."""
        return torch.cuda.memory_allocated(self.index), torch.cuda.memory_reserved(self.index)

    def statistics(self) -> dict[str, int]:
        """The allocator's own counters."""
        found = torch.cuda.memory_stats(self.index)
        return {name: value for name, value in found.items() if isinstance(value, int)}

    def instant(self) -> Any:  # noqa: ANN401
        """A point in the GPU's own time."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.index))
        return event

    def elapsed(self, start: Any, stop: Any) -> float:  # noqa: ANN401
        """Seconds between two instants that have passed."""
        return float(start.elapsed_time(stop)) / 1e3

    def synchronize(self) -> None:
        """Wait until everything has run."""
        torch.cuda.synchronize(self.index)

    def environment(self) -> dict[str, Any]:
        """What ran: card, driver, libraries, and settings that move memory."""
        capability = torch.cuda.get_device_capability(self.index)
        found: dict[str, Any] = {
            "device": "cuda",
            "gpu": self.model,
            "gpu_total_bytes": self.total_bytes,
            "compute_capability": f"{capability[0]}.{capability[1]}",
            "driver": self.process.driver(),
            "cuda": torch.version.cuda or "",
            "cudnn": torch.backends.cudnn.version() or "",  # type: ignore[no-untyped-call]
            "platform": platform.platform(),
            "allocator_backend": torch.cuda.memory.get_allocator_backend(),
            "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
            "process_memory_from": self.process.source,
        }
        found |= {name: os.environ[name] for name in _SETTINGS if os.environ.get(name)}
        return {name: value for name, value in found.items() if value != ""}

    def close(self) -> None:
        """Let the driver's library go."""
        self.process.close()
