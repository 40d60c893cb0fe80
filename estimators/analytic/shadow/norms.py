"""Norms: RMSNorm as transformers writes it, and torch's fused LayerNorm."""

from estimators.analytic.shadow.ops import (
    Gradients,
    cast,
    like,
    mean,
    multiply,
    rsqrt,
    shift,
    square,
    weigh,
)
from estimators.analytic.shadow.tape import Parameter, Tape, Tensor, record


def rms_norm(hidden: Tensor, weight: Parameter) -> Tensor:
    """RMSNorm in fp32, its result in the input's dtype (`LlamaRMSNorm`)."""
    source = hidden.itemsize
    hidden = cast(hidden, 4, "x in fp32")
    variance = mean(square(hidden, "squares"), "variance")
    hidden = multiply(hidden, rsqrt(shift(variance, "variance + eps"), "rsqrt"), "normalised in fp32")
    return weigh(cast(hidden, source, "normalised"), weight, "output")


def rms_norm_in_fp32(hidden: Tensor, weight: Parameter) -> Tensor:
    """RMSNorm in fp32, its weight included, cast to the input's dtype at last (`Olmo2RMSNorm`)."""
    source = hidden.itemsize
    hidden = cast(hidden, 4, "x in fp32")
    variance = mean(square(hidden, "squares"), "variance")
    hidden = multiply(hidden, rsqrt(shift(variance, "variance + eps"), "rsqrt"), "normalised in fp32")
    return cast(weigh(hidden, weight, "output in fp32"), source, "output")


def offset_rms_norm(x: Tensor, weight: Parameter) -> Tensor:
    """RMSNorm in fp32 with a weight that counts from one, cast to the input's dtype at last (`GemmaRMSNorm`)."""
    output = _normalised(cast(x, 4, "x in fp32"))
    output = multiply(output, _plus_one(x.tape, weight), "output in fp32")
    return cast(output, x.itemsize, "output")


def _normalised(x: Tensor) -> Tensor:
    scale = rsqrt(shift(mean(square(x, "squares"), "variance"), "variance + eps"), "rsqrt")
    return multiply(x, scale, "normalised in fp32")


def _plus_one(tape: Tape, weight: Parameter) -> Tensor:
    """`1.0 + weight.float()`."""
    name, dims, size = weight.name, weight.dims, weight.itemsize

    def narrowed(gradient: Tensor) -> Gradients:
        return [gradient.tape.empty(dims, size, name, "gradients")]

    def taken(gradient: Tensor) -> Gradients:
        gradient.storage.relabel("gradients")
        return [gradient]

    if size == 4:
        return record(tape.empty(dims, 4, "1 + weight"), taken, [weight])
    wide = record(tape.empty(dims, 4, "weight in fp32"), narrowed, [weight])
    return shift(wide, "1 + weight")


def t5_norm(hidden: Tensor, weight: Parameter) -> Tensor:
    """RMSNorm that takes the variance in fp32 and multiplies the input itself (`T5LayerNorm`)."""
    variance = mean(square(cast(hidden, 4, "x in fp32"), "squares"), "variance")
    hidden = multiply(hidden, rsqrt(shift(variance, "variance + eps"), "rsqrt"), "normalised in fp32")
    if weight.itemsize == 2:
        hidden = cast(hidden, weight.itemsize, "normalised")
    return weigh(hidden, weight, "output")


def layer_norm(
    x: Tensor, weight: Parameter | None, bias: Parameter | None, *, autocast: int = 0, name: str = ""
) -> Tensor:
    """`F.layer_norm`, one kernel: saves its input, mean and reciprocal deviation (aten::native_layer_norm).

    Statistics are fp32 for half-precision inputs on CUDA (`acc_type`). Autocast runs it in fp32.
    """
    if autocast:
        x = cast(x, 4, f"{name or 'norm'} input in fp32")
    rows, wants = x.dims[:-1], x.requires_grad

    def apply(gradient: Tensor) -> Gradients:
        tape = gradient.tape
        inner = like(gradient, "gradient of the input") if wants else None
        scale, offset = (
            tape.empty(of.dims, of.itemsize, of.name, "gradients") if of is not None and of.requires_grad else None
            for of in (weight, bias)
        )
        return [inner, scale, offset]

    out = like(x, "output")
    statistics = [x.tape.empty((*rows, "1"), 4, label) for label in ("mean", "reciprocal deviation")]
    return record(out, apply, [x, weight, bias], [x, *statistics])
