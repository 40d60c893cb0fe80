"""One step on CPU tensors, watched twice: by the recorder that sees every operator, and through hooks as on a GPU."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from estimators.allocator.parse import parse_settings
from estimators.allocator.placed import place
from estimators.workload import Workload
from galore_mem.answers.histories import held_segment
from galore_mem.profiler.recorder import Recorder
from galore_mem.profiler.recording import Recording
from galore_mem.profiler.rules import Rules
from galore_mem.profiler.stamps import Stamp, StampingWitness
from galore_mem.profiler.to_tape import tape_of
from galore_mem.tapes.memory_viz import Placement, snapshot_dict
from galore_mem.training.session import Session
from galore_mem.witness import HOST


class Both:
    """Two witnesses of one step."""

    def __init__(self, recorder: Recorder, witness: StampingWitness) -> None:
        self.each = (recorder, witness)

    def begin(self, iteration: str) -> None:
        for one in self.each:
            one.begin(iteration)

    def enter(self, window: str) -> None:
        for one in self.each:
            one.enter(window)

    @contextmanager
    def _both(self, method: str, word: str) -> Iterator[None]:
        with ExitStack() as stack:
            for one in self.each:
                stack.enter_context(getattr(one, method)(word))
            yield

    def during(self, window: str) -> Any:  # noqa: ANN401
        return self._both("during", window)

    def scope(self, category: str) -> Any:  # noqa: ANN401
        return self._both("scope", category)

    def claim(self, category: str, tensors: Iterable[object], owner: str = "") -> None:
        kept = list(tensors)
        for one in self.each:
            one.claim(category, kept, owner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What both saw."""

    recording: Recording
    """The recorder's."""
    snapshot: dict[str, Any]
    """The same history as a GPU's allocator would have written it, without a word about what was what."""
    stamps: list[Stamp]
    events_seen: int


def watch(workload: Workload, kernel: str, steps: int = 2) -> Watched:
    """Run some steps."""
    session = Session(workload, kernel, None)
    recorder = Recorder(Rules(), workload.model.vocab_size)

    def number(tensor: Tensor) -> int:
        known = recorder.number_of(tensor)
        return -1 if known is None else known

    witness = StampingWitness(lambda: len(recorder.recording.events), number, lambda tensor: True)
    for category, name, tensor in session.weights_in_order():
        recorder.hold(category, name, tensor)
        witness.claim(category, (tensor,), name)
    accumulates = workload.batch.gradient_accumulation_steps > 1
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    with recorder, recorder.following(session.model), witness.following(session.model, accumulates=accumulates):
        for step in range(steps):
            if step == steps - 1 and step:
                session.refresh_at_every_step()
            session.iterate(Both(recorder, witness), "steady" if step else "first")
    recording = recorder.close()
    session.close()
    if collects:
        gc.enable()
    return _as_on_a_gpu(recording, witness.stamps)


def _as_on_a_gpu(recording: Recording, stamps: list[Stamp]) -> Watched:
    """The history with addresses and without names; stamps moved to where they would be without host tensors."""
    tape = tape_of(recording, source="replayed")
    (device,) = tape.devices
    events, segments = place(device.events.causes(), parse_settings(""))
    plain = replace(tape, devices=(replace(device, marks=()),))
    content = snapshot_dict(plain, [Placement(events=events, segments=tuple(map(held_segment, segments)))])
    for entry in content["device_traces"][0]:
        entry["frames"] = []
    lives = [block - 1 for action, block, *_ in device.events.rows() if action == "alloc"]
    allocs = [entry["addr"] for entry in content["device_traces"][0] if entry["action"] == "alloc"]
    addresses = dict(zip(lives, allocs, strict=True))
    before = [0]
    for code in recording.events:
        before.append(before[-1] + (recording.lives[abs(code) - 1].category != HOST))
    moved = [
        replace(stamp, position=before[stamp.position], address=addresses.get(stamp.address, -1)) for stamp in stamps
    ]
    return Watched(recording=recording, snapshot=content, stamps=moved, events_seen=before[-1])
