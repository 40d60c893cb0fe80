"""A LLaMA-Factory YAML or JSON: TrainingArguments with arguments of its own.

Defaults and behaviour: src/llamafactory/hparams/*_args.py, model/adapter.py (`init_adapter`: what is trained is upcast
to fp32 unless pure_bf16), model/model_utils/checkpointing.py (layers are checkpointed unless that is disabled), and
train/trainer_utils.py (`_create_galore_optimizer`).
"""

from typing import Any

from galore_mem.answers.written import habits
from galore_mem.answers.written.keys import Keys
from galore_mem.answers.written.optimizers import TRAINER_DEFAULT, optimizer
from galore_mem.answers.written.run import WrittenRun, written_run
from galore_mem.answers.written.trainer import attention

TOOL = "LLaMA-Factory"
SIGNS = ("finetuning_type", "stage", "cutoff_len", "template", "use_galore", "pure_bf16", "lora_target", "dataset_dir")
CUTOFF_LEN, LORA_RANK, GALORE_RANK = 2048, 8, 16
_GALORE = {
    "adamw_torch": "galore-adamw",
    "adamw_bnb_8bit": "galore-adamw-8bit",
    "adamw_8bit": "galore-adamw-8bit",
    "paged_adamw_8bit": "galore-adamw-8bit",
    "adafactor": "galore-adafactor",
}
_OTHER_OPTIMIZERS = ("use_apollo", "use_badam", "use_adam_mini", "use_muon", "use_llama_pro", "use_dft_loss")
_ATTENTION = {"auto": "auto", "disabled": "eager", "sdpa": "auto", "fa2": "flash"}


def read(content: dict[str, Any], file: str) -> WrittenRun:
    """The run that LLaMA-Factory would make of it.

    Raises:
        UsageError: a key that cannot be planned.
    """
    keys = Keys(content, file)
    _refuse(keys)
    kind = keys.text("finetuning_type", "lora")
    words: dict[str, Any] = {"zero_grad": "end", **habits.batch(keys, "per_device_train_batch_size", 8)}
    words["seq"] = keys.whole("cutoff_len", CUTOFF_LEN)
    keys.means("cutoff_len", f"--seq {words['seq']}")
    if kind == "lora":
        method, more = _lora(keys)
    elif keys.flag("use_galore"):
        method, more = _galore(keys)
    else:
        method, more = optimizer(keys, "optim", TRAINER_DEFAULT)
        keys.means("finetuning_type", "all parameters are trained")
    words |= more
    words |= _precision(keys, kind)
    if _is_four_bit(keys):
        method = "qlora"
        words |= habits.four_bit(
            keys, "quantization_bit", "double_quantization", double=True, type_key="quantization_type"
        )
    words |= _checkpointing(keys)
    words |= attention(keys, "flash_attn", _ATTENTION)
    words |= habits.liger(keys, "enable_liger_kernel")
    _padding(keys, words)
    words |= habits.clipping(keys, words)
    evaluates = (keys.number("val_size", 0.0) > 0 or bool(keys.raw("eval_dataset"))) and habits.strategy(keys)
    words |= habits.evaluation(keys, "per_device_eval_batch_size", 8, runs=evaluates)
    words |= habits.emptied_cache(keys, "torch_empty_cache_steps", "backward")
    words |= habits.resumed(keys, "resume_from_checkpoint")
    words |= habits.data_parallel(keys)
    habits.not_modelled(keys)
    return written_run(keys, file=file, tool=TOOL, model=keys.text("model_name_or_path"), method=method, words=words)


def _refuse(keys: Keys) -> None:
    if keys.text("stage", "sft") not in ("pt", "sft"):
        keys.refuse("stage", "plans cover pt and sft, where one model learns next tokens", "plan stage sft instead")
    if keys.text("finetuning_type", "lora") not in ("lora", "full"):
        keys.refuse("finetuning_type", "plans cover full and lora", "plan one of them instead")
    if not _is_four_bit(keys):
        habits.refuse_quantised(keys, "quantization_bit", "quantization_method")
    elif keys.text("finetuning_type", "lora") != "lora":
        keys.refuse("quantization_bit", "quantised weights can only be used for LoRA", "set finetuning_type: lora")
    for key in _OTHER_OPTIMIZERS:
        if keys.flag(key):
            keys.refuse(key, "its memory is not covered", "plan without it")
    if keys.flag("use_unsloth") or keys.flag("use_unsloth_gc"):
        keys.note("unsloth's kernels save fewer activations than planned; the plan is above the run")


