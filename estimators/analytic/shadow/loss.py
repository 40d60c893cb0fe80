"""The head and the loss in shadow: transformers' ForCausalLMLoss, whole or in chunks of tokens."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from estimators.analytic.shadow.ops import Gradients, cast
from estimators.analytic.shadow.tape import Tensor, checkpoint, record

if TYPE_CHECKING:
    from estimators.analytic.shadow.program import Program


def full(model: "Program", hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and logits of all tokens at once (transformers/loss/loss_utils.py)."""
    tape = model.tape
    tape.scope.append("lm_head")
    logits = model.logits(hidden)
    tape.scope[-1] = "loss"
    tape.mark("loss")
    upcast = cast(logits, 4, "logits in fp32")
    padded = labels.tape.empty(("b", "s+1"), 8, "labels padded", "inputs")
    shifted = labels.tape.empty(("b", "s"), 8, "labels shifted", "inputs") if model.structure.batched else padded
    loss = _cross_entropy(upcast, shifted)
    tape.scope.pop()
    return loss, logits


def chunked(model: "Program", hidden: Tensor) -> Tensor:
    """Loss of pieces of tokens, each recomputed in backward, so that logits exist for one piece at a time."""
    tape, pieces = model.tape, model.structure.loss_chunks
    tape.scope.append("loss")
    tape.mark("loss")
    chunks = _split(hidden, pieces)
    total: Tensor | None = None
    for chunk in chunks:
        loss = checkpoint(tape, _piece(model, chunk))
        total = loss if total is None else _plus(total, loss)
    tape.scope.pop()
    assert total is not None
    return total


def _piece(model: "Program", chunk: Tensor) -> Callable[[], Tensor]:
    def play() -> Tensor:
        logits = cast(model.logits(chunk), 4, "logits in fp32")
        return _cross_entropy(logits, None)

    return play


def _split(hidden: Tensor, pieces: int) -> list[Tensor]:
    """`hidden.view(-1, h).split(c)`: views, whose gradients are joined once all are there.

    The second piece stands for all but the first, so its gradient comes with those of the others.
    """
    dims, size = hidden.dims, hidden.itemsize
    waiting: list[Tensor] = []

    def join(gradient: Tensor) -> Gradients:
        waiting.append(gradient)
        if len(waiting) == 1 and pieces > 1:
            waiting.append(gradient.tape.empty(("rest", dims[-1]), size, "gradients of the other pieces"))
            return [None]
        joined = gradient.tape.empty(dims, size, "gradients of the pieces joined").as_view()
        waiting.clear()
        return [joined]

    views = [hidden.view("c", dims[-1]) for _ in range(pieces)]
    for view in views:
        view.node = None
    return [record(view, join, [hidden]) for view in views]


def _plus(a: Tensor, b: Tensor) -> Tensor:
    out = a.tape.empty((), 4, "loss sum")
    return record(out, lambda gradient: [gradient.detach(), gradient.detach()], [a, b])


def _cross_entropy(logits: Tensor, labels: Tensor | None) -> Tensor:
    tape, dims = logits.tape, logits.dims
    out = tape.empty(dims, 4, "log-probabilities")
    log_probabilities = record(out, lambda gradient: [tape.empty(dims, 4, "gradient of the logits")], [logits], [out])
    loss = tape.empty((), 4, "loss")
    weight = tape.empty((), 4, "number of labels")
    saved = [log_probabilities, weight] + ([labels] if labels is not None else [])
    return record(
        loss, lambda gradient: [tape.empty(dims, 4, "gradient of the log-probabilities")], [log_probabilities], saved
    )
