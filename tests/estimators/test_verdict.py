"""The search for the last number that fits, against looking at every number."""

from bisect import bisect_right
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from estimators.analytic.estimate import Reaches
from estimators.verdict import last_not_above, max_micro_batch_size
from estimators.workload import Batch, Method, Workload, resized
from profiles.gpus import find_gpu
from profiles.models import find_model

STEPS = st.lists(st.integers(0, 3) | st.integers(0, 1000), min_size=1, max_size=60)
NUMBERS = st.integers(0, 70)


@given(STEPS, st.integers(-3000, 500), st.integers(0, 5), NUMBERS, st.sets(NUMBERS))
def test_it_is_the_last_number_not_above(steps: list[int], start: int, low: int, near: int, known: set[int]) -> None:
    values = dict(enumerate(accumulate(steps, initial=start), low))
    found = last_not_above(values.__getitem__, low, max(values), near, sorted(known))
    assert found == low - 1 + bisect_right([*values.values()], 0)


@given(st.integers(1, 10**9), st.integers(0, 10**12), st.integers(0, 65535))
def test_straight_lines_are_followed_at_once(slope: int, room: int, near: int) -> None:
    asked: set[int] = set()

    def value(number: int) -> int:
        asked.add(number)
        return slope * number - room

    found = last_not_above(value, 1, 65536, known=sorted({max(1, near), 65536}))
    assert found == min(room // slope, 65536)
    assert len(asked) <= 6


def test_a_search_goes_on_from_what_others_have_evaluated() -> None:
    """The next method's batch lies between batches that are known, and costs few more."""
    gpu, model = find_gpu("4090"), find_model("llama-350m").shape
    evaluated: list[int] = []
    for rank in (64, 128, 256):
        workload = Workload(model=model, method=Method(name="galore-adamw", rank=rank), checkpointing="full")
        reaches = Reaches(workload, gpu)
        found = max_micro_batch_size(workload, gpu, gpu.usable_bytes, reaches=reaches)
        assert found == max_micro_batch_size(workload, gpu, gpu.usable_bytes)
        own = resized(workload.batch, micro_batch_size=found)
        assert reaches.of(own).upper_bytes <= gpu.usable_bytes
        assert reaches.of(resized(own, micro_batch_size=found + 1)).upper_bytes > gpu.usable_bytes
        evaluated.append(len(reaches.micro_batches(Batch())))
    assert evaluated[0] > 2
    assert evaluated[2] - evaluated[1] <= 3
