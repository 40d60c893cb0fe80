"""Rows behind the moments: they add up to every category, to the byte."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.analytic.composition import composition
from estimators.analytic.estimate import estimate
from estimators.analytic.ledger import layer_ledger
from estimators.footprint import Moment
from estimators.workload import METHODS, Batch, Checkpointing, Loss, Method, Precision, Update, Workload
from profiles.models import find_model

MODELS = [find_model(name).shape for name in ("llama-60m", "qwen3-0.6b", "qwen2.5-0.5b")]


def summed(workload: Workload, moment: Moment) -> dict[str, int]:
    sums: dict[str, int] = {}
    for row in composition(workload, moment):
        assert row.nbytes >= 0
        sums[row.category] = sums.get(row.category, 0) + row.live_bytes
    return {category: nbytes for category, nbytes in sums.items() if nbytes}


@settings(max_examples=80)
@given(
    st.sampled_from(MODELS),
    st.sampled_from([*METHODS]),
    st.sampled_from(["whole", "per-layer"]),
    st.sampled_from(["none", "full"]),
    st.sampled_from(["bf16", "fp32", "amp-bf16"]),
    st.sampled_from(["full", "chunked"]),
    st.integers(1, 3),
    st.integers(1, 700),
)
def test_rows_add_up_to_every_moment(
    model: object,
    name: str,
    update: Update,
    checkpointing: Checkpointing,
    precision: Precision,
    loss: Loss,
    steps: int,
    length: int,
) -> None:
    workload = Workload(
        model=model,  # type: ignore[arg-type]
        method=Method(
            name=name, update=update, rank=None if METHODS[name].parameterisation == "full" else 32 + length % 64
        ),
        checkpointing=checkpointing,
        precision=precision,
        loss=loss,
        batch=Batch(sequence_length=length, gradient_accumulation_steps=steps),
    )
    for moment in estimate(workload).moments:
        assert summed(workload, moment) == dict(moment.by_category), moment.label


@pytest.mark.parametrize(("name", "update"), product(["galore-adamw", "galore-adamw-8bit"], ["whole", "per-layer"]))
def test_galore_torch_adds_up_too(name: str, update: Update) -> None:
    method = Method(name=name, update=update, rank=64, implementation="galore-torch")
    workload = Workload(model=MODELS[0], method=method, precision="fp32")
    for moment in estimate(workload).moments:
        assert summed(workload, moment) == dict(moment.by_category), moment.label


def test_an_unknown_moment_is_refused() -> None:
    workload = Workload(model=MODELS[0], method=Method(update="per-layer"))
    whole = estimate(Workload(model=MODELS[0])).peak
    assert whole.name == "step"
    with pytest.raises(ValueError, match="steady step"):
        composition(workload, whole)


def test_the_ledger_says_whose_backward_needs_a_tensor() -> None:
    needed = {entry.name: entry.needed_by for entry in layer_ledger(Workload(model=MODELS[0]), "flash")}
    assert needed["input_layernorm.output"] == ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    assert needed["mlp.gated"] == ("mlp.down_proj",)
    assert needed["self_attn.q"] == ("self_attn.attention output",)
    assert all(needed.values())


def test_formulas_multiply_numbers_out() -> None:
    formulas = {entry.formula for entry in layer_ledger(Workload(model=MODELS[0]), "flash")}
    assert {"2bsh", "4bsh", "2bsf", "2bnsd", "16"} <= formulas
