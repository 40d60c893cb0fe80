"""`galore-mem oom`."""

import sys
from typing import TYPE_CHECKING

from galore_mem import streams
from galore_mem.answers.settings import Settings
from galore_mem.errors import UsageError

if TYPE_CHECKING:
    from galore_mem.answers.asked import RunAsked

DEFAULT_RUN = Settings()


def oom(
    file: str = "-",
    model: str | None = None,
    /,
    *,
    gpu: tuple[str, ...] = (),
    method: tuple[str, ...] = (),
    from_: str | None = None,
    settings: Settings = DEFAULT_RUN,
    json: bool = False,
) -> None:
    """Explain a CUDA out-of-memory error; given the run, name the tensor and the cheapest way out.

    Args:
        file: A log file, - for stdin, or the message itself in quotes.
        model: What was trained: a name of `galore-mem models`, the path of a config.json, or org/name on the Hub.
        gpu: The card, where its total memory does not tell.
        method: One name of `galore-mem methods`.
        from_: What another tool trained by: transformers' TrainingArguments, axolotl's or LLaMA-Factory's YAML.
        settings: Everything else about the run, as for plan.
        json: One JSON object on stdout, sizes in bytes.
    """
    from galore_mem.answers.oom import explain_oom, read_text

    if len(method) > 1 or len(gpu) > 1:
        raise UsageError("an error comes from one run", "", "name one --method and at most one --gpu")
    run = _run(model, method[0] if method else None, settings, from_)
    if file == "-" and sys.stdin is not None and sys.stdin.isatty():
        streams.narrate("paste the error, then press Ctrl-D")
    text, name = read_text(file)
    answer = explain_oom(
        text,
        name=name,
        model=run.model if run else None,
        method=run.method if run else "adamw",
        gpu=gpu[0] if gpu else None,
        settings=run.settings if run else settings,
    )
    written = run.written if run else None
    for note in (*(run.notes if run else ()), *answer.notes):
        streams.narrate(f"note: {note}")
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text(answer.to_dict()))
    else:
        from galore_mem.render.oom import print_oom

        print_oom(answer)
        if written is not None:
            from galore_mem.render.written import print_written

            print_written(written)


def _run(model: str | None, method: str | None, settings: Settings, file: str | None) -> "RunAsked | None":
    """The run that failed; None where nothing is said of it."""
    if model is None and file is None:
        if settings != DEFAULT_RUN:
            raise UsageError(
                "options of the run were given without its model", "", "type: galore-mem oom FILE MODEL ..."
            )
        return None
    from galore_mem.answers.asked import words_asked

    return words_asked(model, method, settings, {}, file, "oom FILE")
