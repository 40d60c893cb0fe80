"""Keys that transformers' Trainer, axolotl and LLaMA-Factory share, and what of them a plan cannot know."""

from typing import Any

from galore_mem.answers.written.keys import Keys

_SHARDING = ("deepspeed", "fsdp", "fsdp_config", "fsdp_version", "tensor_parallel_size", "context_parallel_size")
_COMPILED = ("torch_compile", "torch_compile_backend", "torch_compile_mode")


def refuse_quantised(keys: Keys, *names: str) -> None:
    """Refuse base weights that are quantised in other ways than QLoRA's.

    Raises:
        UsageError: one of the keys asks for them.
    """
    for name in names:
        if name in keys and keys.raw(name) not in (False, 0, "none", "false"):
            keys.refuse(
                name, "quantised weights are planned as QLoRA keeps them only", "plan the run in bf16: remove that key"
            )


def four_bit(keys: Keys, key: str, double_key: str, *, double: bool, type_key: str = "") -> dict[str, object]:
    """Base weights in bitsandbytes' four bits; FP4 takes the bytes of NF4.

    Args:
        keys: the configuration.
        key: what asks for them.
        double_key: whether scales are quantised too.
        double: the tool's default of that.
        type_key: where the tool has NF4 or FP4 named.
    """
    keys.decides(key, "--method qlora", instead_of="--method lora ")
    if type_key:
        keys.text(type_key)
    double = keys.flag(double_key, double)
    if double:
        keys.means(double_key, "--bnb-4bit-use-double-quant")
    return {"bnb_4bit_use_double_quant": double}


def not_modelled(keys: Keys) -> None:
    """Say which keys would change memory in ways that a plan does not follow."""
    sharded = [name for name in _SHARDING if keys.raw(name) not in (None, False, "", [], {}, 1)]
    if sharded:
        keys.note(
            f"{', '.join(sharded)}: sharding and offloading are not planned; figures are for a whole model on each GPU"
        )
    compiled = [name for name in _COMPILED if keys.raw(name) not in (None, False, "")]
    if compiled:
        keys.note(f"{compiled[0]}: what torch.compile saves for backward is not covered; figures are for eager mode")
    if "neftune_noise_alpha" in keys and keys.raw("neftune_noise_alpha"):
        keys.note("neftune_noise_alpha: the noise on the embeddings (one hidden state) is not counted")
    if keys.flag("auto_find_batch_size"):
        keys.note("auto_find_batch_size: planned for the batch as written, which is where the search begins")


def batch(
    keys: Keys, size_key: str, default: int, accumulation_key: str = "gradient_accumulation_steps"
) -> dict[str, int]:
    """Micro-batch and accumulation."""
    size, steps = keys.whole(size_key, default), keys.whole(accumulation_key, 1)
    keys.means(size_key, f"--batch {size}")
    if accumulation_key in keys:
        keys.means(accumulation_key, f"--grad-accumulation {steps}")
    return {"batch": size, "grad_accumulation": steps}


def clipping(keys: Keys, words: dict[str, Any]) -> dict[str, bool]:
    """Clipping by the global norm, which transformers' Trainer does unless told otherwise; a layerwise one cannot."""
    clips = keys.number("max_grad_norm", 1.0) > 0 and words.get("update") != "per-layer"
    if clips:
        keys.means("max_grad_norm", "--clip")
    return {"clip": clips}


def evaluation(keys: Keys, size_key: str, default: int, *, runs: bool) -> dict[str, int]:
    """Evaluation between training steps, by transformers' Trainer.

    Args:
        keys: the configuration.
        size_key: where sequences in a batch of evaluation are given.
        default: the tool's own.
        runs: whether the tool would evaluate at all.
    """
    size, kept = keys.whole(size_key, default), keys.whole("eval_accumulation_steps", 1)
    if not runs:
        return {}
    keys.means(size_key, f"--eval-batch {size}")
    if "eval_accumulation_steps" in keys and not keys.flag("prediction_loss_only"):
        keys.means("eval_accumulation_steps", f"--eval-keep {kept}")
        return {"eval_batch": size, "eval_keep": kept}
    keys.note(
        "evaluation is planned as the Trainer runs it without metrics; with compute_metrics the logits of all its "
        "batches stay on the card: add --eval-keep N"
    )
    return {"eval_batch": size}


def emptied_cache(keys: Keys, name: str, place: str) -> dict[str, str]:
    """`torch.cuda.empty_cache()` every so many steps."""
    if name not in keys:
        return {}
    keys.whole(name, 1)
    keys.means(name, f"--empty-cache {place}")
    return {"empty_cache": place}


def data_parallel(keys: Keys) -> dict[str, int]:
    """DistributedDataParallel, as transformers' Trainer sets it up; how many processes there are is in no file."""
    for name in ("ddp_find_unused_parameters", "ddp_broadcast_buffers"):
        keys.raw(name)
    if "ddp_bucket_cap_mb" not in keys:
        return {}
    cap = keys.whole("ddp_bucket_cap_mb", 25)
    keys.means("ddp_bucket_cap_mb", f"--bucket-cap-mb {cap}")
    keys.note("ddp_bucket_cap_mb: how many GPUs train is not in the file; for several add --data-parallel N")
    return {"bucket_cap_mb": cap}


def resumed(keys: Keys, *names: str) -> dict[str, str]:
    """Going on from a checkpoint, which transformers' Trainer maps to the host."""
    for name in names:
        if keys.raw(name) not in (None, False, "", "false", "none"):
            keys.means(name, "--resume cpu")
            return {"resume": "cpu"}
    return {}


def strategy(keys: Keys) -> bool:
    """Whether transformers' Trainer evaluates between steps: `eval_strategy`, called `evaluation_strategy` before."""
    name = "eval_strategy" if "eval_strategy" in keys else "evaluation_strategy"
    return keys.text(name, "no").lower().removeprefix("intervalstrategy.") not in ("no", "false")


def liger(keys: Keys, *names: str) -> dict[str, str]:
    """Fused linear cross-entropy: logits of a piece at a time."""
    for name in names:
        if keys.flag(name):
            keys.means(name, "--loss chunked")
            keys.note(f"{name}: its fused norms and MLP save fewer activations than planned; the plan is above the run")
            return {"loss": "chunked"}
    return {}


def adapters(keys: Keys, rank: int, rank_key: str, targets: tuple[str, ...], target_key: str) -> dict[str, object]:
    """LoRA as peft builds it."""
    keys.means(rank_key, f"--method lora --rank {rank}")
    keys.means(target_key, f"--target-modules {' '.join(targets)}")
    dropout = keys.number("lora_dropout", 0.0)
    words: dict[str, object] = {"rank": rank, "target_modules": targets}
    if dropout:
        words["lora_dropout"] = dropout
        keys.means("lora_dropout", f"--lora-dropout {dropout}")
    return words
