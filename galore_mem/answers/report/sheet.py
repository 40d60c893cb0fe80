"""What an answer's JSON says that came without its history: `trace --json`, `profile --json`, `validate`'s records."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from galore_mem.answers.report.expected import Compared, compared
from profiles.errors import InputError
from profiles.fields import Fields

SCHEMAS = {"galore-mem/trace/1": "trace", "galore-mem/profile/1": "profile", "galore-mem/record/1": "record"}
LARGEST_FILE_BYTES = 64 << 20
PEAKS = ("live", "allocated", "reserved", "process")


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetMoment:
    """One moment of a step."""

    label: str
    by_category: Mapping[str, int]

    @property
    def live_bytes(self) -> int:
        """All categories together."""
        return sum(self.by_category.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetFit:
    """One card."""

    gpu: str
    verdict: str
    usable_bytes: int
    upper_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetSide:
    """One source's figures."""

    name: str
    """`traced`, `measured`, `analytic`, ..."""
    peaks: Mapping[str, int]
    """Of `PEAKS`, those that are known."""
    moments: tuple[SheetMoment, ...]
    at_peak_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """An answer without a history."""

    name: str
    title: str
    kind: str
    """`trace`, `profile` or `record`."""
    found: SheetSide
    predictions: tuple[SheetSide, ...]
    """Of a record: what had been predicted before."""
    fits: tuple[SheetFit, ...]
    largest: tuple[tuple[int, str, str, str], ...]
    """(bytes, category, module, operator)."""
    what_ifs: tuple[tuple[str, int], ...]
    """(allocator settings, reserved bytes)."""
    facts: Mapping[str, Any]
    """Workload and environment."""
    notes: tuple[str, ...]
    raw: str


def read_sheet(path: str | os.PathLike[str]) -> Sheet | None:
    """An answer's JSON; None where the file is something else.

    Raises:
        InputError: it says that it is one, and is not; one line that says why.
    """
    file = Path(path)
    try:
        if file.stat().st_size > LARGEST_FILE_BYTES:
            return None
        with file.open("rb") as stream:
            if stream.read(1) != b"{":
                return None
        text = file.read_text(encoding="utf-8")
        head = json.loads(text, parse_constant=_no_constant)
    except InputError:
        raise
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(head, dict) or head.get("schema") not in SCHEMAS:
        return None
    kind = SCHEMAS[head["schema"]]
    return _sheet(Fields(head, str(path), f"a {kind}"), kind, file.name, text)


def _sheet(fields: Fields, kind: str, name: str, text: str) -> Sheet:
    data = fields.plain
    facts = {key: data[key] for key in ("row", "device", "workload", "environment", "tape") if data.get(key)}
    predictions: tuple[SheetSide, ...] = ()
    if kind == "record":
        predicted = fields.inner("predicted")
        predictions = tuple(_side(predicted.inner(source), source) for source in predicted)
        if "measured" not in fields:
            fields.refuse(f"it was not measured ({data.get('outcome')})")
        found = _side(fields.inner("measured"), fields.text("source"))
    else:
        footprint = fields.inner("footprint")
        found = _side(footprint, footprint.text("source"))
    return Sheet(
        name=name,
        title=_title(data, name),
        kind=kind,
        found=found,
        predictions=predictions,
        fits=tuple(map(_fit, fields.inners("fits"))) if "fits" in fields else (),
        largest=tuple(
            (each.count("bytes"), str(each.plain.get("category")), str(each.plain.get("module")), each.text("operator"))
            for each in (fields.inners("largest") if "largest" in fields else ())
        ),
        what_ifs=tuple(
            (str(each.plain.get("settings")), each.count("peak_reserved_bytes"))
            for each in (fields.inner("allocator").inners("what_ifs") if "allocator" in fields else ())
        ),
        facts=facts,
        notes=fields.texts("notes") if "notes" in fields else (),
        raw=text,
    )


def _side(fields: Fields, name: str) -> SheetSide:
    keys = {"live": "peak_live_bytes", "allocated": "peak_allocated_bytes", "reserved": "peak_reserved_bytes"}
    keys["process"] = "process_bytes"
    return SheetSide(
        name=name,
        peaks={peak: fields.count(key) for peak, key in keys.items() if key in fields},
        moments=tuple(
            SheetMoment(
                label=f"{moment.text('iteration')} {moment.text('name')}", by_category=moment.counts("by_category")
            )
            for moment in fields.inners("moments")
        ),
        at_peak_bytes=fields.counts("at_peak_bytes"),
    )


def _fit(fields: Fields) -> SheetFit:
    return SheetFit(
        gpu=fields.text("gpu"),
        verdict=fields.text("verdict", ("fits", "tight", "does-not-fit")),
        usable_bytes=fields.count("usable_bytes"),
        upper_bytes=fields.count("upper_bytes"),
    )


def _title(data: Mapping[str, Any], name: str) -> str:
    workload = data.get("workload")
    if not isinstance(workload, dict):
        return name
    method = workload.get("method")
    words = [str(workload.get("model", name))]
    if isinstance(method, dict):
        rank = method.get("rank")
        words += [str(method.get("name", "")) + (f" r{rank}" if rank else "")]
        words += ["per-layer"] if method.get("update") == "per-layer" else []
    return ", ".join(words[:2]) + "".join(f" {word}" for word in words[2:])


def sides_compared(first: SheetSide, second: SheetSide) -> dict[str, tuple[Compared, ...]]:
    """Peaks, categories and moments of two sources."""
    return {
        "peaks": compared(first.peaks, second.peaks),
        "categories": compared(first.at_peak_bytes, second.at_peak_bytes, every=True),
        "moments": compared(
            {moment.label: moment.live_bytes for moment in first.moments},
            {moment.label: moment.live_bytes for moment in second.moments},
        ),
    }


def _no_constant(name: str) -> NoReturn:
    raise InputError(f"the file holds {name}", "that is no number of bytes", "write it anew")
