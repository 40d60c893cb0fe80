"""What an out-of-memory error says about the card: who held what, and why the request failed."""

from dataclasses import dataclass, replace
from typing import Literal

from galore_mem.answers.oom_message import OomMessage
from profiles.gpus import Gpu, all_gpus

Reason = Literal["limit", "others", "fragmentation", "private-pools", "free-was-enough", "run", "outside"]
_UNKNOWN_BYTES = 2**62
"""NVML says 2^64 - 1 where it cannot tell (WSL, some containers)."""
SMALL_SEGMENT_BYTES, LARGE_SEGMENT_BYTES = 2 << 20, 20 << 20
NOTABLE_SHARE = 0.1
"""Of reserved memory: from here on pieces between blocks are worth naming."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A part of the card's memory."""

    name: str
    nbytes: int
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The card at the moment of the error; its holders sum up to its total where the message says enough."""

    total_bytes: int | None
    requested_bytes: int | None
    free_bytes: int | None
    allocated_bytes: int | None
    unallocated_bytes: int | None
    outside_bytes: int | None
    """Of this process, but not of torch's allocator: CUDA context, NCCL, other libraries."""
    others_bytes: int | None
    """Of other processes that the driver named; None where the wording says nothing about them."""
    rest_bytes: int | None
    """What nothing of the above explains."""
    allowed_bytes: int | None
    private_pools_bytes: int | None
    holders: tuple[Holder, ...]
    reasons: tuple[Reason, ...]
    """Why the request failed, the weightiest first."""

    @property
    def short_bytes(self) -> int | None:
        """What the driver lacked."""
        if self.requested_bytes is None or self.free_bytes is None:
            return None
        return max(0, self.requested_bytes - self.free_bytes)

    @property
    def is_last_straw(self) -> bool:
        """The request was for a segment that small tensors share: any one of them would have failed there."""
        return self.requested_bytes in (SMALL_SEGMENT_BYTES, LARGE_SEGMENT_BYTES)


def account_of(message: OomMessage) -> Account:
    """The card as the message describes it."""
    total = message.exact_total_bytes or _bytes(message.total)
    free, allocated, unallocated = map(_bytes, (message.free, message.allocated, message.unallocated))
    own, others = _processes(message)
    reserved = message.reserved_bytes
    outside = max(0, own - reserved) if own is not None and reserved is not None else None
    known = [free, reserved, outside, others]
    rest = None if None in (total, free, reserved) else max(0, total - sum(part or 0 for part in known))  # type: ignore[operator]
    account = Account(
        total_bytes=total,
        requested_bytes=message.exact_requested_bytes or _bytes(message.requested),
        free_bytes=free,
        allocated_bytes=allocated,
        unallocated_bytes=unallocated,
        outside_bytes=outside,
        others_bytes=others,
        rest_bytes=rest,
        allowed_bytes=_bytes(message.allowed),
        private_pools_bytes=_bytes(message.private_pools),
        holders=(),
        reasons=(),
    )
    return replace(account, holders=_holders(account), reasons=_reasons(account, message))


def _bytes(size: object) -> int | None:
    return getattr(size, "nbytes", None)


def _processes(message: OomMessage) -> tuple[int | None, int | None]:
    """Bytes of this process and of all others, each None where it is not known.

    In a container the process does not find its own number among the driver's. Then the only one that holds at least
    what the allocator reserved is taken for it.
    """
    if message.wording != "sentences":
        return None, None
    named = [process.used for process in message.processes if process.used.nbytes < _UNKNOWN_BYTES]
    if message.this_process is not None and message.this_process.nbytes < _UNKNOWN_BYTES:
        return message.this_process.nbytes, sum(size.nbytes for size in named)
    reserved = message.reserved_bytes
    if reserved is None or not named:
        return None, None
    able = [size for size in named if size.nbytes + size.doubt_bytes >= reserved - (10 << 20)]
    if len(able) != 1:
        return None, None
    return able[0].nbytes, sum(size.nbytes for size in named) - able[0].nbytes


def _holders(account: Account) -> tuple[Holder, ...]:
    rows = (
        ("allocated", account.allocated_bytes, "in tensors of this process, each rounded up to its block"),
        ("reserved, unallocated", account.unallocated_bytes, "pieces between them that no request fitted"),
        ("outside torch", account.outside_bytes, "this process's CUDA context, NCCL and other libraries"),
        ("other processes", account.others_bytes, "what the driver counts for others on this card"),
        ("unnamed", account.rest_bytes, _rest_meaning(account)),
        ("free", account.free_bytes, "at the driver, after torch had given back all it could"),
    )
    shown = [row for row in rows if row[1] or row[0] == "free"]
    return tuple(Holder(name=name, nbytes=nbytes or 0, meaning=why) for name, nbytes, why in shown)


def _rest_meaning(account: Account) -> str:
    if account.outside_bytes is None:
        return "this process's CUDA context, and whatever other processes hold: the message does not tell them apart"
    return "a display, or what the driver keeps"


def _reasons(account: Account, message: OomMessage) -> tuple[Reason, ...]:
    if message.wording == "unsized":
        return ("outside",)
    requested, free, short = account.requested_bytes or 0, account.free_bytes or 0, account.short_bytes or 0
    held = account.allocated_bytes or 0
    found: list[Reason] = []
    if account.allowed_bytes is not None and requested <= free:
        found.append("limit")
    if account.others_bytes and account.others_bytes >= short > 0:
        found.append("others")
    pieces = account.unallocated_bytes or 0
    if pieces >= max(requested, 1) or pieces > NOTABLE_SHARE * (held + pieces):
        found.append("fragmentation")
    if account.private_pools_bytes and account.private_pools_bytes > NOTABLE_SHARE * held:
        found.append("private-pools")
    if requested <= free and "limit" not in found:
        found.append("free-was-enough")
    if short:
        found.append("run")
    return tuple(found)


def cards_of(account: Account, doubt_bytes: int) -> tuple[Gpu, ...]:
    """Cards of the catalogue whose memory, as torch was seen to report it, is the message's; nearest first.

    Where no reading matches, those between whose smallest reading and nvidia-smi's total it lies: drivers differ.
    """
    total = account.total_bytes
    if total is None:
        return ()
    exact, near = [], []
    for gpu in all_gpus():
        distance = min((abs(reading - total) for reading in gpu.linux_readings_bytes), default=None)
        if distance is not None and distance <= doubt_bytes + (1 << 20):
            exact.append((distance, gpu))
        elif gpu.usable_bytes - doubt_bytes <= total <= (gpu.total_bytes or gpu.usable_bytes) + doubt_bytes:
            near.append((abs(gpu.usable_bytes - total), gpu))
    found = sorted(exact or near, key=lambda pair: (pair[1].form in ("laptop", "MIG"), pair[0]))
    return tuple(gpu for _, gpu in found)
