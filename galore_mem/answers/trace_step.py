"""A person's own model and training step, traced on fake tensors."""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from galore_mem.errors import UsageError
from galore_mem.profiler.recording import Recording
from galore_mem.profiler.to_tape import tape_of
from galore_mem.tapes.tape import Tape

Make = Callable[[], tuple[Any, Any, Callable[[], object]]]
_FIX = "take the number from a Python value, or leave such code out of the traced step"


def trace_step(make: Make, *, workspace_bytes: int = 0) -> Tape:
    """Trace a first and a steady call of a training step of one's own: no GPU, no memory for weights.

    Args:
        make: builds and returns (model, optimizer, step); `step()` runs one whole training step. Everything is built
            inside, so that no tensor of the caller's becomes fake; devices must be left at their default.
        workspace_bytes: of cuBLAS, per thread that multiplies matrices.

    Returns:
        The history; `galore_mem.tapes.file.write_tape` writes it, `galore-mem replay` asks it for settings and cards.

    Raises:
        UsageError: the step needs the value of a tensor, or is no such triple.
    """
    from torch._subclasses import FakeTensorMode
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    try:
        with FakeTensorMode() as mode:
            built = make()
        if not isinstance(built, tuple) or len(built) != 3 or not callable(built[2]):
            raise UsageError("make() must return (model, optimizer, step)", "", "return the three as a tuple")
        recording = _record(mode, *built, workspace_bytes)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        name = str(getattr(error, "func", error))
        raise UsageError(f"the step needs the values of a tensor ({name})", "fake tensors have none", _FIX) from None
    return tape_of(recording, source="traced")


def _record(mode: Any, model: Any, optimizer: Any, step: Callable[[], object], workspace_bytes: int) -> Recording:  # noqa: ANN401
    from galore_mem.profiler.recorder import Recorder
    from galore_mem.profiler.rules import Rules

    recorder = Recorder(Rules(workspace_bytes=workspace_bytes), fake=mode)
    for category, named in (("weights", model.named_parameters()), ("buffers", model.named_buffers())):
        for name, tensor in named:
            recorder.hold(category, name, tensor)
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        with ExitStack() as stack:
            for context in (mode, recorder, recorder.following(model), _windows(recorder, optimizer)):
                stack.enter_context(context)
            for iteration in ("first", "steady"):
                recorder.begin(iteration)
                recorder.enter("forward_end")
                step()
                recorder.enter("between")
        return recorder.close()
    finally:
        if collects:
            gc.enable()


@contextmanager
def _windows(recorder: Any, optimizer: Any) -> Iterator[None]:  # noqa: ANN401
    """Tell the recorder of the optimizer's steps, and that numbers they read from tensors are taken as 1."""
    from galore_mem.profiler.rules import Rules

    plain = recorder.rules
    stepping = Rules(workspace_bytes=plain.workspace_bytes, scalars=1.0)

    def before(*_: object) -> None:
        recorder.enter("step")
        recorder.rules = stepping

    def after(*_: object) -> None:
        for state in optimizer.state.values():
            recorder.claim("optimizer_states", [value for name, value in state.items() if name != "step"])
            recorder.claim("host", (state.get("step"),))
        recorder.rules = plain
        recorder.enter("between")

    handles = (optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
