"""Errors become one line and an exit code."""

import pytest

from galore_mem.errors import ExitCode, GaloreMemError, NetworkError, NoDeviceError
from galore_mem.outcomes import outcome_of, report
from profiles.errors import InputError


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (InputError("rank 0 is odd", "it is none", "give 1"), "rank 0 is odd: it is none; give 1", 2),
        (InputError("two\nlines", "", ""), "two lines", 2),
        (NoDeviceError("no card.", "", "buy one"), "no card; buy one", 3),
        (NetworkError("no net", "it is off.", ""), "no net: it is off", 4),
        (GaloreMemError("what"), "what", 2),
        (MemoryError(), "this machine has no memory left for it; close other programs, or ask for less", 2),
        (KeyboardInterrupt(), "interrupted", 130),
        (FileNotFoundError(2, "No such file", "x.json"), "No such file: x.json", 2),
        (
            ModuleNotFoundError("", name="torch.optim"),
            "this command needs packages that are not installed: no module torch; run: pip install 'galore-mem[train]'",
            2,
        ),
        (
            ModuleNotFoundError("", name="rich"),
            "this command needs packages that are not installed: no module rich; run: pip install 'galore-mem'",
            2,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_lines_and_codes(error: BaseException, line: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galore_mem.installed._source", lambda: ("", False))
    assert outcome_of(error) == (line, code)


def test_a_fault_of_our_own_is_never_taken_for_a_no() -> None:
    line, code = outcome_of(ZeroDivisionError("division by zero"))
    assert code is ExitCode.FAULT
    assert code not in (ExitCode.ANSWERED, ExitCode.CHECK_FAILED)
    assert "ZeroDivisionError: division by zero" in line
    assert "--debug" in line


def test_a_report_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(InputError("what", "why", "fix")) == 2
    assert capsys.readouterr() == ("", "error: what: why; fix\n")
