"""Records: written and read back alike, and one clear line for every file that is none."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiles.errors import InputError
from profiles.records import Figures, Point, Record, Rerun, file_stem, read_folder, read_record

FIGURES = Figures(
    peak_live_bytes=1000,
    peak_allocated_bytes=1100,
    peak_reserved_bytes=1200,
    process_bytes=1700,
    upper_bytes=1900,
    context_bytes=600,
    peak_moment="steady step",
    at_peak_bytes={"weights": 600, "gradients": 400},
    resident_bytes={"weights": 599},
    moments=(Point(iteration="steady", name="step", live_bytes=1000, by_category={"weights": 600, "gradients": 400}),),
)
RECORD = Record(
    row="llama-60m_adamw",
    device="NVIDIA H200",
    source="measured",
    outcome="measured",
    environment={"torch": "2.11.0", "driver": "580.1"},
    workload={"precision": "bf16"},
    model={"hidden_size": 512},
    attention_kernel="flash",
    usable_bytes=4000,
    predicted_at="2026-11-22T06:00:00Z",
    measured_at="2026-11-22T06:00:09Z",
    predicted={"analytic": FIGURES, "traced": FIGURES},
    measured=replace(FIGURES, process_bytes=None, upper_bytes=None),
    reruns={"traced": Rerun(cap_bytes=1900, limit_bytes=1300, survived=True)},
    tape="a.tape.json.gz",
    seconds={"measuring": 1.5},
    notes=("a note",),
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(RECORD.to_bytes())
    assert read_record(file) == RECORD


def test_file_names_are_fit_for_every_system() -> None:
    assert file_stem("NVIDIA GeForce RTX 4090", "2.11.0+cu130", "llama-60m_adamw") == (
        "nvidia-geforce-rtx-4090.torch-2-11-0.llama-60m_adamw"
    )
    assert file_stem("../../etc", "2", "x/y") == "etc.torch-2.x-y"


def changed(**words: Any) -> bytes:  # noqa: ANN401
    return json.dumps({**RECORD.to_dict(), **words}).encode()


def figures(**words: Any) -> dict[str, Any]:  # noqa: ANN401
    return {**RECORD.to_dict()["measured"], **words}


BROKEN: dict[str, tuple[bytes, str]] = {
    "another version": (changed(schema="galore-mem/record/2"), "was written by another version of galore-mem"),
    "another file": (changed(schema="galore-mem/tape/1"), "its schema is not galore-mem/record/1"),
    "no schema": (b"{}", "its schema is not"),
    "cut off": (RECORD.to_bytes()[:400], "its JSON is broken: it is cut off"),
    "empty": (b"", "its JSON is broken"),
    "binary": (b"\x80\x04\x95\xff", "its JSON is broken"),
    "deep": (b"[" * 100_000, "its JSON is broken"),
    "a list": (b"[]", "it holds no object"),
    "not a number": (RECORD.to_bytes().replace(b"1.5", b"NaN"), "its JSON is broken"),
    "a negative size": (changed(measured=figures(peak_live_bytes=-1)), "peak_live_bytes is no number of bytes"),
    "a size that is true": (changed(measured=figures(peak_live_bytes=True)), "peak_live_bytes is no number of bytes"),
    "a fraction": (changed(usable_bytes=1.5), "usable_bytes is no number of bytes"),
    "a size of a galaxy": (changed(usable_bytes=1 << 80), "usable_bytes is no number of bytes"),
    "an unknown outcome": (changed(outcome="fine"), "outcome is 'fine', not one of predicted, measured"),
    "a missing field": (changed(row=None), "row is no printable text"),
    "escape codes": (changed(row="\x1b[2J"), "row is no printable text"),
    "moments of another kind": (changed(measured=figures(moments=[1])), "moments is no list of objects"),
    "a rerun that may have survived": (
        changed(reruns={"traced": {"cap_bytes": 1, "limit_bytes": 1, "survived": 1, "implied": False}}),
        "survived is neither true nor false",
    ),
    "too large": (b" " * ((8 << 20) + 1), "it is larger than 8 MiB"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_record_gives_one_line_and_hides_no_other(name: str, tmp_path: Path) -> None:
    content, why = BROKEN[name]
    (tmp_path / "b.json").write_bytes(content)
    (tmp_path / "c.json").write_bytes(RECORD.to_bytes())
    with pytest.raises(InputError) as caught:
        read_record(tmp_path / "b.json")
    assert why in str(caught.value)
    assert str(tmp_path / "b.json") in str(caught.value)
    assert "\n" not in str(caught.value)
    records, problems = read_folder(tmp_path)
    assert records == (RECORD,)
    assert [str(problem) for problem in problems] == [str(caught.value)]
    assert (tmp_path / "b.json").read_bytes() == content


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_gives_one_line(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "d.json")
    records, (problem,) = read_folder(tmp_path)
    assert records == ()
    assert "cannot read" in str(problem)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the folder"):
        read_folder(tmp_path / "nowhere")
