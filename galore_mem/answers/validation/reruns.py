"""The same run under a cap on the allocator's memory."""

from collections.abc import Callable
from typing import Protocol

from estimators.allocator.parse import parse_settings
from estimators.workload import Workload
from galore_mem.answers.histories import History
from galore_mem.answers.limits import Limit
from galore_mem.answers.validation.measuring import Measurement

Survives = Callable[[int], bool]
"""Whether the run comes to its end when the allocator may hold so many bytes."""


def replayed(found: Measurement) -> Survives:
    """Through the replica of the allocator: whether the recorded history survives a limit."""
    (tape,) = found.tapes
    settings = parse_settings(tape.settings)
    history = History(tape.devices[0], settings)

    def survives(limit_bytes: int) -> bool:
        limit = Limit(name="cap", capacity_bytes=limit_bytes, total_bytes=limit_bytes, reason="the predicted bound")
        return history.run(settings, limit).replayed.oom is None

    return survives


class CappedDevice(Protocol):
    """A GPU whose allocator can be held short."""

    def cap(self, limit_bytes: int | None) -> None:
        """Let the allocator hold so much; None: all of the card."""

    def release(self) -> None:
        """Give back all that the allocator caches."""

    def train(self, workload: Workload) -> None:
        """Build, and run two iterations.

        Raises:
            MemoryError: the allocator was refused.
        """


def on_gpu(workload: Workload, device: CappedDevice | None = None) -> Survives:
    """On the GPU: whether the run survives a limit on what torch's allocator may hold."""
    gpu = device or TorchGpu()

    def survives(limit_bytes: int) -> bool:
        gpu.release()
        gpu.cap(limit_bytes)
        try:
            gpu.train(workload)
        except MemoryError:
            return False
        finally:
            gpu.cap(None)
            gpu.release()
        return True

    return survives


class TorchGpu:
    """The GPU that torch uses."""

    def cap(self, limit_bytes: int | None) -> None:
        """By `set_per_process_memory_fraction`, which is rounded down to what was asked for."""
        import torch

        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(1.0 if limit_bytes is None else min(1.0, limit_bytes / total))

    def release(self) -> None:
        """Give back all that the allocator caches, cuBLAS's workspaces included."""
        import gc

        import torch

        gc.collect()
        clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
        if clear is not None:
            clear()
        torch.cuda.empty_cache()

    def train(self, workload: Workload) -> None:
        """A first iteration and one more with a refresh, with nobody watching.

        Raises:
            MemoryError: the allocator was refused.
        """
        import torch

        try:
            train_unwatched(workload, f"cuda:{torch.cuda.current_device()}")
            torch.cuda.synchronize()
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from None


def train_unwatched(workload: Workload, device: str) -> None:
    """The canonical step twice, as it is measured, unrecorded."""
    from galore_mem.training.session import Session
    from galore_mem.witness import Unwatched

    session = Session(workload, workload.attention, None, device)
    session.iterate(Unwatched(), "first")
    session.refresh_at_every_step()
    session.iterate(Unwatched(), "steady")
