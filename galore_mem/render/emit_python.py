"""A recommended run as a Python script: this package's optimizer, and libraries for everything else."""

from collections.abc import Iterator
from textwrap import wrap

from estimators.workload import Method, Workload
from galore_mem.answers.fit import CardResult, FitResult
from galore_mem.answers.reasons import describe, missing
from galore_mem.errors import UsageError
from galore_mem.render import words
from galore_mem.render.emit_quantised import adapters, from_peft, load_dtype, preparation, quantisation
from galore_mem.render.emit_settings import ATTENTION, WIDTH, allocator, attention
from galore_mem.training.heads import AUTO_CLASSES, trained_head

_DTYPES = {"bf16": "torch.bfloat16", "fp32": "torch.float32", "amp-bf16": "torch.float32", "amp-fp16": "torch.float32"}


def python_script(result: FitResult) -> str:
    """The script; it runs as it is, on random tokens, until it is given real ones.

    Raises:
        UsageError: nothing fits, or the method has no implementation that people install.
    """
    best = result.best
    workload = recommended(best)
    if workload.method.parameterisation in ("relora", "low-rank"):
        raise UsageError(
            f"{workload.method.name} has no library to write a script for",
            "people implement it in their own model",
            "choose another --method, for instance lora",
        )
    if workload.padding:
        raise UsageError("--emit python writes runs without padding", "its batches are full", "leave out --padding")
    return "\n".join([*_head(result, best, workload), *_body(workload)]) + "\n"


def recommended(best: CardResult) -> Workload:
    """The recommended workload.

    Raises:
        UsageError: nothing fits.
    """
    if best.recommended is None:
        short = missing(best.near_misses[0]) if best.near_misses else "an unknown size"
        raise UsageError(
            f"there is no run to write: nothing fits {best.card.gpu.name}",
            f"what comes nearest misses by {short}",
            "name a larger --gpu, or loosen a constraint",
        )
    return best.recommended.option.workload


def auto_class(workload: Workload) -> str:
    """The class of transformers that loads the model with the head that is planned."""
    return AUTO_CLASSES[trained_head(workload.model)]


def _labels(workload: Workload) -> str:
    """Targets of the planned head: a class of each sequence, or the tokens themselves."""
    classifies = trained_head(workload.model) == "classification"
    return "torch.randint(0, model.config.num_labels, (len(ids),), device=device)" if classifies else "ids"


def _head(result: FitResult, best: CardResult, workload: Workload) -> Iterator[str]:
    found = best.recommended
    assert found is not None
    yield from wrap(f'"""Train {_literal(result.model.shape.name)}: {describe(workload)}.', WIDTH)
    yield ""
    yield f"Planned for {best.card.gpu.name}: the process takes {words.gib(found.footprint.process_bytes)} GiB, at most"
    yield f"{words.gib(found.footprint.upper_bytes)} of {words.gib(found.option.usable_bytes)} GiB."
    yield '"""'
    yield ""


def _literal(name: str) -> str:
    """A name from outside, with nothing in it that could end a docstring."""
    return "".join(character for character in name if character.isalnum() or character in "-._/ ")


def _body(workload: Workload) -> Iterator[str]:
    batch = workload.batch
    yield from _imports(workload)
    yield ""
    yield "parser = argparse.ArgumentParser()"
    yield 'parser.add_argument("model", help="a folder or a Hugging Face name")'
    yield 'parser.add_argument("--steps", type=int, default=1000)'
    yield "arguments = parser.parse_args()"
    yield 'device = "cuda" if torch.cuda.is_available() else "cpu"'
    yield ""
    yield from attention(workload)
    kernel = ATTENTION[workload.attention]
    quantised = workload.method.quantised
    if quantised:
        yield from quantisation(workload)
    yield f"model = {auto_class(workload)}.from_pretrained("
    dtype = load_dtype(workload) if quantised else _DTYPES[workload.precision]
    yield f"    arguments.model, dtype={dtype}, attn_implementation={kernel!r}, use_safetensors=True,"
    if quantised:
        yield "    quantization_config=quantization, device_map={'': device},"
        yield ")"
        yield from preparation(workload)
    else:
        yield ").to(device)"
    yield "model.train()"
    yield "model.config.use_cache = False"
    if workload.checkpointing == "full":
        yield "# transformers renamed gradient_checkpointing_enable."
        yield 'enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable'
        yield 'enable({"use_reentrant": False})'
        if workload.method.parameterisation == "lora":
            yield "model.enable_input_require_grads()"
    yield from _optimizer(workload)
    if workload.precision == "amp-fp16":
        yield "scaler = torch.amp.GradScaler(device)"
    yield ""
    yield ""
    yield "def batches():"
    yield '    """Yours to replace: token ids, one micro-batch at a time."""'
    yield "    while True:"
    size = f"({batch.micro_batch_size}, {batch.sequence_length})"
    yield f"        yield torch.randint(0, model.config.vocab_size, {size}, device=device)"
    yield ""
    if workload.loss == "chunked":
        yield from _chunked_loss()
    yield ""
    yield from _loop(workload)


