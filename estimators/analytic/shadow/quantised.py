"""Bitsandbytes' Linear4bit, and peft's adapter around it, as they run on CUDA.

Forward (`backends/cuda/ops.py`, `_dequant_linear_fallback`): the input in the compute dtype, the weight written out in
it, their product. Backward (`autograd/_functions.py`, MatMul4Bit) writes the weight out again; of what went in nothing
is saved. For few tokens bitsandbytes may take a fused kernel in forward, which a table of cards and shapes decides
(`_gemm_4bit_use_custom_cuda`: never above 1,536 tokens, and above 512 only for narrow matrices of less than 4 Mi
elements): what is written out is then not there in forward, but in backward all the same.
"""

from dataclasses import dataclass

from estimators.analytic.shadow.ops import Gradients, cast, like
from estimators.analytic.shadow.tape import Dims, Parameter, Tensor, record


@dataclass(frozen=True, slots=True, kw_only=True)
class FourBit:
    """How a structure's frozen linear layers are kept.

    Args:
        itemsize: bytes per element of the compute dtype.
        double: scales are quantised too.
    """

    itemsize: int
    double: bool


def blocks_symbol_of(dims: Dims) -> str:
    """The symbol of how many scales a matrix of these dimensions has: `hf/64`."""
    return f"{''.join(sorted(dims))}/64"


def linear_4bit(x: Tensor, weight: Parameter, name: str, kept: FourBit) -> Tensor:
    """`Linear4bit.forward`: `x` (..., in), `weight` (out, in); the result in the dtype of `x`."""
    given = x.itemsize
    x = cast(x, kept.itemsize, f"{name} input cast")
    return cast(_product(x, weight, name, kept), given, f"{name} cast back")


def _product(x: Tensor, weight: Parameter, name: str, kept: FourBit) -> Tensor:
    """`MatMul4Bit`."""
    tape, inner, outer, wants = x.tape, x.dims, weight.dims, x.requires_grad
    scales = (blocks_symbol_of(weight.dims),)

    def apply(gradient: Tensor) -> Gradients:
        tape = gradient.tape
        written = tape.empty(scales, 4, f"{name} scales") if kept.double else None
        whole = tape.empty(outer, kept.itemsize, f"{name} weight written out")
        del written
        tape.multiply()
        made = tape.empty(inner, kept.itemsize, "gradient of the input") if wants else None
        del whole
        return [made]

    read = tape.empty(scales, 4, f"{name} scales less their mean") if kept.double else None
    written = tape.empty(scales, 4, f"{name} scales") if kept.double else None
    whole = tape.empty(outer, kept.itemsize, f"{name} weight written out", "activations")
    tape.multiply()
    out = tape.empty((*inner[:-1], outer[0]), kept.itemsize, name)
    del read, written, whole
    return record(out, apply, [x])


def clone(x: Tensor, name: str) -> Tensor:
    """`x.clone()`, which peft takes of each result of a Linear4bit."""
    return record(like(x, name), lambda gradient: [gradient.detach()], [x])
