"""What a GPU would hold, at which moment and because of which tensors: the real step, traced on fake tensors."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from estimators.analytic.attention import attention_kernel
from estimators.analytic.bounds import context_range, scratch_terms
from estimators.analytic.parameters import ParameterGroup, parameter_count
from estimators.analytic.unknown_scratch import unknown_scratch
from estimators.checks import check
from estimators.footprint import Footprint, Moment, Term
from estimators.verdict import Fit, max_micro_batch_size, max_sequence_length, verdict_of
from estimators.workload import Workload, with_batch
from galore_mem.answers.any_model import traced_model
from galore_mem.answers.lengths import Course, Courses, Variation, course_of, vary
from galore_mem.answers.names import Card, resolve_cards
from galore_mem.answers.needs import require_memory
from galore_mem.answers.published import Beside, published_beside
from galore_mem.answers.replay import DeviceReplay, replay_tape
from galore_mem.answers.settings import Settings, settings_from, workloads
from galore_mem.answers.sizes import size_bytes
from galore_mem.answers.steps import STAGES, Told, silent
from galore_mem.profiler.recording import HOST, PHASES, Life, Recording, alive_at, peaks_of
from galore_mem.profiler.to_tape import tape_of
from galore_mem.tapes.tape import Tape
from profiles.errors import InputError
from profiles.gpus import SMALL_WORKSPACE_BYTES, Gpu
from profiles.shapes import UncoveredShape

SCHEMA = "galore-mem/trace/1"
LARGEST = 10
"""Tensors alive at the peak that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One traced step."""

    workload: Workload
    parameters: int
    """Of the model, each shared one once; adapters do not count."""
    attention_kernel: str
    footprint: Footprint
    fits: tuple[Fit, ...]
    """One per card; the largest batch and sequence in them are the closed form's, and 0 where none covers the model."""
    largest: tuple[Life, ...]
    """The largest tensors alive at the live peak."""
    replay: DeviceReplay
    """What the replica of the allocator did with the history, and would do under other settings."""
    tape: Tape
    notes: tuple[str, ...]
    steps: int = 2
    """Steps in the history; two stand for all where every batch is alike."""
    variation: Variation | None = None
    """Where lengths differ from step to step."""
    published: tuple[Beside, ...] = ()
    """What others published for it."""

    def to_dict(self) -> dict[str, Any]:
        """The TRACE object of the JSON output."""
        return {
            "schema": SCHEMA,
            "workload": self.workload.to_dict() | {"parameters": self.parameters},
            "attention_kernel": self.attention_kernel,
            "footprint": self.footprint.to_dict(),
            "fits": [fit_dict(self.workload, fit) for fit in self.fits],
            "largest": largest_rows(self.largest),
            "allocator": allocator_dict(self.replay),
            "environment": dict(self.tape.metadata["environment"]),
            "notes": list(self.notes),
            "published": [beside.to_dict() for beside in self.published],
            "steps": self.steps,
            "lengths": self.variation.to_dict() if self.variation is not None else None,
        }


def largest_rows(lives: Sequence[Life]) -> list[dict[str, Any]]:
    """Tensors for the JSON output."""
    return [
        {"bytes": life.nbytes, "category": life.category, "module": life.module, "operator": life.operator}
        for life in lives
    ]


def allocator_dict(replay: DeviceReplay) -> dict[str, Any]:
    """The `allocator` object of the JSON output."""
    run = replay.replayed
    return {
        "settings": run.settings.text,
        "events": replay.events,
        "end_reserved_bytes": run.end_reserved_bytes,
        "unused_share": round(replay.fragmentation.unused_share, 6),
        "what_ifs": [
            {
                "settings": row.settings,
                "peak_reserved_bytes": row.peak_reserved_bytes,
                "peak_allocated_bytes": row.peak_allocated_bytes,
            }
            for row in replay.what_ifs
        ],
    }


