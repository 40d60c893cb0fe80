"""Plans confirmed by replaying a run's whole history."""

from typing import Any

import pytest

from estimators.allocator.replay import replay
from estimators.analytic.history import history_of
from galore_mem.answers.plan import plan
from profiles.errors import InputError


@pytest.mark.parametrize(("method", "update"), [("adamw", "whole"), ("galore-adamw-8bit", "per-layer")])
def test_confirmed_figures_stand_between_live_and_the_bound(method: str, update: str) -> None:
    (usual,) = plan("llama-60m", gpus="4090", methods=method, update=update).plans
    (exact,) = plan("llama-60m", gpus="4090", methods=method, update=update, exact=True).plans
    before, after = usual.footprint, exact.footprint
    assert after.moments == before.moments
    assert after.peak_live_bytes <= after.peak_allocated_bytes <= after.peak_reserved_bytes < after.process_bytes
    assert after.process_bytes < after.upper_bytes <= before.upper_bytes
    assert after.upper_bytes - after.peak_reserved_bytes < before.upper_bytes - before.peak_reserved_bytes
    assert after.peak_live_bytes + sum(term.high_bytes for term in after.terms) == after.upper_bytes
    assert after.peak_live_bytes + sum(term.low_bytes for term in after.terms) == after.process_bytes
    assert exact.fits[0].footprint == after


def test_allocator_settings_are_applied() -> None:
    words = {"methods": "adamw", "exact": True}
    (native,) = plan("llama-60m", **words).plans  # type: ignore[arg-type]
    (expandable,) = plan("llama-60m", alloc_conf="expandable_segments:True", **words).plans  # type: ignore[arg-type]
    assert expandable.footprint.peak_reserved_bytes < native.footprint.peak_reserved_bytes


@pytest.mark.parametrize("words", [{"resume": "device"}, {"eval_batch": 64}, {"empty_cache": "step"}])
def test_runs_that_no_trace_was_compared_with_keep_the_closed_forms_bound(words: dict[str, Any]) -> None:
    usual, exact = (
        plan("llama-60m", gpus="4090", methods="adamw", **words, exact=is_exact).plans[0].footprint
        for is_exact in (False, True)
    )
    assert exact.peak_live_bytes == usual.peak_live_bytes <= exact.peak_reserved_bytes
    assert exact.upper_bytes >= usual.upper_bytes


@pytest.mark.parametrize("where", ["step", "backward"])
def test_a_cache_is_emptied_where_it_is_said_to_be(where: str) -> None:
    words = {"model": "llama-60m", "methods": "galore-adamw", "empty_cache": where}
    (found,) = plan(exact=True, **words).plans  # type: ignore[arg-type]
    run = replay(history_of(found.workload))
    assert ("empty_cache", 0, 0, 0, 0) in history_of(found.workload)
    assert found.footprint.peak_allocated_bytes == run.peak_allocated_bytes
    assert found.footprint.peak_reserved_bytes == run.peak_reserved_bytes


def test_more_than_the_replica_has_addresses_for_is_refused() -> None:
    with pytest.raises(InputError, match=r"TiB of tensors cannot be replayed"):
        plan("gpt2", gpus="4090", methods="adamw", seq=2**31 - 1, attention="math", exact=True)
