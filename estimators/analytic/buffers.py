"""Buffers: what a model holds on the device beside its parameters."""

from estimators.analytic.families import family_of
from estimators.analytic.tensors import Tensors
from profiles.shapes import ModelShape


def buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """Buffers that `model.to(device)` moves."""
    return family_of(shape.model_type).buffers(shape)
