"""Scratch of torch's memory-efficient attention kernel (CUTLASS), known before it runs.

A kernel is compiled for several block sizes, and the first of a list that takes the call is launched
(native/transformers/cuda/attention_backward.cu, `_efficient_attention_backward`; mem_eff_attention/kernels/cutlassB.h,
whose lists mem_eff_attention/kernels/generate_kernels.py writes): one for heads as wide, with dropout where there is
dropout, whose shared memory the card has. Its backward sums gradients in fp32 in a workspace
(mem_eff_attention/kernel_backward.h, `Params::workspace_size`): the queries' for every block of them, in as many pieces
as a block of keys is wide; and where half-precision outputs do not fit into registers, the keys' and the values'. fp32
outputs are their own sums. `delta` (b, n, s) is the kernel's own where inputs are halves, but for wide heads on a V100;
else torch takes it from the product of output and gradient, in fp32.

The forward keeps unfinished outputs of half-precision heads wider than 128 in fp32 (kernel_forward.h,
`kNeedsOutputAccumulatorBuffer`).
"""

from functools import lru_cache
from typing import NamedTuple

from estimators.analytic.cards import CardTraits

VOLTA = 7.0
TURING = 7.5
AMPERE = 8.0
MOST_BLOCKS_WITH_SUMS = 200
"""Sequences times heads times splits of the keys, where sums for keys and values are kept in the workspace."""
ENOUGH_BLOCKS = 256
ANY = 1 << 16
"""The widest heads of a kernel that takes all."""
_WIDTHS = (32, 64, 128, ANY)
_STATE_ELEMENTS = 4
"""A lock, a counter and padding before each piece of the queries' sums (`GradQTempStorage`), in 4 bytes each."""
_SHARED_BYTES = {
    (128, 128, 128): 162304,
    (128, 64, 96): 91648,
    (128, 64, 128, "fp32"): 121344,
    (128, 64, ANY, "fp32"): 121344,
}
"""The most shared memory of a backward kernel, by rows, columns and widest head: sizeof(SharedStorage), as a compiler
says it of torch 2.13's headers, bf16 and fp16, with and without dropout. Kernels of halves that are not named take at
most 60,928, those of fp32 at most 67,840, which every card has that compiles them."""


class EfficientKernel(NamedTuple):
    """The kernels that run, forward and backward."""

    queries: int = 64
    """Rows of a backward block."""
    keys: int = 64
    """Its columns."""
    sums_queries: bool = True
    """Gradients of queries are summed in the workspace."""
    sums_keys: bool = False
    """Those of keys and values, too."""
    computes_delta: bool = True
    """The backward kernel itself."""
    splits_keys: bool = True
    """Several blocks may share a query block's keys."""
    sums_output: bool = False
    """The forward keeps unfinished outputs in fp32."""


@lru_cache(maxsize=256)
def efficient_kernel(card: CardTraits, itemsize: int, width: int, dropout: float = 0.0) -> EfficientKernel:
    """What runs on a card.

    Args:
        card: the card.
        itemsize: bytes per element of queries, keys and values.
        width: of the heads, those of values included.
        dropout: on attention weights.
    """
    half = itemsize == 2
    if card.rocm:  # AOTriton keeps `delta` alone
        return EfficientKernel(sums_queries=False)
    queries, keys, widest = _blocks(card, half, width, with_dropout=dropout > 0)
    in_registers = half and widest <= queries
    volta = VOLTA <= card.capability < TURING
    return EfficientKernel(
        queries=queries,
        keys=keys,
        sums_queries=half or card.capability >= VOLTA,
        sums_keys=half and not in_registers,
        computes_delta=half and (in_registers or not volta),
        splits_keys=card.capability >= VOLTA,
        sums_output=half and width > _WIDTHS[-2],
    )


def _blocks(card: CardTraits, half: bool, width: int, *, with_dropout: bool) -> tuple[int, int, int]:
    """Rows and columns of a block, and the widest heads of the kernel that is launched."""
    widest = next(most for most in _WIDTHS if width <= most)
    if widest <= 64:
        return 64, 64, widest
    if half and card.capability in (8.6, 8.9) and width <= 96 and not with_dropout:
        return 128, 64, 96
    large = card.capability >= AMPERE or (half and card.capability >= VOLTA)
    rows, columns = 128, 128 if half and card.capability >= AMPERE and widest == 128 else 64
    key = (rows, columns, widest) if half else (rows, columns, widest, "fp32")
    if large and _SHARED_BYTES.get(key, 0) <= card.shared_bytes:
        return rows, columns, widest
    return 64, 64, widest


def workspace_elements(kernel: EfficientKernel, batch: int, heads: int, tokens: int, width: int) -> int:
    """Elements of the backward's workspace, 4 bytes each.

    Args:
        kernel: what runs.
        batch: sequences.
        heads: of the queries; keys and values have as many.
        tokens: of a sequence, queries and keys alike.
        width: of a head.
    """
    elements = 0
    if kernel.sums_keys:
        elements = 2 * _splits(kernel, batch, heads, tokens) * kernel.keys * _up(width, kernel.queries)
    if kernel.sums_queries:
        pieces = -(-tokens // kernel.queries) * -(-width // kernel.keys)
        elements += pieces * (_STATE_ELEMENTS + kernel.queries * kernel.keys)
    return batch * heads * _up(elements, 4)


def _splits(kernel: EfficientKernel, batch: int, heads: int, tokens: int) -> int:
    splits = -(-tokens // kernel.keys)
    if batch * heads >= ENOUGH_BLOCKS and tokens <= 2 * kernel.keys:
        splits = 1
    if kernel.sums_keys:
        splits = min(splits, MOST_BLOCKS_WITH_SUMS // (batch * heads))
    return max(splits, 1) if kernel.splits_keys else 1


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
