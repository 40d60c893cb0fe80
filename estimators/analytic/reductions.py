"""Scratch of torch's sums over the rows of a matrix that has many.

A sum over tokens leaves a number for each feature: the gradient of a norm's weight, or of a bias. Where each thread
would have 256 rows or more to add, rows are shared out among blocks of threads, which leave partial sums in a buffer of
torch's allocator until the kernel is launched (native/cuda/Reduce.cuh, `setReduceConfig`, and
`ReduceConfig::global_memory_size`: 4 bytes for every output, times the blocks that share its rows, times the numbers
that a block is wide). A counter for each column of blocks, 512 bytes at most, is left out.

How many blocks share the rows depends on how many the card runs at once, so that the buffer is hardly ever larger than
512 bytes for every thread of the card: 101 MB on an RTX 4090, 113 on an A100, 138 on an H100. The timelines of an RTX
A6000 that docs/trace.md tells of show it: 6,553,600 bytes for 1,280 tokens and 640 features.

Sums along rows need no such buffer, or one of a few KB, and are left out.
"""

from functools import lru_cache

from estimators.analytic.cards import CardTraits

SUM_BYTES = 4
"""Halves and fp32 are added up in fp32."""
_MOST_THREADS = 512
_ROWS_A_THREAD = 16, 256
"""The fewest that are worth a thread of another block, and the most that one thread adds."""
_WARPS_WORTH = 16
_ADDRESSABLE_BYTES = 2**31 - 1
"""A longer tensor is reduced in halves (`can_use_32bit_indexing`)."""
_ROCM_FEWEST_ROWS, _ROCM_FEWEST_BLOCKS, _ROCM_WARP = 128, 64, 64


@lru_cache(maxsize=4096)
def column_sum_scratch(card: CardTraits, rows: int, columns: int, itemsize: int, vector: int = 4) -> int:
    """Bytes of the partial sums of a sum over all rows; 0 where no rows are shared out.

    Args:
        card: what runs it.
        rows: numbers to add for each output.
        columns: outputs, which lie side by side.
        itemsize: bytes of a number.
        vector: columns that one thread can read at once: how far starts and strides are multiples of 2 or 4.
    """
    while rows > 1 and rows * columns * itemsize > _ADDRESSABLE_BYTES:
        rows = -(-rows // 2)
    while columns % vector:
        vector //= 2
    most, warp = _MOST_THREADS // vector, _ROCM_WARP if card.rocm else 32
    across, down = (min(_power_of_two(size), most) for size in (columns // vector, rows))
    width = min(across, warp)
    height = min(down, most // width)
    width = min(across, most // height)
    left = rows
    if left < min(height * _WARPS_WORTH, _ROWS_A_THREAD[1]):
        return 0
    left = -(-rows // height)
    grid = -(-(columns // vector) // width)
    wanted = card.multiprocessors * (card.threads // (width * height))
    if left < _ROWS_A_THREAD[1] or grid > wanted:
        return 0
    fewest = _ROCM_FEWEST_ROWS if card.rocm else _ROWS_A_THREAD[0]
    blocks = max(min(-(-wanted // grid), -(-left // fewest)), -(-left // _ROWS_A_THREAD[1]))
    if blocks == 1:
        return 0
    if card.rocm:
        blocks = max(blocks, _ROCM_FEWEST_BLOCKS)
    return SUM_BYTES * columns * blocks * width * vector


def _power_of_two(value: int) -> int:
    """The largest one that is not above."""
    return 1 << (value.bit_length() - 1)
