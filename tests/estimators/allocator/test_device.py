"""Single rules, each as the torch source states it."""

import pytest

from estimators.allocator.device import DeviceAllocator
from estimators.allocator.layout import PlacedBlock, PlacedSegment
from estimators.allocator.oom import OutOfMemory
from estimators.allocator.parse import parse_settings
from estimators.allocator.replay import Event, fragmentation_at, replay, segments_at
from estimators.allocator.settings import DEFAULTS, MIB, AllocatorSettings
from estimators.allocator.sizes import block_bytes, round_512, segment_bytes
from profiles.errors import InputError


@pytest.mark.parametrize(
    ("request_bytes", "block", "segment"),
    [
        (0, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 1, 10 * MIB, 10 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),
    ],
)
def test_sizes(request_bytes: int, block: int, segment: int) -> None:
    assert block_bytes(request_bytes, DEFAULTS) == block
    assert segment_bytes(block, DEFAULTS) == segment


@pytest.mark.parametrize(
    ("divisions", "request_bytes", "block"),
    [(4, 1200, 1536), (4, 2048, 2048), (4, 2049, 2560), (4, 1200 * MIB, 1280 * MIB), (1, 2049, 2560), (8, 4096, 4096)],
)
def test_roundup_power2(divisions: int, request_bytes: int, block: int) -> None:
    how = AllocatorSettings(roundup_power2_divisions=(divisions,) * 16)
    assert block_bytes(request_bytes, how) == block


def test_a_remainder_of_one_mib_stays_with_its_block() -> None:
    run = replay([("alloc", "a", 19 * MIB, 0, 0)])
    assert run.peak_allocated_bytes == 20 * MIB
    run = replay([("alloc", "a", 9 * MIB, 0, 0), ("alloc", "b", 10 * MIB, 0, 0)])
    assert run.allocator.allocated_bytes == 20 * MIB
    assert run.allocator.live_bytes == 19 * MIB


def test_streams_have_their_own_segments() -> None:
    run = replay([("alloc", 1, 512, 0, 0), ("alloc", 2, 512, 7, 0)])
    assert run.peak_reserved_bytes == 4 * MIB


def test_a_block_another_stream_uses_is_not_reused_before_its_event() -> None:
    events = [
        ("alloc", 1, 20 * MIB, 0, 0),
        ("record_stream", 1, 0, 7, 0),
        ("free", 1, 0, 0, 0),
        ("alloc", 2, 20 * MIB, 0, 0),
        ("free_completed", 1, 0, 0, 0),
        ("alloc", 3, 20 * MIB, 0, 0),
    ]
    run = replay(events)
    assert list(run.series.reserved) == [size * MIB for size in (20, 20, 20, 40, 40, 40)]
    assert run.series.allocated[2] == 0
    assert run.series.active[2] == 20 * MIB


def test_retry_returns_cached_segments_before_giving_up() -> None:
    events = [("alloc", 1, 40 * MIB, 0, 0), ("free", 1, 0, 0, 0), ("alloc", 2, 50 * MIB, 0, 0)]
    run = replay(events, capacity_bytes=64 * MIB)
    assert run.oom is None
    assert run.retries == 1
    assert run.end_reserved_bytes == 50 * MIB


def test_out_of_memory_says_what_was_held_and_free() -> None:
    events = [
        ("alloc", 1, 8 * MIB, 0, 0),
        ("alloc", 2, 4 * MIB, 0, 0),
        ("free", 1, 0, 0, 0),
        ("alloc", 3, 12 * MIB, 0, 0),
    ]
    oom = replay(events, capacity_bytes=30 * MIB).oom
    assert oom is not None
    assert oom.event == 3
    assert oom.requested_bytes == 12 * MIB
    assert oom.reserved_bytes == 20 * MIB
    assert oom.allocated_bytes == 4 * MIB
    assert oom.free_bytes == 10 * MIB
    assert oom.cached_bytes == 16 * MIB
    assert oom.largest_cached_bytes == 8 * MIB
    assert oom.is_fragmentation
    saved = replay(events, parse_settings("expandable_segments:True"), capacity_bytes=40 * MIB)
    assert saved.oom is None


def test_a_recorded_failure_is_tried_again() -> None:
    events = [("alloc", 1, 30 * MIB, 0, 0), ("oom", None, 30 * MIB, 0, 0), ("free", 1, 0, 0, 0)]
    again = replay(events, capacity_bytes=40 * MIB)
    assert again.oom is not None
    assert again.events == 3, "the program went on, and so does the replay"
    assert again.end_reserved_bytes == 30 * MIB
    larger = replay(events, capacity_bytes=80 * MIB)
    assert larger.oom is None
    assert larger.peak_reserved_bytes == 60 * MIB
    assert larger.allocator.live_bytes == 0


