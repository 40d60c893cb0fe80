"""`with gm.profile() as p:` around training steps of one's own.

Recording imports nothing but torch and this package's recorder and Tapes; what the Tape means is asked later, through
`galore-mem replay` and `galore-mem report`.
"""

import os
import platform
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, Self

import torch
from torch import nn

from galore_mem.errors import UsageError
from galore_mem.profiler.any_step import AnyStep
from galore_mem.profiler.recorder import Recorder
from galore_mem.profiler.rules import Rules
from galore_mem.profiler.steps import StepRecord, Stopwatch
from galore_mem.profiler.to_tape import tape_of
from galore_mem.tapes.file import write_tape
from galore_mem.tapes.tape import Tape

Path = str | os.PathLike[str]


def profile(
    path: Path | None = None,
    *,
    model: nn.Module | None = None,
    optimizer: Any = None,  # noqa: ANN401
    device: Literal["cuda", "cpu"] | None = None,
) -> "Profile":
    """Record training steps of one's own: enter it, and call `step()` at the end of each.

    Args:
        path: where the Tape is written when the recording ends, however it ends.
        model: counted from the beginning; otherwise from its first forward on (on a GPU all of memory is seen anyway).
        optimizer: likewise, with states that it has already.
        device: what is recorded; a GPU where torch has one.

    Raises:
        NoDeviceError: `cuda`, and torch has no GPU that it can use.
        UsageError: no such device.

    >>> import torch, galore_mem as gm
    >>> layer = torch.nn.Linear(256, 256, bias=False)
    >>> with gm.profile(model=layer, device="cpu") as p:
    ...     for _ in range(2):
    ...         layer(torch.ones(8, 256)).sum().backward()
    ...         p.step()
    >>> p.tape.source, [step.kind for step in p.steps]
    ('replayed', ['first', 'steady'])
    """
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen not in ("cuda", "cpu"):
        raise UsageError(f"device {chosen!r} cannot be recorded", "", "give cuda or cpu")
    watcher: _OnCpu | _OnGpu = _OnGpu() if chosen == "cuda" else _OnCpu()
    return Profile(watcher, path, model, optimizer)


class Profile:
    """A recording, while entered and afterwards."""

    def __init__(self, watcher: "_OnCpu | _OnGpu", path: Path | None, model: nn.Module | None, optimizer: Any) -> None:  # noqa: ANN401
        self._watcher = watcher
        self._path = path
        self._given = (model, optimizer)
        self._stack = ExitStack()
        self._steps = 0
        self._tape: Tape | None = None

    def __enter__(self) -> Self:
        """Starts to record."""
        self._stack.enter_context(self._watcher.recording())
        self._watcher.begin("first")
        self._stack.enter_context(AnyStep(self._watcher.witness).watching(*self._given))
        return self

    def step(self) -> None:
        """One training step has ended, and the next one begins."""
        self._steps += 1
        self._watcher.begin("steady")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Ends the recording, and writes it where a path was given; an exception goes on its way."""
        self._watcher.watch.finish()
        try:
            self._tape = self._watcher.tape(_ending(error))
        finally:
            self._stack.close()
        if self._path is not None:
            write_tape(self._path, self._tape)

    @property
    def tape(self) -> Tape:
        """The history.

        Raises:
            UsageError: the recording goes on.
        """
        if self._tape is None:
            raise UsageError("the recording has not ended", "", "read its tape after the with block")
        return self._tape

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """Each step that had something to do, with its times."""
        return tuple(step for step in self._watcher.watch.records() if step.seconds)

    def save(self, path: Path) -> None:
        """Write the Tape.

        Raises:
            UsageError: the recording goes on, or the file cannot be written.
        """
        write_tape(path, self.tape)


def _ending(error: BaseException | None) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out-of-memory"
    return "complete" if error is None else "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


_LIBRARIES = ("torch", "transformers", "bitsandbytes", "galore_torch", "peft")


def versions_of(libraries: Iterable[str] = _LIBRARIES) -> dict[str, str]:
    """Python's version, and those of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class _Recorder(Recorder):  # type: ignore[no-untyped-call]
    """Tells when windows begin."""

    stopwatch: Stopwatch | None = None

    def enter(self, window: str) -> None:
        super().enter(window)
        if self.stopwatch is not None:
            self.stopwatch.note(window)


class _OnCpu:
    """Every operator on CPU tensors is seen."""

    def __init__(self) -> None:
        self.witness = _Recorder(Rules())
        self.watch = Stopwatch(self.witness, lambda: len(self.witness.recording.events))
        self.witness.stopwatch = self.watch

    def recording(self) -> Any:  # noqa: ANN401
        return self.witness

    def begin(self, iteration: str) -> None:
        self.watch.start()
        self.witness.begin(iteration)

    def tape(self, ending: str) -> Tape:
        steps = [step.to_dict() for step in self.watch.records() if step.seconds]
        metadata = {"environment": {**versions_of(), "device": "cpu"}, "steps": steps, "ending": ending}
        return tape_of(self.witness.close(), source="replayed", metadata=metadata)


class _OnGpu:
    """torch's own history of the GPU, and what hooks know beside it."""

    def __init__(self) -> None:
        from galore_mem.profiler.cuda import Gpu
        from galore_mem.profiler.stamps import StampingWitness

        self.gpu = Gpu()
        self.witness = StampingWitness(self.gpu.position, self.gpu.address, self.gpu.on_device, self.gpu.tag)
        self.watch = Stopwatch(self.witness, self.gpu.position, self.gpu.instant, self.gpu.elapsed)
        self.witness.entered = self.watch.note  # type: ignore[method-assign]

    def recording(self) -> Any:  # noqa: ANN401
        stack = ExitStack()
        stack.callback(self.gpu.close)
        stack.enter_context(self.gpu.recording())
        stack.enter_context(self.witness.watching_saved())
        stack.callback(self.witness.release)
        return stack

    def begin(self, iteration: str) -> None:
        self.watch.start()
        self.witness.begin(iteration)

    def tape(self, ending: str) -> Tape:
        from galore_mem.profiler.attribution import Sizes, measured_tape

        snapshot, seen = self.gpu.snapshot(), self.gpu.position()
        steps = [step.to_dict() for step in self.watch.records() if step.seconds]
        metadata = {"environment": {**versions_of(), **self.gpu.environment()}, "steps": steps, "ending": ending}
        sizes = Sizes(workspaces=self.gpu.workspaces)
        stamps = self.witness.stamps
        return measured_tape(snapshot, self.gpu, stamps, events_seen=seen, sizes=sizes, metadata=metadata)[0]
