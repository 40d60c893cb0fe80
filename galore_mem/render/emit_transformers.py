"""A recommended run as `TrainingArguments`, for what transformers' Trainer can run."""

from collections.abc import Iterator
from textwrap import wrap

from estimators.workload import Workload
from galore_mem.answers.fit import CardResult, FitResult
from galore_mem.answers.reasons import describe
from galore_mem.answers.sizes import tokens_of
from galore_mem.errors import UsageError
from galore_mem.render import words
from galore_mem.render.emit_python import auto_class, recommended
from galore_mem.render.emit_quantised import adapters, from_peft, load_dtype, preparation, quantisation
from galore_mem.render.emit_settings import ATTENTION, WIDTH, allocator, attention

_PLAIN = {  # each with the kernel that a search for the Trainer takes
    "adamw": "adamw_torch_fused",
    "adamw-8bit": "adamw_bnb_8bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
    "paged-adamw-32bit": "paged_adamw_32bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "lora": "adamw_torch_fused",
    "qlora": "adamw_torch_fused",
}
_GALORE = {
    "galore-adamw": "galore_adamw",
    "galore-adamw-8bit": "galore_adamw_8bit",
    "galore-adafactor": "galore_adafactor",
}


def training_arguments(result: FitResult) -> str:
    """Python that makes `arguments`, a transformers.TrainingArguments.

    Raises:
        UsageError: nothing fits, or transformers has no such optimizer.
    """
    best = result.best
    workload = recommended(best)
    name = workload.method.name
    if name not in {**_PLAIN, **_GALORE}:
        raise UsageError(f"transformers' Trainer has no {name}", "", "write a script instead: --emit python")
    if workload.method.update == "per-layer" and name not in _GALORE:
        raise UsageError(f"transformers' Trainer has no per-layer {name}", "", "write a script instead: --emit python")
    return "\n".join([*_head(best, workload), *_arguments(workload), ")"]) + "\n"


def _head(best: CardResult, workload: Workload) -> Iterator[str]:
    found = best.recommended
    assert found is not None
    size = f"{words.gib(found.footprint.process_bytes)} GiB, at most {words.gib(found.footprint.upper_bytes)}."
    planned = f"{describe(workload)}, planned for {best.card.gpu.name}: the process takes {size}"
    yield from (f"# {line}" for line in wrap(planned, WIDTH - 2))
    if workload.data_parallel > 1:
        yield f"# Start the script with torchrun --nproc_per_node {workload.data_parallel}."
    if workload.method.name in _GALORE:
        yield "# Trainer's GaLore is galore_torch, and is planned as such; this package's is leaner: --emit python,"
        yield "# or Trainer(optimizers=(optimizer, None)) with an optimizer made as that script makes it."
    if workload.method.name == "lora":
        yield "# Before, with peft: model = get_peft_model(model, adapters), where adapters is"
        yield f"# {adapters(workload)}."
    if workload.method.quantised:
        yield "# quantization and adapters belong to the model:"
        yield f"# model = {auto_class(workload)}.from_pretrained(..., dtype={load_dtype(workload)},"
        yield "#     quantization_config=quantization)"
        yield from (f"# {line}" for line in preparation(workload))
        yield "# model = get_peft_model(model, adapters)"
        yield f"# Sequences of {tokens_of(workload.batch.sequence_length)} are the data collator's business."
        yield from allocator(workload)
        yield "import torch"
        yield from_peft(workload)
        yield f"from transformers import {auto_class(workload)}, BitsAndBytesConfig, TrainingArguments"
        yield ""
        yield from attention(workload)
        yield from quantisation(workload)
        yield f"adapters = {adapters(workload)}"
        return
    dtype = "torch.bfloat16" if workload.precision == "bf16" else "torch.float32"
    kernel = "" if workload.attention == "auto" else f", attn_implementation={ATTENTION[workload.attention]!r}"
    yield f"# Load the model as {auto_class(workload)} with dtype={dtype}{kernel};"
    yield f"# sequences of {tokens_of(workload.batch.sequence_length)} are the data collator's business."
    yield from allocator(workload)
    switches = [*attention(workload)]
    if switches:
        yield "import torch"
    yield "from transformers import TrainingArguments"
    yield ""
    if switches:
        yield from [*switches, ""]


def _arguments(workload: Workload) -> Iterator[str]:
    method, batch = workload.method, workload.batch
    yield "arguments = TrainingArguments("
    yield '    output_dir="out",'
    yield f"    per_device_train_batch_size={batch.micro_batch_size},"
    per_layer = method.name in _GALORE and method.update == "per-layer"
    yield f"    gradient_accumulation_steps={batch.gradient_accumulation_steps},"
    if workload.checkpointing == "full":
        yield "    gradient_checkpointing=True,"
        yield '    gradient_checkpointing_kwargs={"use_reentrant": False},'
    if workload.runs_autocast and workload.precision != "amp-fp16":
        yield "    bf16=True,"
    if workload.precision == "amp-fp16":
        yield "    fp16=True,"
    if method.name in _GALORE:
        yield f'    optim="{_GALORE[method.name]}{"_layerwise" if per_layer else ""}",'
        targets = [".*attn.*", ".*mlp.*"] if method.target_modules == ("all-linear",) else list(method.target_modules)
        yield f"    optim_target_modules={targets!r},"
        settings = f"rank={method.rank},update_proj_gap={method.update_proj_gap},scale={method.scale}"
        yield f'    optim_args="{settings},proj_type={method.proj_type}",'
    else:
        yield f'    optim="{_PLAIN[method.name]}",'
