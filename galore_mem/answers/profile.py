"""What a real step holds: the canonical step on a GPU under torch's own recorder, or on CPU tensors and replayed."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from estimators.analytic.attention import attention_kernel
from estimators.analytic.cards import card_of
from estimators.checks import check
from estimators.footprint import Footprint
from estimators.verdict import Fit
from estimators.workload import Workload
from galore_mem.answers.asked import cards_asked, run_asked
from galore_mem.answers.limits import limit_of
from galore_mem.answers.measured import footprint_of
from galore_mem.answers.names import Card, resolve_cards
from galore_mem.answers.profile_cpu import record_on_cpu
from galore_mem.answers.profile_cuda import Ending, GpuRun, Overhead, record_on_gpu
from galore_mem.answers.ran_out import RanOut, ran_out_in_replay, ran_out_on_gpu
from galore_mem.answers.recorded import (
    LARGEST,
    allocator_dict,
    environment,
    fit_dict,
    fit_of,
    largest_rows,
    parameters_of,
    workspace_bytes_of,
)
from galore_mem.answers.replay import DeviceReplay, replay_tape
from galore_mem.answers.settings import Settings
from galore_mem.answers.steps import Told, silent
from galore_mem.answers.trace import answer_of
from galore_mem.errors import NoDeviceError, UsageError
from galore_mem.profiler.attribution import UNATTRIBUTED
from galore_mem.profiler.recording import Life, alive_at
from galore_mem.profiler.steps import StepRecord
from galore_mem.tapes.tape import Tape
from profiles.errors import InputError

if TYPE_CHECKING:
    from galore_mem.answers.written.run import WrittenRun

Device = Literal["cuda", "cpu"]
STEPS = 3
"""A first step, a steady one, and one that recomputes projectors."""
MOST_SAMPLES = 200
"""Of process memory, in the JSON output."""
Meter = Callable[[], tuple[int, int]]
"""Bytes held now, and at most so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One training run's first steps, as they ran."""

    workload: Workload
    parameters: int
    """Of the model, each shared one once; adapters do not count."""
    device: Device
    ending: Ending
    """`complete`, or how it ended before that; then everything is what was seen until then."""
    attention_kernel: str
    footprint: Footprint
    """`measured` on a GPU; `replayed` where CPU tensors' history went through the replica of the allocator."""
    fits: tuple[Fit, ...]
    largest: tuple[Life, ...]
    """The largest tensors alive at the live peak."""
    replay: DeviceReplay
    """What the replica of the allocator did with the history, and would do under other settings."""
    tape: Tape
    steps: tuple[StepRecord, ...]
    ran_out: RanOut | None
    overhead: Overhead | None
    """On a GPU: what recording costs."""
    process_samples: tuple[tuple[float, int], ...]
    """On a GPU: (seconds, bytes of the process), as the driver counts."""
    statistics: dict[str, int]
    """On a GPU: the allocator's own counters at the end."""
    snapshot: Any
    """On a GPU: the history as torch wrote it."""
    environment: dict[str, Any]
    notes: tuple[str, ...]
    written: "WrittenRun | None" = None
    """The other tool's file that the run was read from."""

    @property
    def unattributed_bytes(self) -> int:
        """Bytes at the live peak that nothing explains."""
        return self.footprint.peak.by_category.get(UNATTRIBUTED, 0)

    def to_dict(self) -> dict[str, Any]:
        """The PROFILE object of the JSON output."""
        return {
            "schema": "galore-mem/profile/1",
            "device": self.device,
            "ending": self.ending,
            "workload": self.workload.to_dict() | {"parameters": self.parameters},
            "attention_kernel": self.attention_kernel,
            "footprint": self.footprint.to_dict(),
            "fits": [fit_dict(self.workload, fit) for fit in self.fits],
            "largest": largest_rows(self.largest),
            "unattributed_bytes": self.unattributed_bytes,
            "steps": [step.to_dict() for step in self.steps],
            "process_samples": _thinned(self.process_samples),
            "ran_out": self.ran_out and self.ran_out.to_dict(),
            "recording_overhead": self.overhead and self.overhead.to_dict(),
            "allocator": allocator_dict(self.replay)
            | {"first_difference": self.replay.first_difference, "statistics": self.statistics},
            "environment": self.environment,
            "notes": list(self.notes),
        } | ({"from": self.written.to_dict()} if self.written else {})


