"""The tour of docs/tui.md shows what its keys bring up; `--update-golden` writes it anew.

The two pictures of a trace are not among them: it runs in a process of its own.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from galore_mem.tui.app import GaloreMemApp
from galore_mem.tui.state import State

PAGE = Path(__file__).parents[3] / "docs" / "tui.md"
BLOCK = re.compile(r"(?<=^```text\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
METHODS = ["6", "down", "down", "down", "enter", "tab", "down", "space", *["down"] * 8, "space"]
SETTINGS = ["enter", "down", "enter", *"512", "enter", "down", "down", "down", "right"]
SETTINGS += ["down", "right", "right", "down", "down", "right", "down", "down", "right"]
STOPS: list[tuple[int, list[str], slice]] = [
    (0, [], slice(0, 24)),
    (1, METHODS, slice(0, 24)),
    (2, SETTINGS, slice(3, 16)),
    (3, ["1"], slice(3, 9)),
    (4, ["home", "space", "down", "space", "4"], slice(3, 23)),
    (7, ["6", *["down"] * 5, "right", "right", "1"], slice(3, 9)),
]
"""Number of the picture, the keys that lead to it, and which rows of the terminal it shows."""


def test_the_tour_is_as_typed(
    make_app: Callable[..., GaloreMemApp],
    settle: Callable[[Pilot[Any]], Awaitable[None]],
    request: pytest.FixtureRequest,
) -> None:
    app, text = make_app(State()), PAGE.read_text(encoding="utf-8")
    shown = BLOCK.findall(text)
    found: dict[int, str] = {}

    async def drive() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            for number, keys, rows in STOPS:
                await pilot.press(*keys)
                await settle(pilot)
                lines = [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]
                found[number] = "\n".join(lines[rows]) + "\n"

    asyncio.run(drive())
    if request.config.getoption("--update-golden"):
        blocks = iter(found.get(number, block) for number, block in enumerate(shown))
        PAGE.write_text(BLOCK.sub(lambda _: next(blocks), text), encoding="utf-8")
    else:
        for number, block in found.items():
            assert block == shown[number]
