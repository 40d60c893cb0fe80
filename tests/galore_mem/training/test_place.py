"""A model that is made on a device at once is the one that is made on the CPU and moved there."""

from typing import Any

import pytest

from estimators.workload import Workload
from galore_mem.answers.settings import Settings, workloads
from profiles.shapes import ModelShape

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")


def small(method: str, *, tied: bool) -> Workload:
    shape = ModelShape(
        name="small",
        model_type="llama",
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        vocab_size=300,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    (workload,) = workloads(shape, (method,), Settings(seq=16, rank=None if method == "sgd" else 4))
    return workload


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", ["sgd", "lora", "qlora", "low-rank"])
def test_weights_made_in_place_are_those_of_an_ordinary_model(method: str, tied: bool) -> None:
    from contextlib import ExitStack

    from galore_mem.training import attention
    from galore_mem.training.model import build_model

    attention.register("cpu", ExitStack)
    workload = small(method, tied=tied)
    plain, placed = build_model(workload, None), build_model(workload, None, "cpu:0")

    def traits(model: Any) -> dict[str, Any]:  # noqa: ANN401
        return {name: (p.shape, p.dtype, p.requires_grad, p.device.type) for name, p in model.named_parameters()}

    assert traits(placed) == traits(plain)
    buffers = dict(placed.named_buffers())
    assert buffers.keys() == dict(plain.named_buffers()).keys()
    for name, buffer in plain.named_buffers():
        assert torch.equal(buffer, buffers[name])
    norms = [p for name, p in placed.named_parameters() if "norm" in name]
    assert all(bool((norm == 1).all()) for norm in norms)
    assert torch.nn.Module.register_parameter.__module__ == "torch.nn.modules.module"
