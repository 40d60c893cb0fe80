"""What becomes of the inner optimizer's moments when the basis under them changes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from galore_mem.errors import UsageError
from galore_mem.optim.geometry import Side

FIRST = ("exp_avg", "momentum_buffer", "state1")
SECOND = ("exp_avg_sq", "max_exp_avg_sq", "state2", "square_avg", "sum")
ROW_FACTORS = ("exp_avg_sq_row", "row_var")
COLUMN_FACTORS = ("exp_avg_sq_col", "col_var")
INVARIANT = ("step", "RMS", "qmap1", "qmap2", "absmax1", "absmax2", "unorm_vec")

Change = dict[Side, Tensor]
"""By side, the R x R matrix C that takes old coordinates to new ones: new = C old."""


def change_of_basis(old: Mapping[Side, Tensor], new: Mapping[Side, Tensor]) -> Change:
    """C = new basis in terms of the old: NᵀO for left bases (columns), N Oᵀ for right ones (rows); fp32."""
    change: Change = {}
    for side, basis in new.items():
        before, after = old[side].float(), basis.float()
        change[side] = after.t().mm(before) if side == "left" else after.mm(before.t())
    return change


def reproject_(state: dict[str, Any], change: Change) -> None:
    """Express the moments in the new basis, in place.

    A first moment is linear in the gradient: m' = C m (for right bases m Cᵀ). A second moment is not; with coordinates
    taken as uncorrelated, E[(Σ c g)²] = Σ c² E[g²], so it is multiplied by the elementwise square of C and stays
    non-negative.

    Raises:
        UsageError: the inner optimizer keeps a tensor whose meaning is unknown.
    """
    square = {side: matrix.square() for side, matrix in change.items()}
    for name, value in list(state.items()):
        if not isinstance(value, Tensor) or name in INVARIANT:
            continue
        if name in FIRST:
            _write(state, name, _apply(_read(state, name), change))
        elif name in SECOND:
            _write(state, name, _apply(_read(state, name), square).clamp_(min=0.0))
        elif name in ROW_FACTORS:
            _factor_(value, square.get("left"), 0 if value.dim() == 1 else -2)
        elif name in COLUMN_FACTORS:
            _factor_(value, square.get("right"), -1)
        else:
            raise UsageError(
                f'moments="reproject" does not know the inner optimizer\'s state {name!r}',
                "it cannot tell whether it is linear in the gradient",
                'use moments="keep" or "reset"',
            )


def _apply(moment: Tensor, change: Change) -> Tensor:
    moment = moment.float()
    if "left" in change:
        moment = change["left"].mm(moment)
    if "right" in change:
        moment = moment.mm(change["right"].t())
    return moment


def _factor_(value: Tensor, change: Tensor | None, dim: int) -> None:
    """A factor that runs along the projected side; the other factor is a mean over it and nearly invariant."""
    if change is not None:
        value.copy_(change.mv(value.float().view(-1)).view_as(value))


def _read(state: Mapping[str, Any], name: str) -> Tensor:
    value: Tensor = state[name]
    if value.dtype != torch.uint8:
        return value
    from bitsandbytes.functional import QuantState, dequantize_blockwise

    number = name[-1]
    quant = QuantState(absmax=state[f"absmax{number}"], code=state[f"qmap{number}"], blocksize=256, dtype=torch.float32)
    dequantised: Tensor = dequantize_blockwise(value, quant_state=quant)
    return dequantised


def _write(state: dict[str, Any], name: str, moment: Tensor) -> None:
    value: Tensor = state[name]
    if value.dtype != torch.uint8:
        value.copy_(moment)
        return
    from bitsandbytes.functional import quantize_blockwise

    number = name[-1]
    codes, quant = quantize_blockwise(moment.contiguous(), code=state[f"qmap{number}"], blocksize=256)
    value.copy_(codes)
    state[f"absmax{number}"].copy_(quant.absmax)