def trace(
    model: str | Workload,
    *,
    gpus: str | Sequence[str] = (),
    method: str = "adamw",
    settings: Settings | None = None,
    other_use: str | int | None = None,
    lengths: str | Sequence[int] | None = None,
    steps: int | None = None,
    seed: int = 0,
    told: Told | None = None,
    **words: Any,  # noqa: ANN401
) -> Trace:
    """Trace training steps: the real model class and the real optimizer on fake tensors.

    Args:
        model: a Workload; or a catalogue name, an alias, or the path of a config.json or of its folder.
        gpus: cards; the first decides the attention kernel and the sizes of workspaces.
        method: one training method.
        settings: everything else about the run; or give its fields as keywords.
        other_use: memory that other processes take from each card.
        lengths: sequence lengths that differ from step to step: `LOW:HIGH`, drawn with equal chances, or one per step.
        steps: how many steps; two unless given, and eight of different lengths.
        seed: of what is drawn.
        told: called as each stage begins.
        words: fields of `Settings`, for instance `rank=128`.

    Raises:
        InputError: an unknown name, a value that means nothing, or options that contradict each other.
        GaloreMemError: a missing library, or a model that cannot be built.
    """
    notes: tuple[str, ...] = ()
    if isinstance(model, Workload):
        workload = model
    else:
        named = traced_model(model)
        if settings is not None and words:
            raise InputError("settings and keywords exclude each other", "", f"give {', '.join(words)} in settings")
        (workload,) = workloads(named.shape, (method,), settings or settings_from(words))
        notes = named.notes
    course = course_of(lengths, steps, seed, workload.batch.sequence_length)
    if course is not None:
        _check_course(course, settings, words)
        workload = with_batch(workload, sequence_length=max(course.lengths))
    other_bytes = None if other_use is None else size_bytes(other_use, "--other-use")
    cards = resolve_cards((gpus,) if isinstance(gpus, str) else gpus, other_bytes)
    gpu = cards[0].gpu if cards else None
    kernel = attention_kernel(workload, gpu)
    notes += (*(card.note for card in cards if card.note), *check(workload, gpu))
    told = told or silent
    alike = Course(lengths=(workload.batch.sequence_length,) * 2, seed=seed, asked="")
    return _answer_of_course(workload, kernel, course or alike, cards, notes, told)


def _check_course(course: Course, settings: Settings | None, words: dict[str, Any]) -> None:
    given = settings.given if settings is not None else words
    if "seq" in given and course.varies:
        raise InputError("--seq and --lengths exclude each other", "both say how long sequences are", "leave one out")


def _answer_of_course(
    workload: Workload, kernel: str, course: Course, cards: Sequence[Card], notes: tuple[str, ...], told: Told
) -> Trace:
    gpu = cards[0].gpu if cards else None
    courses = Courses(workload, kernel, workspace_bytes_of(gpu), told)
    require_memory(workload, steps=4 * len(set(course.lengths)))
    variation = vary(courses, course, told) if course.varies else None
    if variation is None:
        courses.prepare([course.lengths])
    elif workload.batch.gradient_accumulation_steps > 1:
        notes += ("the micro-batches of one step have one length",)
    told(STAGES[4])
    recording = courses.recording(course.lengths)
    return answer_of(
        workload,
        kernel,
        recording,
        cards,
        notes,
        steps=len(course.lengths),
        variation=variation,
        groups=courses.groups,
    )


def answer_of(
    workload: Workload,
    kernel: str,
    recording: Recording,
    cards: Sequence[Card],
    notes: tuple[str, ...] = (),
    *,
    steps: int = 2,
    variation: Variation | None = None,
    groups: tuple[ParameterGroup, ...] = (),
) -> Trace:
    """From a recording to the answer.

    Args:
        workload: what was recorded.
        kernel: the attention kernel that ran.
        recording: its steps.
        cards: to judge by.
        notes: what a person should know.
        steps: how many were recorded.
        variation: what the order of their lengths does.
        groups: all parameters; needed where no closed form covers the model.
    """
    gpu = cards[0].gpu if cards else None
    metadata: dict[str, Any] = {
        "workload": workload.to_dict(),
        "attention_kernel": kernel,
        "environment": environment(),
        "gpus": [card.gpu.name for card in cards],
    }
    tape = tape_of(recording, source="traced", settings=workload.allocator_settings, metadata=metadata)
    (replayed,) = replay_tape(tape).devices
    covered = _is_covered(workload)
    measured = gpu.svd_scratch if gpu is not None else ()
    if covered:
        unknown = scratch_terms(workload.model, workload.method, workload.precision, measured)
    else:
        unknown = unknown_scratch(groups, workload.method, measured)
    footprint, position = footprint_of(recording, replayed, gpu, variation, unknown)
    return Trace(
        workload=workload,
        parameters=parameters_of(workload, groups),
        attention_kernel=kernel,
        footprint=footprint,
        fits=tuple(fit_of(workload, footprint, card) for card in cards),
        largest=tuple(alive_at(recording, position)[:LARGEST]),
        replay=replayed,
        tape=tape,
        notes=notes,
        steps=steps,
        variation=variation,
        published=published_beside(workload, footprint),
    )


