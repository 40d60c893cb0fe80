"""The app: it wires panes, session and workers together, and does nothing by itself."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.command import Provider

from galore_mem.errors import GaloreMemError
from galore_mem.tui import deeds, messages, tasks
from galore_mem.tui.figures import card_key
from galore_mem.tui.key_line import KeyLine
from galore_mem.tui.keys import KEYS
from galore_mem.tui.later import DETAIL_SECONDS, SAVE_SECONDS, Later
from galore_mem.tui.palette import Actions
from galore_mem.tui.progress_line import ProgressLine
from galore_mem.tui.prompt import FilterBar
from galore_mem.tui.results import Results
from galore_mem.tui.rows import Row
from galore_mem.tui.saved import Keeper
from galore_mem.tui.saying import line_of
from galore_mem.tui.screen_panes import Panes
from galore_mem.tui.session import LOCAL, Session
from galore_mem.tui.settings_pane import Wanted
from galore_mem.tui.state import CHANGES, State, View
from galore_mem.tui.top_line import TopLine
from galore_mem.tui.tracing import Tracer
from galore_mem.tui.workspace import Workspace
from profiles.errors import InputError

LOCAL_SECONDS = 2.0
"""How often this machine's cards are read."""
THEMES = {True: "textual-dark", False: "textual-light"}


