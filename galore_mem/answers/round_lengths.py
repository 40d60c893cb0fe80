"""Lengths of sequences that a search tries: in steps of less than two percent, as people and kernels like them."""

from profiles.shapes import ModelShape

LEAST = 256
"""Tokens: who asks for long sequences is not served by shorter ones, whatever trains on them."""
_BITS = 7
"""Between a power of two and the next lie 64 lengths."""


def step_of(length: int) -> int:
    """From a length to the next.

    >>> step_of(100), step_of(1024), step_of(30_000)
    (1, 16, 256)
    """
    return 1 << max(length.bit_length() - _BITS, 0)


def round_length(length: int) -> int:
    """The longest of them that is not longer.

    >>> round_length(100), round_length(1635), round_length(28175)
    (100, 1632, 28160)
    """
    return length - length % step_of(length)


def least_length(model: ModelShape) -> int:
    """The shortest length that a search tries: shorter only for a model of fewer positions."""
    return min(LEAST, model.max_position_embeddings)
