"""What does not fit: the leanest form of each method, and by how much it misses."""

from collections.abc import Iterable, Sequence

from galore_mem.answers.candidates import Option
from galore_mem.answers.looks import Look
from galore_mem.answers.replayed import SPARED, Replays

MOST = 8
"""Methods that are told of."""
TRIES = {False: 2, True: 3}
"""Forms that are replayed, as they may fit after all; where nothing fits also what seems the leanest."""
NEAR = 0.25
"""What misses by a larger share of the card's memory is far from fitting."""


def leanest_misses(
    looks: Iterable[Look], fits_anyhow: set[str], replays: Replays, *, names_leanest: bool
) -> tuple[Option, ...]:
    """The leanest form of each method that fits in none, the nearest first.

    Args:
        looks: what was looked at.
        fits_anyhow: methods of which a form is known to fit.
        replays: those that were made, and may be asked for a few more.
        names_leanest: whether the first is replayed, until no other method can take less.
    """
    methods = _by_method(looks, fits_anyhow, replays)
    for _ in range(TRIES[names_leanest]):
        if not methods:
            break
        rows = sorted((_leanest(options) for options in methods.values()), key=_sure)
        worth = [row for row in rows[:MOST] if not row.is_replayed and replays.may_help(row)]
        open_ones = [row for row in worth if row.least_missing_bytes <= 0 or (names_leanest and row is rows[0])]
        if not open_ones:
            break
        row = open_ones[0]
        name, found = row.form.workload.method.name, replays.either(row)
        options = methods.pop(name)
        if found.missing_bytes > 0:
            methods[name] = [
                found,
                *(option for option in options if option is not row and _may_be_leaner(option, row)),
            ]
    return tuple(sorted((_row(options) for options in methods.values()), key=_told)[:MOST])


def is_near(option: Option) -> bool:
    """Whether it may fit, or misses by little of the card."""
    return option.least_missing_bytes <= 0 or option.told_missing_bytes <= NEAR * option.usable_bytes


def _by_method(looks: Iterable[Look], fits_anyhow: set[str], replays: Replays) -> dict[str, list[Option]]:
    """Every form of the methods that fit in none."""
    methods: dict[str, list[Option]] = {}
    for look in looks:
        for option in look.seen:
            name = option.form.workload.method.name
            if name not in fits_anyhow:
                methods.setdefault(name, []).append(replays.known(option))
    return {name: found for name, found in methods.items() if all(option.missing_bytes > 0 for option in found)}


def _leanest(options: Sequence[Option]) -> Option:
    return min(options, key=_likely)


def _may_be_leaner(option: Option, seen: Option) -> bool:
    """Not where it surely misses, and has no fewer tensors: blocks and segments would have to make up for them."""
    return option.is_replayed or option.least_missing_bytes < max(seen.least_missing_bytes, 1)


def _row(options: Sequence[Option]) -> Option:
    """The form to tell of: that of the smallest bound where one that was not replayed may fit."""
    leanest = _leanest(options)
    return leanest if leanest.surely_missing_bytes > 0 else min(options, key=lambda option: option.missing_bytes)


def _likely(option: Option) -> tuple[int, int]:
    """By how much a form misses, as far as is known; then its bound."""
    spared = 0 if option.is_replayed else int(SPARED[False] * option.reach.loss_bytes)
    return option.missing_bytes - spared, option.reach.upper_bytes


def _sure(option: Option) -> int:
    return option.surely_missing_bytes


def _told(option: Option) -> tuple[int, int]:
    return option.told_missing_bytes, option.reach.upper_bytes
