"""The canonical step's forward and backward, played for a structure: births and deaths with their borders marked."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from estimators.analytic.families import family_of
from estimators.analytic.shadow.engine import backward
from estimators.analytic.shadow.ops import cast
from estimators.analytic.shadow.structure import Structure
from estimators.analytic.shadow.tape import Dims, Kind, Parameter, Size, Tape, Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Played:
    """A step in symbols."""

    kinds: tuple[Kind, ...]
    events: tuple[int, ...]
    """The kind's number plus one for a birth, its negative for a death."""
    births: tuple[int, ...]
    """The position at which the storage of each event was born."""
    marks: tuple[tuple[int, str, str], ...]
    """Position in `events`, what happens there, and to whom."""
    needs: Mapping[tuple[Size, str], tuple[str, ...]]
    """Names of the results whose backward needs a storage, by its size and name."""
    product: int
    """Position of backward's first matrix product; the number of events where it has none."""
    gradients: tuple[int, ...]
    """The position at which each gradient was born, in the order of the marks of their completion."""


@lru_cache(maxsize=256)
def play(structure: Structure) -> Played:
    """Forward with labels, loss kept, outputs dropped before backward unless kept, backward; per micro-batch."""
    tape = Tape()
    model = family_of(structure.family).program(structure, tape)

    gradients: list[int] = []

    def hook(parameter: Parameter) -> None:
        assert parameter.grad is not None
        tape.mark("gradient", parameter.name)
        gradients.append(parameter.grad.storage.birth)
        if structure.update_in_backward:
            parameter.grad = None

    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    loss: Tensor | None = None
    for index in range(structure.micro_batches):
        tape.mark("micro-batch", str(index))
        inputs = model.inputs()
        loss, outputs = model.step(inputs)
        _forget_casts(tape)
        if not structure.keep_outputs:
            outputs.clear()
        tape.mark("backward", str(index))
        backward(loss, hook)
    tape.mark("end")
    needs = {key: tuple(names) for key, names in tape.needs.items()}
    played = Played(
        kinds=tuple(tape.kinds),
        events=tuple(tape.events),
        births=tuple(tape.births),
        marks=tuple(tape.marks),
        needs=needs,
        product=len(tape.events) if tape.product is None else tape.product,
        gradients=tuple(gradients),
    )
    del loss, outputs, inputs  # alive, like the gradients, while the optimizer steps
    return played


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
