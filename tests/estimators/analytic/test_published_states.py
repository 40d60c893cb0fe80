"""Published figures of optimizer states beside the closed forms, which are held to real optimizers elsewhere."""

from math import prod

import pytest

from estimators.analytic.parameters import workload_parameters
from estimators.analytic.projection import projection_of
from estimators.analytic.states import group_states, shared_states
from estimators.analytic.tensors import exact_bytes
from estimators.workload import Method, Precision, Workload
from profiles.shapes import ModelShape

MIB = 2**20


def llama(hidden: int, inner: int, layers: int) -> ModelShape:
    return ModelShape(
        name="llama",
        model_type="llama",
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=32,
        head_dim=hidden // 32,
        vocab_size=32000,
        max_position_embeddings=2048,
    )


LLAMA_1B = llama(2048, 5461, 24)
LLAMA_7B = llama(4096, 11008, 32)


def held(shape: ModelShape, method: Method, precision: Precision = "bf16") -> dict[str, int]:
    groups = workload_parameters(Workload(model=shape, method=method, precision=precision))
    states = [state for group in groups for state in group_states(group, method)] + list(shared_states(groups, method))
    return {
        category: exact_bytes(state for state in states if state.category == category)
        for category in ("optimizer_states", "projectors")
    }


@pytest.mark.parametrize(
    ("name", "rank", "states_mib", "projectors_mib"),
    [
        ("adamw", None, 10216.4, 0.0),
        ("galore-adamw", 128, 1576.7, 2688.0),
        ("adamw-8bit", None, 2560.4, 0.0),
        ("galore-adamw-8bit", 128, 395.6, 2688.0),
    ],
)
def test_torchao_profile_of_llama_1b(name: str, rank: int | None, states_mib: float, projectors_mib: float) -> None:
    """The profile by torchao: fp32, galore_torch, bitsandbytes of early 2024, so blocks of 2048 elements."""
    method = Method(name=name, rank=rank, implementation="galore-torch", quant_blocksize=2048)
    bytes_held = held(LLAMA_1B, method, "fp32")
    assert bytes_held["optimizer_states"] / MIB == pytest.approx(states_mib, abs=1.0)
    assert bytes_held["projectors"] / MIB == pytest.approx(projectors_mib, abs=0.05)


def reduction_pct(name: str) -> float:
    """Saved by GaLore at rank 1024 on LLaMA-7B in bf16, projectors included, against AdamW's states."""
    return 100 * (1 - sum(held(LLAMA_7B, Method(name=name, rank=1024)).values()) / adamw_bytes())


def adamw_bytes() -> int:
    return sum(held(LLAMA_7B, Method(name="adamw")).values())


def test_abstract_of_the_paper_65_5_pct() -> None:
    """Published 65.5 %, ours 65.1 %: 0.1 GiB of 25.1; the paper does not say which model and rank it means."""
    assert reduction_pct("galore-adamw") == pytest.approx(65.11, abs=0.01)
    assert 65.5 - reduction_pct("galore-adamw") == pytest.approx(0.39, abs=0.01)


def test_abstract_of_the_paper_82_5_pct() -> None:
    """Published 82.5 % is what one byte for every element gives, projectors too; scales and bf16 projectors cost 3.7.

    With projectors in bf16, as galore_torch and this package keep them by default, the saving is 78.85 %.
    """
    method = Method(name="galore-adamw-8bit", rank=1024)
    projector_elements = held(LLAMA_7B, method)["projectors"] // 2
    scale_bytes = 2 * 4 * 2**-8 * moment_elements(method)
    all_in_one_byte = reduction_pct("galore-adamw-8bit") + 100 * (projector_elements + scale_bytes) / adamw_bytes()
    assert all_in_one_byte == pytest.approx(82.5, abs=0.1)
    assert reduction_pct("galore-adamw-8bit") == pytest.approx(78.85, abs=0.01)
    assert 100 * projector_elements / adamw_bytes() == pytest.approx(3.49, abs=0.01)
    assert 100 * scale_bytes / adamw_bytes() == pytest.approx(0.22, abs=0.01)


def moment_elements(method: Method) -> int:
    groups = workload_parameters(Workload(model=LLAMA_7B, method=method))
    return sum(
        group.count * prod(projection_of(group, method).low_rank_shape if group.projected else group.shape)
        for group in groups
    )
