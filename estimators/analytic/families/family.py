"""What the closed form must know of a family of models."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace

from estimators.analytic.shadow.periods import Repeated
from estimators.analytic.shadow.program import Program
from estimators.analytic.shadow.structure import Structure
from estimators.analytic.shadow.tape import Tape
from estimators.analytic.shadow.weights import Weight
from estimators.analytic.tensors import Tensors
from estimators.workload import Workload
from profiles.shapes import ModelShape


def _none(workload: Workload) -> None:
    """No traits."""


def _no_sizes(shape: ModelShape) -> Mapping[str, int]:
    return {}


def _no_batch_sizes(workload: Workload) -> Mapping[str, int]:
    return {}


def _no_buffers(shape: ModelShape, itemsize: int) -> tuple[Tensors, ...]:
    return ()


def _three(workload: Workload) -> int:
    return min(workload.model.num_hidden_layers, PLAYED_LAYERS)


def _layers(shape: ModelShape) -> int:
    return shape.num_hidden_layers


def _all(shape: ModelShape, weight: str) -> float:
    return 1.0


def _one_for_all(shape: ModelShape) -> tuple[str, ...]:
    return shape.layer_kinds[:1]


def alternating(structure: Structure) -> tuple[Structure, tuple[Repeated, ...]]:
    """Where kinds of layers alternate, a few periods of them."""
    kinds = structure.layer_types
    period = next((step for step in range(1, len(kinds) // 4 + 1) if kinds[step:] == kinds[:-step]), 0)
    if not period:
        return structure, ()
    repeated = Repeated.of(0, structure.layers, period)
    layers = structure.layers - period * repeated.more
    return replace(structure, layers=layers, layer_types=kinds[:layers]), (repeated,)


PLAYED_LAYERS = 3
"""First, middle and last: the middle one stands for any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family's parameters, buffers and program."""

    weights: Callable[[ModelShape], tuple[Weight, ...]]
    """Every parameter that transformers builds, in the order of `named_parameters`; what is tied is listed once."""
    program: Callable[[Structure, Tape], Program]
    """Forward and loss."""
    buffers: Callable[[ModelShape], tuple[Tensors, ...]]
    """What the model holds on the device beside its parameters."""
    typed_buffers: Callable[[ModelShape, int], tuple[Tensors, ...]] = _no_buffers
    """Buffers in the dtype of the weights, given bytes per element."""
    last_product: str
    """The linear layer that ends a layer's code: recomputation stops before it. Empty where more comes after it."""
    chunked_loss: bool = False
    """The head and the loss can be computed in chunks of tokens."""
    takes_stand_ins: bool = False
    """A layer makes hidden states of hidden states, with a fused kernel whether sequences are one or several."""
    sizes: Callable[[ModelShape], Mapping[str, int]] = _no_sizes
    """Symbols of its weights' dimensions beyond `shape_sizes`."""
    batch_sizes: Callable[[Workload], Mapping[str, int]] = _no_batch_sizes
    """Symbols that depend on more than the model."""
    traits: Callable[[Workload], Hashable] = _none
    """What else decides which tensors exist; the program finds it in `structure.traits`."""
    played_layers: Callable[[Workload], int] = _three
    """Layers that are played: three where the middle one stands for the others, all where layers differ."""
    shortened: Callable[[Structure], tuple[Structure, tuple[Repeated, ...]]] = alternating
    """A step of fewer layers, and what repeats in it, from which the step of many can be written."""
    saved_modules: tuple[str, ...] = ()
    """Modules that peft trains in full beside LoRA's adapters, as a copy: a classifier's head."""
    not_quantised: str = ""
    """Why no plan covers its weights in four bits; empty where one does."""
    masks: Callable[[ModelShape], tuple[str, ...]] = _one_for_all
    """For which kinds of layers the model makes masks, in its order."""
    score_layers: Callable[[ModelShape], int] = _layers
    """How many times a token of each sequence is held against all others."""
    passed: Callable[[ModelShape, str], float] = _all
    """The share of a weight's elements that one token is multiplied with, by the weight's name."""
