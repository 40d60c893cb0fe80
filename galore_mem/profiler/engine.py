"""What torch does in a real run otherwise than while a dispatch mode watches, or out of its sight.

A gradient that meets another is added into the one that the buffer holds, where that is the last reference to it
(torch/csrc/autograd/input_buffer.cpp, `can_accumulate_inplace`). The test asks `isTensorSubclassLike`, which is true of
every tensor while a dispatch mode is on, so a watched engine adds out of place and shows a sum that a real run never
holds. The recorder takes the decision again and books the sum as living where it really would.

A node's own formula that adds two gradients would look the same; among the nodes of transformers' models none does.

Attention from plain matrix products asks `areAnyTensorSubclassLike` as well, before it adds its mask to the scores
(native/transformers/attention.cpp, `_scaled_dot_product_attention_math`: `attn.add_(*attn_mask)`, or `attn.add` where
somebody watches). Nothing else inside of it adds, so that every sum there is booked as its first term.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

ADD = torch.ops.aten.add.Tensor
REALLY_IN_PLACE = {
    torch.ops.aten.index_put.default: torch.ops.aten.index_put_.default,
    torch.ops.aten.scatter.src: torch.ops.aten.scatter_.src,
}
"""Formulas of backward that fill zeros in place, unless `areAnyTensorSubclassLike` says that somebody watches
(FunctionsManual.cpp: `index_backward`, `value_selecting_reduction_backward`)."""
_SAFE_SOFTMAX = torch.ops.aten._safe_softmax.default
LONE_TENSOR_COUNT = 4
"""`_use_count` of a gradient that only the engine's buffer holds: the buffer, the call's two stages, and Python's."""
LONE_STORAGE_COUNT = 2
"""Uses of a storage that one tensor holds: that tensor, and Python's handle. A view's base, which its metadata keeps,
is a third: gradients that came through a view are never added into."""


def adds_in_place(held: Tensor, arriving: Tensor) -> bool:
    """Whether the engine adds `arriving` into what its buffer holds already, instead of making a new tensor."""
    return (
        not held._is_view()
        and held._use_count() == LONE_TENSOR_COUNT  # type: ignore[attr-defined]
        and torch._C._storage_Use_Count(held.untyped_storage()._cdata) == LONE_STORAGE_COUNT
        and held.dtype == torch.promote_types(held.dtype, arriving.dtype)
    )


def dropped_inside(func: Any, result: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Bytes of what an operator makes beside its result and drops again, where that is large and no mode sees it.

    Softmax in attention looks for rows that are masked as a whole (native/transformers/attention.cpp, `_safe_softmax`):
    a truth value for every score, one for every row, and the zero that such rows are filled with.
    """
    if func is not _SAFE_SOFTMAX:
        return ()
    return result.numel(), result.numel() // result.shape[-1], result.element_size()


class InsideAttention:
    """Knows whether torch's `scaled_dot_product_attention` runs now, forward or recomputed."""

    def __init__(self) -> None:
        self.now = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Put a function that tells in the place of torch's."""
        functional = torch.nn.functional
        original: Callable[..., Tensor] = functional.scaled_dot_product_attention

        def scaled_dot_product_attention(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
            self.now = True
            try:
                return original(*args, **kwargs)
            finally:
                self.now = False

        functional.scaled_dot_product_attention = scaled_dot_product_attention
        try:
            yield
        finally:
            functional.scaled_dot_product_attention = original
