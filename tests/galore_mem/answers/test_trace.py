"""The traced answer: against the closed form on small models, its peaks in order, its files, and its refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from estimators.analytic.estimate import estimate
from estimators.footprint import Moment
from galore_mem.answers.settings import Settings, workloads
from profiles.shapes import ModelShape

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

WORST_PCT = 2.0
"""What the closed form may be off by."""
SHAPE = ModelShape(
    name="small",
    model_type="llama",
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    vocab_size=900,
    max_position_embeddings=128,
)
RUNS: list[tuple[str, dict[str, Any]]] = [
    ("adamw", {}),
    ("adamw", {"precision": "amp-bf16", "checkpointing": "full"}),
    ("adamw-8bit", {"attention": "eager", "batch": 2}),
    ("adamw", {"master_weights": True, "clip": True}),
    ("sgd", {"master_weights": True, "grad_accumulation": 2}),
    ("sgd", {"eval_batch": 32, "eval_seq": 128, "eval_keep": 5}),
    ("lora", {"rank": 8, "lora_dropout": 0.1, "eval_batch": 32, "checkpointing": "full", "precision": "amp-bf16"}),
    ("paged-adamw-8bit", {}),
    ("paged-adamw-32bit", {"update": "per-layer"}),
    ("offload-adamw", {"grad_accumulation": 2, "clip": True}),
    ("sgd", {"loss": "chunked", "grad_accumulation": 2, "clip": True}),
    ("lora", {"rank": 8, "clip": True}),
    ("adamw", {"data_parallel": 2, "grad_accumulation": 2, "clip": True}),
    ("adamw-8bit", {"data_parallel": 8, "gradient_as_bucket_view": True, "grad_accumulation": 3, "eval_batch": 32}),
    ("lora", {"rank": 8, "data_parallel": 2, "gradient_as_bucket_view": True, "precision": "amp-bf16"}),
    ("galore-adamw", {"rank": 16, "data_parallel": 2, "gradient_as_bucket_view": True, "loss": "chunked"}),
    ("low-rank", {"rank": 8, "update": "per-layer"}),
    ("galore-adamw", {"rank": 16, "precision": "fp32", "attention": "math"}),
    ("galore-adamw-8bit", {"rank": 16, "update": "per-layer"}),
    ("galore-adamw", {"rank": 16, "implementation": "galore-torch"}),
    ("galore-adafactor", {"rank": 16, "implementation": "galore-torch", "update": "per-layer"}),
]


@pytest.mark.parametrize(("method", "settings"), RUNS)
def test_closed_form_and_trace_agree(method: str, settings: dict[str, Any]) -> None:
    from galore_mem.answers.trace import trace

    (workload,) = workloads(SHAPE, (method,), Settings(**{"seq": 64, **settings}))
    traced, analytic = trace(workload).footprint, estimate(workload)
    assert analytic.peak_live_bytes == pytest.approx(traced.peak_live_bytes, rel=WORST_PCT / 100)
    assert dict(analytic.resident_bytes) == dict(traced.resident_bytes)
    assert {moment.label for moment in analytic.moments} == {moment.label for moment in traced.moments}
    assert traced.peak_live_bytes <= traced.peak_allocated_bytes <= traced.peak_reserved_bytes < traced.process_bytes


GATHERED: list[tuple[str, dict[str, Any]]] = [
    ("adamw", {"grad_accumulation": 2}),
    ("adamw-8bit", {"grad_accumulation": 3, "checkpointing": "full"}),
    ("adafactor", {"grad_accumulation": 4}),
    ("lora", {"rank": 8, "grad_accumulation": 3}),
    ("galore-adamw", {"rank": 16, "grad_accumulation": 3, "proj_type": "full"}),
    ("galore-adamw-8bit", {"rank": 16, "grad_accumulation": 2}),
    ("galore-adafactor", {"rank": 16, "grad_accumulation": 4}),
]


@pytest.mark.parametrize(("method", "settings"), GATHERED)
def test_accumulation_per_layer_is_the_traced_one_to_the_byte(method: str, settings: dict[str, Any]) -> None:
    """Every category at every moment: what passes leave to each other, and who steps it when."""
    from galore_mem.answers.trace import trace

    (workload,) = workloads(SHAPE, (method,), Settings(**{"seq": 64, "update": "per-layer", **settings}))
    traced, analytic = trace(workload).footprint, estimate(workload)
    assert [(moment.label, dict(moment.by_category)) for moment in sorted(analytic.moments, key=_label)] == [
        (moment.label, dict(moment.by_category)) for moment in sorted(traced.moments, key=_label)
    ]


def _label(moment: Moment) -> str:
    return moment.label


def test_files_and_json(tmp_path: Path) -> None:
    from galore_mem.answers.snapshot import write_predicted
    from galore_mem.answers.trace import trace
    from galore_mem.tapes.file import write_tape
    from galore_mem.tapes.recording import read_recording

    (workload,) = workloads(SHAPE, ("galore-adamw",), Settings(seq=64, rank=16))
    result = trace(workload, gpus="4090")
    content = json.loads(json.dumps(result.to_dict()))
    assert content["schema"] == "galore-mem/trace/1"
    assert [fit["gpu"] for fit in content["fits"]] == ["RTX 4090"]
    assert content["largest"][0]["bytes"] >= content["largest"][-1]["bytes"]
    write_tape(tmp_path / "out.json.gz", result.tape)
    (same,) = read_recording(tmp_path / "out.json.gz").devices
    assert list(same.events.rows()) == list(result.tape.devices[0].events.rows())
    write_predicted(tmp_path / "out.pickle", result.tape)
    (device,) = read_recording(tmp_path / "out.pickle").devices
    from galore_mem.answers.replay import replay_tape

    (replayed,) = replay_tape(read_recording(tmp_path / "out.pickle")).devices
    assert device.has_effects
    assert replayed.replayed.peak_reserved_bytes == result.footprint.peak_reserved_bytes
    assert replayed.first_difference is None


def test_lengths_that_vary_widen_reserved_and_leave_live_alone() -> None:
    from galore_mem.answers.replay import replay_tape
    from galore_mem.answers.trace import trace

    (workload,) = workloads(SHAPE, ("sgd",), Settings(batch=256, seq=128))
    alike = trace(workload, gpus="4090").footprint
    result = trace(workload, gpus="4090", lengths=(100, 128, 112))
    footprint, found = result.footprint, result.variation
    assert found is not None
    assert found.reserved.peaks_bytes[0] == footprint.peak_reserved_bytes, "the order drawn is the one in the tape"
    assert footprint.peak_live_bytes == alike.peak_live_bytes
    assert found.equal.peaks_bytes == (alike.peak_reserved_bytes,)
    assert found.reserved.high_bytes > alike.peak_reserved_bytes
    context = next(term for term in footprint.terms if term.name == "context")
    assert footprint.upper_bytes == found.reserved.high_bytes + context.high_bytes
    (device,) = replay_tape(result.tape, alloc_conf="expandable_segments:True").devices
    rows = {row.name: row for row in found.remedies}
    assert rows["expandable_segments"].peaks_bytes[0] == device.replayed.peak_reserved_bytes
    assert rows["padded to a multiple of 32"].lengths == (128, 128, 128)
    content = json.loads(json.dumps(result.to_dict()))["lengths"]
    assert content["steps"] == content["orders"][0] == [100, 128, 112]
    assert content["reserved"]["high_bytes"] == found.reserved.high_bytes


def test_more_steps_of_one_length_repeat_the_steady_one() -> None:
    from galore_mem.answers.trace import trace

    (workload,) = workloads(SHAPE, ("galore-adamw",), Settings(seq=64, rank=16))
    usual, five = trace(workload), trace(workload, steps=5)
    assert five.footprint.moments == usual.footprint.moments
    assert (usual.steps, five.steps) == (2, 5)
    marks = [mark.name for mark in five.tape.devices[0].marks if mark.kind == "iteration"]
    assert marks == ["first", *["steady"] * 4]
    assert five.variation is None


def test_one_step_is_the_first() -> None:
    from galore_mem.answers.trace import trace

    (workload,) = workloads(SHAPE, ("sgd",), Settings(seq=64))
    assert {moment.iteration for moment in trace(workload, steps=1).footprint.moments} == {"first"}


def test_command_refuses_two_methods() -> None:
    from galore_mem.commands.app import call
    from galore_mem.errors import UsageError

    with pytest.raises(UsageError, match="one --method"):
        call(["trace", "llama-60m", "--method", "adamw", "sgd"])


def test_settings_are_checked_before_anything_is_built() -> None:
    from galore_mem.answers.trace import trace
    from profiles.errors import InputError

    with pytest.raises(InputError, match="unknown method"):
        trace("llama-60m", method="adamww")
    with pytest.raises(InputError, match="flash attention needs half precision"):
        trace("llama-60m", precision="fp32", attention="flash")


@pytest.mark.parametrize("zero_grad", ["start", "end"])
def test_an_emptied_cache_leaves_what_lives_between_steps(zero_grad: str) -> None:
    from estimators.analytic.bounds import between_steps_bytes
    from galore_mem.answers.trace import trace

    words: dict[str, Any] = {"seq": 128, "batch": 64, "zero_grad": zero_grad}
    usual, emptied, early = (
        trace(workloads(SHAPE, ("adamw",), Settings(**words, empty_cache=where))[0])
        for where in ("none", "step", "backward")
    )
    assert emptied.footprint.moments == usual.footprint.moments == early.footprint.moments
    assert emptied.footprint.peak_reserved_bytes <= usual.footprint.peak_reserved_bytes
    left = emptied.replay.replayed.end_reserved_bytes
    assert left < usual.replay.replayed.end_reserved_bytes
    two_segments_bytes = 2 * 20 * 2**20
    assert left == pytest.approx(between_steps_bytes(emptied.workload), abs=two_segments_bytes)
    actions = [row[0] for row in emptied.tape.devices[0].events.rows()]
    assert [actions.count("empty_cache"), actions[-1]] == [2, "empty_cache"]


def test_tensors_that_torch_cannot_address_are_refused_in_one_line() -> None:
    from galore_mem.answers.trace import trace
    from profiles.errors import InputError

    with pytest.raises(InputError, match=r"4,611,686,014,132,420,609 tokens at once cannot be traced"):
        trace("llama-60m", batch=2**31 - 1, seq=2**31 - 1)
