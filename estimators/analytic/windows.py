"""Sliding windows: which layers take a mask for theirs, and which kernel runs beside it.

Up to the window, sliding attention is causal attention. From as many tokens on as the window has, transformers makes a
mask for it (`_ignore_causal_mask_sdpa` in masking_utils.py), and flash attention takes none.
"""

from estimators.analytic.families.family import PLAYED_LAYERS
from estimators.workload import Workload
from profiles.shapes import FULL, SLIDING, ConfiguredShape


def window_is_reached(workload: Workload) -> bool:
    """Whether the sequence is as long as the window, so that sliding layers take a mask."""
    window = workload.model.sliding_window
    return window is not None and workload.batch.sequence_length >= window and SLIDING in workload.model.layer_kinds


def every_layer_is_masked(workload: Workload) -> bool:
    """Whether attention gets a mask in all layers: of padding, of a window that all have, or whatever the batch."""
    model = workload.model
    if isinstance(model, ConfiguredShape) and model.always_masked:
        return True
    return workload.padding or (window_is_reached(workload) and FULL not in workload.model.layer_kinds)


def layers_differ(workload: Workload) -> bool:
    """Whether some layers take a mask and others do not."""
    return window_is_reached(workload) and not every_layer_is_masked(workload) and not is_eager(workload)


def played_layers(workload: Workload) -> int:
    """Three layers stand for all where all are alike, and else all are played."""
    layers = workload.model.num_hidden_layers
    return layers if layers_differ(workload) or masks_die_apart(workload) else min(layers, PLAYED_LAYERS)


def masks_die_apart(workload: Workload) -> bool:
    """Whether checkpointed layers keep two masks between them, each until the first layer that takes it has run again.

    A middle layer that stands for several would let go of one several times.
    """
    has_masks = window_is_reached(workload) or workload.padding or is_eager(workload)
    return workload.checkpointing == "full" and has_masks and len(set(workload.model.layer_kinds)) > 1


def is_eager(workload: Workload) -> bool:
    """Whether attention is computed from matrix products, whose masks are held with a window and without."""
    model = workload.model
    own = isinstance(model, ConfiguredShape) and model.attention_code in ("eager", "own")
    return own or workload.attention == "eager"


def kernel_beside_mask(workload: Workload, kernel: str) -> str:
    """What runs in the masked layers of a model whose other layers run `kernel`.

    Where `auto` has come to `math` because fp32 leaves no kernel for grouped heads, masked layers have the
    memory-efficient one: transformers repeats key and value heads beside a mask (`use_gqa_in_sdpa`). cuDNN takes a
    mask, but no dropout with it (sdp_utils.cpp).
    """
    if kernel == "flash":
        return "efficient"
    if kernel == "cudnn" and attention_dropout(workload):
        return "efficient"
    model = workload.model
    repeats = not (isinstance(model, ConfiguredShape) and model.attention_code == "sdpa")
    if kernel == "math" and workload.attention == "auto" and workload.compute_itemsize == 4 and repeats:
        return "efficient"
    return kernel


def attention_dropout(workload: Workload) -> float:
    """Dropout on attention weights: the option, or the config's."""
    return workload.model.attention_dropout if workload.dropout is None else workload.dropout
