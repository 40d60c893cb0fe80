"""Two runs laid side by side: every figure that both have, and how far apart they are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from galore_mem.answers.report.alive import OUTSIDE
from galore_mem.answers.report.expected import Compared, compared
from galore_mem.answers.report.run import RunReport

MOST_MODULES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Something that differs and is no number of bytes."""

    name: str
    first: str
    second: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """The second run against the first: `expected` is the first's figure, `found` the second's."""

    peaks: tuple[Compared, ...]
    categories: tuple[Compared, ...]
    """At each run's own live peak."""
    moments: tuple[Compared, ...]
    layers: tuple[Compared, ...]
    """The layers and the rest, where both have layers: largest difference first."""
    settings: tuple[Setting, ...]
    """Workload, allocator settings and environment, where they are not the same."""


def differences_of(first: RunReport, second: RunReport) -> Differences:
    """What differs between two runs."""
    return Differences(
        peaks=compared(_peaks(first), _peaks(second), every=True),
        categories=compared(first.alive.by_category, second.alive.by_category, every=True),
        moments=compared(_moments(first), _moments(second)),
        layers=_layers(first, second),
        settings=tuple(_settings(first, second)),
    )


def _peaks(run: RunReport) -> dict[str, int]:
    figures = run.figures
    return {
        "live": figures.live_bytes,
        "allocated": figures.allocated_bytes,
        "reserved": figures.reserved_bytes,
        "process": figures.process_bytes,
    }


def _moments(run: RunReport) -> dict[str, int]:
    return {moment.label: moment.live_bytes for moment in run.moments}


def _layers(first: RunReport, second: RunReport) -> tuple[Compared, ...]:
    one, other = ({name: sum(row.values()) for name, row in run.alive.layers.items()} for run in (first, second))
    if not one or not other:
        return ()
    rows = compared(one, other, every=True)
    named = (
        Compared(
            name=row.name if row.name == OUTSIDE else f"layer {row.name}",
            expected_bytes=row.expected_bytes,
            found_bytes=row.found_bytes,
        )
        for row in rows
        if row.difference_bytes
    )
    return tuple(sorted(named, key=lambda row: -abs(row.difference_bytes))[:MOST_MODULES])


def _settings(first: RunReport, second: RunReport) -> Iterable[Setting]:
    one, other = (
        {
            "source": run.source,
            "allocator settings": run.settings,
            **_flat(run.metadata.get("workload")),
            **_flat(run.metadata.get("environment")),
        }
        for run in (first, second)
    )
    for name in {**one, **other}:
        left, right = one.get(name, ""), other.get(name, "")
        if left != right:
            yield Setting(name=name, first=left, second=right)


def _flat(value: Any, prefix: str = "") -> dict[str, str]:  # noqa: ANN401
    """A nested dict's leaves as text, by their path."""
    if not isinstance(value, Mapping):
        return {prefix: "" if value is None else str(value)} if prefix else {}
    found: dict[str, str] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{prefix} {key}".strip().replace("_", " "))
    return found
