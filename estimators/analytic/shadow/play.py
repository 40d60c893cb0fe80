"""The canonical step's forward and backward, played for a structure: births and deaths with their borders marked."""

from bisect import bisect_right
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

from estimators.analytic.families import family_of
from estimators.analytic.shadow.attention import FUSED
from estimators.analytic.shadow.engine import backward, has_lone_gradient
from estimators.analytic.shadow.fold import folded
from estimators.analytic.shadow.ops import cast
from estimators.analytic.shadow.periods import NotAlikeError, Repeated
from estimators.analytic.shadow.played import Mark, Region
from estimators.analytic.shadow.played import Played as Played
from estimators.analytic.shadow.splice import Body, body_of, held_by_layers, spliced
from estimators.analytic.shadow.structure import Structure
from estimators.analytic.shadow.tape import MIDDLE, Dims, Parameter, Size, Tape, Tensor
from estimators.analytic.shadow.unroll import unrolled


@lru_cache(maxsize=256)
def play(structure: Structure) -> Played:
    """Forward with labels, loss kept, outputs dropped before backward unless kept, backward; per micro-batch."""
    if _only_ends_gradients(structure):
        whole = play(_with_gradients(structure))
        if whole.lone:
            return stepped_in_backward(whole)
    return from_fewer_layers(structure) or played(structure)


@lru_cache(maxsize=256)
def play_folded(structure: Structure) -> tuple[Played, tuple[Region, ...]]:
    """The same with layers that repeat left out where that can be, and which of those that are left stand for others.

    A middle layer stands for one: for how many, its model knows.
    """
    if _only_ends_gradients(structure):
        whole, regions = play_folded(_with_gradients(structure))
        if whole.lone:
            return stepped_in_backward(whole), regions
    with suppress(NotAlikeError):
        return _from_parts(structure)
    short, repeated = _shortened(structure)
    with suppress(NotAlikeError):
        if repeated:
            return folded(played(short), repeated)
    return play(structure), middle(structure)


def _from_parts(structure: Structure) -> tuple[Played, tuple[Region, ...]]:
    """The layers of a simpler step, and what lies around them in this one."""
    short, repeated = _shortened(structure)
    layers = _layers_of(short)
    can_splice = family_of(structure.family).takes_stand_ins and not structure.gradients_into_buckets
    if structure.use_cache and structure.micro_batches > 1:
        can_splice = False  # the layers' caches live into the next micro-batch
    found = _body(layers, repeated) if can_splice else None
    if found is None:
        raise NotAlikeError
    body, held, regions = found
    if layers == short:
        return body.played, regions
    return spliced(body, played(short, held), steps_in_backward=structure.update_in_backward), regions


def _layers_of(structure: Structure) -> Structure:
    """The simplest step that has the same layers."""
    fused = {structure.kernel, structure.masked_kernel} <= FUSED.keys()
    return replace(
        structure, loss_chunks=0, micro_batches=1, update_in_backward=False, batched=structure.batched and not fused
    )


@lru_cache(maxsize=64)
def _body(
    structure: Structure, repeated: tuple[Repeated, ...]
) -> tuple[Body, frozenset[int], tuple[Region, ...]] | None:
    """Layers for other steps, what stand-ins hold in their place, and which layers stand for others; None if unfit."""
    whole = played(structure)
    with suppress(NotAlikeError):
        held = held_by_layers(whole)
        left, regions = folded(whole, repeated) if repeated else (whole, middle(structure))
        return body_of(whole, played(structure, held), left), held, regions
    return None


def middle(structure: Structure) -> tuple[Region, ...]:
    """The middle one of three layers, which stands for others: for how many, their model knows."""
    return (Region(MIDDLE, MIDDLE, 1),) if structure.layers == MIDDLE + 2 else ()


def _only_ends_gradients(structure: Structure) -> bool:
    """Whether the step is one that keeps its gradients, but for where these end."""
    return (structure.update_in_backward or structure.gradients_into_buckets) and structure.micro_batches == 1


def _with_gradients(structure: Structure) -> Structure:
    return replace(structure, update_in_backward=False, gradients_into_buckets=False)


def from_fewer_layers(structure: Structure) -> Played | None:
    """The step from one of fewer layers, where those repeat; None where all have to be played."""
    short, repeated = _shortened(structure)
    if not repeated:
        return None
    written = played(short)
    with suppress(NotAlikeError):
        for one in reversed(repeated):  # so that layers before keep their numbers
            written = unrolled(written, one)
        return written
    return None


