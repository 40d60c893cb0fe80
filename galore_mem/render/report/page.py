"""The whole page: one file, no network, the same bytes for the same report."""

from collections.abc import Callable

from galore_mem.answers.report.answer import Report
from galore_mem.answers.report.run import RunReport
from galore_mem.render import words as spoken
from galore_mem.render.report import sections
from galore_mem.render.report.data import page_data
from galore_mem.render.report.embed import json_in_html
from galore_mem.render.report.frame import script, whole
from galore_mem.render.report.text import escaped, words
from galore_mem.render.report.verdict import banner

SCRIPTS = (
    *("choose.js", "read.js", "theme.js", "points.js", "timeline.js", "cursor.js", "overlay.js"),
    *("peak.js", "tensors.js", "segments.js", "steps.js", "page.js"),
)


def page_html(report: Report) -> str:
    """The page.

    Raises:
        ModuleNotFoundError: plotly is not installed.
    """
    from plotly.offline import get_plotlyjs

    closing = "<\\/script"
    tail = (
        '<div id="tip" role="status" aria-live="polite" hidden></div>',
        '<noscript><p class="lead">The figures need JavaScript; every number above does not.</p></noscript>',
        f'<script type="application/json" id="data">{json_in_html(page_data(report.runs))}</script>',
        *(f'<script type="text/plain" id="raw-{run}">{raw}</script>' for run, raw in enumerate(report.raw)),
        f"<script>{get_plotlyjs().replace('</script', closing)}</script>",
        script(*SCRIPTS),
    )
    return whole(title_of(report.runs[0]), _subtitle(report), _banners(report), _content(report), "\n".join(tail))


def title_of(run: RunReport) -> str:
    """What was run, or else the file's name."""
    if run.workload is not None:
        return f"{run.workload.model.name}, {spoken.configuration(run.workload.method)}"
    return run.name


def _subtitle(report: Report) -> str:
    if len(report.runs) == 2:
        return f"compared with {title_of(report.runs[1])}"
    run = report.runs[0]
    facts = [f"{words(run.source)} run"]
    if run.workload is not None:
        facts = [spoken.batch(run.workload), run.workload.precision, *facts]
    return " · ".join(facts)


def _banners(report: Report) -> str:
    if len(report.runs) == 1:
        return _late(report.runs[0]) + banner(report.runs[0])
    return "".join(
        f'<div class="run"><p class="which">{"AB"[number]} · {escaped(run.name)}</p>{_late(run)}{banner(run)}</div>'
        for number, run in enumerate(report.runs)
    )


def _late(run: RunReport) -> str:
    """A mark on histories of which a part is missing."""
    if not run.is_overflowed:
        return ""
    return (
        '<p class="warning"><b>The history is not whole.</b> It begins late: older events were never recorded, or fell '
        "out of the recorder's buffer. What was held at its start was worked out from the end.</p>"
    )


def _content(report: Report) -> list[tuple[str, str, str]]:
    """(anchor, name, HTML) of every section that has something to show."""
    run = report.runs[0]
    found: list[tuple[str, str, str]] = []

    def add(ident: str, name: str, title: str, body: str, lead: str = "") -> None:
        if body:
            found.append((ident, name, sections.section(ident, title, body, lead)))

    if report.differences is not None:
        add("overlay", "A and B", "Two runs over each other", _OVERLAY)
        add("differences", "Differences", "What differs", sections.differences(report))
    if len(run.timeline.event):
        add("timeline", "Timeline", "Memory over the run", _TIMELINE)
    if run.alive.tensors:
        add("peak", "At the peak", "What is alive at the peak", _PEAK)
        add("tensors", "Tensors", "Every tensor alive at the peak", _TENSORS)
    if run.alive.layers:
        add("layers", "Layers", "Layer by layer, at the peak", '<div class="plot" id="layers-plot"></div>')
    add("gap", "Gap", "From tensors to the process", _each(report, sections.gap))
    add("expected", "Expected", "Closed form against recorded", _each(report, sections.expected), _EXPECTED)
    if run.segments:
        add("segments", "Segments", "The allocator's segments at the reserved peak", _SEGMENTS)
    add("what-if", "What if", "The same history under other settings", _each(report, sections.what_ifs))
    if run.steps:
        add("steps", "Steps", "How long steps take", '<div class="plot short" id="steps-plot"></div>')
    about = "".join(
        (f"<h3>{escaped(each.name)}</h3>" if len(report.runs) == 2 else "")
        + sections.about(each, str(number), has_raw=bool(report.raw[number]))
        for number, each in enumerate(report.runs)
    )
    add("run", "Run", "The run and its environment", about)
    return found


def _each(report: Report, draw: Callable[[RunReport], str]) -> str:
    """A section's body for every run; of two, the one that is chosen is shown."""
    bodies = [draw(run) for run in report.runs]
    if len(bodies) == 1 or not any(bodies):
        return bodies[0]
    return "".join(
        f'<div data-of="{number}"{" hidden" * bool(number)}>{body or _NOTHING}</div>'
        for number, body in enumerate(bodies)
    )


_NOTHING = '<p class="lead">This run does not say what was trained.</p>'
_EXPECTED = (
    "Live bytes: the closed form of <code>galore-mem plan</code> beside what was recorded. Nothing is fitted to make "
    "them agree."
)
_TIMELINE = (
    '<div class="controls" role="toolbar" aria-label="Timeline"><span id="zooms"></span>'
    '<span class="spring"></span><button type="button" id="axis" hidden>By time</button></div>'
    '<div class="plot tall" id="timeline-plot" tabindex="0" aria-label="Memory by category over events. Arrow keys '
    'move the cursor, P goes to the peak."></div><div id="phases" class="key"></div>'
    '<p id="thinned" class="note" hidden></p>'
    '<p id="readout" class="readout" aria-live="polite"></p><div id="legend" class="chips"></div>'
)
_OVERLAY = '<div class="plot" id="overlay-plot"></div>'
_PEAK = (
    '<div class="controls"><span role="group" id="tree-by" aria-label="Group by"><button type="button" '
    'data-by="modules" aria-pressed="true">By module</button><button type="button" data-by="layer_tree" '
    'aria-pressed="false">By layer</button><button type="button" data-by="category" aria-pressed="false">By category'
    '</button></span></div><div class="plot tall" id="tree-plot"></div>'
)
_TENSORS = (
    '<div class="controls"><label>Filter <input type="search" id="filter" placeholder="module, operator, category" '
    'autocomplete="off" spellcheck="false"></label><label>Category <select id="kind"><option value="">all</option>'
    '</select></label><span id="count" role="status"></span></div><div class="scroll"><table id="tensor-table">'
    "<caption>Tensors alive at the peak</caption><thead><tr></tr></thead><tbody></tbody></table></div>"
    '<p><button type="button" id="more" hidden>Show more</button></p>'
)
_SEGMENTS = (
    '<div class="facts" id="segment-facts"></div><canvas id="segment-map" tabindex="0" role="img" aria-label="Memory '
    'by address: one line after another, a gap where a segment ends"></canvas><div id="segment-key" class="key"></div>'
)
