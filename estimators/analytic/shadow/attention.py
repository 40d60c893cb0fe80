"""Attention kernels: what each saves, and what its backward needs."""

from dataclasses import dataclass

from estimators.analytic.efficient_attention import EfficientKernel
from estimators.analytic.shadow.ops import Gradients, add, cast, dropout, matmul, repeat, scale, softmax, tanh
from estimators.analytic.shadow.tape import Dims, Tape, Tensor, record

HEADS: Dims = ("b", "n", "s", "d")
SCORES: Dims = ("b", "n", "s", "s")

SEED_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedKernel:
    """One of torch's fused scaled_dot_product_attention kernels."""

    logsumexp: Dims
    """Dimensions of the fp32 log-sum-exp that is saved."""
    seed_elements: tuple[int, ...] = ()
    """64-bit elements of the random state tensors that are saved even without dropout."""
    grouped: bool = True
    """Takes fewer key and value heads than query heads."""
    scratch: tuple[tuple[Dims, int], ...] = ()
    """Dimensions and item size of backward's scratch."""
    follows_queries: bool = False
    """Its output has the queries' memory order, and where that is head after head it is copied behind the kernel."""
    scratch_by_heads: tuple[tuple[Dims, int], ...] = ()
    """Backward's further scratch in that case."""
    grouped_scratch: tuple[tuple[Dims, int], ...] = ()
    """The same, only where key and value heads are fewer."""


# Sources: aten/src/ATen/native/transformers/cuda/{attention,attention_backward}.cu and flash_attn/flash_api.cpp:
# softmax_lse (b, n, s); rng_state of two elements and a scalar placeholder; backward: softmax_d and dq_accum padded to
# 128 rows, and columns to 32, to 64 beyond 128; dk and dv expanded to all heads under GQA, a contiguous copy of an
# output that is not. Flash (`empty_like`), cuDNN (`alloc_with_matching_layout`) and the CPU's kernel lay their output
# out as the queries are. The memory-efficient kernel pads its log-sum-exp to 32; its scratch depends on the card
# (`estimators.analytic.efficient_attention`). cuDNN saves (b, n, s, 1) statistics; only a GPU knows its workspace.
FUSED: dict[str, FusedKernel] = {
    "flash": FusedKernel(
        logsumexp=("b", "n", "s"),
        seed_elements=(2, 1),
        follows_queries=True,
        scratch_by_heads=((("b", "s", "q"), 0),),
        scratch=((("b", "n", "s128"), 4), (("b", "n", "s128", "d rounded"), 4)),
        grouped_scratch=((("b", "n", "s", "d"), 0), (("b", "n", "s", "d"), 0)),
    ),
    "efficient": FusedKernel(logsumexp=("b", "n", "s32"), seed_elements=(1, 1), grouped=False),
    "cudnn": FusedKernel(
        logsumexp=("b", "n", "s"), seed_elements=(1, 1), follows_queries=True, scratch=((("b", "n", "s"), 4),)
    ),
    "cpu": FusedKernel(logsumexp=("b", "n", "s"), follows_queries=True),
}
"""Kernels by name; `cpu` is what a recording on CPU tensors runs."""


def fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel: FusedKernel,
    *,
    grouped: bool,
    mask: Tensor | None,
    by_heads: bool = False,
    efficient: EfficientKernel | None = None,
    aligned: bool = True,
) -> Tensor:
    """A fused kernel on `q` (b, n, s, d), `k` and `v` (b, g, s, d); returns (b, s, q).

    `by_heads`: queries lie in memory head after head. `efficient`: which of the memory-efficient kernels runs, if one.
    `aligned`: a mask's rows are a multiple of 16 elements.
    """
    needed = kernel.scratch_by_heads if by_heads else ()
    needed += kernel.scratch + (kernel.grouped_scratch if grouped else ())
    sizes, dims = (q.itemsize, k.itemsize, v.itemsize), (q.dims, k.dims, v.dims)

    def apply(gradient: Tensor) -> Gradients:
        tape = gradient.tape
        gradients: Gradients = [
            tape.empty(dim, size, f"attention d{name}") for dim, size, name in zip(dims, sizes, "qkv", strict=True)
        ]
        scratch = [tape.empty(dim, size or gradient.itemsize, "attention backward scratch") for dim, size in needed]
        if efficient is not None:
            scratch += efficient_scratch(gradient, efficient)
        return gradients

    tape = q.tape
    additive = [] if mask is None else [_additive(tape, q.itemsize, padded=efficient is not None and not aligned)]
    out = tape.empty(("b", "s", "q"), q.itemsize, "attention output")
    extras = [*additive, tape.empty(kernel.logsumexp, 4, "log-sum-exp")]
    additive.clear()
    extras += [tape.empty((str(count),), SEED_BYTES, "random state") for count in kernel.seed_elements]
    if efficient is not None:
        sum_output(tape, efficient)
    return record(out, apply, [q, k, v], [q, k, v, out, *extras])


