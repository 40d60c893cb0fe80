"""The head and the loss in shadow: transformers' ForCausalLMLoss, whole or in chunks of tokens."""

from typing import TYPE_CHECKING

from estimators.analytic.shadow.ops import Gradients, cast
from estimators.analytic.shadow.tape import Tape, Tensor, checkpoint, record

if TYPE_CHECKING:
    from estimators.analytic.shadow.program import Program


def full(model: "Program", hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and logits of all tokens at once (transformers/loss/loss_utils.py)."""
    tape = model.tape
    tape.enter("lm_head")
    logits = model.logits(hidden)
    tape.leave()
    tape.enter("loss")
    tape.mark("loss")
    upcast = cast(logits, 4, "logits in fp32")
    padded = labels.tape.empty(("b", "s+1"), 8, "labels padded", "inputs")
    shifted = labels.tape.empty(("b", "s"), 8, "labels shifted", "inputs") if model.structure.batched else padded
    loss = _cross_entropy(upcast, shifted)
    tape.leave()
    return loss, logits


PLAYED_PIECES = 4
"""Of a chunked loss: the first two, and the last two. Where there are more, those between them are like the second."""
OTHERS = "gradients of the other pieces"
"""The name of what those between leave in backward, which comes to the last piece first."""


def chunked(model: "Program", hidden: Tensor) -> Tensor:
    """Loss of pieces of tokens, each recomputed in backward, so that logits exist for one piece at a time."""
    tape, pieces = model.tape, model.structure.loss_chunks
    tape.enter("loss")
    tape.mark("loss")
    labels = _shifted(tape, model.structure.batched)
    count = _counted(tape)
    others: list[Tensor] = []
    total: Tensor | None = None
    for index, chunk in enumerate(_split(hidden, min(pieces, PLAYED_PIECES), others)):
        beside = others if pieces > PLAYED_PIECES and index == 1 else None
        loss = checkpoint(tape, _Piece(model, index, chunk, labels, beside))
        total = loss if total is None else _plus(total, loss)
    assert total is not None
    out = tape.empty((), 4, "mean loss")
    record(out, lambda gradient: [tape.empty((), 4, "gradient of the sum")], [total], [count])
    tape.leave()
    return out


def _shifted(tape: Tape, batched: bool) -> Tensor:
    """`pad(labels)[..., 1:].reshape(-1)`: a copy where rows are several."""
    padded = tape.empty(("b", "s+1"), 8, "labels padded", "inputs")
    return tape.empty(("b", "s"), 8, "labels shifted", "inputs") if batched else padded


def _counted(tape: Tape) -> Tensor:
    """`(labels != -100).sum()`."""
    valid = tape.empty(("b", "s"), 1, "labels that count", "inputs")  # noqa: F841
    return tape.empty((), 8, "number of labels", "inputs")


class _Piece:
    """Head and loss of some tokens; run a second time in backward.

    Args:
        model: whose head it is.
        index: of the piece, among those that are played.
        chunk: its hidden states.
        labels: of all tokens.
        others: where to put what pieces that are not played have left when this one's backward begins; None for most.
    """

    def __init__(
        self, model: "Program", index: int, chunk: Tensor, labels: Tensor, others: list[Tensor] | None
    ) -> None:
        self._model = model
        self._index = index
        self._chunk = chunk
        self._labels = labels
        self._others = others

    def __call__(self) -> Tensor:
        """The sum of the losses of its tokens."""
        tape = self._model.tape
        tape.mark("piece", str(self._index))
        if self._others is not None and tape.refilling is not None:
            width, size = self._chunk.dims[-1], self._chunk.itemsize
            self._others.append(tape.empty(("rest", width), size, OTHERS, "temporaries"))
        logits = cast(self._model.logits(self._chunk), 4, "logits in fp32")
        return _cross_entropy(logits, self._labels)


def _split(hidden: Tensor, pieces: int, others: list[Tensor]) -> list[Tensor]:
    """`hidden.view(-1, h).split(c)`: views, whose gradients are joined once all are there, with those of `others`."""
    dims, size = hidden.dims, hidden.itemsize
    waiting: list[Tensor] = []

    def join(gradient: Tensor) -> Gradients:
        waiting.append(gradient)
        if len(waiting) < pieces:
            return [None]
        joined = gradient.tape.empty(dims, size, "gradients of the pieces joined").as_view()
        waiting.clear()
        others.clear()
        return [joined]

    rows = ["c"] * pieces if pieces == 1 else [*["c"] * (pieces - 1), "last"]
    views = [hidden.view(row, dims[-1]) for row in rows]
    for view in views:
        view.node = None
    return [record(view, join, [hidden]) for view in views]


def _plus(a: Tensor, b: Tensor) -> Tensor:
    out = a.tape.empty((), 4, "loss sum")
    return record(out, lambda gradient: [gradient.detach(), gradient.detach()], [a, b])


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    tape, dims = logits.tape, logits.dims
    out = tape.empty(dims, 4, "log-probabilities")
    log_probabilities = record(out, lambda gradient: [tape.empty(dims, 4, "gradient of the logits")], [logits], [out])
    loss = tape.empty((), 4, "loss")
    weight = tape.empty((), 4, "number of labels")
    return record(
        loss,
        lambda gradient: [tape.empty(dims, 4, "gradient of the log-probabilities")],
        [log_probabilities],
        [log_probabilities, weight, labels],
    )
