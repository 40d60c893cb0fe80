"""Published figures stand beside the configurations that they were published for, and no others."""

from typing import Any

import pytest

import galore_mem as gm

PER_LAYER: dict[str, Any] = {"methods": "galore-adamw-8bit", "update": "per-layer"}
TORCHAO: dict[str, Any] = {
    "precision": "fp32",
    "batch": 5,
    "rank": 128,
    "implementation": "galore-torch",
    "quant_blocksize": 2048,
}


def names(model: str, **words: Any) -> list[str]:  # noqa: ANN401
    (plan,) = gm.plan(model, **words).plans
    return [beside.published.name for beside in plan.published]


def test_the_paper_and_the_scripts_stand_beside_the_run_that_they_report() -> None:
    assert names("llama-7b", **PER_LAYER) == ["paper 7b", "galore script 7b", "q-galore script 7b"]
    assert names("llama-7b", **PER_LAYER, checkpointing="full", batch=16) == [
        "galore script 7b checkpointing",
        "q-galore script 7b checkpointing",
    ]


@pytest.mark.parametrize(
    "words",
    [{"rank": 512}, {"seq": 512}, {"batch": 2}, {"precision": "fp32"}, {"proj_type": "right"}, {"loss": "chunked"}],
)
def test_another_run_has_none(words: dict[str, Any]) -> None:
    assert names("llama-7b", **PER_LAYER, **words) == []


def test_what_differs_is_named() -> None:
    (plan,) = gm.plan("llama-7b", **PER_LAYER).plans
    assert {beside.differs for beside in plan.published} == {("implementation galore-torch",)}
    (plan,) = gm.plan("llama-7b", implementation="galore-torch", **PER_LAYER).plans
    assert {beside.differs for beside in plan.published} == {()}


def test_measured_states_and_retained_views_are_ours_to_a_mebibyte() -> None:
    (plan,) = gm.plan("llama-1b", methods="galore-adamw-8bit", **TORCHAO).plans
    found = {beside.published.figure: beside for beside in plan.published}
    for figure in ("retained", "optimizer_states"):
        least, most = found[figure].published.bytes_range or (0, 0)
        assert least == most
        assert abs(found[figure].ours_bytes - least) < 2**20


def test_json_carries_them() -> None:
    (plan,) = gm.plan("llama-7b", **PER_LAYER).to_dict()["plans"]
    first = plan["published"][0]
    assert (first["figure"], first["value"], first["unit"]) == ("process", 22.0, "G")
    assert isinstance(first["ours_bytes"], int)