def _lora(keys: Keys) -> tuple[str, dict[str, Any]]:
    targets = keys.texts("lora_target") or ("all",)
    if targets == ("all",):
        targets = ("all-linear",)
    method, kernel = optimizer(keys, "optim", TRAINER_DEFAULT, of_adapters=True)
    if method != "adamw":
        keys.note(f"LoRA is planned with AdamW, not {method}: its states are those of the adapters only")
    for name in ("use_dora", "additional_target", "pissa_init"):
        if keys.raw(name):
            keys.note(f"{name} is not planned: what it adds comes on top")
    words = habits.adapters(keys, keys.whole("lora_rank", LORA_RANK), "lora_rank", targets, "lora_target")
    return "lora", {**(kernel if method == "adamw" else {}), **words}


def _galore(keys: Keys) -> tuple[str, dict[str, Any]]:
    name = keys.text("optim", "adamw_torch")
    if name not in _GALORE:
        keys.refuse("optim", f"with use_galore LLaMA-Factory takes {', '.join(_GALORE)}", "set optim: adamw_torch")
    if "optim" not in keys:
        keys.note(
            "optim: planned as adamw_torch; where transformers' default is adamw_torch_fused, GaLore refuses to start"
        )
    method = _GALORE[name]
    targets = keys.texts("galore_target") or ("all",)
    words: dict[str, Any] = {
        "implementation": "galore-torch",
        "rank": keys.whole("galore_rank", GALORE_RANK),
        "update_proj_gap": keys.whole("galore_update_interval", 200),
        "scale": keys.number("galore_scale", 2.0),
        "proj_type": keys.text("galore_proj_type", "std"),
        "target_modules": ("all-linear",) if targets == ("all",) else targets,
    }
    keys.means("use_galore", f"--method {method} --implementation galore-torch")
    keys.means("galore_rank", f"--rank {words['rank']}")
    keys.means("galore_target", f"--target-modules {' '.join(words['target_modules'])}")
    for key, option in (
        ("galore_update_interval", "update_proj_gap"),
        ("galore_scale", "scale"),
        ("galore_proj_type", "proj_type"),
    ):
        if key in keys:
            keys.means(key, f"--{option.replace('_', '-')} {words[option]}")
    if keys.flag("galore_layerwise"):
        keys.means("galore_layerwise", "--update per-layer")
        words["update"] = "per-layer"
    return method, words


def _is_four_bit(keys: Keys) -> bool:
    """Quantised by bitsandbytes as the model is loaded (model/model_utils/quantization.py)."""
    return keys.text("quantization_bit") == "4" and keys.text("quantization_method", "bnb") in ("bnb", "bitsandbytes")


def _precision(keys: Keys, kind: str) -> dict[str, object]:
    """What is trained is upcast to fp32 and runs under autocast, unless pure_bf16."""
    if keys.flag("pure_bf16"):
        keys.means("pure_bf16", "--precision bf16")
        return {"precision": "bf16"}
    mixed = "bf16" if keys.flag("bf16") else "fp16" if keys.flag("fp16") else ""
    if kind == "lora":
        under = " --autocast" * bool(mixed)
        keys.means(mixed or "bf16", f"--precision bf16{under}: frozen weights in half precision, adapters in fp32")
        return {"precision": "bf16", "autocast": bool(mixed)}
    precision = f"amp-{mixed}" if mixed else "fp32"
    keys.means(mixed or "bf16", f"--precision {precision}: without pure_bf16 what is trained is upcast to fp32")
    return {"precision": precision}


def _checkpointing(keys: Keys) -> dict[str, str]:
    off = keys.flag("disable_gradient_checkpointing")
    keys.flag("gradient_checkpointing")
    keys.raw("use_reentrant_gc")
    keys.means("disable_gradient_checkpointing", f"--checkpointing {'none' if off else 'full'}")
    return {"checkpointing": "none" if off else "full"}


def _padding(keys: Keys, words: dict[str, Any]) -> None:
    neat = keys.flag("neat_packing")
    packed = keys.flag("packing") or neat or keys.text("stage", "sft") == "pt"
    if neat and words.get("attention") != "flash":
        words["padding"] = True
        keys.means("neat_packing", "--padding: without fa2 packed rows need a mask")
        keys.note("neat_packing: LLaMA-Factory's mask takes 2 bytes for each pair of tokens in bf16, the planned one 1")
    elif not packed and words["batch"] > 1 and words.get("attention", "auto") == "auto":
        words["padding"] = True
        keys.means("packing", "--padding: sequences of a micro-batch differ in length")
