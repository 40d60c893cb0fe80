"""Operators: what each allocates, saves for backward, and allocates there (torch's derivatives.yaml).

Every function takes and returns shadow tensors. The local variables of a backward function are the temporaries of the
C++ expression that it stands for; nothing but sizes is captured by it, so it keeps no tensor alive.
"""

from collections.abc import Sequence

from estimators.analytic.shadow.tape import Dims, Parameter, Tape, Tensor, record, stop_before

Gradients = list[Tensor | None]
SUMS = "partial sums "
"""Begins the symbols of sums' scratch."""


def like(tensor: Tensor, name: str, itemsize: int = 0) -> Tensor:
    """A new tensor of the same dimensions."""
    return tensor.tape.empty(tensor.dims, itemsize or tensor.itemsize, name)


def cast(x: Tensor, itemsize: int, name: str) -> Tensor:
    """`x.to(dtype)`: the tensor itself where it has that dtype already."""
    if x.itemsize == itemsize:
        return x
    source = x.itemsize
    return record(like(x, name, itemsize), lambda gradient: [like(gradient, "gradient cast", source)], [x])


def add(a: Tensor, b: Tensor, name: str) -> Tensor:
    """`a + b`; the wider dtype wins and nothing is saved. `b` may have fewer elements and be broadcast."""
    wants = a.requires_grad, b.requires_grad
    narrow = b.dims if b.dims != a.dims else None

    def apply(gradient: Tensor) -> Gradients:
        second = gradient.detach() if wants[1] else None
        if second is not None and narrow is not None:
            second = second.tape.empty(narrow, second.itemsize, "gradient sum over what was broadcast")
            sum_rows(second, gradient.dims, second.itemsize)
        return [gradient.detach() if wants[0] else None, second]

    return record(like(a, name, max(a.itemsize, b.itemsize)), apply, [a, b])


def sum_rows(total: Tensor, source: Dims, itemsize: int) -> None:
    """What a sum over all rows of `source` holds besides its result, while its kernel runs: `reductions`."""
    rows, columns = source[: len(source) - len(total.dims)], total.dims
    if total.tape.splits_sums and columns and rows and source[-len(columns) :] == columns:
        total.tape.empty((sums_symbol(rows, columns, itemsize),), 4, "partial sums", "temporaries")


def sums_symbol(rows: Dims, columns: Dims, itemsize: int) -> str:
    """The symbol of partial sums' elements."""
    return f"{SUMS}{itemsize}:{','.join(rows)}:{','.join(columns)}"


def scale(x: Tensor, name: str) -> Tensor:
    """`x * number`: saves nothing."""
    return record(like(x, name), lambda gradient: [like(gradient, "gradient scaled")], [x])


def multiply(a: Tensor, b: Tensor, name: str) -> Tensor:
    """`a * b`, each saved for the other's gradient; `b` may be narrower and broadcast."""
    wants = a.requires_grad, b.requires_grad

    def apply(gradient: Tensor) -> Gradients:
        second = like(gradient, "gradient product") if wants[1] else None  # torch's generated code takes it first
        return [like(gradient, "gradient product") if wants[0] else None, second]

    saved = [b] * wants[0] + [a] * wants[1]
    broadcast = {1: b.dims} if b.dims != a.dims else {}
    stop_before(a.tape, saved)
    return record(like(a, name, max(a.itemsize, b.itemsize)), apply, [a, b], saved, broadcast)


def weigh(x: Tensor, weight: Parameter, name: str) -> Tensor:
    """`weight * x` with one weight per feature."""
    wants, trainable = x.requires_grad, weight.requires_grad

    def apply(gradient: Tensor) -> Gradients:
        inner = like(gradient, "gradient product") if wants else None  # the second factor's comes first
        wide = like(gradient, "weight gradient before its sum") if trainable else None
        return [wide, inner]

    saved = [x] if trainable else []
    stop_before(x.tape, saved)
    broadcast = {0: weight.dims} if trainable else {}
    return record(like(x, name, max(x.itemsize, weight.itemsize)), apply, [weight, x], saved, broadcast)


