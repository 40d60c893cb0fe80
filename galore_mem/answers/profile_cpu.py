"""The canonical step on real CPU tensors, recorded."""

import gc
from contextlib import ExitStack

from estimators.workload import Workload
from galore_mem.answers.steps import Told
from galore_mem.profiler.recording import Recording
from galore_mem.profiler.steps import StepRecord


def record_on_cpu(
    workload: Workload, kernel: str, *, steps: int, workspace_bytes: int = 0, told: Told | None = None
) -> tuple[Recording, tuple[StepRecord, ...]]:
    """Run the first steps of a workload on CPU tensors.

    Attention and dropout keep and take what the CUDA kernels would; their values are computed by torch's CPU kernels.

    Args:
        workload: the run.
        kernel: the attention kernel whose tensors are recorded; `cpu` for torch's own on CPU tensors.
        steps: training steps; the last of several recomputes projectors, where there are any.
        workspace_bytes: of cuBLAS, per thread; 0 for none.
        told: called as each stage begins.

    Returns:
        The recording, and each step with its times.
    """
    told = told or (lambda stage: None)
    told("importing")
    from galore_mem.profiler.recorder import Recorder
    from galore_mem.profiler.rules import Rules
    from galore_mem.profiler.steps import Stopwatch
    from galore_mem.training.session import Session

    told("building the model")
    session = Session(workload, kernel, None)
    recorder = Recorder(Rules(workspace_bytes=workspace_bytes), workload.model.vocab_size)
    for category, name, tensor in session.weights_in_order():
        recorder.hold(category, name, tensor)
    watch = Stopwatch(recorder, lambda: len(recorder.recording.events))
    collects = gc.isenabled()
    gc.collect()
    gc.disable()  # the collector would end lives at moments of its own
    try:
        with ExitStack() as stack:
            stack.enter_context(recorder)
            stack.enter_context(recorder.following(session.model))
            for number in range(steps):
                told(f"step {number + 1} of {steps}")
                if number and number == steps - 1:
                    session.refresh_at_every_step()
                session.iterate(watch, "steady" if number else "first")
            watch.finish()
        return recorder.close(), watch.records()
    finally:
        if collects:
            gc.enable()
