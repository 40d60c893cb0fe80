"""What a trace needs of the machine it runs on: packages, and host memory. Asked before anything is built."""

import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from estimators.workload import Workload
from galore_mem.errors import GaloreMemError, MissingExtraError

LIBRARY_BYTES = 450 << 20
"""Resident memory of torch, transformers with a model class, and bitsandbytes (403 MiB with torch 2.13 for CPUs)."""
UNTOUCHED_BYTES = 450 << 20
"""Mapped by the same libraries and never touched: what a limit of address space must leave besides."""
TENSOR_BYTES = 300 << 10
"""Per trained tensor, of the records of two steps: 200 KiB were seen with our per-layer GaLore, which does the most."""
STEP_BYTES = 50 << 10
"""Per trained tensor, of the record of each further kind of step."""
LAYER_TENSORS = 16
"""More trained tensors than a decoder layer has in any family here, adapters included."""


def require_packages(workload: Workload) -> None:
    """Import what tracing a workload needs.

    Raises:
        MissingExtraError: a package is not installed; says what needs it, and the command that brings it.
    """
    method = workload.method
    needed = [("a trace", "train", "torch"), ("a trace", "train", "transformers")]
    if method.implementation == "galore-torch" and method.parameterisation == "galore":
        needed.append(("--implementation galore-torch", "test", "galore_torch"))
    if method.optimizer in ("adamw-8bit", "adamw-32bit") or method.quantised:
        needed.append((f"--method {method.name}", "train", "bitsandbytes"))
    if method.parameterisation in ("lora", "relora"):
        needed.append((f"--method {method.name}", "test", "peft"))
    for feature, extra, module in needed:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            missing = (error.name or module).partition(".")[0]
            raise MissingExtraError(feature, extra, missing) from None


def require_memory(workload: Workload, steps: int = 2, available_bytes: int | None = None) -> None:
    """Refuse a trace that this machine has no memory for.

    Args:
        workload: the run.
        steps: kinds of steps that are recorded.
        available_bytes: free memory; what the system says unless given.

    Raises:
        GaloreMemError: less is free than a trace is known to take.
    """
    if available_bytes is None:
        available_bytes = free_bytes()
    tensors = LAYER_TENSORS * (workload.model.num_hidden_layers + 1)
    predicted = LIBRARY_BYTES + tensors * (TENSOR_BYTES + STEP_BYTES * max(0, steps - 2))
    missing = predicted - _held_bytes(1)
    if available_bytes is not None and missing > available_bytes:
        raise GaloreMemError(
            f"tracing {workload.model.name} takes about {predicted >> 20:,} MiB of host memory",
            f"{available_bytes >> 20:,} MiB are free",
            "close other programs, or use galore-mem plan, which needs a few MiB",
        )


def free_bytes() -> int | None:
    """Memory that this process could still take: of machine, container and limits; None where unknown."""
    found = [value for value in (_meminfo("MemAvailable"), _group_bytes(), _address_bytes()) if value is not None]
    return min(found, default=None)


def _meminfo(key: str) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None


def _group_bytes() -> int | None:
    """What the limit of a container leaves; cached files can be given back."""
    folder = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        if limit == "max":
            return None
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return int(limit) - used + int(counts.get("inactive_file", 0))
    return None


def _address_bytes() -> int | None:
    """What `ulimit -v` leaves."""
    with suppress(ImportError, OSError, ValueError):
        from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit

        limit = getrlimit(RLIMIT_AS)[0]
        if limit != RLIM_INFINITY:
            return max(0, limit - _held_bytes(0) - UNTOUCHED_BYTES)
    return None


def _held_bytes(column: int) -> int:
    """What this process holds already: address space (0) or resident memory (1); torch may be among it."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[column])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0
