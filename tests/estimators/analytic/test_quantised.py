"""Weights in four bits: bytes by hand, and those that bitsandbytes makes."""

import pytest

from estimators.allocator.replay import replay
from estimators.analytic.estimate import estimate
from estimators.analytic.history import history_of
from estimators.analytic.parameters import parameters_of
from estimators.analytic.quantised import blocks_of
from estimators.analytic.tensors import rounded
from estimators.checks import check
from estimators.work import work_per_token
from estimators.workload import Batch, Checkpointing, Method, Workload
from profiles.errors import InputError
from profiles.models import find_model
from profiles.shapes import ModelShape

SEVEN = find_model("llama-7b").shape
DOUBLE = Method(name="qlora", rank=16, bnb_4bit_use_double_quant=True)
PLAIN = Method(name="qlora", rank=16)


def shape_of(hidden: int, between: int) -> ModelShape:
    return ModelShape(
        name="small",
        model_type="llama",
        hidden_size=hidden,
        intermediate_size=between,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        vocab_size=100,
        max_position_embeddings=64,
    )


def test_a_matrix_by_hand() -> None:
    """LLaMA-7B's q_proj: 4096 x 4096 elements."""
    elements = 4096 * 4096
    plain = {group.name: group for group in parameters_of(SEVEN, PLAIN, "bf16")}
    name = "model.layers.*.self_attn.q_proj.weight"
    assert plain[name].nbytes == elements // 2
    assert plain[f"{name}.absmax"].nbytes == 4 * elements // 64
    assert plain[f"{name}.quant_map"].nbytes == 4 * 16
    double = {group.name: group for group in parameters_of(SEVEN, DOUBLE, "bf16")}
    assert double[name].nbytes == plain[name].nbytes
    assert double[f"{name}.absmax"].nbytes == elements // 64
    assert double[f"{name}.nested_absmax"].nbytes == 4 * elements // 64 // 256
    assert double[f"{name}.nested_quant_map"].nbytes == 4 * 256
    assert double[f"{name}.nested_offset"].nbytes == 4


def test_bits_an_element() -> None:
    """4.5 with one fp32 scale for 64 elements, and 4.127 where scales are bytes (arXiv 2305.14314, section 3)."""
    for method, bits in ((PLAIN, 4.5), (DOUBLE, 4.127)):
        groups = parameters_of(SEVEN, method, "bf16")
        elements = sum(group.numel * group.count for group in groups if group.packed)
        held = sum(group.nbytes * group.count for group in groups if group.packed or group.kind == "quantisation")
        assert elements == 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
        assert 8 * held / elements == pytest.approx(bits, abs=1e-3)


def test_what_is_not_a_linear_layer_keeps_its_dtype() -> None:
    groups = {group.name: group for group in parameters_of(SEVEN, DOUBLE, "bf16")}
    others = [groups["model.embed_tokens.weight"], groups["lm_head.weight"], groups["model.norm.weight"]]
    assert [(group.packed, group.itemsize, group.trainable) for group in others] == [(False, 2, False)] * 3
    prepared = {group.name: group for group in parameters_of(SEVEN, DOUBLE, "amp-bf16")}
    assert prepared["lm_head.weight"].itemsize == 4
    assert prepared["model.layers.*.mlp.up_proj.weight"] == groups["model.layers.*.mlp.up_proj.weight"]
    assert {group.itemsize for name, group in groups.items() if "lora_" in name} == {4}


def test_four_bits_change_no_products() -> None:
    lora = Workload(model=SEVEN, method=Method(name="lora", rank=16))
    assert work_per_token(lora) == work_per_token(Workload(model=SEVEN, method=DOUBLE))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("sizes", [(64, 176), (32, 33), (62, 51), (2, 1)])
def test_bytes_are_those_of_bitsandbytes(sizes: tuple[int, int], double: bool) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes.functional")
    hidden, between = sizes
    weight = torch.randn(between, hidden, dtype=torch.bfloat16)
    packed, state = functional.quantize_4bit(weight, compress_statistics=double, quant_type="nf4")
    held = [packed, state.absmax, state.code]
    if double:
        held += [state.offset, state.state2.absmax, state.state2.code]
    method = Method(name="qlora", rank=4, bnb_4bit_use_double_quant=double)
    name = "model.layers.*.mlp.up_proj.weight"
    shape = shape_of(hidden, between)
    groups = [group for group in parameters_of(shape, method, "bf16") if group.name.startswith(name)]
    assert [group.nbytes for group in groups] == [tensor.nbytes for tensor in held]
    assert sum(rounded(group.nbytes) for group in groups) == sum(rounded(tensor.nbytes) for tensor in held)
    assert blocks_of(weight.numel()) == state.absmax.numel()


@pytest.mark.parametrize(
    ("model", "batch", "checkpointing"),
    [("llama-2-13b", Batch(sequence_length=512), "full"), ("qwen2.5-0.5b", Batch(micro_batch_size=2), "none")],
)
def test_a_replayed_history_stays_under_the_bound(model: str, batch: Batch, checkpointing: Checkpointing) -> None:
    """Ranges of other methods, of which more comes and goes in a step, do not carry that far."""
    workload = Workload(model=find_model(model).shape, method=PLAIN, batch=batch, checkpointing=checkpointing)
    found = estimate(workload)
    bound = found.upper_bytes - sum(term.high_bytes for term in found.terms if term.name == "context")
    assert replay(history_of(workload)).peak_reserved_bytes <= bound


@pytest.mark.parametrize(
    ("model", "why"), [("gpt2", "Conv1D"), ("falcon-7b", "quantises none"), ("t5-base", "dtype"), ("bert-base", "read")]
)
def test_models_that_are_not_covered_are_refused(model: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        check(Workload(model=find_model(model).shape, method=PLAIN))