def test_oversize_blocks_are_kept_for_oversize_requests() -> None:
    how = parse_settings("max_split_size_mb:32")
    run = replay([("alloc", 1, 64 * MIB, 0, 0), ("free", 1, 0, 0, 0), ("alloc", 2, 8 * MIB, 0, 0)], how)
    assert run.peak_reserved_bytes == 84 * MIB
    run = replay([("alloc", 1, 64 * MIB, 0, 0), ("free", 1, 0, 0, 0), ("alloc", 2, 40 * MIB, 0, 0)], how)
    assert run.peak_reserved_bytes == 104 * MIB
    run = replay([("alloc", 1, 64 * MIB, 0, 0), ("free", 1, 0, 0, 0), ("alloc", 2, 44 * MIB, 0, 0)], how)
    assert run.peak_reserved_bytes == 108 * MIB, "20 MiB more than asked is too much"
    run = replay([("alloc", 1, 50 * MIB, 0, 0), ("free", 1, 0, 0, 0), ("alloc", 2, 32 * MIB, 0, 0)], how)
    assert run.allocator.allocated_bytes == 50 * MIB, "a request as large as the limit is oversize: not split"
    run = replay([("alloc", 1, 64 * MIB, 0, 0), ("free", 1, 0, 0, 0), ("alloc", 2, 46 * MIB, 0, 0)], how)
    assert run.peak_reserved_bytes == 64 * MIB
    assert run.peak_allocated_bytes == 64 * MIB


def test_garbage_collection_returns_the_old_ones() -> None:
    how = parse_settings("garbage_collection_threshold:0.5,per_process_memory_fraction:0.9")
    events = [
        ("alloc", 1, 40 * MIB, 0, 0),
        ("free", 1, 0, 0, 0),
        ("alloc", 2, 50 * MIB, 0, 0),
        ("alloc", 3, 60 * MIB, 0, 0),
    ]
    run = replay(events, how, capacity_bytes=160 * MIB)
    assert list(run.series.reserved) == [40 * MIB, 40 * MIB, 90 * MIB, 110 * MIB]
    without_fraction = replay(events, parse_settings("garbage_collection_threshold:0.5"), capacity_bytes=160 * MIB)
    assert without_fraction.end_reserved_bytes == 150 * MIB


def test_garbage_collection_stops_when_enough_is_back() -> None:
    how = parse_settings("garbage_collection_threshold:0.25,per_process_memory_fraction:0.8")
    events: list[Event] = [("alloc", 1, 40 * MIB, 0, 0), ("free", 1, 0, 0, 0), ("alloc", 2, 50 * MIB, 0, 0)]
    events += [("free", 2, 0, 0, 0), ("alloc", 3, 60 * MIB, 0, 0)]
    run = replay(events, how, capacity_bytes=250 * MIB)
    assert run.end_reserved_bytes == 110 * MIB, "the older 40 MiB were just enough; the younger 50 MiB stay"


def test_small_requests_do_not_age_large_blocks() -> None:
    how = parse_settings("garbage_collection_threshold:0.4,per_process_memory_fraction:0.8")
    events: list[Event] = [("alloc", n, size * MIB, 0, 0) for n, size in enumerate((40, 44, 48))]
    events += [("free", 0, 0, 0, 0), *(("alloc", 10 + n, 512, 0, 0) for n in range(10)), ("alloc", 3, 100 * MIB, 0, 0)]
    events += [("free", 1, 0, 0, 0), ("alloc", 4, 102 * MIB, 0, 0), ("alloc", 5, 102 * MIB, 0, 0), ("free", 2, 0, 0, 0)]
    events += [("alloc", 6, 110 * MIB, 0, 0)]
    run = replay(events, how, capacity_bytes=1250 * MIB)
    assert run.end_reserved_bytes == (48 + 100 + 102 + 102 + 110 + 2) * MIB, "ages 4, 3 and 1: two are above the mean"


def test_only_as_many_oversize_blocks_are_released_as_needed() -> None:
    how = parse_settings("max_split_size_mb:32")
    events: list[Event] = [("alloc", n, size * MIB, 0, 0) for n, size in enumerate((40, 44, 48))]
    events += [("free", n, 0, 0, 0) for n in range(3)] + [("alloc", 3, 90 * MIB, 0, 0)]
    run = replay(events, how, capacity_bytes=135 * MIB)
    assert run.end_reserved_bytes == 130 * MIB, "48 and 44 were enough"
    assert run.retries == 0


