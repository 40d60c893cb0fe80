"""What a GPU would hold, at which moment and because of which tensors: the real step, traced on fake tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from estimators.analytic.attention import attention_kernel
from estimators.analytic.bounds import nccl_terms, scratch_terms
from estimators.analytic.cards import card_of
from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.unknown_scratch import unknown_scratch
from estimators.checks import check
from estimators.footprint import Footprint
from estimators.verdict import Fit
from estimators.workload import Workload, with_batch
from galore_mem.answers.asked import cards_asked, run_asked
from galore_mem.answers.lengths import Course, Courses, Variation, course_of, vary
from galore_mem.answers.names import Card, card_for
from galore_mem.answers.needs import require_memory
from galore_mem.answers.published import Beside, published_beside
from galore_mem.answers.recorded import (
    LARGEST,
    allocator_dict,
    environment,
    fit_dict,
    fit_of,
    footprint_of,
    is_covered,
    largest_rows,
    parameters_of,
    workspace_bytes_of,
)
from galore_mem.answers.replay import DeviceReplay, replay_tape
from galore_mem.answers.settings import Settings
from galore_mem.answers.steps import STAGES, Told, silent
from galore_mem.profiler.recording import Life, Recording, alive_at
from galore_mem.profiler.to_tape import tape_of
from galore_mem.tapes.tape import Tape
from profiles.errors import InputError

if TYPE_CHECKING:
    from galore_mem.answers.written.run import WrittenRun

SCHEMA = "galore-mem/trace/1"


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
    written: "WrittenRun | None" = None
    """The other tool's file that the run was read from."""

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
        } | ({"from": self.written.to_dict()} if self.written else {})


def trace(
    model: str | Workload | None = None,
    *,
    gpus: str | Sequence[str] = (),
    method: str | None = None,
    settings: Settings | None = None,
    other_use: str | int | None = None,
    lengths: str | Sequence[int] | None = None,
    steps: int | None = None,
    seed: int = 0,
    told: Told | None = None,
    from_file: str | None = None,
    **words: Any,  # noqa: ANN401
) -> Trace:
    """Trace training steps: the real model class and the real optimizer on fake tensors.

    Args:
        model: a Workload; or a catalogue name, an alias, or the path of a config.json or of its folder.
        gpus: cards; the first decides the attention kernel and the sizes of workspaces.
        method: one training method; AdamW, or the file's, unless given.
        settings: everything else about the run; or give its fields as keywords.
        other_use: memory that other processes take from each card.
        lengths: sequence lengths that differ from step to step: `LOW:HIGH`, drawn with equal chances, or one per step.
        steps: how many steps; two unless given, and eight of different lengths.
        seed: of what is drawn.
        told: called as each stage begins.
        from_file: what another tool trains by: transformers' TrainingArguments, axolotl's or LLaMA-Factory's YAML. What
            is stated here takes its place.
        words: fields of `Settings`, for instance `rank=128`.

    Raises:
        InputError: an unknown name, a value that means nothing, or options that contradict each other.
        GaloreMemError: a missing library, or a model that cannot be built.
    """
    workload, notes, written = run_asked(model, method, settings, words, from_file)
    course = course_of(lengths, steps, seed, workload.batch.sequence_length)
    if course is not None:
        _check_course(workload, course, settings, words)
        workload = with_batch(workload, sequence_length=max(course.lengths))
    cards = cards_asked(gpus, other_use)
    card_for(other_use, cards)
    gpu = cards[0].gpu if cards else None
    kernel = attention_kernel(workload, gpu)
    named = tuple(card.gpu for card in cards) or (None,)
    told_of = (note for own in named for note in check(workload, own))
    notes += (*(card.note for card in cards if card.note), *dict.fromkeys(told_of))
    if workload.resume != "none":
        notes += (
            "a trace starts afresh: what resuming holds is in galore-mem plan, and with --exact what it reserves",
        )
    told = told or silent
    alike = Course(lengths=(workload.batch.sequence_length,) * 2, seed=seed, asked="")
    try:
        found = _answer_of_course(workload, kernel, course or alike, cards, notes, told)
    except RuntimeError as error:
        if "Storage size calculation overflowed" not in str(error):
            raise
        tokens = f"{workload.batch.tokens:,} tokens at once"
        raise InputError(f"{tokens} cannot be traced", "torch cannot address such tensors", "ask for fewer") from None
    return replace(found, written=written)


def _check_course(workload: Workload, course: Course, settings: Settings | None, words: dict[str, Any]) -> None:
    if workload.data_parallel > 1:
        raise InputError(
            f"--lengths and --steps cannot be traced with --data-parallel {workload.data_parallel}",
            "DistributedDataParallel rebuilds its buckets in the second step, which other steps then do not begin with",
            "leave them out: a first and a steady step are traced",
        )
    given = settings.given if settings is not None else words
    if "seq" in given and course.varies:
        raise InputError("--seq and --lengths exclude each other", "both say how long sequences are", "leave one out")


def _answer_of_course(
    workload: Workload, kernel: str, course: Course, cards: Sequence[Card], notes: tuple[str, ...], told: Told
) -> Trace:
    gpu = cards[0].gpu if cards else None
    courses = Courses(workload, kernel, workspace_bytes_of(gpu), card_of(gpu), told)
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
    covered = is_covered(workload)
    measured = gpu.svd_scratch if gpu is not None else ()
    if covered:
        unknown = scratch_terms(workload.model, workload.method, workload.precision, measured)
    else:
        unknown = unknown_scratch(groups, workload.method, measured)
    unknown += nccl_terms(workload)
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
