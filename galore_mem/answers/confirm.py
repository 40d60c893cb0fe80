"""The recommended run, traced: whether the real model class and optimizer keep what the closed form promises."""

from dataclasses import dataclass
from typing import Any

from estimators.footprint import Footprint
from estimators.verdict import Fit
from galore_mem.answers.fit import CardResult
from galore_mem.answers.steps import Told
from galore_mem.answers.trace import trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """A traced footprint beside the one that was recommended by."""

    analytic: Footprint
    traced: Footprint
    fit: Fit
    """Of the trace, on the card that was recommended for."""

    @property
    def holds(self) -> bool:
        """Whether the trace's upper bound, context and unseen scratch included, stays under the recommendation's."""
        return self.traced.upper_bytes <= self.analytic.upper_bytes

    def to_dict(self) -> dict[str, Any]:
        """The `confirmed` object of the JSON output."""
        return {"holds": self.holds, "footprint": self.traced.to_dict(), "fit": self.fit.to_dict()}


def confirm(found: CardResult, told: Told | None = None) -> Confirmation | None:
    """Trace the recommendation of one card; None where nothing is recommended.

    Args:
        found: what the search found.
        told: called with the name of each stage of the trace as it begins.

    Raises:
        GaloreMemError: torch or another library is missing.
    """
    if found.recommended is None:
        return None
    card = found.card
    result = trace(
        found.recommended.option.workload, gpus=card.gpu.name, other_use=card.other_use_bytes or None, told=told
    )
    return Confirmation(analytic=found.recommended.footprint, traced=result.footprint, fit=result.fits[0])
