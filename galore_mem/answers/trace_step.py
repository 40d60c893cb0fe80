"""A person's own model and training step, traced on fake tensors under a GPU's rules."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from estimators.analytic.attention import CUDNN_FIRST, FLASH_CAPABILITY
from estimators.analytic.cards import card_of
from estimators.analytic.reductions import column_sum_scratch
from estimators.footprint import Footprint
from estimators.verdict import Verdict, verdict_of
from galore_mem.answers.names import Card, resolve_cards
from galore_mem.answers.recorded import (
    LARGEST,
    allocator_dict,
    environment,
    footprint_of,
    largest_rows,
    workspace_bytes_of,
)
from galore_mem.answers.replay import DeviceReplay, replay_tape
from galore_mem.answers.sizes import size_bytes
from galore_mem.answers.trace import SCHEMA
from galore_mem.errors import MissingExtraError, UsageError
from galore_mem.profiler.recording import Life, Recording, alive_at
from galore_mem.profiler.to_tape import tape_of
from galore_mem.tapes.tape import Tape
from profiles.gpus import Gpu

if TYPE_CHECKING:
    from galore_mem.profiler.recorder import Recorder

Make = Callable[[], tuple[Any, Any, Callable[[], object]]]
_FIX = "take the number from a Python value, leave such code out of the traced step, or give trace_step(scalars=1.0)"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFit:
    """The step on one card."""

    gpu: Gpu
    usable_bytes: int
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTrace:
    """What a step of one's own would hold on a GPU."""

    footprint: Footprint
    fits: tuple[StepFit, ...]
    """One per card."""
    largest: tuple[Life, ...]
    """The largest tensors alive at the live peak."""
    replay: DeviceReplay
    """What the replica of the allocator did with the history, and would do under other settings."""
    tape: Tape
    """The history; `galore_mem.tapes.file.write_tape` writes it, `galore-mem replay` asks it for settings and cards."""

    def to_dict(self) -> dict[str, Any]:
        """The TRACE object of the JSON output; there is no workload."""
        footprint = self.footprint
        return {
            "schema": SCHEMA,
            "workload": None,
            "footprint": footprint.to_dict(),
            "fits": [
                {
                    "gpu": fit.gpu.name,
                    "usable_bytes": fit.usable_bytes,
                    "verdict": fit.verdict,
                    "peak_reserved_bytes": footprint.peak_reserved_bytes,
                    "process_bytes": footprint.process_bytes,
                    "upper_bytes": footprint.upper_bytes,
                    "headroom_bytes": fit.usable_bytes - footprint.upper_bytes,
                }
                for fit in self.fits
            ],
            "largest": largest_rows(self.largest),
            "allocator": allocator_dict(self.replay),
            "environment": dict(self.tape.metadata["environment"]),
        }


def trace_step(
    make: Make,
    *,
    gpus: str | Sequence[str] = (),
    alloc_conf: str = "",
    other_use: str | int | None = None,
    scalars: float | None = None,
) -> StepTrace:
    """Trace a first and a steady call of a training step of one's own: no GPU, no memory for weights.

    Attention, dropout, masks, autocast for "cuda" and cuBLAS workspaces follow the rules of a GPU, as in `trace`.

    Args:
        make: builds and returns (model, optimizer, step); `step()` runs one whole training step. Everything is built
            inside, so that no tensor of the caller's becomes fake; devices must be left at their default. Several
            optimizers come as a list.
        gpus: cards; the first decides the attention kernels and the sizes of workspaces.
        alloc_conf: allocator settings, as in PYTORCH_CUDA_ALLOC_CONF.
        other_use: memory that other processes take from each card.
        scalars: what every number that the step reads from a tensor is taken to be; unless given, reading one outside
            the optimizer is refused.

    Raises:
        UsageError: the step needs the value of a tensor, asks for a GPU, or `make` returns no such triple.
        InputError: an unknown card, or settings that do not parse.
    """
    other_bytes = None if other_use is None else size_bytes(other_use, "other_use")
    cards = resolve_cards((gpus,) if isinstance(gpus, str) else gpus, other_bytes)
    gpu = cards[0].gpu if cards else None
    recording = _recorded(make, gpu, scalars)
    tape = tape_of(recording, source="traced", settings=alloc_conf, metadata={"environment": environment()})
    (replayed,) = replay_tape(tape, alloc_conf=alloc_conf).devices
    footprint, position = footprint_of(recording, replayed, gpu, None, ())
    return StepTrace(
        footprint=footprint,
        fits=tuple(_fit(footprint, card) for card in cards),
        largest=tuple(alive_at(recording, position)[:LARGEST]),
        replay=replayed,
        tape=tape,
    )


