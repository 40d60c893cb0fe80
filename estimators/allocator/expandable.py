"""Expandable segments: ranges of addresses whose pages are mapped and unmapped (CUDACachingAllocator.cpp)."""

from estimators.allocator.blocks import Block, ExpandableRange, Pool, is_split, link_after, link_before
from estimators.allocator.holdings import Holdings
from estimators.allocator.settings import SMALL_SEGMENT_BYTES


class ExpandableSegments(Holdings):
    """Growing and shrinking by pages."""

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
            link_after(block, rest)
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
            link_before(block, head := Block(pool, block.address, begin - block.address, range_))
            self._cache(head)
        if end < block.address + block.size:
            link_after(block, tail := Block(pool, end, block.address + block.size - end, range_))
            self._cache(tail)
        block.address, block.size, block.mapped = begin, end - begin, False
        self._merge_free(block)
        pool.unmapped[block.address] = block
        self.reserved_bytes -= end - begin
        self._note("segment_unmap", begin, end - begin, pool.stream)
        if not is_split(block):
            del pool.unmapped[block.address]
