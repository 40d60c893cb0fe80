"""How much memory an allocator may take from the driver, on a card of the catalogue or on the one of a recording."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from galore_mem.answers.names import Card
from profiles.gpus import all_gpus, find_gpu

if TYPE_CHECKING:
    from galore_mem.tapes.tape import DeviceTape


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit to replay under."""

    name: str
    capacity_bytes: int
    """What the driver can give for segments."""
    total_bytes: int
    reason: str
    """Where the capacity comes from."""


def limit_of(card: Card) -> Limit:
    """What a card leaves for the allocator: usable memory minus others' use and the most a CUDA context takes."""
    gpu = card.gpu
    return Limit(
        name=gpu.name,
        capacity_bytes=max(0, gpu.usable_bytes - card.other_use_bytes - gpu.context_high_bytes),
        total_bytes=gpu.usable_bytes,
        reason="usable memory minus the largest CUDA context seen" + (", and others' use" * bool(card.other_use_bytes)),
    )


def recorded_limit(tape: "DeviceTape") -> Limit | None:
    """The limit a recording ran into: what was held then and what the driver still had; None if it never did."""
    for mark in tape.marks:
        if mark.kind == "oom" and mark.value is not None and mark.value >= 0:
            capacity = tape.start_reserved_bytes + tape.events.reserved_change_before(mark.row) + mark.value
            return Limit(
                name="its own card",
                capacity_bytes=max(0, capacity),
                total_bytes=tape.total_bytes or max(0, capacity),
                reason="what it held when it ran out, plus what the driver had left",
            )
    return None


def smallest_card(peak_reserved_bytes: int) -> str | None:
    """The smallest desktop or server card (no laptop's, no MIG slice) of the catalogue that a reserved peak fits on."""
    limits = [limit_of(Card(gpu=gpu)) for gpu in all_gpus() if gpu.form not in ("laptop", "MIG")]
    enough = [limit for limit in limits if limit.capacity_bytes >= peak_reserved_bytes]
    return min(enough, key=lambda limit: limit.capacity_bytes).name if enough else None


def next_card(card: Card, missing_bytes: int) -> str | None:
    """The name to type for the smallest card that has `missing_bytes` more than `card`; None where none has."""
    name = smallest_card(limit_of(card).capacity_bytes + missing_bytes)
    return None if name is None else next(iter(find_gpu(name).aliases), name)
