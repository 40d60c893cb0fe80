"""What is written, opened, plotted and traced: the figures behind the panes."""

import asyncio
import csv
import json
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Tabs

from estimators.analytic.estimate import reach
from estimators.verdict import judge
from estimators.workload import Workload, with_batch
from galore_mem.answers.names import Card, resolve_model
from galore_mem.answers.plan import plan
from galore_mem.errors import UsageError
from galore_mem.tui.app import GaloreMemApp
from galore_mem.tui.beside import footprint_from, of_footprint, read_beside
from galore_mem.tui.board import NamedCard
from galore_mem.tui.canvas import Canvas
from galore_mem.tui.curves import curves_of
from galore_mem.tui.exports import export
from galore_mem.tui.figures import Figures, Refused, batches, headroom_bytes, verdict_of
from galore_mem.tui.key_line import KeyLine
from galore_mem.tui.matrix import CELL, Matrix
from galore_mem.tui.rows import Row, rows_of
from galore_mem.tui.state import State
from galore_mem.tui.table import ConfigTable
from profiles.gpus import find_gpu
from tests.galore_mem.render.browser import Opened, chromium

AppMaker = Callable[..., GaloreMemApp]
Settle = Callable[[Pilot[Any]], Awaitable[None]]
RECORDED = Path(__file__).parents[2] / "fixtures" / "recorded"
CARDS = tuple(NamedCard(name=name, card=Card(gpu=find_gpu(name))) for name in ("4090", "h100"))


def story() -> tuple[Row, ...]:
    return rows_of(State(), {"llama-7b": resolve_model("llama-7b")})


def test_json_holds_what_plan_says(tmp_path: Path) -> None:
    assert export(tmp_path / "a.json", story(), CARDS, ()).endswith("a.json")
    assert export(tmp_path / "a.json", story(), CARDS, ()).endswith("a.json, in place of the file that was there")
    data = json.loads((tmp_path / "a.json").read_text())
    told = plan("llama-7b", gpus=("4090", "h100")).to_dict()
    assert data["schema"] == "galore-mem/comparison/1"
    assert data["plans"] == told["plans"]
    assert data["beside"] == []


