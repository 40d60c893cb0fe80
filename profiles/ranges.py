"""What allocators were seen to hold beyond live tensors: ranges generated from written histories, and replayed ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from profiles import catalogue

SEGMENT_BYTES = 20 << 20
"""One segment of the allocator's large pool: allowed besides every share."""
MIB = 2**20
Attention = Literal["math", "other"]
"""Under a trace, attention by separate products adds its mask out of place, which a real run does not."""
_FILE = "ranges.jsonl"
_EXACT_FILES = {False: "exact.jsonl", True: "exact_expandable.jsonl"}
"""By whether segments are expandable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """How much runs of one class were seen to reserve, at most, beyond the closed form: a sum of shares.

    Reserved memory counts from what the closed form makes of live tensors and of the segments that lasting ones lie in.
    The shares are the least, on average over the runs that were replayed, whose sum none of them exceeds; a margin that
    runs of other models asked for is in them. All of them together grow with a batch as live bytes do.
    """

    update: Literal["whole", "per-layer"]
    implementation: Literal["galore-mem", "galore-torch"]
    """Decompositions of whole matrices, which galore_torch takes, leave other holes."""
    checkpointing: Literal["none", "full"]
    """Forwards that are run again leave holes of their own."""
    rows: int
    """Histories that were replayed."""
    transient_pct: float
    """Of what comes and goes within a step."""
    demand_pct: float
    """Of what sizes of tensors that do not meet would take apart: see `estimators.analytic.demand`."""
    lesser_pct: float
    """Of what comes and goes, or of what stays, whichever is less."""
    states_pct: float
    """Of the optimizer's states, which are born between other tensors."""
    least_mib: float
    """Besides all shares."""
    allocated_pct: float
    """Allocated beyond live tensors, the largest seen: of the live peak."""
    source: str

    def beyond_bytes(self, live_bytes: int, lasting_bytes: int, states_bytes: int, demand_bytes: int) -> int:
        """Most bytes reserved beyond the closed form's.

        Args:
            live_bytes: the live peak.
            lasting_bytes: weights, buffers and states.
            states_bytes: of these, states.
            demand_bytes: the run's demand, which is above its live peak, or counts as much.
        """
        transient = max(live_bytes - lasting_bytes, 0)
        shares = self.transient_pct * transient + self.lesser_pct * min(transient, lasting_bytes)
        shares += self.demand_pct * max(demand_bytes - live_bytes, 0) + self.states_pct * states_bytes
        return int(shares / 100 + self.least_mib * MIB)


@lru_cache(maxsize=64)
def range_for(update: str, implementation: str, checkpointing: str) -> Range:
    """The catalogue's range of a class of workloads."""
    wanted = (update, implementation, checkpointing)
    found = (row for row in catalogue.read_rows(_FILE) if _class_of(row) == wanted)
    return Range(**next(found))


def _class_of(row: catalogue.Row) -> tuple[str, str, str]:
    return row["update"], row["implementation"], row["checkpointing"]


class Kind(NamedTuple):
    """What of a run decides whether its like was compared."""

    family: str
    method: str
    update: str
    implementation: str
    precision: str
    checkpointing: str
    kernel: str
    """The attention kernel that runs."""
    accumulates: bool
    """Several micro-batches make a step."""
    chunked_tokens: int = 0
    """Of a micro-batch under chunked loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How near reserved memory of one family's histories, written from the closed form, came to that of traced ones."""

    family: str
    attention: Attention
    rows: int
    """Runs that were compared."""
    median_pct: float
    """Of the sizes of differences."""
    shortfall_pct: float
    """The most that one was below."""
    excess_pct: float
    """The most that one was above."""
    methods: tuple[str, ...]
    updates: tuple[str, ...]
    implementations: tuple[str, ...]
    precisions: tuple[str, ...]
    """`amp` whichever half precision it computes in: both take as much."""
    checkpointing: tuple[str, ...]
    kernels: tuple[str, ...]
    accumulates: tuple[bool, ...]
    chunked_tokens: int
    """Most tokens of a micro-batch under chunked loss."""
    source: str

    def covers(self, kind: Kind) -> bool:
        """Whether each trait of a run was among those compared, though not all in one run."""
        return (
            kind.method in self.methods
            and kind.update in self.updates
            and kind.implementation in self.implementations
            and kind.precision.partition("-")[0] in self.precisions
            and kind.checkpointing in self.checkpointing
            and kind.kernel in self.kernels
            and kind.accumulates in self.accumulates
            and kind.chunked_tokens <= self.chunked_tokens
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exactness:
    """The same of all families under an attention kernel: what bounds are made of."""

    rows: int
    shortfall_pct: float
    excess_pct: float
    families: Mapping[str, Compared]

    def covers(self, kind: Kind) -> bool:
        """Whether runs of this kind were compared."""
        found = self.families.get(kind.family)
        return found is not None and found.covers(kind)


@lru_cache(maxsize=4)
def _exactness(attention: Attention, is_expandable: bool) -> Exactness:
    rows = [_compared(row) for row in catalogue.read_rows(_EXACT_FILES[is_expandable]) if row["attention"] == attention]
    return Exactness(
        rows=sum(row.rows for row in rows),
        shortfall_pct=max(row.shortfall_pct for row in rows),
        excess_pct=max(row.excess_pct for row in rows),
        families={row.family: row for row in rows},
    )


def exactness(kernel: str = "flash", *, is_expandable: bool = False) -> Exactness:
    """What was seen of runs under an attention kernel.

    Args:
        kernel: as `estimators.analytic.attention.attention_kernel` names it.
        is_expandable: replayed under expandable segments; else under the allocator's default settings.
    """
    return _exactness("math" if kernel == "math" else "other", is_expandable)


def _compared(row: catalogue.Row) -> Compared:
    fields: catalogue.Row = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return Compared(**fields)
