"""What allocators were seen to hold beyond live tensors: ranges generated from traced and written histories."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from profiles import catalogue

GIB = 2**30
SEGMENT_BYTES = 20 << 20
"""One segment of the allocator's large pool: allowed besides every share."""
EDGES_BYTES = (2 * GIB, 16 * GIB)
"""Between the classes of live peaks: the larger tensors are, the better blocks fit."""
_FILE = "ranges.jsonl"
_ADAPTER_FILE = "adapter_ranges.jsonl"
_BESIDE_FROZEN = ("adapters", "quantised")
_EXACT_FILE = "exact.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The largest shares seen in one class of workloads.

    Reserved memory counts from what the closed form makes of live tensors and of the segments that lasting ones lie in.
    """

    update: Literal["whole", "per-layer"]
    implementation: Literal["galore-mem", "galore-torch"]
    """Decompositions of whole matrices, which galore_torch takes, leave other holes."""
    optimizer: Literal["adafactor", "adapters", "quantised", "other"]
    """Adafactor makes fp32 copies of whole matrices while it steps: larger than anything else in small models.
    Adapters beside frozen weights bring few gradients and states, so that less comes and goes and a share of it says
    less; weights in four bits are written out one at a time besides."""
    live_class: int
    """Position among the classes of live peaks that `EDGES_BYTES` divides."""
    rows: int
    """Workloads that were traced."""
    transient_pct: int
    """Reserved memory beyond that and one segment: of what comes and goes within a step."""
    live_pct: int
    """The same: of the live peak."""
    allocated_pct: float
    """Allocated beyond live tensors: of the live peak."""
    source: str

    def beyond_bytes(self, live_bytes: int, transient_bytes: int) -> int:
        """Most bytes reserved beyond the closed form's: neither share was ever exceeded."""
        shares = (live_bytes * self.live_pct, max(transient_bytes, 0) * self.transient_pct)
        return SEGMENT_BYTES + min(shares) // 100


def class_of(live_bytes: int) -> int:
    """The class of a live peak."""
    return bisect_left(EDGES_BYTES, live_bytes)


def choose(ranges: Iterable[Range], update: str, implementation: str, optimizer: str, live_class: int) -> Range:
    """The range of a class; of the nearest class of sizes where none of it was traced."""
    kind = update, implementation, optimizer if optimizer in ("adafactor", *_BESIDE_FROZEN) else "other"
    alike = [found for found in ranges if (found.update, found.implementation, found.optimizer) == kind]
    return min(alike, key=lambda found: abs(found.live_class - live_class))


@lru_cache(maxsize=64)
def range_for(update: str, implementation: str, optimizer: str, live_class: int) -> Range:
    """The catalogue's range of a class of workloads."""
    file = _ADAPTER_FILE if optimizer in _BESIDE_FROZEN else _FILE
    return choose(map(_parsed, catalogue.read_rows(file)), update, implementation, optimizer, live_class)


def _parsed(row: catalogue.Row) -> Range:
    return Range(**row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exactness:
    """How near reserved memory of histories written from the closed form came to that of traced ones."""

    attention: Literal["math", "other"]
    """Under a trace, attention by separate products adds its mask out of place, which a real run does not."""
    rows: int
    """Workloads that were compared."""
    median_pct: float
    shortfall_pct: float
    """The most that one was below."""
    excess_pct: float
    """The most that one was above."""
    families: tuple[str, ...]
    """Types of the models among them."""
    methods: tuple[str, ...]
    chunked_tokens: int
    """Most tokens of a micro-batch under chunked loss."""
    source: str

    def covers(self, family: str, method: str, chunked_tokens: int = 0) -> bool:
        """Whether runs of this kind were compared."""
        return family in self.families and method in self.methods and chunked_tokens <= self.chunked_tokens


@lru_cache(maxsize=2)
def exactness(kernel: str = "flash") -> Exactness:
    """What was seen of runs under an attention kernel."""
    wanted = "math" if kernel == "math" else "other"
    (row,) = (row for row in catalogue.read_rows(_EXACT_FILE) if row["attention"] == wanted)
    return Exactness(**row | {"families": tuple(row["families"]), "methods": tuple(row["methods"])})
