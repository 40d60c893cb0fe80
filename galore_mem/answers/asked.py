"""What a question that needs torch is about: one run, and the cards it is held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from estimators.workload import Workload
from galore_mem.answers.any_model import traced_model
from galore_mem.answers.names import Card, resolve_cards
from galore_mem.answers.settings import Settings, settings_from, workloads
from galore_mem.answers.sizes import size_bytes
from profiles.errors import InputError

if TYPE_CHECKING:
    from galore_mem.answers.written.run import WrittenRun

DEFAULT_METHOD = "adamw"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAsked:
    """One run in words."""

    model: str
    """As a person named it."""
    method: str
    settings: Settings
    written: "WrittenRun | None" = None
    """The other tool's file that it was read from."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about how a file was understood."""
        return self.written.notes if self.written is not None else ()


def words_asked(
    model: str | None,
    method: str | None,
    settings: Settings | None,
    words: Mapping[str, Any],
    from_file: str | None,
    command: str,
) -> RunAsked:
    """One run, by options, or by another tool's file and options in the place of what it says.

    Args:
        model: its name; the file's unless given.
        method: one training method; the file's unless given, and AdamW without one.
        settings: everything else about it.
        words: fields of `Settings` instead.
        from_file: the file.
        command: who asks, for errors.

    Raises:
        InputError: no model, a value that means nothing, or settings and fields at once.
        UsageError: a file that cannot be read or planned.
    """
    if settings is not None and words:
        raise InputError("settings and keywords exclude each other", "", f"give {', '.join(words)} in settings")
    chosen = settings or settings_from(dict(words))
    if from_file is not None:
        from galore_mem.answers.written.read import filled_in

        written, model, (found,), chosen = filled_in(from_file, model, (method,) if method else (), chosen)
        return RunAsked(model=model, method=found, settings=chosen, written=written)
    if model is None:
        raise InputError("MODEL is missing", "", f"type: galore-mem {command} llama-7b, or give --from FILE")
    return RunAsked(model=model, method=method or DEFAULT_METHOD, settings=chosen)


def run_asked(
    model: str | Workload | None,
    method: str | None,
    settings: Settings | None,
    words: Mapping[str, Any],
    from_file: str | None = None,
    command: str = "trace",
) -> "tuple[Workload, tuple[str, ...], WrittenRun | None]":
    """The run, what a person should know of it, and the file that it was read from.

    Args:
        model: a Workload; or a catalogue name, an alias, or the path of a config.json or of its folder.
        method: one training method, where the model is a name.
        settings: everything else about the run.
        words: fields of `Settings` instead.
        from_file: what another tool trains by.
        command: who asks, for errors.

    Raises:
        InputError: an unknown name, a value that means nothing, or settings and fields at once.
        UsageError: a file that cannot be read or planned.
    """
    if isinstance(model, Workload):
        return model, (), None
    asked = words_asked(model, method, settings, words, from_file, command)
    named = traced_model(asked.model)
    (workload,) = workloads(named.shape, (asked.method,), asked.settings)
    return workload, (*asked.notes, *named.notes), asked.written


def cards_asked(gpus: str | Sequence[str], other_use: str | int | None) -> tuple[Card, ...]:
    """The cards.

    Args:
        gpus: one name, or several.
        other_use: memory that other processes take from each.

    Raises:
        InputError: no such card, or no size.
        NoDeviceError: `local`, and no usable card here.
    """
    other_bytes = None if other_use is None else size_bytes(other_use, "--other-use")
    return resolve_cards((gpus,) if isinstance(gpus, str) else gpus, other_bytes)
