"""One vector for each sequence, and the loss of a classifier on it."""

from estimators.analytic.shadow.ops import Gradients, cast, like
from estimators.analytic.shadow.tape import Tensor, record


def first_token(hidden: Tensor) -> Tensor:
    """`hidden[:, 0]`, a view of (b, s, h): its gradient is one of zeros with a row filled in (select_backward)."""
    dims, itemsize = hidden.dims, hidden.itemsize
    view = hidden.view(dims[0], *dims[2:])
    view.node = None

    def apply(gradient: Tensor) -> Gradients:
        return [gradient.tape.empty(dims, itemsize, "gradient of all tokens")]

    return record(view, apply, [hidden])


def tanh(x: Tensor, name: str) -> Tensor:
    """`torch.tanh`: saves its result."""
    out = like(x, name)
    return record(out, lambda gradient: [like(gradient, "gradient")], [x], [out])


def classification_loss(logits: Tensor, labels: Tensor, *, autocast: int = 0) -> Tensor:
    """`F.cross_entropy` of (b, C) logits in their own dtype; autocast runs it in fp32."""
    if autocast:
        logits = cast(logits, 4, "logits in fp32")
    dims, size = logits.dims, logits.itemsize
    out = like(logits, "log-probabilities")
    log_probabilities = record(out, lambda gradient: [like(gradient, "gradient of the logits")], [logits], [out])
    loss = logits.tape.empty((), size, "loss")
    weight = logits.tape.empty((), size, "number of labels")

    def apply(gradient: Tensor) -> Gradients:
        return [gradient.tape.empty(dims, size, "gradient of the log-probabilities")]

    return record(loss, apply, [log_probabilities], [log_probabilities, weight, labels])
