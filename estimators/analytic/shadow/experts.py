"""A mixture of experts as transformers 5 runs it: a router, and one grouped matrix product over all experts.

`grouped_mm` is what transformers takes where nothing else is asked for (integrations/moe.py). It sorts the pairs of
tokens and chosen experts by expert and multiplies them in one call, so that every size depends on the number of pairs,
and none on which experts were chosen: balanced routing takes as much memory as all tokens going to the same experts.

Dimensions: E experts, K of them for each token, m an expert's intermediate size.
"""

from collections.abc import Callable
from dataclasses import dataclass

from estimators.analytic.shadow.ops import Gradients, cast, chunk, like, linear, multiply, silu, softmax
from estimators.analytic.shadow.tape import Dims, Parameter, Tensor, record, stop_before

PAIRS: Dims = ("b", "s", "K")
ROWS: Dims = (*PAIRS, "h")


def route(
    hidden: Tensor, gate: Parameter, *, autocast: int, normalizes: bool, narrows: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, weights and numbers of each token's experts (`MixtralTopKRouter`).

    Args:
        hidden: (b, s, h).
        gate: (E, h).
        autocast: bytes per element of autocast's dtype.
        normalizes: the weights are divided by their sum, in place.
        narrows: the weights are cast to the logits' dtype.
    """
    logits = linear(hidden, gate, None, "router logits", autocast=autocast)
    probabilities = softmax(cast(logits, 4, "router logits in fp32"), "router probabilities")
    weights, index = _top_k(probabilities)
    if normalizes:
        weights = _divided_by_sum(weights)
    return logits, cast(weights, logits.itemsize, "routing weights") if narrows else weights, index


def _top_k(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    tape, dims = probabilities.tape, probabilities.dims
    values = tape.empty(PAIRS, probabilities.itemsize, "chosen probabilities")
    index = tape.empty(PAIRS, 8, "chosen experts")

    def apply(gradient: Tensor) -> Gradients:
        return [gradient.tape.empty(dims, gradient.itemsize, "gradient of the probabilities")]

    return record(values, apply, [probabilities], [index]), index


def _divided_by_sum(values: Tensor) -> Tensor:
    """`values /= values.sum(-1, keepdim=True)`: in place, so that the values before it are kept as a copy."""
    tape = values.tape
    total = tape.empty(("b", "s", "1"), 4, "sum of the chosen")
    total = record(total, lambda gradient: [gradient.as_view()], [values])
    before = like(values, "chosen probabilities before the division")

    def apply(gradient: Tensor) -> Gradients:
        ratio, minus = like(gradient, "ratio"), like(gradient, "gradient negated")
        product = like(gradient, "gradient product")
        del ratio, minus
        inner = like(gradient, "gradient divided")
        outer = gradient.tape.empty(("b", "s", "1"), 4, "gradient of the sum")
        del product
        return [inner, outer]

    out = values.detach()
    return record(out, apply, [values, total], [before, total])


def route_by_logits(
    hidden: Tensor, gate: Parameter, bias: Parameter, *, autocast: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, weights and numbers of each token's experts: softmax over the chosen logits (`GptOssTopKRouter`)."""
    logits = linear(hidden, gate, bias, "router logits", autocast=autocast)
    values, index = _top_k(logits)
    return logits, softmax(values, "routing weights"), index


@dataclass(frozen=True, slots=True)
class Biases:
    """What GPT-OSS's experts have besides."""

    gate_up: Parameter
    down: Parameter
    gate: Callable[[Tensor], Tensor]
    """From the first product to what the second takes."""


def grouped(
    hidden: Tensor,
    weights: Tensor,
    index: Tensor,
    gate_up: Parameter,
    down: Parameter,
    biases: Biases | None = None,
) -> Tensor:
    """All experts at once (`grouped_mm_experts_forward`): (b, s, h)."""
    tape, source = hidden.tape, hidden.itemsize
    experts = tape.empty(PAIRS, 8, "experts sorted", "inputs")
    order = tape.empty(PAIRS, 8, "order of the pairs", "inputs")
    tokens = tape.empty(PAIRS, 8, "token of each pair", "inputs")
    selected = _taken(hidden, tokens, ROWS, "token of each pair, sorted")
    del tokens
    pair_weights = _taken(weights, order, PAIRS, "routing weights sorted")
    numbers = tape.empty(PAIRS, 4, "experts as numbers")  # noqa: F841
    counts = tape.empty(("E",), 4, "pairs of each expert")  # noqa: F841
    offsets = tape.empty(("E",), 4, "offsets", "inputs")
    rows: Tensor | None = None
    if biases is not None:
        rows = _row_biases(biases.gate_up, experts, (*PAIRS, "2m"))
    out = _shifted(_product(selected, gate_up, offsets, (*PAIRS, "2m"), "gate_up_proj"), rows)
    out = _gated(out) if biases is None else biases.gate(out)
    if biases is not None:
        rows = _row_biases(biases.down, experts, ROWS)
    out = _shifted(_product(out, down, offsets, ROWS, "down_proj"), rows)
    weighted = multiply(out, pair_weights, "weighted")
    back = tape.empty(PAIRS, 8, "order of the tokens", "inputs")
    tape.empty(PAIRS, 8, "places in that order", "inputs")
    weighted = _taken(weighted, back, ROWS, "weighted in the tokens' order")
    final = _summed(weighted)
    return cast(final, source, "sum over experts in the model's dtype")


def _gated(out: Tensor) -> Tensor:
    gate, up = chunk(out, *PAIRS, "m")
    return multiply(silu(gate, "activation"), up, "gated")


def _row_biases(bias: Parameter, experts: Tensor, dims: Dims) -> Tensor:
    """`bias[experts]`: a copy for every pair; its gradient is added into zeros of the size of all."""

    def apply(gradient: Tensor) -> Gradients:
        return [gradient.tape.empty(bias.dims, bias.itemsize, bias.name, "gradients")]

    return record(experts.tape.empty(dims, bias.itemsize, "bias of each pair"), apply, [bias], [experts])


def _shifted(out: Tensor, rows: Tensor | None) -> Tensor:
    """`out.add_(rows)`: in place."""
    if rows is None:
        return out
    return record(out.detach(), lambda gradient: [gradient, gradient.detach()], [out, rows])


def _taken(x: Tensor, index: Tensor, dims: Dims, name: str) -> Tensor:
    """`x[index]`, a copy; its gradient is added into zeros of the size of `x` (index_backward)."""
    before = x.dims

    def apply(gradient: Tensor) -> Gradients:
        return [gradient.tape.empty(before, gradient.itemsize, "gradient of all rows")]

    stop_before(x.tape, [index] if x.requires_grad else [])
    return record(x.tape.empty(dims, x.itemsize, name), apply, [x], [index])


def _product(x: Tensor, weight: Parameter, offsets: Tensor, dims: Dims, name: str) -> Tensor:
    """`grouped_mm` with a stack of matrices, which autocast leaves alone: the rows take the weight's dtype."""
    x = cast(x, weight.itemsize, f"{name} input cast")
    inner, wants, trainable = x.dims, x.requires_grad, weight.requires_grad

    def apply(gradient: Tensor) -> Gradients:
        tape, size = gradient.tape, gradient.itemsize
        return [
            tape.empty(weight.dims, size, weight.name, "gradients").as_view() if trainable else None,
            tape.empty(inner, size, "gradient of the rows") if wants else None,
        ]

    saved = [x] * trainable + [offsets]
    stop_before(x.tape, saved)
    return record(x.tape.empty(dims, x.itemsize, name), apply, [weight, x], saved)


def _summed(x: Tensor) -> Tensor:
    """`x.sum(1)` over a token's experts; its gradient is spread over them, and copied where it is laid out in rows."""
    dims = x.dims
    out = x.tape.empty(("b", "s", "h"), x.itemsize, "sum over experts")
    return record(out, lambda gradient: [gradient.tape.empty(dims, gradient.itemsize, "gradient of the rows")], [x])