def _fit(footprint: Footprint, card: Card) -> StepFit:
    usable = card.gpu.usable_bytes - card.other_use_bytes
    return StepFit(gpu=card.gpu, usable_bytes=usable, verdict=verdict_of(footprint, usable))


def _recorded(make: Make, gpu: Gpu | None, scalars: float | None) -> Recording:
    try:
        from torch._subclasses import FakeTensorMode
        from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
    except ModuleNotFoundError:
        raise MissingExtraError("a trace", "train", "torch") from None
    from galore_mem.training.like_cuda import autocast_for_cuda, convertible, no_waiting

    try:
        with autocast_for_cuda(), no_waiting():
            mode = FakeTensorMode()
            with mode, convertible():
                built = _built(make)
            if not isinstance(built, tuple) or len(built) != 3 or not callable(built[2]):
                raise UsageError("make() must return (model, optimizer, step)", "", "return the three as a tuple")
            model, optimizers, step = built
            optimizers = [*optimizers] if isinstance(optimizers, list | tuple) else [optimizers]
            return _record(mode, model, optimizers, step, gpu, scalars)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        name = str(getattr(error, "func", error))
        raise UsageError(f"the step needs the values of a tensor ({name})", "fake tensors have none", _FIX) from None
    except (AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if "CUDA" not in reason and "cuda" not in reason:
            raise
        raise UsageError(
            "make() or step() asks for a GPU", reason[:160], "leave devices at their default: all tensors are fake"
        ) from None


def _record(
    mode: Any,  # noqa: ANN401
    model: Any,  # noqa: ANN401
    optimizers: list[Any],
    step: Callable[[], object],
    gpu: Gpu | None,
    scalars: float | None,
) -> Recording:
    from galore_mem.optimizer_watch import marked_refreshes
    from galore_mem.profiler.recorder import Recorder
    from galore_mem.profiler.rules import Rules
    from galore_mem.training.attention import as_on_cuda, chosen_on
    from galore_mem.training.like_cuda import like_cuda, real_norms, unread_masks
    from galore_mem.training.model import post_order
    from galore_mem.training.optimizers import make_maps_when_needed
    from galore_mem.training.step import marked_loss

    rules = Rules(
        workspace_bytes=workspace_bytes_of(gpu),
        column_sums=partial(column_sum_scratch, card_of(gpu)),
        scalars=scalars,
        fp32_statistics=True,
    )
    recorder = Recorder(rules, _vocabulary(model), mode)
    for path, module in post_order(model):
        for category, table in (("weights", module._parameters), ("buffers", module._buffers)):
            for name, tensor in table.items():
                if tensor is not None:
                    recorder.hold(category, f"{path}.{name}".lstrip("."), tensor)
    for optimizer in optimizers:
        make_maps_when_needed(optimizer)
    capability = float(gpu.compute_capability) if gpu is not None and gpu.vendor == "nvidia" else FLASH_CAPABILITY
    attention = as_on_cuda(
        chosen_on(capability, cudnn_is_first=gpu is not None and capability in CUDNN_FIRST), card=card_of(gpu)
    )
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        with ExitStack() as stack:
            for context in (mode, recorder, recorder.following(model), like_cuda(attention), real_norms()):
                stack.enter_context(context)
            stack.enter_context(unread_masks())
            stack.enter_context(marked_refreshes(recorder))
            if hasattr(model, "loss_function"):
                stack.enter_context(marked_loss(model, recorder))
            stack.enter_context(_windows(recorder, optimizers, _names(model)))
            begins = _forward_begins(recorder)
            for module in model.modules():
                stack.callback(module.register_forward_pre_hook(begins).remove)
            for iteration in ("first", "steady"):
                recorder.begin(iteration)
                step()
                recorder.enter("between")
        return recorder.close()
    finally:
        if collects:
            gc.enable()


def _forward_begins(recorder: "Recorder") -> Callable[..., None]:
    """A module's forward outside backward: what was before, be it another micro-batch's backward, is over."""
    import torch

    def begins(*_: object) -> None:
        in_backward = torch._C._current_graph_task_id() != -1
        if not in_backward and recorder.window in ("backward_start", "backward_end", "between"):
            recorder.enter("forward_end")

    return begins


def _vocabulary(model: Any) -> int | None:  # noqa: ANN401
    """Width of the output head, where the model says which of its modules that is."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    weight = getattr(head, "weight", None)
    return None if weight is None else int(weight.shape[0])


def _names(model: Any) -> dict[int, str]:  # noqa: ANN401
    return {id(parameter): name for name, parameter in model.named_parameters()}


def _built(make: Make) -> Any:  # noqa: ANN401
    """What `make` returns; asked anew where it imported bitsandbytes, whose tables are then made on the host."""
    import sys

    from torch._subclasses.fake_tensor import DataDependentOutputException

    was_there = "bitsandbytes.functional" in sys.modules
    try:
        with _host_tables():
            return make()
    except DataDependentOutputException:
        if was_there or "bitsandbytes.functional" not in sys.modules:
            raise
    with _host_tables():
        return make()


@contextmanager
def _host_tables() -> Iterator[None]:
    """Bitsandbytes computes its quantisation maps from values: on the host, where nothing is fake."""
    import sys

    library = sys.modules.get("bitsandbytes.functional")
    if library is None:
        yield
        return
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    from galore_mem.training.like_cuda import replaced

    original = library.create_dynamic_map

    def made(*args: Any, **words: Any) -> Any:  # noqa: ANN401
        with unset_fake_temporarily():
            return original(*args, **words)

    with replaced(library, "create_dynamic_map", made):
        yield


@contextmanager
def _windows(recorder: "Recorder", optimizers: Iterable[Any], names: dict[int, str]) -> Iterator[None]:
    """Tell the recorder of the optimizers' steps, and that numbers they read from tensors are taken as 1."""
    import torch

    from galore_mem.training.session import claim_state, steps_on_host

    plain = recorder.rules
    stepping = replace(plain, scalars=1.0)
    around: list[Any] = []

    def before(*_: object) -> None:
        in_backward = torch._C._current_graph_task_id() != -1
        if not in_backward:
            recorder.enter("between")
        around.append(recorder.during("layer_update" if in_backward else "step"))
        around[-1].__enter__()
        recorder.rules = stepping

    def after(optimizer: Any, *_: object) -> None:  # noqa: ANN401
        on_host = steps_on_host(optimizer)
        for parameter, state in optimizer.state.items():
            claim_state(recorder, state, names.get(id(parameter), ""), on_host=on_host)
            recorder.claim("weights", (parameter,))
            recorder.claim("gradients", (parameter.grad,))
        recorder.rules = plain
        around.pop().__exit__(None, None, None)

    handles = [hook for one in optimizers for hook in _hooked(one, before, after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hooked(optimizer: Any, before: Callable[..., None], after: Callable[..., None]) -> tuple[Any, Any]:  # noqa: ANN401
    return optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)
