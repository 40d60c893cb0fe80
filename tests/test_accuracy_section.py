"""README's accuracy section is what the stored records say; `--update-golden` writes it anew."""

from dataclasses import replace
from pathlib import Path

import pytest

from galore_mem.answers.validate import Stored, stored
from galore_mem.render.accuracy import BEGIN, END, NOTHING, accuracy_section
from profiles.records import SHIPPED, Figures, Point, Record, Rerun

README = Path(__file__).resolve().parents[1] / "README.md"


def test_readme_says_what_the_records_say(request: pytest.FixtureRequest) -> None:
    found = stored(SHIPPED)
    assert found.problems == ()
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(f"{BEGIN}\n")
    _, after = rest.split(END)
    meant = f"{before}{BEGIN}\n{accuracy_section(found)}\n{END}{after}"
    if request.config.getoption("--update-golden"):
        README.write_text(meant, encoding="utf-8")
        text = meant
    assert text == meant


def figures(live: int) -> Figures:
    step = Point(iteration="steady", name="step", live_bytes=live, by_category={"weights": live})
    return Figures(
        peak_live_bytes=live,
        peak_allocated_bytes=live,
        peak_reserved_bytes=live,
        process_bytes=live + 500,
        upper_bytes=live + 600,
        peak_moment="steady step",
        at_peak_bytes={"weights": live},
        resident_bytes={"weights": live},
        moments=(step,),
    )


MEASURED = Record(
    row="llama-60m_adamw",
    device="NVIDIA H200",
    source="measured",
    outcome="measured",
    environment={"torch": "2.11.0"},
    workload={},
    model={},
    attention_kernel="flash",
    usable_bytes=10 << 30,
    predicted_at="",
    predicted={"analytic": figures(990), "traced": figures(1000)},
    measured=figures(1000),
    reruns={"traced": Rerun(cap_bytes=1600, limit_bytes=1100, survived=True)},
)


def test_without_measurements_it_says_so_also_beside_replayed_ones() -> None:
    replayed = replace(MEASURED, source="replayed", device="cpu", usable_bytes=None)
    for records in ((), (replayed,), (replace(MEASURED, outcome="predicted", measured=None),)):
        assert accuracy_section(Stored(folders=(), records=records, problems=())) == NOTHING


def test_measurements_become_a_table() -> None:
    text = accuracy_section(Stored(folders=(), records=(MEASURED, MEASURED), problems=()))
    assert "2 workloads ran on NVIDIA H200 (torch 2.11.0)" in text
    assert "| peak: live | 2 | -1.00 | 1.00 | -1.00 | llama-60m_adamw |" in text
    assert "Under the upper bound: 0 of 2 estimates failed (0.0 %)" in text
    assert "Memory conserved: 10.00 GiB a run." in text
