"""`galore-mem replay`: the answer as JSON and for a terminal."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from estimators.allocator.oom import OutOfMemory
    from galore_mem.answers.replay import DeviceReplay, ReplayAnswer, WhatIf
    from galore_mem.render.terminal import Terminal
    from galore_mem.render.text import Text

MIB, GIB = 2**20, 2**30


def replay_dict(answer: "ReplayAnswer") -> dict[str, Any]:
    """The REPLAY object of the JSON output."""
    return {
        "schema": "galore-mem/replay/1",
        "settings": answer.settings,
        "recorded_settings": answer.recorded_settings,
        "devices": [_device_dict(device) for device in answer.devices],
    }


def _device_dict(device: "DeviceReplay") -> dict[str, Any]:
    run, waste = device.replayed, device.fragmentation
    recorded = None
    if device.recorded_peak_bytes is not None:
        recorded = {
            "peak_reserved_bytes": device.recorded_peak_bytes,
            "end_reserved_bytes": device.recorded_end_bytes,
        }
    return {
        "device": device.tape.device,
        "events": device.events,
        "history": device.tape.history,
        "recorded": recorded,
        "replayed": {
            "peak_live_bytes": run.peak_live_bytes,
            "peak_allocated_bytes": run.peak_allocated_bytes,
            "peak_reserved_bytes": run.peak_reserved_bytes,
            "end_reserved_bytes": run.end_reserved_bytes,
            "retries": run.retries,
            "oom": run.oom.to_dict() if run.oom else None,
        },
        "fragmentation": {
            "event": waste.event,
            "reserved_bytes": waste.reserved_bytes,
            "allocated_bytes": waste.allocated_bytes,
            "live_bytes": waste.live_bytes,
            "remainder_bytes": waste.remainder_bytes,
            "cached_bytes": waste.cached_bytes,
            "largest_cached_bytes": waste.largest_cached_bytes,
            "inactive_split_bytes": waste.inactive_split_bytes,
        },
        "first_difference": device.first_difference,
        "what_ifs": [_what_if_dict(row) for row in device.what_ifs],
        "notes": list(device.notes),
    }


def _what_if_dict(row: "WhatIf") -> dict[str, Any]:
    return {
        "settings": row.settings,
        "is_recorded": row.is_recorded,
        "start_anew": row.start_anew,
        "gpu": row.limit.name if row.limit else None,
        "capacity_bytes": row.limit.capacity_bytes if row.limit else None,
        "peak_reserved_bytes": row.peak_reserved_bytes,
        "peak_allocated_bytes": row.peak_allocated_bytes,
        "unused_share": round(row.unused_share, 6),
        "oom": row.oom.to_dict() if row.oom else None,
        "smallest_gpu": row.smallest_card,
    }


def print_replay(answer: "ReplayAnswer", screen: "Terminal | None" = None) -> None:
    """Per device: recorded against replayed, an out-of-memory explained, and the what-ifs."""
    from galore_mem.render.terminal import terminal
    from galore_mem.render.text import Text

    screen = screen or terminal()
    lines: list[Text] = []
    for device in answer.devices:
        lines += [*_head(answer, device, screen.width), Text()]
        lines += [*_what_ifs(device, screen.width), Text()]
        for note in device.notes:
            lines += _flow(f"Note: {note}.", screen.width, "dim", 6)
    if not answer.devices:
        lines.append(Text("The file holds no device with events or segments."))
    elif lines and not lines[-1].plain:
        lines.pop()
    screen.show(lines)


def _head(answer: "ReplayAnswer", device: "DeviceReplay", width: int) -> list["Text"]:
    from galore_mem.render.text import Text

    run, waste = device.replayed, device.fragmentation
    title = Text.assemble(
        (f"device {device.tape.device}", "bold"), f"  {device.events:,} events, history {_history(device)}"
    )
    lines = [title]
    settings = answer.settings or "defaults"
    lines += _flow(f"settings   {settings}", width)
    if device.recorded_peak_bytes is not None and device.recorded_end_bytes is not None:
        lines.append(
            Text(f"recorded   reserved peak {_gib(device.recorded_peak_bytes)}, end {_gib(device.recorded_end_bytes)}")
        )
    lines.append(
        Text(
            f"replayed   reserved peak {_gib(run.peak_reserved_bytes)}, end {_gib(run.end_reserved_bytes)}; "
            f"allocated peak {_gib(run.peak_allocated_bytes)}"
        )
    )
    lines += _flow(f"agreement  {_agreement(device)}", width)
    lines += _flow(
        f"at peak    {waste.unused_share:.1%} of reserved held no block ({_gib(waste.cached_bytes)} cached, largest "
        f"piece {_mib(waste.largest_cached_bytes)}); {_mib(waste.remainder_bytes)} inside blocks is rounding",
        width,
    )
    if run.oom:
        lines += _flow(f"OOM        {_oom_text(run.oom)}", width, "bold red")
    return lines


def _history(device: "DeviceReplay") -> str:
    return {"complete": "complete", "rebuilt": "began late", "final": "missing"}[device.tape.history]


def _agreement(device: "DeviceReplay") -> str:
    if device.recorded_peak_bytes is None:
        return "no real allocator was recorded"
    if device.first_difference is None:
        return f"equal reserved bytes after every one of {device.compared:,} events"
    return f"first difference after event {device.first_difference:,}"


def _oom_text(oom: "OutOfMemory") -> str:
    cause = (
        "enough was free, but not in one piece"
        if oom.is_fragmentation
        else f"{_mib(oom.requested_bytes - oom.cached_bytes - oom.free_bytes)} too few"
    )
    return (
        f"event {oom.event:,} asks for {_mib(oom.requested_bytes)}; {_gib(oom.reserved_bytes)} of "
        f"{_gib(oom.limit_bytes)} reserved, {_gib(oom.allocated_bytes)} allocated; free: {_mib(oom.free_bytes)} at the "
        f"driver, {_mib(oom.cached_bytes)} cached (largest piece {_mib(oom.largest_cached_bytes)}): {cause}"
    )


def _what_ifs(device: "DeviceReplay", width: int) -> list["Text"]:
    from galore_mem.render.text import Text
    from galore_mem.render.words import SMALLEST_CARD

    head = ("what if", "reserved", "unused", "card", "outcome")
    rows = [
        (
            (row.settings or "defaults") + " *" * row.is_recorded + " ~" * row.start_anew,
            f"{row.peak_reserved_bytes / GIB:,.2f}",
            f"{row.unused_share:.1%}",
            row.limit.name if row.limit else "",
            _outcome(row),
        )
        for row in device.what_ifs
    ]
    if not any(row[3] for row in rows):
        head = ("what if", "reserved", "unused", "", "outcome")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(5)]
    narrow = sum(widths) + 8 > width
    lines = []
    for number, row in enumerate((head, *rows)):
        cells = [f"{row[1]:>{widths[1]}}", f"{row[2]:>{widths[2]}}"]
        cells += [f"{row[3]:<{widths[3]}}"] if widths[3] else []
        style = "" if number else "dim"
        if narrow:
            lines += [Text(row[0], style=style), Text("  ".join(["", *cells, row[4]]), style="dim")]
        else:
            lines.append(Text("  ".join([f"{row[0]:<{widths[0]}}", *cells, row[4]]), style=style))
    legend = "* as recorded. Reserved: peak, in GiB (1024^3 bytes). Unused: share of it that held no block at the peak."
    if any(row.smallest_card for row in device.what_ifs):
        legend += f" Fits: the {SMALLEST_CARD} with room for it."
    if any(row.start_anew for row in device.what_ifs):
        legend += (
            " ~ what was held when the history began is allocated anew, in the order it lay: compare such rows with "
            "each other."
        )
    return [*lines, Text(), *_flow(legend, width, "dim", 0)]


def _outcome(row: "WhatIf") -> str:
    if row.oom:
        return f"OOM at event {row.oom.event:,}"
    if row.limit:
        return "runs"
    return f"fits {row.smallest_card}" if row.smallest_card else "fits no card of the catalogue"


def _flow(text: str, width: int, style: str = "", indent: int = 11) -> list["Text"]:
    from galore_mem.render.flow import flow
    from galore_mem.render.text import Text

    return flow(Text(text, style=style), width, indent)


def _gib(nbytes: int) -> str:
    return f"{nbytes / GIB:,.2f} GiB"


def _mib(nbytes: int) -> str:
    return _gib(nbytes) if nbytes >= GIB else f"{nbytes / MIB:,.1f} MiB"
