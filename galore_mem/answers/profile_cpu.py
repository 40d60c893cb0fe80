"""The canonical step on real CPU tensors, recorded."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from estimators.analytic.cards import CardTraits
from estimators.analytic.estimate import estimate
from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.reductions import column_sum_scratch
from estimators.workload import Workload
from galore_mem.answers.needs import free_bytes, require_packages
from galore_mem.answers.profile_cuda import Ending
from galore_mem.answers.steps import Told, silent
from galore_mem.errors import GaloreMemError
from galore_mem.profiler.recording import Recording, rounded
from galore_mem.profiler.steps import StepRecord
from profiles.shapes import UncoveredShape


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuRun:
    """What CPU tensors did."""

    ending: Ending
    recording: Recording
    steps: tuple[StepRecord, ...]
    groups: tuple[ParameterGroup, ...]
    """All parameters."""


class Meter:
    """Live bytes of a recording that goes on, read from time to time."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._read = 0
        self._now = 0
        self._most = 0

    def __call__(self) -> tuple[int, int]:
        """Now, and the most so far."""
        events, lives = self._recording.events, self._recording.lives
        while self._read < len(events):
            code = events[self._read]
            self._read += 1
            nbytes = rounded(lives[abs(code) - 1].nbytes)
            self._now += nbytes if code > 0 else -nbytes
            self._most = max(self._most, self._now)
        return self._now, self._most


def record_on_cpu(
    workload: Workload,
    kernel: str,
    *,
    steps: int,
    workspace_bytes: int = 0,
    card: CardTraits | None = None,
    told: Told | None = None,
    watched: Callable[[Meter], object] | None = None,
) -> CpuRun:
    """Run the first steps of a workload on CPU tensors.

    Attention and dropout keep and take what the CUDA kernels would; their values are computed by torch's CPU kernels.

    Args:
        workload: the run.
        kernel: the attention kernel whose tensors are recorded; `cpu` for torch's own on CPU tensors.
        steps: training steps; the last of several recomputes projectors, where there are any.
        workspace_bytes: of cuBLAS, per thread; 0 for none.
        card: whose kernels' scratch is recorded.
        told: called as each stage begins.
        watched: given what reads current and peak live bytes.

    Raises:
        GaloreMemError: a missing package, a model that cannot be built, or too little host memory.
    """
    told = told or silent
    _require_host_memory(workload)
    told("importing")
    require_packages(workload)
    from galore_mem.profiler.recorder import Recorder
    from galore_mem.profiler.rules import Rules
    from galore_mem.profiler.steps import Stopwatch
    from galore_mem.training.session import Session

    told("building the model")
    session = _on_host(lambda: Session(workload, kernel, None, card=card), workload)
    recorder = Recorder(
        Rules(
            workspace_bytes=workspace_bytes,
            column_sums=partial(column_sum_scratch, card) if card is not None else None,
        ),
        workload.model.vocab_size,
    )
    for category, name, tensor in session.weights_in_order():
        recorder.hold(category, name, tensor)
    watch = Stopwatch(recorder, lambda: len(recorder.recording.events))
    if watched is not None:
        watched(Meter(recorder.recording))

    def train() -> None:
        with recorder, recorder.following(session.model):
            for number in range(steps):
                told(f"step {number + 1} of {steps}")
                if number and number == steps - 1:
                    session.refresh_at_every_step()
                session.iterate(watch, "steady" if number else "first")

    ending: Ending = "complete"
    collects = gc.isenabled()
    gc.collect()
    gc.disable()  # the collector would end lives at moments of its own
    try:
        _on_host(train, workload)
    except KeyboardInterrupt:
        if all(window == "between" for _, _, window in recorder.recording.borders):
            raise  # there is nothing to tell yet
        ending = "interrupted"
    finally:
        if collects:
            gc.enable()
    watch.finish()
    recording = recorder.close()
    session.close()
    return CpuRun(ending=ending, recording=recording, steps=watch.records(), groups=session.parameter_groups())


def _require_host_memory(workload: Workload) -> None:
    """Refuse a step whose tensors this machine has no memory for, before minutes go into making them."""
    available = free_bytes()
    if available is None or isinstance(workload.model, UncoveredShape):
        return
    needed = estimate(workload, None).peak_live_bytes
    if needed > available:
        raise _too_small(workload, f"it holds {needed / 2**30:,.1f} GiB, and {available / 2**30:,.1f} are free")


def _too_small(workload: Workload, why: str = "") -> GaloreMemError:
    return GaloreMemError(
        f"this machine has too little memory for a real step of {workload.model.name}",
        why,
        "take a smaller model or batch, or galore-mem trace, which holds no tensor",
    )


def _on_host(action: Callable[[], Any], workload: Workload) -> Any:  # noqa: ANN401
    """Torch's own words for too little host memory, in one line."""
    try:
        return action()
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        raise _too_small(workload) from None