def square(x: Tensor, name: str) -> Tensor:
    """`x.pow(2)`."""

    def apply(gradient: Tensor) -> Gradients:
        power = like(gradient, "pow")  # noqa: F841 alive until the product exists
        twice = like(gradient, "2 pow")  # noqa: F841
        return [like(gradient, "gradient product")]

    return record(like(x, name), apply, [x], [x])


def mean(x: Tensor, name: str) -> Tensor:
    """`x.mean(-1, keepdim=True)`."""
    dims = x.dims
    out = x.tape.empty(dims[:-1], x.itemsize, name)
    return record(out, lambda gradient: [gradient.tape.empty(dims, gradient.itemsize, "gradient expanded")], [x])


def shift(x: Tensor, name: str) -> Tensor:
    """`x + number`."""
    return record(like(x, name), lambda gradient: [gradient.detach()], [x])


def rsqrt(x: Tensor, name: str) -> Tensor:
    """`torch.rsqrt(x)`: saves its result."""

    def apply(gradient: Tensor) -> Gradients:
        cube = like(gradient, "cube")  # noqa: F841
        scaled = like(gradient, "gradient scaled")  # noqa: F841
        return [like(gradient, "gradient product")]

    out = like(x, name)
    return record(out, apply, [x], [out])


def silu(x: Tensor, name: str) -> Tensor:
    """SiLU, and every activation with one fused kernel: saves its input."""
    return record(like(x, name), lambda gradient: [like(gradient, "gradient")], [x], [x])


def tanh(x: Tensor, name: str) -> Tensor:
    """Tanh: saves its result."""
    out = like(x, name)
    return record(out, lambda gradient: [like(gradient, "gradient")], [x], [out])


def reshaped(x: Tensor, *dims: str) -> Tensor:
    """A view that autograd keeps a node for: the gradient comes back through it, as one."""
    before = x.dims
    out = x.view(*dims)
    out.node = None
    return record(out, lambda gradient: [gradient.view(*before).as_view()], [x])


def relayout(x: Tensor, *dims: str) -> Tensor:
    """A view whose gradient comes back in another memory order and has to be copied."""
    before = x.dims
    out = x.view(*dims)
    out.node = None

    def apply(gradient: Tensor) -> Gradients:
        return [gradient.tape.empty(before, gradient.itemsize, "gradient in the linear layer's order").as_view()]

    return record(out, apply, [x])


def part(x: Tensor, *dims: str) -> Tensor:
    """A slice of the last dimension: a view whose gradient comes back as zeros around it, or another name for all."""
    before, whole = x.dims, dims == x.dims
    out = x.view(*dims)
    out.node = None

    def apply(gradient: Tensor) -> Gradients:
        return [gradient.as_view() if whole else gradient.tape.empty(before, gradient.itemsize, "gradient padded")]

    return record(out, apply, [x])


def chunk(x: Tensor, *dims: str, pieces: int = 2) -> list[Tensor]:
    """`x.chunk(pieces)`: views, whose gradients are joined once all are there."""
    before, waiting = x.dims, list[Tensor]()

    def join(gradient: Tensor) -> Gradients:
        waiting.append(gradient)
        if len(waiting) < pieces:
            return [None]
        joined = gradient.tape.empty(before, gradient.itemsize, "gradients of the pieces joined")
        waiting.clear()
        return [joined]

    views = [x.view(*dims) for _ in range(pieces)]
    for view in views:
        view.node = None
    return [record(view, join, [x]) for view in views]


def concatenate(parts: list[Tensor], dims: Dims, name: str) -> Tensor:
    """`torch.cat`: a copy, whose gradient falls into views. Autocast casts what is narrower before."""
    widest = max(x.itemsize for x in parts)
    parts = [cast(x, widest, f"{name} part cast") for x in parts]
    pieces = [x.dims for x in parts]
    out = parts[0].tape.empty(dims, widest, name)
    return record(out, lambda gradient: [gradient.view(*piece).as_view() for piece in pieces], parts)


def dropout(x: Tensor, probability: float, name: str) -> Tensor:
    """`aten.native_dropout`, what F.dropout runs on CUDA: saves one byte per element."""
    if not probability:
        return x
    out, mask = like(x, name), like(x, f"{name} mask", 1)
    return record(out, lambda gradient: [like(gradient, "gradient")], [x], [mask])


