"""One recorded run, with everything a page draws of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from estimators.workload import Workload
from galore_mem.answers.histories import History
from galore_mem.answers.limits import recorded_limit
from galore_mem.answers.names import Card, resolve_cards
from galore_mem.answers.replay import DeviceReplay, own_settings, replay_tape
from galore_mem.answers.report.alive import Alive, alive_at
from galore_mem.answers.report.expected import Expectation, expectation, workload_of
from galore_mem.answers.report.figures import Figures, Verdict, figures_of, verdicts_of
from galore_mem.answers.report.labels import NAMES, labels_of
from galore_mem.answers.report.lives import Lives
from galore_mem.answers.report.moments import Peak, categories_at, moments_of
from galore_mem.answers.report.rules import Rule
from galore_mem.answers.report.segments import Segment, segments_drawn
from galore_mem.answers.report.spans import Span, iterations_of, phases_of
from galore_mem.answers.report.timeline import MOST_PEAKS, Timeline, timeline_of
from galore_mem.answers.report.times import StepTime, step_times
from galore_mem.tapes.tape import DeviceTape, Tape
from profiles.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """One device of one recording."""

    name: str
    """The file, without its folder."""
    source: str
    device: int
    history: str
    is_overflowed: bool
    """The history began late: what happened before is not in the file."""
    settings: str
    workload: Workload | None
    metadata: Mapping[str, Any]
    figures: Figures
    verdicts: tuple[Verdict, ...]
    replay: DeviceReplay
    lives: Lives
    categories: Sequence[str]
    """Of each block."""
    categories_by_rule: bool
    phases: tuple[Span, ...]
    iterations: tuple[Span, ...]
    timeline: Timeline
    peak: Peak
    runner_up: Peak | None
    moments: tuple[Peak, ...]
    alive: Alive
    segments: tuple[Segment, ...]
    """At the reserved peak."""
    expectation: Expectation | None
    steps: tuple[StepTime, ...]
    notes: tuple[str, ...]


def run_report(
    tape: Tape,
    name: str,
    *,
    device: int | None = None,
    cards: Sequence[Card] = (),
    rules: Sequence[Rule] = (),
) -> RunReport:
    """Everything a page draws of one recording.

    Args:
        tape: the recording.
        name: what people call it.
        device: its number; the one that reserved most unless given.
        cards: to judge by; those that the recording names unless given.
        rules: a person's own, for categories.

    Raises:
        InputError: it holds nothing that could be drawn, or no such device.
    """
    chosen, notes = _device(tape, name, device)
    cards = tuple(cards) or _named_cards(tape.metadata)
    alone = Tape(devices=(chosen,), settings=tape.settings, source=tape.source, metadata=tape.metadata)
    (replayed,) = replay_tape(alone).devices
    lives = Lives(chosen)
    phases = phases_of(lives)
    iterations = iterations_of(lives, phases)
    labels = labels_of(lives, phases, rules)
    names = labels.names
    series = replayed.replayed.series
    live = _without_tries(lives, series.live)
    workload = workload_of(tape.metadata)
    moments = moments_of(lives, names, live, iterations, phases)
    peak = _peak(lives, names, live, phases, iterations, moments)
    figures = figures_of(replayed, peak.live_bytes, workload, cards, tape.metadata.get("process_bytes"))
    reserved_peak = replayed.replayed.peak_event
    history = History(chosen, own_settings(tape.settings)[0])
    placed = history.segments(recorded_limit(chosen), reserved_peak)
    blocks = {block.ident for segment in placed for block in segment.blocks}
    block_categories = {block: name for block, name in zip(lives.block, names, strict=True) if block in blocks}
    return RunReport(
        name=name,
        source=tape.source,
        device=chosen.device,
        history=chosen.history,
        is_overflowed=chosen.history == "rebuilt",
        settings=tape.settings,
        workload=workload,
        metadata=tape.metadata,
        figures=figures,
        verdicts=verdicts_of(replayed, figures, cards),
        replay=replayed,
        lives=lives,
        categories=names,
        categories_by_rule=labels.by_rule,
        phases=phases,
        iterations=iterations,
        timeline=timeline_of(
            lives,
            NAMES,
            labels.category_of,
            _without_tries(lives, series.allocated),
            series.reserved,
            phases if len(phases) <= MOST_PEAKS else iterations,
        ),
        peak=peak,
        runner_up=_runner_up(peak, moments),
        moments=moments,
        alive=alive_at(lives, names, peak.event),
        segments=segments_drawn(placed, block_categories),
        expectation=expectation(workload, cards[0].gpu if cards else None, moments),
        steps=step_times(lives, phases, iterations, tape.metadata),
        notes=(*notes, *replayed.notes),
    )


def _device(tape: Tape, name: str, number: int | None) -> tuple[DeviceTape, list[str]]:
    usable = [device for device in tape.devices if len(device.events) or device.initial]
    if not usable:
        raise InputError(f"{name} holds no device with events or segments", "", "record a step and try again")
    if number is not None:
        found = [device for device in usable if device.device == number]
        if not found:
            have = ", ".join(str(device.device) for device in usable)
            raise InputError(f"{name} holds no device {number}", "", f"choose one of: {have}")
        return found[0], []
    chosen = max(usable, key=lambda device: (len(device.events), device.start_reserved_bytes, -device.device))
    others = [str(device.device) for device in usable if device is not chosen]
    notes = [f"device {chosen.device} is drawn; the file also holds {', '.join(others)} (--device)"] if others else []
    return chosen, notes


def _named_cards(metadata: Mapping[str, Any]) -> tuple[Card, ...]:
    names = metadata.get("gpus")
    if not isinstance(names, list):
        return ()
    try:
        return resolve_cards([name for name in names if isinstance(name, str) and name.lower() != "local"])
    except InputError:
        return ()


def _without_tries(lives: Lives, series: Sequence[int]) -> Sequence[int]:
    """A recorded failure is tried again by the replica and given back at once: not a value that ever stood."""
    tries = [lives.event_of_row(mark.row) for mark in lives.tape.marks if mark.kind == "oom"]
    if not tries:
        return series
    values = series[:]
    for event in tries:
        if 0 < event < len(values):
            values[event] = values[event - 1]  # type: ignore[index]
    return values


def _peak(
    lives: Lives,
    names: Sequence[str],
    live: Sequence[int],
    phases: Sequence[Span],
    iterations: Sequence[Span],
    moments: Sequence[Peak],
) -> Peak:
    top = max(live, default=0)
    event = live.index(top) if live else -1
    found = max(moments, key=lambda moment: (moment.live_bytes, moment.iteration == "steady"), default=None)
    if found is not None and found.live_bytes == top:
        return found
    span = next((span for span in phases if span.start <= event < span.stop), None)
    step = next((step for step in iterations if step.start <= event < step.stop), None)
    totals = categories_at(lives, names, event)
    return Peak(
        iteration=step.name if step else "",
        name=span.name if span else "",
        phase=span.name if span else "",
        event=event,
        live_bytes=top or sum(totals.values()),
        by_category=totals,
    )


def _runner_up(peak: Peak, moments: Sequence[Peak]) -> Peak | None:
    others = [moment for moment in moments if moment.name != peak.name]
    return max(others, key=lambda moment: (moment.live_bytes, moment.iteration == "steady"), default=None)
