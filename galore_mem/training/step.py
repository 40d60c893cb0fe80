"""The canonical step: what one iteration of training does, in which order, and what it drops when.

`zero_grad(set_to_none=True)` at the top (or after the step, where the workload says so); per micro-batch forward with
labels, loss kept, `outputs` dropped before backward unless kept, backward; then the optimizer's step. Per-layer updates
step inside the last micro-batch's backward, each parameter with the sum of its gradients.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from estimators.workload import Workload
from galore_mem.training.heads import trained_head
from galore_mem.witness import EMPTY_CACHE

CLASSES = 2
"""Labels that a sequence classifier tells apart, as in transformers' configurations."""
CHUNK_TOKENS = 1024
"""Tokens whose logits the chunked loss holds at once."""


class Witness(Protocol):
    """Whoever watches the step."""

    def enter(self, window: str) -> None:
        """Another window of the step begins."""

    def during(self, window: str) -> AbstractContextManager[None]:
        """A window inside another one."""

    def claim(self, category: str, tensors: Iterable[object], owner: str = "") -> None:
        """Name the category of living tensors, and whose they are."""


def autocast_of(workload: Workload, device: str) -> AbstractContextManager[Any]:
    """Mixed precision's context; nothing for pure bf16 and fp32."""
    if not workload.runs_autocast:
        return nullcontext()
    dtype = torch.float16 if workload.precision == "amp-fp16" else torch.bfloat16
    return torch.autocast(device.partition(":")[0], dtype=dtype)


class Batcher:
    """Makes micro-batches of token ids."""

    def __init__(self, workload: Workload, device: str) -> None:
        self._sequences = workload.batch.micro_batch_size
        self.sequence_length = workload.batch.sequence_length
        self._vocabulary = workload.model.vocab_size
        self._padding = workload.padding
        self._classifies = trained_head(workload.model) == "classification"
        self._device = device

    def __call__(self) -> dict[str, Tensor]:
        """One micro-batch, labels included."""
        size = (self._sequences, self.sequence_length)
        ids = torch.randint(0, self._vocabulary, size, device=self._device)
        batch = {"input_ids": ids, "labels": self._labels(ids)}
        if self._padding:
            batch["attention_mask"] = torch.ones(size, dtype=torch.int64, device=self._device)
        return batch

    def _labels(self, ids: Tensor) -> Tensor:
        if self._classifies:
            return torch.randint(0, CLASSES, (len(ids),), device=self._device)
        return ids.clone()


def run_backwards(
    model: Any,  # noqa: ANN401
    workload: Workload,
    batcher: Batcher,
    witness: Witness,
    device: str,
    after: Callable[[], object],
) -> object:
    """Forward and backward of every micro-batch, `after` each of them; returns what the loop's variables still hold."""
    batch, outputs, loss = None, None, None
    for _ in range(workload.batch.gradient_accumulation_steps):
        witness.enter("forward_end")
        batch = batcher()
        witness.claim("inputs", batch.values())
        with autocast_of(workload, device):
            if workload.loss == "chunked":
                outputs, loss = None, chunked_loss(model, batch, witness)
            else:
                outputs = model(**batch, use_cache=workload.use_cache)
                loss = outputs.loss
        if not workload.keep_outputs:
            outputs = None
        if workload.empty_cache == "backward":
            empty_cache(witness, device)
        witness.enter("backward_start")
        loss.backward()
        witness.enter("between")
        after()
    return batch, outputs, loss


def empty_cache(witness: Witness, device: str) -> None:
    """Give back what the allocator has cached; where there is none, the witness is told when it would be."""
    with witness.during(EMPTY_CACHE):
        if device != "cpu":
            torch.cuda.empty_cache()


@contextmanager
def marked_loss(model: Any, witness: Witness) -> Iterator[None]:  # noqa: ANN401
    """Tell the witness when transformers' loss function begins; some classifiers take torch's cross-entropy at once."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    owners: list[tuple[Any, str]] = [(inner, "loss_function"), (torch.nn.functional, "cross_entropy")]
    originals = [getattr(owner, name) for owner, name in owners]

    def marking(original: Callable[..., Any]) -> Callable[..., Any]:
        def marked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if torch._C._current_graph_task_id() == -1:  # a chunked loss is computed again in backward
                witness.enter("loss")
            return original(*args, **kwargs)

        return marked

    for (owner, name), original in zip(owners, originals, strict=True):
        setattr(owner, name, marking(original))
    try:
        yield
    finally:
        for (owner, name), original in zip(owners, originals, strict=True):
            setattr(owner, name, original)


def chunked_loss(model: Any, batch: dict[str, Tensor], witness: Witness) -> Tensor:  # noqa: ANN401
    """Head and loss for `CHUNK_TOKENS` tokens at a time, each piece recomputed in backward."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    labels = batch["labels"]
    head = inner.get_output_embeddings()
    cap = getattr(inner.config, "final_logit_softcapping", None)
    hidden = inner.base_model(
        input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask"), use_cache=False
    ).last_hidden_state
    witness.enter("loss")
    shifted = torch.nn.functional.pad(labels, (0, 1), value=-100)[..., 1:].reshape(-1)
    count = (shifted != -100).sum()

    def piece(states: Tensor, targets: Tensor) -> Tensor:
        logits = head(states)
        if cap is not None:  # as Gemma does behind its head
            logits = logits / cap
            logits = torch.tanh(logits)
            logits = logits * cap
        logits = logits.float()
        return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")

    total: Tensor | None = None
    chunks = torch.split(hidden.view(-1, hidden.shape[-1]), CHUNK_TOKENS)
    del hidden
    for states, targets in zip(chunks, torch.split(shifted, CHUNK_TOKENS), strict=True):
        part = checkpoint(piece, states, targets, use_reentrant=False)
        total = part if total is None else total + part
    assert total is not None
    return total / count
