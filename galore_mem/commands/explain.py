"""`galore-mem explain`."""

from galore_mem import streams
from galore_mem.answers.settings import Settings
from galore_mem.errors import UsageError

DEFAULT_RUN = Settings()


def explain(
    model: str | None = None,
    /,
    *,
    gpu: str | None = None,
    method: tuple[str, ...] = (),
    other_use: str | None = None,
    from_: str | None = None,
    settings: Settings = DEFAULT_RUN,
    diff: str | None = None,
    json: bool = False,
) -> None:
    """Why a run takes what it takes: every tensor that a layer saves, the peak, and what each setting is worth.

    Args:
        model: A name of `galore-mem models`, or the path of a config.json or of its folder.
        gpu: A name of `galore-mem gpus`, or local; it decides the attention kernel.
        method: One name of `galore-mem methods`.
        other_use: What others take from the card, such as 800MiB.
        from_: What another tool trains by: transformers' TrainingArguments, axolotl's or LLaMA-Factory's YAML.
        settings: Everything else about the run.
        diff: Options that another run has instead, such as "--update per-layer --rank 128": says why both differ.
        json: One JSON object on stdout, sizes in bytes.
    """
    from galore_mem.answers.explain import explain as answer

    if len(method) > 1:
        raise UsageError("explain takes one --method", "", "compare two with --diff '--method NAME'")
    other = None
    if diff is not None:
        other = _other(diff, model, method[0] if method else None, settings, from_)
    result = answer(
        model,
        gpu=gpu,
        method=method[0] if method else None,
        settings=settings,
        other_use=other_use,
        other=other,
        from_file=from_,
    )
    for note in result.notes:
        streams.narrate(f"note: {note}")
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text(result.to_dict()))
    else:
        from galore_mem.render.explain import print_explanation

        print_explanation(result)
    if result.written is not None and not json:
        from galore_mem.render.written import print_written

        print_written(result.written)


def _other(
    diff: str, model: str | None, method: str | None, settings: Settings, file: str | None
) -> tuple[str, Settings]:
    """The run that `diff` makes of this one."""
    from galore_mem.answers.asked import words_asked
    from galore_mem.commands.changed import changed

    asked = words_asked(model, method, settings, {}, file, "explain")
    return changed(diff, asked.method, asked.settings)
