"""`--report` of commands that record a run themselves."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from galore_mem.tapes.tape import Tape


def check_page(path: str, *, force: bool) -> None:
    """Refuse before the work what would be refused after it.

    Raises:
        UsageError: the page exists, or could not be written.
    """
    from galore_mem.render.report.write import check_free

    check_free(path, force=force)


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
