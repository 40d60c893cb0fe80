"""What decides which tensors a step has."""

from collections.abc import Hashable
from dataclasses import dataclass

from estimators.analytic.efficient_attention import EfficientKernel
from estimators.analytic.shadow.quantised import FourBit
from estimators.analytic.shadow.weights import Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What decides which tensors exist, as opposed to how large they are."""

    family: str = "llama"
    """`model_type`."""
    weights: tuple[Weight, ...]
    traits: Hashable = None
    """What the family's program wants to know besides."""
    layers: int
    """Layers that are played; three stand for any larger number."""
    itemsize: int
    """Bytes per element of weights."""
    autocast: int = 0
    """Bytes per element of autocast's dtype; 0 without autocast."""
    kernel: str = "flash"
    """A fused kernel, `math` or `eager`."""
    masked_kernel: str = "flash"
    """What runs instead in layers that take a mask."""
    efficient: EfficientKernel | None = None
    """Which of the memory-efficient kernels, where it is one of the two."""
    masks: tuple[str, ...] = ("full_attention",)
    """For which kinds of layers masks are made."""
    layer_types: tuple[str, ...] = ()
    """Kinds of the played layers where the sequence reaches their window; empty where all see all before them."""
    aligned: bool = True
    """Rows of a mask for the memory-efficient kernel are a multiple of 16 elements, as it wants them."""
    splits_sums: bool = False
    """The card is known that shares sums over rows out among its blocks of threads."""
    checkpointing: bool = False
    single_head: bool = False
    """One key-value head for several query heads: repeating it is a view."""
    grouped: bool = False
    """Fewer key-value heads than query heads."""
    batched: bool = False
    """More than one sequence."""
    padding: bool = False
    dropout: float = 0.0
    keep_outputs: bool = False
    use_cache: bool = False
    update_in_backward: bool = False
    """Gradients die in the hook that steps their parameter."""
    gradients_into_buckets: bool = False
    """Those of the last micro-batch die in the hook that copies them into a bucket."""
    micro_batches: int = 1
    """Played: 2 stand for every accumulation; 3 where gradients die in the last one, or are stepped inside backward."""
    targets: frozenset[str] = frozenset()
    """Linear layers with adapters or factors, by their path."""
    parameterisation: str = "full"
    adapter_dropout: float = 0.0
    adapter_itemsize: int = 4
    """Bytes per element of adapters."""
    four_bit: FourBit | None = None
    """How frozen linear layers are kept; None where they are as transformers makes them."""
    loss_chunks: int = 0
    """Pieces in which head and loss are computed; 0 for all at once, 5 for any number above 4."""