def _additive(tape: Tape, itemsize: int, *, padded: bool) -> Tensor:
    """What a boolean mask becomes in every layer: numbers of the query's dtype.

    The memory-efficient kernel wants rows of a multiple of 16 (native/transformers/attention.cpp,
    `convert_boolean_attn_mask`, then `pad_bias`).
    """
    mask = tape.empty(("b", "s", "s"), itemsize, "additive mask")
    return tape.empty(("b", "s", "s16"), mask.itemsize, "additive mask padded") if padded else mask


def efficient_scratch(gradient: Tensor, kernel: EfficientKernel) -> list[Tensor]:
    """What the memory-efficient kernel's backward holds beside its results: `delta` and its workspace.

    Where torch takes `delta` from the product of output and gradient, all that leads to it is gone when it exists.
    """
    tape = gradient.tape
    made = list[Tensor]()
    if not kernel.computes_delta:
        names = ["output in fp32", "gradient in fp32"] if gradient.itemsize != 4 else []
        made = [tape.empty(("b", "s", "q"), 4, name) for name in (*names, "output times gradient")]
        made.append(tape.empty(("b", "s", "n"), 4, "delta of each token"))
    delta = tape.empty(("b", "n", "s"), 4, "attention backward scratch")
    made.clear()
    workspace = kernel.sums_queries or kernel.sums_keys
    return [delta, *[tape.empty(("attention workspace",), 4, "attention workspace")] * workspace]


def sum_output(tape: Tape, kernel: EfficientKernel) -> None:
    """The memory-efficient kernel's unfinished output, in fp32, while it runs."""
    if kernel.sums_output:
        tape.empty(("b", "s", "q"), 4, "unfinished attention output")


