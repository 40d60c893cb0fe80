"""What galore-mem knows about: training methods, models and GPUs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from estimators.workload import METHODS

if TYPE_CHECKING:
    from profiles.gpus import Gpu
    from profiles.models import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRow:
    """One training method."""

    name: str
    optimizer: str
    """The inner optimizer's family."""
    parameterisation: str
    """Which parameters are trained, and through what."""
    summary: str


def list_methods() -> tuple[MethodRow, ...]:
    """Every training method."""
    return tuple(
        MethodRow(
            name=name,
            optimizer=traits.optimizer,
            parameterisation=traits.parameterisation,
            summary=traits.summary,
        )
        for name, traits in METHODS.items()
    )


def list_models() -> "tuple[Model, ...]":
    """Every model, those that cannot be planned yet included."""
    from profiles.models import all_models

    return all_models()


def list_gpus() -> "tuple[Gpu, ...]":
    """Every card."""
    from profiles.gpus import all_gpus

    return all_gpus()


def methods_dict(rows: Sequence[MethodRow]) -> dict[str, Any]:
    """The METHODS object of the JSON output."""
    return {"schema": "galore-mem/methods/1", "methods": [asdict(row) for row in rows]}


def models_dict(rows: "Sequence[Model]") -> dict[str, Any]:
    """The MODELS object of the JSON output."""
    return {"schema": "galore-mem/models/1", "models": [asdict(row) | {"planned": row.planned} for row in rows]}


def gpus_dict(rows: "Sequence[Gpu]") -> dict[str, Any]:
    """The GPUS object of the JSON output; `source` is that of the usable size."""
    return {"schema": "galore-mem/gpus/1", "gpus": [_gpu_dict(row) for row in rows]}


def _gpu_dict(row: "Gpu") -> dict[str, Any]:
    """A row without what only a calibration of one very card knows."""
    entries = asdict(row)
    del entries["svd_scratch"]
    return entries | {"source": row.usable_source}