def _shortened(structure: Structure) -> tuple[Structure, tuple[Repeated, ...]]:
    """A step of fewer layers, and what repeats in it more often than it is there."""
    short, repeated = family_of(structure.family).shortened(structure)
    return short, tuple(one for one in repeated if one.more)


@lru_cache(maxsize=64)
def played(structure: Structure, held_by_layers: frozenset[int] | None = None) -> Played:
    """The step with every layer and every gradient played.

    Args:
        structure: of the step.
        held_by_layers: given, stand-ins take the place of layers, and hold these storages of each micro-batch.
    """
    tape = Tape()
    tape.held_by_layers = held_by_layers
    model = family_of(structure.family).program(structure, tape)

    gradients: list[int] = []
    lone: list[int] = []
    is_last = False

    def hook(parameter: Parameter) -> None:
        assert parameter.grad is not None
        tape.mark("gradient", parameter.name)
        gradients.append(parameter.grad.storage.birth)
        if has_lone_gradient(parameter):
            lone.append(-parameter.grad.storage.code)
        if structure.update_in_backward or (structure.gradients_into_buckets and is_last):
            parameter.grad = None

    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    loss: Tensor | None = None
    for index in range(structure.micro_batches):
        tape.mark("micro-batch", str(index))
        is_last = index == structure.micro_batches - 1
        inputs = model.inputs()
        loss, outputs = model.step(inputs)
        _forget_casts(tape)
        if not structure.keep_outputs:
            outputs.clear()
        tape.mark("backward", str(index))
        backward(loss, hook)
    tape.mark("end")
    needs: dict[tuple[Size, str], dict[str, None]] = {}
    for (_, name), kind in tape.needs.items():
        needs.setdefault((kind.size, kind.name), {})[name] = None
    found = Played(
        kinds=tuple(tape.kinds),
        events=tuple(tape.events),
        births=tuple(tape.births),
        marks=tuple(tape.marks),
        needs={key: tuple(names) for key, names in needs.items()},
        product=len(tape.events) if tape.product is None else tape.product,
        gradients=tuple(gradients),
        lone=tuple(lone) if len(lone) == len(gradients) else (),
    )
    del loss, outputs, inputs  # alive, like the gradients, while the optimizer steps
    return found


def stepped_in_backward(whole: Played) -> Played:
    """The same step with every gradient ended when it is complete: what per-layer updates change in it, or buckets."""
    complete = [position for position, label, _ in whole.marks if label == "gradient"]
    places = [position + bisect_right(complete, position) for position in range(len(whole.events) + 1)]
    """Where each event comes to lie behind the ends of gradients before it."""
    events, births = list(whole.events), list(whole.births)
    has_births = bool(births)
    marks: list[Mark] = []
    ended = 0
    for position, label, detail in whole.marks:
        marks.append((position + ended, label, detail))
        if label == "gradient":
            events.insert(position + ended, whole.lone[ended])
            if has_births:
                births.insert(position + ended, whole.gradients[ended])
            ended += 1
    return replace(
        whole,
        events=tuple(events),
        births=tuple(places[birth] for birth in births),
        marks=tuple(marks),
        product=places[whole.product],
        gradients=tuple(places[birth] for birth in whole.gradients),
        lone=(),
    )


@lru_cache(maxsize=256)
def play_forward(structure: Structure) -> tuple[Played, Dims, Dims]:
    """One forward with labels and without gradients, as an evaluation runs it: loss and outputs live to its end.

    Returns:
        The forward, and the dimensions of logits (none under a chunked loss) and labels.
    """
    tape = Tape()
    tape.grad_enabled = False
    model = family_of(structure.family).program(structure, tape)
    inputs = model.inputs()
    loss, outputs = model.step(inputs)
    _forget_casts(tape)
    logits: Dims = () if structure.loss_chunks else outputs[-1].dims
    labels = inputs[1].dims
    if structure.autocast and logits:
        cast(outputs[-1], 4, "logits in fp32 for the loop")
    tape.mark("end")
    played = Played(
        kinds=tuple(tape.kinds),
        events=tuple(tape.events),
        births=tuple(tape.births),
        marks=tuple(tape.marks),
        needs={},
        product=len(tape.events),
        gradients=(),
    )
    del loss, outputs, inputs
    return played, logits, labels


def _forget_casts(tape: Tape) -> None:
    """Autocast's copies of weights die when its context is left."""
    for parameter in tape.autocast_cache:
        parameter.cast = None
    tape.autocast_cache.clear()
