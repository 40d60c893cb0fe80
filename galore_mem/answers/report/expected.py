"""What the closed form expects of the run that was recorded, and where the recording differs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from estimators.analytic.estimate import estimate
from estimators.footprint import Footprint
from estimators.workload import Batch, Method, Workload
from galore_mem.answers.names import resolve_model
from galore_mem.answers.report.moments import Peak
from profiles.errors import InputError
from profiles.gpus import Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One figure of two sources."""

    name: str
    expected_bytes: int
    found_bytes: int

    @property
    def difference_bytes(self) -> int:
        """Found minus expected."""
        return self.found_bytes - self.expected_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The closed form laid beside a recording."""

    footprint: Footprint
    moments: tuple[Compared, ...]
    """Live bytes of every moment that both know."""
    categories: tuple[Compared, ...]
    """Live bytes by category where live memory is highest: the closed form's own moment, and `found_at`."""
    found_at: str
    """The recording's."""


def expectation(workload: Workload | None, gpu: Gpu | None, moments: Sequence[Peak]) -> Expectation | None:
    """The closed form of a workload beside a recording's moments; None where there is none."""
    if workload is None or not moments:
        return None
    try:
        footprint = estimate(workload, gpu)
    except InputError:
        return None
    found = {moment.label: moment.live_bytes for moment in moments}
    if any(moment.name != moment.phase for moment in moments):
        expected = {moment.label: moment.live_bytes for moment in footprint.moments}
    else:  # the recording knows phases only
        expected = _by_phase(footprint)
    top = max(moments, key=lambda moment: (moment.live_bytes, moment.iteration == "steady"))
    return Expectation(
        footprint=footprint,
        moments=compared(expected, found),
        categories=compared(footprint.peak.by_category, top.by_category, every=True),
        found_at=top.label,
    )


def _by_phase(footprint: Footprint) -> dict[str, int]:
    largest: dict[str, int] = {}
    for moment in footprint.moments:
        label = f"{moment.iteration} {moment.phase}"
        largest[label] = max(largest.get(label, 0), moment.live_bytes)
    return largest


def compared(expected: Mapping[str, int], found: Mapping[str, int], *, every: bool = False) -> tuple[Compared, ...]:
    """Figures by name: those that both know, or all, with 0 for what one lacks."""
    names = [name for name in {**expected, **found} if every or (name in expected and name in found)]
    return tuple(
        Compared(name=name, expected_bytes=expected.get(name, 0), found_bytes=found.get(name, 0)) for name in names
    )


def workload_of(metadata: Mapping[str, Any]) -> Workload | None:
    """The workload that a Tape's metadata names; None where it names none that this version knows."""
    data = metadata.get("workload")
    if not isinstance(data, dict):
        return None
    try:
        shape = resolve_model(str(data["model"])).shape
        method = _known(Method, data["method"])
        method["target_modules"] = tuple(method.get("target_modules", ()))
        plain = {key: value for key, value in _known(Workload, data).items() if key not in ("model", "method", "batch")}
        return Workload(model=shape, method=Method(**method), batch=Batch(**_known(Batch, data["batch"])), **plain)
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _known(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {key: value for key, value in data.items() if key in names}
