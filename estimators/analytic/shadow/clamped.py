"""The gate of GPT-OSS's experts: two interleaved halves, clamped, one through a sigmoid."""

from estimators.analytic.shadow.ops import Gradients, like, multiply, part, scale, shift
from estimators.analytic.shadow.tape import Tensor, record


def clamped_gate(out: Tensor) -> Tensor:
    """`GptOssExperts._apply_gate`."""
    halves = (*out.dims[:-1], "m")
    gate, up = part(out, *halves), part(out, *halves)
    gate, up = _clamp(gate, "gate clamped", bounds=1), _clamp(up, "up clamped", bounds=2)
    glu = multiply(gate, _sigmoid(scale(gate, "gate scaled")), "gated gate")
    return multiply(shift(up, "up and one"), glu, "gated")


def _clamp(x: Tensor, name: str, *, bounds: int) -> Tensor:
    """`x.clamp(...)`: saves its input; backward makes a mask for each bound."""

    def apply(gradient: Tensor) -> Gradients:
        inside = [like(gradient, "inside a bound", 1) for _ in range(bounds)]  # noqa: F841
        return [like(gradient, "gradient inside the bounds")]

    return record(like(x, name), apply, [x], [x])


def _sigmoid(x: Tensor) -> Tensor:
    """Saves its result."""
    out = like(x, "sigmoid")
    return record(out, lambda gradient: [like(gradient, "gradient")], [x], [out])
