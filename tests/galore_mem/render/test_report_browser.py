"""The page as people use it, in headless Chromium."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from galore_mem.answers.report.answer import report_of
from galore_mem.answers.report.run import run_report
from galore_mem.render.report.page import page_html
from galore_mem.tapes.file import tape_bytes
from galore_mem.tapes.recording import read_recording
from galore_mem.tapes.table import EventTable
from galore_mem.tapes.tape import DeviceTape, Tape
from tests.galore_mem.answers.made_runs import made_run
from tests.galore_mem.render.browser import Browser, Opened, chromium
from tests.galore_mem.render.test_report_page import HOSTILE

RECORDED = Path(__file__).resolve().parents[2] / "fixtures" / "recorded"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    hostile = made_run(prefix=HOSTILE, metadata={"environment": {"torch": HOSTILE}})
    for name, report in (
        ("made", report_of([("made.tape.json.gz", made_run())], gpus="4090")),
        ("two", report_of([("a", made_run()), ("b", made_run(layers=5, steps=2))])),
        ("recorded", report_of([("recorded", read_recording(RECORDED / "lm_training_425m.tape.json.gz"))])),
        ("hostile", report_of([(HOSTILE, hostile)])),
    ):
        (folder / f"{name}.html").write_text(page_html(report), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(browser: Browser, pages: Path) -> Iterator[Opened]:
    with Opened(browser, pages / "made.html") as opened:
        yield opened
        assert opened.complaints == []
        assert opened.requests == []


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("made", 390, "dark"), ("two", 390, "light"), ("recorded", 1280, "dark"), ("hostile", 1280, "light")],
)
def test_pages_draw_without_a_word_and_without_the_network(
    browser: Browser, pages: Path, name: str, width: int, scheme: str
) -> None:
    with Opened(browser, pages / f"{name}.html", width=width, scheme=scheme) as opened:
        assert opened.complaints == []
        assert opened.requests == []
        assert opened.ask("document.documentElement.scrollWidth") <= width
        assert opened.ask("document.querySelectorAll('#timeline-plot .scatterlayer .trace').length") >= 3
        assert opened.ask("document.querySelectorAll('#tree-plot .slice').length") >= 3
        assert opened.ask("document.getElementById('segment-map').height") > 50
        assert opened.ask("[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('svg'))")
        assert opened.ask("document.images.length") == 0
        tables = "[...document.querySelectorAll('.compared, .stacked')].filter((one) => one.offsetParent)"
        assert opened.ask(f"{tables}.every((one) => one.scrollWidth <= one.parentElement.clientWidth)")
        assert opened.ask("[...document.querySelectorAll('#layers-plot')].every((it) => it.nextSibling.innerText)")


@pytest.mark.parametrize("width", [390, 560, 1200])
def test_chips_hold_their_figures_rounded_as_the_tables_are(browser: Browser, tmp_path: Path, width: int) -> None:
    table = EventTable()
    for block, (category, size) in enumerate({"workspaces": 65 << 18, "optimizer_states": 4094 << 18}.items(), 1):
        table.append("alloc", block, size, category=category, phase="step")
    tape = Tape(devices=(DeviceTape(events=table),), source="measured")
    (tmp_path / "page.html").write_text(page_html(report_of([("run", tape)])), encoding="utf-8")
    with Opened(browser, tmp_path / "page.html", width=width) as opened:
        assert "16.2 MiB" in opened.text("#legend")
        assert "16.2 MiB" in opened.text("#tensor-table")
        assert opened.ask(
            "[...document.querySelectorAll('#legend button')].every((b) => b.scrollWidth <= b.clientWidth)"
        )


def test_tensors_add_up_to_the_live_figure(browser: Browser, tmp_path: Path) -> None:
    table = EventTable()
    for block, size in enumerate([1 << 20, *[1] * 400], 1):  # 400 bytes lie in 200 KiB of blocks
        table.append("alloc", block, size, category="weights", phase="step")
    tape = Tape(devices=(DeviceTape(events=table),), source="measured")
    (tmp_path / "page.html").write_text(page_html(report_of([("run", tape)])), encoding="utf-8")
    with Opened(browser, tmp_path / "page.html") as opened:
        assert opened.text("#count") == "401 of 401 tensors, 1.2 MiB"
        assert "Live 1.2 MiB" in opened.text("body")


def test_hovering_names_the_tensor_and_its_module(made: Opened) -> None:
    made.page.locator("#timeline-plot").scroll_into_view_if_needed()
    box = made.page.locator("#timeline-plot .nsewdrag").first.bounding_box()
    before = made.text("#readout")
    made.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5)
    made.page.wait_for_selector("#timeline-plot .hoverlayer .hovertext")
    said = made.text("#readout")
    assert said != before
    assert "model.layers." in said
    assert "live" in made.ask("document.querySelector('#timeline-plot .hovertext').textContent")


def test_the_keyboard_moves_the_cursor_and_finds_the_peak(made: Opened) -> None:
    made.page.focus("#timeline-plot")
    made.page.keyboard.press("Home")
    assert made.text("#readout").startswith("Event 0")
    made.page.keyboard.press("ArrowRight")
    assert made.text("#readout").startswith("Event 1")
    made.page.keyboard.press("p")
    assert "the peak" in made.text("#readout")
    assert "300.0 MiB" in made.text("#readout")


def test_zooming_to_a_step_shows_that_step(made: Opened) -> None:
    made.page.click("#zooms button >> nth=2")
    low, high = made.ask("document.getElementById('timeline-plot').layout.xaxis.range")
    _, steady, _ = run_report(made_run(), "made").iterations
    assert (low, high) == (steady.start, steady.stop - 1)
    made.page.click("#zooms button >> nth=0")
    assert made.ask("document.getElementById('timeline-plot').layout.xaxis.range")[0] == 0


def test_a_category_can_be_hidden(made: Opened) -> None:
    count = "document.getElementById('timeline-plot').data.length"
    before = made.ask(count)
    made.page.click('#legend button[data-name="weights"]')
    assert made.ask(count) == before - 1


def test_tensors_are_sorted_and_filtered(made: Opened) -> None:
    rows = (
        "[...document.querySelectorAll('#tensor-table tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
    )
    found = made.ask(rows)
    assert found[0][0] == "60.0 MiB"
    made.page.click("#tensor-table thead button >> nth=0")
    assert made.ask(rows)[0][0] == "4.0 MiB"
    assert made.page.get_attribute("#tensor-table th >> nth=0", "aria-sort") == "ascending"
    made.page.click("#tensor-table thead button >> nth=2")
    modules = [row[2] for row in made.ask(rows) if row[2] != "\u2013"]
    assert modules == sorted(modules)
    made.page.fill("#filter", "layers.2 exp_avg_sq")
    assert [row[2] for row in made.ask(rows)] == ["model.layers.2.mlp.weight, exp_avg_sq"]
    assert made.text("#count").startswith("1 of 25 tensors")
    made.page.fill("#filter", "")
    made.page.select_option("#kind", "gradients")
    assert {row[1] for row in made.ask(rows)} == {"gradients"}


def test_two_runs_lie_over_each_other_and_can_be_switched(browser: Browser, pages: Path) -> None:
    with Opened(browser, pages / "two.html") as opened:
        names = opened.ask("document.getElementById('overlay-plot').data.map((trace) => trace.name)")
        assert names == ["A live", "A reserved", "B live", "B reserved"]
        assert "+75.0 MiB" in opened.text("#differences")
        assert "300.0 MiB" in opened.text("#readout")
        opened.page.click("nav .switch button >> nth=1")
        assert "375.0 MiB" in opened.text("#readout")
        visible = opened.ask(
            "[...document.querySelectorAll('[data-of]')].filter((part) => !part.hidden).map((part) => part.dataset.of)"
        )
        assert set(visible) == {"1"}
        assert opened.complaints == []


def test_colours_can_be_chosen(browser: Browser, pages: Path) -> None:
    with Opened(browser, pages / "made.html", scheme="light") as opened:
        ground = "getComputedStyle(document.body).backgroundColor"
        light = opened.ask(ground)
        opened.page.click("#theme")
        opened.page.click("#theme")
        assert opened.text("#theme") == "Dark"
        assert opened.ask(ground) != light
        assert opened.complaints == []


def test_the_raw_run_can_be_saved(made: Opened, tmp_path: Path) -> None:
    with made.page.expect_download() as coming:
        made.page.click(".download")
    saved = tmp_path / coming.value.suggested_filename
    coming.value.save_as(saved)
    assert saved.name == "made.tape.json"
    assert json.loads(saved.read_text()) == json.loads(gzip.decompress(tape_bytes(made_run())))
    assert read_recording(saved) is not None


def test_the_segment_map_answers_the_keyboard(made: Opened) -> None:
    made.page.focus("#segment-map")
    made.page.keyboard.press("ArrowRight")
    assert "weights" in made.text("#tip")


def test_a_page_prints(browser: Browser, pages: Path) -> None:
    with Opened(browser, pages / "made.html", scheme="dark") as opened:
        opened.page.emulate_media(media="print")
        assert opened.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert opened.page.pdf()[:5] == b"%PDF-"
