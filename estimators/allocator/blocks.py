"""Blocks, and the cached free blocks of one pool and stream.

torch keeps free blocks in a `std::set` ordered by stream, size and address. Here each pool of each stream has sorted
lists of integer keys, one list per quarter of a power of two, so that a list stays short however many blocks are free,
and a bit mask of the lists that are not empty.
"""

from bisect import bisect_left

ADDRESS_BITS = 64
"""A key is `size << ADDRESS_BITS | address`: ordered by size, then by address."""


class ExpandableRange:
    """One reserved range of virtual addresses, mapped page by page (`ExpandableSegment`)."""

    __slots__ = ("address", "page_bytes", "size")

    def __init__(self, address: int, size: int, page_bytes: int) -> None:
        self.address = address
        self.size = size
        self.page_bytes = page_bytes


class Block:
    """A piece of a segment: lent to the program, cached, or (in an expandable range) not mapped yet."""

    __slots__ = (
        "address",
        "age_base",
        "bin",
        "ident",
        "in_use",
        "key",
        "live",
        "mapped",
        "next",
        "pending",
        "pool",
        "prev",
        "range",
        "requested",
        "size",
        "uses",
    )

    prev: "Block | None"
    next: "Block | None"

    def __init__(self, pool: "Pool", address: int, size: int, range_: ExpandableRange | None = None) -> None:
        self.pool = pool
        self.address = address
        self.size = size
        self.range = range_
        self.prev = None
        self.next = None
        self.in_use = False
        self.mapped = True
        self.key = 0
        self.bin = 0
        self.ident: object = None
        self.requested = 0
        self.live = 0
        self.pending = False
        self.uses = False
        self.age_base = 0


_BINS = 64 * 4
"""Four lists (quarters of the interval) for each power of two: `bit_length << 2 | the two bits below the leading
one`."""


class Pool:
    """The cached blocks of one `BlockPool` (small or large, default or private) on one stream."""

    __slots__ = ("bins", "by_key", "is_small", "mask", "private_id", "stream", "unmapped")

    def __init__(self, stream: int, is_small: bool, private_id: int = 0) -> None:
        self.stream = stream
        self.is_small = is_small
        self.private_id = private_id
        self.bins: list[list[int]] = [[] for _ in range(_BINS)]
        self.mask = 0
        self.by_key: dict[int, Block] = {}
        self.unmapped: dict[int, Block] = {}

    def insert(self, block: Block) -> None:
        """Cache a free, mapped block."""
        size = block.size
        bits = size.bit_length()
        block.bin = index = bits << 2 | size >> bits - 3 & 3
        block.key = key = size << ADDRESS_BITS | block.address
        self.by_key[key] = block
        keys = self.bins[index]
        if keys:
            keys.insert(bisect_left(keys, key), key)
        else:
            keys.append(key)
            self.mask |= 1 << index

    def remove(self, block: Block) -> None:
        """Take a cached block out."""
        key = block.key
        del self.by_key[key]
        keys = self.bins[block.bin]
        if len(keys) == 1:
            keys.clear()
            self.mask ^= 1 << block.bin
        else:
            del keys[bisect_left(keys, key)]

    def best_fit(self, size: int) -> Block | None:
        """The smallest block of at least `size` bytes, the lowest address among equals (`lower_bound`)."""
        bits = size.bit_length()
        index = bits << 2 | size >> bits - 3 & 3
        keys = self.bins[index]
        if keys:
            key = size << ADDRESS_BITS
            if keys[-1] >= key:
                return self.by_key[keys[bisect_left(keys, key)]]
        above = self.mask >> index + 1
        if not above:
            return None
        return self.by_key[self.bins[index + (above & -above).bit_length()][0]]

    def after(self, block: Block) -> Block | None:
        """The next larger cached block (equal sizes: the next address)."""
        keys = self.bins[block.bin]
        position = bisect_left(keys, block.key) + 1
        if position < len(keys):
            return self.by_key[keys[position]]
        above = self.mask >> block.bin + 1
        return self.by_key[self.bins[block.bin + (above & -above).bit_length()][0]] if above else None

    def in_order(self) -> list[Block]:
        """Every cached block by size, then address."""
        return [self.by_key[key] for keys in self.bins for key in keys]


def is_split(block: Block) -> bool:
    """Whether a block shares its segment or range."""
    return block.prev is not None or block.next is not None


def expandable_size(block: Block) -> int:
    """Bytes of a block and of the unmapped ones right behind it."""
    following = block.next
    return block.size + (following.size if following is not None and not following.mapped else 0)


def link_after(block: Block, new: Block) -> None:
    """Put a block behind another."""
    new.prev, new.next = block, block.next
    if block.next is not None:
        block.next.prev = new
    block.next = new


def link_before(block: Block, new: Block) -> None:
    """Put a block in front of another."""
    new.prev, new.next = block.prev, block
    if block.prev is not None:
        block.prev.next = new
    block.prev = new


def unlink(block: Block) -> None:
    """Take a block out of its neighbours' chain."""
    if block.prev is not None:
        block.prev.next = block.next
    if block.next is not None:
        block.next.prev = block.prev
