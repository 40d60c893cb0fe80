"""What takes a layer's place where only what lies around the layers is of interest."""

from estimators.analytic.shadow.tape import STAND_IN, Parameter, Tape, Tensor, record


def stand_in(tape: Tape, held: frozenset[int], inputs: list[Tensor]) -> Tensor:
    """A tensor like the first input, whose gradient is handed on as a residual connection does.

    Args:
        tape: of the step.
        held: which storages of the micro-batch a layer lets go of in its backward only; the first is 0.
        inputs: what the layer takes.
    """
    hidden = inputs[0]
    begin = next(position for position, label, _ in reversed(tape.marks) if label == "micro-batch")
    kept = [x for x in inputs if sum(code > 0 for code in tape.events[begin : x.storage.birth]) in held]
    wants = hidden.requires_grad

    def apply(gradient: Tensor) -> list[Tensor | None]:
        return [gradient.detach() if wants else None, None]

    weight = Parameter(STAND_IN, (), hidden.itemsize, optimized=False)
    return record(tape.empty(hidden.dims, hidden.itemsize, STAND_IN), apply, [hidden, weight], kept)
