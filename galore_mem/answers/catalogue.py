"""What galore-mem knows about: training methods, models and GPUs."""

from dataclasses import asdict, dataclass
from typing import Any

from estimators.workload import METHODS


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRow:
    """One training method."""

    name: str
    optimizer: str
    """The inner optimizer's family."""
    parameterisation: str
    """Which parameters are trained, and through what."""
    summary: str

    def to_dict(self) -> dict[str, Any]:
        """One element of `methods --json`."""
        return asdict(self)


def list_methods() -> tuple[MethodRow, ...]:
    """Every training method, in the order of the catalogue."""
    return tuple(
        MethodRow(
            name=name,
            optimizer=traits.optimizer,
            parameterisation=traits.parameterisation,
            summary=traits.summary,
        )
        for name, traits in METHODS.items()
    )
