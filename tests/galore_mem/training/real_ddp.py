"""A run under torch's own DistributedDataParallel, recorded; as a script, the GPU beside it.

Usage: python -m tests.galore_mem.training.real_ddp STORE, for rank 1 of 2 of `small(data_parallel=2)`.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

from estimators.workload import Workload
from galore_mem.answers.settings import Settings, workloads
from galore_mem.profiler.recorder import Recorder
from galore_mem.profiler.recording import Recording
from galore_mem.profiler.rules import Rules
from galore_mem.training import session as sessions
from galore_mem.training.step import run_backwards
from profiles.shapes import ModelShape

STEPS = 3
PATIENCE = timedelta(seconds=90)
SHAPE = ModelShape(
    name="small",
    model_type="llama",
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    vocab_size=500,
    max_position_embeddings=128,
)


def small(method: str = "adamw", **settings: Any) -> Workload:  # noqa: ANN401
    """A workload of two layers."""
    (workload,) = workloads(SHAPE, (method,), Settings(**{"seq": 64, **settings}))
    return workload


@contextmanager
def group(rank: int = 0, size: int = 1, store: str = "") -> Iterator[None]:
    """A group of processes; of one, where no store is given."""
    found = dist.FileStore(store, size) if store else dist.HashStore()  # type: ignore[attr-defined]
    found.set_timeout(PATIENCE)
    dist.init_process_group("gloo", store=found, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def record_real(workload: Workload) -> Recording:
    """The canonical steps of a model that DistributedDataParallel wraps; needs a group.

    Args:
        workload: its `data_parallel` is left out of account.
    """
    session = sessions.Session(replace(workload, data_parallel=1), "cpu", None)
    recorder = Recorder(Rules(), workload.model.vocab_size)
    for category, name, tensor in session.weights_in_order():
        recorder.hold(category, name, tensor)
    gc.collect()
    gc.disable()
    try:
        with recorder, recorder.following(session.model):
            recorder.begin("first")
            wrapped = torch.nn.parallel.DistributedDataParallel(
                session.model,
                gradient_as_bucket_view=workload.gradient_as_bucket_view,
                bucket_cap_mb=workload.bucket_cap_mb,
            )
            outer, original = _Outer(wrapped, workload.batch.gradient_accumulation_steps), run_backwards
            with patch.object(sessions, "run_backwards", lambda model, *rest: original(outer, *rest)):
                for number in range(STEPS):
                    session.iterate(recorder, "steady" if number else "first")
        return recorder.close()
    finally:
        session.close()
        gc.enable()


class _Outer:
    """What the step calls: the wrapped model, averaging in the last micro-batch only, as under `no_sync`."""

    def __init__(self, wrapped: Any, micro_batches: int) -> None:  # noqa: ANN401
        self._wrapped = wrapped
        self._micro_batches = micro_batches
        self._calls = 0

    def __call__(self, **batch: Any) -> Any:  # noqa: ANN401
        self._calls += 1
        self._wrapped.require_backward_grad_sync = self._calls % self._micro_batches == 0
        return self._wrapped(**batch)


if __name__ == "__main__":
    with group(1, 2, sys.argv[1]):
        record_real(small(data_parallel=2))