@pytest.mark.parametrize(("request_mib", "size_mib"), [(19, 20), (18, 18)])
def test_a_block_of_unknown_size_takes_the_rest_that_is_not_split_off(request_mib: int, size_mib: int) -> None:
    held = PlacedBlock(ident=1, offset=0, size=0, requested=request_mib * MIB)
    segment = PlacedSegment(address=1 << 40, size=20 * MIB, blocks=(held,))
    assert replay([], initial=[segment]).allocator.allocated_bytes == size_mib * MIB


def test_layouts_that_contradict_themselves_are_refused() -> None:
    def segment(address: int, *blocks: tuple[int, int]) -> PlacedSegment:
        placed = (PlacedBlock(ident=n, offset=at, size=size, requested=size) for n, (at, size) in enumerate(blocks))
        return PlacedSegment(address=address, size=20 * MIB, blocks=tuple(placed))

    for layout in (
        [segment(1 << 40), segment((1 << 40) + MIB)],
        [segment(-1)],
        [segment(1 << 40, (0, 8 * MIB), (4 * MIB, 8 * MIB))],
        [segment(1 << 40, (16 * MIB, 8 * MIB))],
        [segment(1 << 40, (0, 8 * MIB)), segment(1 << 41, (0, 8 * MIB))],
        [PlacedSegment(address=1 << 40, size=3 * MIB, is_expandable=True)],
    ):
        with pytest.raises(InputError):
            replay([], initial=layout)


def test_expandable_segments_map_only_what_is_missing() -> None:
    how = parse_settings("expandable_segments:True")
    events = [
        ("alloc", 1, 30 * MIB, 0, 0),
        ("alloc", 2, 30 * MIB, 0, 0),
        ("free", 1, 0, 0, 0),
        ("alloc", 3, 50 * MIB, 0, 0),
        ("free", 2, 0, 0, 0),
        ("empty_cache", None, 0, 0, 0),
    ]
    run = replay(events, how)
    assert list(run.series.reserved) == [size * MIB for size in (40, 60, 60, 120, 120, 60)]
    (segment,) = run.segments
    assert segment.is_expandable
    assert segment.size == 60 * MIB


def test_among_equal_free_stretches_the_lowest_is_lent() -> None:
    how = parse_settings("expandable_segments:True")
    events: list[Event] = [("alloc", n, 20 * MIB, 0, 0) for n in range(5)]
    events += [("free", n, 0, 0, 0) for n in (2, 0)] + [("alloc", 9, 20 * MIB, 0, 0)]
    (segment,) = replay(events, how).segments
    assert [block.ident for block in segment.blocks] == [9, 1, None, 3, 4]


def test_the_stretch_that_can_grow_least_is_lent() -> None:
    """The last free stretch can grow into the unmapped rest of its range, so it counts as the largest."""
    how = parse_settings("expandable_segments:True")
    events: list[Event] = [("alloc", n, 40 * MIB, 0, 0) for n in range(3)]
    events += [("alloc", 3, 30 * MIB, 0, 0), ("free", 0, 0, 0, 0), ("free", 3, 0, 0, 0), ("alloc", 9, 8 * MIB, 0, 0)]
    (segment,) = replay(events, how).segments
    assert [block.ident for block in segment.blocks] == [9, None, 1, 2, None]


def test_the_map_at_an_event_and_the_waste_at_the_peak() -> None:
    events = [("alloc", 1, 30 * MIB, 0, 0), ("alloc", 2, 4 * MIB, 0, 0), ("free", 1, 0, 0, 0)]
    assert [segment.size for segment in segments_at(events, 0)] == [30 * MIB]
    assert segments_at(events, -1) == ()
    run = replay(events)
    assert run.peak_event == 1
    waste = fragmentation_at(events, run.peak_event)
    assert (waste.reserved_bytes, waste.allocated_bytes, waste.cached_bytes) == (50 * MIB, 34 * MIB, 16 * MIB)
    assert waste.largest_cached_bytes == 16 * MIB
    assert waste.unused_share == pytest.approx(0.32)


