"""One device's caching allocator, call for call.

Replicates `DeviceCachingAllocator` (c10/cuda/CUDACachingAllocator.cpp, torch 2.13). Every method names the function
whose rules it follows. The two hot methods, `alloc` and `free`, keep their steps in one body: calls are what Python
pays for.
"""

from estimators.allocator.blocks import Block, Pool, expandable_size
from estimators.allocator.holdings import ENDLESS_BYTES
from estimators.allocator.oom import OutOfMemory
from estimators.allocator.release import Releases
from estimators.allocator.settings import MIN_BLOCK_BYTES, SMALL_BYTES
from estimators.allocator.sizes import block_bytes, round_512, segment_bytes
from profiles.errors import InputError

_ROUNDED_CACHE = 65_536


class DeviceAllocator(Releases):
    """Live state of one device's allocator.

    Args:
        settings: how it hands memory out.
        capacity_bytes: what the driver can give this process for segments; None is without end (16 TiB).
        total_bytes: the card's total memory: what a memory fraction is a share of, and 8/9 of an expandable range.
            Defaults to `capacity_bytes`.

    Raises:
        InputError: the settings choose a backend that is not replicated, or a fraction of an unknown total.
    """

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

    def record_stream(self, ident: object, stream: int) -> None:
        """Another stream uses a block (`recordStream`); its own stream does not count."""
        block = self.blocks.get(ident)
        if block is not None and stream != block.pool.stream:
            block.uses = True

    # ---- the pool of a request, and what may be taken from it --------------------------------------------------

    def _round(self, requested: int) -> tuple[int, bool, int]:
        if not 0 <= requested < ENDLESS_BYTES * 2:
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
            if larger is None or expandable_size(larger) >= expandable_size(block):
                break
            block = larger
        return block

    @staticmethod
    def _skip_expandable(pool: Pool, block: Block) -> Block | None:
        found: Block | None = block
        while found is not None and found.range is not None:
            found = pool.after(found)
        return found

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
