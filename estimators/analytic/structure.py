"""From a workload to the shadow step: its structure, and the sizes of its symbols."""

from collections.abc import Hashable, Mapping
from math import ceil, prod

from estimators.analytic.cards import USUAL, CardTraits
from estimators.analytic.efficient_attention import EfficientKernel, efficient_kernel, workspace_elements
from estimators.analytic.families import family_of
from estimators.analytic.families.family import PLAYED_LAYERS as PLAYED_LAYERS
from estimators.analytic.parameters import shape_sizes, workload_parameters
from estimators.analytic.quantised import blocks_of
from estimators.analytic.reductions import SUM_BYTES, column_sum_scratch
from estimators.analytic.shadow.loss import PLAYED_PIECES
from estimators.analytic.shadow.ops import SUMS
from estimators.analytic.shadow.quantised import FourBit, blocks_symbol_of
from estimators.analytic.shadow.structure import Structure
from estimators.analytic.windows import attention_dropout as attention_dropout
from estimators.analytic.windows import kernel_beside_mask, masks_die_apart, window_is_reached
from estimators.workload import Workload

LOSS_CHUNK_TOKENS = 1024
"""Tokens whose logits the chunked loss holds at once."""


def up_to_multiple(value: int, step: int) -> int:
    """`value` rounded up to a multiple of `step`."""
    return ceil(value / step) * step


def course_key(workload: Workload, kernel: str, card: CardTraits | None) -> tuple[Hashable, ...]:
    """What decides forward and backward besides the batch, so that runs that differ in other things share them."""
    method = workload.method
    adapters = (
        None
        if method.parameterisation in ("full", "galore")
        else (
            method.parameterisation,
            method.rank,
            method.target_modules,
            method.lora_dropout,
            method.adapter_dtype,
            method.quantised,
            method.bnb_4bit_use_double_quant,
        )
    )
    return (
        workload.model,
        workload.precision,
        workload.autocast,
        kernel,
        card,
        workload.checkpointing,
        workload.loss,
        workload.keep_outputs,
        workload.use_cache,
        workload.dropout,
        workload.padding,
        method.update,
        workload.frees_gradients,
        adapters,
    )


def structure_of(workload: Workload, kernel: str, card: CardTraits | None = None) -> Structure:
    """What decides which tensors exist in the workload's step.

    Args:
        workload: the run.
        kernel: the attention kernel that runs (`estimators.analytic.attention.attention_kernel`).
        card: where it runs.
    """
    model, method, batch = workload.model, workload.method, workload.batch
    targets, family = _targets(workload), family_of(model.model_type)
    layers, windowed = family.played_layers(workload), window_is_reached(workload)
    masked_kernel = kernel_beside_mask(workload, kernel) if windowed else kernel
    return Structure(
        family=model.model_type,
        weights=family.weights(model),
        traits=family.traits(workload),
        layers=layers,
        itemsize=workload.weight_itemsize,
        autocast=2 if workload.runs_autocast else 0,
        kernel=kernel,
        masked_kernel=masked_kernel,
        efficient=_efficient(workload, card) if "efficient" in (kernel, masked_kernel) else None,
        masks=family.masks(model),
        layer_types=model.layer_kinds[:layers] if windowed or masks_die_apart(workload) else (),
        splits_sums=card is not None,
        aligned=batch.sequence_length % 16 == 0 or "efficient" not in (kernel, masked_kernel),
        checkpointing=workload.checkpointing == "full",
        single_head=model.num_key_value_heads == 1 < model.num_attention_heads,
        grouped=model.num_key_value_heads < model.num_attention_heads,
        batched=batch.micro_batch_size > 1,
        padding=workload.padding,
        dropout=attention_dropout(workload),
        keep_outputs=workload.keep_outputs,
        use_cache=workload.use_cache,
        update_in_backward=method.update == "per-layer",
        gradients_into_buckets=workload.frees_gradients,
        micro_batches=played_micro_batches(workload, batch.gradient_accumulation_steps),
        targets=targets,
        parameterisation=method.parameterisation if targets else "full",
        adapter_dropout=method.lora_dropout if targets else 0.0,
        adapter_itemsize=4 if method.adapter_dtype == "fp32" else 2,
        four_bit=FourBit(itemsize=workload.compute_itemsize, double=method.bnb_4bit_use_double_quant)
        if method.quantised
        else None,
        loss_chunks=min(loss_pieces(workload), PLAYED_PIECES + 1),
    )


