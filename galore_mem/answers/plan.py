"""Will this training run fit on that GPU, and what would make it fit?"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from estimators.analytic.attention import attention_kernel
from estimators.analytic.estimate import estimate
from estimators.analytic.parameters import parameter_count
from estimators.checks import check, closed_form_notes
from estimators.footprint import Footprint
from estimators.verdict import Fit, judge
from estimators.workload import Workload
from galore_mem.answers.advice import Advice, advise, settled
from galore_mem.answers.names import Card, NamedModel, card_for, resolve_cards, resolve_model
from galore_mem.answers.published import Beside, published_beside
from galore_mem.answers.settings import Settings, settings_from, workloads
from galore_mem.answers.sizes import size_bytes
from profiles.errors import InputError

if TYPE_CHECKING:
    from galore_mem.answers.written.run import WrittenRun


_SPILLS = "on Windows the driver moves memory to the host when a card is full: what does not fit there runs, slowly"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One configuration: what it holds, and where it fits."""

    workload: Workload
    attention_kernel: str
    """What `auto` stands for on the first card."""
    footprint: Footprint
    """For the first card; without any, for an unknown one."""
    fits: tuple[Fit, ...]
    """One per card."""
    published: tuple[Beside, ...]
    """What others published for it."""

    def to_dict(self) -> dict[str, Any]:
        """One element of `plans`."""
        return {
            "workload": self.workload.to_dict(),
            "attention_kernel": self.attention_kernel,
            "footprint": self.footprint.to_dict(),
            "fits": [fit.to_dict() for fit in self.fits],
            "published": [beside.to_dict() for beside in self.published],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """Every configuration that was asked for."""

    model: NamedModel
    cards: tuple[Card, ...]
    plans: tuple[Plan, ...]
    budget_bytes: int | None
    """The upper bound must not exceed it."""
    notes: tuple[str, ...]
    """What a person should know although the question could be answered."""
    advice: Advice | None
    """None where there is no card to judge by."""
    written: "WrittenRun | None" = None
    """The other tool's file that the run was read from."""

    @property
    def parameters(self) -> int:
        """Parameters of the model, each shared one once."""
        return parameter_count(self.model.shape)

    @property
    def all_fit(self) -> bool:
        """Whether every configuration fits every card."""
        return all(fit.verdict == "fits" for plan in self.plans for fit in plan.fits)

    @property
    def within_budget(self) -> bool:
        """Whether every upper bound keeps the budget; true without one."""
        return all(self.keeps_budget(plan) for plan in self.plans)

    def keeps_budget(self, plan: Plan) -> bool:
        """Whether `plan` keeps the budget on every card."""
        bounds = [fit.upper_bytes for fit in plan.fits] or [plan.footprint.upper_bytes]
        return self.budget_bytes is None or max(bounds) <= self.budget_bytes

    def to_dict(self) -> dict[str, Any]:
        """The PLAN object of the JSON output."""
        model = asdict(self.model.shape) | {"parameters": self.parameters, "source": self.model.source}
        if self.model.checkpoint is not None:
            model["checkpoint"] = asdict(self.model.checkpoint)
        return {
            "schema": "galore-mem/plan/1",
            "model": model,
            "plans": [plan.to_dict() for plan in self.plans],
            "notes": list(self.notes),
            "advice": self.advice.to_dict() if self.advice else None,
            "budget_bytes": self.budget_bytes,
            "other_use_bytes": [card.other_use_bytes for card in self.cards],
        } | ({"from": self.written.to_dict()} if self.written else {})


def plan(
    model: str | None = None,
    *,
    gpus: str | Sequence[str] = (),
    methods: str | Sequence[str] = (),
    settings: Settings | None = None,
    other_use: str | int | None = None,
    budget: str | int | None = None,
    from_file: str | None = None,
    exact: bool = False,
    **words: Any,  # noqa: ANN401
) -> PlanResult:
    """Plan training runs of `model`: what each holds at every moment, and whether it fits.

    Args:
        model: a catalogue name or alias, or the path of a config.json or of its folder; the file's unless given.
        gpus: names or aliases of cards; `local` means those of this machine.
        methods: training methods; without any, the story of six.
        settings: everything else about the run; or give its fields as keywords.
        other_use: memory that other processes take from each card: bytes, or a size such as `800MiB`; nothing unless
            given, and on a local card what they hold now.
        budget: what no upper bound may exceed: bytes, or a size such as `22GiB`.
        from_file: what another tool trains by: transformers' TrainingArguments, axolotl's or LLaMA-Factory's YAML. What
            is stated here takes its place.
        exact: confirm allocated and reserved bytes by replaying each run's history through the allocator's replica.
        words: fields of `Settings`, for instance `rank=128`.

    Raises:
        InputError: an unknown name, a value that means nothing, or options that contradict each other.
        NoDeviceError: `local`, and no usable card here.
    """
    if settings is not None and words:
        raise InputError("settings and keywords exclude each other", "", f"give {', '.join(words)} in settings")
    chosen = settings or settings_from(words)
    methods = (methods,) if isinstance(methods, str) else methods
    written = None
    if from_file is not None:
        from galore_mem.answers.written.read import filled_in

        written, model, methods, chosen = filled_in(from_file, model, methods, chosen)
    if model is None:
        raise InputError("MODEL is missing", "", "type: galore-mem plan llama-7b --gpu 4090, or give --from FILE")
    named = resolve_model(model)
    other_bytes = None if other_use is None else size_bytes(other_use, "--other-use")
    cards = resolve_cards((gpus,) if isinstance(gpus, str) else gpus, other_bytes)
    card_for(other_use, cards)
    asked = workloads(named.shape, methods, chosen)
    told = (*(written.notes if written else ()), *named.notes, *(card.note for card in cards if card.note))
    notes = dict.fromkeys(told)
    for workload in asked:
        for gpu in tuple(card.gpu for card in cards) or (None,):
            notes.update(dict.fromkeys((*check(workload, gpu), *closed_form_notes(workload, is_replayed=exact))))
    plans = tuple(_plan(workload, cards, exact=exact) for workload in asked)
    budget_bytes = None if budget is None else size_bytes(budget, "--budget")
    if sys.platform == "win32" and any(fit.verdict != "fits" for plan in plans for fit in plan.fits):
        notes[_SPILLS] = None
    return PlanResult(
        model=named,
        cards=cards,
        plans=plans,
        budget_bytes=budget_bytes,
        notes=tuple(notes),
        advice=_advice(plans, asked, cards, budget_bytes, exact=exact) if cards else None,
        written=written,
    )


def _advice(
    plans: Sequence[Plan], asked: Sequence[Workload], cards: Sequence[Card], budget_bytes: int | None, *, exact: bool
) -> Advice:
    """For the first of the cards that a configuration fits; for the first of all where none fits anywhere.

    A budget below what the card leaves takes its place: what lies above it is as good as taken by others.
    """
    kept_back = [
        0 if budget_bytes is None else max(0, card.gpu.usable_bytes - card.other_use_bytes - budget_bytes)
        for card in cards
    ]
    bounds = [min(plan.fits[place].upper_bytes for plan in plans) for place in range(len(cards))]
    rooms = [plans[0].fits[place].usable_bytes - kept_back[place] for place in range(len(cards))]
    place = next((place for place in range(len(cards)) if bounds[place] <= rooms[place]), 0)
    fits, taken = [plan.fits[place] for plan in plans], cards[place].other_use_bytes + kept_back[place]
    if kept_back[place]:
        fits = [_fit(workload, cards[place], taken, exact=exact) for workload in asked]
    found = advise(fits, asked, taken, exact=exact)
    return found if exact else settled(found)


def _fit(workload: Workload, card: Card, taken_bytes: int, *, exact: bool) -> Fit:
    fit = judge(workload, card.gpu, other_use_bytes=taken_bytes)
    if not exact:
        return fit
    from galore_mem.answers.exact import confirmed_fit

    return confirmed_fit(workload, fit)


def _plan(workload: Workload, cards: Sequence[Card], *, exact: bool) -> Plan:
    fits = tuple(_fit(workload, card, card.other_use_bytes, exact=exact) for card in cards)
    first = cards[0].gpu if cards else None
    footprint = fits[0].footprint if fits else estimate(workload, None)
    if exact:
        from galore_mem.answers.exact import confirmed

        footprint = fits[0].footprint if fits else confirmed(workload, footprint, None)
    return Plan(
        workload=workload,
        attention_kernel=attention_kernel(workload, first),
        footprint=footprint,
        fits=fits,
        published=published_beside(workload, footprint),
    )
