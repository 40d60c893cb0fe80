"""Our optimizer for `Trainer(optimizer_cls_and_kwargs=...)`, from the arguments that choose galore_torch's."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from galore_mem.errors import UsageError
from galore_mem.optim import GaLore, GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit, PerLayer, galore_param_groups
from galore_mem.optim.groups import ALL_LINEAR

_LAYERWISE = "_layerwise"
CLASSES: dict[str, type[GaLore]] = {
    "galore_adamw": GaLoreAdamW,
    "galore_adamw_8bit": GaLoreAdamW8bit,
    "galore_adafactor": GaLoreAdafactor,
}
_NUMBERS: dict[str, type] = {"rank": int, "update_proj_gap": int, "scale": float}


class Layerwise:
    """Mixed into a `GaLore` class: updates inside backward, behind the interface of an ordinary optimizer.

    The Trainer calls `step()` once a step, so gradient accumulation is refused: see `galore_mem.optim.PerLayer` for
    loops of one's own, where it works.
    """

    per_layer: PerLayer | None

    def __init__(self, params: Iterable[Any], *, max_norm: float | None = None, **options: Any) -> None:  # noqa: ANN401
        super().__init__(params, **options)  # type: ignore[call-arg]
        PerLayer(self, max_norm=max_norm)  # type: ignore[arg-type]

    def step(self, closure: Any = None) -> Any:  # noqa: ANN401
        """End a backward pass; the parameters were updated in it."""
        if self.per_layer is None or self.per_layer.is_ending:
            return super().step(closure)  # type: ignore[misc]
        self.per_layer.step()
        return None


class LayerwiseGaLoreAdamW(Layerwise, GaLoreAdamW):
    """`GaLoreAdamW`, each parameter updated as its gradient is born."""


class LayerwiseGaLoreAdamW8bit(Layerwise, GaLoreAdamW8bit):
    """`GaLoreAdamW8bit`, each parameter updated as its gradient is born."""


class LayerwiseGaLoreAdafactor(Layerwise, GaLoreAdafactor):
    """`GaLoreAdafactor`, each parameter updated as its gradient is born."""


LAYERWISE: dict[type[GaLore], type[GaLore]] = {
    GaLoreAdamW: LayerwiseGaLoreAdamW,
    GaLoreAdamW8bit: LayerwiseGaLoreAdamW8bit,
    GaLoreAdafactor: LayerwiseGaLoreAdafactor,
}


def trainer_optimizer(
    model: nn.Module,
    args: Any,  # noqa: ANN401
    *,
    optim: str | None = None,
    target_modules: str | Iterable[str] | None = None,
    max_norm: float | None = None,
    **options: Any,  # noqa: ANN401
) -> tuple[type[GaLore], dict[str, Any]]:
    """Class and keywords for `optimizer_cls_and_kwargs=` of `Trainer` and `SFTTrainer`.

    Everything is read from the `TrainingArguments` as the Trainer itself would for galore_torch: `optim`
    (`galore_adamw`, `galore_adamw_8bit`, `galore_adafactor`, each also `_layerwise`), `optim_target_modules`,
    `optim_args` (rank, update_proj_gap, scale, proj_type), learning rate, betas, epsilon and weight decay. Keywords
    take precedence.

    Args:
        model: the model that will be trained.
        args: `TrainingArguments`, or what derives from them.
        optim: instead of `args.optim`.
        target_modules: instead of `args.optim_target_modules`; `all-linear` where neither says.
        max_norm: layer-wise only: clip each parameter's gradient to this norm.
        options: further options of `galore_param_groups`, for instance `rank=128` or `projector_storage="int8"`.

    Raises:
        UsageError: no GaLore optimizer is named, an option means nothing, or layer-wise updates meet accumulation.
    """
    name = str(getattr(optim or args.optim, "value", optim or args.optim))
    layerwise = name.endswith(_LAYERWISE)
    kind = CLASSES.get(name.removesuffix(_LAYERWISE))
    if kind is None:
        names = ", ".join([*CLASSES, *(f"{each}{_LAYERWISE}" for each in CLASSES)])
        raise UsageError(f"optim={name!r} is no GaLore optimizer", "", f"choose one of: {names}")
    if layerwise and args.gradient_accumulation_steps > 1:
        raise UsageError(
            f"{name} cannot accumulate over {args.gradient_accumulation_steps} micro-batches in a Trainer",
            "it steps once for all of them, and gradients are gone by then",
            f"set gradient_accumulation_steps=1, or optim={name.removesuffix(_LAYERWISE)!r}",
        )
    if max_norm is not None and not layerwise:
        raise UsageError("max_norm is for layer-wise updates", "the Trainer clips otherwise", "set args.max_grad_norm")
    targets = target_modules or args.optim_target_modules or ALL_LINEAR
    groups = galore_param_groups(model, ALL_LINEAR if targets is True else targets, **_options_of(args), **options)
    found: dict[str, Any] = {"params": groups, "lr": args.learning_rate, "weight_decay": args.weight_decay}
    if kind is not GaLoreAdafactor:
        found |= {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    if layerwise:
        found["max_norm"] = max_norm
    return (LAYERWISE[kind] if layerwise else kind), found


def _options_of(args: Any) -> dict[str, Any]:  # noqa: ANN401
    """`optim_args`, as transformers writes it: `rank=64, update_proj_gap=100, scale=0.10`."""
    given = args.optim_args
    if not given:
        return {}
    pairs = given.items() if isinstance(given, dict) else (part.partition("=")[::2] for part in given.split(","))
    found: dict[str, Any] = {}
    for key, value in pairs:
        name = str(key).strip()
        if name not in (*_NUMBERS, "proj_type"):
            raise UsageError(f"optim_args names {name!r}", "", "use rank, update_proj_gap, scale and proj_type")
        try:
            found[name] = _NUMBERS.get(name, str)(str(value).strip())
        except ValueError:
            raise UsageError(f"optim_args: {name}={value!r} is no number", "", f"write {name}=128") from None
    return found
