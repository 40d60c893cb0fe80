"""Evaluation between training steps, as transformers' Trainer runs it."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from estimators.workload import Workload, with_batch
from galore_mem.training.step import Batcher, Witness, autocast_of, chunked_loss
from galore_mem.witness import Unwatched

LOSS_ONLY_BATCHES = 2
"""Batches that are run where nothing is kept: what the first leaves behind is there in the second."""


def evaluate(model: Any, workload: Workload, witness: Witness, device: str) -> None:  # noqa: ANN401
    """Run a whole evaluation: see `estimators.analytic.evaluation`.

    Of many batches whose logits are kept, the first two and the last are run; those between are as large, and none of
    their forwards can be the largest.

    Args:
        model: in training mode, to which it returns.
        workload: the run, with evaluation.
        witness: who watches.
        device: where batches are made.
    """
    sized = with_batch(
        workload,
        micro_batch_size=workload.eval_batch,
        sequence_length=workload.eval_seq or workload.batch.sequence_length,
    )
    batcher = Batcher(sized, device)
    witness.enter("evaluation")
    model.eval()
    try:
        _loop(model, replace(sized, keep_outputs=False), batcher, witness, device)
    finally:
        model.train()
    witness.enter("between")


def _loop(model: Any, workload: Workload, batcher: Batcher, witness: Witness, device: str) -> None:  # noqa: ANN401
    from transformers.trainer_pt_utils import EvalLoopContainer

    kept = workload.eval_keep or 0
    all_logits, all_labels = EvalLoopContainer(), EvalLoopContainer()
    logits: Tensor | None = None
    labels: Tensor | None = None
    for number in range(kept or LOSS_ONLY_BATCHES):
        if logits is not None and 1 < number < kept - 1:
            logits, labels = torch.empty_like(logits), torch.empty_like(labels)  # type: ignore[arg-type]
            witness.claim("logits", (logits,))
            witness.claim("inputs", (labels,))
        else:
            logits, labels = _predict(model, workload, batcher, witness, device, keeps=bool(kept))
        if logits is not None:
            all_logits.add(logits)
            witness.claim("logits", (all_logits.tensors,))
            all_labels.add(labels)
            witness.claim("inputs", (all_labels.tensors,))


def _predict(
    model: Any,  # noqa: ANN401
    workload: Workload,
    batcher: Batcher,
    witness: Witness,
    device: str,
    *,
    keeps: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """One batch; its logits and labels where they are kept."""
    batch = batcher()
    witness.claim("inputs", batch.values())
    with torch.no_grad():
        with autocast_of(workload, device):
            if workload.loss == "chunked" and not keeps:
                chunked_loss(model, batch, Unwatched())
                return None, None
            outputs = model(**batch, use_cache=workload.use_cache)
        logits: Tensor = outputs.logits
        if workload.runs_autocast:
            logits = logits.float()  # accelerate's convert_outputs_to_fp32
    return (logits, batch["labels"]) if keeps else (None, None)
