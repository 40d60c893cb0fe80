"""Work beside the screen, in threads; each ends in one immutable message, also when it fails."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.message import Message
from textual.message_pump import MessagePump
from textual.worker import get_current_worker

from estimators.footprint import Footprint
from galore_mem.answers.names import Card
from galore_mem.errors import GaloreMemError
from galore_mem.tui.beside import Beside, read_beside
from galore_mem.tui.curves import Curves, curves_of
from galore_mem.tui.explain import Explained, explain
from galore_mem.tui.figures import Want, batches
from galore_mem.tui.messages import Changed, Computed, Said
from galore_mem.tui.rows import Row
from galore_mem.tui.saying import line_of
from galore_mem.tui.session import Session
from galore_mem.tui.state import PlotAxis
from galore_mem.tui.tracing import Request, Tracer
from profiles.errors import InputError

if TYPE_CHECKING:
    from textual.app import App


WORDS = {
    "figures": "computing figures",
    "detail": "explaining a row",
    "curves": "plotting",
    "models": "reading a model",
    "local": "reading this machine's GPUs",
    "file": "opening a file",
    "trace": "a trace",
    "export": "an export",
}
"""What each kind of work is called when it fails."""


@dataclass
class RowExplained(Message):
    """Everything about the row under the cursor."""

    explained: Explained


@dataclass
class RowRefused(Message):
    """The row under the cursor cannot run."""

    key: str
    reason: str


@dataclass
class Drawn(Message):
    """The curves of a plot."""

    curves: Curves


@dataclass
class TraceStage(Message):
    """How far a trace is."""

    name: str
    stage: str


@dataclass
class TraceEnded(Message):
    """A trace is over; without a footprint it came to nothing."""

    request: Request
    card: str
    footprint: Footprint | None
    problem: str = ""


@dataclass
class FileRead(Message):
    """A file was read."""

    beside: Beside


@dataclass
class LocalRead(Message):
    """A reading of this machine's cards, or why there is none."""

    cards: tuple[Card, ...]
    problem: str = ""


class Tasks:
    """Starts work; of each kind only the newest goes on."""

    def __init__(self, app: "App[Any]", session: Session, tracer: Tracer) -> None:
        self._app = app
        self._session = session
        self.tracer = tracer

    def _start(self, group: str, work: Callable[[], object]) -> None:
        self._app.run_worker(
            partial(self._guarded, work, group), group=group, thread=True, exclusive=True, exit_on_error=False
        )

    def _guarded(self, work: Callable[[], object], group: str) -> None:
        """Nothing that fails in a thread may end the app."""
        try:
            work()
        except Exception as error:
            self._app.post_message(Said(line_of(error, WORDS.get(group, group)), "error"))

    def _tell(self, message: Message, to: MessagePump | None = None) -> None:
        if not get_current_worker().is_cancelled:
            (to or self._app).post_message(message)

    def compute(self, wants: Sequence[Want]) -> None:
        """Figures, those on the screen first."""

        def work() -> None:
            worker = get_current_worker()
            for batch in batches(wants, lambda: worker.is_cancelled):
                self._tell(Computed(batch))

        self._start("figures", work)

    def explain(self, row: Row, card: Card) -> None:
        """The detail of a row."""

        def work() -> None:
            try:
                self._tell(RowExplained(explain(row, card)))
            except InputError as error:
                self._tell(RowRefused(row.key, line_of(error, "this")))

        self._start("detail", work)

    def draw(self, rows: Sequence[Row], card: Card, axis: PlotAxis, plot: MessagePump) -> None:
        """The curves of a plot."""

        def work() -> None:
            worker = get_current_worker()
            self._tell(Drawn(curves_of(rows, card, axis, lambda: worker.is_cancelled)), plot)

        self._start("curves", work)

    def learn_models(self, models: tuple[str, ...]) -> None:
        """Resolve models, which may read files or ask the network, then take them."""

        def work() -> None:
            for model in models:
                self._session.learn_model(model)
            self._tell(Changed(models=models))

        self._start("models", work)

    def read_local(self) -> None:
        """The cards of this machine."""

        def work() -> None:
            try:
                self._tell(LocalRead(self._session.read_local()))
            except (GaloreMemError, InputError) as error:
                self._tell(LocalRead((), line_of(error, WORDS["local"])))

        self._start("local", work)

    def read_file(self, path: Path) -> None:
        """A file to lay beside."""
        self._start("file", lambda: self._tell(FileRead(read_beside(path))))

    def trace(self, request: Request, card: str, line: MessagePump) -> None:
        """A trace; one at a time, to its end."""

        def work() -> None:
            try:
                footprint, _ = self.tracer.run(
                    request, lambda stage: line.post_message(TraceStage(request.name, stage))
                )
            except Exception as error:
                self._app.post_message(TraceEnded(request, card, None, line_of(error, WORDS["trace"])))
            else:
                self._app.post_message(TraceEnded(request, card, footprint))

        self._start("trace", work)

    def run(self, group: str, work: Callable[[], str]) -> None:
        """Anything that ends in a line for the person."""
        self._start(group, lambda: self._tell(Said(work())))