def test_csv_has_a_line_per_row_and_card_and_html_stands_alone(tmp_path: Path) -> None:
    (footprint,) = (found.footprint for found in plan("llama-7b", gpus="4090", methods="adamw").plans)
    export(tmp_path / "a.csv", story(), CARDS, ())
    with (tmp_path / "a.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["method"], line["gpu"]) for line in lines[:2]] == [("adamw", "RTX 4090"), ("adamw", "H100 80GB SXM")]
    assert len(lines) == 12
    beside = [of_footprint("one", footprint)]
    export(tmp_path / "a.html", story()[:2], CARDS, beside)
    export(tmp_path / "b.html", story()[:2], CARDS, beside)
    page = (tmp_path / "a.html").read_text()
    assert page == (tmp_path / "b.html").read_text()
    assert 'id="comparison"' in page
    assert f"RTX 4090, {find_gpu('4090').usable_bytes / 2**30:.2f} GiB" in page
    assert not re.search(r'(src|href)="http', page)


def test_an_exported_page_is_whole_on_a_phone(tmp_path: Path) -> None:
    models = ("llama-7b", "gpt2")
    state = State(models=models, methods=("adamw", "galore-adamw-8bit"))
    export(tmp_path / "page.HTML", rows_of(state, {name: resolve_model(name) for name in models}), CARDS, [])
    with chromium() as browser, Opened(browser, tmp_path / "page.HTML", width=390) as opened:
        assert opened.complaints == opened.requests == []
        assert opened.ask("document.documentElement.scrollWidth") <= 390
        parts = "[...document.querySelectorAll('h1, h2, .bars p, .track, .key')]"
        assert opened.ask(f"{parts}.every((part) => part.scrollWidth <= part.clientWidth)")
        assert "llama-7b, adamw, 1 x 256 tokens" in opened.text("#comparison")
        assert "H100 80GB SXM" in opened.text("#cards")


@pytest.mark.parametrize("name", ["a.txt", "a"])
def test_another_ending_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no format"):
        export(tmp_path / name, story(), CARDS, ())
    with pytest.raises(UsageError, match="cannot write"):
        export(tmp_path / "missing" / "a.csv", story(), CARDS, ())


def test_a_footprint_survives_json() -> None:
    footprint = plan("llama-7b", gpus="4090", methods="galore-adamw").plans[0].footprint
    again = footprint_from(json.loads(json.dumps(footprint.to_dict())))
    assert again.peak.by_category == footprint.peak.by_category
    assert (again.peak.label, again.runner_up.label) == (footprint.peak.label, footprint.runner_up.label)
    assert again.upper_bytes == footprint.upper_bytes


def test_a_trace_is_opened_and_laid_beside(make_app: AppMaker, settle: Settle, tmp_path: Path) -> None:
    footprint = plan("llama-7b", gpus="4090", methods="galore-adamw").plans[0].footprint
    path = tmp_path / "trace.json"
    path.write_text(
        json.dumps({"schema": "galore-mem/trace/1", "footprint": footprint.to_dict() | {"source": "measured"}})
    )
    app = make_app()

    async def run() -> None:
        async with app.run_test(size=(120, 40)) as pilot:
            await settle(pilot)
            app.tasks.read_file(path)
            await settle(pilot)
            assert app.state.view == "compare"
            text = app.panes.compare.plain
            assert "trace.json" in text
            assert "measured" in text
            assert "35.67" in text

    asyncio.run(run())


def test_a_recorded_tape_is_opened() -> None:
    found = read_beside(RECORDED / "toy_step.tape.json.gz")
    assert found.reserved_bytes
    assert found.allocated_bytes
    assert found.live_bytes
    assert found.live_bytes <= found.allocated_bytes <= found.reserved_bytes


@pytest.mark.parametrize("content", ["{}", "[]", '{"schema": "galore-mem/trace/1"}', "nothing", ""])
def test_files_that_hold_nothing_are_refused_in_a_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        read_beside(path)
    assert "\n" not in str(caught.value)


def test_a_tiny_model_is_traced_in_a_process_of_its_own(make_app: AppMaker, settle: Settle, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from galore_mem.tui.tracing import Tracer

    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = State(models=(str(tmp_path),), methods=("sgd",)).with_values("seq", (16,))
    app = make_app(state, tracer=Tracer())
    had_torch = "torch" in sys.modules

    async def run() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            await pilot.press("t")
            await pilot.pause()
            for _ in range(2000):
                await asyncio.sleep(0.05)
                if not app.query_one("#progress").has_class("-running"):
                    break
            await settle(pilot)
            await pilot.press("5")
            await settle(pilot)
            traced = app.results.traced(app.row, app.board)
            assert traced is not None
            assert traced.source == "traced"
            fit = app.session.figures.fit(app.board.rows[0], app.board.card.card)
            assert fit is not None
            assert not isinstance(fit, Refused)
            assert traced.peak_live_bytes == pytest.approx(fit.footprint.peak_live_bytes, rel=0.05)
            assert "traced" in app.panes.workspace.pane("detail").plain  # type: ignore[attr-defined]

    asyncio.run(run())
    assert ("torch" in sys.modules) == had_torch


def vary(row: Row, axis: str, number: int) -> Workload:
    if axis == "sequence":
        return with_batch(row.workload, sequence_length=number)
    return with_batch(row.workload, micro_batch_size=number)


def test_curves_end_where_the_verdict_says() -> None:
    rows = story()
    for axis in ("sequence", "batch"):
        found = curves_of(rows, CARDS[0].card, axis, lambda: False)
        for row, curve in zip(rows, found.curves, strict=True):
            fit = judge(row.workload, CARDS[0].card.gpu)
            longest = fit.max_sequence_length if axis == "sequence" else fit.max_micro_batch_size
            assert curve.furthest == longest
            numbers = [number for number, _ in curve.points]
            assert numbers == sorted(set(numbers))
            assert dict(curve.points)[numbers[-1]] == reach(vary(row, axis, numbers[-1]), CARDS[0].card.gpu).upper_bytes
    ranks = curves_of(rows, CARDS[0].card, "rank", lambda: False)
    assert ranks.left_out == ("adamw", "adamw-8bit")
    assert curves_of(rows, CARDS[0].card, "batch", lambda: True).curves[0].points == ()


def test_figures_are_those_of_the_verdict_and_wait_for_a_worker_when_the_frame_is_over() -> None:
    now = [0.0]
    figures, card, (row, *rest) = Figures(lambda: now[0]), CARDS[0].card, story()
    assert figures.reach(row, card) is None
    assert list(figures.wanted) == [("reach", row.key, next(iter(figures.wanted))[2])]
    figures.learn(pair for batch in batches(figures.wanted.values(), lambda: False) for pair in batch)
    figures.allow(1.0)
    for other in (row, *rest):
        found, fit = figures.reach(other, card), judge(other.workload, card.gpu)
        assert found is not None
        assert not isinstance(found, Refused)
        assert verdict_of(found, card) == fit.verdict
        assert headroom_bytes(found, card) == fit.headroom_bytes
    assert list(batches(figures.all_of(rest, [CARDS[1].card]), lambda: True)) == []


def test_a_canvas_draws_dots_lines_and_glyphs() -> None:
    canvas = Canvas(4, 2)
    canvas.line((0, 0), (7, 7), "a")
    canvas.across(0, "-", "b")
    canvas.put(7, 7, "x", "c")
    canvas.dot(99, 99, "a")
    assert [line.plain for line in canvas.lines()] == ["  ⡠x", "⡠⠊--"]


def test_the_mouse_chooses_rows_cards_columns_tabs_and_keys(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def run() -> None:
        async with app.run_test(size=(100, 30)) as pilot:
            await settle(pilot)
            table = app.query_one(ConfigTable)
            await pilot.click(table, offset=(10, 4))
            assert app.row is not None
            assert app.row.name == "adamw-8bit"
            await pilot.click(table, offset=(10, 4), times=2)
            assert len(app.board.marked) == 1
            for title, key in (("peak", "peak"), ("headroom", "headroom"), ("verdict", "verdict"), ("config", "name")):
                head = table.head(app.board, table.columns)[0].plain
                await pilot.click(table, offset=(head.index(title) + 2, 0))
                assert app.state.sort == key
            await pilot.click(table, offset=(10, 0))
            assert app.state.descending
            await pilot.click("#tab-matrix")
            await settle(pilot)
            assert app.state.view == "matrix"
            assert app.query_one(Tabs).active == "tab-matrix"
            matrix = app.query_one(Matrix)
            before = app.state.card
            await pilot.click(matrix, offset=(matrix.columns - CELL, 3))
            assert app.state.card != before
            await pilot.hover(matrix, offset=(5, 5))
            keys = app.query_one(KeyLine)
            x = keys.render().plain.index("help")
            await pilot.click(keys, offset=(x, 0))
            await pilot.pause()
            assert type(app.screen).__name__ == "Help"

    asyncio.run(run())
