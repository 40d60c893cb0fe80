"""BERT and RoBERTa: parameters against transformers, a step against its trace, a layer against its hooks."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.analytic.buffers import buffers
from estimators.analytic.ledger import layer_ledger
from estimators.analytic.parameters import model_parameters, parameter_count, workload_parameters
from estimators.work import work_per_token
from estimators.workload import Workload
from profiles import catalogue
from profiles.configs import shape_from_config

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

MakeWorkload = Callable[..., Workload]
CONFIG: dict[str, Any] = {
    "model_type": "roberta",
    "hidden_size": 96,
    "intermediate_size": 200,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "vocab_size": 501,
    "max_position_embeddings": 131,
    "type_vocab_size": 1,
    "pad_token_id": 1,
}
BERT = CONFIG | {"model_type": "bert", "type_vocab_size": 2}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
RUNS: tuple[dict[str, Any], ...] = (
    {"batch": 2, "dropout": 0.3},
    {"precision": "fp32", "attention": "efficient", "padding": True, "batch": 2},
    {"precision": "amp-bf16", "checkpointing": "full"},
    {"attention": "math", "batch": 2},
    {"attention": "eager", "precision": "amp-bf16", "batch": 2},
    {"grad_accumulation": 3, "keep_outputs": True},
    {"method": "lora", "rank": 4},
    {"method": "low-rank", "rank": 4},
    {"method": "galore-adamw", "rank": 8, "update": "per-layer"},
)
BERTS_RUNS: tuple[dict[str, Any], ...] = (
    {"batch": 2},
    {"precision": "amp-bf16", "attention": "eager", "padding": True, "batch": 2},
    {"attention": "math", "padding": True},
    {"method": "lora", "rank": 4, "checkpointing": "full"},
    {"method": "relora", "rank": 4},
)


@pytest.mark.parametrize("way", RUNS, ids=str)
def test_a_roberta_step_is_its_trace(
    way: dict[str, Any], workload_of: MakeWorkload, assert_like_trace: Callable[[Workload], None]
) -> None:
    assert_like_trace(workload_of(CONFIG, **way))


@pytest.mark.parametrize("way", BERTS_RUNS, ids=str)
def test_a_bert_step_is_its_trace(
    way: dict[str, Any], workload_of: MakeWorkload, assert_like_trace: Callable[[Workload], None]
) -> None:
    assert_like_trace(workload_of(BERT, **way))


def test_variants_are_their_traces(workload_of: MakeWorkload, assert_like_trace: Callable[[Workload], None]) -> None:
    change = STILL | {"num_labels": 7, "num_hidden_layers": 1, "hidden_act": "silu", "classifier_dropout": 0.3}
    assert_like_trace(workload_of(CONFIG | change, batch=3))


@pytest.mark.parametrize("kernel", ["cpu", "math", "eager"])
@pytest.mark.parametrize("config", [CONFIG, BERT], ids=["roberta", "bert"])
def test_a_layer_saves_what_hooks_see(
    config: dict[str, Any], kernel: str, workload_of: MakeWorkload, saved_by_hooks: Callable[[Workload, str], int]
) -> None:
    deep, shallow = (
        workload_of(config | STILL | {"num_hidden_layers": layers}, precision="fp32", batch=2) for layers in (4, 3)
    )
    expected = saved_by_hooks(deep, kernel) - saved_by_hooks(shallow, kernel)
    assert sum(entry.exact_bytes for entry in layer_ledger(deep, kernel)) == expected


@pytest.mark.parametrize("name", ["bert-base", "bert-large", "roberta-base", "roberta-large"])
def test_the_catalogues_count_of_a_classifier(name: str) -> None:
    row = catalogue.find_row("models.jsonl", name)
    assert row is not None
    assert parameter_count(shape_from_config(row["config"], name)) == row["parameters"]


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    heads, width = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    return {
        "model_type": draw(st.sampled_from(["bert", "roberta"])),
        "hidden_size": heads * width,
        "num_attention_heads": heads,
        "intermediate_size": draw(st.integers(1, 50)),
        "num_hidden_layers": draw(st.integers(1, 5)),
        "vocab_size": draw(st.integers(4, 90)),
        "max_position_embeddings": draw(st.integers(4, 70)),
        "type_vocab_size": draw(st.integers(1, 3)),
        "num_labels": draw(st.integers(2, 4)),
    }


@settings(max_examples=25)
@given(configs())
def test_parameters_and_buffers_are_those_of_transformers(config: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    shape = shape_from_config(config, "drawn")
    with torch.device("meta"):
        real = transformers.AutoModelForSequenceClassification.from_config(transformers.AutoConfig.for_model(**config))
    assert parameter_count(shape) == sum(weight.numel() for weight in real.parameters())
    assert sum(entry.exact_bytes for entry in buffers(shape)) == sum(buffer.nbytes for buffer in real.buffers())
    first = [name for name, _ in real.named_parameters() if ".layer." not in name or ".layer.0." in name]
    assert [group.name.replace("*", "0") for group in model_parameters(shape)] == first


def test_lora_trains_a_copy_of_the_classifier(workload_of: MakeWorkload) -> None:
    groups = {group.name: group for group in workload_parameters(workload_of(CONFIG, method="lora", rank=4))}
    assert groups["classifier.modules_to_save.dense.weight"].trainable
    assert not groups["classifier.dense.weight"].trainable
    assert "classifier.dense.lora_A.weight" not in groups


def test_a_token_passes_the_layers_and_no_head(workload_of: MakeWorkload) -> None:
    """Two operations for each weight of the layers, and the scores: the head takes one token of each sequence."""
    workload = workload_of(CONFIG)
    layer = 4 * 96 * 96 + 2 * 96 * 200
    assert work_per_token(workload).forward == 4 * (2 * layer + 4 * 64 * 96)
