"""Steps of enough tokens that sums over them leave partial sums: the closed form has as many of them, and as large."""

from collections import Counter
from typing import Any

import pytest

from estimators.analytic.attention import attention_kernel
from estimators.analytic.cards import USUAL
from estimators.analytic.estimate import estimate
from estimators.analytic.history import history_of
from estimators.workload import Batch, Method, Workload
from galore_mem.answers.lengths import events_of
from galore_mem.answers.steps import record
from galore_mem.profiler.recording import Recording, peaks_of
from profiles.configs import shape_from_config
from profiles.gpus import SMALL_WORKSPACE_BYTES

pytest.importorskip("torch")
pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 160,
    "max_position_embeddings": 2048,
}
GEMMA = {"model_type": "gemma3_text", "head_dim": 32, "pad_token_id": 0}
LARGE_BYTES = 300_000


def recorded(workload: Workload) -> Recording:
    kernel = attention_kernel(workload, None)
    return record(workload, kernel, workspace_bytes=SMALL_WORKSPACE_BYTES, card=USUAL)


def workload_of(config: dict[str, Any], **words: Any) -> Workload:  # noqa: ANN401
    batch = Batch(micro_batch_size=2, sequence_length=600)
    return Workload(model=shape_from_config(SIZES | config, "small"), method=Method(name="sgd"), batch=batch, **words)


@pytest.mark.parametrize(
    ("config", "words", "sums"),
    [
        ({"model_type": "qwen2", "tie_word_embeddings": True}, {}, 2 * (2 * 3 + 1)),
        ({"model_type": "qwen3", "head_dim": 32}, {"checkpointing": "full"}, 2 * (2 * 2 + 1)),
        ({"model_type": "phi", "intermediate_size": 512}, {"precision": "amp-bf16"}, None),
        (GEMMA, {}, None),
    ],
    ids=lambda value: value.get("model_type", "") if isinstance(value, dict) else "",
)
def test_a_step_has_the_partial_sums_of_its_trace(
    config: dict[str, Any], words: dict[str, Any], sums: int | None
) -> None:
    """Of norms, of biases, and of norms on heads; 64 keys' biases are too few for 1,200 tokens to be shared out."""
    workload = workload_of(config, **words)
    recording = recorded(workload)
    traced = Counter(life.nbytes for life in recording.lives if life.operator == "sum" and life.nbytes > LARGE_BYTES)
    made = Counter(size for kind, _, size, *_ in events_of(recording) if kind == "alloc" and size in traced)
    planned = Counter(size for kind, _, size, *_ in history_of(workload) if kind == "alloc" and size in traced)
    assert traced
    assert planned == made
    if sums is not None:
        assert traced.total() == sums
    moments = {f"{peak.iteration} {peak.window}": peak.live_bytes for peak in peaks_of(recording)}
    for moment in estimate(workload).moments:
        assert moment.live_bytes == moments[moment.label]


def test_a_recording_without_a_card_has_none() -> None:
    workload = workload_of({"model_type": "llama"})
    recording = record(workload, "flash")
    assert not [life for life in recording.lives if life.operator == "sum" and life.nbytes > LARGE_BYTES]
