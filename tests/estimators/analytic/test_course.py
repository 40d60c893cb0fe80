"""Courses of steps whose repeated layers are there once are those of steps that have them all."""

from itertools import product
from typing import Any

import pytest

from estimators.analytic.attention import attention_kernel
from estimators.analytic.course import course_of, whole_course_of
from estimators.analytic.growth import growth_of
from estimators.analytic.layout import PHASES
from estimators.analytic.stepping import stepping_of
from estimators.analytic.structure import batch_traits, structure_of
from estimators.workload import Batch, Method, Workload, in_batch
from galore_mem.answers.names import resolve_model

GALORE = Method(name="galore-adamw", rank=64, update="per-layer")
BATCH = Batch(micro_batch_size=2, sequence_length=4096)
"""Long enough for every window."""
RUNS: list[dict[str, Any]] = [
    {"method": Method(name="adamw"), "batch": BATCH},
    {"method": Method(name="lora", rank=8), "checkpointing": "full", "batch": BATCH},
    {"method": GALORE, "checkpointing": "full", "batch": BATCH},
    {"method": GALORE, "batch": Batch(sequence_length=4096, gradient_accumulation_steps=3)},
    {"method": Method(name="adamw"), "precision": "amp-bf16", "data_parallel": 2, "gradient_as_bucket_view": True},
]
MODELS = ["gemma-2-2b", "gemma-3-1b", "gemma-3-4b", "gpt-oss-20b", "t5-base", "t5-large"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("run", RUNS)
def test_one_period_for_all_makes_the_same_course(name: str, run: dict[str, Any]) -> None:
    workload = Workload(model=resolve_model(name).shape, **{"batch": BATCH, **run})
    kernel = attention_kernel(workload, None)
    folded, whole = course_of(workload, kernel), whole_course_of(workload, kernel)
    if len(whole.layout.played.events) > 5000:
        assert len(folded.layout.played.events) < 0.8 * len(whole.layout.played.events)
    assert (folded.peak_bytes, folded.end_bytes) == (whole.peak_bytes, whole.end_bytes)
    assert folded.categories(folded.end) == whole.categories(whole.end)
    for moment in PHASES:
        points = folded.peaks[moment], whole.peaks[moment]
        assert points[0].total_bytes == points[1].total_bytes == sum(folded.categories(points[0]).values())
        assert folded.categories(points[0]) == whole.categories(points[1])
    if workload.method.update == "per-layer":
        stepping = stepping_of(workload.model, workload.method, workload.precision)
        found, wanted = (
            [growth_of(stepping, course).of(iteration) for iteration in ("first", "steady")]
            for course in (folded, whole)
        )
        for one, other in zip(found, wanted, strict=True):
            pairs = [(folded.update_bytes, one.update_totals), (whole.update_bytes, other.update_totals)]
            own, theirs = (set(zip(*pair, strict=True)) for pair in pairs)
            assert own <= theirs
            assert max(map(sum, own)) == max(map(sum, theirs))


def test_what_lets_go_of_every_layer_by_itself_has_every_layer() -> None:
    """A key-value cache knows the layers one by one."""
    workload = Workload(model=resolve_model("gemma-2-2b").shape, batch=BATCH, use_cache=True)
    kernel = attention_kernel(workload, None)
    assert course_of(workload, kernel).layout is whole_course_of(workload, kernel).layout


@pytest.mark.parametrize("name", ["llama-7b", "gemma-2-2b", "gemma-3-1b", "gpt-oss-20b", "t5-base"])
@pytest.mark.parametrize("run", [{}, {"loss": "chunked"}, {"method": GALORE, "precision": "fp32"}])
def test_batches_with_the_same_traits_have_one_structure(name: str, run: dict[str, Any]) -> None:
    workload = Workload(model=resolve_model(name).shape, **run)
    kernel = attention_kernel(workload, None)
    found: dict[Any, Any] = {}
    # on both sides of windows, of a row's alignment and of a chunk
    for sizes in product((1, 2, 5), (15, 16, 512, 4095, 4096, 4099), (1, 2, 3, 7)):
        batch = Batch(micro_batch_size=sizes[0], sequence_length=sizes[1], gradient_accumulation_steps=sizes[2])
        asked = in_batch(workload, batch)
        structure = structure_of(asked, kernel)
        assert found.setdefault(batch_traits(asked), structure) == structure
    assert len(found) > 3
