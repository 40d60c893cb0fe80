"""What a real step holds: the canonical step on a GPU under torch's own recorder, or on CPU tensors and replayed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from estimators.analytic.attention import attention_kernel
from estimators.analytic.parameters import parameter_count
from estimators.checks import check
from estimators.footprint import Footprint
from estimators.verdict import Fit
from estimators.workload import Workload
from galore_mem.answers.names import resolve_cards, resolve_model
from galore_mem.answers.profile_cpu import record_on_cpu
from galore_mem.answers.replay import DeviceReplay
from galore_mem.answers.settings import Settings, settings_from, workloads
from galore_mem.answers.sizes import size_bytes
from galore_mem.answers.steps import Told
from galore_mem.answers.trace import answer_of, environment
from galore_mem.profiler.recording import Life
from galore_mem.profiler.steps import StepRecord
from galore_mem.tapes.tape import Tape
from profiles.errors import InputError
from profiles.gpus import SMALL_WORKSPACE_BYTES

Device = Literal["cuda", "cpu"]
STEPS = 3
"""A first step, a steady one, and one that recomputes projectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One training run's first steps, as they ran."""

    workload: Workload
    device: Device
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
    environment: dict[str, Any]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The PROFILE object of the JSON output."""
        run = self.replay.replayed
        return {
            "schema": "galore-mem/profile/1",
            "device": self.device,
            "workload": self.workload.to_dict() | {"parameters": parameter_count(self.workload.model)},
            "attention_kernel": self.attention_kernel,
            "footprint": self.footprint.to_dict(),
            "fits": [fit.to_dict() for fit in self.fits],
            "largest": [
                {"bytes": life.nbytes, "category": life.category, "module": life.module, "operator": life.operator}
                for life in self.largest
            ],
            "steps": [step.to_dict() for step in self.steps],
            "allocator": {
                "settings": run.settings.text,
                "events": self.replay.events,
                "end_reserved_bytes": run.end_reserved_bytes,
                "unused_share": round(self.replay.fragmentation.unused_share, 6),
                "what_ifs": [
                    {
                        "settings": row.settings,
                        "peak_reserved_bytes": row.peak_reserved_bytes,
                        "peak_allocated_bytes": row.peak_allocated_bytes,
                    }
                    for row in self.replay.what_ifs
                ],
            },
            "environment": self.environment,
            "notes": list(self.notes),
        }


def profile(
    model: str | Workload,
    *,
    device: Device = "cuda",
    steps: int = STEPS,
    gpus: str | Sequence[str] = (),
    method: str = "adamw",
    settings: Settings | None = None,
    other_use: str | int | None = None,
    told: Told | None = None,
    **words: Any,  # noqa: ANN401
) -> Profile:
    """Run the canonical step for real and say what it held.

    Args:
        model: a Workload; or a catalogue name, an alias, or the path of a config.json or of its folder.
        device: `cuda` measures on this machine's GPU; `cpu` runs on CPU tensors and replays their history.
        steps: training steps; the last one recomputes projectors, where there are any and it is not the only one.
        gpus: cards to compare with; on `cpu` the first decides the attention kernel and the sizes of workspaces.
        method: one training method.
        settings: everything else about the run; or give its fields as keywords.
        other_use: memory that other processes take from each card.
        told: called as each stage begins.
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
    notes: tuple[str, ...] = ()
    if isinstance(model, Workload):
        workload = model
    else:
        named = resolve_model(model)
        if settings is not None and words:
            raise InputError("settings and keywords exclude each other", "", f"give {', '.join(words)} in settings")
        (workload,) = workloads(named.shape, (method,), settings or settings_from(words))
        notes = named.notes
    other_bytes = None if other_use is None else size_bytes(other_use, "--other-use")
    cards = resolve_cards((gpus,) if isinstance(gpus, str) else gpus, other_bytes)
    gpu = cards[0].gpu if cards else None
    notes += check(workload, gpu)
    if device == "cuda":
        raise InputError("--device cuda is not built yet", "", "use --device cpu")
    kernel = attention_kernel(workload, gpu)
    workspace_bytes = gpu.cublas_workspace_recent_bytes if gpu is not None else SMALL_WORKSPACE_BYTES
    recording, records = record_on_cpu(workload, kernel, steps=steps, workspace_bytes=workspace_bytes, told=told)
    traced = answer_of(workload, kernel, recording, cards, notes)
    footprint = replace(traced.footprint, source="replayed")
    around = {**environment(), "device": "cpu"}
    metadata = {**traced.tape.metadata, "environment": around, "steps": [record.to_dict() for record in records]}
    return Profile(
        workload=workload,
        device="cpu",
        attention_kernel=kernel,
        footprint=footprint,
        fits=tuple(replace(fit, footprint=footprint) for fit in traced.fits),
        largest=traced.largest,
        replay=traced.replay,
        tape=replace(traced.tape, source="replayed", metadata=metadata),
        steps=records,
        environment=around,
        notes=traced.notes,
    )
