"""Models in four bits: fake ones are like real ones, and products shown step by step are bitsandbytes'."""

from typing import Any

import pytest

from estimators.workload import Precision
from galore_mem.answers.settings import Settings, workloads
from profiles.shapes import ModelShape

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")

SHAPE = ModelShape(
    name="small",
    model_type="qwen2",
    hidden_size=64,
    intermediate_size=176,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    vocab_size=300,
    max_position_embeddings=64,
    qkv_bias=True,
)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("precision", ["bf16", "amp-bf16", "fp32"])
def test_fake_weights_are_like_real_ones(precision: Precision, double: bool) -> None:
    from contextlib import ExitStack

    from torch._subclasses import FakeTensorMode

    from galore_mem.training import attention, quantised
    from galore_mem.training.model import build_model

    attention.register("cpu", ExitStack)
    words = Settings(seq=16, rank=4, precision=precision, bnb_4bit_use_double_quant=double)
    (workload,) = workloads(SHAPE, ("qlora",), words)
    mode = FakeTensorMode()
    fake, real, placed = (build_model(workload, *where) for where in ((mode,), (None,), (None, "cpu:0")))

    def traits(model: Any) -> dict[str, Any]:  # noqa: ANN401
        found: dict[str, Any] = {}
        for name, parameter in model.named_parameters():
            found[name] = parameter.shape, parameter.dtype, parameter.requires_grad
            for what, tensor in quantised.statistics_of(parameter):
                found[f"{name} {what}"] = tensor.shape, tensor.dtype
            if quantised.is_four_bit(parameter):
                state = parameter.quant_state
                found[f"{name} state"] = state.shape, state.dtype, state.blocksize, state.quant_type, state.nested
        return found

    assert traits(fake) == traits(real) == traits(placed)
    four_bit = [name for name, parameter in real.named_parameters() if quantised.is_four_bit(parameter)]
    assert len(four_bit) == 7
    assert not any("lm_head" in name or "embed" in name for name in four_bit)
    biases = {p.dtype for name, p in real.named_parameters() if name.endswith("bias")}
    assert biases == {torch.float32 if precision == "fp32" else torch.bfloat16}


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_products_are_those_of_bitsandbytes(double: bool, bias: bool) -> None:
    from bitsandbytes.nn import Linear4bit

    from galore_mem.training.like_cuda import four_bit_products

    torch.manual_seed(0)
    layer = Linear4bit(64, 48, bias=bias, compute_dtype=torch.float32, compress_statistics=double, quant_type="nf4")
    layer = layer.to("cpu")
    x = torch.randn(2, 3, 64, requires_grad=True)
    theirs = layer(x)
    theirs.sum().backward()
    gradient, x.grad = x.grad, None
    with four_bit_products():
        ours = layer(x)
        ours.sum().backward()
    assert torch.equal(ours, theirs)
    assert torch.equal(x.grad, gradient)


def test_who_names_no_device_asks_for_cudas_autocast() -> None:
    from galore_mem.training.like_cuda import like_cuda

    with like_cuda(None):
        assert not torch.is_autocast_enabled()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.is_autocast_enabled()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not torch.is_autocast_enabled()
