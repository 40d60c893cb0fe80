"""Giving memory back to the driver: an emptied cache, a retried allocation, garbage collection."""

from estimators.allocator.blocks import Block, Pool, is_split, unlink
from estimators.allocator.expandable import ExpandableSegments


class Releases(ExpandableSegments):
    """What an allocator lets go of."""

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

    def _collect_garbage(self) -> None:
        """Release unsplit large blocks at least as old as the average (`garbage_collect_cached_blocks`)."""
        assert self.allowed_bytes is not None
        threshold = int(self.settings.garbage_collection_threshold * self.allowed_bytes)
        if self.reserved_bytes <= threshold:
            return
        target = self.reserved_bytes - threshold
        unsplit = [block for pool in self._large.values() for block in pool.in_order() if not is_split(block)]
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
            elif not is_split(block):
                self._release_segment(block)

    def _release_segment(self, block: Block) -> None:
        """Give a segment back to the driver (`release_block`)."""
        block.pool.remove(block)
        self.reserved_bytes -= block.size
        if is_split(block):  # an oversize block may be a part of a segment that was split before the limit was set
            self.inactive_split_bytes -= block.size
            unlink(block)
        self.addresses.release(block.address, block.size)
        self._note("segment_free", block.address, block.size, block.pool.stream)
