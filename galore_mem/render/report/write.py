"""The page as a file."""

import os
from collections.abc import Sequence

from galore_mem.answers.report.answer import Report
from galore_mem.answers.report.sheet import Sheet
from galore_mem.render.report.page import page_html
from galore_mem.tapes.atomic import write_bytes


def write_page(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page, whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    write_bytes(path, page_html(report).encode("utf-8"))


def write_sheets(path: str | os.PathLike[str], sheets: Sequence[Sheet]) -> None:
    """Write the page of answers that came without their histories.

    Raises:
        UsageError: the file cannot be written.
    """
    from galore_mem.render.report.sheet_page import sheet_html

    write_bytes(path, sheet_html(sheets).encode("utf-8"))
