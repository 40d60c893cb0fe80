from typing import Any

import pytest

from profiles.configs import config_notes, shape_from_config
from profiles.errors import InputError, UncoveredError
from profiles.families.bert import BertShape


def shape_of(model_type: str = "roberta", **config: Any) -> BertShape:  # noqa: ANN401
    shape = shape_from_config({"model_type": model_type, **config}, "m")
    assert isinstance(shape, BertShape)
    return shape


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    shape = shape_of("bert")
    assert (shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers, shape.head_dim) == (768, 3072, 12, 64)
    assert (shape.vocab_size, shape.type_vocab_size, shape.num_labels) == (30522, 2, 2)
    assert (shape.attention_dropout, shape.hidden_dropout, shape.classifier_dropout) == (0.1, 0.1, 0.1)
    assert shape_of().vocab_size == 50265


def test_roberta_keeps_positions_for_padding() -> None:
    shape = shape_of(max_position_embeddings=514, pad_token_id=1)
    assert (shape.max_position_embeddings, shape.position_rows) == (512, 514)
    shape = shape_of("bert", max_position_embeddings=512, pad_token_id=0)
    assert (shape.max_position_embeddings, shape.position_rows) == (512, 512)


def test_labels_are_those_that_are_named() -> None:
    assert shape_of(id2label={"0": "no", "1": "maybe", "2": "yes"}).num_labels == 3
    assert shape_of(num_labels=5).num_labels == 5
    assert shape_of(hidden_dropout_prob=0.2, classifier_dropout=None).classifier_dropout == 0.2


def test_a_masked_language_model_is_planned_as_a_classifier() -> None:
    config = {"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}
    (note,) = config_notes(config, shape_of())
    assert note == "architectures names RobertaForMaskedLM: the plan is for a classifier of sequences."
    assert config_notes({"architectures": ["RobertaForSequenceClassification"]}, shape_of()) == ()


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        ({"is_decoder": True}, UncoveredError, "is_decoder asks for a decoder"),
        ({"architectures": ["RobertaForCausalLM"]}, UncoveredError, "architectures names a decoder"),
        ({"hidden_act": "relu"}, UncoveredError, "hidden_act is 'relu'"),
        ({"chunk_size_feed_forward": 8}, UncoveredError, "in pieces"),
        ({"num_labels": 1}, UncoveredError, "a regression"),
        ({"problem_type": "multi_label_classification"}, UncoveredError, "multi_label"),
        ({"hidden_size": 100}, InputError, "100 is not a multiple of num_attention_heads 12"),
        ({"num_labels": 3, "id2label": {"0": "a", "1": "b"}}, InputError, "is 3, and id2label names 2"),
        ({"pad_token_id": 60000}, InputError, "is none of vocab_size"),
        ({"max_position_embeddings": 2}, InputError, "leaves none behind pad_token_id 1"),
        ({"hidden_dropout_prob": 1.5}, InputError, "a number from 0 to below 1"),
        ({"type_vocab_size": "two"}, InputError, "a positive integer"),
    ],
)
def test_other_configs_are_refused_in_one_line(config: dict[str, Any], error: type[InputError], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        shape_of(**config)
    assert "\n" not in str(caught.value)
