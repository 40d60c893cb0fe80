"""Four-bit weights as bitsandbytes keeps them under QLoRA (bitsandbytes 0.50, functional.py and nn/modules.py).

`quantize_4bit` makes of a matrix two elements a byte, one fp32 scale for each block of 64 elements, and a table of the
16 values that four bits can mean, a new one for every matrix (`get_4bit_type`). With double quantisation the scales
become bytes, less their mean: one fp32 scale for each block of 256 of them, a table of 256 values that is a copy for
every matrix, and the mean. The original of that table stays with bitsandbytes (`name2qmap`).

transformers quantises every `nn.Linear` but the output head and what is tied (quantizers/base.py,
`get_keys_to_not_convert`). `Linear4bit.forward` makes biases the compute dtype where they are not.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from estimators.analytic.parameters import ParameterGroup

BLOCK_ELEMENTS = 64
"""Elements that share a scale: bitsandbytes' default, which transformers does not change."""
NESTED_BLOCK_ELEMENTS = 256
"""Scales that share one of their own."""
CODE_ELEMENTS = 16
NESTED_CODE_ELEMENTS = 256
_FP32 = 4


def blocks_of(numel: int) -> int:
    """Scales of a matrix of that many elements."""
    return -(-numel // BLOCK_ELEMENTS)


def quantised(
    groups: "tuple[ParameterGroup, ...]", compute_itemsize: int, *, double: bool
) -> "tuple[ParameterGroup, ...]":
    """The same parameters with frozen linear layers in four bits, each followed by its scales and tables.

    Args:
        groups: as LoRA trains them.
        compute_itemsize: bytes per element of what the layers compute in, and of their biases.
        double: scales are quantised too.
    """
    found: list[ParameterGroup] = []
    paths = {_path(group) for group in groups if group.kind == "linear"}
    for group in groups:
        if group.kind == "linear":
            found += [replace(group, itemsize=1, packed=True), *_statistics(group, double=double)]
        elif group.kind == "bias" and _path(group) in paths:
            found.append(replace(group, itemsize=compute_itemsize))
        else:
            found.append(group)
    if double:
        found.append(
            replace(_statistic(groups[0], "", NESTED_CODE_ELEMENTS), name="bitsandbytes' dynamic map", count=1)
        )
    return tuple(found)


def _path(group: "ParameterGroup") -> str:
    return group.name.rpartition(".")[0]


def _statistics(group: "ParameterGroup", *, double: bool) -> "list[ParameterGroup]":
    """What `QuantState` holds of a matrix, by its names."""
    blocks, code = blocks_of(group.numel), _statistic(group, "quant_map", CODE_ELEMENTS)
    if not double:
        return [_statistic(group, "absmax", blocks), code]
    return [
        _statistic(group, "absmax", blocks, itemsize=1),
        code,
        _statistic(group, "nested_offset", 1),
        _statistic(group, "nested_absmax", -(-blocks // NESTED_BLOCK_ELEMENTS)),
        _statistic(group, "nested_quant_map", NESTED_CODE_ELEMENTS),
    ]


def _statistic(group: "ParameterGroup", name: str, numel: int, itemsize: int = _FP32) -> "ParameterGroup":
    return replace(
        group,
        name=f"{group.name}.{name}",
        shape=(numel,),
        kind="quantisation",
        itemsize=itemsize,
        trainable=False,
        transposed=False,
    )
