"""Every key that works everywhere, and every key of the table, the matrix, the plot and the pages."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding
from textual.pilot import Pilot
from textual.widgets import Input, Static

from estimators.verdict import judge
from estimators.workload import METHODS
from galore_mem.answers.steps import STAGES
from galore_mem.tui.app import GaloreMemApp
from galore_mem.tui.compare import Compare
from galore_mem.tui.detail import Detail
from galore_mem.tui.help import Help
from galore_mem.tui.keys import KEYS
from galore_mem.tui.lines import Lines
from galore_mem.tui.matrix import Matrix
from galore_mem.tui.picker import Ticked
from galore_mem.tui.plot import Plot
from galore_mem.tui.progress_line import ProgressLine
from galore_mem.tui.prompt import FilterBar, Prompt
from galore_mem.tui.settings_pane import Setting
from galore_mem.tui.state import State
from galore_mem.tui.table import ConfigTable
from galore_mem.tui.top_line import TopLine
from galore_mem.tui.tracing import STAGE, Tracer
from galore_mem.tui.workspace import VIEWS

AppMaker = Callable[..., GaloreMemApp]
Settle = Callable[[Pilot[Any]], Awaitable[None]]
SIZE = (120, 40)
NARROW = (90, 28)
"""One pane at a time, which is quicker to draw."""


def run(
    app: GaloreMemApp, settle: Settle, script: Callable[[Pilot[Any]], Awaitable[None]], size: tuple[int, int] = SIZE
) -> None:
    async def drive() -> None:
        async with app.run_test(size=size) as pilot:
            await settle(pilot)
            await script(pilot)

    asyncio.run(drive())


def said(app: GaloreMemApp) -> str:
    return "\n".join(notification.message for notification in app._notifications)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_numbers_show_panes(make_app: AppMaker, settle: Settle, size: tuple[int, int]) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        for number, view in enumerate(VIEWS, 1):
            await pilot.press(str(number))
            await pilot.pause()
            assert app.state.view == view
            pane = app.panes.workspace.pane(view)
            assert pane.display
            assert app.focused in (pane, *pane.query("*"))
            assert pane.region.bottom <= size[1]
            assert pane.region.right <= size[0]
            assert pane.region.width > 30
            assert pane.region.height > 3

    run(app, settle, script, size)


def test_keys_move_the_cursor_and_the_detail_follows(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        table = app.query_one(ConfigTable)
        names = []
        for key in ("home", "j", "down", "k", "up", "end", "g", "G"):
            await pilot.press(key)
            await settle(pilot)
            names.append(table.cursor)
            assert app.row is not None
            assert app.row.slot == table.current_slot == app.query_one(Matrix).current_slot
            assert app.row.workload.method.name in app.query_one(Detail).plain.splitlines()[0]
        assert names == [0, 1, 2, 1, 0, 5, 0, 5]

    run(app, settle, script)


def test_space_marks_and_b_pins(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("home", "space", "down", "space", "down", "space", "space", "b")
        await settle(pilot)
        assert [row.name for row in app.board.marked] == ["adamw", "adamw-8bit"]
        assert app.board.baseline is not None
        assert app.board.baseline.name == "lora r16"
        assert "-43.30" not in text_of(app)
        table = app.query_one(ConfigTable)
        first = table.body(app.board, 0, 0, table.columns).plain
        assert first.startswith("●  adamw")
        assert "+47.57" in first
        await pilot.press("b")
        assert app.state.baseline == ""
        await pilot.press("x")
        assert app.state.marks == ()

    run(app, settle, script, NARROW)


def text_of(app: GaloreMemApp) -> str:
    """What the screen shows, as text."""
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


def test_brackets_judge_by_another_card(make_app: AppMaker, settle: Settle) -> None:
    app = make_app(State(gpus=("4090", "h100")))

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("right_square_bracket")
        await settle(pilot)
        assert app.board.card.name == "h100"
        assert "H100" in text_of(app)
        await pilot.press("right_square_bracket")
        assert app.board.card.name == "4090"
        await pilot.press("left_square_bracket")
        assert app.board.card.name == "h100"
        await pilot.press("2", "left", "left")
        assert app.board.card.name == "4090"
        await pilot.press("l")
        assert app.board.card.name == "h100"
        await pilot.press("h")
        assert app.board.card.name == "4090"

    run(app, settle, script, NARROW)


def test_s_sorts_by_each_column_and_shift_s_turns_round(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()
    orders: list[list[str]] = []

    async def script(pilot: Pilot[Any]) -> None:
        for _ in range(5):
            orders.append([row.name for row in app.board.shown])
            await pilot.press("s")
            await settle(pilot)
        assert app.state.sort == "asked"
        await pilot.press("S")
        assert [row.name for row in app.board.shown] == orders[0][::-1]

    run(app, settle, script, NARROW)
    asked, name, peak, headroom, verdict = orders
    assert name == sorted(asked)
    assert peak[0] == "lora r16"
    assert peak[-1] == "adamw"
    assert headroom == peak
    assert verdict[:2] == ["lora r16", "galore-adamw-8bit r1024 per-layer"]


def test_slash_filters_while_typing_and_escape_takes_it_away(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("slash", *"8bit fits", "enter")
        await settle(pilot)
        assert [row.name for row in app.board.shown] == ["galore-adamw-8bit r1024 per-layer"]
        assert not app.query_one(FilterBar).has_class("-open")
        assert isinstance(app.focused, Lines)
        await pilot.press("slash", *" nonsense")
        await settle(pilot)
        assert app.board.shown == ()
        assert "No row has" in text_of(app)
        await pilot.press("escape")
        await settle(pilot)
        assert len(app.board.shown) == 6

    run(app, settle, script, NARROW)


def test_a_narrow_first_line_keeps_the_words_of_the_filter(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("slash", *"galore", "enter")
        await settle(pilot)
        line = app.query_one(TopLine).render_line(0).text
        assert "3 of 6 rows with 'galore'" in line

    run(app, settle, script, NARROW)


def test_y_copies_the_command_and_shows_it(make_app: AppMaker, settle: Settle) -> None:
    app = make_app(State().with_values("seq", (1024,)))

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("y")
        assert app.clipboard.startswith("galore-mem plan llama-7b --gpu 4090 --method galore-adamw-8bit")
        assert "--seq 1024" in app.clipboard
        assert app.clipboard in said(app)

    run(app, settle, script, NARROW)


def test_question_mark_explains_the_focused_widget(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        for view, word in (("1", "headroom"), ("3", "logarithmic")):
            await pilot.press(view)
            await settle(pilot)
            await pilot.press("question_mark")
            await pilot.pause()
            assert isinstance(app.screen, Help)
            text = str(app.screen.query_one("#help-text", Static).content).lower()
            assert word in text
            for binding in KEYS:
                assert binding.tooltip.lower() in text
            await pilot.press("escape")
            assert not isinstance(app.screen, Help)

    run(app, settle, script)


def test_d_changes_the_theme(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        assert app.theme == "textual-dark"
        await pilot.press("d")
        assert app.theme == "textual-light"
        assert not app.state.dark

    run(app, settle, script, NARROW)


def test_a_plots_along_each_axis(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("3")
        await settle(pilot)
        plot = app.query_one(Plot)
        assert app.row is not None
        fit = judge(app.row.workload, app.board.card.card.gpu)
        assert f"fits up to {fit.max_sequence_length:,} tokens" in plot.plain
        await pilot.press("a")
        await settle(pilot)
        assert fit.max_micro_batch_size == 1
        assert "fits up to 1 sequence in a micro-batch" in plot.plain
        await pilot.press("a")
        await settle(pilot)
        assert "breaks even with 8-bit Adam at rank 2,606" in " ".join(plot.plain.split())
        await pilot.press("1", "home", "3")
        await settle(pilot)
        assert "Not along this axis: adamw" in plot.plain

    run(app, settle, script)


def test_marked_rows_are_compared_by_category(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("4")
        assert "Nothing to compare yet" in app.query_one(Compare).plain
        await pilot.press("1", "home", "space", "end", "space", "4")
        await settle(pilot)
        text = app.query_one(Compare).plain
        assert "projectors" in text
        process = next(line for line in text.splitlines() if line.startswith("process"))
        assert process.split() == ["process", "63.29", "20.77", "-42.52"]
        assert "does not fit" in text
        assert any(line.startswith("on RTX 4090") and line.endswith(" fits") for line in text.splitlines())

    run(app, settle, script)


def test_e_exports_and_o_opens(make_app: AppMaker, settle: Settle, tmp_path: Path) -> None:
    app = make_app(State(gpus=("4090", "h100")))

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("e")
        await pilot.pause()
        assert isinstance(app.screen, Prompt)
        app.screen.query_one(Input).value = str(tmp_path / "out.json")
        await pilot.press("enter")
        await settle(pilot)
        assert "6 configurations on 2 cards" in said(app)
        assert (tmp_path / "out.json").exists()
        (tmp_path / "odd.json").write_text("odd")
        await pilot.press("o")
        await pilot.pause()
        app.screen.query_one(Input).value = str(tmp_path / "odd.json")
        await pilot.press("enter")
        await settle(pilot)
        assert "odd.json" in said(app)
        await pilot.press("o", "escape")
        assert not isinstance(app.screen, Prompt)

    run(app, settle, script, NARROW)


def test_a_file_that_cannot_be_is_said_below_the_line_which_stays(
    make_app: AppMaker, settle: Settle, tmp_path: Path
) -> None:
    app = make_app(State(gpus=("4090",)))
    (tmp_path / "kept.csv").write_text("kept")
    export = {
        "": "nothing is typed",
        "out.txt": "out.txt has no format: it ends in .txt; use .json, .csv, .html",
        "away/out.csv": "there is no folder",
        "kept.csv": "kept.csv exists: enter again replaces it",
    }

    async def script(pilot: Pilot[Any]) -> None:
        for key, cases in (("e", export), ("o", {"": "nothing is typed", "missing": "is not there", ".": "a folder"})):
            await pilot.press(key)
            await pilot.pause()
            for name, problem in cases.items():
                app.screen.query_one(Input).value = str(tmp_path / name) if name else ""
                await pilot.press("enter")
                await pilot.pause()
                assert isinstance(app.screen, Prompt)
                shown = app.screen.query_one("#prompt-problem", Static)
                assert shown.display
                assert problem in str(shown.content)
            if key == "e":
                assert (tmp_path / "kept.csv").read_text() == "kept"
                await pilot.press("enter")
                await settle(pilot)
                assert "galore-adamw" in (tmp_path / "kept.csv").read_text()

    run(app, settle, script, NARROW)


def test_axes_are_round_and_no_pane_is_empty_without_a_sentence(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("end", "3")
        await settle(pilot)
        lines = app.query_one(Plot).plain.splitlines()
        beside = [line.partition("┤")[0].strip() for line in lines if "┤" in line]
        assert beside == ["30", "23.5", "20", "10", "0"]
        assert lines[0].endswith("upper bound in GiB against tokens in a sequence")
        await pilot.press("slash", *"zzz", "enter")
        for key, pane, sentence in (
            ("3", Plot, "No row is under the cursor"),
            ("5", Detail, "No row is under the cur"),
        ):
            await pilot.press(key)
            await settle(pilot)
            assert sentence in app.query_one(pane).plain

    run(app, settle, script, NARROW)


def test_a_row_that_cannot_run_says_why_in_one_sentence(make_app: AppMaker, settle: Settle) -> None:
    app = make_app(State(methods=("offload-adamw",), settings=(("update", ("whole", "per-layer")),)))

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("end", "5")
        await settle(pilot)
        said_there = " ".join(app.query_one(Detail).plain.split())
        assert "--update per-layer means nothing to offload-adamw: it " in said_there

    run(app, settle, script, NARROW)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_trace_says_how_to_stop_it_at_any_width(make_app: AppMaker, settle: Settle, width: int) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        line = app.query_one(ProgressLine)
        for stage in STAGES:
            line.show("galore-adamw-8bit r1024 per-layer seq 2,048", stage)
            await pilot.pause()
            text = str(line.content)
            assert text.endswith("(T stops)")
            assert len(text) <= width - 2

    run(app, settle, script, (width, 24))


def test_every_method_shows_where_there_is_room(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        app.query_one("#set-methods", Setting).action_offer()
        await settle(pilot)
        offered = app.screen.query_one(Ticked)
        assert offered.size.height == offered.option_count == len(METHODS)
        await pilot.resize_terminal(60, 16)
        await settle(pilot)
        assert app.screen.query_one("#picker-take").region.bottom < 16
        assert offered.size.height >= 3

    run(app, settle, script, NARROW)


def test_ctrl_p_offers_what_applies_now(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("ctrl+p")
        await pilot.pause()
        await pilot.press(*"light or dark")
        await pilot.pause(0.3)
        await pilot.press("enter")
        await pilot.pause()
        await settle(pilot)
        assert not app.state.dark

    run(app, settle, script)


def test_the_palette_begins_with_the_pane_and_ends_with_scrolling() -> None:
    from galore_mem.tui.palette import _place

    assert sorted(["page.up", "app.table", "table.mark"], key=_place) == ["table.mark", "app.table", "page.up"]


def test_q_keeps_the_state(make_app: AppMaker, settle: Settle, tmp_path: Path) -> None:
    app = make_app(path=tmp_path / "tui.json")

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("s", "q")

    run(app, settle, script, NARROW)
    assert '"sort": "name"' in (tmp_path / "tui.json").read_text()


def test_t_traces_with_progress_and_shift_t_stops(make_app: AppMaker, settle: Settle) -> None:
    child = f"import sys, time; print('{STAGE}first iteration', file=sys.stderr, flush=True); time.sleep(60)"
    app = make_app(tracer=Tracer(lambda: ["python", "-c", child]))

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("t")
        for _ in range(200):
            await pilot.pause(0.02)
            if "first iteration" in text_of(app):
                break
        assert "first iteration" in text_of(app)
        await pilot.press("t")
        assert "runs already" in said(app)
        await pilot.press("down", "T")
        await settle(pilot)
        assert "was stopped" in said(app)
        await pilot.press("T")
        assert "no trace runs" in said(app)

    run(app, settle, script)


def own_bindings(kind: type) -> list[Binding]:
    """What a class of ours binds itself; what it inherits from Textual is Textual's to explain."""
    classes = [base for base in kind.__mro__ if base.__module__.startswith("galore_mem")]
    return [made for base in classes for made in Binding.make_bindings(vars(base).get("BINDINGS", []))]


def test_every_binding_has_an_id_and_says_what_it_does(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        seen = 0
        for view in "123456":
            await pilot.press(view)
            for active in app.screen.active_bindings.values():
                if active.binding in own_bindings(type(active.node)):
                    seen += 1
                    assert active.binding.id, active.binding
                    assert active.binding.tooltip, active.binding
        assert seen > 60

    run(app, settle, script)
