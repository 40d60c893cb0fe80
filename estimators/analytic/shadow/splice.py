"""A step put together from the layers of one and from what lies around the layers of another.

Layers do the same whatever the loss, and micro-batch after micro-batch. So one step is played in full, and of others
that differ in nothing else only what comes before, between and behind the layers, with stand-ins in their place. That
the parts fit is shown by taking the first step itself apart in the same way.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from estimators.analytic.shadow.parts import Part, handed_on, parts_of
from estimators.analytic.shadow.periods import NotAlikeError
from estimators.analytic.shadow.played import Mark, Played
from estimators.analytic.shadow.tape import STAND_IN, Kind, Size

Needs = Mapping[tuple[Size, str], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Body:
    """The layers of a step of one micro-batch that keeps its gradients, ready to be put into others."""

    played: Played
    """The step that they are taken from; of layers that repeat some may be left out."""
    output: tuple[Kind, ...]
    """What the last layer hands on."""
    arriving: tuple[Kind, ...]
    """What was made behind the layers and ends in their backward."""
    before: tuple[tuple[bool, Kind], ...]
    """What is born, or ends, before the layers."""
    needs: Needs
    """As of a played step, by its layers only."""


def held_by_layers(whole: Played) -> frozenset[int]:
    """What was made before the layers and ends in their backward: the first storage of a micro-batch is 0."""
    (parts,) = parts_of(whole)
    made = [position for position in range(parts.before.stop) if whole.events[position] > 0]
    ended = {whole.births[i] for i in range(parts.backward.start, parts.backward.stop) if whole.events[i] < 0}
    return frozenset(number for number, birth in enumerate(made) if birth in ended)


def body_of(whole: Played, hollow: Played, left: Played) -> Body:
    """The layers of a step.

    Args:
        whole: all of it, as played.
        hollow: the same with stand-ins in the place of layers.
        left: the step to take the layers from: the whole one, or one with layers left out.

    Raises:
        NotAlikeError: what lies around the layers is not what lies around stand-ins.
    """
    (parts,), (others,) = parts_of(whole), parts_of(hollow)
    body = Body(
        played=left,
        output=handed_on(whole, parts.forward, parts.between, parts.behind),
        arriving=handed_on(whole, parts.between, parts.backward),
        before=tuple(_named(whole, parts.before)),
        needs=_without(whole.needs, hollow.needs),
    )
    for own, other in ((parts.before, others.before), (parts.between, others.between), (parts.behind, others.behind)):
        found = [(is_birth, _meant(kind, body)) for is_birth, kind in _named(hollow, other)]
        if found != [*_named(whole, own)] or _marks(whole, own) != _marks(hollow, other):
            raise NotAlikeError
    return body


def _named(played: Played, part: Part) -> Iterator[tuple[bool, Kind]]:
    """Whether each event of a part is a birth, and of what."""
    return ((code > 0, played.kinds[abs(code) - 1]) for code in played.events[part.start : part.stop])


def _marks(played: Played, part: Part) -> list[Mark]:
    return [(played.marks[place][0] - part.start, *played.marks[place][1:]) for place in part.marks]


def _meant(kind: Kind, body: Body) -> Kind:
    """What a stand-in's storage stands for."""
    if not kind.name.endswith(STAND_IN):
        return kind
    if len(body.output) != 1 or body.output[0].size != kind.size:
        raise NotAlikeError
    return body.output[0]


def _without(needs: Needs, others: Needs) -> Needs:
    left = {key: tuple(name for name in names if name not in others.get(key, ())) for key, names in needs.items()}
    return {key: names for key, names in left.items() if names}


