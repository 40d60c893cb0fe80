"""Options held against the allocator's replica: the best that stays within a card when its history is replayed.

The closed form's bound allows for the worst fragmentation that runs of a kind ever showed, which is mostly too much
and, for kinds that no one has traced, may be too little. Replaying a run's written history says what it reserves: under
default settings, and under expandable segments, whose blocks mostly leave less unused.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import count, groupby
from typing import Any, NamedTuple

from estimators.allocator.settings import EXPANDABLE
from estimators.analytic.estimate import estimate
from estimators.footprint import Footprint
from galore_mem.answers.candidates import Option
from galore_mem.answers.exact import confirmed, confirmed_reach, is_compared
from galore_mem.answers.growing import Free, Size, Sizes, line, sized
from galore_mem.answers.names import Card
from profiles.errors import InputError

Preference = Callable[[Option], tuple[Any, ...]]
"""The order in which options that fit are recommended, smallest first."""
TRIES = 6
"""Sizes of one configuration that are replayed before the largest of those that held is taken."""
SPARED = {False: 0.65, True: 0.87}
"""Of what the closed form's bound allows to be lost between blocks and segments: what is thought to be spared before a
replay tells, by default and under expandable segments."""
LIKELY = {False: 0.5, True: 0.7}
"""The same, of nine histories in ten: what holds with so much spared is replayed before anything leaner is."""
HOLES = 0.8
"""The same: where expandable segments spare less, a sixth of histories, the default settings may well hold more."""
SLACK = 0.15
"""The same: by how much more forms may spare than their likes."""
FAR = 0.08
"""Of what is reserved: where expandable segments miss by more, the default settings are not tried. In none of the
histories that were replayed under both (benchmarks/expandable.jsonl, families.jsonl) did they reserve so much less."""
LITTLE_BYTES = 320 << 20
"""A form that misses by more leaves little hope for leaner ones."""
CLEARLY_BYTES = 64 << 20
"""What is refused by less says nothing of others that take as much: reserved memory does not grow evenly."""
INSIDE = 0.3
"""Of what is left to be searched: how far from its ends it is cut, after the first two tries."""
OPTIMISM = 0.95
"""The same share, at most, by which an option may turn out to be larger than its bound lets it be."""
LEANEST = 3
"""Forms of a method that are replayed, while they miss by little, before none of its forms is said to hold."""
REFUSALS = 4
"""Methods whose leanest form the replica refuses, before only what fits by the closed form is replayed."""


class Growth(NamedTuple):
    """How far an option was grown."""

    most: Option | None
    """The largest that holds of what was tried."""
    wall: Option | None = None
    """What was refused clearly."""
    spared: float = 1.0
    """The least that a refused size spared of what its bound allows to be lost."""


class Replays:
    """Replays on one card, each made once.

    Args:
        card: the card.
        may_expand: whether expandable segments may be taken where the default settings do not fit as much.
    """

    def __init__(self, card: Card, *, may_expand: bool) -> None:
        self._gpu = card.gpu
        self._may_expand = may_expand and card.gpu.vendor == "nvidia"
        self._refused: set[tuple[object, ...]] = set()
        """Methods with their rank and update whose leanest forms do not hold."""
        self._known: dict[tuple[object, ...], Option] = {}
        self._spared: dict[tuple[object, ...], float] = {}
        """By method, rank, update and settings: what was spared last; forms that differ in less do alike."""

    def of(self, option: Option) -> Option:
        """The option by its replay; by the closed form where it has no written history."""
        found = self._known.get(option.key)
        if found is None:
            found = option
            with suppress(InputError):
                reach = confirmed_reach(option.workload, option.form.reaches.of(option.batch), self._gpu)
                found = replace(option, reach=reach, is_replayed=True)
            self._known[option.key] = found
        return found

    def footprint(self, option: Option) -> Footprint:
        """Of an option that was replayed, or that has no written history."""
        footprint = estimate(option.workload, self._gpu)
        return confirmed(option.workload, footprint, self._gpu) if option.is_replayed else footprint

    def either(self, option: Option) -> Option:
        """The option as it is, or under expandable segments where it does not hold and misses by less so."""
        found = self.of(option)
        if found.missing_bytes > 0 and self._can_expand(option):
            return min(found, self.of(_expanded(option)), key=lambda replayed: replayed.missing_bytes)
        return found

    def under_defaults(self, option: Option) -> Option:
        """An option that was chosen under expandable segments, as it would be without them."""
        return self.of(option.form.under("").option(option.batch))

    def _can_expand(self, option: Option) -> bool:
        return self._may_expand and option.least_missing_bytes <= 0 and self.may_help(_expanded(option))

    def known(self, option: Option) -> Option:
        """The option by its replays, the better one, if any was made."""
        made = (self._known.get(other.key) for other in (option, _expanded(option)))
        replayed = (found for found in made if found is not None)
        return min(replayed, key=lambda found: found.missing_bytes, default=option)

    def may_help(self, option: Option) -> bool:
        """Whether a replay could say less than the closed form's bound, which stands for kinds never compared."""
        return is_compared(option.workload, self._gpu)

    def best(
        self, kinds: Iterable[Sequence[Option]], free: Free, preference: Preference, then: Free = None
    ) -> Option | None:
        """The option to prefer among those that hold, each as large as it can be.

        Args:
            kinds: what could fit if nothing were lost between blocks, in the order of preference; options of one group
                lie in one of them.
            free: what of the batch may be chosen.
            preference: the order, which begins with what no batch changes: kind and share.
            then: what else of it, where the model allows no more of the first.
        """
        for options in kinds:
            for _, group in groupby(options, lambda option: preference(option)[:2]):
                alike = list(group)
                found = self._first(alike, free, preference)
                if found is None:
                    continue
                if free is not None and then is not None:
                    limit = Sizes(found, free).limit
                    if getattr(found.batch, free) >= limit:
                        largest = [option.form.option(sized(option.batch, free, limit)) for option in alike]
                        return self._first(largest, then, preference) or found
                return found
        return None

    def _first(self, options: Sequence[Option], free: Free, preference: Preference) -> Option | None:
        """Of options that only differ in what comes later in the order, the best: as large as any may be, first."""
        walls: list[Option] = []
        """What was refused, each in the smallest size that was tried."""
        tried = set[tuple[object, ...]]()
        """Groups of forms of which one was replayed."""
        heap: list[tuple[Any, int, Option, bool, bool]] = []
        """By preference; each option, whether it is below a wall, and whether it was grown and holds."""
        numbers = count()
        forms = {(option.form, option.batch if free is None else None): option for option in options}
        for option in forms.values():
            hoped = self._hoped(option, free)
            if hoped is not None:
                heap.append((preference(hoped), next(numbers), hoped, False, False))
        heapify(heap)
        while heap:
            _, _, option, is_capped, holds = heappop(heap)
            if holds:
                return self._settled(option, free)
            within = self._within(option, walls, free)
            holds = within is not None and within.batch == option.batch
            if holds:
                is_first = option.form.group not in tried
                if not (is_first and self._is_likely(option, free)) and self._is_hopeless(option, options, free):
                    continue
                tried.add(option.form.group)
                grown = self._grown(option, free, is_capped=is_capped)
                within = grown.most
                walls += [grown.wall] if grown.wall is not None else []
            else:
                is_capped = True
            if within is not None:
                heappush(heap, (preference(within), next(numbers), within, is_capped, holds))
        return None

    def _hoped(self, option: Option, free: Free) -> Option | None:
        """The option as large as a replay may show it to fit; None where not even the smallest may."""
        share = OPTIMISM if len(self._refused) < REFUSALS else 0.0
        if free is None:
            worst = option.missing_bytes - int(share * self.may_help(option) * option.reach.loss_bytes)
            return option if worst <= 0 else None
        sizes = Sizes(option, free)
        number = sizes.most(sizes.least, sizes.limit, lambda _: share, getattr(option.batch, free))
        return sizes.option(sizes.down(number)) if number >= sizes.least else None

    @staticmethod
    def _within(option: Option, walls: Sequence[Option], free: Free) -> Option | None:
        """The option below what was refused to others that take no more; None where nothing of it is left."""
        for wall in walls:
            own = option if free is None else option.form.option(sized(option.batch, free, getattr(wall.batch, free)))
            if free is None and own.batch != wall.batch:
                continue
            takes_less = own.reach.upper_bytes < wall.reach.upper_bytes or own.reach.live_bytes < wall.reach.live_bytes
            if takes_less or (free is not None and getattr(option.batch, free) < getattr(wall.batch, free)):
                continue
            if free is None:
                return None
            sizes = Sizes(option, free)
            below = sizes.down(getattr(wall.batch, free) - 1)
            if below < sizes.least:
                return None
            option = sizes.option(below)
        return option

    def _is_hopeless(self, option: Option, options: Sequence[Option], free: Free) -> bool:
        """Whether not even the leanest forms of its method, rank and update hold, in the smallest size."""
        group = option.form.group
        if group not in self._refused:
            smallest = [_smallest(other, free) for other in options if other.form.group == group]
            for other in sorted(smallest, key=_upper)[:LEANEST]:
                if other.missing_bytes <= 0 or self._may_hold(other):
                    return False
                if self.known(other).missing_bytes > LITTLE_BYTES:
                    break
            self._refused.add(group)
        return group in self._refused

    def largest(self, option: Option, free: Free) -> Option | None:
        """The option, with as much of what is free as holds; None where nothing that was tried does."""
        found = self._grown(option, free).most
        return self._settled(found, free) if found is not None else None

    def _grown(self, option: Option, free: Free, *, is_capped: bool = False) -> Growth:
        """The same, maybe under expandable segments though the default ones hold it, or more.

        Args:
            option: the option.
            free: what of its batch may be chosen.
            is_capped: no more of it than there is.
        """
        if free is None:
            is_worth_it = self._is_within(SPARED[False], option) or self._may_hold(option)
            found = self.either(option) if is_worth_it else None
            return Growth(found) if found is not None and found.missing_bytes <= 0 else Growth(None, option)
        cap = getattr(option.batch, free) if is_capped else None
        if not self._can_expand(Sizes(option, free).smallest):
            return self._most(option, free, cap=cap)
        grown = self._most(_expanded(option), free, cap=cap)
        if grown.most is None:
            smallest = _expanded(Sizes(option, free).smallest)
            return grown if _is_far(self.of(smallest)) else self._most(option, free, cap=cap)
        is_close = grown.spared < 1 and grown.wall is None
        if is_close or grown.spared < HOLES:  # the default settings may hold what was refused
            plain = Sizes(option, free).option(getattr(grown.most.batch, free))
            if self._is_within(self._spared.get((option.form.group, ""), 1.0) + SLACK, plain):
                return self._plain(grown.most, free) or grown
        return grown

    def _settled(self, found: Option, free: Free) -> Option:
        """Under the default settings if those hold as much as expandable segments, or more."""
        if free is None or not self._may_expand or not found.workload.allocator_settings:
            return found
        grown = self._plain(found, free)
        return (grown and grown.most) or found

    def _plain(self, found: Option, free: Size) -> Growth | None:
        """Under the default settings, if those hold as much."""
        plain = self.under_defaults(found)
        self._spared[plain.form.group, ""] = Sizes(plain, free).spared(getattr(plain.batch, free), plain)
        return self._most(plain, free, plain) if plain.missing_bytes <= 0 else None

    def _is_likely(self, option: Option, free: Free) -> bool:
        """Whether the option should hold in its smallest size."""
        smallest = _smallest(option, free)
        return self._is_within(LIKELY[self._can_expand(smallest)], smallest)

    def _is_within(self, spared: float, option: Option) -> bool:
        """Whether the option holds if such a share of what its bound allows to be lost is spared."""
        return option.missing_bytes <= spared * self.may_help(option) * option.reach.loss_bytes

    def _may_hold(self, option: Option) -> bool:
        """Whether the option holds under expandable segments, or else as it is."""
        if self._can_expand(option):
            expanded = self.of(_expanded(option))
            if expanded.missing_bytes <= 0 or _is_far(expanded):
                return expanded.missing_bytes <= 0
        return self.of(option).missing_bytes <= 0

    def _most(self, option: Option, free: Size, known: Option | None = None, cap: int | None = None) -> Growth:
        """The same under the option's own settings, never less than what is known to hold."""
        sizes, tries, best = Sizes(option, free), 0, known
        low = getattr(known.batch, free) if known is not None else sizes.least - 1
        high = sizes.down(sizes.most(low + 1, cap or sizes.limit, lambda _: 1.0))
        settings = option.form.workload.allocator_settings
        alike = option.form.group, settings
        spared = self._spared.get(alike, SPARED[bool(settings)])
        if smallest := self._known.get(sizes.smallest.key):
            spared = sizes.spared(sizes.least, smallest)
        number = max(sizes.down(sizes.most(low + 1, high, lambda _: spared)), sizes.up(low + 1))
        held, refused = list[tuple[int, float]](), list[tuple[int, float]]()
        wall: Option | None = None
        least = 1.0
        while sizes.up(low + 1) <= high and (best is None or tries < TRIES):
            found, tries = self.of(sizes.option(number)), tries + 1
            seen = number, sizes.spared(number, found)
            self._spared[alike] = seen[1]
            if found.missing_bytes <= 0:
                best, low, held = found, number, [seen]
            else:
                high, refused, least = sizes.down(number - 1), [seen], min(least, seen[1])
                wall = sizes.option(number) if found.missing_bytes > CLEARLY_BYTES else None
            if low < high:
                number = sizes.most(low + 1, high, line(*held, *refused))
                if tries > 2:  # what replays spare follows no line
                    inside = round(INSIDE * (high - low))
                    number = min(max(number, low + 1 + inside), high - inside)
                number = max(sizes.down(number), sizes.up(low + 1))
        return Growth(best, wall, least)


def _expanded(option: Option) -> Option:
    """The option under expandable segments."""
    return replace(option, form=option.form.under(EXPANDABLE.text))


def _is_far(expanded: Option) -> bool:
    """Whether the default settings will not hold what expandable segments do not."""
    return expanded.missing_bytes > FAR * expanded.reach.reserved_bytes


def _smallest(option: Option, free: Free) -> Option:
    """The least of the option that may be taken."""
    return option if free is None else Sizes(option, free).smallest


def _upper(option: Option) -> int:
    return option.reach.upper_bytes
