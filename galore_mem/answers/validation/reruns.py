"""The same run under a cap on the allocator's memory."""

from collections.abc import Callable

from estimators.allocator.parse import parse_settings
from estimators.workload import Workload
from galore_mem.answers.histories import History
from galore_mem.answers.limits import Limit
from galore_mem.answers.validation.measuring import Measurement, measure

CAPPED_STEPS = 2
"""A first step and one more: every moment of a steady iteration."""


def replayed(found: Measurement) -> Callable[[int], bool]:
    """Through the replica of the allocator: whether the recorded history survives a limit."""
    (tape,) = found.tapes
    settings = parse_settings(tape.settings)
    history = History(tape.devices[0], settings)

    def survives(limit_bytes: int) -> bool:
        limit = Limit(name="cap", capacity_bytes=limit_bytes, total_bytes=limit_bytes, reason="the predicted bound")
        return history.run(settings, limit).replayed.oom is None

    return survives


def on_gpu(workload: Workload) -> Callable[[int], bool]:
    """On the GPU: whether the run survives a limit on what torch's allocator may hold."""

    def survives(limit_bytes: int) -> bool:
        import torch

        total = torch.cuda.get_device_properties(0).total_memory
        release()
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total))
        try:
            return measure(workload, "cuda", CAPPED_STEPS).outcome == "measured"
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            release()

    return survives


def release() -> None:
    """Give back all that the allocator caches, cuBLAS's workspaces included."""
    import gc

    import torch

    gc.collect()
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()
    torch.cuda.empty_cache()
