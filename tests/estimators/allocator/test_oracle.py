"""The replica against a plain, slow model, under random settings and random programs."""

import os
from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.allocator.device import DeviceAllocator
from estimators.allocator.layout import in_use, load, segment_map
from estimators.allocator.oom import OutOfMemory
from estimators.allocator.replay import Event, replay
from estimators.allocator.settings import AllocatorSettings
from tests.estimators.allocator.oracle import MIB, Oracle, PoolKey

EDGES = [0, 1, 511, 512, 513, 1023, MIB - 512, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 512, 9 * MIB]
LARGE_EDGES = [10 * MIB - 1, 10 * MIB, 10 * MIB + 1, 19 * MIB, 20 * MIB, 21 * MIB, 33 * MIB, 64 * MIB, 130 * MIB]
ACTIONS = ["alloc"] * 6 + ["free"] * 5 + ["free_requested", "record_stream", "free_completed", "empty_cache"]


def random_settings(rng: Random) -> AllocatorSettings:
    large = rng.choice([11, 20, 20, 20, 32, 64])
    split = rng.choice([None, None, large, 2 * large, 64 + large])
    one = rng.choice([0, 0, 1, 2, 4, 8, 16])
    table = tuple(rng.choice([0, 1, 2, 4, 8]) for _ in range(16))
    return AllocatorSettings(
        large_segment_size_bytes=large * MIB,
        max_split_size_bytes=None if split is None else split * MIB,
        max_non_split_rounding_bytes=rng.choice([large, 2 * large]) * MIB,
        roundup_power2_divisions=rng.choice([(one,) * 16, table]),
        garbage_collection_threshold=rng.choice([0.0, 0.0, 0.2, 0.5, 0.8]),
        expandable_segments=rng.random() < 0.5,
        per_process_memory_fraction=rng.choice([1.0, 1.0, 0.5, 0.9]),
    )


def random_size(rng: Random) -> int:
    kind = rng.randrange(5)
    if kind < 2:
        return rng.choice(LARGE_EDGES if kind else EDGES)
    return rng.randint(1, (4096, 2 * MIB, 40 * MIB)[kind - 2])


def random_program(rng: Random, length: int) -> list[Event]:
    """Events over a few streams and pools; every name is used once."""
    events: list[Event] = []
    live: list[int] = []
    waiting: list[int] = []
    for name in range(length):
        action = rng.choice(ACTIONS)
        if action == "alloc":
            events.append(("alloc", name, random_size(rng), rng.choice([0, 0, 0, 7, 9]), int(rng.random() < 0.15)))
            live.append(name)
        elif action == "empty_cache":
            events.append(("empty_cache", None, 0, 0, 0))
        elif action == "free_completed" and waiting:
            events.append((action, waiting.pop(rng.randrange(len(waiting))), 0, 0, 0))
        elif live and action == "record_stream":
            events.append((action, rng.choice(live), 0, rng.choice([0, 7]), 0))
        elif live and action in ("free", "free_requested"):
            gone = live.pop(rng.randrange(len(live)))
            events.append((action, gone, 0, 0, 0))
            waiting.append(gone)
    return events


def oracle_step(oracle: Oracle, event: Event) -> bool:
    action, ident, size, stream, pool = event
    if action == "alloc":
        return oracle.alloc(ident, size, stream, pool)
    if action in ("free", "free_requested"):
        oracle.free(ident, wait=action == "free_requested")
    elif action == "free_completed":
        oracle.complete(ident)
    elif action == "record_stream":
        oracle.record_stream(ident, stream)
    else:
        oracle.empty_cache()
    return True


def replica_step(allocator: DeviceAllocator, event: Event) -> bool:
    action, ident, size, stream, pool = event
    if action == "alloc":
        return not isinstance(allocator.alloc(ident, size, stream, pool), OutOfMemory)
    if action == "empty_cache":
        allocator.empty_cache()
    elif action == "record_stream":
        allocator.record_stream(ident, stream)
    else:
        getattr(allocator, action)(ident)
    return True


