"""A configuration taken apart, in the terminal."""

from collections.abc import Iterator, Mapping, Sequence

from estimators.analytic.tensors import Tensors
from estimators.footprint import Footprint
from galore_mem.answers.differences import Difference, Step, changed_categories, changed_terms
from galore_mem.answers.explain import Explanation
from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.headline import besides
from galore_mem.render.plan_detail import ledger_lines
from galore_mem.render.terminal import Terminal, terminal
from galore_mem.render.text import Text
from profiles.shapes import ConfiguredShape

MIB = 2**20
NOTHING_BYTES = 5 * MIB
ROWS = 18
"""Rows of the peak that are shown; `--json` has all of them."""


def print_explanation(result: Explanation, screen: Terminal | None = None) -> None:
    """Draw `result` on the terminal that stdout is connected to."""
    screen = screen or terminal()
    lines = [*_head(result, screen), Text()]
    if result.difference is not None:
        lines += _difference(result.difference, screen)
    else:
        lines += [*_layer(result, screen), Text(), *_peak(result, screen), Text(), *_moments(result), Text()]
        lines += [*_beyond(result, screen), Text()]
        lines += _changes(result, screen)
        if result.remarks:
            lines += [Text(), *_remarks(result, screen)]
    screen.show(lines)


def _head(result: Explanation, screen: Terminal) -> list[Text]:
    workload, footprint = result.workload, result.footprint
    text = Text.assemble((f"{workload.model.name}, {words.configuration(workload.method)}", "bold"))
    text.append(f": {words.batch(workload)}, {workload.precision}, {result.attention_kernel} attention")
    text.append("".join(f", {word}" for word in besides(workload)))
    if result.card is not None:
        text.append(f", on {result.card.gpu.name}")
    text.append(f". Live {words.gib(footprint.peak_live_bytes)} GiB at the {words.moment(footprint.peak.label)}, ")
    text.append(f"process {words.gib(footprint.process_bytes)}, at most {words.gib(footprint.upper_bytes)}.")
    return flow(text, screen.width)


def _layer(result: Explanation, screen: Terminal) -> Iterator[Text]:
    """What one layer keeps for backward, and who needs it."""
    total = result.layer_bytes
    yield from flow(Text(_layer_title(result), style="dim"), screen.width)
    name = max(len("tensor"), *(len(_name(entry)) for entry in result.ledger))
    formula = max(len("formula"), *(len(entry.formula) for entry in result.ledger))
    wide = screen.width >= name + formula + 32
    if wide:
        yield Text(f"{'tensor':<{name}} {'formula':<{formula}} {'MiB':>9} {'share':>6}  needed by", style="dim")
    for entry in result.ledger:
        size, share = f"{entry.exact_bytes / MIB:,.3f}", f"{entry.exact_bytes / total:.1%}"
        needed = ", ".join(_short(other, entry.name) for other in entry.needed_by) or "the next layer"
        if wide:
            line = Text(f"{_name(entry):<{name}} {entry.formula:<{formula}} {size:>9} {share:>6}  ")
            yield from flow(line.append(needed, style="dim"), screen.width, indent=name + formula + 20)
        else:
            yield from flow(Text(_name(entry)), screen.width, indent=2)
            line = Text(f"  {entry.formula} {size} MiB {share}, for ").append(needed, style="dim")
            yield from flow(line, screen.width, indent=4)
    yield from flow(
        Text(
            "b micro-batch, s sequence, h hidden, f intermediate, n and g query and key-value heads, d head width, "
            "q = nd, k = gd",
            style="dim",
        ),
        screen.width,
    )


def _layer_title(result: Explanation) -> str:
    kinds = [(kind, words.gib(kind.nbytes * kind.count)) for kind in result.layers]
    if len(kinds) == 1:
        (kind, total) = kinds[0]
        model = result.workload.model
        stack = "decoder" if not isinstance(model, ConfiguredShape) or model.head == "causal-lm" else "encoder"
        return f"One {stack} layer keeps {kind.nbytes / MIB:,.2f} MiB for backward; {kind.count} layers {total} GiB:"
    each = [
        f"One layer of {kind.kind.replace('_', ' ')} keeps {kind.nbytes / MIB:,.2f} MiB for backward, all "
        f"{kind.count} of them {total} GiB"
        for kind, total in kinds
    ]
    return f"{'. '.join(each)}. The first keeps:"


def _name(entry: Tensors) -> str:
    return entry.name if entry.count == 1 else f"{entry.name} x{entry.count}"


def _short(other: str, own: str) -> str:
    """Without the module that both share."""
    module = own.rpartition(".")[0]
    return other.removeprefix(f"{module}.") if module else other


def _peak(result: Explanation, screen: Terminal) -> Iterator[Text]:
    footprint = result.footprint
    yield Text(f"Alive at the {words.moment(footprint.peak.label)}:", style="dim")
    yield Text(f"{'GiB':>8} {'share':>6} {'count':>6}  tensor", style="dim")
    live = footprint.peak_live_bytes
    rows: Sequence[Tensors] = result.at_peak
    for row in rows[:ROWS]:
        text = Text(f"{words.gib(row.live_bytes):>8} {row.live_bytes / live:>6.1%} {row.count:>6}  {row.name}")
        yield from flow(text.append(f"  {row.category.replace('_', ' ')}", style="dim"), screen.width, indent=24)
    rest = sum(row.live_bytes for row in rows[ROWS:])
    if rest:
        yield Text(f"{words.gib(rest):>8} {rest / live:>6.1%} {len(rows) - ROWS:>6}  smaller rows", style="dim")
    yield Text(f"{words.gib(sum(row.live_bytes for row in rows)):>8} {1:>6.1%}         live tensors", style="bold")


