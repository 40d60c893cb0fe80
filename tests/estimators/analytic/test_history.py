"""Histories written from the closed form: well formed, as large as its moments, and near to a traced one."""

from typing import Any

import pytest

from estimators.allocator.plain import plain_peaks
from estimators.allocator.replay import Event, replay
from estimators.analytic.attention import attention_kernel
from estimators.analytic.cards import USUAL
from estimators.analytic.estimate import estimate
from estimators.analytic.history import history_of, written_history
from estimators.workload import METHODS, Workload
from galore_mem.answers.settings import Settings, workloads
from profiles.configs import shape_from_config
from profiles.models import find_model
from profiles.shapes import ModelShape

SHAPE = ModelShape(
    name="small",
    model_type="llama",
    hidden_size=256,
    intermediate_size=704,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    vocab_size=1000,
    max_position_embeddings=2048,
)
RUNS: list[dict[str, Any]] = [
    {"checkpointing": "full"},
    {"precision": "amp-bf16", "batch": 2},
    {"attention": "eager", "grad_accumulation": 4},
    {"precision": "fp32", "attention": "math"},
    {"keep_outputs": True, "use_cache": True},
    {"loss": "chunked"},
    {"eval_batch": 64, "zero_grad": "end"},
    {"eval_batch": 64, "eval_keep": 5},
    {"eval_batch": 64, "eval_keep": 2, "precision": "amp-bf16", "resume": "device"},
]


def make(method: str, **words: Any) -> Workload:  # noqa: ANN401
    rank = {} if METHODS[method].parameterisation == "full" else {"rank": 32}
    (workload,) = workloads(SHAPE, (method,), Settings(**{"seq": 128, **rank, **words}))
    return workload


def check(workload: Workload) -> None:
    """Blocks are made once and freed once, the live peak is the closed form's, and sections may be passed over."""
    history = written_history(workload)
    events = history.events()
    made: set[object] = set()
    alive: set[object] = set()
    for action, block, size, _, _ in events:
        if action == "alloc":
            assert size > 0
            assert block not in made
            made.add(block)
            alive.add(block)
        else:
            alive.remove(block)
    run = replay(events)
    assert plain_peaks(*history) == (run.peak_allocated_bytes, run.peak_reserved_bytes)
    assert run.peak_live_bytes == pytest.approx(estimate(workload).peak_live_bytes, rel=0.02)
    lasting = [event for event in events if event[1] in alive]
    assert sum(event[2] for event in lasting) < run.peak_live_bytes


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("update", ["whole", "per-layer"])
def test_every_method(method: str, update: str) -> None:
    check(make(method, update=update))
    if METHODS[method].parameterisation == "galore":
        check(make(method, update=update, implementation="galore-torch"))


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("resume", ["cpu", "device"])
def test_every_method_is_resumed(method: str, resume: str) -> None:
    """The file's tensors, those that loaders copy, and states from the first step on."""
    check(make(method, resume=resume))
    if METHODS[method].parameterisation == "galore":
        check(make(method, resume=resume, update="per-layer", implementation="galore-torch"))


@pytest.mark.parametrize("run", RUNS)
def test_every_way_to_run_a_step(run: dict[str, Any]) -> None:
    check(make("adamw", **run))


@pytest.mark.parametrize("proj_type", ["reverse_std", "full", "left", "right"])
def test_every_side(proj_type: str) -> None:
    check(make("galore-adamw", proj_type=proj_type))


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("steps", [2, 3])
def test_every_method_gathers_gradients_of_several_passes(method: str, steps: int) -> None:
    if METHODS[method].states_on != "host":
        check(make(method, update="per-layer", grad_accumulation=steps))


@pytest.mark.parametrize("steps", [4, 9])
def test_micro_batches_after_the_third_find_the_blocks_of_those_before(steps: int) -> None:
    """So three are written of any number."""
    few, many = (make("adamw-8bit", grad_accumulation=number, batch=3) for number in (3, steps))
    assert history_of(few) == history_of(many)
    assert estimate(few).peak_live_bytes == estimate(many).peak_live_bytes


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("adamw", {"checkpointing": "full"}),
        ("adamw", {"precision": "amp-bf16", "batch": 2, "loss": "chunked"}),
        ("adamw", {"loss": "chunked", "batch": 7, "seq": 900}),
        ("lora", {"loss": "chunked", "batch": 3, "seq": 1024, "rank": 8, "checkpointing": "full"}),
        ("sgd", {"loss": "chunked", "batch": 5, "seq": 700, "grad_accumulation": 2}),
        ("sgd-momentum", {"batch": 3, "checkpointing": "full"}),
        ("lora", {"attention": "eager", "batch": 2, "rank": 8}),
        ("adamw", {"attention": "math", "batch": 2}),
        ("sgd", {"attention": "math", "batch": 2, "padding": True}),
        ("qlora", {"checkpointing": "full", "batch": 2, "rank": 8, "bnb_4bit_use_double_quant": True}),
        ("galore-adamw-8bit", {"update": "per-layer", "rank": 32}),
        ("galore-adafactor", {"update": "per-layer", "rank": 32, "grad_accumulation": 3}),
        ("adamw", {"update": "per-layer", "grad_accumulation": 2}),
        ("galore-adamw-8bit", {"implementation": "galore-torch", "rank": 32}),
        ("adamw", {"empty_cache": "step", "batch": 8, "seq": 512}),
        ("adamw", {"empty_cache": "step", "batch": 8, "zero_grad": "end"}),
        ("adamw", {"empty_cache": "backward", "batch": 8, "seq": 512, "grad_accumulation": 2}),
        (
            "galore-adamw",
            {"empty_cache": "backward", "batch": 4, "rank": 32, "loss": "chunked", "checkpointing": "full"},
        ),
    ],
)
def test_events_are_those_of_the_trace(method: str, words: dict[str, Any]) -> None:
    """Births and deaths of all blocks above 64 KiB, each told apart; and what they make the allocator reserve."""
    pytest.importorskip("torch")
    for module in ("bitsandbytes", "peft", "galore_torch"):
        pytest.importorskip(module)

    assert_events_are_those_of_the_trace(make(method, **words))


