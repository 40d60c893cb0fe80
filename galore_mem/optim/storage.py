"""How a projector rests between steps: as it is, in fp32, or quantised blockwise to 8 or 4 bits."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from galore_mem.optim.geometry import Shape, Side

BLOCK_ELEMENTS = 256
"""Elements that share one fp32 scale."""
LEVELS = {"int8": 127, "int4": 7}


def key(side: Side) -> str:
    """Name of a side's projector in `optimizer.state[p]`; its scales carry the suffix `_scales`."""
    return f"projector_{side}"


def save(state: dict[str, Any], side: Side, basis: Tensor, storage: str, dtype: torch.dtype) -> None:
    """Put a basis into the state, over the old one where shape and dtype allow.

    Args:
        state: the parameter's state.
        side: which basis it is.
        basis: fp32, of the projector's shape; may be a view of something larger, of which nothing is kept.
        storage: `parameter`, `float32`, `int8` or `int4`.
        dtype: the parameter's.
    """
    if storage in LEVELS:
        codes, scales = quantise(basis, LEVELS[storage])
        _replace(state, key(side), pack(codes) if storage == "int4" else codes)
        _replace(state, f"{key(side)}_scales", scales)
    else:
        _replace(state, key(side), basis, torch.float32 if storage == "float32" else dtype)


def _replace(state: dict[str, Any], name: str, value: Tensor, dtype: torch.dtype | None = None) -> None:
    dtype = dtype or value.dtype
    old = state.get(name)
    if old is None or old.shape != value.shape or old.dtype != dtype or old.device != value.device:
        state[name] = old = torch.empty(value.shape, dtype=dtype, device=value.device)
    old.copy_(value)


def load(state: Mapping[str, Any], side: Side, storage: str, dtype: torch.dtype, shape: Shape) -> Tensor:
    """The basis in `dtype`: the resident tensor itself where it is stored so, else a new one."""
    stored: Tensor = state[key(side)]
    if storage not in LEVELS:
        return stored.to(dtype)
    codes = unpack(stored, shape[0] * shape[1]) if storage == "int4" else stored.view(-1)
    return dequantise(codes, state[f"{key(side)}_scales"], dtype).view(shape)


def stored_bytes(shape: Shape, storage: str, itemsize: int) -> int:
    """Resident bytes of one projector."""
    elements = shape[0] * shape[1]
    scales = 4 * -(-elements // BLOCK_ELEMENTS)
    match storage:
        case "int8":
            return elements + scales
        case "int4":
            return -(-elements // 2) + scales
        case "float32":
            return 4 * elements
        case _:
            return itemsize * elements


def quantise(values: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """Symmetric blockwise codes in [-level, level], in the shape of `values`, and one fp32 scale per block."""
    padded = _blocks(values.contiguous().view(-1).float())
    scales = padded.abs().amax(dim=1)
    steps = torch.where(scales > 0, scales, 1.0).div_(level)
    codes = (padded / steps[:, None]).round_().to(torch.int8).view(-1)[: values.numel()]
    return codes.view(values.shape), scales.div_(level)


def dequantise(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Flat values in `dtype`, block by block without an fp32 copy of the whole."""
    values = torch.empty(codes.numel(), dtype=dtype, device=codes.device)
    whole = codes.numel() // BLOCK_ELEMENTS * BLOCK_ELEMENTS
    values[:whole].copy_(codes[:whole])
    values[:whole].view(-1, BLOCK_ELEMENTS).mul_(scales[: whole // BLOCK_ELEMENTS, None])
    if whole < codes.numel():
        values[whole:].copy_(codes[whole:]).mul_(scales[-1])
    return values


def _blocks(flat: Tensor) -> Tensor:
    missing = -flat.numel() % BLOCK_ELEMENTS
    return torch.nn.functional.pad(flat, (0, missing)).view(-1, BLOCK_ELEMENTS)


def pack(codes: Tensor) -> Tensor:
    """Two 4-bit codes per byte, flat; the first of a pair in the lower half."""
    flat = codes.reshape(-1).add(8).to(torch.uint8)
    if flat.numel() % 2:
        flat = torch.nn.functional.pad(flat, (0, 1))
    return flat[0::2] | (flat[1::2] << 4)


def unpack(packed: Tensor, elements: int) -> Tensor:
    """The flat codes that `pack` was given."""
    codes = torch.empty(packed.numel() * 2, dtype=torch.int8, device=packed.device)
    codes[0::2] = packed & 15
    codes[1::2] = packed >> 4
    return codes[:elements].sub_(8)
