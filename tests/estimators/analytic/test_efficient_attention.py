"""Scratch of the memory-efficient attention kernel, by hand from its headers."""

import pytest

from estimators.analytic.cards import USUAL, CardTraits, card_of
from estimators.analytic.efficient_attention import EfficientKernel, efficient_kernel, workspace_elements
from profiles.gpus import all_gpus, find_gpu

V100, T4, A100, RTX_4090, H100, RTX_5090, P100 = (
    CardTraits(capability=capability, multiprocessors=1) for capability in (7.0, 7.5, 8.0, 8.9, 9.0, 12.0, 6.0)
)

# Lock, counter and padding, then the sums of a block: sizeof(GradQTempStorage) as nvcc says it.
LARGE, MIDDLE, SMALL = 65552, 32784, 16400


@pytest.mark.parametrize(
    ("card", "itemsize", "width", "nbytes"),
    [
        # Heads of 64: blocks of 64 x 64 for all, one piece for 64 queries; nothing else is summed.
        *[(card, 2, 64, 8 * 32 * SMALL) for card in (V100, T4, A100, RTX_4090, H100, RTX_5090)],
        *[(card, 4, 64, 8 * 32 * SMALL) for card in (V100, T4, A100, RTX_4090, H100)],
        # Heads of 128: 128 x 128 where a block may have 163 KiB; before Ampere two pieces of 64 columns.
        *[(card, 2, 128, 8 * 16 * LARGE) for card in (A100, H100)],
        *[(card, 2, 128, 8 * 16 * 2 * MIDDLE) for card in (V100, T4)],
        # 99 KiB: 64 x 64, and sums for keys and values, too: 200 // 8 = 25 splits of 64 keys each.
        *[(card, 2, 128, 8 * (32 * 2 * SMALL + 2 * 25 * 64 * 128 * 4)) for card in (RTX_4090, RTX_5090)],
        # A kernel for heads of up to 96 on 8.6 and 8.9 only.
        (RTX_4090, 2, 80, 8 * 16 * 2 * MIDDLE),
        (RTX_5090, 2, 80, 8 * (32 * 2 * SMALL + 2 * 25 * 64 * 128 * 4)),
        # Heads of 256: nothing fits into registers; 8 x 16 x 64 columns of sums for 128 queries.
        (A100, 2, 256, 8 * (16 * 4 * MIDDLE + 2 * 25 * 64 * 256 * 4)),
        (V100, 2, 256, 8 * (16 * 4 * MIDDLE + 2 * 25 * 64 * 256 * 4)),
        # fp32 gradients of keys and values are their own sums.
        (A100, 4, 128, 8 * 16 * 2 * MIDDLE),
        (RTX_4090, 4, 128, 8 * 32 * 2 * SMALL),
        (T4, 4, 128, 8 * 32 * 2 * SMALL),
        # Pascal splits no keys: queries' gradients in fp32 are their own sums, and one split of keys is summed.
        (P100, 4, 64, 0),
        (P100, 2, 128, 8 * (32 * 2 * SMALL + 2 * 64 * 128 * 4)),
    ],
)
def test_the_workspace_of_one_sequence_of_eight_heads(card: CardTraits, itemsize: int, width: int, nbytes: int) -> None:
    kernel = efficient_kernel(card, itemsize, width)
    assert 4 * workspace_elements(kernel, 1, 8, 2048, width) == nbytes


def test_dropout_has_no_kernel_for_heads_of_96() -> None:
    assert efficient_kernel(RTX_4090, 2, 96) == EfficientKernel(queries=128, keys=64)
    assert efficient_kernel(RTX_4090, 2, 96, dropout=0.1) == EfficientKernel(sums_keys=True)


@pytest.mark.parametrize(
    ("batch", "tokens", "splits"), [(1, 4096, 25), (1, 640, 10), (4, 4096, 6), (26, 4096, 1), (32, 128, 1), (8, 128, 2)]
)
def test_keys_are_split_less_the_more_sequences_there_are(batch: int, tokens: int, splits: int) -> None:
    """The keys' and values' sums take 200 blocks at most; beyond 256 blocks two of keys are not split (8 heads)."""
    kernel = efficient_kernel(RTX_4090, 2, 128)
    alone = workspace_elements(kernel._replace(sums_keys=False), batch, 8, tokens, 128)
    assert workspace_elements(kernel, batch, 8, tokens, 128) - alone == batch * 8 * splits * 2 * 64 * 128


def test_who_computes_delta() -> None:
    """The kernel itself for halves, but for outputs that a V100 keeps outside of registers; torch for fp32."""
    assert efficient_kernel(A100, 2, 256).computes_delta
    assert efficient_kernel(T4, 2, 256).computes_delta
    assert efficient_kernel(V100, 2, 128).computes_delta
    assert not efficient_kernel(V100, 2, 256).computes_delta
    assert not efficient_kernel(A100, 4, 64).computes_delta


def test_the_forward_keeps_wide_half_outputs_in_fp32() -> None:
    assert efficient_kernel(A100, 2, 136).sums_output
    assert not efficient_kernel(A100, 2, 128).sums_output
    assert not efficient_kernel(A100, 4, 256).sums_output


def test_the_timeline_of_a_100m_model_on_an_a6000() -> None:
    """Five sequences of 256 tokens, ten heads of 64 in fp32 (docs/trace.md): four blocks of queries a head."""
    kernel = efficient_kernel(card_of(find_gpu("a6000")), 4, 64)
    assert 4 * workspace_elements(kernel, 5, 10, 256, 64) == 3_280_000


def test_every_card_is_known() -> None:
    for gpu in all_gpus():
        card = card_of(gpu)
        assert card.multiprocessors == gpu.multiprocessors
        assert card.rocm == (gpu.vendor == "amd")
        if not card.rocm:
            assert card.shared_bytes >= 48 * 1024
            assert card.threads in (1024, 1536, 2048)
    assert card_of(None) is USUAL
    assert card_of(find_gpu("4090")) == USUAL
