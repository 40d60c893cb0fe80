"""An axolotl YAML. Defaults are those of its schemas (src/axolotl/utils/schemas/{config,training,peft,model}.py)."""

from typing import Any

from galore_mem.answers.written import habits
from galore_mem.answers.written.keys import Keys
from galore_mem.answers.written.optimizers import TRAINER_DEFAULT, optimizer
from galore_mem.answers.written.run import WrittenRun, written_run
from galore_mem.answers.written.trainer import attention

TOOL = "axolotl"
SIGNS = ("base_model", "sequence_len", "micro_batch_size", "sample_packing", "adapter")
SEQUENCE_LEN, MICRO_BATCH_SIZE = 512, 1
"""Its defaults."""
_KERNELS = (
    "flash_attn_rms_norm",
    "flash_attn_fuse_mlp",
    "flash_attn_cross_entropy",
    "liger_rms_norm",
    "liger_glu_activation",
    "liger_swiglu",
    "liger_layer_norm",
    "lora_mlp_kernel",
    "lora_qkv_kernel",
    "lora_o_kernel",
    "unsloth_lora_mlp",
    "unsloth_rms_norm",
)
"""Fused kernels that save less than transformers' own code."""


def read(content: dict[str, Any], file: str) -> WrittenRun:
    """The run that axolotl would make of it.

    Raises:
        UsageError: a key that cannot be planned.
    """
    keys = Keys(content, file)
    model = keys.text("base_model")
    if not model:
        keys.refuse("base_model", "axolotl needs it", "")
    _refuse(keys)
    words: dict[str, Any] = {"zero_grad": "end", **habits.batch(keys, "micro_batch_size", MICRO_BATCH_SIZE)}
    words["seq"] = keys.whole("sequence_len", SEQUENCE_LEN)
    keys.means("sequence_len", f"--seq {words['seq']}")
    quantised = keys.text("adapter") == "qlora"
    is_lora = quantised or keys.text("adapter") == "lora"
    method, more = optimizer(keys, "optimizer", TRAINER_DEFAULT, of_adapters=is_lora)
    if is_lora:
        method, more = _lora(keys, more, method)
    words |= more
    words |= _precision(keys, adapters=is_lora)
    if quantised:
        method = "qlora"
        words |= _four_bit(keys, str(words["precision"]))
    words |= _attention(keys)
    words |= _checkpointing(keys)
    words |= _loss(keys)
    _padding(keys, words)
    _embeddings(keys, words, method)
    words |= habits.clipping(keys, words)
    evaluates = keys.number("val_set_size", 0.0) > 0 or bool(keys.raw("test_datasets"))
    words |= habits.evaluation(keys, "eval_batch_size", words["batch"], runs=evaluates and _has_strategy(keys))
    words |= habits.emptied_cache(keys, "gc_steps", "step")
    words |= habits.resumed(keys, "resume_from_checkpoint", "auto_resume_from_checkpoints")
    words |= habits.data_parallel(keys)
    habits.not_modelled(keys)
    return written_run(keys, file=file, tool=TOOL, model=model, method=method, words=words)


def _has_strategy(keys: Keys) -> bool:
    """With data to evaluate on, axolotl evaluates at the end of each epoch unless told otherwise."""
    return keys.text("eval_strategy", "epoch").lower() not in ("no", "false")


def _refuse(keys: Keys) -> None:
    if keys.text("adapter") not in ("", "lora", "qlora"):
        keys.refuse("adapter", "plans cover lora and qlora", "plan it with one of them")
    others = ("load_in_8bit", "gptq", "quantization", "quantize")
    habits.refuse_quantised(keys, *others, *(() if keys.text("adapter") == "qlora" else ("load_in_4bit",)))
    for key in ("rl", "reward_model", "process_reward_model"):
        if key in keys and keys.raw(key):
            keys.refuse(key, "only training on next tokens is planned", "plan the fine-tuning before it")
    if "unfrozen_parameters" in keys:
        keys.refuse("unfrozen_parameters", "freezing parts of a model is not planned", "")


def _lora(keys: Keys, more: dict[str, Any], method: str) -> tuple[str, dict[str, Any]]:
    if method != "adamw":
        keys.note(f"LoRA is planned with AdamW, not {method}: its states are those of the adapters only")
    targets = keys.texts("lora_target_modules")
    key = "lora_target_modules"
    if keys.flag("lora_target_linear"):
        targets, key = ("all-linear",), "lora_target_linear"
    if not targets:
        keys.refuse("lora_target_modules", "axolotl needs it, or lora_target_linear: true", "")
    for name in ("lora_modules_to_save", "lora_embedding_A", "peft_use_dora"):
        if keys.raw(name):
            keys.note(f"{name} is not planned: what it trains besides comes on top")
    words = habits.adapters(keys, keys.whole("lora_r", 8), "lora_r", targets, key)
    if keys.flag("relora") or "relora_steps" in keys:
        keys.note("relora in axolotl trains adapters only and merges them now and then: planned as lora")
    kernel = {name: value for name, value in more.items() if name == "optimizer_kernel"}
    return "lora", {**kernel, **words}