def layout(allocator: DeviceAllocator) -> list[tuple[PoolKey, bool, list[tuple[int, object, bool]]]]:
    return [
        (
            (segment.is_small, segment.stream, segment.private_pool),
            segment.is_expandable,
            [(block.size, block.ident, block.pending) for block in segment.blocks],
        )
        for segment in segment_map(allocator)
    ]


CASES = settings(max_examples=int(os.environ.get("ORACLE_EXAMPLES", "150")), deadline=None)
SEEDS = st.integers(0, 2**32)
LENGTHS = st.integers(1, 120)


@CASES
@given(SEEDS, LENGTHS, st.sampled_from([None, 24 * MIB, 64 * MIB, 200 * MIB, 1 << 30]))
def test_every_step_is_the_plain_models(seed: int, length: int, capacity: int | None) -> None:
    rng = Random(seed)
    how, events = random_settings(rng), random_program(rng, length)
    if capacity is None and how.per_process_memory_fraction < 1:
        capacity = 300 * MIB
    allocator, oracle = DeviceAllocator(how, capacity_bytes=capacity), Oracle(how, capacity)
    for event in events:
        assert replica_step(allocator, event) == oracle_step(oracle, event), event
        assert allocator.reserved_bytes == oracle.reserved, event
        assert allocator.allocated_bytes == oracle.allocated, event
        assert allocator.active_bytes == oracle.active, event
        assert allocator.live_bytes == oracle.live, event
        assert allocator.inactive_split_bytes == oracle.inactive_split, event
        assert layout(allocator) == oracle.layout(), event


@CASES
@given(SEEDS, LENGTHS)
def test_bytes_are_conserved_and_neighbours_coalesced(seed: int, length: int) -> None:
    rng = Random(seed)
    allocator = DeviceAllocator(random_settings(rng), capacity_bytes=400 * MIB)
    for event in random_program(rng, length):
        replica_step(allocator, event)
        segments = segment_map(allocator)
        assert sum(segment.size for segment in segments) == allocator.reserved_bytes <= 400 * MIB
        end = 0
        for segment in segments:
            assert segment.address >= end, "segments overlap"
            end = segment.address + segment.size
            position, was_free = 0, False
            for block in segment.blocks:
                assert block.offset == position, "blocks overlap or leave a hole"
                position += block.size
                assert not (was_free and block.ident is None), "free neighbours were not merged"
                was_free = block.ident is None
            assert position == segment.size
        assert allocator.reserved_bytes >= allocator.active_bytes >= allocator.allocated_bytes >= allocator.live_bytes


@CASES
@given(SEEDS, LENGTHS)
def test_streams_do_not_disturb_each_other(seed: int, length: int) -> None:
    """Without pressure, what one stream reserves does not depend on the others."""
    rng = Random(seed)
    calm = replace(random_settings(rng), garbage_collection_threshold=0.0, per_process_memory_fraction=1.0)
    events = random_program(rng, length)
    home = {event[1]: (event[3], event[4]) for event in events if event[0] == "alloc"}
    parts = []
    for where in set(home.values()):
        mine = [event for event in events if event[0] == "empty_cache" or home.get(event[1]) == where]
        parts.append(replay(mine, calm).end_reserved_bytes)
    assert sum(parts) == replay(events, calm).end_reserved_bytes


@CASES
@given(SEEDS, LENGTHS)
def test_replaying_its_own_layout_changes_nothing(seed: int, length: int) -> None:
    """A layout read out and put into a fresh allocator behaves like the original from there on."""
    rng = Random(seed)
    how = replace(random_settings(rng), garbage_collection_threshold=0.0)
    events = [event for event in random_program(rng, length) if event[0] != "record_stream"]
    first, second = DeviceAllocator(how, capacity_bytes=400 * MIB), DeviceAllocator(how, capacity_bytes=400 * MIB)
    half = len(events) // 2
    for event in events[:half]:
        replica_step(first, event)
    load(second, in_use(segment_map(first)))
    assert layout(second) == layout(first)
    if how.expandable_segments:
        return  # address space below the first mapped page is not part of a layout
    for event in events[half:]:
        assert replica_step(second, event) == replica_step(first, event), event
        assert second.reserved_bytes == first.reserved_bytes, event
        assert second.inactive_split_bytes == first.inactive_split_bytes, event
