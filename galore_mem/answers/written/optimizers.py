"""Optimizers by the names that transformers' Trainer gives them, which axolotl and LLaMA-Factory use too.

Sources: transformers 5.23, training_args.py (OptimizerNames) and trainer_optimizer.py.
"""

from typing import Any

from estimators.workload import METHODS
from galore_mem.answers.written.keys import Keys

TRAINER_DEFAULT = "adamw_torch_fused"
"""`TrainingArguments.optim` with torch 2.8 and later."""
_PLAIN: dict[str, tuple[str, str | None]] = {
    "adamw_torch": ("adamw", "foreach"),
    "adamw_torch_fused": ("adamw", "fused"),
    "adamw_hf": ("adamw", "loop"),
    "adamw_apex_fused": ("adamw", "fused"),
    "adamw_bnb_8bit": ("adamw-8bit", None),
    "adamw_8bit": ("adamw-8bit", None),
    "paged_adamw_8bit": ("paged-adamw-8bit", None),
    "paged_adamw_32bit": ("paged-adamw-32bit", None),
    "paged_adamw": ("paged-adamw-32bit", None),
    "adafactor": ("adafactor", None),
    "sgd": ("sgd", "foreach"),
}
"""Method and kernel. `adamw_hf` was transformers' own Python loop, removed since."""
_GALORE = {
    "galore_adamw": "galore-adamw",
    "galore_adamw_8bit": "galore-adamw-8bit",
    "galore_adafactor": "galore-adafactor",
}
GALORE_DEFAULTS: dict[str, Any] = {"rank": 128, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
"""Of `optim_args` (`_get_galore_optimizer`)."""


def optimizer(keys: Keys, key: str, default: str, *, of_adapters: bool = False) -> tuple[str, dict[str, Any]]:
    """Method and settings of the optimizer that `key` names.

    Args:
        keys: the configuration.
        key: where the optimizer is named.
        default: the tool's own.
        of_adapters: it trains adapters, which is a method of its own.

    Raises:
        UsageError: no method stands for it, or GaLore without target modules.
    """
    name = keys.text(key, default).lower().removeprefix("optimizernames.")
    layerwise = name.endswith("_layerwise")
    bare = name.removesuffix("_layerwise")
    if bare in _GALORE:
        return _galore(keys, key, _GALORE[bare], layerwise=layerwise)
    if name not in _PLAIN:
        known = ", ".join([*_PLAIN, *_GALORE])
        keys.refuse(key, f"plans cover {known}, and *_layerwise", "plan a covered one instead: --method NAME")
    method, kernel = _PLAIN[name]
    keeps_embeddings = METHODS[method].optimizer == "adamw-8bit" and not of_adapters
    options = [f"--method {method}"] * (not of_adapters) + [f"--optimizer-kernel {kernel}"] * bool(kernel)
    options += ["--embedding-optim-bits 32"] * keeps_embeddings
    keys.means(key, " ".join(options) or "AdamW on the adapters")
    if keeps_embeddings:
        keys.note("transformers keeps the 8-bit optimizer's states of embeddings in fp32, and so does the plan")
    words: dict[str, Any] = {"optimizer_kernel": kernel} if kernel else {}
    return method, words | ({"embedding_optim_bits": 32} if keeps_embeddings else {})


def _galore(keys: Keys, key: str, method: str, *, layerwise: bool) -> tuple[str, dict[str, Any]]:
    words: dict[str, Any] = {"implementation": "galore-torch"}
    effect = f"--method {method} --implementation galore-torch"
    if layerwise:
        words["update"] = "per-layer"
        effect += " --update per-layer"
    keys.means(key, effect)
    words |= _optim_args(keys)
    targets = keys.texts("optim_target_modules")
    if not targets:
        keys.refuse(
            "optim_target_modules", f"transformers does not start {method} without", "name modules, or all-linear"
        )
    if tuple(target.replace("_", "-") for target in targets) == ("all-linear",):
        targets = ("all-linear", "lm_head")  # transformers then takes every nn.Linear, the output head included
    words["target_modules"] = targets
    keys.means("optim_target_modules", f"--target-modules {' '.join(targets)}")
    return method, words


def _optim_args(keys: Keys) -> dict[str, Any]:
    given = keys.raw("optim_args")
    pairs = dict(given) if isinstance(given, dict) else _pairs(keys, given)
    words: dict[str, Any] = {}
    for name, default in GALORE_DEFAULTS.items():
        value = pairs.get(name, default)
        try:
            words[name] = type(default)(value)
        except (TypeError, ValueError):
            keys.refuse("optim_args", f"its {name} should be like {default}")
    keys.means("optim_args", " ".join(f"--{name.replace('_', '-')} {value}" for name, value in words.items()))
    return words


def _pairs(keys: Keys, given: object) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, str):
        keys.refuse("optim_args", "it should be text like rank=64, scale=0.1")
    parts = [part.partition("=") for part in given.replace(" ", "").split(",") if part]
    return {name: value for name, _, value in parts}