def test_private_pools_stay_until_they_are_released() -> None:
    events = [
        ("alloc", 1, 20 * MIB, 0, 3),
        ("free", 1, 0, 0, 0),
        ("alloc", 2, 20 * MIB, 0, 0),
        ("empty_cache", None, 0, 0, 0),
    ]
    assert replay(events).end_reserved_bytes == 40 * MIB
    events[3:3] = [("release_pool", 3, 0, 0, 0)]
    assert replay(events).end_reserved_bytes == 20 * MIB


def test_contradictions_are_one_line() -> None:
    with pytest.raises(InputError, match="allocated twice"):
        replay([("alloc", 1, 1, 0, 0), ("alloc", 1, 1, 0, 0)])
    with pytest.raises(InputError, match="no allocator is asked"):
        replay([("alloc", 1, -1, 0, 0)])
    with pytest.raises(InputError, match="cannot be replayed"):
        DeviceAllocator(parse_settings("backend:cudaMallocAsync"))
    with pytest.raises(InputError, match="needs a card"):
        DeviceAllocator(parse_settings("per_process_memory_fraction:0.5"))


def test_frees_of_unknown_blocks_change_nothing() -> None:
    run = replay([("free", 9, 0, 0, 0), ("free_completed", 9, 0, 0, 0), ("free_requested", 9, 0, 0, 0)])
    assert run.end_reserved_bytes == run.peak_live_bytes == 0


def test_an_endless_card_has_an_end() -> None:
    allocator = DeviceAllocator(DEFAULTS)
    assert isinstance(allocator.alloc(1, 17 << 40), OutOfMemory)
    assert isinstance(DeviceAllocator(parse_settings("expandable_segments:True")).alloc(1, 17 << 40), OutOfMemory)


def test_live_tensors_count_whole_512_bytes() -> None:
    assert [round_512(size) for size in (0, 1, 512, 513)] == [512, 512, 512, 1024]


def test_recorded_addresses_decide_between_equal_blocks() -> None:
    events: list[Event] = [("alloc", n, 20 * MIB, 0, 0) for n in (1, 2)]
    events += [("free", n, 0, 0, 0) for n in (1, 2)]
    events += [("alloc", 3, 10 * MIB, 0, 0)]
    high, low = 9 << 40, 8 << 40
    rising = replay(events).segments
    assert [bool(segment.blocks[0].ident) for segment in rising] == [True, False]
    recorded = replay(events, segment_addresses=[(20 * MIB, high), (20 * MIB, low)]).segments
    assert [segment.address for segment in recorded] == [low, high]
    assert [bool(segment.blocks[0].ident) for segment in recorded] == [True, False]
    assert recorded[0].blocks[0].ident == 3


@pytest.mark.parametrize("recorded", [[(22 * MIB, 8 << 40)], [(20 * MIB, 8 << 40), (20 * MIB, (8 << 40) + MIB)]])
def test_recorded_addresses_are_dropped_once_they_do_not_fit(recorded: list[tuple[int, int]]) -> None:
    events: list[Event] = [("alloc", n, 20 * MIB, 0, 0) for n in range(4)]
    segments = replay(events, segment_addresses=recorded).segments
    assert sum(segment.size for segment in segments) == 80 * MIB
    assert len({segment.address for segment in segments}) == 4


def test_a_segment_given_back_makes_room_for_its_address() -> None:
    place = (20 * MIB, 8 << 40)
    events: list[Event] = [("alloc", 1, 20 * MIB, 0, 0), ("free", 1, 0, 0, 0), ("empty_cache", 0, 0, 0, 0)]
    events += [("alloc", 2, 20 * MIB, 0, 0)]
    (segment,) = replay(events, segment_addresses=[place, place]).segments
    assert segment.address == 8 << 40


def test_a_hole_between_retained_factors_is_lent_whole() -> None:
    """The rest of 0.66 MiB that docs/trace.md finds in torchao's profile of LLaMA-1B."""
    matrix, factor, tensor = 4 * 5461 * 2048, 4 * 2048 * 2048, 4 * 5 * 256 * 2048
    workspace = matrix + factor
    behind = segment_bytes(workspace, DEFAULTS) - workspace
    allocator = DeviceAllocator(DEFAULTS)
    for name, nbytes in (("workspace", workspace), ("behind", behind)):
        allocator.alloc(name, nbytes)
    allocator.free("workspace")
    for name in "abc":
        allocator.alloc(name, factor)
    lent = allocator.alloc("tensor", tensor)
    assert not isinstance(lent, OutOfMemory)
    assert (lent.size, lent.size - tensor) == (11_182_080, 696_320)
    assert allocator.reserved_bytes == workspace + behind
