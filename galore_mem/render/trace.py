"""`galore-mem trace` for a terminal."""

from estimators.footprint import Footprint
from galore_mem.answers.trace import Trace
from galore_mem.answers.trace_step import StepTrace
from galore_mem.profiler.recording import Life
from galore_mem.render import words
from galore_mem.render.alive import parts_alive
from galore_mem.render.flow import flow
from galore_mem.render.headline import besides
from galore_mem.render.plan_published import published_block
from galore_mem.render.terminal import Terminal, terminal
from galore_mem.render.text import Text
from galore_mem.render.trace_lengths import length_lines

LABEL = 24
ROLES = {"fits": "green", "tight": "yellow", "does-not-fit": "red"}


def print_trace(result: Trace | StepTrace, screen: Terminal | None = None) -> None:
    """Headline, moments, what is alive at the peak, the largest tensors, and other allocator settings."""
    screen = screen or terminal()
    screen.show(
        [
            *flow(_headline(result), screen.width, indent=2),
            Text(),
            *_peaks(result.footprint),
            Text(),
            *_moments(result.footprint),
            Text(),
            *_at_peak(result.footprint, screen.width),
            Text(),
            *_largest(result, screen.width),
            Text(),
            *_what_ifs(result),
            *(published_block(result.workload, result.published, screen) if isinstance(result, Trace) else ()),
            *length_lines(result.variation if isinstance(result, Trace) else None, screen.width),
        ]
    )


def _headline(result: Trace | StepTrace) -> Text:
    footprint = result.footprint
    text = Text("A step of your own", style="bold")
    if isinstance(result, Trace):
        workload = result.workload
        text = Text(f"{workload.model.name}, {words.configuration(workload.method)}", style="bold")
        text.append(
            f": {words.batch(workload)}, {workload.precision}, {result.attention_kernel} attention", style="not bold"
        )
        text.append("".join(f", {word}" for word in besides(workload)), style="not bold")
    for fit in result.fits:
        text.append(". ")
        text.append(f"{fit.gpu.name}: {fit.verdict.replace('-', ' ')}", style=ROLES[fit.verdict])
        text.append(f", {words.gib(footprint.process_bytes)} of {words.gib(fit.usable_bytes)} GiB")
    return text


def _peaks(footprint: Footprint) -> list[Text]:
    rows = (
        ("live tensors", footprint.peak_live_bytes, words.moment(footprint.peak.label)),
        ("allocated", footprint.peak_allocated_bytes, "torch.cuda.max_memory_allocated"),
        ("reserved", footprint.peak_reserved_bytes, "torch.cuda.max_memory_reserved"),
        ("process", footprint.process_bytes, f"nvidia-smi; at most {words.gib(footprint.upper_bytes)}"),
    )
    lines = [Text(f"{'peak':<{LABEL}}{'GiB':>8}", style="dim")]
    for name, nbytes, reason in rows:
        lines.append(Text(f"{name:<{LABEL}}{words.gib(nbytes):>8}").append(f"  {reason}", style="dim"))
    return lines


def _moments(footprint: Footprint) -> list[Text]:
    found = {(moment.iteration, moment.name): moment for moment in footprint.moments}
    lines = [Text(f"{'live at each moment':<{LABEL}}{'first':>8}{'steady':>8}", style="dim")]
    for name in words.in_step_order(moment.name for moment in footprint.moments):
        line = Text(f"{words.moment(name):<{LABEL}}")
        for iteration in ("first", "steady"):
            moment = found.get((iteration, name))
            is_peak = moment is not None and moment.label == footprint.peak.label
            line.append(f"{words.gib(moment.live_bytes) if moment else '-':>8}", style="bold" if is_peak else "")
        lines.append(line)
    return lines


def _at_peak(footprint: Footprint, width: int) -> list[Text]:
    lines = [Text(f"{'alive at the peak':<{LABEL}}{'GiB':>8}", style="dim")]
    live = footprint.peak_live_bytes
    shown, small = parts_alive(footprint.peak.by_category)
    for part, nbytes, of_which in shown:
        line = Text(f"{part.name:<{LABEL}}{words.gib(nbytes):>8}")
        line.append(f"  {nbytes / live:>5.1%}  {of_which}".rstrip(), style="dim")
        lines += flow(line, width, indent=4)
    if small:
        lines += flow(Text(f"less than 0.01: {small}", style="dim"), width, indent=2)
    return lines


def _largest(result: Trace | StepTrace, width: int) -> list[Text]:
    lines = [Text("largest tensors alive at the peak", style="dim")]
    for life in result.largest:
        line = Text(f"{life.nbytes / 2**20:>10,.1f} MiB  {words.moment(life.category)}")
        lines += flow(line.append(f"  {reason(life)}", style="dim"), width, indent=16)
    return lines


def reason(life: Life) -> str:
    """Who made a tensor."""
    if life.operator == "model":
        return life.module or "the model's own"
    return f"{life.operator} in {life.module}" if life.module else life.operator


def _what_ifs(result: Trace | StepTrace) -> list[Text]:
    lines = [Text(f"{'allocator settings':<34}{'reserved':>10}", style="dim")]
    for row in result.replay.what_ifs:
        settings = row.settings or "defaults"
        lines.append(Text(f"{settings:<34}{words.gib(row.peak_reserved_bytes):>10}"))
    return lines
