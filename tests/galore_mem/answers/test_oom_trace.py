"""The real step, traced, is the judge: every tensor it makes is one that the closed form names, at the same level.

And an out-of-memory error made from the trace, by the allocator's replica on a card too small, is explained rightly.
"""

from collections import defaultdict
from typing import Any

import pytest

from estimators.allocator.oom import OutOfMemory
from estimators.analytic.attention import attention_kernel
from estimators.analytic.births import births_of
from estimators.workload import Workload
from galore_mem.answers.oom import OomAnswer, explain_oom
from galore_mem.answers.oom_message import size_text
from galore_mem.answers.settings import Settings, workloads
from profiles.gpus import SMALL_WORKSPACE_BYTES
from profiles.models import find_model

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

MIB = 2**20
RUNS: dict[str, dict[str, Any]] = {
    "adamw": {"seq": 1024},
    "galore-adamw-8bit": {"seq": 512, "batch": 4, "checkpointing": "full", "rank": 64},
}


def _workload(method: str) -> Workload:
    (workload,) = workloads(find_model("llama-60m").shape, (method,), Settings(**RUNS[method]))
    return workload


@pytest.fixture(scope="module", params=RUNS)
def traced(request: pytest.FixtureRequest) -> tuple[str, Any]:
    from galore_mem.answers.steps import record

    workload = _workload(request.param)
    return request.param, record(workload, attention_kernel(workload, None), workspace_bytes=SMALL_WORKSPACE_BYTES)


def test_every_large_tensor_of_the_real_step_is_named_at_its_level(traced: tuple[str, Any]) -> None:
    from galore_mem.profiler.recording import rounded
    from galore_mem.witness import HOST

    method, recording = traced
    births = defaultdict(list)
    for birth in births_of(_workload(method)):
        if not birth.is_sum:
            births[birth.nbytes].append(birth)
    sums = [birth for birth in births_of(_workload(method)) if birth.is_sum]
    total, seen, strangers = 0, 0, []
    for code in recording.events:
        life = recording.lives[abs(code) - 1]
        if life.category == HOST:
            continue
        if code > 0 and life.nbytes >= MIB and life.operator not in ("model", "cuBLAS"):
            seen += 1
            known = [*births[life.nbytes], *(birth for birth in sums if birth.nbytes >= life.nbytes)]
            distance = min((birth.distance_bytes(total) for birth in known), default=total)
            if distance > SMALL_WORKSPACE_BYTES:  # whose own moment the closed form takes earlier
                strangers.append((life.operator, life.module, life.nbytes, distance))
        total += rounded(life.nbytes) * (1 if code > 0 else -1)
    assert seen > 700
    assert not strangers


def _message(oom: OutOfMemory, card_bytes: int) -> str:
    """As torch 2.5 would word it."""
    return (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {size_text(oom.segment_bytes)}. GPU 0 has a "
        f"total capacity of {size_text(card_bytes)} of which {size_text(oom.free_bytes)} is free. Including "
        f"non-PyTorch memory, this process has {size_text(oom.reserved_bytes + 400 * MIB)} memory in use. Of the "
        f"allocated memory {size_text(oom.allocated_bytes)} is allocated by PyTorch, and "
        f"{size_text(oom.cached_bytes)} is reserved by PyTorch but unallocated."
    )


def test_an_error_made_from_the_trace_is_explained_by_the_tensor_that_failed(traced: tuple[str, Any]) -> None:
    from estimators.allocator.settings import DEFAULTS
    from galore_mem.answers.histories import History
    from galore_mem.answers.limits import Limit
    from galore_mem.profiler.to_tape import tape_of

    method, recording = traced
    (device,) = tape_of(recording, source="traced").devices
    history, rows = History(device, DEFAULTS), device.events.cause_rows()
    peak = history.run(DEFAULTS, None).replayed.peak_reserved_bytes
    errors, named = 0, 0
    for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        limit = Limit(name="small", capacity_bytes=int(peak * share), total_bytes=int(peak * share), reason="")
        for oom in history.run(DEFAULTS, limit).replayed.ooms[:1]:
            row = rows[oom.event]
            text = _message(oom, limit.total_bytes)
            answer = explain_oom(text, model="llama-60m", method=method, settings=Settings(**RUNS[method]))
            errors += 1
            named += _names(answer, device.events.size[row], device.events.text("phase", row))
    assert errors >= 4
    assert named == errors


def _names(answer: OomAnswer, nbytes: int, phase: str) -> bool:
    """Whether the tensor that failed is the suspect, or shares size and level with it."""
    best = answer.suspect
    if best is None:
        return False
    alike = [other for other in answer.suspects if other.distance_bytes <= best.distance_bytes]
    return any(other.birth.nbytes == nbytes and other.birth.stage == phase for other in alike)
