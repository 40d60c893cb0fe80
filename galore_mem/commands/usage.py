"""What is wrong with a command line that does not parse, in one sentence, and where to read on."""

from cyclopts import CycloptsError, MissingArgumentError, UnknownOptionError, UnusedCliTokensError


def usage_line(error: CycloptsError) -> str:
    """Say what does not parse, and name the help page."""
    error.verbose = False
    chain = [word for word in error.command_chain or () if not word.startswith("-")]
    return f"{_what(error).rstrip()} See: {' '.join(['galore-mem', *chain, '--help'])}"


def _what(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        words = " ".join(error.unused_tokens or ())
        return f"Nothing takes {words!r} here; an option may lack its name."
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        if not name.startswith("--") or error.argument.field_info.is_positional:
            missing = name.lstrip("-").upper()
            return f"{missing} is missing; it comes before the options, as in galore-mem plan llama-7b --gpu 4090."
        return f"{error.keyword or name} needs a value."
    if isinstance(error, UnknownOptionError):
        return _unknown_option(error)
    said = str(error)
    for typed, nearest, meant in _MEANT:
        if f'Invalid value "{typed}"' in said and f'"{meant}"' in said:
            said = said.replace(f'Did you mean "{nearest}"?', f'Did you mean "{meant}"?')
    return said


def _unknown_option(error: UnknownOptionError) -> str:
    """What the same thing is called here, where other tools' name for it was typed."""
    typed = (error.token.keyword or error.token.value).split("=", 1)[0]
    meant = _CALLED_HERE.get(typed.replace("_", "-").lower())
    known = {name for argument in error.argument_collection for name in argument.names}
    if meant is None or meant.split()[0] not in known:
        return str(error)
    return f"Unknown option: {typed}. Did you mean {meant}?"


_MEANT = (("fp16", "bf16", "amp-fp16"), ("gpu", "cpu", "cuda"), ("gpu", "cpu", "device"))
"""What is typed, what is nearest to it by letters, and what it means where that can be chosen."""
_CALLED_HERE = {
    other: here
    for here, others in {
        "--data-parallel": "--dp --ddp --num-gpus --n-gpus --num-processes --nproc-per-node --world-size",
        "--seq": "--max-seq-length --max-seq-len --max-length --context-length --sequence-len --cutoff-len",
        "--batch": "--per-device-train-batch-size --micro-batch-size",
        "--grad-accumulation": "--gradient-accumulation-steps --accumulation-steps",
        "--eval-batch": "--per-device-eval-batch-size",
        "--precision": "--dtype --torch-dtype --bf16 --fp16",
        "--method": "--optim --optimizer",
        "--method lora": "--lora --peft",
        "--method qlora": "--qlora --load-in-4bit",
        "--method galore-adamw": "--galore",
        "--rank": "--lora-r --lora-rank --galore-rank --r",
        "--bnb-4bit-use-double-quant": "--use-double-quant --double-quant --double-quantization",
    }.items()
    for other in others.split()
}
"""What transformers, accelerate, torchrun, axolotl and LLaMA-Factory call an option."""
