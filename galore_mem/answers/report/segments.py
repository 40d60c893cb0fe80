"""The allocator's segments at one event: what lies where, and what is free between."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from estimators.allocator.layout import PlacedSegment

MOST_PIECES = 6_000
FREE = ""
MIXED = "small blocks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of a segment: one block, free memory, or small neighbours drawn together."""

    nbytes: int
    category: str
    """`FREE`, `MIXED`, or the block's."""
    blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment, or one mapped stretch of an expandable range."""

    nbytes: int
    free_bytes: int
    largest_free_bytes: int
    stream: int
    pool: int
    is_small: bool
    is_expandable: bool
    pieces: tuple[Piece, ...]


def segments_drawn(
    placed: Sequence[PlacedSegment], categories: Mapping[int, str], most_pieces: int = MOST_PIECES
) -> tuple[Segment, ...]:
    """The map, by address.

    Args:
        placed: from the replica.
        categories: of each block, by the Tape's number.
        most_pieces: of more, the smallest are drawn together with their neighbours.
    """
    count = sum(len(segment.blocks) for segment in placed)
    total = sum(segment.size for segment in placed)
    shortest = total // most_pieces if count > most_pieces else 0
    return tuple(_segment(segment, categories, shortest) for segment in placed)


def _segment(segment: PlacedSegment, categories: Mapping[int, str], shortest: int) -> Segment:
    free = [block.size for block in segment.blocks if block.ident is None]
    return Segment(
        nbytes=segment.size,
        free_bytes=sum(free),
        largest_free_bytes=max(free, default=0),
        stream=segment.stream,
        pool=segment.private_pool,
        is_small=segment.is_small,
        is_expandable=segment.is_expandable,
        pieces=tuple(_joined(_pieces(segment, categories), shortest)),
    )


def _pieces(segment: PlacedSegment, categories: Mapping[int, str]) -> Iterable[Piece]:
    for block in segment.blocks:
        if block.ident is None:
            yield Piece(nbytes=block.size, category=FREE, blocks=0)
        else:
            category = categories.get(block.ident, "unattributed") if isinstance(block.ident, int) else "unattributed"
            yield Piece(nbytes=block.size, category=category, blocks=1)


def _joined(pieces: Iterable[Piece], shortest: int) -> Iterable[Piece]:
    """Neighbours of one category become one piece; so do small ones of any, which keep their name if they agree."""
    held: Piece | None = None
    for piece in pieces:
        if held is None:
            held = piece
        elif piece.category == held.category:
            held = _sum(held, piece, held.category)
        elif _join_small(held, piece, shortest):
            held = _sum(held, piece, MIXED)
        else:
            yield held
            held = piece
    if held is not None:
        yield held


def _join_small(held: Piece, piece: Piece, shortest: int) -> bool:
    """Whether two neighbours are too small to be told apart; free memory only where it is tiny."""
    if FREE in (held.category, piece.category):
        return piece.nbytes < shortest // 8 and held.nbytes < shortest
    return max(held.nbytes, piece.nbytes) < shortest


def _sum(one: Piece, other: Piece, category: str) -> Piece:
    return Piece(nbytes=one.nbytes + other.nbytes, category=category, blocks=one.blocks + other.blocks)
