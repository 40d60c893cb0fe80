"""From what was set to rows: every model, method and combination of settings as a workload of its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import product
from typing import Any

from estimators.checks import check
from estimators.workload import Method, Update, Workload
from galore_mem.answers.names import NamedModel
from galore_mem.answers.settings import STORY, Settings, means_something, workload_of, workloads
from galore_mem.render.words import configuration
from galore_mem.tui.saying import line_of
from galore_mem.tui.state import MOST_ROWS, State, Value
from profiles.errors import InputError
from profiles.shapes import ModelShape

_OF_METHODS = frozenset(field.name for field in fields(Method))
_SAID = ("update", "rank", "implementation")
"""Settings that a configuration's name says already."""
SEPARATOR = " | "
_WORDS = {
    "precision": "{}",
    "batch": "batch {}",
    "seq": "seq {:,}",
    "grad_accumulation": "accumulate {}",
    "checkpointing": "checkpointing {}",
    "attention": "{} attention",
    "loss": "{} loss",
    "alloc_conf": "{}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration."""

    key: str
    """Everything that was chosen for it: what its figures are remembered by."""
    slot: str
    """Its place among the rows: model, method and update, and the values of settings that have several. Marks and the
    cursor stay on it while a setting that all rows share changes."""
    name: str
    """Method, rank, update, and whatever else differs between rows."""
    model: str
    """As the person named it."""
    named: NamedModel
    workload: Workload
    problem: str = ""
    """Why it cannot run on any card."""


def rows_of(state: State, models: Mapping[str, NamedModel]) -> tuple[Row, ...]:
    """Every row that a state asks for, in the order of models, methods and values.

    Raises:
        InputError: more than `MOST_ROWS`.
    """
    count = state.combinations * len(state.models)
    if count > MOST_ROWS:
        raise InputError(f"{count:,} configurations are too many to compare", "", f"narrow them to {MOST_ROWS:,}")
    several = len(state.models) > 1
    rows: dict[Workload, Row] = {}
    for model in state.models:
        if model not in models:
            continue
        named = models[model]
        for workload, varied, slot, key in _workloads(state, named):
            words = [configuration(workload.method), *varied]
            rows.setdefault(
                workload,
                Row(
                    key=SEPARATOR.join([model, *key]),
                    slot=SEPARATOR.join([model, *slot]),
                    name=" ".join([named.shape.name, *words] if several else words),
                    model=model,
                    named=named,
                    workload=workload,
                    problem=_problem(workload),
                ),
            )
    return tuple(rows.values())


def _workloads(state: State, named: NamedModel) -> Iterator[tuple[Workload, list[str], list[str], list[str]]]:
    story: Sequence[tuple[str, Update | None]] = STORY
    pairs = [(name, None) for name in state.methods] or story
    names = [name for name, _ in state.settings]
    for method, own in pairs:
        for values in product(*(values for _, values in state.settings)):
            chosen: dict[str, Any] = {
                name: value for name, value in zip(names, values, strict=True) if means_something(name, method)
            }
            if own is not None:
                chosen.setdefault("update", own)
            own_part = tuple(item for item in chosen.items() if item[0] in _OF_METHODS)
            rest = tuple(item for item in chosen.items() if item[0] not in _OF_METHODS)
            workload = workload_of(named.shape, _method_of(named.shape, method, own_part), _settings_of(rest))
            slot = [f"{name}={chosen[name]}" for name, several in state.settings if len(several) > 1 and name in chosen]
            key = [f"{name}={value}" for name, value in chosen.items()]
            yield workload, _varied(state, chosen), [method, own or "", *slot], [method, *key]


@lru_cache(maxsize=4096)
def _method_of(shape: ModelShape, method: str, items: tuple[tuple[str, Any], ...]) -> Method:
    """A method with its own settings: hundreds of rows share a few."""
    (workload,) = workloads(shape, (method,), _settings_of(items))
    return workload.method


@lru_cache(maxsize=4096)
def _settings_of(items: tuple[tuple[str, Any], ...]) -> Settings:
    return Settings(**dict(items))


def _varied(state: State, chosen: Mapping[str, Value]) -> list[str]:
    """Values of the settings that have more than one."""
    return [
        _WORDS.get(name, f"{name.replace('_', ' ')} {{}}").format(
            chosen[name] if chosen[name] != "" else "default allocator"
        )
        for name, values in state.settings
        if len(values) > 1 and name in chosen and name not in _SAID
    ]


def _problem(workload: Workload) -> str:
    try:
        check(workload)
    except InputError as error:
        return line_of(error, "this")
    return ""
