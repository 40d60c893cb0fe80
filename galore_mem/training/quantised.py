"""Models with bitsandbytes' four-bit weights, as transformers loads them, on fake, CPU or CUDA tensors."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from estimators.analytic.quantised import (
    BLOCK_ELEMENTS,
    CODE_ELEMENTS,
    NESTED_BLOCK_ELEMENTS,
    NESTED_CODE_ELEMENTS,
    blocks_of,
)
from estimators.workload import Workload

DYNAMIC_MAP = "bitsandbytes' dynamic map"
"""The table that double quantisation copies for every matrix."""


def compute_dtype(workload: Workload) -> torch.dtype:
    """What layers compute in, which the weights had before they were quantised too."""
    return {"fp32": torch.float32, "amp-fp16": torch.float16}.get(workload.precision, torch.bfloat16)


def quantise(model: Any, workload: Workload) -> None:  # noqa: ANN401
    """Put Linear4bit in the place of the linear layers that transformers' quantizer takes; weights that exist are kept.

    Weights without data stay so, and unquantised: see `fake_weight` and `quantised_weight`.
    """
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import get_keys_to_not_convert

    dtype = compute_dtype(workload)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=workload.method.bnb_4bit_use_double_quant,
    )
    before = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    replace_with_bnb_linear(model, get_keys_to_not_convert(model), config)
    for name, old in before.items():
        new = model.get_submodule(name)
        if new is old:
            continue
        if old.bias is not None:
            new.bias = nn.Parameter(old.bias.detach().to(dtype), requires_grad=False)
        if not old.weight.is_meta:
            new.weight = quantised_weight(new.weight, old.weight.detach().to(dtype))
    model.is_loaded_in_4bit = True


def is_four_bit(parameter: Tensor) -> bool:
    """Whether it is, or shall become, a weight in four bits."""
    return hasattr(parameter, "quant_state")


def quantised_weight(old: Any, values: Tensor) -> nn.Parameter:  # noqa: ANN401
    """`values` in four bits on their device, as transformers makes them (integrations/bitsandbytes.py)."""
    from bitsandbytes.nn import Params4bit

    return Params4bit(values, requires_grad=False, **old.__dict__).to(values.device)  # type: ignore[no-any-return]


def fake_weight(old: Any, dtype: torch.dtype, mode: FakeTensorMode) -> nn.Parameter:  # noqa: ANN401
    """What `quantize_4bit` would make of a weight without data.

    Args:
        old: the weight that Linear4bit was made with, (out, in).
        dtype: that of the weight before.
        mode: of the fake tensors.
    """
    from bitsandbytes.functional import QuantState

    numel, blocks = old.numel(), blocks_of(old.numel())

    def empty(*size: int, kind: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(size, dtype=kind, device="cpu")

    with mode:
        weight = nn.Parameter(empty(-(-numel // 2), 1, kind=torch.uint8), requires_grad=False)
        nested = None
        if old.compress_statistics:
            nested = QuantState(
                absmax=empty(-(-blocks // NESTED_BLOCK_ELEMENTS)),
                code=empty(NESTED_CODE_ELEMENTS),
                blocksize=NESTED_BLOCK_ELEMENTS,
                dtype=torch.float32,
            )
        weight.quant_state = QuantState(  # type: ignore[attr-defined]
            absmax=empty(blocks, kind=torch.uint8 if nested else torch.float32),
            shape=old.shape,
            code=empty(CODE_ELEMENTS),
            blocksize=BLOCK_ELEMENTS,
            quant_type=old.quant_type,
            dtype=dtype,
            offset=empty() if nested else None,
            state2=nested,
        )
    weight.compress_statistics, weight.quant_type = old.compress_statistics, old.quant_type  # type: ignore[attr-defined]
    return weight


def statistics_of(parameter: Any) -> Iterator[tuple[str, Tensor]]:  # noqa: ANN401
    """Scales and tables of a weight, by bitsandbytes' names, in the order in which they were made."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return
    yield "absmax", state.absmax
    yield "quant_map", state.code
    if state.nested:
        yield "nested_offset", state.offset
        yield "nested_absmax", state.state2.absmax
        yield "nested_quant_map", state.state2.code


def dynamic_map(workload: Workload, mode: FakeTensorMode | None) -> Tensor | None:
    """The table that bitsandbytes keeps; None where scales are not quantised."""
    if not workload.method.bnb_4bit_use_double_quant:
        return None
    if mode is None:
        from bitsandbytes.functional import name2qmap

        return name2qmap["dynamic"]  # type: ignore[no-any-return]
    with mode:
        return torch.empty(NESTED_CODE_ELEMENTS, device="cpu")


def gemm_4bit(
    A: Tensor,  # noqa: N803
    B: Tensor,  # noqa: N803
    shapeB: Any,  # noqa: ANN401, N803
    absmax: Tensor,
    blocksize: int,
    quant_type: str,
    bias: Tensor | None = None,
    absmax_8bit: Tensor | None = None,
    absmax_code: Tensor | None = None,
    absmax_offset: Tensor | None = None,
) -> Tensor:
    """`bitsandbytes::gemm_4bit` step by step, as on CUDA above a few hundred tokens (`_dequant_linear_fallback`).

    The scales without their mean live until the end there, which they do not on a CPU.
    """
    library = torch.ops.bitsandbytes
    if absmax_8bit is not None:
        read = library.dequantize_blockwise.default(
            absmax_8bit, absmax, absmax_code, NESTED_BLOCK_ELEMENTS, torch.float32
        )
        absmax = read + absmax_offset
    weight = library.dequantize_4bit.default(B, absmax, blocksize, quant_type, shapeB, A.dtype)
    return nn.functional.linear(A, weight, bias)
