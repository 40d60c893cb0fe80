"""The plain loop says what the whole replica says, of any history of allocations and frees."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.allocator import plain
from estimators.allocator.passages import Passage, Section, passage_of
from estimators.allocator.plain import plain_peaks
from estimators.allocator.replay import Event, replay
from estimators.allocator.settings import DEFAULTS, AllocatorSettings

MIB = 1 << 20
SIZES = st.one_of(
    st.integers(0, 4096),
    st.integers(MIB - 1024, MIB + 1024),
    st.sampled_from([512, 1024, MIB, 2 * MIB, 3 * MIB, 5 * MIB, 9 * MIB, 10 * MIB, 12 * MIB, 40 * MIB]),
    st.integers(1, 64 * MIB),
)
STEPS = st.lists(st.one_of(SIZES, st.just(None)), max_size=120)
"""A size to allocate, or None: one of the living blocks is freed."""
SETTINGS = {False: DEFAULTS, True: AllocatorSettings(expandable_segments=True)}


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
    for is_expandable, under in SETTINGS.items():
        run = replay(events, under)
        found = plain_peaks(codes, sizes, is_expandable=is_expandable)
        assert found == (run.peak_allocated_bytes, run.peak_reserved_bytes)


def test_runs_that_no_card_could_hold_have_peaks_too() -> None:
    """A plan says how much is missing, whatever the model."""
    sizes = [0, *[(700 << 30) + 5 * MIB] * 4, 3 * MIB, *[2 * MIB] * 8, 1 << 40]
    codes = [1, 2, 3, 4, 5, -2, -3, *range(6, 14), -1, 14, -5]
    history = Written(codes, sizes, [])
    assert plain_peaks(*history) == history.peaks()


class Stretch(NamedTuple):
    """Blocks from 1 on; 0 frees one that was made before."""

    codes: tuple[int, ...]
    sizes: tuple[int, ...]


@st.composite
def stretches(draw: st.DrawFn) -> Stretch:
    """Mostly of temporaries, as steps of optimizers are; some leave a block or free an older one."""
    codes, sizes, living = list[int](), list[int](), list[int]()
    for _ in range(draw(st.integers(1, 8))):
        match draw(st.sampled_from(["make", "make", "free", "free", "older"])):
            case "make":
                sizes.append(draw(SIZES))
                living.append(len(sizes))
                codes.append(len(sizes))
            case "free" if living:
                codes.append(-living.pop(draw(st.integers(0, len(living) - 1))))
            case "older":
                codes.append(0)
    stays = draw(st.integers(0, 1))
    codes += [-number for number in living[stays:]]
    return Stretch(tuple(codes), tuple(sizes))


class Written(NamedTuple):
    codes: list[int]
    sizes: list[int]
    sections: list[Section]

    def peaks(self, under: AllocatorSettings = DEFAULTS) -> tuple[int, int]:
        """By the whole replica."""
        run = replay(
            [("alloc", code, self.sizes[code], 0, 0) if code > 0 else ("free", -code, 0, 0, 0) for code in self.codes],
            under,
        )
        return run.peak_allocated_bytes, run.peak_reserved_bytes


def written(data: st.DataObject) -> Written:
    """Single steps and stretches that come again and again, as sections."""
    known = data.draw(st.lists(stretches(), min_size=1, max_size=4))
    codes, sizes, sections, living = list[int](), [0], list[Section](), list[int]()
    for step in data.draw(st.lists(st.one_of(STEPS.map(tuple), st.sampled_from(known)), max_size=25)):
        if not isinstance(step, Stretch):
            for size in step[:6]:
                if size is not None:
                    sizes.append(size)
                    living.append(len(sizes) - 1)
                    codes.append(living[-1])
                elif living:
                    codes.append(-living.pop(data.draw(st.integers(0, len(living) - 1))))
            continue
        if step.codes.count(0) > len(living):
            continue
        sections.append(Section(len(codes), passage_of(*step)))
        before = len(sizes) - 1
        sizes += step.sizes
        for code in step.codes:
            made = living.pop() if not code else 0
            codes.append(code + before if code > 0 else code - before if code else -made)
        living += [before + code for code in step.codes if code > 0 and -code not in step.codes]
    return Written(codes, sizes, sections)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_what_is_passed_over_changes_nothing(data: st.DataObject) -> None:
    history = written(data)
    for is_expandable, under in SETTINGS.items():
        whole = plain_peaks(history.codes, history.sizes, is_expandable=is_expandable)
        assert plain_peaks(*history, is_expandable=is_expandable) == whole == history.peaks(under)


STEP = Stretch((1, 2, -1, 3, -3, -2), (3 * MIB, 2 * MIB, 700))


def test_a_step_is_passed_over_where_it_finds_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where it is the largest moment so far, nor where it may need a new segment."""
    played = list[int]()
    play = plain._State.play

    def counted(state: plain._State, codes: Sequence[int]) -> None:
        played.append(len(codes))
        play(state, codes)

    monkeypatch.setattr(plain._State, "play", counted)
    codes, sizes = [1, 2, -1, -2], [0, 40 * MIB, 512]
    sections = list[Section]()
    for _ in range(3):
        sections.append(Section(len(codes), passage_of(*STEP)))
        before = len(sizes) - 1
        codes += [code + before if code > 0 else code - before for code in STEP.codes]
        sizes += STEP.sizes
    assert plain_peaks(codes, sizes, sections) == ((40 * MIB) + 512, 42 * MIB)
    assert sum(played) == 4
    played.clear()
    codes, sections = (
        [code - 2 if code > 0 else code + 2 for code in codes[4:]],
        [Section(start - 4, passage) for start, passage in sections],
    )
    assert plain_peaks(codes, [0, *sizes[3:]], sections) == (5 * MIB, 22 * MIB)
    assert sum(played) == 2 * len(STEP.codes), "the first makes the cache grow, the third finds what the second found"


@pytest.mark.parametrize(
    ("codes", "sizes", "keeps", "large"),
    [
        ((1, -1, 2, -2), (3 * MIB, 5 * MIB), (), 5),
        ((1, 2, -1, -2), (3 * MIB, 5 * MIB), (), 8),
        ((1, -1, 2, 0), (3 * MIB, 5 * MIB), (2, 3), 5),
        ((1, 2, -1), (3 * MIB, 5 * MIB), (0, 1, 2), 8),
        ((1, 2, -1), (3 * MIB, 512), (1,), 3),
        ((1, 2, 3, -2, -1, 4, -4), (3 * MIB, 5 * MIB, 2 * MIB, 7 * MIB), (0, 1, 2, 3, 4), 17),
    ],
)
def test_what_matters_of_a_stretch(
    codes: tuple[int, ...], sizes: tuple[int, ...], keeps: tuple[int, ...], large: int
) -> None:
    """What lives when a block of its pool is made that stays, or that matters for such a one."""
    found: Passage = passage_of(codes, sizes)
    assert found.keeps == keeps
    assert found.large == large * MIB // 512 + 2049
    assert found.length == len(codes)
