"""A caching allocator as plain as it can be written: lists, linear scans, nothing cached, nothing incremental.

It shares no code with the replica and states the same published rules another way, so that two mistakes would have to
agree.
"""

from dataclasses import dataclass, field

from estimators.allocator.settings import AllocatorSettings

KIB, MIB = 1 << 10, 1 << 20
ENDLESS = 1 << 44
PoolKey = tuple[bool, int, int]


@dataclass(eq=False)
class Piece:
    """A stretch of a segment."""

    size: int
    state: str = "free"  # free, used, waiting, unmapped
    ident: object = None
    requested: int = 0
    shared: bool = False
    cached_at: int = 0


@dataclass(eq=False)
class Slab:
    """A segment, or a reserved range of addresses."""

    address: int
    pool: PoolKey
    page: int  # 0: from cudaMalloc
    pieces: list[Piece] = field(default_factory=list)

    def offset(self, piece: Piece) -> int:
        total = 0
        for other in self.pieces:
            if other is piece:
                return total
            total += other.size
        raise AssertionError("not in this slab")


class Oracle:
    def __init__(self, settings: AllocatorSettings, capacity: int | None, total: int | None = None) -> None:
        self.settings = settings
        total = capacity if total is None else total
        self.capacity = ENDLESS if capacity is None else capacity
        self.total = ENDLESS if total is None else total
        fraction = settings.per_process_memory_fraction
        self.allowed = int(fraction * self.total) if fraction < 1 else None
        self.slabs: list[Slab] = []
        self.next_address = 0
        self.clock = 0
        self.waiting: list[object] = []

    # sums, from scratch every time
    def pieces(self) -> list[tuple[Slab, Piece]]:
        return [(slab, piece) for slab in self.slabs for piece in slab.pieces]

    @property
    def reserved(self) -> int:
        return sum(piece.size for _, piece in self.pieces() if piece.state != "unmapped")

    @property
    def allocated(self) -> int:
        return sum(piece.size for _, piece in self.pieces() if piece.state == "used")

    @property
    def active(self) -> int:
        return sum(piece.size for _, piece in self.pieces() if piece.state in ("used", "waiting"))

    @property
    def live(self) -> int:
        return sum(max(1, (piece.requested + 511) // 512) * 512 for _, piece in self.pieces() if piece.state == "used")

    @property
    def inactive_split(self) -> int:
        return sum(
            piece.size
            for slab, piece in self.pieces()
            if piece.state == "free" and not slab.page and len(slab.pieces) > 1
        )

    # sizes
    def rounded(self, request: int) -> int:
        if request < 512:
            return 512
        interval = 0
        while interval < 15 and request >= (2 << interval) * MIB:
            interval += 1
        divisions = self.settings.roundup_power2_divisions[interval]
        if divisions <= 1 or request <= 512 * divisions:
            return (request + 511) // 512 * 512
        floor = 1
        while floor * 2 <= request:
            floor *= 2
        if floor < divisions:
            return request if request == floor else floor * 2
        step = floor // divisions
        size = floor
        while size < request:
            size += step
        return size

    def segment_size(self, size: int) -> int:
        if size <= MIB:
            return 2 * MIB
        if size < 10 * MIB:
            return self.settings.large_segment_size_bytes
        return (size + 2 * MIB - 1) // (2 * MIB) * (2 * MIB)

    # the program's calls
    def alloc(self, ident: object, request: int, stream: int, private: int) -> bool:
        size = self.rounded(request)
        pool = (size <= MIB, stream, private)
        if self.gc_on and pool[0] is False and not private:
            self.clock += 1
        found = self.search(pool, size)
        if found is None:
            found = self.obtain(pool, size)
        if found is None:
            return False
        slab, piece = found
        rest = piece.size - size
        limit = self.settings.max_split_size_bytes
        if pool[0] or self.settings.expandable_segments:
            split = rest >= 512
        else:
            split = rest > MIB and (limit is None or size < limit)
        if split:
            at = slab.pieces.index(piece)
            slab.pieces.insert(at + 1, Piece(rest, cached_at=self.clock))
            piece.size = size
        piece.state, piece.ident, piece.requested, piece.shared = "used", ident, request, False
        return True

    def locate(self, ident: object) -> tuple[Slab, Piece] | None:
        for slab, piece in self.pieces():
            if piece.state in ("used", "waiting") and piece.ident == ident:
                return slab, piece
        return None

    def free(self, ident: object, *, wait: bool = False) -> None:
        found = self.locate(ident)
        if found is None or found[1].state == "waiting":
            return
        if wait or found[1].shared:
            found[1].state = "waiting"
            self.waiting.append(ident)
        else:
            self.give_back(*found)

    def complete(self, ident: object) -> None:
        if ident in self.waiting:
            self.waiting.remove(ident)
            found = self.locate(ident)
            assert found is not None
            self.give_back(*found)

    def record_stream(self, ident: object, stream: int) -> None:
        found = self.locate(ident)
        if found is not None and found[0].pool[1] != stream:
            found[1].shared = True

    def empty_cache(self) -> None:
        for ident in list(self.waiting):
            self.complete(ident)
        for slab in list(self.slabs):
            if slab.pool[2]:
                continue
            if slab.page:
                self.unmap_pages(slab)
            elif [piece.state for piece in slab.pieces] == ["free"]:
                self.slabs.remove(slab)

    # rules
    @property
    def gc_on(self) -> bool:
        return self.allowed is not None and self.settings.garbage_collection_threshold > 0

    def give_back(self, slab: Slab, piece: Piece) -> None:
        piece.state, piece.ident, piece.requested, piece.shared = "free", None, 0, False
        piece.cached_at = self.clock
        self.merge(slab, piece)

    def merge(self, slab: Slab, piece: Piece) -> None:
        """Melt neighbours of the same state (free, or unmapped) into `piece`."""
        at = slab.pieces.index(piece)
        if at + 1 < len(slab.pieces) and slab.pieces[at + 1].state == piece.state:
            piece.size += slab.pieces.pop(at + 1).size
        if at > 0 and slab.pieces[at - 1].state == piece.state:
            piece.size += slab.pieces.pop(at - 1).size

    def cached(self, pool: PoolKey) -> list[tuple[Slab, Piece]]:
        found = [(slab, piece) for slab, piece in self.pieces() if slab.pool == pool and piece.state == "free"]
        return sorted(found, key=lambda pair: (pair[1].size, pair[0].address + pair[0].offset(pair[1])))

    def can_become(self, slab: Slab, piece: Piece) -> int:
        at = slab.pieces.index(piece) + 1
        grows = at < len(slab.pieces) and slab.pieces[at].state == "unmapped"
        return piece.size + (slab.pieces[at].size if grows else 0)

    def search(self, pool: PoolKey, size: int) -> tuple[Slab, Piece] | None:
        fitting = [pair for pair in self.cached(pool) if pair[1].size >= size]
        if not fitting:
            return None
        choice = 0
        if fitting[0][0].page and self.settings.expandable_segments:
            while (
                fitting[choice][0].page
                and choice + 1 < len(fitting)
                and self.can_become(*fitting[choice + 1]) < self.can_become(*fitting[choice])
            ):
                choice += 1
        elif fitting[0][0].page:
            native = [pair for pair in fitting if not pair[0].page]
            if not native:
                return None
            fitting = native
        limit = self.settings.max_split_size_bytes
        best = fitting[choice]
        if limit is not None:
            if size < limit <= best[1].size:
                return None
            if size >= limit and best[1].size >= size + self.settings.max_non_split_rounding_bytes:
                return None
        return best

    def obtain(self, pool: PoolKey, size: int) -> tuple[Slab, Piece] | None:
        if self.gc_on:
            self.collect()
        found = self.attempt(pool, size)
        if found is None and self.drop_oversize(pool, size):
            found = self.attempt(pool, size)
        if found is None and not pool[2]:
            self.empty_cache()
            found = self.attempt(pool, size)
        return found

    def attempt(self, pool: PoolKey, size: int) -> tuple[Slab, Piece] | None:
        wanted = self.segment_size(size)
        if self.allowed is not None and self.reserved + wanted > self.allowed:
            return None
        if self.settings.expandable_segments:
            return self.grow(pool, size)
        if self.reserved + wanted > self.capacity:
            return None
        slab = Slab(self.next_address, pool, 0, [Piece(wanted)])
        self.next_address += ENDLESS * 4
        self.slabs.append(slab)
        return slab, slab.pieces[0]

    def collect(self) -> None:
        assert self.allowed is not None
        threshold = int(self.settings.garbage_collection_threshold * self.allowed)
        target = self.reserved - threshold
        if target <= 0:
            return
        got, progress = 0, True
        while got < target and progress:
            whole = [
                slab
                for slab in self.slabs
                if not slab.pool[0] and not slab.pool[2] and not slab.page
                if [piece.state for piece in slab.pieces] == ["free"]
            ]
            if not whole:
                return
            ages = [self.clock - slab.pieces[0].cached_at for slab in whole]
            limit = sum(ages) / len(ages)
            progress = False
            for slab, age in zip(whole, ages, strict=True):
                if age >= limit:
                    got += slab.pieces[0].size
                    self.slabs.remove(slab)
                    progress = True

    def drop_oversize(self, pool: PoolKey, size: int) -> bool:
        limit = self.settings.max_split_size_bytes
        if limit is None:
            return False
        wanted = max(size, limit)
        cached = self.cached(pool)
        enough = [pair for pair in cached if pair[1].size >= wanted]
        if enough and not enough[0][0].page:
            self.slabs.remove(enough[0][0])
            return True
        got = 0
        for slab, piece in reversed([pair for pair in cached if pair[1].size < wanted]):
            if got >= wanted or piece.size < limit:
                break
            if not slab.page:
                got += piece.size
                self.slabs.remove(slab)
        return got >= wanted

    # expandable ranges
    def grow(self, pool: PoolKey, size: int) -> tuple[Slab, Piece] | None:
        place = self.place_for(pool, size)
        if place is None:
            page = 2 * MIB if pool[0] else self.settings.large_segment_size_bytes
            total = max(self.total, self.capacity)
            length = (total + total // 8 + page - 1) // page * page
            slab = Slab(self.next_address, pool, page, [Piece(length, "unmapped")])
            self.next_address += ENDLESS * 4
            self.slabs.append(slab)
            place = slab, slab.pieces[0]
        slab, piece = place
        while piece.state == "unmapped" or piece.size < size:
            hole = piece if piece.state == "unmapped" else slab.pieces[slab.pieces.index(piece) + 1]
            have = 0 if hole is piece else piece.size
            wanted = min(size - have, hole.size)
            pages = (wanted + slab.page - 1) // slab.page
            if self.reserved + pages * slab.page > self.capacity:
                return None
            left = hole.size - pages * slab.page
            if left:
                slab.pieces.insert(slab.pieces.index(hole) + 1, Piece(left, "unmapped"))
            hole.size, hole.state, hole.cached_at = pages * slab.page, "free", self.clock
            self.merge(slab, hole)
            piece = hole
        return slab, piece

    def place_for(self, pool: PoolKey, size: int) -> tuple[Slab, Piece] | None:
        for slab in self.slabs:
            if slab.pool != pool or not slab.page:
                continue
            for at, piece in enumerate(slab.pieces):
                if piece.state != "unmapped":
                    continue
                start = at - 1 if at and slab.pieces[at - 1].state == "free" else at
                room = 0
                for other in slab.pieces[start:]:
                    if other.state in ("used", "waiting"):
                        break
                    room += other.size
                if room >= size:
                    return slab, slab.pieces[start]
        return None

    def unmap_pages(self, slab: Slab) -> None:
        fresh: list[Piece] = []
        position, returned = 0, False
        for piece in slab.pieces:
            end = position + piece.size
            first = (position + slab.page - 1) // slab.page * slab.page
            last = end // slab.page * slab.page
            if piece.state == "free" and first < last:
                head, tail, returned = first - position, end - last, True
                fresh += [Piece(head, cached_at=self.clock)] if head else []
                fresh += [Piece(last - first, "unmapped")]
                fresh += [Piece(tail, cached_at=self.clock)] if tail else []
            else:
                fresh.append(piece)
            position = end
        slab.pieces = []
        for piece in fresh:
            if slab.pieces and slab.pieces[-1].state == piece.state == "unmapped":
                slab.pieces[-1].size += piece.size
            else:
                slab.pieces.append(piece)
        if returned and [piece.state for piece in slab.pieces] == ["unmapped"]:
            self.slabs.remove(slab)  # a range that never had a page stays: only what was cached is looked at

    def layout(self) -> list[tuple[PoolKey, bool, list[tuple[int, object, bool]]]]:
        """Every mapped stretch in address order: pool, expandable, and its pieces as (size, name, waiting)."""
        found: list[tuple[PoolKey, bool, list[tuple[int, object, bool]]]] = []
        for slab in sorted(self.slabs, key=lambda slab: slab.address):
            stretch: list[tuple[int, object, bool]] = []
            for piece in [*slab.pieces, Piece(0, "unmapped")]:
                if piece.state != "unmapped":
                    stretch.append((piece.size, piece.ident, piece.state == "waiting"))
                elif stretch:
                    found.append((slab.pool, slab.page > 0, stretch))
                    stretch = []
        return found
