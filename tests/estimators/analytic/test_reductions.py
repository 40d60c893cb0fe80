"""Partial sums of torch's column sums, by hand from Reduce.cuh, and where a step has them."""

import pytest

from estimators.analytic.cards import USUAL, CardTraits, card_of
from estimators.analytic.reductions import column_sum_scratch
from profiles.gpus import find_gpu

A100, H100, T4 = (card_of(find_gpu(name)) for name in ("a100-80gb", "h100", "t4"))


@pytest.mark.parametrize(
    ("card", "rows", "columns", "nbytes"),
    [
        # An RTX A6000's timeline (docs/trace.md). Blocks of 32 x 4 threads, each with 4 columns: 320 rows a thread, so
        # that 20 blocks with 16 rows a thread share a column; 84 x 12 blocks at once would allow for more.
        (card_of(find_gpu("a6000")), 1280, 640, 4 * 640 * 20 * 128),
        # LLaMA-7B, 8 x 2048 tokens: 4,096 rows a thread; as many blocks as the card runs at once, over 32 of columns.
        (A100, 16384, 4096, 4 * 4096 * 54 * 128),
        (USUAL, 16384, 4096, 4 * 4096 * 48 * 128),
        (H100, 16384, 4096, 4 * 4096 * 66 * 128),
        # A T4 runs 320 blocks at once, 10 to a column; but no thread adds more than 256 rows.
        (T4, 16384, 4096, 4 * 4096 * 16 * 128),
        # Below 256 rows a thread each block adds its columns alone.
        (A100, 1020, 4096, 0),
        (A100, 1024, 4096, 4 * 4096 * 16 * 128),
        (T4, 131072, 4096, 4 * 4096 * 128 * 128),
        # More blocks of columns than run at once: none is shared out.
        (CardTraits(capability=8.9, multiprocessors=1), 16384, 4096, 0),
        # Heads of 64: 16 threads wide, 8 high.
        (A100, 2048, 64, 4 * 64 * 16 * 64),
        (A100, 2040, 64, 0),
    ],
)
def test_partial_sums(card: CardTraits, rows: int, columns: int, nbytes: int) -> None:
    assert column_sum_scratch(card, rows, columns, 2) == nbytes


def test_columns_that_are_no_multiple_of_four_are_read_by_fewer() -> None:
    """Two at once: 256 threads, 32 wide and 8 high; 2,048 rows leave 256 to each, and 16 blocks leave 16."""
    assert column_sum_scratch(A100, 2048, 1026, 2) == 4 * 1026 * 16 * 64
    assert column_sum_scratch(A100, 2040, 1026, 2) == 0


def test_what_32_bits_cannot_address_is_summed_in_halves() -> None:
    assert column_sum_scratch(T4, 262144, 4096, 2) == column_sum_scratch(T4, 131072, 4096, 2)


def test_the_trace_sees_columns_as_torch_joins_dimensions() -> None:
    torch = pytest.importorskip("torch")
    from galore_mem.profiler.reductions import inside_sum

    asked: list[tuple[int, ...]] = []

    def scratch(*shape: int) -> int:
        asked.append(shape)
        return 1

    add = torch.ops.aten.sum.dim_IntList
    x = torch.empty(3, 50, 8, dtype=torch.bfloat16)
    assert inside_sum(add, (x, [0, 1], True), scratch) == (1,)
    assert inside_sum(add, (x[..., 1:], [0, 1]), scratch) == (1,)
    assert inside_sum(add, (x[:, :, ::2], [0, 1]), scratch) == (1,)
    assert asked == [(150, 8, 2, 4), (150, 7, 2, 1), (150, 4, 2, 1)]
    assert inside_sum(add, (x, [-1]), scratch) == (), "along rows"
    assert inside_sum(add, (x.transpose(0, 2), [0]), scratch) == (), "along rows in memory"
    assert inside_sum(add, (x, [0, 1, 2]), scratch) == (), "all of them"
    assert inside_sum(torch.ops.aten.mul.Tensor, (x, x), scratch) == ()
