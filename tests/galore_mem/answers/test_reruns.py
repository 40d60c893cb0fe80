"""Runs under a cap: through the replica, and on a GPU that is held short."""

from collections.abc import Callable

import pytest

from estimators.workload import Workload
from galore_mem.answers.settings import Settings, workloads
from galore_mem.answers.validation.reruns import on_gpu, train_unwatched
from profiles.gpus import MIB
from profiles.shapes import ModelShape

SHAPE = ModelShape(
    name="tiny",
    model_type="llama",
    hidden_size=64,
    intermediate_size=176,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=500,
    max_position_embeddings=128,
)


def tiny(method: str = "adamw", **words: object) -> Workload:
    (workload,) = workloads(SHAPE, (method,), Settings(**{"seq": 32, "attention": "math", **words}))  # type: ignore[arg-type]
    return workload


class ShortGpu:
    """Needs 100 MiB."""

    def __init__(self, needs: int = 100 * MIB, fails: type[BaseException] | None = None) -> None:
        self.needs = needs
        self.fails = fails
        self.calls: list[str] = []
        self.limit: int | None = None

    def cap(self, limit_bytes: int | None) -> None:
        self.limit = limit_bytes
        self.calls.append(f"cap {limit_bytes}")

    def release(self) -> None:
        self.calls.append("release")

    def train(self, workload: Workload) -> None:
        self.calls.append("train")
        if self.fails is not None:
            raise self.fails
        if self.limit is not None and self.limit < self.needs:
            raise MemoryError


@pytest.mark.parametrize(("limit", "survives"), [(100 * MIB, True), (100 * MIB - 1, False), (0, False)])
def test_a_run_survives_a_cap_that_leaves_it_enough(limit: int, survives: bool) -> None:
    gpu = ShortGpu()
    assert on_gpu(tiny(), gpu)(limit) is survives
    assert gpu.calls == ["release", f"cap {limit}", "train", "cap None", "release"]


def test_the_cap_is_lifted_whatever_happens() -> None:
    gpu = ShortGpu(fails=RuntimeError)
    with pytest.raises(RuntimeError):
        on_gpu(tiny(), gpu)(1)
    assert gpu.calls[-2:] == ["cap None", "release"]


@pytest.fixture
def quiet() -> Callable[..., None]:
    """The capped run's own code, on CPU tensors."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return train_unwatched


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("method", "words"), [("adamw", {}), ("galore-adamw", {"rank": 8, "update": "per-layer"}), ("lora", {"rank": 4})]
)
def test_the_capped_run_is_the_step_itself(quiet: Callable[..., None], method: str, words: dict[str, object]) -> None:
    quiet(tiny(method, **words), "cpu")