def spliced(body: Body, hollow: Played, *, steps_in_backward: bool) -> Played:
    """The step of which `hollow` is what lies around the layers; births are left out.

    Args:
        body: its layers.
        hollow: played with stand-ins in the place of layers.
        steps_in_backward: gradients of every micro-batch end where they are complete. Otherwise those of all but the
            first are added to it, and end just before.

    Raises:
        NotAlikeError: the parts do not fit.
    """
    (own,), splicer = parts_of(body.played), _Splicer(body, hollow)
    for number, parts in enumerate(parts_of(hollow)):
        if handed_on(hollow, parts.between, parts.backward) != body.arriving or (
            not number and tuple(_named(hollow, parts.before)) != body.before
        ):
            raise NotAlikeError
        splicer.take_around(parts.before)
        splicer.take_layers(own.forward)
        splicer.take_around(parts.between)
        if steps_in_backward or number:
            splicer.take_ending(own.backward, before_marks=not steps_in_backward)
        else:
            splicer.take_layers(own.backward)
        splicer.take_around(parts.behind)
    return splicer.step()


class _Splicer:
    """Puts a step together, part by part."""

    def __init__(self, body: Body, hollow: Played) -> None:
        self._body = body
        self._hollow = hollow
        self._kinds = {kind: number for number, kind in enumerate(body.played.kinds)}
        self._codes: dict[int, int] = {}
        """Codes of what lies around stand-ins, by their own."""
        self._lone = _lone_by_place(hollow), _lone_by_place(body.played)
        self._events: list[int] = []
        self._marks: list[Mark] = []
        self._ends: list[int] = []
        self._product = -1

    def take_around(self, part: Part) -> None:
        """Events and marks of the step with stand-ins."""
        hollow, offset = self._hollow, len(self._events) - part.start
        self._events += map(self._code, hollow.events[part.start : part.stop])
        self._marks += [(hollow.marks[place][0] + offset, *hollow.marks[place][1:]) for place in part.marks]
        self._ends += [self._code(self._lone[0][place]) for place in part.marks if place in self._lone[0]]
        if part.start <= hollow.product < part.stop:
            self._product = hollow.product + offset

    def _code(self, code: int) -> int:
        found = self._codes.get(code)
        if found is None:
            kind = _meant(self._hollow.kinds[abs(code) - 1], self._body)
            number = self._kinds.setdefault(kind, len(self._kinds)) + 1
            found = self._codes[code] = number if code > 0 else -number
        return found

    def take_layers(self, part: Part) -> None:
        """Events and marks of the layers."""
        layers, offset = self._body.played, len(self._events) - part.start
        self._events += layers.events[part.start : part.stop]
        self._marks += [(layers.marks[place][0] + offset, *layers.marks[place][1:]) for place in part.marks]
        self._ends += [self._lone[1][place] for place in part.marks if place in self._lone[1]]

    def take_ending(self, part: Part, *, before_marks: bool) -> None:
        """The same with every gradient ended at its mark."""
        layers, position, lone = self._body.played, part.start, self._lone[1]
        for place in part.marks:
            at, label, detail = layers.marks[place]
            self._events += layers.events[position:at]
            position = at
            ends = [lone[place]] if label == "gradient" else []
            self._events += ends * before_marks
            self._marks.append((len(self._events), label, detail))
            self._events += ends * (not before_marks)
        self._events += layers.events[position : part.stop]

    def step(self) -> Played:
        """What has been put together."""
        if self._product < 0:
            raise NotAlikeError
        needs = {key: list(names) for key, names in self._body.needs.items()}
        for (size, name), names in self._hollow.needs.items():
            kind = _meant(Kind(size, "", name), self._body)
            found = needs.setdefault((kind.size, kind.name), [])
            found += [name for name in names if not name.endswith(STAND_IN) and name not in found]
        gradients = sum(label == "gradient" for _, label, _ in self._marks)
        return Played(
            kinds=tuple(self._kinds),
            events=tuple(self._events),
            births=(),
            marks=(*self._marks, (len(self._events), "end", "")),
            needs={key: tuple(names) for key, names in needs.items() if names},
            product=self._product,
            gradients=(),
            lone=tuple(self._ends) if len(self._ends) == gradients else (),
        )


def _lone_by_place(played: Played) -> dict[int, int]:
    """What would end each gradient, by the place of its mark."""
    places = [place for place, (_, label, _) in enumerate(played.marks) if label == "gradient"]
    return dict(zip(places, played.lone, strict=False))
