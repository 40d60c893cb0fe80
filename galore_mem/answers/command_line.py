"""The command line that asks about a workload."""

from collections.abc import Iterator, Sequence
from shlex import quote

from estimators.workload import Batch, Method, Workload


def command_line(command: str, model: str, workload: Workload, gpus: Sequence[str] = ()) -> str:
    """What to type for `workload`: `galore-mem plan llama-7b --gpu 'RTX 4090' --method adamw`.

    Args:
        command: `plan`, `trace` or `profile`.
        model: as a person names it.
        workload: the run; what is left at its default is left out.
        gpus: names of cards.
    """
    words = ["galore-mem", command, model]
    for gpu in gpus:
        words += ["--gpu", gpu]
    return " ".join(quote(word) for word in (*words, *_options(workload)))


def _options(workload: Workload) -> Iterator[str]:
    method, plain = workload.method, Method()
    yield from ("--method", method.name)
    for name in (
        "update",
        "implementation",
        "update_proj_gap",
        "scale",
        "proj_type",
        "optimizer_kernel",
        "quant_blocksize",
    ):
        if getattr(method, name) != getattr(plain, name):
            yield from (_option(name), str(getattr(method, name)))
    if method.rank is not None:
        yield from ("--rank", str(method.rank))
    if method.target_modules != plain.target_modules:
        yield from ("--target-modules", *method.target_modules)
    batch, one = workload.batch, Batch()
    for option, name in _BATCH.items():
        if getattr(batch, name) != getattr(one, name):
            yield from (option, str(getattr(batch, name)))
    usual = Workload(model=workload.model)
    for name in ("precision", "checkpointing", "attention", "loss", "dropout", "zero_grad"):
        if getattr(workload, name) != getattr(usual, name):
            yield from (_option(name), str(getattr(workload, name)))
    for name in ("keep_outputs", "use_cache", "padding", "clip"):
        if getattr(workload, name):
            yield _option(name)
    if workload.allocator_settings:
        yield from ("--alloc-conf", workload.allocator_settings)


_BATCH = {
    "--batch": "micro_batch_size",
    "--seq": "sequence_length",
    "--grad-accumulation": "gradient_accumulation_steps",
}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
