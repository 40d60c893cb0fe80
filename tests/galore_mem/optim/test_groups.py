"""Which parameters are projected, each once, and what is said about it."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from galore_mem.errors import UsageError
from galore_mem.optim import GaLoreAdamW, galore_param_groups

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def llama(*, tied: bool = False) -> nn.Module:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    model: nn.Module = LlamaForCausalLM(config)
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_all_linear_means_every_linear_layer_but_the_head(tied: bool) -> None:
    model = llama(tied=tied)
    groups = galore_param_groups(model, rank=8)
    assert len(groups.projected) == 2 * len(LINEAR)
    assert {name.split(".")[-2] for name in groups.projected} == set(LINEAR)
    assert groups.tied == (["lm_head.weight"] if tied else [])
    everything = [parameter for group in groups for _, parameter in group["params"]]
    assert len(everything) == len(set(map(id, everything))) == len(list(model.parameters()))
    optimizer = GaLoreAdamW(groups)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    assert sum("projector_step" in state for state in optimizer.state.values()) == 14


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("q_proj", {"q_proj"}),
        (["mlp"], {"gate_proj", "up_proj", "down_proj"}),
        ([r".*layers\.1\.self_attn\.[qk]_proj"], {"q_proj", "k_proj"}),
        (["attn", "mlp"], set(LINEAR)),
        ("lm_head", {"lm_head"}),
        (["all-linear", "lm_head"], {*LINEAR, "lm_head"}),
    ],
)
def test_parts_of_names_and_expressions(targets: str | list[str], expected: set[str]) -> None:
    groups = galore_param_groups(llama(), targets, rank=8)
    assert {name.split(".")[-2] for name in groups.projected} == expected


def test_an_unmatched_pattern_is_a_warning_and_an_empty_match_an_error() -> None:
    with pytest.warns(UserWarning, match="'attention' matches no layer"):
        groups = galore_param_groups(llama(), ["attention", "mlp"], rank=8)
    assert len(groups.projected) == 6
    with (
        pytest.warns(UserWarning, match="'attention' matches"),
        pytest.raises(UsageError, match=r"matches no trainable linear layer of Llama.*its layers are q_proj, k_proj"),
    ):
        galore_param_groups(llama(), "attention")


def test_embeddings_are_never_projected() -> None:
    with pytest.warns(UserWarning, match="embed_tokens"), pytest.raises(UsageError, match="no trainable linear layer"):
        galore_param_groups(llama(), "embed_tokens")
    with pytest.warns(UserWarning, match="lm_head"), pytest.raises(UsageError, match="no trainable linear layer"):
        galore_param_groups(llama(tied=True), "lm_head")


def test_a_broken_expression_is_one_clear_error() -> None:
    with pytest.raises(UsageError, match="no valid pattern"):
        galore_param_groups(llama(), "q_proj(")


def test_frozen_and_small_parameters() -> None:
    model = llama()
    frozen = next(parameter for name, parameter in model.named_parameters() if "layers.0.mlp.up_proj" in name)
    frozen.requires_grad_(False)
    groups = galore_param_groups(model, rank=20)
    assert groups.frozen == ["model.layers.0.mlp.up_proj.weight"]
    assert groups.capped == [name for name in groups.projected if "k_proj" in name or "v_proj" in name]
    assert groups.frozen[0] not in groups.projected + groups.full
    assert "projected: 13 (model.layers.*.self_attn.q_proj.weight" in groups.summary()
    assert "frozen: 1" in groups.summary()


def test_conv1d_and_convolutions_match() -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=1, n_head=4))
    groups = galore_param_groups(gpt2, rank=8)
    assert {name.split(".")[-2] for name in groups.projected} == {"c_attn", "c_proj", "c_fc"}
    vision = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16, 4))
    assert galore_param_groups(vision, rank=4).projected == ["0.weight", "3.weight"]


def test_options_reach_the_projected_group_alone() -> None:
    full, projected = galore_param_groups(llama(), rank=8, scale=2.0, refresh="svd", lr=0.5)
    assert full["rank"] is None
    assert "lr" not in full
    assert (projected["scale"], projected["refresh"], projected["lr"]) == (2.0, "svd", 0.5)
