"""Buffers: what a model holds on the device beside its parameters."""

from estimators.analytic.families import family_of
from estimators.analytic.tensors import Tensors
from profiles.shapes import ModelShape


def buffers(shape: ModelShape, itemsize: int = 2) -> tuple[Tensors, ...]:
    """Buffers that `model.to(device)` moves; `itemsize` is that of the weights, which no live byte depends on."""
    family = family_of(shape.model_type)
    return (*family.buffers(shape), *family.typed_buffers(shape, itemsize))
