"""Which operators add up columns, and how a card would see them: for scratch that no dispatch mode shows.

torch sorts a reduction's dimensions by their strides and joins those that lie side by side (TensorIterator.cpp). Where
what is kept moves faster than what is added, each thread adds up columns of its own, and many rows are shared out among
blocks of threads, which need a buffer (native/cuda/Reduce.cuh).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_SUM = torch.ops.aten.sum.dim_IntList
_VECTOR = 4
ColumnSum = Callable[[int, int, int, int], int]
"""Bytes of a sum's scratch by its rows, columns, bytes per number, and columns that are read at once."""


def inside_sum(func: Any, args: tuple[Any, ...], scratch: ColumnSum) -> tuple[int, ...]:  # noqa: ANN401
    """Bytes that a sum over rows takes and gives back, if the operator is one."""
    if func is not _SUM or args[1] is None:
        return ()
    source: Tensor = args[0]
    added = {dim % source.dim() for dim in args[1]} if source.dim() else set()
    sides = (
        _joined([(size, stride) for dim, (size, stride) in enumerate(_places(source)) if (dim in added) is wanted])
        for wanted in (True, False)
    )
    rows, columns = sides
    if not rows or not columns or rows[0][1] < columns[0][1]:
        return ()
    nbytes = scratch(_product(rows), _product(columns), source.element_size(), _vector(source, rows, columns))
    return (nbytes,) if nbytes else ()


def _places(source: Tensor) -> list[tuple[int, int]]:
    return list(zip(source.shape, source.stride(), strict=True))


def _joined(dims: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sizes and strides, the fastest first, of what is longer than one."""
    found: list[tuple[int, int]] = []
    for size, stride in sorted((dim for dim in dims if dim[0] > 1), key=lambda dim: dim[1]):
        if found and found[-1][0] * found[-1][1] == stride:
            found[-1] = (found[-1][0] * size, found[-1][1])
        else:
            found.append((size, stride))
    return found


def _vector(source: Tensor, rows: Sequence[tuple[int, int]], columns: Sequence[tuple[int, int]]) -> int:
    """Columns that one thread reads at once (`get_output_vec_size`)."""
    if columns[0][1] != 1:
        return 1
    vector = _VECTOR
    for number in (source.storage_offset(), columns[0][0], *(stride for _, stride in (*rows, *columns[1:]))):
        while number % vector:
            vector //= 2
    return vector


def _product(dims: Sequence[tuple[int, int]]) -> int:
    total = 1
    for size, _ in dims:
        total *= size
    return total
