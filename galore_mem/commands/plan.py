"""`galore-mem plan`."""

from galore_mem import streams
from galore_mem.answers.settings import Settings
from galore_mem.errors import ExitCode, UsageError

DEFAULT_RUN = Settings()


def plan(
    model: str | None = None,
    /,
    *,
    gpu: tuple[str, ...] = (),
    method: tuple[str, ...] = (),
    other_use: str | None = None,
    from_: str | None = None,
    exact: bool = False,
    settings: Settings = DEFAULT_RUN,
    json: bool = False,
    csv: bool = False,
    check: bool = False,
    budget: str | None = None,
) -> int:
    """Will this training run fit on that GPU, and what would make it fit?

    Args:
        model: A name of `galore-mem models`, the path of a config.json or its folder, or org/name on the Hub.
        gpu: Names of `galore-mem gpus`, a TOML of your own, or local for the cards of this machine.
        method: Names of `galore-mem methods`; without any, six that tell the story.
        other_use: What others take from each card, such as 800MiB; on a local card, what they take now.
        from_: What another tool trains by: transformers' TrainingArguments, axolotl's or LLaMA-Factory's YAML.
        exact: Confirm every row by replaying its history through the allocator's replica.
        settings: Everything else about the run.
        json: One JSON object on stdout, sizes in bytes.
        csv: One line per configuration and card, sizes in bytes.
        check: Exit with 1 unless every configuration fits every card.
        budget: Exit with 1 unless every upper bound keeps this, such as 22GiB.
    """
    from galore_mem.answers.plan import plan as answer

    if json and csv:
        raise UsageError("--json and --csv exclude each other", "", "leave one of them out")
    if check and not (gpu or budget):
        raise UsageError("--check has nothing to check against", "", "add --gpu NAME or --budget 22GiB")
    if model is None and from_ is None:
        raise UsageError("MODEL is missing", "", "type: galore-mem plan llama-7b --gpu 4090, or give --from FILE")
    result = answer(
        model,
        gpus=gpu,
        methods=method,
        settings=settings,
        other_use=other_use,
        budget=budget,
        from_file=from_,
        exact=exact,
    )
    for note in result.notes:
        streams.narrate(f"note: {note}")
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text(result.to_dict()))
    elif csv:
        from galore_mem.render.documents import csv_text
        from galore_mem.render.plan_rows import plan_rows

        streams.write(csv_text(plan_rows(result)))
    else:
        from galore_mem.render.plan import print_plan

        print_plan(result)
        if result.written is not None:
            from galore_mem.render.written import print_written

            print_written(result.written)
    says_no = (check and not result.all_fit) or not result.within_budget
    return ExitCode.CHECK_FAILED if says_no else ExitCode.ANSWERED