def _moments(result: Explanation) -> Iterator[Text]:
    footprint = result.footprint
    yield Text(f"{'live at each moment':<22}{'first':>8} {'steady':>8}", style="dim")
    names = words.in_step_order(moment.name for moment in footprint.moments)
    found = {(moment.iteration, moment.name): moment.live_bytes for moment in footprint.moments}
    for name in names:
        pair = [found.get((iteration, name)) for iteration in ("first", "steady")]
        figures = " ".join(f"{words.gib(nbytes) if nbytes is not None else '-':>8}" for nbytes in pair)
        yield Text(f"{words.moment(name):<22}{figures}", style="bold" if name == footprint.peak.name else "")


def _beyond(result: Explanation, screen: Terminal) -> Iterator[Text]:
    """Why allocated, reserved and nvidia-smi's figure differ from the tensors, and by how much here."""
    footprint = result.footprint
    yield from flow(Text("From the tensors to what nvidia-smi shows:", style="dim"), screen.width)
    yield from ledger_lines(footprint, screen)


def _changes(result: Explanation, screen: Terminal) -> Iterator[Text]:
    yield from flow(Text("What one change takes off the upper bound, in GiB:", style="dim"), screen.width)
    idle = [change.options for change in result.changes if abs(change.saved_bytes) < NOTHING_BYTES]
    for change in result.changes:
        if change.options not in idle:
            yield Text(f"{words.signed_gib(-change.saved_bytes):>8}  {change.options}")
    if idle:
        yield from flow(Text(f"{'nothing':>8}  {', '.join(idle)}", style="dim"), screen.width, indent=10)


def _remarks(result: Explanation, screen: Terminal) -> Iterator[Text]:
    yield Text("Why GaLore takes what it takes here:", style="dim")
    for remark in result.remarks:
        yield from flow(Text(f"- {remark.text}"), screen.width, indent=2)


def _difference(found: Difference, screen: Terminal) -> Iterator[Text]:
    """What each changed setting moves, then both peaks side by side."""
    a, b = found.before, found.after
    change = b.process_bytes - a.process_bytes
    title = Text("Against ").append(words.configuration(found.workload.method), style="bold")
    title.append(f", {words.batch(found.workload)}: process {words.gib(b.process_bytes)} instead of ")
    yield from flow(title.append(f"{words.gib(a.process_bytes)} GiB, {words.signed_gib(change)}."), screen.width)
    yield Text()
    if not found.steps:
        yield Text("No setting differs: it is the same run.")
        return
    for step in found.steps:
        yield from flow(
            Text.assemble(f"{words.signed_gib(step.process_change_bytes):>8}  ", (step.text, "bold")), screen.width, 10
        )
        parts = _parts(step)
        if step.moves_peak:
            after, before = words.moment(step.after.peak.label), words.moment(step.before.peak.label)
            parts.append(f"the peak is now the {after}, not the {before}")
        if parts:
            yield from flow(Text(" " * 10 + ", ".join(parts), style="dim"), screen.width, indent=10)
    yield Text()
    yield Text(f"{'at the peaks':<16}{'this':>8}{'other':>8}{'change':>8}", style="dim")
    for name in _notable(changed_categories(a, b)):
        yield _side_by_side(name, a.peak.by_category.get(name, 0), b.peak.by_category.get(name, 0))
    yield _side_by_side("live tensors", a.peak_live_bytes, b.peak_live_bytes, style="bold")
    for name in _notable(changed_terms(a, b)):
        yield _side_by_side(name, _term_bytes(a, name), _term_bytes(b, name))
    yield _side_by_side("process", a.process_bytes, b.process_bytes, style="bold")


def _parts(step: Step) -> list[str]:
    """What a changed setting moves, part by part; what is too small to be named stands together, where it shows."""
    changes = [*step.by_category.items(), *step.beyond_tensors.items()]
    rest = sum(nbytes for _, nbytes in changes if abs(nbytes) < NOTHING_BYTES)
    named = [(name.replace("_", " "), nbytes) for name, nbytes in changes if abs(nbytes) >= NOTHING_BYTES]
    if abs(rest) >= NOTHING_BYTES:
        named.append(("the rest", rest))
    return [f"{name} {words.signed_gib(nbytes)}" for name, nbytes in named]


def _notable(changes: Mapping[str, int]) -> list[str]:
    return [name for name, nbytes in changes.items() if abs(nbytes) >= NOTHING_BYTES]


def _side_by_side(name: str, this_bytes: int, other_bytes: int, style: str = "") -> Text:
    figures = f"{words.gib(this_bytes):>8}{words.gib(other_bytes):>8}{words.signed_gib(other_bytes - this_bytes):>8}"
    return Text(f"{name.replace('_', ' '):<16}{figures}", style=style)


def _term_bytes(footprint: Footprint, name: str) -> int:
    return sum(term.low_bytes for term in footprint.terms if term.name == name)
