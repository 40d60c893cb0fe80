"""`galore-mem profile`."""

from typing import TYPE_CHECKING, Literal

from galore_mem import streams
from galore_mem.answers.settings import Settings
from galore_mem.commands.pages import check_outputs, write_report
from galore_mem.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from galore_mem.answers.profile import Profile

DEFAULT_RUN = Settings()


def profile(
    model: str | None = None,
    /,
    *,
    device: Literal["cuda", "cpu"] = "cuda",
    steps: int = 3,
    gpu: tuple[str, ...] = (),
    method: tuple[str, ...] = (),
    other_use: str | None = None,
    from_: str | None = None,
    settings: Settings = DEFAULT_RUN,
    tape: str | None = None,
    snapshot: str | None = None,
    report: str | None = None,
    force: bool = False,
    json: bool = False,
) -> int:
    """Run the first training steps for real and see what they held: on this machine's GPU, or on CPU tensors.

    Args:
        model: A name of `galore-mem models`, the path of a config.json or its folder, or org/name on the Hub.
        device: cuda measures on the GPU; cpu runs on CPU tensors and replays their history.
        steps: Training steps; the last of several recomputes projectors.
        gpu: Names of `galore-mem gpus` to compare with.
        method: One name of `galore-mem methods`.
        other_use: What others take from each card, such as 800MiB.
        from_: What another tool trains by: transformers' TrainingArguments, axolotl's or LLaMA-Factory's YAML.
        settings: Everything else about the run.
        tape: Write the history as a Tape: galore-mem replay and report read it.
        snapshot: Write the history as a pickle that pytorch.org/memory_viz opens.
        report: Write the answer as one HTML page that needs no network.
        force: Replace files that exist.
        json: One JSON object on stdout, sizes in bytes.
    """
    from galore_mem.answers.profile import profile as answer
    from galore_mem.interrupts import kept
    from galore_mem.render.live import live

    if len(method) > 1:
        raise UsageError("a profile takes one --method", "", "name one, or compare several with galore-mem plan")
    check_outputs(tape, snapshot, report, force=force)
    with kept(), live(steps) as shown:
        result = answer(
            model,
            device=device,
            steps=steps,
            gpus=gpu,
            method=method[0] if method else None,
            from_file=from_,
            settings=settings,
            other_use=other_use,
            told=shown.told,
            watched=shown.watched,
        )
    for note in result.notes:
        streams.narrate(f"note: {note}")
    if tape is not None:
        from galore_mem.tapes.file import write_tape

        write_tape(tape, result.tape)
        streams.narrate(f"wrote {tape}")
    if snapshot is not None:
        _write_snapshot(snapshot, result)
        streams.narrate(f"wrote {snapshot}")
    if report is not None:
        write_report(report, result.tape, cards=gpu, other_use=other_use)
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text(result.to_dict()))
    else:
        from galore_mem.render.profile import print_profile

        print_profile(result)
    if result.written is not None and not json:
        from galore_mem.render.written import print_written

        print_written(result.written)
    if result.ending == "interrupted":
        written = " and ".join(path for path in (tape, snapshot, report) if path)
        streams.narrate("interrupted" + (f": the history until then is in {written}" if written else ""))
        return ExitCode.INTERRUPTED
    return ExitCode.ANSWERED


def _write_snapshot(path: str, result: "Profile") -> None:
    """A GPU's history as torch wrote it; of CPU tensors, the history that a GPU would have written."""
    if result.snapshot is None:
        from galore_mem.answers.snapshot import write_predicted

        write_predicted(path, result.tape)
        return
    import pickle

    from galore_mem.tapes.atomic import write_bytes

    write_bytes(path, pickle.dumps(result.snapshot, protocol=4))
