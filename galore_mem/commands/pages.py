"""What commands write, and `--report` of those that record a run themselves."""

import os
from collections import Counter
from typing import TYPE_CHECKING

from galore_mem.errors import UsageError

if TYPE_CHECKING:
    from galore_mem.tapes.tape import Tape


def check_outputs(*paths: str | None, force: bool) -> None:
    """Refuse before the work what would be refused after it: pages, Tapes and snapshots alike.

    Raises:
        UsageError: a file exists or could not be written, or two results would go into one.
    """
    from galore_mem.tapes.atomic import check_free

    named = [path for path in paths if path is not None]
    for path in named:
        check_free(path, force=force)
    twice = [path for path, count in Counter(map(os.path.abspath, named)).items() if count > 1]
    if twice:
        raise UsageError(f"two results would go into {twice[0]}", "", "give each a file of its own")


def write_report(path: str, tape: "Tape", *, cards: tuple[str, ...] = (), other_use: str | None = None) -> None:
    """Draw a run that was just recorded, and say where.

    Raises:
        UsageError: the page cannot be written.
    """
    from galore_mem import streams
    from galore_mem.answers.report.answer import report_of
    from galore_mem.render.report.write import write_page

    write_page(path, report_of([("this run", tape)], gpus=cards, other_use=other_use))
    streams.narrate(f"wrote {path}")
