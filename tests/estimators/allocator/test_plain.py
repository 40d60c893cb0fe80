"""The loop for default settings says what the whole replica says, of any history of allocations and frees."""

from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.allocator.plain import plain_peaks
from estimators.allocator.replay import Event, replay

MIB = 1 << 20
SIZES = st.one_of(
    st.integers(0, 4096),
    st.integers(MIB - 1024, MIB + 1024),
    st.sampled_from([512, 1024, MIB, 2 * MIB, 3 * MIB, 5 * MIB, 9 * MIB, 10 * MIB, 12 * MIB, 40 * MIB]),
    st.integers(1, 64 * MIB),
)
STEPS = st.lists(st.one_of(SIZES, st.just(None)), max_size=120)
"""A size to allocate, or None: one of the living blocks is freed."""


@settings(deadline=None, max_examples=300)
@given(steps=STEPS, data=st.data())
def test_plain_peaks_are_the_replica_s(steps: list[int | None], data: st.DataObject) -> None:
    codes: list[int] = []
    sizes, living, events = [0], list[int](), list[Event]()
    for size in steps:
        if size is not None:
            sizes.append(size)
            living.append(len(sizes) - 1)
            codes.append(living[-1])
            events.append(("alloc", living[-1], size, 0, 0))
        elif living:
            block = living.pop(data.draw(st.integers(0, len(living) - 1)))
            codes.append(-block)
            events.append(("free", block, 0, 0, 0))
    run = replay(events)
    assert plain_peaks(codes, sizes) == (run.peak_allocated_bytes, run.peak_reserved_bytes)
