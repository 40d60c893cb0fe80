"""What torch's DistributedDataParallel holds on one GPU, without the other GPUs.

Its reducer reads values that fake tensors lack and waits for processes that are not there, so its storages are made
here, when and where it makes them (torch/nn/parallel/distributed.py, torch/csrc/distributed/c10d/{reducer,comm}.cpp).
`tests/galore_mem/training/test_data_parallel.py` holds this to real runs of it, event by event.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from estimators.analytic.data_parallel import BROADCAST_BYTES, BROADCASTS_IN_FLIGHT, assigned, bucket_limits
from estimators.workload import Workload
from galore_mem.training.step import Witness

OWNER = "DistributedDataParallel"


class ScopingWitness(Witness, Protocol):
    """Whoever watches, and can be told what is born."""

    def scope(self, category: str) -> AbstractContextManager[None]:
        """Whatever is born inside has this category."""


class DataParallel:
    """Buckets of a model's gradients, and the copies of its weights and buffers that are broadcast.

    Args:
        model: what is trained.
        parameters: those with gradients.
        workload: the run.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[Tensor], workload: Workload) -> None:
        self._model = model
        self._parameters = list(parameters)
        self._gpus = workload.data_parallel
        self._limits = bucket_limits(workload.bucket_cap_mb)
        self._as_views = workload.gradient_as_bucket_view
        self._micro_batches = workload.batch.gradient_accumulation_steps
        self._buckets: list[Tensor] = []
        self._views: dict[Tensor, Tensor] = {}
        self._ready: list[Tensor] = []
        """In the order of the first backward that averages."""
        self._rebuilt = False
        self._averages = True
        """The present micro-batch is the last of its step."""
        self._sends_buffers = True
        self._passes = 0
        self._witness: ScopingWitness | None = None

    @property
    def is_built(self) -> bool:
        """Whether there are buckets."""
        return bool(self._buckets)

    def hooks(self, forward: nn.Module) -> Iterator[Any]:
        """Follow a module's forward and the parameters' gradients; yields what takes the hooks off again."""
        yield forward.register_forward_pre_hook(self._before_forward)
        for parameter in self._parameters:
            yield parameter.register_post_accumulate_grad_hook(self._average)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def build(self, witness: ScopingWitness) -> None:
        """Broadcast weights and buffers, and make a bucket for each dtype, as the model is wrapped."""
        self._witness = witness
        with witness.during("broadcast"), witness.scope("temporaries"):
            _broadcast([*self._model.parameters(), *self._model.buffers()])
        self._make([self._parameters[number] for number in part] for part in _by_dtype(self._parameters))

    def _make(self, parts: Any) -> None:  # noqa: ANN401
        assert self._witness is not None
        self._views.clear()
        self._buckets.clear()
        with self._witness.scope("gradients"):
            for part in parts:
                size = sum(parameter.numel() for parameter in part)
                bucket = torch.empty(size, dtype=part[0].dtype, device=part[0].device)
                self._buckets.append(bucket)
                offset = 0
                for parameter in part:
                    self._views[parameter] = bucket[offset : offset + parameter.numel()].view(parameter.shape)
                    offset += parameter.numel()
        self._witness.claim("gradients", self._buckets, OWNER)

    def _before_forward(self, *_: object) -> None:
        """Rebuild the buckets once there is an order, and send the first GPU's buffers to the others."""
        if not torch.is_grad_enabled():  # an evaluation, or a layer computed again
            return
        with torch.no_grad():
            self._prepare()
        self._passes += 1
        self._averages = self._sends_buffers = self._passes % self._micro_batches == 0

    def _prepare(self) -> None:
        if self._ready and not self._rebuilt:
            parts = assigned([(p.nbytes, p.element_size()) for p in self._ready], self._limits)
            self._make([self._ready[number] for number in part] for part in parts)
            self._rebuilt = True
        if self._sends_buffers and self._witness is not None:
            with self._witness.scope("temporaries"):
                _broadcast(list(self._model.buffers()))

    @torch.no_grad()
    def _average(self, parameter: Tensor) -> None:
        """Copy a complete gradient, divided by the number of GPUs, into its bucket."""
        if not self._averages:
            return
        if not self._rebuilt:
            self._ready.append(parameter)
        view = self._views[parameter]
        assert parameter.grad is not None
        view.copy_(parameter.grad)
        view.div_(self._gpus)
        if self._as_views:
            parameter.grad = view


def _by_dtype(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Numbers of tensors, one list for each dtype, the last of them first."""
    return sorted(assigned([(t.nbytes, t.element_size()) for t in tensors], (sys.maxsize,)), key=min, reverse=True)


def _broadcast(tensors: Sequence[Tensor]) -> None:
    """Flat copies of these tensors, two at a time."""
    parts = assigned([(t.nbytes, t.element_size()) for t in tensors], (BROADCAST_BYTES,))
    in_flight: list[Tensor] = []
    for part in sorted(parts, key=min):
        if len(in_flight) == BROADCASTS_IN_FLIGHT:
            del in_flight[0]
        flat = [tensors[number].detach().reshape(-1) for number in part]
        in_flight.append(torch.cat(flat) if len(flat) > 1 else flat[0])
    while in_flight:
        del in_flight[0]
