"""GaLore around the three optimizers that people name."""

from collections.abc import Iterable
from typing import Any

import torch

from galore_mem.errors import MissingExtraError
from galore_mem.optim.galore import GaLore


class GaLoreAdamW(GaLore):
    """GaLore around `torch.optim.AdamW`.

    Args:
        params: as for `GaLore`.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: added to the denominator.
        weight_decay: decoupled, applied to the full weight.
        amsgrad: keep the largest second moment.
        maximize: ascend.
        foreach: torch's multi-tensor kernel; on one proxy at a time it holds one low-rank temporary.
        fused: torch's fused kernel; no temporary.
        galore_options: GaLore's own, see `GaLore`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        **galore_options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(
            params,
            torch.optim.AdamW,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
            foreach=foreach,
            fused=fused,
            **galore_options,
        )


class GaLoreAdamW8bit(GaLore):
    """GaLore around bitsandbytes' `AdamW8bit`: 8-bit states in the low-rank space.

    Args:
        params: as for `GaLore`.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: added to the denominator.
        weight_decay: decoupled, applied to the full weight.
        min_8bit_size: smaller tensors keep fp32 states.
        galore_options: GaLore's own, see `GaLore`.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        min_8bit_size: int = 4096,
        **galore_options: Any,  # noqa: ANN401
    ) -> None:
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError:
            raise MissingExtraError("GaLoreAdamW8bit", "train") from None
        super().__init__(
            params,
            AdamW8bit,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            min_8bit_size=min_8bit_size,
            **galore_options,
        )


class GaLoreAdafactor(GaLore):
    """GaLore around transformers' `Adafactor`: fp32 row and column factors in the low-rank space.

    Args:
        params: as for `GaLore`.
        lr: learning rate; None takes Adafactor's own, falling schedule.
        beta2_decay: exponent of the second moment's decay.
        eps: added to squared gradients, and least scale of a parameter.
        d: threshold of update clipping.
        weight_decay: decoupled, applied to the full weight.
        beta1: keep a first moment.
        scale_parameter: multiply the step by the weight's RMS; default: only where `lr` is None.
        warmup_init: begin with smaller steps; needs `lr=None`.
        galore_options: GaLore's own, see `GaLore`.

    Raises:
        MissingExtraError: transformers is not installed.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        beta2_decay: float = -0.8,
        eps: tuple[float, float] = (1e-30, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        beta1: float | None = None,
        scale_parameter: bool | None = None,
        warmup_init: bool = False,
        **galore_options: Any,  # noqa: ANN401
    ) -> None:
        try:
            from transformers.optimization import Adafactor
        except ImportError:
            raise MissingExtraError("GaLoreAdafactor", "train") from None
        super().__init__(
            params,
            Adafactor,
            lr=lr,
            decay_rate=beta2_decay,
            eps=eps,
            clip_threshold=d,
            weight_decay=weight_decay,
            beta1=beta1,
            scale_parameter=lr is None if scale_parameter is None else scale_parameter,
            relative_step=lr is None,
            warmup_init=warmup_init,
            **galore_options,
        )
