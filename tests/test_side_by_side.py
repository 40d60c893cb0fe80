"""The comparison with other tools that the docs show is the one that was run."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from estimators.analytic.estimate import estimate
from profiles.gpus import find_gpu

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.side_by_side import BEGIN, CASES, END, PAGE, table  # noqa: E402

ROWS: list[dict[str, Any]] = json.loads((ROOT / "benchmarks" / "side-by-side.json").read_text(encoding="utf-8"))


def test_the_page_shows_the_run() -> None:
    shown = re.search(f"{re.escape(BEGIN)}\n(.*?){re.escape(END)}", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    assert shown[1] == table(ROWS)


def test_every_case_was_run_with_every_tool() -> None:
    assert [row["case"] for row in ROWS] == list(CASES)
    assert len({tuple(row["answers"]) for row in ROWS}) == 1
    assert not [row["case"] for row in ROWS if any("missing" in answer for answer in row["answers"].values())]


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_our_plan_still_gives_the_answer_that_is_shown(number: int) -> None:
    row, case = ROWS[number], list(CASES.values())[number]
    found = estimate(case.workload, find_gpu("a100-80gb"))
    assert getattr(found, case.figure) == row["answers"]["galore-mem plan"]["bytes"]