def _imports(workload: Workload) -> Iterator[str]:
    method = workload.method
    yield "import argparse"
    yield from allocator(workload) if workload.allocator_settings else [""]
    yield "import torch"
    if method.name in _BITSANDBYTES:
        yield f"from bitsandbytes.optim import {_BITSANDBYTES[method.name]}"
    if method.parameterisation == "lora":
        yield from_peft(workload)
    if workload.loss == "chunked":
        yield "from torch.utils.checkpoint import checkpoint"
    if method.states_on == "host":
        yield "from torchao.optim import CPUOffloadOptimizer"
    yield f"from transformers import {auto_class(workload)}{', BitsAndBytesConfig' * method.quantised}"
    if method.optimizer == "adafactor" and method.parameterisation == "full":
        yield "from transformers.optimization import Adafactor"
    if method.parameterisation == "galore":
        names = [*_GALORE[method.optimizer], *(["PerLayer"] if method.update == "per-layer" else [])]
        yield ""
        yield f"from galore_mem.optim import {', '.join(names)}, galore_param_groups"


_GALORE = {"adamw": ("GaLoreAdamW",), "adamw-8bit": ("GaLoreAdamW8bit",), "adafactor": ("GaLoreAdafactor",)}
_BITSANDBYTES = {
    "adamw-8bit": "AdamW8bit",
    "paged-adamw-8bit": "PagedAdamW8bit",
    "paged-adamw-32bit": "PagedAdamW32bit",
}
_PLAIN = {
    **{name: f"{constructor}({{}}, lr=1e-4)" for name, constructor in _BITSANDBYTES.items()},
    "offload-adamw": "CPUOffloadOptimizer({}, torch.optim.AdamW, lr=1e-4)",
    "adamw": "torch.optim.AdamW({}, lr=1e-4{})",
    "adafactor": "Adafactor({}, lr=1e-4, scale_parameter=False, relative_step=False)",
    "sgd": "torch.optim.SGD({}, lr=1e-4{})",
    "sgd-momentum": "torch.optim.SGD({}, lr=1e-4, momentum=0.9{})",
}


def _optimizer(workload: Workload) -> Iterator[str]:
    method = workload.method
    if method.parameterisation == "galore":
        target = "all-linear" if method.target_modules == ("all-linear",) else list(method.target_modules)
        yield "groups = galore_param_groups("
        yield f"    model, target_modules={target!r}, rank={method.rank}, update_proj_gap={method.update_proj_gap},"
        yield f"    scale={method.scale}, proj_type={method.proj_type!r},"
        yield ")"
        yield f"optimizer = {_GALORE[method.optimizer][0]}(groups, lr=1e-3)"
        if method.update == "per-layer":
            yield f"layers = PerLayer(optimizer, accumulation_steps={workload.batch.gradient_accumulation_steps})"
        return
    if method.parameterisation == "lora":
        yield f"config = {adapters(workload)}"
        yield "model = get_peft_model(model, config)"
    trained = "[p for p in model.parameters() if p.requires_grad]"
    if method.update == "whole":
        yield f"optimizer = {_optimizer_of(method, trained)}"
        return
    yield f"optimizers = {{p: {_optimizer_of(method, '[p]')} for p in model.parameters() if p.requires_grad}}"
    yield ""
    yield ""
    yield "def update(parameter):"
    yield '    """Step a parameter as soon as its gradient is there, and free the gradient."""'
    yield "    optimizers[parameter].step()"
    yield "    optimizers[parameter].zero_grad(set_to_none=True)"
    yield ""
    yield ""
    yield "for parameter in optimizers:"
    yield "    parameter.register_post_accumulate_grad_hook(update)"


def _optimizer_of(method: Method, parameters: str) -> str:
    constructor = _PLAIN.get(method.name) or _PLAIN[method.optimizer]
    return constructor.format(parameters, ", fused=True" if method.optimizer_kernel == "fused" else "")


def _chunked_loss() -> Iterator[str]:
    yield ""
    yield "def chunk_loss(hidden, labels):"
    yield "    logits = model.get_output_embeddings()(hidden).float()"
    yield '    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")'
    yield ""
    yield ""
    yield "def loss_of(ids, chunk_tokens=1024):"
    yield '    """Cross-entropy that never holds the logits of more than a chunk of tokens."""'
    yield "    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)"
    yield "    labels = ids[:, 1:].flatten()"
    yield "    pieces = zip(hidden.split(chunk_tokens), labels.split(chunk_tokens))"
    yield "    return sum(checkpoint(chunk_loss, *piece, use_reentrant=False) for piece in pieces) / labels.numel()"
    yield ""


def _loop(workload: Workload) -> Iterator[str]:
    method, steps = workload.method, workload.batch.gradient_accumulation_steps
    galore_layers = method.parameterisation == "galore" and method.update == "per-layer"
    loss = "loss_of(ids)" if workload.loss == "chunked" else f"model(input_ids=ids, labels={_labels(workload)}).loss"
    if workload.runs_autocast:
        dtype = "torch.float16" if workload.precision == "amp-fp16" else "torch.bfloat16"
        around = [f"        with torch.autocast(device, dtype={dtype}):", f"            loss = {loss}"]
    else:
        around = [f"        loss = {loss}"]
    scaled = "scaler.scale(loss)" if workload.precision == "amp-fp16" else "loss"
    divided = f"({scaled} / {steps})" if steps > 1 else scaled
    yield "data = batches()"
    yield "for step in range(arguments.steps):"
    if method.update == "whole":
        yield "    optimizer.zero_grad(set_to_none=True)"
    yield f"    for _ in range({steps}):"
    yield "        ids = next(data)"
    yield from around
    yield f"        {divided}.backward()"
    if galore_layers:
        yield "        layers.step()"
    if method.update == "whole":
        if workload.precision == "amp-fp16":
            yield "    scaler.step(optimizer)"
            yield "    scaler.update()"
        else:
            yield "    optimizer.step()"
    yield '    print(f"step {step}: loss {loss.item():.3f}")'
