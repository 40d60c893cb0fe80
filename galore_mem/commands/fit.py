"""`galore-mem fit`."""

from typing import TYPE_CHECKING, Literal

from estimators.workload import Attention, Checkpointing, Implementation, Loss, Precision, ProjType, Update
from galore_mem import streams
from galore_mem.errors import UsageError

if TYPE_CHECKING:
    from galore_mem.answers.confirm import Confirmation
    from galore_mem.answers.fit import FitResult


def fit(
    model: str | None = None,
    /,
    *,
    gpu: tuple[str, ...] = (),
    for_: Literal["fidelity", "batch", "sequence", "rank"] = "fidelity",
    method: tuple[str, ...] = (),
    update: Update | None = None,
    rank: int | None = None,
    min_rank: int | None = None,
    proj_type: ProjType = "std",
    target_modules: tuple[str, ...] = ("all-linear",),
    implementation: Implementation = "galore-mem",
    batch: int | None = None,
    seq: int | None = None,
    global_batch: int | None = None,
    precision: Precision = "bf16",
    checkpointing: Checkpointing | None = None,
    no_checkpointing: bool = False,
    attention: Attention | None = None,
    loss: Loss | None = None,
    padding: bool = False,
    alloc_conf: str | None = None,
    data_parallel: int = 1,
    gradient_as_bucket_view: bool | None = None,
    other_use: str | None = None,
    from_: str | None = None,
    emit: Literal["python", "transformers"] | None = None,
    confirm: bool = False,
    json: bool = False,
) -> None:
    """What would make it fit: the configuration to take on a card, what it costs, and what just misses.

    Args:
        model: A name of `galore-mem models`, the path of a config.json or its folder, or org/name on the Hub.
        gpu: Names of `galore-mem gpus`, or local; several are ranked for the job.
        for_: What to have most of among equally faithful methods.
        method: Methods to choose from; all unless given.
        update: whole or per-layer; free unless given.
        rank: Rank of projectors, adapters or factors; free unless given.
        min_rank: The least rank to consider.
        proj_type: GaLore: which side of a matrix is projected.
        target_modules: Parts of module names, or regular expressions.
        implementation: GaLore: ours, or galore_torch 1.0.
        batch: Sequences in a micro-batch; free unless given.
        seq: Tokens in a sequence; 256 unless given.
        global_batch: Sequences in one optimizer step, gathered over micro-batches.
        precision: bf16 and fp32 are pure; amp-* keep fp32 weights under autocast.
        checkpointing: Free unless given.
        no_checkpointing: The same as --checkpointing none.
        attention: auto unless given.
        loss: Free unless given.
        padding: The batch carries a padding mask.
        alloc_conf: Allocator settings, as in PYTORCH_CUDA_ALLOC_CONF; unless given, the default ones, or expandable
            segments where those make more fit.
        data_parallel: GPUs under DistributedDataParallel; figures are those of each, --global-batch is that of all.
        gradient_as_bucket_view: DistributedDataParallel's option; free unless given.
        other_use: What others take from each card, such as 800MiB.
        from_: What another tool trains by; its sequences, batch, precision and attention stay, the rest is looked for.
        emit: Write the recommended run instead, ready to start: a script, or TrainingArguments.
        confirm: Trace the recommended run (needs torch), and lay both answers side by side.
        json: One JSON object on stdout, sizes in bytes.
    """
    from galore_mem.answers.fit import fit as answer
    from galore_mem.answers.wishes import Wishes

    if no_checkpointing and checkpointing == "full":
        raise UsageError("--no-checkpointing and --checkpointing full exclude each other", "", "leave one of them out")
    if json and emit:
        raise UsageError("--json and --emit exclude each other", "", "leave one of them out")
    if confirm and emit:
        raise UsageError("--confirm and --emit exclude each other", "", "confirm first, then emit")
    if emit == "python" and data_parallel > 1:
        raise UsageError(
            f"--emit python with --data-parallel {data_parallel} is not written",
            "the script is one for a single GPU",
            "use --emit transformers, and start it with torchrun",
        )
    wishes = Wishes(
        objective=for_,
        methods=method,
        update=update,
        rank=rank,
        min_rank=min_rank,
        proj_type=proj_type,
        target_modules=target_modules,
        implementation=implementation,
        batch=batch,
        seq=seq,
        global_batch=global_batch,
        precision=precision,
        checkpointing="none" if no_checkpointing else checkpointing,
        attention=attention,
        loss=loss,
        padding=padding,
        alloc_conf=alloc_conf,
        data_parallel=data_parallel,
        gradient_as_bucket_view=gradient_as_bucket_view,
        trainer=emit == "transformers",
    )
    result = answer(model, gpus=gpu, other_use=other_use, wishes=wishes, from_file=from_)
    for note in result.notes:
        streams.narrate(f"note: {note}")
    if emit == "python":
        from galore_mem.render.emit_python import python_script

        streams.write(python_script(result))
    elif emit == "transformers":
        from galore_mem.render.emit_transformers import training_arguments

        streams.write(training_arguments(result))
    else:
        confirmation = _confirmed(result) if confirm else None
        _show(result, confirmation, json)


def _confirmed(result: "FitResult") -> "Confirmation | None":
    from galore_mem.answers.confirm import confirm
    from galore_mem.render.progress import progress

    with progress() as told:
        return confirm(result.best, told)


def _show(result: "FitResult", confirmation: "Confirmation | None", as_json: bool) -> None:
    if as_json:
        from galore_mem.render.documents import json_text

        confirmed = confirmation and confirmation.to_dict()
        streams.write(json_text(result.to_dict() | {"confirmed": confirmed}))
    else:
        from galore_mem.render.fit import print_fit

        print_fit(result, confirmation)
        if result.written is not None:
            from galore_mem.render.written import print_written

            print_written(result.written)