class GaloreMemApp(App[None]):
    """Every configuration against every card."""

    TITLE = "galore-mem"
    CSS = """
    * {
        scrollbar-size: 1 1;
        scrollbar-background: $surface; scrollbar-background-hover: $surface; scrollbar-background-active: $surface;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = list(KEYS)
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {Actions}

    def __init__(
        self,
        state: State | None = None,
        *,
        session: Session | None = None,
        tracer: Tracer | None = None,
        problems: Iterable[str] = (),
        path: Path | None = None,
        awaited: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.animation_level = "none"  # each frame would cross the line again, over ssh
        self.session = session or Session()
        self.state = state or State()
        self.results = Results()
        self.tasks = tasks.Tasks(self, self.session, tracer or Tracer())
        self.later = Later(self)
        self._problems = tuple(problems)
        self._keeper = Keeper(path)
        self._awaited = awaited

    def compose(self) -> ComposeResult:
        """A line, the panes, and the keys."""
        yield TopLine(id="top")
        yield Workspace(self.session.figures)
        yield FilterBar()
        yield ProgressLine(id="progress")
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """Show the first state; problems of the start are told in the app."""
        self.panes = Panes(self.screen)
        self.apply(self.state)
        self.call_after_refresh(self.panes.workspace.show, self.state.view)
        for problem in self._problems:
            self.say(problem, "warning")
        if self._awaited:
            self.tasks.learn_models(self._awaited)  # the Hub may take its time; the first models show meanwhile
        self.set_interval(LOCAL_SECONDS, self._read_local)
        self._read_local()

    def apply(self, state: State) -> None:
        """Show another state; one that cannot be shown leaves everything as it is."""
        if self._show(state):
            self._show_row()
            self.later.ask("save", SAVE_SECONDS, self._save)

    def _show(self, state: State) -> bool:
        self.session.figures.allow()
        try:
            board = self.session.board(state)
        except (InputError, GaloreMemError) as error:
            self.say(line_of(error, "this"), "error")
            return False
        board = board.with_cursor(self.state.current)
        self.state, self.board = board.state, board
        self.theme = THEMES[board.state.dark]
        self.panes.show(board)
        return True

    def say(self, text: str, severity: messages.Severity = "information") -> None:
        """One line for the person."""
        self.notify(text, severity=severity, markup=False, timeout=8 if severity == "information" else 15)

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        return next((row for row in self.board.shown if row.slot == self.state.current), None)

    def _show_row(self) -> None:
        """What depends on the row under the cursor."""
        row, card = self.row, self.board.card.card
        known = self.session.explained.get((row.key, card_key(card))) if row is not None else None
        self.panes.detail(row, known, self.results.traced(row, self.board))
        if row is not None and known is None and not row.problem:
            self.later.ask("detail", DETAIL_SECONDS, lambda: self.tasks.explain(row, card))
        self._show_comparison()
        if self.panes.workspace.shows("plot"):
            rows = self.board.marked or ((row,) if row is not None else ())
            self.later.ask(
                "plot", DETAIL_SECONDS, lambda: self.tasks.draw(rows, card, self.state.axis, self.panes.plot)
            )

    def _show_comparison(self) -> None:
        if self.panes.workspace.shows("compare"):
            columns = self.results.columns(self.board, self.row, self.session.figures)
            self.panes.compare.show(columns, self.board.card)

    def _read_local(self) -> None:
        if LOCAL in self.state.gpus:
            self.tasks.read_local()

    def _save(self) -> None:
        problem = self._keeper.keep(self.state)
        if problem:
            self.say(problem, "warning")

    @on(messages.Changed)
    def _changed(self, event: messages.Changed) -> None:
        self.apply(replace(self.state, **event.words))

    @on(messages.Chosen)
    def _chosen(self, event: messages.Chosen) -> None:
        if event.setting == "models" and not all(self.session.knows(str(name)) for name in event.values):
            self.tasks.learn_models(tuple(map(str, event.values)))
            return
        try:
            self.apply(self.state.chosen(event.setting, event.values))
        except InputError as error:
            self.say(line_of(error, "this"), "error")
        self._read_local()

    @on(Wanted)
    def _offer(self, event: Wanted) -> None:
        deeds.offer(self, event.about)

    @on(messages.Moved)
    def _moved(self, event: messages.Moved) -> None:
        self.session.figures.allow()
        self.state = replace(self.state, current=event.slot)
        self.panes.place(event.slot)
        self._show_row()

    @on(messages.Said)
    def _said(self, event: messages.Said) -> None:
        self.say(event.text, event.severity)

    @on(messages.Asked)
    def _asked(self) -> None:
        wanted = list(self.session.figures.wanted.values())
        self.tasks.compute([*wanted, *self.session.figures.all_of(self.board.rows, [self.board.card.card])])

    @on(messages.Computed)
    def _computed(self, event: messages.Computed) -> None:
        self.session.figures.learn(event.found)
        self._show(self.state)
        self._show_comparison()

    @on(tasks.RowExplained)
    def _explained(self, event: tasks.RowExplained) -> None:
        found = event.explained
        self.session.explained[found.key, card_key(found.card)] = found
        self._show_row()

    @on(tasks.RowRefused)
    def _refused(self, event: tasks.RowRefused) -> None:
        if self.row is not None and event.key == self.row.key:
            self.panes.refuse(self.row, event.reason)

    @on(tasks.TraceEnded)
    def _traced(self, event: tasks.TraceEnded) -> None:
        self.query_one(ProgressLine).end()
        if event.footprint is None:
            self.say(event.problem, "error")
            return
        self.results.trace(event.request.key, event.card, event.footprint)
        self.say(f"traced {event.request.name}: the detail shows it beside the plan")
        self._show_row()

    @on(tasks.FileRead)
    def _read(self, event: tasks.FileRead) -> None:
        self.results.open(event.beside)
        self.action_view("compare")

    @on(tasks.LocalRead)
    def _local(self, event: tasks.LocalRead) -> None:
        if event.problem:
            self.say(event.problem, "warning")
            self.apply(self.state.without_card(LOCAL))
        elif self.session.learn_local(event.cards):
            self.apply(self.state)

    def action_view(self, view: View) -> None:
        """Show a pane."""
        self.state = replace(self.state, view=view)
        self.board = replace(self.board, state=self.state)
        self.panes.workspace.show(view)
        self._show_row()
        self.later.ask("save", SAVE_SECONDS, self._save)

    def action_become(self, change: str) -> None:
        """Another state: sorted or coloured otherwise, without marks."""
        self.apply(CHANGES[change](self.state))

    def action_do(self, name: str) -> None:
        """One of the deeds."""
        getattr(deeds, name)(self)

    def on_unmount(self) -> None:
        """Nothing goes on without the app."""
        self.tasks.tracer.stop()

    async def action_quit(self) -> None:
        """Keep the state, and leave."""
        self._save()
        self.exit()
