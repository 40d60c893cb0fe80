"""GPT-OSS's attention: a learned score for each head joins the softmax, and takes part of the weights away."""

from estimators.analytic.shadow.attention import HEADS, SCORES, contiguous
from estimators.analytic.shadow.ops import (
    Gradients,
    add,
    cast,
    chunk,
    concatenate,
    dropout,
    like,
    matmul,
    scale,
    softmax,
)
from estimators.analytic.shadow.tape import Dims, Parameter, Tensor, record

WIDER: Dims = ("b", "n", "s", "s+1")
ROWS: Dims = ("b", "n", "s", "1")


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor, name: str) -> Tensor:
    """`_apply_rotary_emb`: both halves of each head from both, joined."""
    first, second = chunk(x, *x.dims[:-1], "d/2")
    left = _subtract(_turned(first, cos, name), _turned(second, sin, name), f"{name} first half")
    right = add(_turned(second, cos, name), _turned(first, sin, name), f"{name} second half")
    return concatenate([left, right], x.dims, name)


def _turned(x: Tensor, table: Tensor, name: str) -> Tensor:
    out = like(x, f"{name} turned", max(x.itemsize, table.itemsize))
    return record(out, lambda gradient: [like(gradient, "gradient product")], [x], [table])


def _subtract(a: Tensor, b: Tensor, name: str) -> Tensor:
    out = like(a, name, max(a.itemsize, b.itemsize))
    return record(out, lambda gradient: [gradient.detach(), like(gradient, "gradient negated")], [a, b])


def attend_with_sinks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    sinks: Parameter,
    *,
    batched: bool,
    foldable: bool,
    probability: float,
    autocast: int,
) -> tuple[Tensor, Tensor]:
    """GPT-OSS's own `eager_attention_forward`, heads repeated: (b, s, q), and the weights.

    `foldable`: values lie in memory head after head, as copies of them do, so the product needs no copy of its own.
    """
    weights = scale(matmul(q, k, SCORES, "scores", autocast=autocast), "scores scaled")
    weights = add(weights, mask, "scores masked")
    combined = _joined(weights, sinks)
    combined = _less_maximum(combined)
    probabilities = softmax(combined, "attention probabilities")
    taken = _without_sink(probabilities)
    del probabilities
    weights = cast(dropout(taken, probability, "attention dropout"), v.itemsize, "weights")
    copies = (False, batched and not foldable)
    values = matmul(weights, v, HEADS, "values", copies=copies, copies_gradient=batched, autocast=autocast)
    return contiguous(values), weights


def _joined(scores: Tensor, sinks: Parameter) -> Tensor:
    """Scores with one more column: a copy, whose gradient falls into views; the sinks' is summed."""
    tape, size = scores.tape, max(scores.itemsize, sinks.itemsize)

    def apply(gradient: Tensor) -> Gradients:
        own = gradient.tape.empty(sinks.dims, sinks.itemsize, sinks.name, "gradients") if sinks.requires_grad else None
        return [gradient.view(*SCORES).as_view(), own]

    return record(tape.empty(WIDER, size, "scores and sinks"), apply, [scores, sinks])


def _less_maximum(x: Tensor) -> Tensor:
    """`x - x.max(-1).values`."""
    values = x.tape.empty(ROWS, x.itemsize, "largest scores")
    index = x.tape.empty(ROWS, 8, "places of the largest scores")
    values = record(values, lambda gradient: [gradient.tape.empty(WIDER, gradient.itemsize, "gradient")], [x], [index])
    del index
    out = like(x, "scores below the largest")
    return record(
        out, lambda gradient: [gradient.detach(), like(gradient, "gradient negated")], [x, values], (), {1: ROWS}
    )


def _without_sink(x: Tensor) -> Tensor:
    """The columns of tokens: a view, whose gradient comes back as zeros around it."""
    view = x.view(*SCORES)
    view.node = None
    return record(view, lambda gradient: [gradient.tape.empty(WIDER, gradient.itemsize, "gradient padded")], [x])
