"""transformers' TrainingArguments as JSON or YAML, with the model and data arguments that scripts keep beside them.

Defaults are those of transformers 5.23 (training_args.py, trainer.py, trainer_optimizer.py).
"""

from typing import Any

from galore_mem.answers.written import habits
from galore_mem.answers.written.keys import Keys
from galore_mem.answers.written.optimizers import TRAINER_DEFAULT, optimizer
from galore_mem.answers.written.run import WrittenRun, written_run

TOOL = "transformers"
SIGNS = (
    "per_device_train_batch_size",
    "output_dir",
    "optim",
    "optim_target_modules",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "num_train_epochs",
    "max_grad_norm",
    "bf16",
    "fp16",
)
"""Keys that a file of TrainingArguments has."""
_LENGTHS = ("max_length", "max_seq_length", "block_size", "model_max_length", "cutoff_len")
"""Where scripts keep the length of sequences: TRL, older TRL, run_clm.py, many others."""
_MODELS = ("model_name_or_path", "model_name", "model_id", "config_name")
_ATTENTION = {"eager": "eager", "sdpa": "auto", "flash_attention_2": "flash", "flash_attention_3": "flash"}


def read(content: dict[str, Any], file: str) -> WrittenRun:
    """The run that a Trainer would make of it.

    Raises:
        UsageError: a key that cannot be planned.
    """
    keys = Keys(content, file)
    habits.refuse_quantised(keys, "load_in_8bit", "quantization_config")
    quantised = keys.flag("load_in_4bit")
    model = next((found for key in _MODELS if (found := keys.text(key))), "")
    words: dict[str, Any] = {"zero_grad": "end", **habits.batch(keys, "per_device_train_batch_size", 8)}
    words |= sequence_length(keys, _LENGTHS)
    is_lora = keys.flag("use_peft")
    method, more = optimizer(keys, "optim", TRAINER_DEFAULT, of_adapters=is_lora)
    words |= more
    words |= _precision(keys, adapters=is_lora and not quantised)
    words |= checkpointing(keys)
    words |= attention(keys, "attn_implementation", _ATTENTION)
    words |= habits.liger(keys, "use_liger_kernel", "use_liger")
    if is_lora:
        method, more = _peft(keys, method)
        words |= more
    if quantised:
        method = "qlora"
        words |= _four_bit(keys, str(words["precision"]), has_adapters=is_lora)
    words |= habits.clipping(keys, words)
    words |= habits.evaluation(keys, "per_device_eval_batch_size", 8, runs=habits.strategy(keys))
    words |= habits.emptied_cache(keys, "torch_empty_cache_steps", "backward")
    words |= habits.resumed(keys, "resume_from_checkpoint")
    words |= habits.data_parallel(keys)
    habits.not_modelled(keys)
    return written_run(keys, file=file, tool=TOOL, model=model, method=method, words=words)


def sequence_length(keys: Keys, names: tuple[str, ...]) -> dict[str, int]:
    """Tokens in one sequence, if any of the keys says."""
    for name in names:
        if name in keys:
            length = keys.whole(name, 1)
            keys.means(name, f"--seq {length}")
            return {"seq": length}
    return {}


def checkpointing(keys: Keys, default: bool = False) -> dict[str, str]:
    """Gradient checkpointing of whole layers."""
    name = "gradient_checkpointing" if "gradient_checkpointing" in keys else "activation_checkpointing"
    on = keys.flag(name, default)
    for key in ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"):
        keys.raw(key)
    if name in keys or on:
        keys.means(name, f"--checkpointing {'full' if on else 'none'}")
    return {"checkpointing": "full" if on else "none"}


def attention(keys: Keys, key: str, known: dict[str, str]) -> dict[str, str]:
    """The attention implementation, where one is named."""
    name = keys.text(key).lower()
    if not name:
        return {}
    if name not in known:
        keys.note(f"{key} {name} is not known; attention is planned as torch's SDPA would choose")
        return {}
    keys.means(key, f"--attention {known[name]}")
    return {"attention": known[name]}


def _precision(keys: Keys, *, adapters: bool) -> dict[str, object]:
    """Weights as they are loaded, and autocast by the flags `bf16` and `fp16`.

    Beside half-precision weights it matters to adapters in fp32 only.
    """
    key = "torch_dtype" if "torch_dtype" in keys else "dtype"
    weights = keys.text(key).removeprefix("torch.").lower()
    mixed = "bf16" if keys.flag("bf16") else "fp16" if keys.flag("fp16") else ""
    if weights in ("float32", "fp32"):
        precision = f"amp-{mixed}" if mixed else "fp32"
        keys.means(key, f"--precision {precision}")
        return {"precision": precision}
    if not weights or weights == "auto":
        older = f"amp-{mixed}" if mixed else "fp32"
        keys.note(
            "the file does not say in which dtype weights are loaded: planned as transformers 5 does, in the "
            f"checkpoint's, taken for bf16. transformers 4 loaded fp32: for it add --precision {older}"
        )
    elif weights in ("float16", "fp16", "half"):
        keys.note("fp16 weights are planned with the sizes of bf16, which are the same")
    autocast = adapters and bool(mixed)
    if weights:
        keys.means(key, "--precision bf16")
    if autocast or not weights:
        keys.means(mixed or "dtype", ("--precision bf16" * (not weights) + " --autocast" * autocast).strip())
    return {"precision": "bf16", "autocast": autocast}


def _four_bit(keys: Keys, precision: str, *, has_adapters: bool) -> dict[str, object]:
    """TRL's: its SFTTrainer makes adapters beside quantised weights bf16, so that autocast has nothing to cast.

    `get_quantization_config` (trl/trainer/utils.py) takes the dtype of the weights as the compute dtype.
    """
    if not has_adapters:
        keys.refuse("load_in_4bit", "nothing trains beside weights in four bits but adapters", "add use_peft: true")
    if precision != "bf16":
        keys.refuse("load_in_4bit", "beside it weights are planned in half precision only", "set dtype: bfloat16")
    keys.raw("bnb_4bit_quant_storage")
    words = habits.four_bit(keys, "load_in_4bit", "use_bnb_nested_quant", double=False, type_key="bnb_4bit_quant_type")
    keys.note("adapters are planned in bf16, as TRL's SFTTrainer leaves them beside quantised weights")
    return words | {"adapter_dtype": "bf16"}


def _peft(keys: Keys, method: str) -> tuple[str, dict[str, Any]]:
    """TRL's ModelConfig."""
    if method != "adamw":
        keys.note(f"LoRA is planned with AdamW, not {method}: its states are those of the adapters only")
    targets = keys.texts("lora_target_modules") or ("q_proj", "v_proj")
    if targets == ("all-linear",) or "all-linear" in targets:
        targets = ("all-linear",)
    return "lora", habits.adapters(keys, keys.whole("lora_r", 16), "lora_r", targets, "lora_target_modules")
