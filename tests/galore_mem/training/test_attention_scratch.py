"""Steps with the memory-efficient kernel: the closed form's moments are the trace's, category by category."""

from dataclasses import replace
from typing import Any

import pytest

from estimators.analytic.attention import attention_kernel
from estimators.analytic.cards import card_of
from estimators.analytic.estimate import estimate
from estimators.workload import Batch, Method, Workload
from galore_mem.answers.lengths import events_of
from galore_mem.answers.steps import record
from galore_mem.profiler.recording import peaks_of
from profiles.configs import shape_from_config
from profiles.gpus import SMALL_WORKSPACE_BYTES, find_gpu

pytest.importorskip("torch")
pytest.importorskip("transformers")

CONFIG: dict[str, Any] = {
    "model_type": "mistral",
    "intermediate_size": 352,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "sliding_window": None,
    "vocab_size": 200,
}
T5: dict[str, Any] = {
    "model_type": "t5",
    "d_model": 96,
    "d_kv": 32,
    "d_ff": 200,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "vocab_size": 331,
}


def workload_of(width: int, tokens: int = 250, **words: Any) -> Workload:  # noqa: ANN401
    config = CONFIG | {"head_dim": width, "hidden_size": 2 * width, "sliding_window": words.pop("window", None)}
    config = words.pop("config", config)
    words.setdefault("attention", "auto" if config["sliding_window"] else "efficient")
    return Workload(
        model=shape_from_config(config, "small"),
        method=Method(name="sgd"),
        batch=Batch(micro_batch_size=2, sequence_length=tokens),
        **words,
    )


def assert_like_trace(workload: Workload, card: str) -> None:
    """Every category of every moment."""
    gpu = find_gpu(card)
    kernel = attention_kernel(workload, gpu)
    assert kernel == "efficient"
    recording = record(workload, kernel, workspace_bytes=gpu.cublas_workspace_recent_bytes, card=card_of(gpu))
    planned = {moment.label: dict(moment.by_category) for moment in estimate(workload, gpu).moments}
    traced = {f"{peak.iteration} {peak.window}": peak.by_category for peak in peaks_of(recording)}
    assert planned == {label: traced[label] for label in planned}


@pytest.mark.parametrize(
    ("width", "card", "words"),
    [
        (64, "4090", {"padding": True}),
        (128, "a100-80gb", {"padding": True}),
        (128, "4090", {"window": 100, "tokens": 176, "checkpointing": "full"}),
        (256, "4090", {"padding": True}),
        (64, "4090", {"padding": True, "precision": "fp32"}),
        (128, "t4", {"padding": True, "precision": "fp32"}),
        (96, "t4", {"precision": "amp-fp16", "tokens": 256}),
        (256, "v100-16gb", {"precision": "amp-fp16"}),
    ],
    ids=str,
)
def test_a_step_beside_a_mask_is_its_trace(width: int, card: str, words: dict[str, Any]) -> None:
    assert_like_trace(workload_of(width, **words), card)


def test_a_learned_bias_is_padded_like_a_mask() -> None:
    workload = replace(workload_of(64, precision="fp32", window=None), model=shape_from_config(T5, "small"))
    assert_like_trace(replace(workload, attention="auto"), "4090")


def test_a_trace_holds_the_workspace_that_the_headers_say() -> None:
    """Of one sequence of two heads of 64 in bf16: four blocks of 64 queries, 16,400 bytes each."""
    workload = replace(workload_of(64, padding=True), batch=Batch(sequence_length=256))
    tape = record(workload, "efficient", workspace_bytes=SMALL_WORKSPACE_BYTES)
    sizes = [size for kind, _, size, *_ in events_of(tape) if kind == "alloc"]
    assert sizes.count(2 * 4 * 16400) == 2 * 2, "two layers, two iterations"
