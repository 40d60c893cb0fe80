"""How far a trace is: one line, there only while one runs."""

from rich.text import Text
from textual import on
from textual.widgets import Static

from galore_mem.answers.steps import STAGES
from galore_mem.tui.tasks import TraceStage

_STOPS = "  (T stops)"


class ProgressLine(Static):
    """The row, the stage, and how many there are."""

    DEFAULT_CSS = """
    ProgressLine { height: 1; display: none; padding: 0 1; background: $panel; }
    ProgressLine.-running { display: block; }
    """

    @property
    def is_running(self) -> bool:
        """Whether a trace runs."""
        return self.has_class("-running")

    def begin(self, name: str) -> None:
        """A trace begins."""
        self.show(name, STAGES[0])

    @on(TraceStage)
    def _stage(self, event: TraceStage) -> None:
        self.show(event.name, event.stage)

    def show(self, name: str, stage: str) -> None:
        """A stage begins."""
        number = STAGES.index(stage) if stage in STAGES else 0
        room = self.app.size.width - 2 - len(f"tracing     {stage}{_STOPS}")
        cells = next((cells for cells in (4, 3, 2) if len(name) + cells * len(STAGES) <= room), 1)
        done = "━" * (cells * number) + "╺" + "─" * (cells * (len(STAGES) - number) - 1)
        short = name if len(name) + len(done) <= room else f"{name[: max(3, room - len(done) - 1)]}…"
        line = Text.assemble(("tracing ", "bold"), short, "  ", (done, "bold"), f"  {stage}", no_wrap=True)
        self.update(line.append(_STOPS, style="dim"))
        self.add_class("-running")

    def end(self) -> None:
        """Nothing runs."""
        self.remove_class("-running")
