"""A row as the command line that gives the same answer."""

import shlex
from collections.abc import Iterable

from estimators.workload import METHODS, Workload
from galore_mem.answers.settings import Settings, means_something, workload_of
from galore_mem.tui.state import DEFAULTS

_METHOD_FIELDS = (
    "update",
    "rank",
    "update_proj_gap",
    "scale",
    "proj_type",
    "target_modules",
    "implementation",
    "optimizer_kernel",
    "quant_blocksize",
    "lora_dropout",
)
_WORKLOAD_FIELDS = (
    "precision",
    "checkpointing",
    "attention",
    "loss",
    "keep_outputs",
    "use_cache",
    "dropout",
    "padding",
    "zero_grad",
    "clip",
)


def plan_command(workload: Workload, model: str, gpus: Iterable[str] = (), *, other_use: str = "") -> str:
    """What to type, quoted for a shell.

    Args:
        workload: the run.
        model: as the person named it.
        gpus: cards, the first of them first.
        other_use: what others take from each card.
    """
    words = ["galore-mem", "plan", model, "--method", workload.method.name]
    for name in gpus:
        words += ["--gpu", name]
    if other_use:
        words += ["--other-use", other_use]
    for name, value in settings_of(workload).items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, tuple):
            for part in value:
                words += [option, part]
        else:
            words += [option, str(value)]
    return shlex.join(words)


def settings_of(workload: Workload) -> dict[str, object]:
    """The fields of `Settings` that differ from what a plan of this method alone would take."""
    method, batch = workload.method, workload.batch
    plain = workload_of(workload.model, type(method)(name=method.name), Settings())
    found: dict[str, object] = {}
    for name in _METHOD_FIELDS:
        value = getattr(method, name)
        if value is not None and means_something(name, method.name) and value != getattr(plain.method, name):
            found[name] = value
    sizes = {
        "batch": batch.micro_batch_size,
        "seq": batch.sequence_length,
        "grad_accumulation": batch.gradient_accumulation_steps,
    }
    found |= {name: value for name, value in sizes.items() if value != DEFAULTS[name]}
    for name in _WORKLOAD_FIELDS:
        value = getattr(workload, name)
        if value != getattr(plain, name):
            found[name] = value
    if workload.allocator_settings:
        found["alloc_conf"] = workload.allocator_settings
    return found


def method_summary(name: str) -> str:
    """What a method's name stands for."""
    return METHODS[name].summary
