"""What a run on a GPU does that fake tensors on a CPU do not: one small rule each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses import FakeTensor

from galore_mem.profiler import engine
from galore_mem.profiler.reductions import ColumnSum, inside_sum

_SCALAR = torch.ops.aten._local_scalar_dense.default
_GROUPED_MM = torch.ops.aten._grouped_mm.default
_LAYER_NORM = torch.ops.aten.native_layer_norm.default
_BITSANDBYTES_UPDATES = ("optimizer_update_8bit_blockwise", "optimizer_update_32bit", "optimizer_update_8bit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which rules apply.

    Args:
        workspace_bytes: of cuBLAS, per thread that multiplies matrices; 0 for a recording of CPU tensors.
        column_sums: the scratch of a card's sums over rows; None for none.
        scalars: what a number read from a fake tensor is taken to be; None lets torch refuse.
        fp32_statistics: LayerNorm keeps mean and deviation of half-precision inputs in fp32, as its CUDA kernel does
            (native/cuda/layer_norm_kernel.cu, `acc_type`); on a CPU it keeps them as it was given them.
    """

    workspace_bytes: int = 0
    column_sums: ColumnSum | None = None
    scalars: float | None = None
    fp32_statistics: bool = False

    def dropped_inside(self, func: Any, args: tuple[Any, ...], result: Any) -> tuple[int, ...]:  # noqa: ANN401
        """Bytes of what an operator makes beside its result and drops again."""
        found = engine.dropped_inside(func, result)
        return found or (inside_sum(func, args, self.column_sums) if self.column_sums is not None else ())

    def replace(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bool, Any]:  # noqa: ANN401
        """(True, result) where a rule stands in for the operator."""
        if (
            func is _SCALAR
            and self.scalars is not None
            and isinstance(args[0], FakeTensor)
            and args[0].constant is None
        ):
            return True, _scalar(args[0].dtype, self.scalars)
        if func.namespace == "bitsandbytes" and func._opname in _BITSANDBYTES_UPDATES and _has_fake(args):
            return True, None  # bitsandbytes' kernels update in place and need no scratch
        if func is _GROUPED_MM and isinstance(args[0], FakeTensor) and args[0].dtype != torch.bfloat16:
            return True, _grouped_product(*args, **kwargs)
        if func is _LAYER_NORM and self.fp32_statistics and isinstance(args[0], FakeTensor):
            out, *statistics = func(*args, **kwargs)
            return True, (out, *(value.float() for value in statistics))
        return False, None


def _grouped_product(
    left: torch.Tensor, right: torch.Tensor, offsets: torch.Tensor | None = None, *_: object, **__: object
) -> torch.Tensor:
    """What CUDA's kernel makes of any dtype (GroupedBlas.cpp); its fake one, in torch 2.13, knows bf16 only."""
    if right.dim() == 3:
        return left.new_empty((left.shape[0], right.shape[2]))
    groups = 1 if offsets is None else offsets.shape[0]
    return left.new_empty((groups, left.shape[0], right.shape[1]))


def _scalar(dtype: torch.dtype, value: float) -> float | int | bool:
    if dtype == torch.bool:
        return bool(value)
    return value if dtype.is_floating_point else int(value)


def _has_fake(args: tuple[Any, ...]) -> bool:
    return any(isinstance(value, FakeTensor) for value in args)