def environment() -> dict[str, str]:
    """Versions of what was traced."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "bitsandbytes", "galore_torch", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def footprint_of(
    recording: Recording,
    replayed: DeviceReplay,
    gpu: Gpu | None,
    variation: Variation | None,
    unknown: tuple[Term, ...],
) -> tuple[Footprint, int]:
    """The footprint, and after how many events the live peak is reached.

    Args:
        recording: what lived when.
        replayed: the same through the allocator's replica.
        gpu: the card.
        variation: what other orders of steps reserve.
        unknown: scratch that no trace sees.
    """
    peaks = [peak for peak in peaks_of(recording) if peak.window != "between"]
    moments = tuple(
        Moment(
            iteration=peak.iteration,  # type: ignore[arg-type]
            name=peak.window,
            phase=PHASES[peak.window],  # type: ignore[arg-type]
            by_category=peak.by_category,
        )
        for peak in peaks
    )
    top = max(peaks, key=lambda peak: peak.live_bytes)
    run = replayed.replayed
    reserved = run.peak_reserved_bytes
    low, high = context_range(gpu)
    beyond = reserved - top.live_bytes
    worst = max(reserved, variation.reserved.high_bytes) if variation is not None else reserved
    terms = (
        Term(
            name="blocks and segments",
            low_bytes=beyond,
            high_bytes=worst - top.live_bytes,
            reason="unsplit rests of blocks, and cached memory that no tensor fitted, by the replica of the allocator",
        ),
        *unknown,
        Term(
            name="context",
            low_bytes=(low + high) // 2,
            high_bytes=high,
            reason=gpu.context_source if gpu is not None else "the range seen on consumer cards",
        ),
    )
    footprint = Footprint(
        source="traced",
        moments=moments,
        resident_bytes=resident_bytes(recording),
        terms=terms,
        peak_allocated_bytes=run.peak_allocated_bytes,
        peak_reserved_bytes=reserved,
        process_bytes=reserved + (low + high) // 2,
        upper_bytes=worst + sum(term.high_bytes for term in unknown) + high,
    )
    return footprint, top.position


def resident_bytes(recording: Recording) -> dict[str, int]:
    """Exact bytes by category that live when the recording ends; states include the scalars that stay on the host."""
    alive = [0] * len(recording.lives)
    for code in recording.events:
        alive[abs(code) - 1] = int(code > 0)
    totals = dict.fromkeys(("weights", "buffers", "optimizer_states", "projectors", "gradients"), 0)
    for life, lives in zip(recording.lives, alive, strict=True):
        category = "optimizer_states" if life.category == HOST else life.category
        if lives and category in totals:
            totals[category] += life.nbytes
    return totals


def _is_covered(workload: Workload) -> bool:
    """Whether there is a closed form."""
    return not isinstance(workload.model, UncoveredShape)


def parameters_of(workload: Workload, groups: Sequence[ParameterGroup]) -> int:
    """Of the model, each shared one once; adapters do not count."""
    if _is_covered(workload):
        return parameter_count(workload.model)
    return sum(group.numel * group.count for group in groups if "lora_" not in group.name)


def fit_dict(workload: Workload, fit: Fit) -> dict[str, Any]:
    """A fit as JSON; what only a closed form could search is null without one."""
    unknown = {} if _is_covered(workload) else dict.fromkeys(("max_sequence_length", "max_micro_batch_size"))
    return fit.to_dict() | unknown


def fit_of(workload: Workload, footprint: Footprint, card: Card) -> Fit:
    """A footprint against a card; the largest batch and sequence are the closed form's."""
    usable = card.gpu.usable_bytes - card.other_use_bytes
    return Fit(
        gpu=card.gpu,
        footprint=footprint,
        usable_bytes=usable,
        verdict=verdict_of(footprint, usable),
        max_sequence_length=max_sequence_length(workload, card.gpu, usable) if _is_covered(workload) else 0,
        max_micro_batch_size=max_micro_batch_size(workload, card.gpu, usable) if _is_covered(workload) else 0,
    )


def workspace_bytes_of(gpu: Gpu | None) -> int:
    """What cuBLAS takes for each thread that multiplies matrices."""
    return gpu.cublas_workspace_recent_bytes if gpu is not None else SMALL_WORKSPACE_BYTES