def _thinned(samples: tuple[tuple[float, int], ...]) -> list[list[float | int]]:
    """At most about `MOST_SAMPLES` of them, the largest of each stretch."""
    length = -(-len(samples) // MOST_SAMPLES) or 1
    stretches = [samples[start : start + length] for start in range(0, len(samples), length)]
    kept = [max(stretch, key=lambda sample: sample[1]) for stretch in stretches]
    return [[round(seconds, 3), nbytes] for seconds, nbytes in kept]


def profile(
    model: str | Workload | None = None,
    *,
    device: Device = "cuda",
    steps: int = STEPS,
    gpus: str | Sequence[str] = (),
    method: str | None = None,
    settings: Settings | None = None,
    other_use: str | int | None = None,
    told: Told | None = None,
    watched: Callable[[Meter], object] | None = None,
    overhead: bool = True,
    from_file: str | None = None,
    **words: Any,  # noqa: ANN401
) -> Profile:
    """Run the canonical step for real and say what it held.

    An OutOfMemoryError and Ctrl-C end the run, not the answer: `ending` says which, and the history so far is kept.

    Args:
        model: a Workload; or a catalogue name, an alias, or the path of a config.json or of its folder.
        device: `cuda` measures on this machine's GPU; `cpu` runs on CPU tensors and replays their history.
        steps: training steps; the last one recomputes projectors, where there are any and it is not the only one.
        gpus: cards to compare with; on `cpu` the first decides the attention kernel and the sizes of workspaces.
        method: one training method; AdamW, or the file's, unless given.
        settings: everything else about the run; or give its fields as keywords.
        other_use: memory that other processes take from each card.
        told: called as each stage begins.
        watched: given a function that reads current and peak memory while the run goes on.
        overhead: on a GPU, take one more step unrecorded, to say what recording costs.
        from_file: what another tool trains by: transformers' TrainingArguments, axolotl's or LLaMA-Factory's YAML. What
            is stated here takes its place.
        words: fields of `Settings`, for instance `rank=128`.

    Raises:
        InputError: an unknown name, a value that means nothing, or options that contradict each other.
        NoDeviceError: `cuda`, and this machine has no GPU that torch can use.
        GaloreMemError: a missing library, or a model that cannot be built.
    """
    if device not in get_args(Device):
        raise InputError(f"--device {device} is not known", "", f"choose {', '.join(get_args(Device))}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"--steps {steps!r} is not a positive whole number", "", f"give 1 or more, such as {STEPS}")
    workload, notes, written = run_asked(model, method, settings, words, from_file, "profile")
    cards = cards_asked(gpus, other_use)
    if device == "cuda" and workload.data_parallel > 1:
        raise UsageError(
            f"--device cuda with --data-parallel {workload.data_parallel} is not run",
            "one process cannot measure what several GPUs hold",
            "use --device cpu, or galore_mem.profile() in your own script, started by torchrun",
        )
    if device == "cuda":
        found = _on_gpu(workload, steps, cards, notes, told or silent, watched, overhead=overhead)
    else:
        notes += check(workload, cards[0].gpu if cards else None)
        found = _on_cpu(workload, steps, cards, notes, told or silent, watched)
    return replace(found, written=written)


def _on_cpu(
    workload: Workload,
    steps: int,
    cards: tuple[Card, ...],
    notes: tuple[str, ...],
    told: Told,
    watched: Callable[[Meter], object] | None,
) -> Profile:
    gpu = cards[0].gpu if cards else None
    kernel = attention_kernel(workload, gpu)
    run = record_on_cpu(
        workload,
        kernel,
        steps=steps,
        workspace_bytes=workspace_bytes_of(gpu),
        card=card_of(gpu),
        told=told,
        watched=watched,
    )
    told("replaying the allocator")
    traced = answer_of(workload, kernel, run.recording, cards, notes, groups=run.groups)
    footprint = replace(traced.footprint, source="replayed")
    around: dict[str, Any] = {**environment(), "device": "cpu"}
    metadata = {**traced.tape.metadata, "environment": around, "steps": [step.to_dict() for step in run.steps]}
    tape = replace(traced.tape, source="replayed", metadata=metadata)
    ran_out = None
    if cards and footprint.peak_reserved_bytes > limit_of(cards[0]).capacity_bytes:
        (limited,) = replay_tape(tape, cards=cards[:1]).devices
        ran_out = ran_out_in_replay(workload, run.recording, limited, cards)
    return Profile(
        workload=workload,
        parameters=traced.parameters,
        device="cpu",
        ending=run.ending,
        attention_kernel=kernel,
        footprint=footprint,
        fits=tuple(replace(fit, footprint=footprint) for fit in traced.fits),
        largest=traced.largest,
        replay=traced.replay,
        tape=tape,
        steps=run.steps,
        ran_out=ran_out,
        overhead=None,
        process_samples=(),
        statistics={},
        snapshot=None,
        environment=around,
        notes=traced.notes,
    )


def _on_gpu(
    workload: Workload,
    steps: int,
    cards: tuple[Card, ...],
    notes: tuple[str, ...],
    told: Told,
    watched: Callable[[Meter], object] | None,
    *,
    overhead: bool,
) -> Profile:
    told("importing")
    from galore_mem.profiler import cuda

    if not cards:
        with suppress(NoDeviceError):  # without its facts the run can still be measured
            cards = resolve_cards(("local",))[:1]
    gpu = cuda.Gpu()
    try:
        notes += check(workload, cards[0].gpu if cards else None)
        run = record_on_gpu(workload, gpu, steps=steps, told=told, watched=watched, overhead=overhead)
        allowed_bytes = gpu.allowed_bytes
    finally:
        gpu.close()
    told("replaying the allocator")
    kernel = "+".join(run.kernels) or (workload.attention if workload.attention != "auto" else "unseen")
    around = {**environment(), **run.environment, "attention_kernel": kernel, "allocator_settings": run.tape.settings}
    metadata: dict[str, Any] = {
        "workload": workload.to_dict(),
        "attention_kernel": kernel,
        "gpus": [card.gpu.name for card in cards],
        "environment": around,
        "steps": [step.to_dict() for step in run.steps],
    }
    if run.process_bytes is not None:
        metadata["process_bytes"] = run.process_bytes
    tape = replace(run.tape, metadata=metadata)
    (replayed,) = replay_tape(tape).devices
    footprint, position = footprint_of(run)
    return Profile(
        workload=workload,
        parameters=parameters_of(workload, run.groups),
        device="cuda",
        ending=run.ending,
        attention_kernel=kernel,
        footprint=footprint,
        fits=tuple(fit_of(workload, footprint, card) for card in cards),
        largest=tuple(alive_at(run.recording, position)[:LARGEST]),
        replay=replayed,
        tape=tape,
        steps=run.steps,
        ran_out=_ran_out(run, workload, cards, allowed_bytes),
        overhead=run.overhead,
        process_samples=run.process_samples,
        statistics=run.statistics,
        snapshot=run.snapshot,
        environment=around,
        notes=notes + run.notes + _other_kernel(run, workload, cards),
    )


def _other_kernel(run: GpuRun, workload: Workload, cards: tuple[Card, ...]) -> tuple[str, ...]:
    """Where torch chose another attention kernel than predictions take for this card."""
    if not cards or not run.kernels:
        return ()
    with suppress(InputError):
        expected = attention_kernel(workload, cards[0].gpu)
        if expected not in (*run.kernels, "eager"):
            return (f"attention ran as {'+'.join(run.kernels)}, where plan and trace expect {expected}",)
    return ()


def _ran_out(run: GpuRun, workload: Workload, cards: tuple[Card, ...], allowed_bytes: int) -> RanOut | None:
    if run.ending != "out-of-memory":
        return None
    return ran_out_on_gpu(workload, run.recording, run.tape.devices[0], cards, allowed_bytes)
