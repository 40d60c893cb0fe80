"""`galore-mem report`."""

from galore_mem import streams
from galore_mem.commands.pages import check_outputs
from galore_mem.errors import UsageError


def report(
    file: str,
    second: str | None = None,
    /,
    *,
    output: str = "",
    gpu: tuple[str, ...] = (),
    other_use: str | None = None,
    categories: str | None = None,
    device: int | None = None,
    force: bool = False,
) -> None:
    """Draw a recording as one HTML page that needs no network: what holds memory, when, and because of which tensors.

    Args:
        file: A Tape, a snapshot of torch.cuda.memory._dump_snapshot(), or an answer's JSON.
        second: Another one, laid over the first.
        output: The page to write; it must be named.
        gpu: Cards to judge by, of `galore-mem gpus`; those that the recording names unless given.
        other_use: What others take from each card, such as 800MiB.
        categories: A TOML file with rules of yours for what blocks are for.
        device: Which device of the recording to draw; the busiest unless given.
        force: Replace the page if it exists.
    """
    from galore_mem.answers.report.answer import report as answer
    from galore_mem.answers.report.answer import sheets_of
    from galore_mem.render.report.write import write_page, write_sheets

    if not output:
        raise UsageError("--output is missing", "", f"say where the page goes: galore-mem report {file} -o page.html")
    check_outputs(output, force=force)
    files = (file,) if second is None else (file, second)
    sheets = sheets_of(files)
    if sheets:
        _refuse({"--gpu": gpu, "--other-use": other_use, "--categories": categories, "--device": device})
        write_sheets(output, sheets)
    else:
        write_page(output, answer(files, gpus=gpu, other_use=other_use, categories=categories, device=device))
    streams.narrate(f"wrote {output}")


def _refuse(given: dict[str, object]) -> None:
    """Options that only a history can follow."""
    for option, value in given.items():
        if value not in ((), None):
            raise UsageError(
                f"{option} means nothing to an answer's JSON, which has no history",
                "",
                f"leave it out, or ask again with {option if option == '--gpu' else '--tape'} and report that",
            )