FAMILIES: list[tuple[str, str, dict[str, Any]]] = [
    ("t5-base", "adamw", {}),
    ("opt-125m", "adamw-8bit", {"precision": "amp-bf16", "checkpointing": "full"}),
    ("opt-350m", "galore-adamw", {"update": "per-layer", "rank": 64}),
    ("falcon-7b", "sgd", {"precision": "amp-bf16", "checkpointing": "full"}),
    ("falcon-7b", "lora", {"padding": True}),
    ("phi-2", "sgd", {"checkpointing": "full"}),
    ("phi-3-mini", "adamw", {}),
    ("pythia-160m", "adamw", {"update": "per-layer", "padding": True}),
    ("gpt2", "adamw", {"checkpointing": "full"}),
    ("bloom-560m", "adamw", {"batch": 1}),
    ("qwen3-30b-a3b", "sgd", {"checkpointing": "full"}),
    ("gpt-oss-20b", "sgd", {"batch": 1}),
    ("gemma-2-2b", "adamw-8bit", {"attention": "eager", "padding": True, "checkpointing": "full"}),
    ("bert-base", "adamw", {"update": "per-layer"}),
]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("name", "method", "words"), FAMILIES)
def test_events_of_every_kind_of_model_are_those_of_the_trace(name: str, method: str, words: dict[str, Any]) -> None:
    """Two layers of models of the catalogue, whose own way to compute shows in the order of births and deaths."""
    pytest.importorskip("torch")
    for module in ("bitsandbytes", "peft", "transformers"):
        pytest.importorskip(module)
    from benchmarks.ledger_diff import shallow

    shape = shape_from_config(shallow(dict(find_model(name).config), 2), name)
    (workload,) = workloads(shape, (method,), Settings(**{"seq": 192, "batch": 2, **words}))
    assert_events_are_those_of_the_trace(workload)


def assert_events_are_those_of_the_trace(workload: Workload) -> None:
    from galore_mem.answers.lengths import events_of
    from galore_mem.answers.steps import record

    recording = record(workload, attention_kernel(workload, None), workspace_bytes=8_519_680, card=USUAL)
    histories = [list(events_of(recording)), history_of(workload)]
    traced, written = map(large_blocks, histories)
    assert traced == written
    peaks = [replay(events).peak_reserved_bytes for events in histories]
    assert abs(peaks[1] - peaks[0]) <= SMALL_SEGMENT_BYTES


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("words", [{"eval_batch": 64}, {"eval_batch": 48, "eval_keep": 4, "precision": "amp-bf16"}])
def test_an_evaluation_reserves_what_a_traced_one_does(words: dict[str, Any]) -> None:
    """The evaluation is by far the largest moment of these runs."""
    pytest.importorskip("torch")
    from galore_mem.answers.lengths import events_of
    from galore_mem.answers.steps import record

    workload = make("sgd", **words)
    traced = replay(events_of(record(workload, "flash", workspace_bytes=8_519_680))).peak_reserved_bytes
    without = replay(history_of(make("sgd", **{**words, "eval_batch": None, "eval_keep": None}))).peak_reserved_bytes
    written = replay(history_of(workload)).peak_reserved_bytes
    assert abs(written - traced) <= SMALL_SEGMENT_BYTES
    assert written > 2 * without


SMALL_SEGMENT_BYTES = 2 << 20


def large_blocks(events: list[Event]) -> list[tuple[int, frozenset[int]]]:
    """Each larger block as it is made: its rounded bytes, and which of those before it died since the last one.

    An emptied cache counts as a block of no bytes.

    What dies between two births may do so in any order: an allocator merges to the same pieces.
    """
    sizes: dict[object, int] = {}
    numbers: dict[object, int] = {}
    died: set[int] = set()
    found: list[tuple[int, frozenset[int]]] = []
    for action, block, nbytes, _, _ in events:
        if action == "alloc":
            sizes[block] = -(-nbytes // 512) * 512
            if sizes[block] > 64 << 10:
                found.append((sizes[block], frozenset(died)))
                numbers[block] = len(found)
                died = set()
        elif action == "empty_cache":
            found.append((0, frozenset(died)))
            died = set()
        elif sizes[block] > 64 << 10:
            died.add(numbers[block])
    return found
