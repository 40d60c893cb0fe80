"""The trace on fake tensors against the same step on real CPU tensors, and that against torch's own recording."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from estimators.workload import Workload

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

Small = Callable[..., Workload]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

STEPS: list[tuple[str, dict[str, Any]]] = [
    ("adamw", {}),
    ("adamw", {"family": "tied", "optimizer_kernel": "loop"}),
    ("adamw", {"master_weights": True, "clip": True}),
    ("offload-adamw", {}),
    ("sgd", {"eval_batch": 2, "eval_keep": 3, "attention": "eager"}),
    ("adamw-8bit", {"checkpointing": "full"}),
    ("adamw-8bit", {"update": "per-layer", "family": "qwen3"}),
    ("adafactor", {"precision": "amp-bf16"}),
    ("sgd-momentum", {"attention": "math", "family": "qwen2"}),
    ("sgd", {"attention": "eager", "batch": 2}),
    ("sgd", {"grad_accumulation": 2, "batch": 2, "precision": "fp32"}),
    ("lora", {}),
    ("qlora", {"adapter_dtype": "bf16"}),
    ("qlora", {"bnb_4bit_use_double_quant": True, "precision": "amp-bf16", "family": "qwen2", "attention": "eager"}),
    ("qlora", {"bnb_4bit_use_double_quant": True, "checkpointing": "full", "attention": "math"}),
    ("low-rank", {"keep_outputs": True}),
    ("galore-adamw", {"implementation": "galore-torch", "precision": "fp32"}),
    ("galore-adamw-8bit", {"implementation": "galore-torch"}),
]


def events_of(recording: Any) -> list[tuple[int, str, str, str]]:  # noqa: ANN401
    """(bytes, category, window, iteration) of every birth and death, in order."""
    lives = recording.lives
    return [
        ((1 if code > 0 else -1) * lives[abs(code) - 1].nbytes, lives[abs(code) - 1].category, window, iteration)
        for begin, end, iteration, window in recording.stretches()
        for code in recording.events[begin:end]
    ]


@pytest.mark.parametrize(("method", "settings"), STEPS)
def test_fake_tensors_live_as_real_ones_do(small: Small, method: str, settings: dict[str, Any]) -> None:
    from galore_mem.answers.steps import record

    workload = small(method, **settings)
    kernel = "cpu" if workload.attention == "auto" else workload.attention
    assert events_of(record(workload, kernel)) == events_of(record(workload, kernel, fake=False))


@pytest.mark.parametrize("method", ["galore-adamw", "galore-adamw-8bit", "galore-adafactor"])
@pytest.mark.parametrize("update", ["whole", "per-layer"])
def test_own_galore_lives_as_on_real_tensors(
    small: Small, method: str, update: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh looks at its numbers and may take a second pass, which holds what the first did; a trace takes one."""
    from galore_mem.answers.steps import record

    monkeypatch.setattr("galore_mem.optim.refresh.TOLERANCE", math.inf)
    workload = small(method, update=update)
    fake, real = (events_of(record(workload, "cpu", fake=fake)) for fake in (True, False))
    assert fake == real
    assert {event[2:] for event in fake} >= {("refresh", "first"), ("refresh", "steady")}


def _peak(changes: list[int]) -> int:
    total = peak = 0
    for change in changes:
        size = -(-abs(change) // 512) * 512
        total += size if change > 0 else -size
        peak = max(peak, total)
    return peak


def _profiled(step: Callable[[], object]) -> list[int]:
    """Allocations and frees as torch's profiler sees them, without what dies inside the operator that made it."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    found: list[tuple[int, int, int, object]] = []

    def walk(node: Any, operator: object) -> None:  # noqa: ANN401
        operator = id(node) if node.name.startswith("aten::") else operator
        if node.name == "[memory]":
            found.append((node.start_time_ns, node.extra_fields.alloc_size, node.extra_fields.ptr, operator))
        for child in node.children:
            walk(child, operator)

    roots = profiler.profiler.kineto_results.experimental_event_tree()
    for root in roots:
        walk(root, None)
    found.sort(key=lambda event: event[0])
    made: dict[int, int] = {}
    dropped: set[int] = set()
    for place, (_, size, address, operator) in enumerate(found):
        if size > 0:
            made[address] = place
        elif address in made:
            birth = made.pop(address)
            if operator is not None and found[birth][3] == operator:
                dropped |= {birth, place}
    on_host = torch.get_rng_state().nbytes  # what checkpointing keeps of the random state is in host memory everywhere
    return [event[1] for place, event in enumerate(found) if place not in dropped and abs(event[1]) != on_host]


def _unwatched(workload: Workload) -> list[int]:
    """Allocations and frees of a steady step under math attention that no dispatch mode watches."""
    from contextlib import nullcontext

    from galore_mem.training.session import Session

    class Nobody:
        def __getattr__(self, name: str) -> Any:  # noqa: ANN401
            return lambda *args, **kwargs: nullcontext()

    session = Session(workload, "math", None)
    session.iterate(Nobody(), "first")
    session.optimizers[0].zero_grad()
    return _profiled(lambda: session.iterate(Nobody(), "steady"))


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        *[
            (family, {"precision": precision})
            for family in ("llama", "tied", "qwen3")
            for precision in ("bf16", "fp32")
        ],
        ("llama", {"checkpointing": "full", "batch": 8}),
    ],
)
def test_peak_is_that_of_an_unwatched_step(small: Small, family: str, settings: dict[str, Any]) -> None:
    """Without any dispatch mode, as torch's profiler sees it: only so does the engine add gradients in place."""
    from galore_mem.answers.steps import record
    from galore_mem.profiler.recording import peaks_of

    workload = small("sgd", family=family, layers=3, attention="math", **settings)
    truth = _peak(_unwatched(workload))
    recording = record(workload, "math")
    weights = sum(-(-life.nbytes // 512) * 512 for life in recording.lives if life.category in ("weights", "buffers"))
    traced = max(peak.live_bytes for peak in peaks_of(recording)) - weights
    assert abs(traced - truth) <= 512 * 4


SCORES_BYTES = 4 * 4 * 96 * 96


@pytest.mark.parametrize("settings", [{}, {"precision": "bf16"}, {"checkpointing": "full"}, {"padding": True}])
def test_math_attention_adds_its_mask_in_place_as_an_unwatched_step_does(
    small: Small, settings: dict[str, Any]
) -> None:
    """Births and deaths of everything as large as the scores of one layer, in order.

    Watched, torch would make a sum beside them (native/transformers/attention.cpp, `areAnyTensorSubclassLike`).
    """
    from galore_mem.answers.steps import record

    workload = small("sgd", attention="math", **{"seq": 96, "precision": "fp32", **settings})
    truth = [size for size in _unwatched(workload) if abs(size) == SCORES_BYTES]
    recording = record(workload, "math")
    steady = [(begin, end) for begin, end, iteration, _ in recording.stretches() if iteration == "steady"]
    traced = [
        recording.lives[abs(code) - 1].nbytes * (1 if code > 0 else -1)
        for begin, end in steady
        for code in recording.events[begin:end]
    ]
    assert [size for size in traced if abs(size) == SCORES_BYTES] == truth
