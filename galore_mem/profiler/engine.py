"""What autograd's engine does in a real run and cannot do while a dispatch mode watches.

A gradient that meets another is added into the one that the buffer holds, where that is the last reference to it
(torch/csrc/autograd/input_buffer.cpp, `can_accumulate_inplace`). The test asks `isTensorSubclassLike`, which is true of
every tensor while a dispatch mode is on, so a watched engine adds out of place and shows a sum that a real run never
holds. The recorder takes the decision again and books the sum as living where it really would.

A node's own formula that adds two gradients would look the same; among the nodes of transformers' models none does.
"""

import torch
from torch import Tensor

ADD = torch.ops.aten.add.Tensor
REALLY_IN_PLACE = {
    torch.ops.aten.index_put.default: torch.ops.aten.index_put_.default,
    torch.ops.aten.scatter.src: torch.ops.aten.scatter_.src,
}
"""Formulas of backward that fill zeros in place, unless `areAnyTensorSubclassLike` says that somebody watches
(FunctionsManual.cpp: `index_backward`, `value_selecting_reduction_backward`)."""
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