def _four_bit(keys: Keys, precision: str) -> dict[str, object]:
    """`_set_quantization_config` (src/axolotl/loaders/model.py), which quantises scales whatever the file says.

    Norms and embeddings are back in the dtype of training when it is done (`_configure_embedding_dtypes`).
    """
    if not keys.flag("load_in_4bit"):
        keys.refuse("load_in_4bit", "adapter: qlora needs it", "set load_in_4bit: true")
    if precision != "bf16":
        keys.refuse("adapter", "with it weights are planned in half precision only", "set bf16: true")
    if keys.raw("bnb_config_kwargs"):
        keys.note("bnb_config_kwargs: planned as NF4 with quantised scales, axolotl's default")
    return habits.four_bit(keys, "load_in_4bit", "bnb_4bit_use_double_quant", double=True)


def _precision(keys: Keys, *, adapters: bool) -> dict[str, object]:
    """Weights are cast to bf16 where the card has it, and trained under autocast of the same dtype.

    Autocast matters to adapters only, which are fp32. `bf16: full` is without it.
    """
    bf16 = keys.raw("bf16")
    if keys.flag("float32"):
        keys.means("float32", "--precision fp32")
        return {"precision": "fp32"}
    autocast = adapters and bf16 != "full"
    meaning = "--precision bf16" + " --autocast" * autocast
    if keys.flag("fp16") or keys.flag("float16"):
        keys.means("fp16" if "fp16" in keys else "float16", meaning)
        keys.note("fp16 weights are planned with the sizes of bf16, which are the same")
        return {"precision": "bf16", "autocast": autocast}
    if bf16 in (None, "auto", True, "true", "full") or keys.flag("bfloat16"):
        keys.means("bf16", meaning)
        return {"precision": "bf16", "autocast": autocast}
    keys.means("bf16", "--precision fp32")
    return {"precision": "fp32"}


def _attention(keys: Keys) -> dict[str, str]:
    named = attention(keys, "attn_implementation", {"flash_attention_2": "flash", "sdpa": "auto", "eager": "eager"})
    found = named or {}
    for key, kernel in (
        ("flash_attention", "flash"),
        ("eager_attention", "eager"),
        ("xformers_attention", "efficient"),
    ):
        if keys.flag(key) and not found:
            keys.means(key, f"--attention {kernel}")
            found = {"attention": kernel}
    keys.flag("sdp_attention")
    return found


def _checkpointing(keys: Keys) -> dict[str, str]:
    value = keys.raw("gradient_checkpointing")
    keys.raw("gradient_checkpointing_kwargs")
    if isinstance(value, str) and value.lower() not in ("true", "false"):
        keys.note(
            f"gradient_checkpointing {value} moves what layers keep to the host: the plan, which keeps it, is above it"
        )
    on = bool(value) and str(value).lower() != "false"
    if value is not None:
        keys.means("gradient_checkpointing", f"--checkpointing {'full' if on else 'none'}")
    return {"checkpointing": "full" if on else "none"}


def _loss(keys: Keys) -> dict[str, str]:
    for key in (
        "cut_cross_entropy",
        "liger_fused_linear_cross_entropy",
        "chunked_cross_entropy",
        "unsloth_cross_entropy_loss",
    ):
        if keys.flag(key):
            keys.means(key, "--loss chunked")
            return {"loss": "chunked", **_kernels(keys)}
    return _kernels(keys)


def _kernels(keys: Keys) -> dict[str, str]:
    used = [key for key in _KERNELS if keys.raw(key) not in (None, False)]
    if used:
        keys.note(
            f"{', '.join(used)}: these fused kernels save fewer activations than planned; the plan is above the run"
        )
    return {}


def _padding(keys: Keys, words: dict[str, Any]) -> None:
    """Packed rows have no padding; otherwise a batch is padded to its longest sequence."""
    packed = keys.flag("sample_packing")
    keys.flag("pad_to_sequence_len")
    if packed and _names_sdpa(keys):
        words["padding"] = True
        keys.means("sample_packing", "--padding: SDPA takes packed rows with a mask, as padded ones")
    elif packed:
        keys.means("sample_packing", "full sequences, no padding")
    elif words["batch"] > 1 and "attention" not in words:
        words["padding"] = True
        keys.means("sample_packing", "--padding: sequences of a micro-batch differ in length")


def _names_sdpa(keys: Keys) -> bool:
    """Rows are told apart by a mask there; under flash attention by their borders, and under neither not at all."""
    return keys.flag("sdp_attention") or keys.text("attn_implementation").lower() == "sdpa"


def _embeddings(keys: Keys, words: dict[str, Any], method: str) -> None:
    if words["precision"] == "bf16" and words.get("attention") != "flash" and method not in ("lora", "qlora"):
        keys.note("without flash attention axolotl keeps embeddings and norms in fp32: twice their planned bytes")
