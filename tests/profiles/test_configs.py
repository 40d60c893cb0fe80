import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimators.analytic.parameters import parameter_count
from profiles.configs import FAMILIES, GATE_ACTIVATIONS, MAX_CONFIG_BYTES, config_notes, read_config, shape_from_config
from profiles.errors import InputError

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}
VARIATIONS: list[dict[str, Any]] = [
    {},
    {"head_dim": 32},
    {"tie_word_embeddings": True},
    {"attention_bias": True},
    {"mlp_bias": True},
    {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 8},
    {"attention_dropout": 0.1, "hidden_act": "gelu", "max_position_embeddings": 512},
    {"sliding_window": 16},
    {"sliding_window": None},
    {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 16},
    {"use_sliding_window": True, "max_window_layers": 3},
    {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 16},
    {"use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    {"layer_types": ["full_attention"] * 3},
    {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["sliding_attention"] * 3},
]


@pytest.mark.parametrize("variation", VARIATIONS, ids=json.dumps)
@pytest.mark.parametrize("family", FAMILIES)
def test_shape_is_that_of_the_model_transformers_builds(family: str, variation: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = {"model_type": family, **SMALL, **variation}
    shape = shape_from_config(config, "small")
    settings = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(settings)
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    assert shape.num_key_value_heads * shape.head_dim == attention.k_proj.out_features
    assert shape.head_dim == attention.head_dim
    assert shape.qkv_bias == (attention.q_proj.bias is not None)
    assert shape.output_bias == (attention.o_proj.bias is not None)
    assert shape.mlp_bias == (mlp.down_proj.bias is not None)
    assert shape.qk_norm == hasattr(attention, "q_norm")
    assert shape.attention_dropout == attention.attention_dropout
    assert shape.hidden_act == settings.hidden_act
    assert shape.max_position_embeddings == settings.max_position_embeddings
    assert shape.tie_word_embeddings == (model.lm_head.weight is model.model.embed_tokens.weight)
    assert parameter_count(shape) == sum(parameter.numel() for parameter in model.parameters())
    kinds = shape.layer_types or ("sliding_attention" if shape.sliding_window else "full_attention",) * 3
    assert [shape.sliding_window if kind == "sliding_attention" else None for kind in kinds] == _real_windows(model)


def _real_windows(model: Any) -> list[int | None]:  # noqa: ANN401
    """Each layer's."""
    if model.config.model_type in ("llama", "mistral"):
        return [model.config.sliding_window if model.config.model_type == "mistral" else None] * 3
    return [layer.self_attn.sliding_window for layer in model.model.layers]


@pytest.mark.parametrize("family", FAMILIES)
def test_null_key_value_heads_mean_as_many_as_query_heads(family: str) -> None:
    """Every family's configuration class says so; Mistral's type check in transformers 5 refuses null before that."""
    assert shape_from_config({"model_type": family, **SMALL, "num_key_value_heads": None}, "m").num_key_value_heads == 4


@pytest.mark.parametrize(
    ("name", "same"), [(name, True) for name in GATE_ACTIVATIONS] + [("relu", False), ("gelu_new", False)]
)
def test_accepted_activations_save_what_silu_saves(name: str, same: bool) -> None:
    pytest.importorskip("torch")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    assert (_saved_bytes(llama, name) == _saved_bytes(llama, "silu")) is same


def _saved_bytes(llama: Any, activation: str) -> int:  # noqa: ANN401
    import torch

    mlp = llama.LlamaMLP(llama.LlamaConfig(**SMALL, hidden_act=activation)).bfloat16()
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = mlp(torch.randn(8, 64, dtype=torch.bfloat16, requires_grad=True))
    assert output.requires_grad
    return sum(held.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("key", ["num_key_value_heads", "head_dim", "max_position_embeddings", "hidden_act"])
def test_missing_keys_take_the_defaults_of_the_family(family: str, key: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = {"model_type": family, **SMALL, "num_attention_heads": 32}
    config.pop(key, None)
    shape = shape_from_config(config, "small")
    settings = transformers.AutoConfig.for_model(**config)
    assert shape.num_key_value_heads == settings.num_key_value_heads
    assert shape.head_dim == (getattr(settings, "head_dim", None) or 64 // 32)
    assert shape.max_position_embeddings == settings.max_position_embeddings
    assert shape.hidden_act == settings.hidden_act


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"])
@pytest.mark.parametrize("value", ["64", "", True, -1, 0, 64.0, float("nan"), float("inf"), [64], {}])
def test_sizes_must_be_positive_integers(key: str, value: object) -> None:
    _refused({"model_type": "llama", **SMALL, key: value}, rf"my-model: {key} is .* it should be a positive integer")


@pytest.mark.parametrize("value", [2**31, 10**40])
def test_sizes_have_a_largest_value(value: int) -> None:
    _refused(
        {"model_type": "llama", **SMALL, "hidden_size": value}, r"hidden_size is .* it should be 2147483647 at most"
    )


@pytest.mark.parametrize("key", [key for key in SMALL if key != "num_key_value_heads"])
def test_missing_and_null_sizes_name_the_key(key: str) -> None:
    config = {"model_type": "llama", **SMALL}
    del config[key]
    _refused(config, f"my-model lacks the key {key}")
    _refused({**config, key: None}, f"my-model: {key} is null")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 66}, "hidden_size 66 is not a multiple of num_attention_heads 4"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide num_attention_heads 4"),
        ({"num_key_value_heads": 8}, "num_key_value_heads 8 does not divide num_attention_heads 4"),
        ({"head_dim": 15}, "head_dim 15 is odd"),
        ({"head_dim": 0}, "head_dim is 0"),
        ({"tie_word_embeddings": "true"}, 'tie_word_embeddings is "true". it should be true or false'),
        ({"attention_bias": 1}, "attention_bias is 1"),
        ({"mlp_bias": None}, "mlp_bias is null"),
        ({"attention_dropout": float("nan")}, "attention_dropout is NaN"),
        ({"attention_dropout": 1}, "attention_dropout is 1. it should be a number from 0 to below 1"),
        ({"attention_dropout": "0.1"}, "attention_dropout is"),
        ({"hidden_act": 7}, "hidden_act is 7. it should be a string"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', which is none of silu"),
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new', which is none of silu"),
        ({"model_type": 7}, "model_type is 7. it should be a string"),
        ({"model_type": "gptj"}, "no activation ledger for the gptj family yet"),
        ({"model_type": "qwen3", "head_dim": None}, "head_dim is null"),
        ({"model_type": "mistral", "sliding_window": "4k"}, "sliding_window is"),
        ({"model_type": "qwen2", "use_sliding_window": 1}, "use_sliding_window is 1. it should be true or false"),
        ({"model_type": "qwen3", "layer_types": ["full_attention"]}, "layer_types has 1 entries"),
        ({"model_type": "qwen3", "layer_types": "full_attention"}, "layer_types is .* a list of strings"),
        ({"model_type": "qwen3", "layer_types": ["sliding_attention"] * 3}, "use_sliding_window is off"),
        ({"model_type": "qwen3", "layer_types": ["linear_attention"] * 3}, "layer_types names 'linear_attention'"),
        ({"text_config": {"model_type": "llama"}}, "key text_config"),
        ({"quantization_config": {"bits": 4}}, "key quantization_config"),
    ],
)
def test_contradictions_name_the_key(change: dict[str, Any], message: str) -> None:
    _refused({"model_type": "llama", **SMALL, **change}, message)


def test_a_config_without_a_family_is_refused() -> None:
    _refused(dict(SMALL), "lacks the key model_type")


def _refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        shape_from_config(config, "my-model")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_reads_a_file_and_its_folder(tmp_path: Path) -> None:
    config = {"model_type": "llama", **SMALL}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert read_config(tmp_path) == config
    assert read_config(str(tmp_path / "config.json")) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b'{"model_type": "llama", "hidden', "is not valid JSON"),
        (b"\x80\x05\x95\xff\xfe\x00binary", "is not JSON text"),
        (b"\x00" * 64, "is not"),
        (b"[1, 2]", "holds a list"),
        (b'"llama"', 'holds "llama"'),
        (b"null", "holds null"),
        (b"[" * 200_000, "is not"),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "a number that cannot be read"),
    ],
)
def test_other_content_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_config(file)
    assert "\n" not in str(caught.value)


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    with file.open("wb") as stream:
        stream.truncate(100 * MAX_CONFIG_BYTES)  # sparse: reading it would take a GiB
    with pytest.raises(InputError, match="has 1000 MiB"):
        read_config(file)


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        read_config(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no file .*config\.json"):
        read_config(tmp_path)
    with pytest.raises(InputError, match=r"no file 'nul\\x00byte'"):
        read_config("nul\0byte")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InputError, match="not a regular file"):
        read_config(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a POSIX thing")
def test_pipes_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(InputError, match="not a regular file"):
        read_config(tmp_path)


def test_remote_code_is_ignored_with_a_note() -> None:
    config = {"model_type": "llama", **SMALL, "auto_map": {"AutoModel": "modeling_evil.Model"}}
    assert shape_from_config(config, "m") == shape_from_config({"model_type": "llama", **SMALL}, "m")
    assert "auto_map is ignored" in config_notes(config)[0]
    assert config_notes(SMALL) == ()


def test_another_head_is_noted() -> None:
    assert config_notes({"architectures": ["LlamaForCausalLM"]}) == ()
    assert config_notes({"architectures": "odd"}) == ()
    (note,) = config_notes({"architectures": ["LlamaForSequenceClassification"]})
    assert "names LlamaForSequenceClassification" in note


TEXT = st.text(alphabet="aé0.'\"{}\n\\\0", max_size=6) | st.sampled_from(
    ["full_attention", "sliding_attention", "silu"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = SCALARS | st.lists(SCALARS, max_size=4) | st.dictionaries(TEXT, SCALARS, max_size=2)
KEYS = [*SMALL, "head_dim", "attention_bias", "mlp_bias", "attention_dropout", "hidden_act", "tie_word_embeddings"]
KEYS += ["sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "max_position_embeddings"]


@given(family=st.sampled_from(list(FAMILIES)), changes=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3))
def test_any_json_is_understood_or_refused_in_one_line(family: str, changes: dict[str, Any]) -> None:
    refusal = _refusal(lambda: parameter_count(shape_from_config({"model_type": family, **SMALL, **changes}, "m")))
    assert refusal.isprintable()
    if refusal:
        assert any(key in refusal for key in (*changes, "num_attention_heads"))


def test_an_odd_head_names_the_key_that_is_in_the_config() -> None:
    odd = {"model_type": "mistral", **SMALL, "num_attention_heads": SMALL["hidden_size"] // 3}
    kv = {"num_key_value_heads": odd["num_attention_heads"]}
    assert "num_attention_heads" in _refusal(lambda: shape_from_config({**odd, **kv}, "m"))
    assert "head_dim" in _refusal(lambda: shape_from_config({**odd, **kv, "head_dim": 3}, "m"))


@given(content=st.binary(max_size=100) | st.text(alphabet='{}[]",:0aé\n', max_size=30).map(str.encode))
def test_any_bytes_are_read_or_refused_in_one_line(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_bytes(content)
        assert _refusal(lambda: read_config(folder)).isprintable()


def _refusal(ask: Callable[[], object]) -> str:
    try:
        ask()
    except InputError as error:
        return str(error)
    return ""
