"""Activations by transformers' names: one kernel, or written out in Python with a tensor for each operator."""

from estimators.analytic.shadow.ops import add, cast, like, multiply, scale, shift, silu, square
from estimators.analytic.shadow.tape import Tensor, record


def activate(x: Tensor, name: str, *, autocast: int = 0) -> Tensor:
    """`ACT2FN[name](x)` (transformers, activations.py)."""
    if name == "gelu_new":
        return gelu_new(x, autocast=autocast)
    if name == "gelu_fast":
        return gelu_fast(x)
    return relu(x, "activation") if name == "relu" else silu(x, "activation")


def relu(x: Tensor, name: str) -> Tensor:
    """ReLU: saves its result."""
    out = like(x, name)
    return record(out, lambda gradient: [like(gradient, "gradient")], [x], [out])


def tanh(x: Tensor, name: str) -> Tensor:
    """Hyperbolic tangent: saves its result."""
    return relu(x, name)


def gelu_new(x: Tensor, *, autocast: int = 0) -> Tensor:
    """`0.5 * x * (1 + tanh(c * (x + 0.044715 * pow(x, 3))))`; autocast runs `pow` in fp32, and all that follows is."""
    half = scale(x, "half of x")
    cube = square(cast(x, 4, "x in fp32") if autocast else x, "cube of x")
    cube = scale(cube, "cube scaled")
    cube = add(cube, x, "x and its cube")
    cube = scale(cube, "x and its cube scaled")
    cube = tanh(cube, "tanh")
    cube = shift(cube, "one and tanh")
    return multiply(half, cube, "activation")


def gelu_fast(x: Tensor) -> Tensor:
    """`0.5 * x * (1 + tanh(x * c * (1 + 0.044715 * x * x)))`."""
    half = scale(x, "half of x")
    scaled = scale(x, "x scaled")
    squared = scale(x, "x times a number")
    squared = multiply(squared, x, "square of x")
    squared = shift(squared, "one and the square")
    squared = multiply(scaled, squared, "x and its cube scaled")
    del scaled
    squared = tanh(squared, "tanh")
    squared = shift(squared, "one and tanh")
    return multiply(half, squared, "activation")
