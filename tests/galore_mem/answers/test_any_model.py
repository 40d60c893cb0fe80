"""Families that no closed form covers: traced as real CPU tensors live, and refused in one line where they cannot."""

import json
from pathlib import Path
from typing import Any

import pytest

from galore_mem.errors import GaloreMemError, UsageError
from profiles.errors import InputError
from profiles.shapes import UncoveredShape

pytest.importorskip("torch")
pytest.importorskip("transformers")

from estimators.analytic.attention import attention_kernel
from galore_mem.answers.any_model import traced_model
from galore_mem.answers.settings import Settings, workloads
from galore_mem.answers.steps import record
from galore_mem.answers.trace import trace
from galore_mem.profiler.recording import Recording

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_embd": 64, "n_layer": 1, "n_head": 4, "vocab_size": 300, "n_positions": 64}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 1, "num_heads": 4, "vocab_size": 300}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gemma2": SIZES | {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 16},
    "gemma3_text": SIZES | {"num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 16},
    "falcon": SIZES | {"multi_query": True, "new_decoder_architecture": False, "parallel_attn": True},
    "gpt_neox": SIZES,
    "opt": SIZES | {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "phi": SIZES,
    "bloom": SIZES | {"n_layer": 1, "n_head": 4},
    "mixtral": SIZES | {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    "bert": SIZES,
    "t5": T5,
}


def config_file(folder: Path, model_type: str, **changes: Any) -> str:  # noqa: ANN401
    file = folder / "config.json"
    file.write_text(json.dumps({"model_type": model_type, **CONFIGS.get(model_type, SIZES), **changes}))
    return str(file)


def events_of(recording: Recording) -> list[tuple[int, str, str]]:
    lives = recording.lives
    return [
        ((1 if code > 0 else -1) * lives[abs(code) - 1].nbytes, lives[abs(code) - 1].category, window)
        for begin, end, _, window in recording.stretches()
        for code in recording.events[begin:end]
    ]


@pytest.mark.parametrize("family", ["gpt2", "gemma3_text", "falcon", "bloom", "bert", "t5"])
def test_fake_tensors_live_as_real_ones_do(family: str, tmp_path: Path) -> None:
    model = traced_model(config_file(tmp_path, family)).shape
    # In bf16 a CPU keeps LayerNorm's statistics as it was given them, and a trace in fp32, as a GPU does.
    (workload,) = workloads(model, ("sgd",), Settings(seq=32, batch=2, precision="fp32"))
    kernel = attention_kernel(workload, None)
    fake, real = (events_of(record(workload, kernel, fake=fake)) for fake in (True, False))
    assert fake == real


@pytest.mark.parametrize("family", ["cohere", "granite", "starcoder2", "stablelm"])
def test_every_family_is_traced(family: str, tmp_path: Path) -> None:
    result = trace(config_file(tmp_path, family), gpus="4090", method="galore-adamw", rank=8, seq=32)
    content = json.loads(json.dumps(result.to_dict()))
    assert content["workload"]["parameters"] == result.footprint.resident_bytes["weights"] // 2
    assert content["fits"][0]["verdict"] == "fits"
    assert result.footprint.resident_bytes["projectors"] > 0
    is_traced_only = isinstance(result.workload.model, UncoveredShape)
    assert any("no closed form covers" in note for note in result.notes) is is_traced_only


def test_recurrent_layers_beside_attention_are_named(tmp_path: Path) -> None:
    """What runs there without a GPU is not what runs on one."""
    sizes = {"mamba_d_state": 4, "num_experts": 1, "num_experts_per_tok": 1, "attn_layer_period": 2}
    notes = traced_model(config_file(tmp_path, "jamba", **sizes, attn_layer_offset=1)).notes
    assert any("recurrent layers of jamba run transformers' plain code" in note for note in notes)
    assert not any("recurrent" in note for note in traced_model(config_file(tmp_path, "gemma3_text")).notes)


def test_conv1d_is_projected_and_embeddings_are_not(tmp_path: Path) -> None:
    from torch._subclasses import FakeTensorMode

    from galore_mem.training.session import Session

    model = traced_model(config_file(tmp_path, "gpt2")).shape
    (workload,) = workloads(model, ("galore-adamw",), Settings(seq=32, rank=8))
    session = Session(workload, "flash", FakeTensorMode())
    assert {name.split(".", 3)[-1] for name in session.targets} == {
        "attn.c_attn.weight",
        "attn.c_proj.weight",
        "mlp.c_fc.weight",
        "mlp.c_proj.weight",
    }


def test_mask_beyond_the_sliding_window_is_held(tmp_path: Path) -> None:
    """Flash takes no mask, so sliding layers hold one, and run the memory-efficient kernel beside it."""
    for tokens, made in ((16, True), (15, False)):
        (workload,) = workloads(
            traced_model(config_file(tmp_path, "gemma3_text")).shape, ("sgd",), Settings(seq=tokens)
        )
        lives = record(workload, "flash").lives
        sums = {life.nbytes for life in lives if life.operator == "fused_attention" and life.nbytes % (4 * 4) == 0}
        assert any(life.category == "inputs" and life.nbytes == tokens * tokens for life in lives) is made
        assert (4 * 4 * 32 in sums) is made, "rows padded to 32"


@pytest.mark.parametrize(
    ("model_type", "changes", "said"),
    [
        ("no-such-architecture", {}, "does not know the architecture 'no-such-architecture'"),
        ("gpt2", {"n_embd": 65, "add_cross_attention": True}, "n_embd 65 is not a multiple"),
        ("stablelm", {"hidden_size": 66}, "cannot be built"),
        ("gpt_neox", {"hidden_size": "wide"}, "hidden_size"),
        ("opt", {"num_attention_heads": 0}, "num_attention_heads is 0"),
        ("vit", {}, "no causal-lm class"),
        ("mamba", {}, "mamba models have no attention, and are not traced"),
        ("mamba2", {"num_attention_heads": 4}, "mamba2 models have no attention, and are not traced"),
    ],
)
def test_what_transformers_cannot_build_is_one_line(
    model_type: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises((GaloreMemError, InputError), match=said) as caught:
        trace(config_file(tmp_path, model_type, **changes), seq=16)
    assert "\n" not in str(caught.value)


def test_own_attention_code_takes_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="code of its own"):
        trace(config_file(tmp_path, "bloom"), seq=16, attention="flash")


def test_chunked_loss_is_for_families_with_a_closed_form(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not for stablelm"):
        trace(config_file(tmp_path, "stablelm"), seq=16, loss="chunked")


def test_step_that_needs_values_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block

    forward = GPT2Block.forward

    def looking(self: Any, states: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return forward(self, states[states.nonzero()[0, 0]][None], *args, **kwargs)

    monkeypatch.setattr(GPT2Block, "forward", looking)
    with pytest.raises(UsageError, match=r"needs the values of a tensor \(aten.nonzero.default\)"):
        trace(config_file(tmp_path, "gpt2"), seq=16)
