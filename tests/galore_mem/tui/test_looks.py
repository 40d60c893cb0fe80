"""What each screen looks like, as SVG: every pane at three sizes, dark and light.

After a meant change run this file with `-n 0 --snapshot-update`, turn the pictures of `__snapshots__/test_looks` into
PNG with rsvg-convert, and look at them: nothing cut, nothing crowded, columns aligned, the eye lands on the verdict.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_textual_snapshot import SVGImageExtension
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot

from galore_mem.tui.app import GaloreMemApp
from galore_mem.tui.settings_pane import Setting
from galore_mem.tui.state import State
from galore_mem.tui.workspace import VIEWS

AppMaker = Callable[..., GaloreMemApp]
Settle = Callable[[Pilot[Any]], Awaitable[None]]
KEYS: dict[str, str] = {view: str(number) for number, view in enumerate(VIEWS, 1)}
SIZES = {
    (80, 24): ("table", "matrix", "plot", "compare", "detail", "settings"),
    (120, 40): ("table", "matrix", "plot", "compare"),
    (200, 60): ("table", "compare"),
}
"""Panes that make a screen of their own; the wider the terminal, the more of them stand side by side."""


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_panes(
    size: tuple[int, int], theme: str, make_app: AppMaker, settle: Settle, snapshot: SnapshotAssertion
) -> None:
    app = make_app(State(dark=theme == "dark"))

    async def drive() -> None:
        async with app.run_test(size=size) as pilot:
            await settle(pilot)
            await pilot.press("home", "space", "end", "space", "up", "up", "space", "end")
            for view in SIZES[size]:
                await pilot.press(KEYS[view])
                await settle(pilot)
                looks(app, snapshot, view)

    asyncio.run(drive())


def test_dialogues(make_app: AppMaker, settle: Settle, snapshot: SnapshotAssertion) -> None:
    app = make_app()

    async def drive() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            for name in ("models", "rank", "checkpointing"):
                app.query_one(f"#set-{name}", Setting).action_offer()
                await pilot.pause()
                await settle(pilot)
                for box in app.screen.query("Input"):
                    box.cursor_blink = False  # type: ignore[attr-defined]
                looks(app, snapshot, name)
                await pilot.press("escape")
            await pilot.press("question_mark")
            await settle(pilot)
            looks(app, snapshot, "help")
            await pilot.press("escape")
            await pilot.resize_terminal(20, 5)
            await settle(pilot)
            looks(app, snapshot, "too-small")

    asyncio.run(drive())


def looks(app: GaloreMemApp, snapshot: SnapshotAssertion, name: str) -> None:
    assert app.export_screenshot() == snapshot(name=name, extension_class=SVGImageExtension)


def test_the_readme_shows_what_the_tui_looks_like(request: pytest.FixtureRequest) -> None:
    here = Path(__file__)
    snapshot = here.parent / "__snapshots__" / "test_looks" / "test_panes[120x40-dark][table].svg"
    shown = here.parents[3] / "docs" / "images" / "tui.svg"
    if request.config.getoption("update_snapshots"):
        shown.write_bytes(snapshot.read_bytes())
    assert shown.read_bytes() == snapshot.read_bytes()
