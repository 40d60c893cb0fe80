"""Where a history written from the closed form and a traced one part: what is born, and what has died since.

    python benchmarks/history_diff.py phi-2 --layers 3 --seq 256
    python benchmarks/history_diff.py t5-base --precision amp-bf16 --batch 2 --checkpointing full --least 65536

Options are those of `benchmarks/ledger_diff.py`; blocks of fewer bytes than `--least` are left out. What dies between
two births may do so in any order: an allocator merges to the same pieces.
"""

import difflib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.ledger_diff import Comparison, compare, parsed
from estimators.analytic.history import written_history
from estimators.analytic.tensors import rounded
from galore_mem.witness import EMPTY_CACHE, HOST

LEAST_BYTES = 4097
"""Smaller are one-element tensors, and rows of norms of few tokens."""
AROUND = 2
"""Births that are shown before and after a difference."""


class Birth(NamedTuple):
    """A block is made."""

    nbytes: int
    """Rounded."""
    name: str
    died: frozenset[int]
    """Which births' blocks have died since the one before."""


def written(found: Comparison, least_bytes: int) -> list[Birth]:
    """Of the closed form's history, which has no names."""
    history = written_history(found.workload)
    return _births(((code, history.sizes[abs(code)], "") for code in history.codes if code), least_bytes)


def traced(found: Comparison, least_bytes: int) -> list[Birth]:
    """Of the recording."""
    return _births(_recorded(found), least_bytes)


def _recorded(found: Comparison) -> Iterator[tuple[int, int, str]]:
    recording = found.recording
    for begin, end, iteration, window in recording.stretches():
        for code in recording.events[begin:end] if window != EMPTY_CACHE else ():
            life = recording.lives[abs(code) - 1]
            if life.category != HOST:
                yield code, life.nbytes, f"{iteration} {window}: {life.module} {life.operator} ({life.category})"


def _births(events: Iterable[tuple[int, int, str]], least_bytes: int) -> list[Birth]:
    found, numbers, died = list[Birth](), dict[int, int](), set[int]()
    for code, nbytes, name in events:
        if rounded(nbytes) < least_bytes:
            continue
        if code < 0:
            died.add(numbers[-code])
            continue
        numbers[code] = len(found)
        found.append(Birth(rounded(nbytes), name, frozenset(died)))
        died.clear()
    return found


def differences(mine: list[Birth], theirs: list[Birth]) -> Iterator[str]:
    """A diff of births, `-` written and `+` traced; deaths where the same is born, and something else has died."""
    partner: dict[int, int] = {}
    sizes = [[birth.nbytes for birth in side] for side in (mine, theirs)]
    for kind, a, b, c, d in difflib.SequenceMatcher(None, *sizes, autojunk=False).get_opcodes():
        if kind == "equal":
            for number, other in zip(range(a, b), range(c, d), strict=True):
                partner[number] = other
                yield from _deaths({partner.get(dead, -1) for dead in mine[number].died}, theirs, other)
            continue
        yield from map(_line, theirs[max(c - AROUND, 0) : c])
        yield from (f"- {birth.nbytes:16,}" for birth in mine[a:b])
        yield from (_line(birth, "+") for birth in theirs[c:d])
        yield from map(_line, theirs[d : d + AROUND])
        yield ""


def _deaths(dead: set[int], theirs: list[Birth], number: int) -> Iterator[str]:
    """Before a birth that both have; blocks that have no partner were shown when they were made."""
    early, late = dead - theirs[number].died - {-1}, theirs[number].died - dead
    if early:
        yield f"before {_line(theirs[number])}"
        yield from (f"  dead as written {_line(theirs[block], '-')}" for block in sorted(early))
        yield from (f"  dead as traced  {_line(theirs[block], '+')}" for block in sorted(late))


def _line(birth: Birth, sign: str = " ") -> str:
    return f"{sign} {birth.nbytes:16,}  {birth.name}"


def main() -> None:
    """What the command line asks for."""
    workload, options = parsed("where a written history and a traced one part", least=LEAST_BYTES)
    found = compare(workload)
    mine, theirs = (side(found, options["least"]) for side in (written, traced))
    for line in differences(mine, theirs):
        print(line)
    print(f"{len(mine)} blocks written, {len(theirs)} traced")


if __name__ == "__main__":
    main()
