"""One iteration's forward and backward as births and deaths, in whatever batch: the played step, unrolled.

The played step knows which storage each death ends. Where one dies in another layer than it was born in, it is the
last made of those born at that place; and where none is left, of its own kind: layers hand on tensors like a chain.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from estimators.analytic.handing_on import handed_on
from estimators.analytic.layout import Layout
from estimators.analytic.shadow.loss import OTHERS
from estimators.analytic.stretches import Stretch
from estimators.analytic.walk import Pass

_GRADIENTS = (".weight", "gradient of the input")
_BACKWARD = {"backward_start": (*_GRADIENTS, "loss.logits"), "backward_end": _GRADIENTS}
"""How names of tensors end that the first matrix product of a window may make; forward's are those of linear layers."""


_BEFORE_BACKWARD = ("forward_end", "loss")


class Completed(NamedTuple):
    """A parameter's gradient of one pass is complete: a per-layer update takes it here."""

    name: str
    """Of its group."""
    storage: int
    layer: int
    """From the end: backward comes to the last layer first."""
    part: Pass
    """Which of the step's backward passes it is."""


class Product(NamedTuple):
    """The first matrix product of forward's thread, or of backward's: cuBLAS takes a workspace."""

    threads: int


class Backward(NamedTuple):
    """A micro-batch's loss is there, and its backward begins."""


Cue = Completed | Product | Backward


class Script(NamedTuple):
    """An iteration's storages, numbered from 1 on."""

    kinds: list[int]
    """The played kind of each storage."""
    parts: list[tuple[list[int], Cue | None]]
    """Births (a storage's number) and deaths (its negative), and what happens after them."""
    left: list[int]
    """What lives at the end, in the order in which the loop lets go of it."""


_ALIKE = {"loss": "2", "backward_start": "1"}
"""The piece of a chunked loss that all those which are not played do as: one that others of its kind have preceded."""


class _Turn(NamedTuple):
    """Stretches that are played together."""

    stretches: tuple[Stretch, ...]
    repetition: int
    """Of the middle layer's; 0 outside of it."""
    is_other: bool = False
    """A piece of a chunked loss that is not played, done as another."""


@lru_cache(maxsize=64)
def script_of(
    layout: Layout, repetitions: int, micro_batches: int, other_pieces: int, linears: tuple[str, ...]
) -> Script:
    """The script of a played step.

    Args:
        layout: the played step, cut.
        repetitions: how many layers the middle one stands for.
        micro_batches: that are written; all after the first ones are alike.
        other_pieces: of a chunked loss that are not played.
        linears: names of the model's linear layers, without their places.
    """
    writer = _Writer(layout, repetitions - 1, linears)
    for turn in _turns(layout, repetitions, micro_batches, other_pieces):
        writer.play(turn)
    return writer.written()


def _turns(layout: Layout, repetitions: int, micro_batches: int, other_pieces: int) -> Iterator[_Turn]:
    stretches, batches = layout.stretches, list[list[_Turn]]()
    starts = {position for position, label, _ in layout.played.marks if label == "micro-batch"}
    index = 0
    while index < len(stretches):
        if stretches[index].start in starts:
            starts.remove(stretches[index].start)
            batches.append([])
        block, stop = stretches[index].block, index + 1
        piece = stretches[index].piece if stretches[index].piece == _ALIKE.get(stretches[index].window) else ""
        while stop < len(stretches) and (
            (block and stretches[stop].block == block) or (piece and stretches[stop].piece == piece)
        ):
            stop += 1
        own = tuple(stretches[index:stop])
        batches[-1] += [_Turn(own, 0, is_other=True)] * (other_pieces if piece else 0)
        batches[-1] += [_Turn(own, repetition) for repetition in range(repetitions if block else 1)]
        index = stop
    for batch in (*batches, *[batches[-1]] * (micro_batches - len(batches))):
        yield from batch


@lru_cache(maxsize=64)
def _brief(layout: Layout, *, handed_on_too: bool) -> frozenset[int]:
    """Births of what dies in the turn it was born in, wherever that is repeated; no one else needs to find it."""
    played, handed = layout.played, {} if handed_on_too else handed_on(layout)
    turn_of: list[int] = []
    for number, turn in enumerate(_turns(layout, 1, 1, 0)):
        turn_of += [number] * (turn.stretches[-1].stop - turn.stretches[0].start)
    lasting = [kind.in_every_middle_layer or kind.name.endswith(OTHERS) for kind in played.kinds]
    return frozenset(
        birth
        for position, (birth, code) in enumerate(zip(played.births, played.events, strict=True))
        if code < 0 and turn_of[birth] == turn_of[position] and position not in handed and not lasting[-code - 1]
    )


