"""One workload, one card, one answer: the analytic footprint."""

from functools import lru_cache

from estimators.analytic.attention import attention_kernel
from estimators.analytic.bounds import peaks_of
from estimators.analytic.buffers import buffers
from estimators.analytic.moments import moments_of
from estimators.analytic.parameters import workload_parameters
from estimators.analytic.states import group_states, shared_states
from estimators.analytic.tensors import exact_bytes
from estimators.footprint import Footprint
from estimators.workload import Workload
from profiles.gpus import SMALL_WORKSPACE_BYTES, Gpu


@lru_cache(maxsize=65536)
def estimate(workload: Workload, gpu: Gpu | None = None) -> Footprint:
    """What one training step of a workload holds, moment by moment.

    Args:
        workload: the run.
        gpu: the card: it decides the attention kernel, cuBLAS workspaces and the context. Without one, an Ampere or
            Ada consumer card is meant.

    Raises:
        InputError: the workload cannot run on the card.
    """
    kernel = attention_kernel(workload, gpu)
    workspace = gpu.cublas_workspace_recent_bytes if gpu is not None else SMALL_WORKSPACE_BYTES
    moments = moments_of(workload, kernel, workspace)
    peaks = peaks_of(workload, moments, gpu, ())
    return Footprint(
        source="analytic",
        moments=moments,
        resident_bytes=_resident_bytes(workload),
        terms=peaks.terms,
        peak_allocated_bytes=peaks.allocated_bytes,
        peak_reserved_bytes=peaks.reserved_bytes,
        process_bytes=peaks.process_bytes,
        upper_bytes=peaks.upper_bytes,
    )


def _resident_bytes(workload: Workload) -> dict[str, int]:
    """Exact bytes, as `sum(t.nbytes)` counts them; states include the scalars that torch keeps on the host."""
    groups, method = workload_parameters(workload), workload.method
    states = [state for group in groups for state in group_states(group, method)]
    states += shared_states(groups, method)
    whole = method.update == "whole"
    return {
        "weights": sum(group.nbytes * group.count for group in groups),
        "buffers": exact_bytes(buffers(workload.model)),
        "optimizer_states": exact_bytes(state for state in states if state.category == "optimizer_states"),
        "projectors": exact_bytes(state for state in states if state.category == "projectors"),
        "gradients": sum(group.nbytes * group.count for group in groups if group.trainable and whole),
    }
