"""From a recorded step to figures: its footprint, what it leaves resident, and how it fits a card."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from estimators.analytic.bounds import context_range
from estimators.analytic.parameters import ParameterGroup, parameter_count
from estimators.footprint import Footprint, Moment, Term
from estimators.verdict import Fit, max_micro_batch_size, max_sequence_length, verdict_of
from estimators.workload import Workload
from galore_mem.answers.lengths import Variation
from galore_mem.answers.names import Card
from galore_mem.answers.replay import DeviceReplay
from galore_mem.profiler.recording import PHASES, Life, Recording, peaks_of
from galore_mem.witness import HOST
from profiles.gpus import SMALL_WORKSPACE_BYTES, Gpu
from profiles.shapes import UncoveredShape

LARGEST = 10
"""Tensors alive at the peak that are named."""


def footprint_of(
    recording: Recording,
    replayed: DeviceReplay,
    gpu: Gpu | None,
    variation: Variation | None,
    unknown: tuple[Term, ...],
) -> tuple[Footprint, int]:
    """The footprint, and after how many events the live peak is reached.

    Args:
        recording: what lived when.
        replayed: the same through the allocator's replica.
        gpu: the card.
        variation: what other orders of steps reserve.
        unknown: scratch that no trace sees.
    """
    peaks = [peak for peak in peaks_of(recording) if peak.window != "between"]
    moments = tuple(
        Moment(
            iteration=peak.iteration,  # type: ignore[arg-type]
            name=peak.window,
            phase=PHASES[peak.window],  # type: ignore[arg-type]
            by_category=peak.by_category,
        )
        for peak in peaks
    )
    top = max(peaks, key=lambda peak: peak.live_bytes)
    run = replayed.replayed
    reserved = run.peak_reserved_bytes
    low, high = context_range(gpu)
    beyond = reserved - top.live_bytes
    worst = max(reserved, variation.reserved.high_bytes) if variation is not None else reserved
    terms = (
        Term(
            name="blocks and segments",
            low_bytes=beyond,
            high_bytes=worst - top.live_bytes,
            reason="unsplit rests of blocks, and cached memory that no tensor fitted, by the replica of the allocator",
        ),
        *unknown,
        Term(
            name="context",
            low_bytes=(low + high) // 2,
            high_bytes=high,
            reason=gpu.context_source if gpu is not None else "the range seen on consumer cards",
        ),
    )
    footprint = Footprint(
        source="traced",
        moments=moments,
        resident_bytes=resident_bytes(recording),
        terms=terms,
        peak_allocated_bytes=run.peak_allocated_bytes,
        peak_reserved_bytes=reserved,
        process_bytes=reserved + (low + high) // 2,
        upper_bytes=worst + sum(term.high_bytes for term in unknown) + high,
    )
    return footprint, top.position


def resident_bytes(recording: Recording) -> dict[str, int]:
    """Exact bytes by category that live when the recording ends; states include the scalars that stay on the host."""
    alive = [0] * len(recording.lives)
    for code in recording.events:
        alive[abs(code) - 1] = int(code > 0)
    totals = dict.fromkeys(("weights", "buffers", "optimizer_states", "projectors", "gradients"), 0)
    for life, lives in zip(recording.lives, alive, strict=True):
        category = "optimizer_states" if life.category == HOST else life.category
        if lives and category in totals:
            totals[category] += life.nbytes
    return totals


def is_covered(workload: Workload) -> bool:
    """Whether there is a closed form."""
    return not isinstance(workload.model, UncoveredShape)


def parameters_of(workload: Workload, groups: Sequence[ParameterGroup]) -> int:
    """Of the model, each shared one once; adapters do not count."""
    if is_covered(workload):
        return parameter_count(workload.model)
    return sum(group.numel * group.count for group in groups if "lora_" not in group.name)


def fit_dict(workload: Workload, fit: Fit) -> dict[str, Any]:
    """A fit as JSON; what only a closed form could search is null without one."""
    unknown = {} if is_covered(workload) else dict.fromkeys(("max_sequence_length", "max_micro_batch_size"))
    return fit.to_dict() | unknown


def fit_of(workload: Workload, footprint: Footprint, card: Card) -> Fit:
    """A footprint against a card; the largest batch and sequence are the closed form's."""
    usable = card.gpu.usable_bytes - card.other_use_bytes
    return Fit(
        gpu=card.gpu,
        footprint=footprint,
        usable_bytes=usable,
        verdict=verdict_of(footprint, usable),
        max_sequence_length=max_sequence_length(workload, card.gpu, usable) if is_covered(workload) else 0,
        max_micro_batch_size=max_micro_batch_size(workload, card.gpu, usable) if is_covered(workload) else 0,
    )


def workspace_bytes_of(gpu: Gpu | None) -> int:
    """What cuBLAS takes for each thread that multiplies matrices."""
    return gpu.cublas_workspace_recent_bytes if gpu is not None else SMALL_WORKSPACE_BYTES


def largest_rows(lives: Sequence[Life]) -> list[dict[str, Any]]:
    """Tensors for the JSON output."""
    return [
        {"bytes": life.nbytes, "category": life.category, "module": life.module, "operator": life.operator}
        for life in lives
    ]


def allocator_dict(replay: DeviceReplay) -> dict[str, Any]:
    """The `allocator` object of the JSON output."""
    run = replay.replayed
    return {
        "settings": run.settings.text,
        "events": replay.events,
        "end_reserved_bytes": run.end_reserved_bytes,
        "unused_share": round(replay.fragmentation.unused_share, 6),
        "what_ifs": [
            {
                "settings": row.settings,
                "peak_reserved_bytes": row.peak_reserved_bytes,
                "peak_allocated_bytes": row.peak_allocated_bytes,
            }
            for row in replay.what_ifs
        ],
    }


def environment() -> dict[str, str]:
    """Versions of what was traced."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "bitsandbytes", "galore_torch", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