def math(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    grouped: bool,
    batched: bool,
    mask: Tensor | None,
    causal: bool = True,
    probability: float = 0.0,
    foldable: bool = False,
    repeated: bool = False,
    broadcast: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    """`_scaled_dot_product_attention_math` (native/transformers/attention.cpp): in fp32 whatever the inputs are.

    `batched`: more than one sequence, so the operands' memory order cannot be folded without a copy. `causal`: where
    there is no mask, one is made; without either nothing is masked. `foldable`: queries and keys lie in memory head
    after head, so they need no copy. `repeated`: keys and values do, as copies that transformers made. `broadcast`: one
    head of keys and values, which the products spread. `bias`: an additive mask, which may be learned.
    """
    tape, origin = q.tape, q.itemsize
    bias_of_mask = tape.empty(("b", "s", "s"), origin, "additive mask") if mask is not None else None
    q32, k32, v32 = cast(q, 4, "q in fp32"), cast(k, 4, "k in fp32"), cast(v, 4, "v in fp32")
    q_scaled = scale(q32, "q scaled")
    if mask is None and causal:
        bias_of_mask = _causal_bias(tape)  # noqa: F841
    k_used, v_used = k32, v32
    if grouped:
        k_used, v_used = repeat(k32, HEADS, "k repeated"), repeat(v32, HEADS, "v repeated")
    k_scaled = scale(k_used, "k scaled")
    strided, single = batched and not foldable, grouped or repeated or broadcast
    q_factor, k_factor = q_scaled, k_scaled
    if broadcast:
        q_factor = folded(q_scaled, "q folded") if strided else q_scaled
        k_factor = spread(k_scaled, "k spread", copied=batched)
    copies = (strided and not broadcast, strided and not single)
    scores = matmul(q_factor, k_factor, SCORES, "scores", copies=copies)
    del q_factor, k_factor, k_scaled  # temporaries of the expression
    if bias is not None:
        scores = _added(scores, bias, batched=batched)
    weights = softmax(scores, "attention weights")
    _look_for_masked_rows(tape)
    del scores
    weights = dropout(weights, probability, "attention dropout")
    narrow = cast(weights.detach(), origin, "attention weights returned")  # noqa: F841
    if broadcast:
        v_used = spread(v32, "v spread", copied=batched)
    values = matmul(weights, v_used, HEADS, "values", copies=(False, batched and not single), copies_gradient=batched)
    if broadcast:
        del v_used
    return cast(values, origin, "attention output")


def _look_for_masked_rows(tape: Tape) -> None:
    """`_safe_softmax`: which rows are masked as a whole, and the zero that they are filled with in place."""
    masked = tape.empty(SCORES, 1, "masked scores")
    rows = tape.empty(("b", "n", "s"), 1, "masked rows")
    zero = tape.empty((), 4, "zero")
    del zero, rows, masked


def folded(x: Tensor, name: str) -> Tensor:
    """Batch and heads as one dimension: a copy."""
    return record(x.tape.empty(x.dims, x.itemsize, name), lambda gradient: [gradient.detach()], [x])


def spread(x: Tensor, name: str, *, copied: bool) -> Tensor:
    """One head for all as `matmul` broadcasts it: a copy for several sequences, for one a view that repeats itself."""
    if copied:
        return repeat(x, HEADS, name)
    before = x.dims
    out = Tensor(x.storage, HEADS, x.itemsize)
    return record(
        out, lambda gradient: [gradient.tape.empty(before, gradient.itemsize, "gradient summed over query heads")], [x]
    )


def _added(scores: Tensor, bias: Tensor, *, batched: bool) -> Tensor:
    """`scores.add_(bias)`: in place; a bias that all sequences share has their gradients summed."""
    broadcast = {1: bias.dims} if batched and bias.dims[0] != "b" else {}
    return record(scores.detach(), lambda gradient: [gradient, gradient.detach()], [scores, bias], (), broadcast)


def _causal_bias(tape: Tape) -> Tensor:
    ones = tape.empty(("s", "s"), 1, "ones")
    allowed = tape.empty(("s", "s"), 1, "allowed")  # noqa: F841
    del ones
    return tape.empty(("s", "s"), 4, "causal bias")


def eager(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    grouped: bool,
    batched: bool,
    probability: float,
    single_head: bool = False,
    softmax_itemsize: int = 4,
    casts_back: bool = True,
    autocast: int = 0,
    foldable: bool = False,
    capped: bool = False,
) -> tuple[Tensor, Tensor]:
    """Transformers' `eager_attention_forward`: scores, mask, softmax, dropout: (b, s, q); returns the weights too.

    Most families ask for a softmax in fp32 and cast its result back at once; where one does not, autocast runs softmax
    in fp32 all the same, and the matrix product casts.
    """
    if grouped:
        k = repeat(k, HEADS, "k repeated", single=single_head)
        v = repeat(v, HEADS, "v repeated", single=single_head)
    strided = batched and not foldable
    copies = (strided, batched if single_head else strided and not grouped)
    scores = scale(matmul(q, k, SCORES, "scores", copies=copies, autocast=autocast), "scores scaled")
    if capped:
        scores = scale(scores, "scores / cap")
        scores = tanh(scores, "tanh of scores")
        scores = scale(scores, "scores capped")
    if mask is not None:
        scores = add(scores, mask, "scores masked")
    weights = softmax(cast(scores, softmax_itemsize, "scores in fp32"), "attention probabilities")
    if casts_back:
        weights = cast(weights, q.itemsize, "weights")
    del scores  # one statement of theirs: the variable holds the scores until it holds the weights
    weights = dropout(weights, probability, "attention dropout")
    copies = (False, batched and (single_head or not grouped))
    values = matmul(weights, v, HEADS, "values", copies=copies, copies_gradient=batched, autocast=autocast)
    return contiguous(values), weights


def contiguous(x: Tensor) -> Tensor:
    """`transpose(1, 2).contiguous()` of (b, n, s, d)."""
    return record(
        x.tape.empty(("b", "s", "q"), x.itemsize, "attention output contiguous"),
        lambda gradient: [gradient.detach()],
        [x],
    )
