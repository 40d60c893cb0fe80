"""Answers from elsewhere, laid beside a plan's: a trace, a measured run, a Tape, a snapshot."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from estimators.footprint import CATEGORIES, Footprint, Moment
from galore_mem.answers.replay import DeviceReplay, replay_tape
from galore_mem.errors import UsageError
from galore_mem.tapes.recording import read_recording
from galore_mem.tapes.tape import Tape

_LARGEST_JSON_BYTES = 64 << 20
_WANTED = "open what galore-mem trace or profile wrote with --json or --tape, or a snapshot of torch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """One answer, as far as its source tells it; None is unknown."""

    title: str
    source: str
    """`analytic`, `traced`, `replayed`, `measured` or `snapshot`."""
    key: str = ""
    """The row it is about."""
    by_category: Mapping[str, int] = field(default_factory=dict)
    """Live bytes at the peak."""
    moment: str = ""
    live_bytes: int | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    process_bytes: int | None = None
    upper_bytes: int | None = None


def of_footprint(title: str, footprint: Footprint, key: str = "") -> Beside:
    """A footprint of whatever source."""
    return Beside(
        title=title,
        source=footprint.source,
        key=key,
        by_category=dict(footprint.peak.by_category),
        moment=footprint.peak.label,
        live_bytes=footprint.peak_live_bytes,
        allocated_bytes=footprint.peak_allocated_bytes,
        reserved_bytes=footprint.peak_reserved_bytes,
        process_bytes=footprint.process_bytes,
        upper_bytes=footprint.upper_bytes,
    )


def footprint_from(data: Mapping[str, Any]) -> Footprint:
    """A footprint from its JSON object.

    Raises:
        UsageError: a part is missing or of the wrong kind.
    """
    try:
        moments = tuple(
            Moment(
                iteration=moment["iteration"],
                name=str(moment["name"]),
                phase=moment["phase"],
                by_category={name: int(moment["by_category"].get(name, 0)) for name in _kept(moment["by_category"])},
            )
            for moment in data["moments"]
        )
        figures = {name: int(data[name]) for name in ("peak_allocated_bytes", "peak_reserved_bytes")}
        figures |= {name: int(data[name]) for name in ("process_bytes", "upper_bytes")}
        found = Footprint(
            source=data["source"],
            moments=moments,
            resident_bytes={str(name): int(nbytes) for name, nbytes in data["resident_bytes"].items()},
            terms=(),
            **figures,
        )
        if not moments or len({moment.name for moment in moments}) < 2:
            raise ValueError("fewer than two moments")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"the footprint cannot be used: {type(error).__name__} {error}", "", _WANTED) from None
    return found


def _kept(by_category: Mapping[str, int]) -> list[str]:
    return [name for name in CATEGORIES if by_category.get(name, 0)]


def read_beside(path: Path) -> Beside:
    """Whatever a person has: the JSON of a trace or of a measured run, a Tape, or a snapshot.

    Raises:
        UsageError: no such file, or nothing that can be used; one line that says why.
    """
    found = _json_of(path)
    if found is None:
        return _of_tape(read_recording(path), path.name)
    if not isinstance(found.get("footprint"), dict):
        raise UsageError(f"{path} holds no footprint", "", _WANTED)
    footprint = footprint_from(found["footprint"])
    return of_footprint(path.name, footprint)


def _json_of(path: Path) -> dict[str, Any] | None:
    """The object of a JSON file with a schema of ours; None for anything else, which `read_recording` explains."""
    try:
        if path.stat().st_size > _LARGEST_JSON_BYTES:
            return None
        with path.open("rb") as file:
            if file.read(1) != b"{":
                return None
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    schema = found.get("schema", "") if isinstance(found, dict) else ""
    return found if isinstance(schema, str) and not schema.startswith("galore-mem/tape/") else None


def _of_tape(tape: Tape, title: str) -> Beside:
    if not tape.devices:
        raise UsageError(f"{title} holds no device", "", _WANTED)
    answers = replay_tape(tape).devices
    device = max(answers, key=lambda answer: answer.recorded_peak_bytes or answer.replayed.peak_reserved_bytes)
    reserved = device.recorded_peak_bytes or device.replayed.peak_reserved_bytes
    live, by_category = _live_peak(device)
    return Beside(
        title=title,
        source=tape.source,
        by_category=by_category,
        live_bytes=live,
        allocated_bytes=device.replayed.peak_allocated_bytes,
        reserved_bytes=reserved,
    )


def _live_peak(device: DeviceReplay) -> tuple[int, dict[str, int]]:
    """Live bytes at the replayed peak, and by category where the Tape knows categories."""
    series = device.replayed.series.live
    if not len(series):
        return device.replayed.peak_live_bytes, {}
    peak = max(range(len(series)), key=series.__getitem__)
    table, totals = device.tape.events, Counter[str]()
    if "category" not in table.known:
        return series[peak], {}
    born: dict[int, tuple[str, int]] = {}
    for row in table.cause_rows()[: peak + 1]:
        block, size = table.block[row], table.size[row]
        if table.action[row] == 0:
            category = table.text("category", row)
            born[block] = (category if category in CATEGORIES else "remainders", -(-size // 512) * 512)
            totals[born[block][0]] += born[block][1]
        elif block in born:
            category, size = born.pop(block)
            totals[category] -= size
    return series[peak], {name: nbytes for name, nbytes in totals.items() if nbytes > 0}
