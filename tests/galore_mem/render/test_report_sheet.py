"""Answers that came without their histories, as pages."""

import json
from pathlib import Path
from typing import Any

import pytest

from galore_mem.answers.plan import plan
from galore_mem.answers.report.sheet import read_sheet
from galore_mem.commands.app import call
from galore_mem.errors import UsageError
from profiles.errors import InputError
from profiles.records import Record, figures_of
from tests.galore_mem.render.test_report_page import HOSTILE, tags


def answer(**more: Any) -> dict[str, Any]:  # noqa: ANN401
    """An answer as `trace --json` writes it, with a plan's figures."""
    planned = json.loads(json.dumps(plan("llama-60m", gpus="4060", methods=("adamw",)).to_dict()))["plans"][0]
    return {
        "schema": "galore-mem/trace/1",
        "workload": planned["workload"],
        "footprint": planned["footprint"] | {"source": "traced"},
        "fits": planned["fits"],
        "largest": [{"bytes": 1 << 20, "category": "weights", "module": HOSTILE, "operator": "model"}],
        "allocator": {"what_ifs": [{"settings": "", "peak_reserved_bytes": 1 << 30, "peak_allocated_bytes": 1 << 29}]},
        "environment": {"torch": "2.13.0"},
        "notes": ["a note"],
        **more,
    }


def write(folder: Path, name: str, data: Any) -> Path:  # noqa: ANN401
    path = folder / name
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_a_traces_json_becomes_a_page(tmp_path: Path) -> None:
    path, page = write(tmp_path, "run.json", answer()), tmp_path / "out.html"
    assert call(["report", str(path), "-o", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "Fits on RTX 4060" in text
    assert "llama-60m, adamw" in text
    assert "<img" not in text
    assert len(text) < 60_000
    moments = text.split('id="moments"')[1].split("</section>")[0]
    assert moments.count('class="stack"') == len(answer()["footprint"]["moments"])
    assert all(not attributes.get("src") for _, attributes in tags(text))


def test_moments_follow_each_other_whatever_order_they_were_met_in(tmp_path: Path) -> None:
    data = answer()
    data["footprint"]["moments"] = data["footprint"]["moments"][::-1]
    path, page = write(tmp_path, "run.json", data), tmp_path / "out.html"
    assert call(["report", str(path), "-o", str(page)]) == 0
    told = page.read_text(encoding="utf-8").split('id="moments"')[1].split("</section>")[0]
    labels = [f"{iteration} {name}" for iteration in ("first", "steady") for name in ("forward end", "loss", "step")]
    assert sorted(labels, key=told.index) == labels


@pytest.mark.parametrize("words", [("--gpu", "4090"), ("--other-use", "1GiB"), ("--device", "0")])
def test_what_only_a_history_can_follow_is_refused(tmp_path: Path, words: tuple[str, str]) -> None:
    path, page = write(tmp_path, "run.json", answer()), tmp_path / "out.html"
    with pytest.raises(UsageError, match=f"{words[0]} means nothing to an answer's JSON"):
        call(["report", str(path), "-o", str(page), *words])
    assert not page.exists()


def test_two_answers_side_by_side(tmp_path: Path) -> None:
    first = write(tmp_path, "a.json", answer())
    more = answer()
    more["footprint"]["peak_reserved_bytes"] += 3 << 20
    second, page = write(tmp_path, "b.json", more), tmp_path / "out.html"
    assert call(["report", str(first), str(second), "-o", str(page)]) == 0
    assert "+3.0 MiB" in page.read_text(encoding="utf-8").split('id="differences"')[1]


def test_a_record_of_validate_shows_what_was_predicted(tmp_path: Path) -> None:
    footprint = answer()["footprint"]
    figures = figures_of(footprint)
    record = Record(
        row="r1",
        device="NVIDIA H200",
        source="measured",
        outcome="measured",
        environment={"torch": "2.13.0"},
        workload=answer()["workload"],
        model={},
        attention_kernel="flash",
        usable_bytes=None,
        predicted_at="2026-01-01",
        predicted={"analytic": figures},
        measured=figures,
    )
    path, page = write(tmp_path, "r1.json", record.to_dict()), tmp_path / "out.html"
    assert call(["report", str(path), "-o", str(page)]) == 0
    assert "Predicted (analytic) against measured" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [-1, 1.5, None, "x", True, 1 << 70])
def test_sizes_that_are_none_are_refused(tmp_path: Path, value: Any) -> None:  # noqa: ANN401
    bad = answer()
    bad["footprint"]["at_peak_bytes"]["weights"] = value
    with pytest.raises(InputError, match="no number of bytes"):
        read_sheet(write(tmp_path, "run.json", bad))


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    bad = answer()
    bad["footprint"]["at_peak_bytes"]["weights"] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        read_sheet(write(tmp_path, "run.json", bad))


def test_other_files_are_no_answers(tmp_path: Path) -> None:
    assert read_sheet(write(tmp_path, "other.json", {"schema": "galore-mem/tape/1"})) is None
    assert read_sheet(write(tmp_path, "list.json", [1])) is None
    assert read_sheet(tmp_path / "none.json") is None


def test_an_answer_and_a_recording_do_not_compare(tmp_path: Path) -> None:
    recorded = Path(__file__).resolve().parents[2] / "fixtures" / "recorded" / "toy_step.tape.json.gz"
    with pytest.raises(InputError, match="two of a kind"):
        call(["report", str(write(tmp_path, "a.json", answer())), str(recorded), "-o", str(tmp_path / "out.html")])