def batch_traits(workload: Workload) -> tuple[Hashable, ...]:
    """What of its batch decides a run's structure: runs that differ in nothing else have the same."""
    batch = workload.batch
    return (
        window_is_reached(workload),
        batch.sequence_length % 16 == 0,
        batch.micro_batch_size > 1,
        played_micro_batches(workload, batch.gradient_accumulation_steps),
        min(loss_pieces(workload), PLAYED_PIECES + 1),
        family_of(workload.model.model_type).traits(workload),
    )


def played_micro_batches(workload: Workload, steps: int) -> int:
    """Two stand for every accumulation; three where gradients die in the last of them, or step inside backward."""
    differ = workload.frees_gradients or workload.method.update == "per-layer"
    return min(steps, 3 if differ else 2)


def loss_pieces(workload: Workload) -> int:
    """Pieces of a chunked loss; 0 where all logits exist at once."""
    return 0 if workload.loss == "full" else ceil(workload.batch.tokens / LOSS_CHUNK_TOKENS)


def _targets(workload: Workload) -> frozenset[str]:
    """Linear layers with adapters or factors, by their path."""
    if workload.method.parameterisation in ("full", "galore"):
        return frozenset()
    names = (group.name for group in workload_parameters(workload))
    return frozenset(name.rsplit(".", 2)[0] for name in names if name.endswith((".lora_A.weight", ".A.weight")))


def _efficient(workload: Workload, card: CardTraits | None) -> EfficientKernel:
    width, dropout = workload.model.head_dim, attention_dropout(workload)
    return efficient_kernel(card or USUAL, workload.compute_itemsize, width, dropout)


class Symbols(dict[str, int]):
    """Numbers behind symbols; those of partial sums are worked out when they are asked for."""

    def __init__(self, known: Mapping[str, int], card: CardTraits | None) -> None:
        super().__init__(known)
        self._card = card

    def __missing__(self, symbol: str) -> int:
        """Elements of a sum's scratch (`sums_symbol`)."""
        if self._card is None or not symbol.startswith(SUMS):
            raise KeyError(symbol)
        itemsize, rows, columns = symbol.removeprefix(SUMS).split(":")
        counts = (prod(self[dim] for dim in dims.split(",")) for dims in (rows, columns))
        found = self[symbol] = column_sum_scratch(self._card, *counts, int(itemsize)) // SUM_BYTES
        return found


def symbol_sizes(workload: Workload, card: CardTraits | None = None) -> Symbols:
    """Numbers behind the symbols of a shadow tensor's dimensions, on a card."""
    model, batch = workload.model, workload.batch
    b, s, d = batch.micro_batch_size, batch.sequence_length, model.head_dim
    chunk, pieces = min(LOSS_CHUNK_TOKENS, b * s), ceil(b * s / LOSS_CHUNK_TOKENS)
    sizes = shape_sizes(model) | {
        "b": b,
        "s": s,
        "s+1": s + 1,
        "s16": up_to_multiple(s, 16),
        "s32": up_to_multiple(s, 32),
        "s128": up_to_multiple(s, 128),
        "d/2": d // 2,
        "d rounded": up_to_multiple(d, 32 if d <= 128 else 64),
        "attention workspace": workspace_elements(_efficient(workload, card), b, model.num_attention_heads, s, d),
        "c": chunk,
        "last": b * s - (pieces - 1) * chunk,
        "rest": max(pieces - PLAYED_PIECES, 0) * chunk,
        **family_of(model.model_type).batch_sizes(workload),
    }
    if workload.method.quantised:
        for weight in family_of(model.model_type).weights(model):
            if weight.role == "linear":
                out, into = weight.dims
                sizes[blocks_symbol_of(weight.dims)] = blocks_of(sizes[out] * sizes[into])
    rank = workload.method.rank
    if rank is not None:
        sizes["R"] = rank
        if workload.method.parameterisation == "low-rank":
            for group in workload_parameters(workload):
                if group.name.endswith(".A.weight"):
                    sizes[f"R {group.name.rsplit('.', 2)[0]}"] = group.shape[0]
    return Symbols(sizes, card)
