"""One device's caching allocator, call for call.

Replicates `DeviceCachingAllocator` (c10/cuda/CUDACachingAllocator.cpp, torch 2.13). Every method names the function
whose rules it follows. The two hot methods, `alloc` and `free`, keep their steps in one body: calls are what Python
pays for.
"""

from estimators.allocator.addresses import Addresses
from estimators.allocator.blocks import Block, ExpandableRange, Pool
from estimators.allocator.oom import OutOfMemory
from estimators.allocator.settings import MIN_BLOCK_BYTES, SMALL_BYTES, SMALL_SEGMENT_BYTES, AllocatorSettings
from estimators.allocator.sizes import block_bytes, round_512, segment_bytes
from profiles.errors import InputError

_ENDLESS_BYTES = 1 << 44
_ROUNDED_CACHE = 65_536


class DeviceAllocator:
    """Live state of one device's allocator.

    Args:
        settings: how it hands memory out.
        capacity_bytes: what the driver can give this process for segments; None is without end (16 TiB).
        total_bytes: the card's total memory: what a memory fraction is a share of, and 8/9 of an expandable range.
            Defaults to `capacity_bytes`.

    Raises:
        InputError: the settings choose a backend that is not replicated, or a fraction of an unknown total.
    """

    def __init__(
        self, settings: AllocatorSettings, *, capacity_bytes: int | None = None, total_bytes: int | None = None
    ) -> None:
        if settings.backend != "native":
            raise InputError(
                f"backend:{settings.backend} cannot be replayed", "its pool lives in the driver", "leave backend out"
            )
        total_bytes = capacity_bytes if total_bytes is None else total_bytes
        self.settings = settings
        self.capacity_bytes = _ENDLESS_BYTES if capacity_bytes is None else capacity_bytes
        self.total_bytes = _ENDLESS_BYTES if total_bytes is None else total_bytes
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

    # ---- what a program does -------------------------------------------------------------------------------------

    def alloc(self, ident: object, requested: int, stream: int = 0, private_pool: int = 0) -> Block | OutOfMemory:
        """Lend a block of at least `requested` bytes (`malloc`, `alloc_found_block`, `should_split`).

        Returns the block, or, when nothing helped, what the driver's refusal looked like.
        """
        rounded = self._rounded.get(requested)
        if rounded is None:
            rounded = self._round(requested)
        size, is_small, live = rounded
        pool = (self._small if is_small else self._large).get(stream) if not private_pool else None
        if pool is None:
            pool = self._pool(stream, is_small, private_pool)
        if self._ages and not private_pool and not is_small:
            self._searches += 1
        block = pool.best_fit(size)
        if block is not None:
            if block.range is not None or self._max_split is not None:
                block = self._acceptable(pool, block, size)
            if block is not None:
                pool.remove(block)
        if block is None:
            block = self._grow(pool, size)
            if block is None:
                return self._out_of_memory(requested, size, stream)
        remaining = block.size - size
        was_split = block.prev is not None or block.next is not None
        if (
            remaining >= MIN_BLOCK_BYTES
            if is_small or self._expandable
            else remaining > SMALL_BYTES and (self._max_split is None or size < self._max_split)
        ):
            rest = block
            block = Block(pool, rest.address, size, rest.range)
            before = rest.prev
            if before is not None:
                block.prev = before
                before.next = block
            block.next = rest
            rest.prev = block
            rest.address += size
            rest.size = remaining
            if self._ages:
                rest.age_base = self._searches
            pool.insert(rest)
            if rest.range is None:
                self.inactive_split_bytes += -size if was_split else remaining
        elif was_split and block.range is None:
            self.inactive_split_bytes -= block.size
        block.in_use = True
        block.ident = ident
        block.requested = requested
        block.live = live
        size = block.size
        self.blocks[ident] = block
        self.live_bytes += live
        self.requested_bytes += requested
        self.allocated_bytes += size
        self.active_bytes += size
        return block

    def free(self, ident: object) -> None:
        """Give a block back (`free`, `free_block`, `try_merge_blocks`).

        A block that another stream uses only waits: see `record_stream` and `free_completed`. Unknown names are
        ignored, as are second frees: a history that began late frees what it never saw.
        """
        block = self.blocks.get(ident)
        if block is None or block.pending:
            return
        self.live_bytes -= block.live
        self.allocated_bytes -= block.size
        if block.uses:
            self._wait(ident, block)
            return
        del self.blocks[ident]
        self._release_to_pool(block)

    def free_requested(self, ident: object) -> None:
        """Give a block back that other streams still use: it waits for `free_completed`."""
        block = self.blocks.get(ident)
        if block is not None and not block.pending:
            self.live_bytes -= block.live
            self.allocated_bytes -= block.size
            self._wait(ident, block)

    def free_completed(self, ident: object) -> None:
        """The last event of a waiting block was reached (`process_events`); others are left alone."""
        block = self.pending.pop(ident, None)
        if block is not None:
            del self.blocks[ident]
            self._release_to_pool(block)

    def record_stream(self, ident: object, stream: int) -> None:
        """Another stream uses a block (`recordStream`); its own stream does not count."""
        block = self.blocks.get(ident)
        if block is not None and stream != block.pool.stream:
            block.uses = True

    def empty_cache(self) -> None:
        """Return every unsplit cached segment and every whole free page (`release_cached_blocks`)."""
        for ident, block in list(self.pending.items()):
            self._note("free_completed", block.address, block.requested, block.pool.stream)
            self.free_completed(ident)
        for pools in (self._large, self._small):
            for pool in pools.values():
                self._release_blocks(pool)
        for pool in self._private.values():
            if pool.private_id in self.freeable_pools:
                self._release_blocks(pool)

    def release_pool(self, private_pool: int) -> None:
        """No graph uses a private pool any longer: `empty_cache` may return its memory (`releasePool`)."""
        self.freeable_pools.add(private_pool)

    # ---- pools and free blocks -----------------------------------------------------------------------------------

    @property
    def pools(self) -> list[Pool]:
        """Every pool of every stream."""
        return [*self._small.values(), *self._large.values(), *self._private.values()]

    def _round(self, requested: int) -> tuple[int, bool, int]:
        if not 0 <= requested < _ENDLESS_BYTES * 2:
            raise InputError(f"a request of {requested} bytes cannot be replayed", "no allocator is asked for that")
        size = block_bytes(requested, self.settings)
        rounded = (size, size <= SMALL_BYTES, round_512(requested))
        if len(self._rounded) < _ROUNDED_CACHE:
            self._rounded[requested] = rounded
        return rounded

    def _pool(self, stream: int, is_small: bool, private_pool: int) -> Pool:
        """The pool a request is served from (`get_pool`)."""
        if private_pool:
            key = (private_pool, stream, is_small)
            if key not in self._private:
                self._private[key] = Pool(stream, is_small, private_pool)
            return self._private[key]
        return (self._small if is_small else self._large).setdefault(stream, Pool(stream, is_small))

    def _acceptable(self, pool: Pool, block: Block, size: int) -> Block | None:
        """What the best fit becomes under expandable segments and `max_split_size` (`get_free_block`)."""
        found: Block | None = block
        if block.range is not None:
            found = self._least_expandable(pool, block) if self._expandable else self._skip_expandable(pool, block)
        if found is None or self._max_split is None:
            return found
        if size < self._max_split:
            return found if found.size < self._max_split else None
        return found if found.size < size + self.settings.max_non_split_rounding_bytes else None

    @staticmethod
    def _least_expandable(pool: Pool, block: Block) -> Block:
        """An expandable block counts as large as it can grow, so the search goes on while the next can grow less."""
        while block.range is not None:
            larger = pool.after(block)
            if larger is None or _expandable_size(larger) >= _expandable_size(block):
                break
            block = larger
        return block

    @staticmethod
    def _skip_expandable(pool: Pool, block: Block) -> Block | None:
        found: Block | None = block
        while found is not None and found.range is not None:
            found = pool.after(found)
        return found

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

    # ---- growing: the driver, garbage collection, retries --------------------------------------------------------

    def _grow(self, pool: Pool, size: int) -> Block | None:
        """A block from new memory, releasing cached memory when the driver refuses (`malloc`'s retry sequence)."""
        if self._ages:
            self._collect_garbage()
        block = self._new_block(pool, size)
        if block is None and self._release_available(pool, size):
            block = self._new_block(pool, size)
        if block is None and not pool.private_id:  # nothing is released while a graph is captured
            self.empty_cache()
            self.retries += 1
            block = self._new_block(pool, size)
        return block

    def _new_block(self, pool: Pool, size: int) -> Block | None:
        """One attempt (`alloc_block`)."""
        segment_size = segment_bytes(size, self.settings)
        if self.allowed_bytes is not None and self.reserved_bytes + segment_size > self.allowed_bytes:
            return None
        if self._expandable:
            return self._expand(pool, size)
        if not self._driver_has(segment_size):
            return None
        block = Block(pool, self.addresses.take(segment_size), segment_size)
        self.reserved_bytes += segment_size
        self._note("segment_alloc", block.address, segment_size, pool.stream)
        return block

    def _driver_has(self, size: int) -> bool:
        return self.reserved_bytes + size <= self.capacity_bytes

    def _note(self, action: str, address: int, size: int, stream: int) -> None:
        if self.journal is not None:
            self.journal.append((action, address, size, stream))

    def _collect_garbage(self) -> None:
        """Release unsplit large blocks at least as old as the average (`garbage_collect_cached_blocks`)."""
        assert self.allowed_bytes is not None
        threshold = int(self.settings.garbage_collection_threshold * self.allowed_bytes)
        if self.reserved_bytes <= threshold:
            return
        target = self.reserved_bytes - threshold
        unsplit = [block for pool in self._large.values() for block in pool.in_order() if not _is_split(block)]
        total_age = sum(self._searches - block.age_base for block in unsplit)
        count, reclaimed, freed = len(unsplit), 0, True
        releasable = [block for block in unsplit if block.range is None]
        while reclaimed < target and freed and count > 0:
            age_limit = total_age / count
            old = [block for block in releasable if self._searches - block.age_base >= age_limit]
            releasable = [block for block in releasable if self._searches - block.age_base < age_limit]
            freed = bool(old)
            for block in old:
                reclaimed += block.size
                total_age -= self._searches - block.age_base
                count -= 1
                self._release_segment(block)

    def _release_available(self, pool: Pool, size: int) -> bool:
        """Release oversize blocks until the request would fit (`release_available_cached_blocks`)."""
        if self._max_split is None:
            return False
        wanted = max(size, self._max_split)
        found = pool.best_fit(wanted)
        if found is not None and found.range is None:
            self._release_segment(found)
            return True
        released = 0
        candidates = pool.in_order()
        if found is not None:
            candidates = candidates[: candidates.index(found)]
        for block in reversed(candidates):
            if released >= wanted or block.size < self._max_split:
                break
            if block.range is None:
                released += block.size
                self._release_segment(block)
        return released >= wanted

    def _release_blocks(self, pool: Pool) -> None:
        """Return what is whole: unsplit segments, and free pages of expandable ranges (`release_blocks`)."""
        for block in pool.in_order():
            if block.range is not None:
                self._unmap(block)
            elif not _is_split(block):
                self._release_segment(block)

    def _release_segment(self, block: Block) -> None:
        """Give a segment back to the driver (`release_block`)."""
        block.pool.remove(block)
        self.reserved_bytes -= block.size
        if _is_split(block):  # an oversize block may be a part of a segment that was split before the limit was set
            self.inactive_split_bytes -= block.size
            _unlink(block)
        self.addresses.release(block.address, block.size)
        self._note("segment_free", block.address, block.size, block.pool.stream)

    def _out_of_memory(self, requested: int, size: int, stream: int) -> OutOfMemory:
        free_blocks = [block.size for pool in self.pools for block in pool.by_key.values()]
        limit = self.capacity_bytes if self.allowed_bytes is None else min(self.capacity_bytes, self.allowed_bytes)
        return OutOfMemory(
            requested_bytes=requested,
            segment_bytes=segment_bytes(size, self.settings),
            stream=stream,
            limit_bytes=limit,
            allocated_bytes=self.allocated_bytes,
            reserved_bytes=self.reserved_bytes,
            cached_bytes=sum(free_blocks),
            largest_cached_bytes=max(free_blocks, default=0),
        )

    # ---- expandable segments -------------------------------------------------------------------------------------

    def _expand(self, pool: Pool, size: int) -> Block | None:
        """Map pages until a free block is large enough (`try_allocate_expandable_block`)."""
        block = self._expandable_block(pool, size)
        if not block.mapped and not self._map(block, min(block.size, size)):
            return None
        while block.size < size:
            following = block.next
            assert following is not None
            if not self._map(following, min(size - block.size, following.size)):
                return None
            block = following
        pool.remove(block)
        return block

    def _expandable_block(self, pool: Pool, size: int) -> Block:
        """The lowest address with room for the request, free or not mapped yet (`find_expandable_block`)."""
        for address in sorted(pool.unmapped):
            block = pool.unmapped[address]
            if block.prev is not None and not block.prev.in_use:
                block = block.prev
            room, member = 0, block
            while True:
                room += member.size
                following = member.next
                if room >= size:
                    return block
                if following is None or following.in_use:
                    break
                member = following
        return self._reserve_range(pool)

    def _reserve_range(self, pool: Pool) -> Block:
        """Reserve 9/8 of the card's memory as addresses, nothing mapped."""
        page = SMALL_SEGMENT_BYTES if pool.is_small else self.settings.large_segment_size_bytes
        total = max(self.total_bytes, self.capacity_bytes)
        size = -(-(total + total // 8) // page) * page
        address = self.addresses.rising(size)
        block = Block(pool, address, size, ExpandableRange(address, size, page))
        return self._enter_range(block)

    def _enter_range(self, block: Block) -> Block:
        assert block.range is not None
        block.address = block.range.address
        block.mapped = False
        block.pool.unmapped[block.address] = block
        return block

    def _map(self, block: Block, size: int) -> bool:
        """Back the first pages of an unmapped block with memory (`map_block`); False when the driver has none."""
        assert block.range is not None
        page, pool = block.range.page_bytes, block.pool
        mapped = -(-size // page) * page
        if not self._driver_has(mapped):
            return False
        del pool.unmapped[block.address]
        block.mapped = True
        if mapped < block.size:
            rest = Block(pool, block.address + mapped, block.size - mapped, block.range)
            rest.mapped = False
            _link_after(block, rest)
            pool.unmapped[rest.address] = rest
            block.size = mapped
        address = block.address
        self._merge_free(block)
        if self._ages:
            block.age_base = self._searches
        pool.insert(block)
        self.reserved_bytes += mapped
        self._note("segment_map", address, mapped, pool.stream)
        return True

    def _unmap(self, block: Block) -> None:
        """Return the whole pages inside a free block (`unmap_block`); a range with no page left goes too."""
        range_, pool = block.range, block.pool
        assert range_ is not None
        page = range_.page_bytes
        begin = range_.address + -(-(block.address - range_.address) // page) * page
        end = range_.address + (block.address + block.size - range_.address) // page * page
        if begin >= end:
            return
        pool.remove(block)
        if begin > block.address:
            _link_before(block, head := Block(pool, block.address, begin - block.address, range_))
            self._cache(head)
        if end < block.address + block.size:
            _link_after(block, tail := Block(pool, end, block.address + block.size - end, range_))
            self._cache(tail)
        block.address, block.size, block.mapped = begin, end - begin, False
        self._merge_free(block)
        pool.unmapped[block.address] = block
        self.reserved_bytes -= end - begin
        self._note("segment_unmap", begin, end - begin, pool.stream)
        if not _is_split(block):
            del pool.unmapped[block.address]

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
            _unlink(other)


def _is_split(block: Block) -> bool:
    return block.prev is not None or block.next is not None


def _expandable_size(block: Block) -> int:
    following = block.next
    return block.size + (following.size if following is not None and not following.mapped else 0)


def _link_after(block: Block, new: Block) -> None:
    new.prev, new.next = block, block.next
    if block.next is not None:
        block.next.prev = new
    block.next = new


def _link_before(block: Block, new: Block) -> None:
    new.prev, new.next = block.prev, block
    if block.prev is not None:
        block.prev.next = new
    block.prev = new


def _unlink(block: Block) -> None:
    if block.prev is not None:
        block.prev.next = block.next
    if block.next is not None:
        block.next.prev = block.prev
