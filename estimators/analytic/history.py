"""A whole run as an allocator would see it: every allocation and free of loading, a first and a steady iteration.

Forward and backward are the played step with its middle layer unrolled; steps are walked with every tensor told apart.
Sizes and order are the closed form's, so that the allocator's replica makes of it nearly what it makes of a traced
history (docs/accuracy.md), without torch and in a fraction of a second.

The played step knows which storage each death ends. Where one dies in another layer than it was born in, it is the
last made of those born at that place; and where none is left, of its own kind: layers hand on tensors like a chain.
"""

from collections.abc import Iterator
from typing import NamedTuple

from estimators.allocator.replay import Event
from estimators.analytic.attention import attention_kernel
from estimators.analytic.buffers import buffers
from estimators.analytic.course import course_of
from estimators.analytic.handing_on import handed_on
from estimators.analytic.layout import Stretch
from estimators.analytic.states import master_weights
from estimators.analytic.step_history import Ledger, StepWriter, in_model_order
from estimators.analytic.stepping import stepping_of
from estimators.analytic.structure import symbol_sizes
from estimators.workload import Workload
from profiles.errors import InputError
from profiles.gpus import SMALL_WORKSPACE_BYTES, Gpu

MICRO_BATCHES = 3
"""Written of a longer accumulation: each one after the second finds the blocks that the one before has left."""
_GRADIENTS = (".weight", "gradient of the input")
_PRODUCTS: dict[str, tuple[str, ...]] = {
    "forward_end": (".q_proj", ".q_proj A"),
    "loss": (),
    "backward_start": (*_GRADIENTS, "loss.logits"),
    "backward_end": _GRADIENTS,
}
"""How names of tensors end that the first matrix product of a window may make."""


class _Turn(NamedTuple):
    """Stretches that are played together."""

    stretches: tuple[Stretch, ...]
    repetition: int
    """Of the middle layer's; 0 outside of it."""


def history_of(workload: Workload, gpu: Gpu | None = None) -> list[Event]:
    """Every allocation and free, in order, for `estimators.allocator.replay`; the second iteration refreshes.

    Args:
        workload: the run.
        gpu: the card, which decides the attention kernel and the sizes of workspaces.

    Raises:
        InputError: the workload cannot run on the card, or its history cannot be written down.
    """
    if workload.method.update == "per-layer" and workload.batch.gradient_accumulation_steps > 1:
        raise InputError(
            "no exact history of per-layer updates over several micro-batches",
            "sums of gradients between backward passes are in no played step",
            "ask galore-mem trace",
        )
    if workload.eval_batch:
        raise InputError(
            "no exact history with evaluation between steps",
            "the written history has training steps only",
            "ask galore-mem trace, or leave out --eval-batch",
        )
    if workload.empty_cache == "backward":
        raise InputError(
            "no exact history with the cache emptied before backward",
            "the written history has no place for it",
            "ask galore-mem trace",
        )
    if workload.resume != "none":
        raise InputError(
            "no exact history of a resumed run",
            "the written history starts afresh",
            "leave out --resume: what comes after the first step is the same",
        )
    return _Writer(workload, gpu).write()


class _Writer:
    """Writes the history of one run."""

    def __init__(self, workload: Workload, gpu: Gpu | None) -> None:
        self._workload = workload
        course = course_of(workload, attention_kernel(workload, gpu))
        self._groups = stepping_of(workload.model, workload.method, workload.precision).groups
        elements = course.layout.elements(symbol_sizes(workload))
        self.sizes = [elements[dims] * itemsize for dims, itemsize in course.layout.kinds]
        self.layout = course.layout
        self.handed_on = handed_on(course.layout)
        self.last = course.repetitions - 1
        self.ledger = Ledger()
        self._weights: dict[str, list[int]] = {}
        self.steps = StepWriter(self.ledger, self._groups, workload.method, self._weights)
        self.per_layer = workload.method.update == "per-layer"
        self._workspace_bytes = gpu.cublas_workspace_recent_bytes if gpu is not None else SMALL_WORKSPACE_BYTES
        self._workspaces = 0
        self.turns = tuple(self._turns(course.repetitions, workload.batch.gradient_accumulation_steps))

    def write(self) -> list[Event]:
        for group, _ in in_model_order(self._groups):
            self._weights.setdefault(group.name, []).append(self.ledger.alloc(group.nbytes))
        for buffer in buffers(self._workload.model):
            self.ledger.alloc(buffer.nbytes)
        for group, _ in in_model_order(self._groups):
            for copy in master_weights(group, self._workload.method):
                self.ledger.alloc(copy.nbytes)
        for first in (True, False):
            passes = _Passes(self, first=first)
            for turn in self.turns:
                passes.play(turn)
            if not self.per_layer:
                self.steps.whole(passes.gradients, first=first)
            passes.end()
            if self._workload.empty_cache == "step":
                self.ledger.events.append(("empty_cache", 0, 0, 0, 0))
        return self.ledger.events

    def take_workspace(self, threads: int) -> None:
        """CuBLAS's, at the first matrix product of forward's and of backward's thread: once, and for good."""
        if self._workspaces < threads:
            self._workspaces = threads
            self.ledger.alloc(self._workspace_bytes)

    def _turns(self, repetitions: int, micro_batches: int) -> Iterator[_Turn]:
        stretches, batches = self.layout.stretches, list[list[_Turn]]()
        starts = {position for position, label, _ in self.layout.played.marks if label == "micro-batch"}
        index = 0
        while index < len(stretches):
            if stretches[index].start in starts:
                starts.remove(stretches[index].start)
                batches.append([])
            block, stop = stretches[index].block, index + 1
            while stop < len(stretches) and block and stretches[stop].block == block:
                stop += 1
            own = tuple(stretches[index:stop])
            batches[-1] += [_Turn(own, repetition) for repetition in range(repetitions if block else 1)]
            index = stop
        for batch in (*batches, *[batches[-1]] * (min(micro_batches, MICRO_BATCHES) - len(batches))):
            yield from batch


