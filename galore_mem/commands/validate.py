"""`galore-mem validate`."""

from typing import Literal

from galore_mem import streams
from galore_mem.errors import UsageError


def validate(
    folder: str | None = None,
    /,
    *,
    show: bool = False,
    rows: bool = False,
    device: Literal["cuda", "cpu"] = "cuda",
    into: str | None = None,
    only: str | None = None,
    limit_minutes: float = 8.0,
    again: bool = False,
    json: bool = False,
) -> None:
    """Predict, measure, and run again under the predicted bound: every workload of a matrix, one record each.

    Args:
        folder: With --show, the records to draw; the project's own and yours unless given.
        show: Draw what is stored, and run nothing.
        rows: List the matrix, and run nothing.
        device: cuda measures on this machine's first GPU; cpu runs the smallest rows on CPU tensors and replays them.
        into: Folder of the records; a checkout's profiles/measured or one of your own unless given.
        only: Rows whose names contain this, or match it with shell wildcards.
        limit_minutes: No row is begun that should end later.
        again: Measure rows anew that have records.
        json: One JSON object on stdout, sizes in bytes.
    """
    from galore_mem.render import validation as render

    if folder is not None and not show:
        raise UsageError("validate takes a folder only with --show", "", f"write --show {folder}, or --into {folder}")
    if rows:
        render.print_matrix(device)
        return
    if show:
        from galore_mem.answers.validate import stored

        found = stored(folder)
    else:
        from galore_mem.answers.validate import validate as answer

        found = answer(
            device=device, into=into, only=only, limit_minutes=limit_minutes, again=again, told=streams.narrate
        ).stored
    for problem in found.problems:
        streams.narrate(f"note: {problem}")
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text(found.to_dict()))
    else:
        render.print_stored(found)
