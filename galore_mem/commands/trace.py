"""`galore-mem trace`."""

import os

from galore_mem import streams
from galore_mem.answers.settings import Settings
from galore_mem.commands.pages import check_outputs, write_report
from galore_mem.errors import UsageError

DEFAULT_RUN = Settings()


def trace(
    model: str | None = None,
    /,
    *,
    gpu: tuple[str, ...] = (),
    method: tuple[str, ...] = (),
    other_use: str | None = None,
    from_: str | None = None,
    settings: Settings = DEFAULT_RUN,
    lengths: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    tape: str | None = None,
    snapshot: str | None = None,
    report: str | None = None,
    force: bool = False,
    json: bool = False,
) -> None:
    """Run the real model class and optimizer on fake tensors, and see what a GPU would hold: no GPU, no weights.

    Args:
        model: A name of `galore-mem models`, the path of a config.json or its folder, or org/name on the Hub.
        gpu: Names of `galore-mem gpus`; the first decides attention kernel and workspaces.
        method: One name of `galore-mem methods`.
        other_use: What others take from each card, such as 800MiB.
        from_: What another tool trains by: transformers' TrainingArguments, axolotl's or LLaMA-Factory's YAML.
        settings: Everything else about the run.
        lengths: Lengths that differ from step to step: LOW:HIGH in tokens, or one per step (128,120,128).
        steps: How many steps to trace; 8 with --lengths.
        seed: Of the lengths that are drawn, and of the orders that are tried.
        tape: Write the history as a Tape: galore-mem replay and report read it.
        snapshot: Write the predicted history as a pickle that pytorch.org/memory_viz opens.
        report: Write the answer as one HTML page that needs no network.
        force: Replace files that exist.
        json: One JSON object on stdout, sizes in bytes.
    """
    from galore_mem.answers.trace import trace as answer
    from galore_mem.interrupts import kept
    from galore_mem.render.progress import progress

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its advice on training is not asked for
    if len(method) > 1:
        raise UsageError("a trace takes one --method", "", "name one, or compare several with galore-mem plan")
    check_outputs(tape, snapshot, report, force=force)
    with kept(), progress() as told:
        result = answer(
            model,
            gpus=gpu,
            method=method[0] if method else None,
            from_file=from_,
            settings=settings,
            other_use=other_use,
            lengths=lengths,
            steps=steps,
            seed=seed,
            told=told,
        )
    for note in result.notes:
        streams.narrate(f"note: {note}")
    if tape is not None:
        from galore_mem.tapes.file import write_tape

        write_tape(tape, result.tape)
        streams.narrate(f"wrote {tape}")
    if snapshot is not None:
        from galore_mem.answers.snapshot import write_predicted

        write_predicted(snapshot, result.tape)
        streams.narrate(f"wrote {snapshot}")
    if report is not None:
        write_report(report, result.tape, cards=gpu, other_use=other_use)
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text(result.to_dict()))
    else:
        from galore_mem.render.trace import print_trace

        print_trace(result)
    if result.written is not None and not json:
        from galore_mem.render.written import print_written

        print_written(result.written)
