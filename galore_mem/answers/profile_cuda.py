"""The canonical step on a GPU, under torch's own recorder."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from estimators.analytic.parameters import ParameterGroup
from estimators.workload import Workload
from galore_mem.answers.steps import Told, silent
from galore_mem.errors import UsageError
from galore_mem.profiler.attribution import Sizes, measured_tape
from galore_mem.profiler.nvml import Sampler
from galore_mem.profiler.recording import Recording
from galore_mem.profiler.steps import StepRecord, Stopwatch
from galore_mem.tapes.tape import Tape
from galore_mem.witness import Unwatched

Ending = Literal["complete", "out-of-memory", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """The last recorded step beside the same step unrecorded."""

    recorded_seconds: float
    plain_seconds: float
    recorded_peak_allocated_bytes: int
    plain_peak_allocated_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "recorded_seconds": round(self.recorded_seconds, 6),
            "plain_seconds": round(self.plain_seconds, 6),
            "recorded_peak_allocated_bytes": self.recorded_peak_allocated_bytes,
            "plain_peak_allocated_bytes": self.plain_peak_allocated_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRun:
    """What a GPU did."""

    ending: Ending
    recording: Recording
    tape: Tape
    steps: tuple[StepRecord, ...]
    groups: tuple[ParameterGroup, ...]
    """All parameters, where it came to that."""
    kernels: tuple[str, ...]
    """Attention kernels that were seen to run."""
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    process_bytes: int | None
    """Largest seen; None where the driver does not tell."""
    context_bytes: int | None
    """What the process held beyond its reserved memory, at the end."""
    process_samples: tuple[tuple[float, int], ...]
    """(seconds, bytes)."""
    host_bytes: int
    """Optimizer states that stay in host memory."""
    statistics: dict[str, int]
    environment: dict[str, Any]
    overhead: Overhead | None
    snapshot: Any
    """As torch wrote it."""
    notes: tuple[str, ...] = ()


def record_on_gpu(
    workload: Workload,
    gpu: Any,  # noqa: ANN401
    *,
    steps: int,
    told: Told | None = None,
    watched: Callable[[Callable[[], tuple[int, int]]], object] | None = None,
    overhead: bool = True,
) -> GpuRun:
    """Run the first steps of a workload on a GPU, and keep what is known of them however they end.

    Args:
        workload: the run; its attention kernel is pinned unless it is `auto`.
        gpu: a `galore_mem.profiler.cuda.Gpu`, or what behaves like one.
        steps: training steps; the last of several recomputes projectors, where there are any.
        told: called as each stage begins.
        watched: given a function that says how many bytes are allocated now and were at most.
        overhead: take one more step unrecorded, to say what recording costs.
    """
    run = _Run(workload, gpu, told or silent)
    gpu.use_settings(workload.allocator_settings)
    gc.collect()
    gpu.empty()
    gpu.reset_peaks()
    if watched is not None:
        watched(run.meter)
    with _without_collector(), Sampler(gpu.process.read) as sampler, gpu.recording():
        ending = run.train(steps)
        sampler.sample()
        context = None if sampler.current is None else max(0, sampler.current - gpu.memory()[1])
        snapshot, seen = gpu.snapshot(), gpu.position()
    with _without_collector():
        cost = run.overhead() if overhead and ending == "complete" else None
    run.release()
    gpu.restore_settings(workload.allocator_settings)
    return run.result(ending, snapshot, seen, sampler, context, cost)


class _Run:
    def __init__(self, workload: Workload, gpu: Any, told: Told) -> None:  # noqa: ANN401
        from galore_mem.profiler.stamps import StampingWitness

        self.workload = workload
        self.gpu = gpu
        self.told = told
        self.witness = StampingWitness(gpu.position, gpu.address, gpu.on_device, gpu.tag)
        self.watch = Stopwatch(self.witness, gpu.position, gpu.instant, gpu.elapsed)
        self.session: Any = None
        self.groups: tuple[ParameterGroup, ...] = ()
        self.kernels: tuple[str, ...] = ()
        self.peaks: list[tuple[int, int]] = []
        """Allocated and reserved, of the building and of each step."""
        self.statistics: dict[str, int] = {}

    def meter(self) -> tuple[int, int]:
        """Allocated now, and the most so far."""
        most = max((allocated for allocated, _ in self.peaks), default=0)
        return self.gpu.memory()[0], max(most, self.gpu.peaks()[0])

    def train(self, steps: int) -> Ending:
        """Build and step; says how it ended."""
        from torch import OutOfMemoryError

        try:
            self._build()
            accumulates = self.workload.batch.gradient_accumulation_steps > 1
            with self.witness.following(self.session.model, accumulates=accumulates):
                for number in range(steps):
                    self._step(number, steps)
            ending: Ending = "complete"
        except OutOfMemoryError:
            ending = "out-of-memory"
        except KeyboardInterrupt:
            ending = "interrupted"
        self.watch.finish()
        self._keep_peaks()
        self.gpu.synchronize()
        self.statistics = self.gpu.statistics()
        return ending

    def _build(self) -> None:
        from galore_mem.training.session import Session

        self.told("building the model")
        with self.witness.scope("weights"):
            self.session = Session(self.workload, self.workload.attention, None, self.gpu.name)
        for category, name, tensor in self.session.weights_in_order():
            self.witness.claim(category, (tensor,), name)

    def _step(self, number: int, steps: int) -> None:
        self.told(f"step {number + 1} of {steps}")
        self._keep_peaks()
        if number and number == steps - 1:
            self.session.refresh_at_every_step()
        try:
            self.session.iterate(self.watch, "steady" if number else "first")
        except RuntimeError as error:
            if "No available kernel" not in str(error):
                raise
            raise UsageError(
                f"--attention {self.workload.attention} cannot run on {self.gpu.model}",
                "torch finds no such kernel for this model",
                "use --attention auto",
            ) from None
        self.gpu.synchronize()

    def _keep_peaks(self) -> None:
        """Each step has peaks of its own."""
        self.peaks.append(self.gpu.peaks())
        self.gpu.reset_peaks()

    def overhead(self) -> Overhead | None:
        """The last step once more, with nobody watching; None where it does not come to its end."""
        from torch import OutOfMemoryError

        self.told("one step unrecorded")
        self.gpu.reset_peaks()
        start = self.gpu.instant()
        try:
            self.session.iterate(Unwatched(), "steady")
        except (OutOfMemoryError, KeyboardInterrupt):
            return None
        stop = self.gpu.instant()
        self.gpu.synchronize()
        return Overhead(
            recorded_seconds=self.watch.records()[-1].total_seconds,
            plain_seconds=self.gpu.elapsed(start, stop),
            recorded_peak_allocated_bytes=self.peaks[-1][0],
            plain_peak_allocated_bytes=self.gpu.peaks()[0],
        )

    def release(self) -> None:
        """Keep what is known of the session, and give its memory back."""
        if self.session is not None:
            self.groups = self.session.parameter_groups()
            self.kernels = tuple(sorted(self.session.attention_kernels))
            self.session.close()
        self.session = None
        gc.collect()
        self.gpu.empty()

    def result(
        self,
        ending: Ending,
        snapshot: Any,  # noqa: ANN401
        seen: int,
        sampler: Sampler,
        context: int | None,
        overhead: Overhead | None,
    ) -> GpuRun:
        """Lay the history and the stamps together."""
        self.told("reading the history")
        stamps = self.witness.stamps
        tape, recording = measured_tape(snapshot, self.gpu, stamps, events_seen=seen, sizes=self._sizes(), metadata={})
        steps = tuple(
            replace(step, peak_allocated_bytes=allocated, peak_reserved_bytes=reserved)
            for step, (allocated, reserved) in zip(self.watch.records(), self.peaks[1:], strict=False)
        )
        return GpuRun(
            ending=ending,
            recording=recording,
            tape=tape,
            steps=steps,
            groups=self.groups,
            kernels=self.kernels,
            peak_allocated_bytes=max(allocated for allocated, _ in self.peaks),
            peak_reserved_bytes=max(reserved for _, reserved in self.peaks),
            process_bytes=sampler.peak,
            context_bytes=context,
            process_samples=tuple(sampler.samples),
            host_bytes=sum(self.witness.host_bytes.values()),
            statistics=self.statistics,
            environment=self.gpu.environment(),
            overhead=overhead,
            snapshot=snapshot,
            notes=self._notes(sampler),
        )

    def _notes(self, sampler: Sampler) -> tuple[str, ...]:
        if sampler.peak is None:
            return ("the driver does not tell what the process holds: its figure is what torch reserved",)
        if self.gpu.process.source == "device":
            return ("the driver does not know this process by its number: what the whole GPU gained is taken for it",)
        return ()

    def _sizes(self) -> Sizes:
        """Allocations that are known by their size."""
        model, workload = self.workload.model, self.workload
        tokens = workload.batch.tokens * model.vocab_size
        shared = {model.vocab_size * model.hidden_size * workload.weight_itemsize}
        return Sizes(
            workspaces=self.gpu.workspaces,
            logits=frozenset({2 * tokens, 4 * tokens}),
            shared_gradients=frozenset(shared if model.tie_word_embeddings else ()),
        )


@contextmanager
def _without_collector() -> Iterator[None]:
    """The collector would end lives at moments of its own."""
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