def linear(
    x: Tensor,
    weight: Parameter,
    bias: Parameter | None,
    name: str,
    *,
    autocast: int = 0,
    transposed: bool = False,
    caches: bool = True,
) -> Tensor:
    """`F.linear`; under autocast both operands are cast, the weight's copy is cached until the forward ends.

    Dimensions: `x` (..., in), `weight` (out, in), or (in, out) where it is transposed. `caches`: the product takes the
    parameter itself; of a view of it autocast caches no copy.
    """
    tape = x.tape
    kernel: Parameter | Tensor = weight
    offset: Parameter | Tensor | None = bias
    if autocast:  # the last argument first: in this order compilers evaluate the wrapper's (autocast_mode.h)
        offset = _cast_weight(tape, bias, autocast) if bias is not None else None
        kernel = _cast_weight(tape, weight, autocast, caches=caches)
        x = cast(x, autocast, f"{name} input cast")
    inner, outer, wants, trainable = x.dims, weight.dims, x.requires_grad, weight.requires_grad
    has_bias, shifts = bias is not None, bias is not None and bias.requires_grad
    rows, offsets = inner[:-1], bias.dims if bias is not None else ()
    category = "temporaries" if isinstance(kernel, Tensor) else "gradients"
    flat = len(inner) == len(("tokens", "features"))  # else the product runs on a view, and so does its gradient

    def inward(gradient: Tensor) -> Tensor:
        made = gradient.tape.empty(inner, gradient.itemsize, "gradient of the input")
        return made if flat else made.as_view()

    def apply(gradient: Tensor) -> Gradients:
        tape, size = gradient.tape, gradient.itemsize
        tape.multiply()
        before = inward(gradient) if wants and has_bias else None
        weights = tape.empty(outer, size, weight.name, category).as_view() if trainable else None
        after = inward(gradient) if wants and not has_bias else None
        return (
            [gradient.view(*rows, *offsets).detach() if shifts else None, weights, before]
            if has_bias
            else [after, weights]
        )

    saved = [x] * trainable + ([kernel] if wants and isinstance(kernel, Tensor) else [])
    stop_before(tape, saved)
    tape.multiply()
    out = tape.empty((*inner[:-1], outer[-1 if transposed else 0]), x.itemsize, name)
    saves_parameter, broadcast = wants and isinstance(kernel, Parameter), {0: offsets} if shifts else {}
    # A bias makes one product of all (addmm), whose input became a view before the weight; else it is the other way.
    inputs: list[Parameter | Tensor | None] = [offset, kernel, x] if has_bias else [x, kernel]
    return record(out, apply, inputs, saved, broadcast, saves_parameter=saves_parameter)


def _cast_weight(tape: Tape, weight: Parameter, itemsize: int, *, caches: bool = True) -> Parameter | Tensor:
    if weight.itemsize == itemsize:
        return weight
    if weight.cast is not None and caches:
        return weight.cast

    def apply(gradient: Tensor) -> Gradients:
        return [gradient.tape.empty(weight.dims, weight.itemsize, weight.name, "gradients")]

    copy = tape.empty(weight.dims, itemsize, f"{weight.name} autocast copy", "activations")
    copy = record(copy, apply, [weight])
    if weight.requires_grad and caches:  # autocast caches copies of leaves that require gradients (autocast_mode.cpp)
        weight.cast = copy
        tape.autocast_cache.append(weight)
    return copy


def softmax(x: Tensor, name: str) -> Tensor:
    """Softmax over the last dimension: saves its result."""
    out = like(x, name)
    return record(out, lambda gradient: [like(gradient, "gradient")], [x], [out])


