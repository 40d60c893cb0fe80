"""The page as text: whole, harmless, the same every time."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from galore_mem.answers.report.answer import Report, report_of
from galore_mem.commands.app import call
from galore_mem.errors import UsageError
from galore_mem.render.palette import PARTS
from galore_mem.render.report.colours import STACK, category_colours
from galore_mem.render.report.data import deltas
from galore_mem.render.report.page import page_html
from galore_mem.render.report.text import clean, size
from galore_mem.tapes.atomic import check_free
from galore_mem.tapes.file import write_tape
from galore_mem.tapes.tape import Tape
from profiles.errors import InputError
from tests.galore_mem.answers.made_runs import made_run

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31m\u202egnp.exe"
LARGEST_PLOTLY_BYTES = 5_000_000


@pytest.fixture(scope="module")
def made() -> Report:
    return report_of([("made", made_run())], gpus=("4090", "4060"))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(text)
    return parser.found


def test_the_page_is_one_file_without_any_address(made: Report) -> None:
    text = page_html(made)
    assert text.count("plotly.js v") == 1
    assert len(text) < LARGEST_PLOTLY_BYTES + 300_000
    for tag, attributes in tags(text):
        assert tag not in ("iframe", "object", "embed", "img")
        for name in ("src", "href"):
            assert not attributes.get(name) or str(attributes[name]).startswith(("#", "data:,"))


def test_the_same_runs_make_the_same_page(made: Report) -> None:
    again = report_of([("made", made_run())], gpus=("4090", "4060"))
    assert page_html(made) == page_html(again)


def test_the_verdict_comes_first_and_says_why(made: Report) -> None:
    text = page_html(made)
    body = text[text.index("<main") :]
    assert body.index("Fits on RTX 4090") < body.index('id="timeline"')
    assert "Fits on RTX 4060" in body
    assert "Live tensors peak at steady step: optimizer states 120.0 MiB (40%)" in body


def test_names_from_outside_stay_names() -> None:
    metadata = {"environment": {"torch": HOSTILE}, "command": HOSTILE, "workload": HOSTILE, "steps": HOSTILE}
    report = report_of([(HOSTILE, made_run(prefix=HOSTILE, metadata=metadata)), ("b", made_run())])
    text = page_html(report)
    assert "<img" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    kinds = [attributes.get("type") for tag, attributes in tags(text) if tag == "script"]
    assert kinds == ["application/json", "text/plain", "text/plain", None, None]
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    names = json.loads(data[1])["runs"][0]["names"]
    assert any(name.startswith(clean(HOSTILE)) for name in names)


def test_names_are_cut_and_made_visible() -> None:
    assert clean("a\x1b[0m\x7f\u200b\ud800") == "a␛[0m␡\ufffd\ufffd"
    assert len(clean("x" * 1000)) == 400


def test_numbers_that_are_none_are_left_out() -> None:
    bad = [{"number": 1, "seconds": {"forward": float("nan"), "backward": -1.0, "step": 0.5}}, None, {"seconds": 3}]
    report = report_of([("made", made_run(metadata={"steps": bad}))])
    assert [dict(step.seconds) for step in report.runs[0].steps] == [{"step": 0.5}]
    assert "NaN" not in page_html(report).split('id="data">')[1].split("</script>")[0]


def test_every_category_has_a_colour_of_the_terminals_palette() -> None:
    colours = category_colours()
    assert set(colours) == set(STACK)
    for part in PARTS:
        assert colours[part.categories[0]] == part.colour


def test_sizes_and_differences() -> None:
    assert [size(value) for value in (0, 1023, 1 << 20, 3 << 30, -(1 << 20))] == [
        "0 B",
        "1023 B",
        "1.0 MiB",
        "3.00 GiB",
        "-1.0 MiB",
    ]
    assert deltas([5, 7, 7, 1]) == [5, 2, 0, -6]


def test_a_page_is_never_replaced_by_accident(tmp_path: Path) -> None:
    tape, page = tmp_path / "run.tape.json.gz", tmp_path / "page.html"
    write_tape(tape, made_run())
    assert call(["report", str(tape), "-o", str(page)]) == 0
    first = page.read_bytes()
    with pytest.raises(UsageError, match="add --force"):
        call(["report", str(tape), str(tape), "-o", str(page)])
    assert page.read_bytes() == first
    assert call(["report", str(tape), str(tape), "--output", str(page), "--force"]) == 0
    assert page.read_bytes() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "run.tape.json.gz"]


def test_pages_that_cannot_be_written_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        check_free(tmp_path / "nowhere" / "page.html", force=False)
    with pytest.raises(UsageError, match="is a folder"):
        check_free(tmp_path, force=True)


def test_a_full_disk_and_an_interrupt_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Report
) -> None:
    from galore_mem.render.report.write import write_page

    cases = ((OSError(28, "No space left on device"), UsageError), (KeyboardInterrupt(), KeyboardInterrupt))
    for error, expected in cases:

        def broken(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr("os.replace", broken)
        with pytest.raises(expected):
            write_page(tmp_path / "page.html", made)
        assert list(tmp_path.iterdir()) == []


def test_a_recording_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no device with events"):
        report_of([("empty", Tape(devices=()))])


@pytest.mark.parametrize("command", ["trace", "profile"])
def test_a_run_is_not_recorded_for_a_page_that_would_be_refused(command: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.touch()
    with pytest.raises(UsageError, match="add --force"):
        call([command, "llama-60m", "--report", str(page)])
    with pytest.raises(UsageError, match="no folder"):
        call([command, "llama-60m", "--report", str(tmp_path / "nowhere" / "page.html")])
