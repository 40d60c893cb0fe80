"""A plan and a trace call what is alive at a peak by the same names, and print no row of zeros."""

import pytest

from galore_mem.answers.plan import plan
from galore_mem.render.alive import SHOWN_BYTES, parts_alive
from galore_mem.render.plan import print_plan

MIB = 2**20


def test_categories_of_one_part_stand_in_one_row() -> None:
    found = {"weights": 900 * MIB, "temporaries": 20 * MIB, "workspaces": 16 * MIB, "remainders": 1, "inputs": 512}
    shown, small = parts_alive(found)
    rows = [(part.name, nbytes, of_which) for part, nbytes, of_which in shown]
    assert rows == [("weights", 900 * MIB, ""), ("temporaries", 36 * MIB + 1, "of which workspaces 0.02")]
    assert small == "activations"


def test_where_all_is_small_all_is_shown() -> None:
    shown, small = parts_alive({"weights": SHOWN_BYTES - 1, "workspaces": 3})
    assert [(part.name, of_which) for part, _, of_which in shown] == [("weights", ""), ("temporaries", "")]
    assert small == ""


def test_a_plan_prints_no_segments_where_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(plan("llama-7b", gpus="4090", methods="adamw"))
    out = capsys.readouterr().out
    assert "and beyond" in out
    assert "0.00    0.00" not in out