def matmul(
    a: Tensor,
    b: Tensor,
    dims: Dims,
    name: str,
    *,
    copies: tuple[bool, bool] = (False, False),
    copies_gradient: bool = False,
    autocast: int = 0,
) -> Tensor:
    """`torch.matmul` of two batches of matrices; what has a memory order that cannot be folded is copied first.

    Autocast casts both of them before.
    """
    if autocast:  # the last argument first, as in `linear`
        b = cast(b, autocast, f"{name} operand cast")
        a = cast(a, autocast, f"{name} operand cast")
    operands = [
        record(like(x, f"{name} operand copy"), lambda gradient: [gradient.detach()], [x]) if copied else x
        for x, copied in zip((a, b), copies, strict=True)
    ]
    shapes, wants = (a.dims, b.dims), (a.requires_grad, b.requires_grad)

    def apply(gradient: Tensor) -> Gradients:
        tape, size = gradient.tape, gradient.itemsize
        tape.multiply()
        second = tape.empty(shapes[1], size, "gradient of the second factor").as_view() if wants[1] else None
        first = tape.empty(shapes[0], size, "gradient of the first factor").as_view() if wants[0] else None
        return [first, second]

    saved = [operands[1]] * wants[0] + [operands[0]] * wants[1]
    a.tape.multiply()
    out = record(a.tape.empty(dims, a.itemsize, name), apply, operands, saved)
    return relayout(out, *dims) if copies_gradient else out


def repeat(x: Tensor, dims: Dims, name: str, *, single: bool = False) -> Tensor:
    """Key or value heads repeated for every query head that shares them; a `single` head needs no copy for that."""
    before = x.dims

    def apply(gradient: Tensor) -> Gradients:
        return [gradient.tape.empty(before, gradient.itemsize, "gradient summed over query heads")]

    out = x.view(*dims) if single else x.tape.empty(dims, x.itemsize, name)
    out.node = None
    return record(out, apply, [x])


def embedding(tape: Tape, weight: Parameter, dims: Dims, name: str, indices: Sequence[Tensor] = ()) -> Tensor:
    """`F.embedding`; its gradient is dense. `indices` are saved; token ids, which the loop holds, need not be named."""

    def apply(gradient: Tensor) -> Gradients:
        return [gradient.tape.empty(weight.dims, weight.itemsize, weight.name, "gradients")]

    return record(tape.empty(dims, weight.itemsize, name), apply, [weight], indices)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, name: str) -> Tensor:
    """Rotary positions: `x * cos + rotate_half(x) * sin`. Dimensions of `x`: (b, heads, s, d)."""
    straight = _rotate_product(x, cos, f"{name} cos")
    turned = _rotate_product(_rotate_half(x, name), sin, f"{name} sin")
    return add(straight, turned, name)


def rotate_parts(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, rotary: str, rest: str, *, by_turns: bool
) -> tuple[Tensor, Tensor]:
    """Rotary positions for the first `rotary` elements of each head, joined with the `rest`, which may be none.

    `by_turns`: queries are joined before keys are turned.
    """
    sides = [
        (name, x.dims, part(x, *x.dims[:-1], rotary), part(x, *x.dims[:-1], rest))
        for name, x in zip("qk", (q, k), strict=True)
    ]
    if by_turns:
        query, key = (
            concatenate([rotate(turned, cos, sin, name), passed], dims, f"{name} joined")
            for name, dims, turned, passed in sides
        )
        return query, key
    made = [rotate(turned, cos, sin, name) for name, _, turned, _ in sides]
    for place, (name, dims, _, passed) in enumerate(sides):
        made[place] = concatenate([made[place], passed], dims, f"{name} joined")
    return made[0], made[1]


def _rotate_product(x: Tensor, table: Tensor, name: str) -> Tensor:
    out = like(x, name, max(x.itemsize, table.itemsize))
    return record(out, lambda gradient: [like(gradient, "gradient product")], [x], [table])


def _rotate_half(x: Tensor, name: str) -> Tensor:
    half = (*x.dims[:-1], f"{x.dims[-1]}/2")

    def apply(gradient: Tensor) -> Gradients:
        negative = gradient.tape.empty(half, gradient.itemsize, "gradient negated")
        second = like(gradient, "gradient padded")
        del negative
        first = like(gradient, "gradient padded")  # noqa: F841 added into the other
        return [second]

    negated = x.tape.empty(half, x.itemsize, f"{name} half negated")  # noqa: F841
    return record(like(x, f"{name} rotated half"), apply, [x])