class _Writer:
    """Plays turns one after another."""

    def __init__(self, layout: Layout, last: int, linears: tuple[str, ...]) -> None:
        self._played = layout.played
        forward = tuple(f".{name}{factor}" for name in linears for factor in ("", " A"))
        self._products = {"forward_end": forward, "loss": ()} | _BACKWARD
        self._handed_on = handed_on(layout) if last else {}
        self._brief = _brief(layout, handed_on_too=not last)
        self._last = last
        names = [(kind.size, kind.category, kind.name) for kind in self._played.kinds]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self._in_every = [kind.in_every_middle_layer for kind in self._played.kinds]
        self._stand_in = [kind.name.endswith(OTHERS) for kind in self._played.kinds]
        self._kinds: list[int] = []
        self._events: list[int] = []
        self._parts: list[tuple[list[int], Cue | None]] = []
        self._threads = 0
        """That have run a matrix product."""
        self._window = ""
        """Of the stretch that was played last."""
        self._waiting: dict[int, list[int]] = defaultdict(list)
        """Living storages by the position of their birth, in order."""
        living: list[dict[int, int]] = [{} for _ in numbers]
        self._alike = [living[numbers[name]] for name in names]
        """Living storages that are what a kind is apart from the layers it is in, in order of birth, each with the
        position of its birth."""
        self._others: list[int] = []
        """What pieces that are not played have left for the end of backward."""
        self._done: dict[tuple[Pass, str], int] = {}
        """Complete gradients of each group, by pass."""
        completed = (stretch for stretch in layout.stretches if stretch.gradient)
        self._births = dict(zip(map(id, completed), self._played.gradients, strict=True))
        dead = {birth for birth, code in zip(self._played.births, self._played.events, strict=True) if code < 0}
        self._copied = dead.intersection(self._played.gradients)
        """Births of gradients that do not live to the end: they are copied into buckets, or stepped."""

    def written(self) -> Script:
        self._parts.append((self._events, None))
        living = {id(self._alike[kind]): self._alike[kind] for kind in self._kinds}
        return Script(self._kinds, self._parts, [number for alike in living.values() for number in alike])

    def play(self, turn: _Turn) -> None:
        """Every birth and death of a turn, and the gradients that are complete inside it."""
        own: dict[int, int] = {}
        made = len(self._kinds)
        for stretch in turn.stretches:
            if stretch.window.startswith("backward") and self._window in _BEFORE_BACKWARD:
                self._cue(Backward())
            self._window = stretch.window
            if self._threads < 2:
                self._await_product(stretch, own, turn.repetition)
            else:
                self._play(range(stretch.start, stretch.stop), own, turn.repetition)
            if stretch.gradient:
                self._complete(stretch, turn.repetition, own)
        if turn.is_other and turn.stretches[0].window != "loss":
            born = enumerate(self._kinds[made:], made + 1)
            self._others += [number for number, kind in born if number in self._alike[kind]]

    def _await_product(self, stretch: Stretch, own: dict[int, int], repetition: int) -> None:
        """Plays a stretch that may have the first matrix product of a thread."""
        threads, start = 2 if stretch.window.startswith("backward") else 1, stretch.start
        for position in range(stretch.start, stretch.stop) if self._threads < threads else ():
            kind = self._played.events[position] - 1
            name = self._played.kinds[kind].name if kind >= 0 and not self._stand_in[kind] else ""
            if f".{name}".endswith(self._products[stretch.window]):
                self._play(range(start, position), own, repetition)
                self._threads, start = threads, position
                self._cue(Product(threads))
                break
        self._play(range(start, stretch.stop), own, repetition)

    def _play(self, positions: range, own: dict[int, int], repetition: int) -> None:
        events, births, handed_on = self._played.events, self._played.births, self._handed_on
        stand_in, waiting, alike, brief = self._stand_in, self._waiting, self._alike, self._brief
        kinds, written = self._kinds, self._events
        for position in positions:
            code = events[position]
            if code > 0:
                if stand_in[code - 1]:
                    continue  # each of the others has its own
                kinds.append(code - 1)
                number = own[position] = len(kinds)
                written.append(number)
                if position not in brief:
                    waiting[position].append(number)
                    alike[code - 1][number] = position
                continue
            kind, birth = -code - 1, births[position]
            if birth in brief:
                written.append(-own.pop(birth))
                continue
            if birth not in own or position in handed_on or self._in_every[kind]:
                self._die(kind, position, own, repetition)
                continue
            number = own.pop(birth)
            del alike[kind][number]
            waiting[birth].remove(number)
            written.append(-number)

    def _free_others(self) -> None:
        """The tensor that stands for all they have left dies: they do."""
        for number in self._others:
            self._free(number, self._alike[self._kinds[number - 1]])
        self._others.clear()

    def _cue(self, cue: Cue) -> None:
        self._parts.append((self._events, cue))
        self._events = []

    def _counterpart(self, position: int, repetition: int) -> int | None:
        """Where the neighbouring repetition made what dies here; None where it is the played storage itself."""
        handed = self._handed_on.get(position)
        if handed is None or repetition == (self._last if handed.by_last else 0):
            return None
        return handed.counterpart

    def _die(self, kind: int, position: int, own: dict[int, int], repetition: int) -> None:
        """A death of what may have been made elsewhere."""
        alike, birth = self._alike[kind], self._played.births[position]
        counterpart = self._counterpart(position, repetition)
        if self._stand_in[kind]:
            self._free_others()
        elif self._in_every[kind]:
            for number in list(self._waiting.get(birth, ())):
                self._free(number, alike)
        elif birth not in own and birth in self._copied:
            self._free(self._waiting[birth][0], alike)  # summed over micro-batches, and now in its bucket
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
        self._events.append(-number)

    def _complete(self, stretch: Stretch, repetition: int, own: dict[int, int]) -> None:
        birth = self._births[id(stretch)]
        place = 0 if stretch.steps and birth in self._copied else repetition
        number = own[birth] if birth in own else self._waiting[birth][place]
        key = stretch.part, stretch.gradient
        done = self._done[key] = self._done.get(key, 0) + 1
        self._cue(Completed(stretch.gradient, number, -done, stretch.part))
