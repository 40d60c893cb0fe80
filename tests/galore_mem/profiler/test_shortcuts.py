"""Outcomes learnt and trails copied change nothing in a recording: the same step with and without them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from estimators.workload import Workload

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

Small = Callable[..., Workload]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

STEPS: list[tuple[str, dict[str, Any]]] = [
    ("adamw", {"checkpointing": "full", "layers": 3}),
    ("adamw-8bit", {"update": "per-layer", "family": "tied", "precision": "amp-bf16"}),
    ("adafactor", {"attention": "eager", "family": "qwen2", "loss": "chunked"}),
    ("lora", {"grad_accumulation": 2, "family": "qwen3"}),
    ("galore-adamw", {"grad_accumulation": 2, "precision": "fp32", "attention": "math"}),
    ("galore-adamw-8bit", {"update": "per-layer", "layers": 3}),
    ("galore-adafactor", {"proj_type": "full", "layers": 3}),
    ("galore-adamw", {"implementation": "galore-torch", "update": "per-layer"}),
]


@pytest.mark.parametrize(("method", "settings"), STEPS)
def test_recording_is_the_same_without_shortcuts(
    small: Small, monkeypatch: pytest.MonkeyPatch, method: str, settings: dict[str, Any]
) -> None:
    from galore_mem.answers.steps import record
    from galore_mem.profiler.outcomes import Outcomes
    from galore_mem.profiler.repeats import Repeats

    workload = small(method, **settings)
    short = record(workload, "flash" if workload.attention == "auto" else workload.attention, workspace_bytes=1 << 20)
    monkeypatch.setattr(Outcomes, "run", _ask_torch)
    monkeypatch.setattr(Repeats, "of", _look_on)
    plain = record(workload, "flash" if workload.attention == "auto" else workload.attention, workspace_bytes=1 << 20)
    assert short.lives == plain.lives
    assert short.events == plain.events
    assert short.borders == plain.borders


def _ask_torch(outcomes: object, func: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
    return func(*args, **kwargs)


def _look_on(repeats: object, owner: object, name: str, key_of: object) -> AbstractContextManager[None]:
    return nullcontext()


@pytest.fixture
def fake() -> Any:  # noqa: ANN401
    from torch._subclasses import FakeTensorMode

    return FakeTensorMode()


def test_outcome_is_asked_for_once(fake: Any) -> None:  # noqa: ANN401
    from galore_mem.profiler.outcomes import Outcomes

    asked = []

    def add(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        asked.append(args)
        return torch.ops.aten.add.Tensor(*args, **kwargs)

    add.namespace, add._opname, add.tags = "aten", "add", torch.ops.aten.add.Tensor.tags  # type: ignore[attr-defined]
    with fake:
        narrow, wide = torch.empty(4, 1), torch.empty(1, 6, dtype=torch.bfloat16)
        outcomes = Outcomes(fake)
        for _ in range(3):
            result = outcomes.run(add, (narrow, wide), {})
            assert (result.shape, result.dtype, result.device.type) == ((4, 6), torch.float32, "cpu")
        assert len(asked) == 1
        assert outcomes.run(add, (wide, wide), {}).dtype == torch.bfloat16
        assert outcomes.run(add, (torch.empty(3, dtype=torch.int64), 1), {}).dtype == torch.int64
        assert outcomes.run(add, (torch.empty(3, dtype=torch.int64), 1.0), {}).dtype == torch.float32
        assert len(asked) == 4


def test_views_share_and_updates_return_their_argument(fake: Any) -> None:  # noqa: ANN401
    from galore_mem.profiler.outcomes import Outcomes

    with fake:
        matrix, outcomes = torch.empty(8, 4), Outcomes(fake)
        for _ in range(2):
            row = outcomes.run(torch.ops.aten.select.int, (matrix, 0, 3), {})
            assert row.untyped_storage()._cdata == matrix.untyped_storage()._cdata
            assert (row.shape, row.stride(), row.storage_offset()) == ((4,), (1,), 12)
            assert outcomes.run(torch.ops.aten.mul_.Tensor, (matrix, 2.0), {}) is matrix
            halves = outcomes.run(torch.ops.aten.split.Tensor, (matrix, 4), {})
            assert [half.storage_offset() for half in halves] == [0, 16]


def test_values_are_left_to_torch(fake: Any) -> None:  # noqa: ANN401
    from torch._subclasses.fake_tensor import DataDependentOutputException

    from galore_mem.profiler.outcomes import Outcomes

    with fake:
        outcomes = Outcomes(fake)
        for _ in range(2):
            with pytest.raises(DataDependentOutputException):
                outcomes.run(torch.ops.aten._local_scalar_dense.default, (torch.empty(1),), {})
            grown = torch.empty(2)
            outcomes.run(torch.ops.aten.resize_.default, (grown, [5]), {})
            assert grown.shape == (5,)


def test_trail_is_copied_only_where_it_is_the_whole_effect(fake: Any) -> None:  # noqa: ANN401
    from types import SimpleNamespace

    from galore_mem.profiler.recorder import Recorder
    from galore_mem.profiler.repeats import Repeats, sizes_of
    from galore_mem.profiler.rules import Rules

    calls = []
    kept: list[Any] = []

    def double(matrix: Any, keep: bool) -> dict[str, Any]:  # noqa: ANN401
        calls.append(keep)
        scratch = matrix.exp()
        if keep:
            kept.append(scratch)
        return {"left": (matrix * 2)[:2]}

    owner = SimpleNamespace(double=double)
    recorder = Recorder(Rules(), fake=fake)
    with fake, recorder, Repeats(recorder).of(owner, "double", lambda matrix, keep: (sizes_of(matrix), keep)):
        for keep in (False, False, False, True, True):
            matrix = torch.empty(16, 16)
            result = owner.double(matrix, keep)["left"]
            assert (result.shape, result.untyped_storage().nbytes()) == ((2, 16), 1024)
            del matrix, result
    recording = recorder.close()
    assert calls == [False, True, True]
    once = [1, 2, 3, -2, -1, -3]  # the matrix, scratch, the result; scratch, the matrix and the result die
    for turn in range(3):
        assert [abs(code) - 3 * turn for code in recording.events[6 * turn : 6 * turn + 6]] == [abs(c) for c in once]
    assert [life.operator for life in recording.lives[:3]] == [life.operator for life in recording.lives[3:6]]
