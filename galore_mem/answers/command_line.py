"""The command line that asks about a workload."""

from collections.abc import Sequence
from dataclasses import fields
from shlex import join

from estimators.workload import Method, Workload
from galore_mem.answers.settings import Settings, means_something, workload_of
from galore_mem.answers.wishes import Wishes

_OF_METHOD = frozenset(field.name for field in fields(Method))
_RENAMED = {
    "batch": ("batch", "micro_batch_size"),
    "seq": ("batch", "sequence_length"),
    "grad_accumulation": ("batch", "gradient_accumulation_steps"),
    "alloc_conf": ("", "allocator_settings"),
}
"""Settings that a workload keeps elsewhere, or under another name."""


def command_line(command: str, model: str, workload: Workload, gpus: Sequence[str] = (), *, other_use: str = "") -> str:
    """What to type for `workload`, quoted for a shell: `galore-mem plan llama-7b --gpu 'RTX 4090' --method adamw`.

    Args:
        command: `plan`, `trace` or `profile`.
        model: as a person names it.
        workload: the run; what is left at its default is left out.
        gpus: names of cards, the first of them first.
        other_use: what others take from each card.
    """
    words = ["galore-mem", command, model]
    for gpu in gpus:
        words += ["--gpu", gpu]
    words += ["--method", workload.method.name]
    for name, value in settings_of(workload).items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words += map(str, value if isinstance(value, tuple) else (value,))
    if other_use:
        words += ["--other-use", other_use]
    return join(words)


def fit_line(model: str, wishes: Wishes, gpus: Sequence[str], *, other_use: str = "") -> str:
    """What to type for a search: `galore-mem fit llama-7b --gpu 4090 --for batch`. See `command_line`."""
    words = ["galore-mem", "fit", model, "--gpu", *gpus]
    for field in fields(Wishes):
        value = getattr(wishes, field.name)
        if value == field.default or field.name == "trainer":
            continue
        words.append(_SEARCHED.get(field.name, f"--{field.name.replace('_', '-')}"))
        if value is not True:
            words += map(str, value if isinstance(value, tuple) else (value,))
    if other_use:
        words += ["--other-use", other_use]
    return join(words)


_SEARCHED = {"objective": "--for", "methods": "--method"}
"""Options of a search that are not called like the field."""


def settings_of(workload: Workload) -> dict[str, object]:
    """The fields of `Settings` that differ from what a plan of this method alone would take."""
    method = workload.method
    plain = workload_of(workload.model, Method(name=method.name), Settings())
    found: dict[str, object] = {}
    for field in fields(Settings):
        value = _value(workload, field.name)
        if value is not None and means_something(field.name, method.name) and value != _value(plain, field.name):
            found[field.name] = value
    return found


def _value(workload: Workload, setting: str) -> object:
    """What a workload says of one setting."""
    if setting in _RENAMED:
        part, name = _RENAMED[setting]
        return getattr(getattr(workload, part) if part else workload, name)
    return getattr(workload.method if setting in _OF_METHOD else workload, setting)
