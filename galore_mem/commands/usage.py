"""What is wrong with a command line that does not parse, in one sentence, and where to read on."""

from cyclopts import CycloptsError, MissingArgumentError, UnknownCommandError, UnknownOptionError, UnusedCliTokensError

from profiles.catalogue import find_row


def usage_line(error: CycloptsError) -> str:
    """Say what does not parse, and name the help page."""
    chain = [word for word in error.command_chain or () if not word.startswith("-")]
    return f"{what_is_wrong(error).rstrip()} See: {' '.join(['galore-mem', *chain, '--help'])}"


def what_is_wrong(error: CycloptsError) -> str:
    """What does not parse, in one sentence."""
    error.verbose = False
    if isinstance(error, UnusedCliTokensError):
        return _surplus(error)
    if isinstance(error, UnknownCommandError) and error.unused_tokens and _is_model(error.unused_tokens[0]):
        name = error.unused_tokens[0]
        return f"{name!r} is a model, and no command. Did you mean galore-mem plan {name}?"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        if not name.startswith("--") or error.argument.field_info.is_positional:
            missing = name.lstrip("-").upper()
            line = _LINES.get(next(iter(error.command_chain or ()), ""), "plan llama-7b --gpu 4090")
            return f"{missing} is missing; it comes before the options, as in galore-mem {line}."
        return f"{error.keyword or name} needs a value."
    if isinstance(error, UnknownOptionError):
        return _unknown_option(error)
    said = str(error)
    for typed, nearest, meant in _MEANT:
        if f'Invalid value "{typed}"' in said and f'"{meant}"' in said:
            said = said.replace(f'Did you mean "{nearest}"?', f'Did you mean "{meant}"?')
    return said


def _surplus(error: UnusedCliTokensError) -> str:
    """Words that nothing takes: a second model or card, or one whose option was not named."""
    words = error.unused_tokens or []
    plain = f"Nothing takes {' '.join(words)!r} here; an option may lack its name."
    if not words or not _ABOUT_A_RUN.intersection(error.command_chain or ()):
        return plain
    if find_row("gpus.jsonl", words[0]) is not None:
        if any(token.startswith("--gpu") for token in error.root_input_tokens or ()):
            return f"{words[0]!r} is a second GPU, where one is taken."
        return f"{words[0]!r} is a GPU: did you mean --gpu {words[0]}?"
    return f"{words[0]!r} is a second model, where one is taken." if _is_model(words[0]) else plain


def _is_model(word: str) -> bool:
    return find_row("models.jsonl", word) is not None


def _unknown_option(error: UnknownOptionError) -> str:
    """What the same thing is called here, where other tools' name for it was typed."""
    typed = (error.token.keyword or error.token.value).split("=", 1)[0]
    plain = typed.replace("_", "-").lower()
    if plain in _NOT_PLANNED:
        return f"Unknown option: {typed}. {_NOT_PLANNED[plain]}."
    meant = _CALLED_HERE.get(plain)
    known = {name for argument in error.argument_collection for name in argument.names}
    if meant is None or meant.split()[0] not in known:
        return str(error)
    return f"Unknown option: {typed}. Did you mean {meant}?"


_ABOUT_A_RUN = frozenset({"plan", "fit", "explain", "trace", "profile", "tui"})
"""Commands that take a model, and a GPU by its option."""
_LINES = {"report": "report snapshot.pickle -o page.html", "replay": "replay snapshot.pickle"}
"""What a line with a file looks like."""
_MEANT = (("fp16", "bf16", "amp-fp16"), ("gpu", "cpu", "cuda"), ("gpu", "cpu", "device"))
"""What is typed, what is nearest to it by letters, and what it means where that can be chosen."""
_CALLED_HERE = {
    other: here
    for here, others in {
        "--data-parallel": "--dp --ddp --num-gpus --n-gpus --num-processes --nproc-per-node --world-size",
        "--seq": "--max-seq-length --max-seq-len --max-length --context-length --sequence-len --cutoff-len",
        "--batch": "--per-device-train-batch-size --micro-batch-size",
        "--grad-accumulation": "--gradient-accumulation-steps --accumulation-steps --grad-accum --ga --gas",
        "--checkpointing full": "--gradient-checkpointing --activation-checkpointing --grad-checkpointing",
        "--attention flash": "--flash-attn --flash-attention --flash-attn-2",
        "--eval-batch": "--per-device-eval-batch-size",
        "--precision": "--dtype --torch-dtype --bf16 --fp16",
        "--method": "--optim --optimizer",
        "--method lora": "--lora --peft",
        "--method qlora": "--qlora --load-in-4bit --4bit",
        "--method adamw-8bit": "--8bit --use-8bit-adam",
        "--method offload-adamw": "--offload --cpu-offload --offload-optimizer",
        "--method galore-adamw": "--galore",
        "--rank": "--lora-r --lora-rank --galore-rank --r",
        "--bnb-4bit-use-double-quant": "--use-double-quant --double-quant --double-quantization",
    }.items()
    for other in others.split()
}
"""What transformers, accelerate, torchrun, axolotl and LLaMA-Factory call an option."""
_SHARDED = (
    "Sharded models are not planned: figures are for a whole model on each GPU, copies of it under --data-parallel"
)
_NOT_PLANNED = {
    name: why
    for names, why in (
        ("--fsdp --fsdp2 --hsdp --zero --zero-stage --deepspeed --shard --sharding", _SHARDED),
        ("--tp --tensor-parallel --tensor-parallel-size --pp --pipeline-parallel --cp", _SHARDED),
        ("--compile --torch-compile", "torch.compile is not planned: figures are for eager steps"),
        ("--load-in-8bit", "Weights in 8 bits are not planned; those in 4 bits are: --method qlora"),
    )
    for name in names.split()
}
"""What is asked for and not planned."""
