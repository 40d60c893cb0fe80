"""A GPU's run as a footprint: what was measured, and nothing that was estimated."""

from estimators.footprint import Footprint, Moment, Term
from galore_mem.answers.profile_cuda import GpuRun
from galore_mem.answers.recorded import resident_bytes
from galore_mem.profiler.recording import PHASES, peaks_of


def footprint_of(run: GpuRun) -> tuple[Footprint, int]:
    """The footprint, and after how many events the live peak is reached.

    Live bytes are requests rounded up to 512 B, from the history; allocated and reserved are the allocator's own
    counters; the process is the driver's figure, and where it does not tell, what is reserved.
    """
    found = peaks_of(run.recording)
    peaks = [peak for peak in found if peak.window != "between"] or found  # it may end before the first step
    moments = tuple(
        Moment(
            iteration="steady" if peak.iteration == "steady" else "first",
            name=peak.window,
            phase=PHASES[peak.window],  # type: ignore[arg-type]
            by_category=peak.by_category,
        )
        for peak in peaks
    ) or (Moment(iteration="first", name="between", phase="between", by_category={}),)
    top = max(peaks, key=lambda peak: peak.live_bytes, default=None)
    live = top.live_bytes if top is not None else 0
    reserved = run.peak_reserved_bytes
    process = max(reserved, run.process_bytes or 0)
    resident = resident_bytes(run.recording)
    resident["optimizer_states"] += run.host_bytes
    terms = (
        Term(
            name="blocks and segments",
            low_bytes=reserved - live,
            high_bytes=reserved - live,
            reason="unsplit rests of blocks, and cached memory that no tensor fitted: measured",
        ),
        Term(
            name="context",
            low_bytes=process - reserved,
            high_bytes=process - reserved,
            reason="what the driver counts for the process beyond reserved memory: measured"
            if run.process_bytes
            else "the driver does not tell what the process holds",
        ),
    )
    footprint = Footprint(
        source="measured",
        moments=moments,
        resident_bytes=resident,
        terms=terms,
        peak_allocated_bytes=run.peak_allocated_bytes,
        peak_reserved_bytes=reserved,
        process_bytes=process,
        upper_bytes=process,
    )
    return footprint, top.position if top is not None else 0
