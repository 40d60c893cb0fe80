"""What a question that needs torch is about: one run, and the cards it is held against."""

from collections.abc import Mapping, Sequence
from typing import Any

from estimators.workload import Workload
from galore_mem.answers.any_model import traced_model
from galore_mem.answers.names import Card, resolve_cards
from galore_mem.answers.settings import Settings, settings_from, workloads
from galore_mem.answers.sizes import size_bytes
from profiles.errors import InputError


def run_asked(
    model: str | Workload, method: str, settings: Settings | None, words: Mapping[str, Any]
) -> tuple[Workload, tuple[str, ...]]:
    """The run, and what a person should know of its model.

    Args:
        model: a Workload; or a catalogue name, an alias, or the path of a config.json or of its folder.
        method: one training method, where the model is a name.
        settings: everything else about the run.
        words: fields of `Settings` instead.

    Raises:
        InputError: an unknown name, a value that means nothing, or settings and fields at once.
    """
    if isinstance(model, Workload):
        return model, ()
    named = traced_model(model)
    if settings is not None and words:
        raise InputError("settings and keywords exclude each other", "", f"give {', '.join(words)} in settings")
    (workload,) = workloads(named.shape, (method,), settings or settings_from(dict(words)))
    return workload, named.notes


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
