"""Everything about one row on one card: what a plan says of it, the ledger of one layer, and what would help."""

from dataclasses import dataclass

from estimators.analytic.attention import attention_kernel
from estimators.analytic.ledger import layer_ledger
from estimators.analytic.tensors import Tensors
from estimators.checks import check, closed_form_notes
from estimators.verdict import judge
from estimators.workload import Method
from galore_mem.answers.advice import advise
from galore_mem.answers.break_even import break_even_rank
from galore_mem.answers.names import Card
from galore_mem.answers.plan import Plan, PlanResult
from galore_mem.answers.published import published_beside
from galore_mem.tui.rows import Row

EIGHT_BIT = Method(name="adamw-8bit")
"""What GaLore's states are held against on the screen: the usual alternative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One row on one card."""

    key: str
    card: Card
    result: PlanResult
    """A plan of this one configuration."""
    ledger: tuple[Tensors, ...]
    """What one more layer keeps for backward."""
    break_even: int | None
    """The largest rank whose states and projectors take no more than 8-bit AdamW's; None where no GaLore is meant."""


def explain(row: Row, card: Card) -> Explained:
    """All of it; a worker's task.

    Raises:
        InputError: the row cannot run on the card.
    """
    workload = row.workload
    notes = (*row.named.notes, *filter(None, (card.note,)), *check(workload, card.gpu), *closed_form_notes(workload))
    fit = judge(workload, card.gpu, other_use_bytes=card.other_use_bytes)
    kernel = attention_kernel(workload, card.gpu)
    plan = Plan(
        workload=workload,
        attention_kernel=kernel,
        footprint=fit.footprint,
        fits=(fit,),
        published=published_beside(workload, fit.footprint),
    )
    result = PlanResult(
        model=row.named,
        cards=(card,),
        plans=(plan,),
        budget_bytes=None,
        notes=tuple(dict.fromkeys(notes)),
        advice=advise([fit], [workload], card.other_use_bytes),
    )
    is_galore = workload.method.parameterisation == "galore"
    return Explained(
        key=row.key,
        card=card,
        result=result,
        ledger=layer_ledger(workload, kernel),
        break_even=break_even_rank(workload.model, workload.method, EIGHT_BIT, workload.precision)
        if is_galore
        else None,
    )
