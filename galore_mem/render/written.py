"""How another tool's file was understood, for a terminal."""

from galore_mem.answers.written.run import WrittenRun
from galore_mem.render.flow import flow
from galore_mem.render.terminal import Terminal, terminal
from galore_mem.render.text import Text


def print_written(run: WrittenRun, screen: Terminal | None = None) -> None:
    """Which keys mattered, what each means for the plan, and which were ignored."""
    screen = screen or terminal()
    lines = [Text(), *flow(Text(f"{run.file}, read as {run.tool} would run it:", style="dim"), screen.width, 2)]
    for meaning in run.meanings:
        line = Text.assemble((meaning.key, "bold"), f" {meaning.value}").append(f"  {meaning.effect}", style="dim")
        lines += flow(line, screen.width, indent=4)
    if run.ignored:
        shown = ", ".join(run.ignored)
        lines += flow(Text(f"Ignored, for none is known to change memory: {shown}", style="dim"), screen.width, 2)
    screen.show(lines)
