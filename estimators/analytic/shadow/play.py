"""The canonical step's forward and backward, played for a structure: births and deaths with their borders marked."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from estimators.analytic.shadow import loss as losses
from estimators.analytic.shadow.engine import backward
from estimators.analytic.shadow.llama import Model
from estimators.analytic.shadow.structure import Structure
from estimators.analytic.shadow.tape import Kind, Parameter, Size, Tape, Tensor


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
    gradients: tuple[int, ...]
    """The position at which each gradient was born, in the order of the marks of their completion."""


@lru_cache(maxsize=256)
def play(structure: Structure) -> Played:
    """Forward with labels, loss kept, outputs dropped before backward unless kept, backward; per micro-batch."""
    tape = Tape()
    model = Model(structure, tape)

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
        inputs = _inputs(tape, structure)
        loss, outputs = _forward(model, inputs[1])
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
        gradients=tuple(gradients),
    )
    del loss, outputs, inputs  # alive, like the gradients, while the optimizer steps
    return played


def _inputs(tape: Tape, structure: Structure) -> list[Tensor]:
    names = ["input ids", "labels", *["attention mask of tokens"] * structure.padding]
    return [tape.empty(("b", "s"), 8, name, "inputs") for name in names]


def _forward(model: Model, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
    tape = model.tape
    hidden, outputs = model.forward()
    if model.structure.loss_chunks:
        loss = losses.chunked(model, hidden)
    else:
        loss, logits = losses.full(model, hidden, labels)
        outputs.append(logits.detach())
    for parameter in tape.autocast_cache:
        parameter.cast = None
    tape.autocast_cache.clear()
    return loss, outputs