class _Passes:
    """Forward and backward of one iteration."""

    def __init__(self, writer: _Writer, *, first: bool) -> None:
        self._writer = writer
        self._first = first
        self._ledger = writer.ledger
        self._played = writer.layout.played
        self._kinds = [(kind.size, kind.category, kind.name) for kind in self._played.kinds]
        self._waiting: dict[int, list[int]] = {}
        """Living storages by the position of their birth, in order."""
        self._alike: dict[tuple[object, ...], dict[int, int]] = {}
        """Living storages by kind, in order of birth, each with the position of its birth."""
        self._gone: set[int] = set()
        """Gradients that a step has freed already."""
        self.gradients: dict[str, list[int]] = {}
        """Complete ones by their group's name, in the order of backward."""
        completed = (stretch for stretch in writer.layout.stretches if stretch.gradient)
        self._births = dict(zip(map(id, completed), self._played.gradients, strict=True))

    def play(self, turn: _Turn) -> None:
        """Every birth and death of a turn, and the steps inside it."""
        events, births = self._played.events, self._played.births
        own: dict[int, int] = {}
        for stretch in turn.stretches:
            for position in range(stretch.start, stretch.stop):
                code = events[position]
                if code > 0:
                    own[position] = self._bear(code - 1, position, stretch.window)
                else:
                    self._die(-code - 1, births[position], own, self._counterpart(position, turn.repetition))
            if stretch.gradient and stretch.steps:
                self._complete(stretch, turn.repetition, own)

    def _bear(self, kind: int, position: int, window: str) -> int:
        name = self._played.kinds[kind].name
        if name.endswith(_PRODUCTS[window]):
            self._writer.take_workspace(2 if window.startswith("backward") else 1)
        number = self._ledger.alloc(self._writer.sizes[kind])
        self._waiting.setdefault(position, []).append(number)
        self._alike.setdefault(self._kinds[kind], {})[number] = position
        return number

    def _counterpart(self, position: int, repetition: int) -> int | None:
        """Where the neighbouring repetition made what dies here; None where it is the played storage itself."""
        handed = self._writer.handed_on.get(position)
        if handed is None or repetition == (self._writer.last if handed.by_last else 0):
            return None
        return handed.counterpart

    def _die(self, kind: int, birth: int, own: dict[int, int], counterpart: int | None) -> None:
        alike = self._alike[self._kinds[kind]]
        if self._played.kinds[kind].in_every_middle_layer:
            for number in list(self._waiting.get(birth, ())):
                self._free(number, alike)
        elif counterpart is not None:
            theirs = [number for number in self._waiting.get(counterpart, ()) if number != own.get(counterpart)]
            self._free(theirs[-1] if theirs else next(reversed(alike)), alike)
        elif birth in own:
            self._free(own.pop(birth), alike)
        else:
            waiting = self._waiting.get(birth)
            self._free(waiting[-1] if waiting else next(reversed(alike)), alike)

    def _free(self, number: int, alike: dict[int, int]) -> None:
        self._waiting[alike.pop(number)].remove(number)
        if number not in self._gone:
            self._ledger.free(number)

    def _complete(self, stretch: Stretch, repetition: int, own: dict[int, int]) -> None:
        """A parameter's gradient is complete: per-layer updates step it now."""
        birth = self._births[id(stretch)]
        number = own[birth] if birth in own else self._waiting[birth][repetition]
        done = self.gradients.setdefault(stretch.gradient, [])
        done.append(number)
        if self._writer.per_layer:
            steps, layer = self._writer.steps, -len(done)
            if steps.single(stretch.gradient, number, layer, first=self._first):
                self._gone.add(number)

    def end(self) -> None:
        """What the loop's variables held dies, and gradients do."""
        self._gone |= self._writer.steps.freed
        for alike in self._alike.values():
            for number in list(alike):
                self._free(number, alike)
        self._writer.steps.end()
