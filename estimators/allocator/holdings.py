"""What one device's allocator holds: pools, blocks and totals, and the steps that every part of it needs."""

from estimators.allocator.addresses import Addresses
from estimators.allocator.blocks import Block, Pool, unlink
from estimators.allocator.settings import AllocatorSettings
from profiles.errors import InputError

ENDLESS_BYTES = 1 << 44
"""What a device without a capacity has: 16 TiB."""


class Holdings:
    """Live state of one device's allocator; see `estimators.allocator.device.DeviceAllocator`."""

    def __init__(
        self, settings: AllocatorSettings, *, capacity_bytes: int | None = None, total_bytes: int | None = None
    ) -> None:
        if settings.backend != "native":
            raise InputError(
                f"backend:{settings.backend} cannot be replayed", "its pool lives in the driver", "leave backend out"
            )
        total_bytes = capacity_bytes if total_bytes is None else total_bytes
        self.settings = settings
        self.capacity_bytes = ENDLESS_BYTES if capacity_bytes is None else capacity_bytes
        self.total_bytes = ENDLESS_BYTES if total_bytes is None else total_bytes
        self.allowed_bytes: int | None = None
        if settings.per_process_memory_fraction < 1:
            if total_bytes is None:
                raise InputError(
                    "per_process_memory_fraction needs a card", "its total memory is unknown", "name one with --gpu"
                )
            self.allowed_bytes = int(settings.per_process_memory_fraction * total_bytes)
        self.live_bytes = 0
        self.requested_bytes = 0
        self.allocated_bytes = 0
        self.active_bytes = 0
        self.reserved_bytes = 0
        self.inactive_split_bytes = 0
        self.retries = 0
        self.blocks: dict[object, Block] = {}
        """Every block lent to the program or waiting for another stream, by the caller's name for it."""
        self.pending: dict[object, Block] = {}
        """Those of them that were freed while another stream may still use them, oldest first."""
        self.freeable_pools: set[int] = set()
        self.journal: list[tuple[str, int, int, int]] | None = None
        """When a list: (action, address, bytes, stream) of each step the allocator takes itself, in torch's words."""
        self._small: dict[int, Pool] = {}
        self._large: dict[int, Pool] = {}
        self._private: dict[tuple[int, int, bool], Pool] = {}
        self._expandable = settings.expandable_segments
        self._max_split = settings.max_split_size_bytes
        self._ages = bool(settings.garbage_collection_threshold and self.allowed_bytes is not None)
        self._searches = 0
        self.addresses = Addresses()
        self._rounded: dict[int, tuple[int, bool, int]] = {}

    @property
    def pools(self) -> list[Pool]:
        """Every pool of every stream."""
        return [*self._small.values(), *self._large.values(), *self._private.values()]

    def free_completed(self, ident: object) -> None:
        """The last event of a waiting block was reached (`process_events`); others are left alone."""
        block = self.pending.pop(ident, None)
        if block is not None:
            del self.blocks[ident]
            self._release_to_pool(block)

    def _wait(self, ident: object, block: Block) -> None:
        block.pending = True
        self.pending[ident] = block

    def _release_to_pool(self, block: Block) -> None:
        """Merge with free neighbours and cache (`free_block`)."""
        pool = block.pool
        self.active_bytes -= block.size
        self.requested_bytes -= block.requested
        gained = 0
        before = block.prev
        if before is not None and not before.in_use and before.mapped:
            pool.remove(before)
            gained = before.size
            block.address = before.address
            block.size += gained
            block.prev = further = before.prev
            if further is not None:
                further.next = block
        after = block.next
        if after is not None and not after.in_use and after.mapped:
            pool.remove(after)
            gained += after.size
            block.size += after.size
            block.next = further = after.next
            if further is not None:
                further.prev = block
        block.in_use = block.pending = block.uses = False
        block.ident = None
        if self._ages:
            block.age_base = self._searches
        pool.insert(block)
        if block.range is None:
            is_split = block.prev is not None or block.next is not None
            self.inactive_split_bytes += (block.size if is_split else 0) - gained

    def _driver_has(self, size: int) -> bool:
        return self.reserved_bytes + size <= self.capacity_bytes

    def _note(self, action: str, address: int, size: int, stream: int) -> None:
        if self.journal is not None:
            self.journal.append((action, address, size, stream))

    def _cache(self, block: Block) -> None:
        if self._ages:
            block.age_base = self._searches
        block.pool.insert(block)

    def _merge_free(self, block: Block) -> None:
        """Join free neighbours that are mapped like the block itself (`try_merge_blocks`)."""
        for other in (block.prev, block.next):
            if other is None or other.in_use or other.mapped != block.mapped:
                continue
            if other.mapped:
                block.pool.remove(other)
            else:
                del block.pool.unmapped[other.address]
            block.address = min(block.address, other.address)
            block.size += other.size
            unlink(other)
