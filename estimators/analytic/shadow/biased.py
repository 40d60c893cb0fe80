"""Attention with a learned bias that layers share (T5): (1, n, s, s), added to the scores."""

from estimators.analytic.efficient_attention import EfficientKernel
from estimators.analytic.shadow import attention as kernels
from estimators.analytic.shadow.ops import Gradients, add, cast, dropout, like, matmul, scale, softmax
from estimators.analytic.shadow.tape import Dims, Tensor, record

BIAS: Dims = ("n", "s", "s")
PADDED: Dims = ("n", "s", "s16")


def bias_mask(bias: Tensor, mask: Tensor | None, *, causal: bool, learned: bool, batched: bool) -> Tensor:
    """The additive mask of a layer (transformers' `create_position_bias_mask`): what is forbidden becomes -inf.

    Args:
        bias: of the relative positions, in an order that has to be copied where it is `learned`.
        mask: tokens beside padding, as truth values (b, s, s).
        causal: no token sees those after it.
        learned: the bias comes from an embedding; else it is zeros.
        batched: more than one sequence.
    """
    tape, allowed = bias.tape, mask
    if mask is None and causal:
        allowed = tape.empty(("s", "s"), 1, "causal mask", "inputs")
    out = bias
    if allowed is not None:
        out = _where(allowed, bias, ("b", *BIAS) if mask is not None and batched else BIAS)
    return _contiguous(out) if learned else out


def _where(allowed: Tensor, bias: Tensor, dims: Dims) -> Tensor:
    """`torch.where(allowed, bias, -inf)`: saves the condition."""
    before, wide = bias.dims, dims != bias.dims

    def apply(gradient: Tensor) -> Gradients:
        out = like(gradient, "gradient of the bias")
        return [out.tape.empty(before, out.itemsize, "gradient of the bias summed") if wide else out]

    return record(bias.tape.empty(dims, bias.itemsize, "masked bias"), apply, [bias], [allowed])


def _contiguous(x: Tensor) -> Tensor:
    return record(like(x, "bias contiguous"), lambda gradient: [gradient], [x])


def efficient(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, runs: EfficientKernel, *, batched: bool, aligned: bool
) -> Tensor:
    """The memory-efficient kernel, which has a gradient for its bias; returns (b, s, q)."""
    kernel, sizes, dims, wants = kernels.FUSED["efficient"], (q.itemsize,) * 3, (q.dims, k.dims, v.dims), False
    source = bias
    if bias.requires_grad:
        bias, wants = _spread(bias, batched=batched, aligned=aligned), True
    elif not aligned:
        bias = bias.tape.empty((*bias.dims[:-1], "s16"), bias.itemsize, "bias padded")

    def apply(gradient: Tensor) -> Gradients:
        tape = gradient.tape
        found: Gradients = [
            tape.empty(dim, size, f"attention d{name}") for dim, size, name in zip(dims, sizes, "qkv", strict=True)
        ]
        padded = tape.empty(("b", *PADDED), gradient.itemsize, "gradient of the bias").as_view() if wants else None
        scratch = kernels.efficient_scratch(gradient, runs)  # noqa: F841 alive beside the gradients
        return [*found, padded]

    tape = q.tape
    out = tape.empty(("b", "s", "q"), q.itemsize, "attention output")
    extras = [tape.empty(kernel.logsumexp, 4, "log-sum-exp")]
    extras += [tape.empty((str(count),), kernels.SEED_BYTES, "random state") for count in kernel.seed_elements]
    del source
    kernels.sum_output(tape, runs)
    return record(out, apply, [q, k, v, bias], [q, k, v, out, bias, *extras])


def _spread(bias: Tensor, *, batched: bool, aligned: bool) -> Tensor:
    """Rows padded to 16 elements, then a view for every sequence, whose gradients are summed."""
    dims = bias.dims
    if not aligned:
        padded = record(
            bias.tape.empty((*dims[:-1], "s16"), bias.itemsize, "bias padded"),
            lambda gradient: [gradient.tape.empty(dims, gradient.itemsize, "gradient without padding")],
            [bias],
        )
        bias = _slice(padded)
    if not batched or dims[0] == "b":
        return bias
    view = bias.view(*bias.dims)
    view.node = None
    return record(
        view, lambda gradient: [gradient.tape.empty(dims, gradient.itemsize, "gradient summed over sequences")], [bias]
    )


def _slice(padded: Tensor) -> Tensor:
    """The elements before the padding: a view, whose gradient comes back as zeros around it."""
    dims = padded.dims
    view = padded.view(*dims)
    view.node = None
    return record(view, lambda gradient: [gradient.tape.empty(dims, gradient.itemsize, "gradient padded")], [padded])


def eager(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    *,
    batched: bool,
    probability: float,
    autocast: int,
) -> tuple[Tensor, Tensor]:
    """T5's own `eager_attention_forward`: (b, s, q), and the weights."""
    scores = scale(
        matmul(q, k, kernels.SCORES, "scores", copies=(batched, batched), autocast=autocast), "scores scaled"
    )
    scores = add(scores, bias if batched else bias.view(*kernels.SCORES), "scores with bias")
    if mask is not None:
        scores = add(scores, mask, "scores masked")
    weights = softmax(cast(scores, 4, "scores in fp32") if autocast else scores, "attention probabilities")
    del scores
    weights = dropout(weights, probability, "attention dropout")
    copies = (False, batched)
    values = matmul(weights, v, kernels.HEADS, "values", copies=copies, copies_gradient=batched, autocast=autocast)
    return kernels.contiguous(values), weights
