"""The cheapest change, or the fewest changes, that make a run fit a card."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from estimators.analytic.estimate import reach
from estimators.verdict import Fit, judge
from estimators.workload import Workload
from galore_mem.answers.changes import Offer, alternatives, cost_of, in_order, offers
from profiles.errors import InputError
from profiles.gpus import Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One or more changes, and what becomes of the run."""

    changes: tuple[str, ...]
    """What to type, in the order of cost."""
    costs: tuple[str, ...]
    workload: Workload
    fit: Fit
    saved_bytes: int
    """How much lower the upper bound is."""

    def to_dict(self) -> dict[str, Any]:
        """An entry of `ways_out` in the JSON output."""
        return {
            "changes": list(self.changes),
            "costs": list(self.costs),
            "saved_bytes": self.saved_bytes,
            "upper_bytes": self.fit.upper_bytes,
            "verdict": self.fit.verdict,
        }


def ways_out(workload: Workload, gpu: Gpu, *, other_use_bytes: int = 0) -> tuple[Way, ...]:
    """Ways to make a run fit: each single change that suffices, cheapest first; if none does, several together.

    Several are found by making, one after another, the cheapest changes that lower the bound; those that turn out not
    to be needed are then left out again.

    Returns:
        Nothing where no change that is known here makes it fit.
    """
    return tuple(_ways(workload, gpu, offers(workload, gpu, fits=False), other_use_bytes))


def first_way_out(workload: Workload, gpu: Gpu, singles: Sequence[Offer], *, other_use_bytes: int = 0) -> Way | None:
    """The first of `ways_out`, without the work for the others.

    Args:
        workload: a run that does not fit.
        gpu: the card.
        singles: `offers` for it.
        other_use_bytes: memory that other processes take.
    """
    return next(_ways(workload, gpu, singles, other_use_bytes), None)


def way_by(offer: Offer, before_bytes: int, gpu: Gpu, *, other_use_bytes: int = 0) -> Way:
    """One change, whether or not it suffices.

    Args:
        offer: the change.
        before_bytes: the upper bound without it.
        gpu: the card.
        other_use_bytes: memory that other processes take.
    """
    return _way((offer.options,), offer.workload, gpu, other_use_bytes, before_bytes)


def _ways(workload: Workload, gpu: Gpu, singles: Sequence[Offer], other_use_bytes: int) -> Iterator[Way]:
    usable = gpu.usable_bytes - other_use_bytes
    start = reach(workload, gpu).upper_bytes
    chosen = [offer for offer in in_order(singles, usable) if offer.upper_bytes <= usable]
    for offer in chosen:
        yield way_by(offer, start, gpu, other_use_bytes=other_use_bytes)
    if not chosen:
        together = _together(workload, gpu, singles, usable)
        if together is not None:
            yield _way(*together, gpu, other_use_bytes, start)


def _together(
    workload: Workload, gpu: Gpu, singles: Sequence[Offer], usable_bytes: int
) -> tuple[tuple[str, ...], Workload] | None:
    """Changes that suffice together, cheapest first and none more than once."""
    made: list[str] = []
    current, offered = workload, singles
    bound = reach(workload, gpu).upper_bytes
    while bound > usable_bytes:
        helpful = [offer for offer in offered if offer.upper_bytes < bound and offer.options not in made]
        if not helpful:
            return None
        cheapest = in_order(helpful, bound)[0]
        current, bound = cheapest.workload, cheapest.upper_bytes
        offered = offers(current, gpu, fits=False) if bound > usable_bytes else ()
        made.append(cheapest.options)
    for options in reversed(made[:-1]):
        fewer = [other for other in made if other != options]
        without = _made(workload, fewer)
        if without is not None and _bound(without, gpu) <= usable_bytes:
            made, current = fewer, without
    return tuple(_last_of_each(made)), current


def _made(workload: Workload, changes: Sequence[str]) -> Workload | None:
    """The workload after these changes; None where one of them is not on offer then."""
    for options in changes:
        found = dict(alternatives(workload, fits=False)).get(options)
        if found is None:
            return None
        workload = found
    return workload


def _bound(workload: Workload, gpu: Gpu) -> float:
    """What the run takes at most; without end where the card cannot run it."""
    try:
        return reach(workload, gpu).upper_bytes
    except InputError:
        return inf


def _last_of_each(changes: Sequence[str]) -> list[str]:
    """Without changes of an option that is changed again later, as `--method` may be."""
    names = [change.split()[0] for change in changes]
    return [
        change
        for number, change in enumerate(changes)
        if names[number] == "no" or names[number] not in names[number + 1 :]
    ]


def _way(changes: Sequence[str], workload: Workload, gpu: Gpu, other_use_bytes: int, start_bytes: int) -> Way:
    fit = judge(workload, gpu, other_use_bytes=other_use_bytes)
    return Way(
        changes=tuple(changes),
        costs=tuple(cost_of(change)[1] for change in changes),
        workload=workload,
        fit=fit,
        saved_bytes=start_bytes - fit.upper_bytes,
    )
