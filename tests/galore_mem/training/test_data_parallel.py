"""Our stand-in for DistributedDataParallel against the real one on CPU tensors, event by event."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
real_ddp = pytest.importorskip("tests.galore_mem.training.real_ddp")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

RUNS: list[tuple[str, dict[str, Any]]] = [
    ("adamw", {}),
    ("adamw", {"gradient_as_bucket_view": True, "zero_grad": "end", "clip": True}),
    ("adamw", {"grad_accumulation": 3, "gradient_as_bucket_view": True}),
    ("adamw", {"grad_accumulation": 2, "bucket_cap_mb": 1, "precision": "fp32"}),
    ("lora", {"rank": 8, "gradient_as_bucket_view": True}),
    ("galore-adamw-8bit", {"rank": 16, "implementation": "galore-torch", "zero_grad": "end"}),
]
Event = tuple[int, str, str]


def _events(recording: Any, *, copies: bool = True) -> list[Event]:  # noqa: ANN401
    """(bytes, window, iteration) of every birth and death; without what the reducer tells other processes.

    Shapes that it verifies and the order of rebuilt buckets are whole numbers, mostly on the host, and less than 2 KiB
    here: the only integers that are made before the first forward or, in one, by `empty`.

    Args:
        recording: of a run.
        copies: with the flat copies that are broadcast. Another thread sends them, and decides when they die.
    """
    found: list[Event] = []
    told = {
        number
        for number, life in enumerate(recording.lives)
        if (life.category == "inputs" and life.operator in ("empty", "empty_like", "_to_copy") and life.nbytes < 2048)
        or (not copies and life.operator == "cat" and not life.module)
    }
    for begin, end, iteration, window in recording.stretches():
        for code in recording.events[begin:end]:
            number = abs(code) - 1
            if number not in told:
                size = recording.lives[number].nbytes
                found.append((size if code > 0 else -size, window.replace("broadcast", "between"), iteration))
    return found


def _ours(workload: Any, *, copies: bool = True) -> list[Event]:  # noqa: ANN401
    from galore_mem.answers.steps import Step, record_steps

    tokens = workload.batch.sequence_length
    has_projectors = workload.method.parameterisation == "galore"
    later: Step = ("refresh", tokens) if has_projectors and workload.method.update_proj_gap == 1 else ("plain", tokens)
    steps = [("first", tokens), *[later] * (real_ddp.STEPS - 1)]
    return _events(record_steps(workload, "cpu", steps), copies=copies)


@pytest.mark.parametrize(("method", "settings"), RUNS)
def test_storages_live_as_under_the_real_one(method: str, settings: dict[str, Any]) -> None:
    workload = real_ddp.small(method, data_parallel=2, **settings)
    with real_ddp.group():
        real = _events(real_ddp.record_real(workload))
    buckets = sum(p.nbytes for p in _trained(workload))
    assert (buckets, "between", "first") in real, "there is a bucket for all gradients"
    assert _ours(workload) == real


def _trained(workload: Any) -> list[Any]:  # noqa: ANN401
    from galore_mem.training.session import Session

    session = Session(workload, "cpu", None)
    session.close()
    return [parameter for _, parameter in session.named]


def test_a_second_process_changes_nothing(tmp_path: Path) -> None:
    """With one process all that is averaged is a process's own; with two, storages live the same."""
    store, workload = str(tmp_path / "store"), real_ddp.small(data_parallel=2)
    line, root = [sys.executable, "-m", "tests.galore_mem.training.real_ddp", store], Path(__file__).parents[3]
    with subprocess.Popen(line, cwd=root, stderr=subprocess.PIPE, text=True) as other:
        with real_ddp.group(0, 2, store):
            real = _events(real_ddp.record_real(workload), copies=False)
        assert other.wait(60) == 0, other.stderr.read() if other.stderr else ""
    assert _ours(workload, copies=False) == real
