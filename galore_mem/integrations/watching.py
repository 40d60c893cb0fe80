"""Whoever watches a Trainer's steps: on CPU tensors every storage, on a GPU torch's own history."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from galore_mem.profiler.steps import Stopwatch
from galore_mem.tapes.tape import Tape


class Watch(Protocol):
    """A recording under way."""

    steps: Stopwatch

    def start(self) -> None:
        """From now on everything is recorded."""

    def hold_inputs(self, batch: object) -> None:
        """A batch reaches the model."""

    def stop(self, metadata: Mapping[str, Any]) -> Tape:
        """End the recording."""


def watch_of(model: nn.Module) -> Watch:
    """The right one for where the model lives."""
    first = next(model.parameters(), None)
    return GpuWatch(model) if first is not None and first.is_cuda else CpuWatch(model)


def _vocabulary(model: nn.Module) -> int | None:
    found = getattr(getattr(model, "config", None), "vocab_size", None)
    return found if isinstance(found, int) else None


class CpuWatch:
    """Sees every operator; the history goes through the replica of the allocator later."""

    def __init__(self, model: nn.Module) -> None:
        from galore_mem.profiler.recorder import Recorder
        from galore_mem.profiler.rules import Rules

        self.model = model
        self.recorder = Recorder(Rules(), _vocabulary(model))
        self.steps = Stopwatch(self.recorder, lambda: len(self.recorder.recording.events))
        self._stack = ExitStack()

    def start(self) -> None:
        """From now on everything is recorded; what the model holds already comes first."""
        for category, named in (("weights", self.model.named_parameters()), ("buffers", self.model.named_buffers())):
            for name, tensor in named:
                self.recorder.hold(category, name, tensor)
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                self.recorder.hold("gradients", name, parameter.grad)
        self._stack.enter_context(self.recorder)
        self._stack.enter_context(self.recorder.following(self.model))

    def hold_inputs(self, batch: object) -> None:
        """A batch was made before the step began."""
        for tensor in tree_leaves(batch):
            if isinstance(tensor, Tensor):
                self.recorder.hold("inputs", "", tensor)

    def stop(self, metadata: Mapping[str, Any]) -> Tape:
        """End the recording."""
        from galore_mem.profiler.to_tape import tape_of

        self._stack.close()
        settings = os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
        return tape_of(self.recorder.close(), source="replayed", settings=settings, metadata=metadata)


class GpuWatch:
    """Leaves stamps beside the history that torch records."""

    def __init__(self, model: nn.Module) -> None:
        from galore_mem.profiler.cuda import Gpu
        from galore_mem.profiler.stamps import StampingWitness

        self.model = model
        self.gpu = Gpu()
        self.witness = StampingWitness(self.gpu.position, self.gpu.address, self.gpu.on_device, self.gpu.tag)
        self.steps = Stopwatch(self.witness, self.gpu.position, self.gpu.instant, self.gpu.elapsed)
        self._stack = ExitStack()

    def start(self) -> None:
        """From now on torch keeps a history."""
        self._stack.callback(self.gpu.close)
        self._stack.enter_context(self.gpu.recording())
        for category, named in (("weights", self.model.named_parameters()), ("buffers", self.model.named_buffers())):
            for name, tensor in named:
                self.witness.claim(category, (tensor,), name)
        self._stack.enter_context(self.witness.following(self.model, accumulates=True))

    def hold_inputs(self, batch: object) -> None:
        """A batch reaches the model."""
        self.witness.claim("inputs", [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)])

    def stop(self, metadata: Mapping[str, Any]) -> Tape:
        """Take torch's history and lay the stamps beside it."""
        from galore_mem.profiler.attribution import Sizes, measured_tape

        snapshot, seen = self.gpu.snapshot(), self.gpu.position()
        known = {**metadata, "environment": {**metadata["environment"], **self.gpu.environment()}}
        self._stack.close()
        sizes = Sizes(workspaces=self.gpu.workspaces)
        return measured_tape(snapshot, self.gpu, self.witness.stamps, events_seen=seen, sizes=sizes, metadata=known)[0]
