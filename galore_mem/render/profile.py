"""`galore-mem profile` for a terminal."""

from estimators.analytic.parameters import parameter_count
from galore_mem.answers.profile import Profile
from galore_mem.answers.ran_out import RanOut
from galore_mem.answers.trace import Trace
from galore_mem.profiler.steps import StepRecord
from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.terminal import Terminal, terminal
from galore_mem.render.text import Text
from galore_mem.render.trace import LABEL, print_trace, reason


def print_profile(result: Profile, screen: Terminal | None = None) -> None:
    """What was run and how it ended, the summary of a trace, the times of the steps, and what is not explained."""
    screen = screen or terminal()
    opening = flow(_opening(result), screen.width, indent=2)
    if result.ran_out is not None:
        opening += [Text(), *_ran_out(result.ran_out, screen.width)]
    screen.show([*opening, Text()])
    print_trace(_as_trace(result), screen)
    screen.show([Text(), *_steps(result.steps), *_closing(result, screen.width)])


def _as_trace(result: Profile) -> Trace:
    return Trace(
        workload=result.workload,
        parameters=parameter_count(result.workload.model),
        attention_kernel=result.attention_kernel,
        footprint=result.footprint,
        fits=result.fits,
        largest=result.largest,
        replay=result.replay,
        tape=result.tape,
        notes=result.notes,
    )


def _opening(result: Profile) -> Text:
    """Which of the four sources this is."""
    steps = f"{len(result.steps)} step" + "s" * (len(result.steps) != 1)
    if result.device == "cpu":
        text = Text("replayed", style="bold")
        text.append(f": {steps} on CPU tensors, their history through the replica of the allocator", style="not bold")
    else:
        text = Text("measured", style="bold")
        text.append(f": {steps} on {result.environment.get('gpu', 'this GPU')}", style="not bold")
    if result.ending == "interrupted":
        text.append(". Interrupted: what was seen until then", style="yellow")
    elif result.ending == "out-of-memory":
        text.append(". It ran out of memory: what was seen until then", style="red")
    return text


def _ran_out(found: RanOut, width: int) -> list[Text]:
    window = words.moment(" ".join(part for part in (found.iteration, found.window) if part))
    text = Text(f"out of memory on {found.where}", style="red")
    text.append(f": {words.gib(found.requested_bytes)} GiB asked for in {window}", style="not red")
    if found.module:
        text.append(f", near {found.module}")
    text.append(f"; {words.gib(found.live_bytes)} GiB lived")
    if found.reserved_bytes is not None:
        text.append(f", {words.gib(found.reserved_bytes)} were reserved")
    if found.limit_bytes is not None:
        text.append(f" of {words.gib(found.limit_bytes)}")
    lines = flow(text, width, indent=2)
    lines.append(Text("alive then", style="dim"))
    lines += [
        Text(f"{words.gib(size):>10} GiB  {words.moment(category)}") for category, size in found.by_category.items()
    ]
    for life in found.largest:
        line = Text(f"{life.nbytes / 2**20:>10,.1f} MiB  {words.moment(life.category)}")
        lines += flow(line.append(f"  {reason(life)}", style="dim"), width, indent=16)
    return [*lines, *_ways(found, width)]


def _ways(found: RanOut, width: int) -> list[Text]:
    if not found.ways:
        return []
    best = found.ways[0]
    text = Text("cheapest way out: ", style="green")
    text.append(" ".join(best.changes), style="bold not green")
    text.append(f" ({'; '.join(best.costs)}): at most {words.gib(best.fit.upper_bytes)} GiB, by the closed form")
    lines = flow(text, width, indent=2)
    if len(found.ways) > 1:
        others = ", ".join(" ".join(way.changes) for way in found.ways[1:])
        lines += flow(Text(f"also: {others}", style="dim"), width, indent=2)
    return lines


def _steps(steps: tuple[StepRecord, ...]) -> list[Text]:
    phases = list(dict.fromkeys(phase for step in steps for phase in step.seconds))
    lines = [Text(f"{'seconds':<{LABEL}}" + "".join(f"{phase:>10}" for phase in phases), style="dim")]
    for step in steps:
        cells = (f"{step.seconds[phase]:>10.3f}" if phase in step.seconds else f"{'-':>10}" for phase in phases)
        lines.append(Text(f"{f'step {step.number}, {step.kind}':<{LABEL}}" + "".join(cells)))
    return lines


def _closing(result: Profile, width: int) -> list[Text]:
    """What recording cost, and what it could not explain."""
    lines: list[Text] = []
    if result.overhead is not None:
        cost = result.overhead
        slower = cost.recorded_seconds / cost.plain_seconds - 1 if cost.plain_seconds else 0.0
        more = cost.recorded_peak_allocated_bytes - cost.plain_peak_allocated_bytes
        text = f"recording: the last step took {slower:+.1%} time and {more / 2**20:+,.1f} MiB against one unrecorded"
        lines += flow(Text(text, style="dim"), width, indent=2)
    if result.device == "cuda":
        share = result.unattributed_bytes / max(1, result.footprint.peak_live_bytes)
        text = f"not attributed at the peak: {result.unattributed_bytes / 2**20:,.1f} MiB ({share:.2%})"
        lines.append(Text(text, style="dim"))
    return lines
