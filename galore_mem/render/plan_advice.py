"""Which configuration to take, in a sentence, and the change that would help it at the least cost."""

from estimators.verdict import Fit
from galore_mem.answers.advice import Advice
from galore_mem.answers.plan import PlanResult
from galore_mem.answers.sizes import tokens_of
from galore_mem.answers.ways_out import Way
from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.terminal import Terminal
from galore_mem.render.text import Text

PARTIAL = {
    "lora": "it trains adapters only",
    "qlora": "it trains adapters only, beside weights rounded to four bits",
    "relora": "it trains adapters, merged now and then, beside embeddings, norms and head",
    "low-rank": "it trains factors in place of the matrices",
}


def advice_lines(result: PlanResult, screen: Terminal) -> list[Text]:
    """What to take and what would help it; what is missing where no card was named."""
    if result.advice is None:
        hint = "Name a card, and each configuration gets a verdict: --gpu 4090, or --gpu local for this machine's."
        return [] if result.cards else flow(Text(hint, style="dim"), screen.width, indent=2)
    lines = _over_budget(result, screen) if len(result.cards) > 1 else []
    lines += [Text(f"On {result.advice.fit.gpu.name}:", style="dim")] if len(result.cards) > 1 else []
    lines += flow(_recommendation(result, result.advice), screen.width, indent=2)
    if result.advice.replayed is not None:
        lines += flow(_replayed(result.advice.replayed), screen.width, indent=2)
    if result.advice.change is not None:
        lines += flow(_help(result, result.advice, result.advice.change), screen.width, indent=2)
    return lines + _larger(result, result.advice, screen)


def _over_budget(result: PlanResult, screen: Terminal) -> list[Text]:
    """Which rows exceed the budget, where cards have the columns in which a verdict would say so."""
    over = [words.configuration(plan.workload.method) for plan in result.plans if not result.keeps_budget(plan)]
    if not over or result.budget_bytes is None:
        return []
    text = f"Over the budget of {words.gib(result.budget_bytes)} GiB at the upper bound: {', '.join(over)}."
    return [*flow(Text(text), screen.width, indent=2), Text()]


def _limit(result: PlanResult, advice: Advice) -> str:
    """What the advice is judged by: the budget where that is less than what the card leaves."""
    if result.budget_bytes is None or advice.fit.usable_bytes != result.budget_bytes:
        return "the card"
    return f"the budget of {words.gib(result.budget_bytes)} GiB"


def _larger(result: PlanResult, advice: Advice, screen: Terminal) -> list[Text]:
    """The card that would do, where no single change does."""
    change = advice.change
    helped = change is not None and change.fit.verdict == "fits"
    if helped or _limit(result, advice) != "the card":
        return []
    if advice.fit.verdict != "does-not-fit" or len(result.cards) > 1:
        return []
    from galore_mem.answers.limits import next_card

    name = next_card(result.cards[0], -advice.fit.headroom_bytes)
    card = f"The {words.SMALLEST_CARD} with room for it: --gpu {name}."
    text = card if name else "No card of the catalogue has room for it."
    return flow(Text(text), screen.width, indent=2)


def _recommendation(result: PlanResult, advice: Advice) -> Text:
    fit, name = advice.fit, Text(words.configuration(advice.workload.method), style="bold")
    partial = PARTIAL.get(advice.workload.method.name)
    batch, limit = advice.workload.batch, _limit(result, advice)
    budget = "" if limit == "the card" else f" {limit}"
    if fit.verdict == "fits":
        lead = f"It fits{budget}:" if len(result.plans) == 1 else "Take"
        text = Text.assemble(f"{lead} ", name, f" leaves {words.gib(fit.headroom_bytes)} GiB even at its upper bound")
        if lead == "Take":
            free = f": {words.gib(fit.headroom_bytes)} GiB{' of' * bool(budget)}{budget} stay free at its upper bound"
            text = Text.assemble("Take ", name, free)
        text.append(f", and {_room(fit, batch.sequence_length, batch.micro_batch_size) or 'nothing larger fits'}")
        return text.append(f"; {partial}." if partial else ".")
    if fit.verdict == "tight":
        return Text.assemble(
            "Nothing is sure to fit. ",
            name,
            f" should, at {words.gib(fit.process_bytes)} GiB, but its upper bound is "
            f"{words.gib(-fit.headroom_bytes)} GiB above {limit}.",
        )
    nearest = "" if len(result.plans) == 1 else "Nothing fits. Nearest is "
    verb = " does not fit: it is" if len(result.plans) == 1 else ","
    return Text.assemble(
        nearest, name, f"{verb} {words.gib(-fit.headroom_bytes)} GiB above {limit} at its upper bound."
    )


def _replayed(fit: Fit) -> Text:
    """What `--exact` makes of a run that is tight by the closed form."""
    text = Text.assemble("Replayed through the allocator's replica (", ("--exact", "bold"), ") it takes ")
    text.append(f"{words.gib(fit.process_bytes)} GiB, at most {words.gib(fit.upper_bytes)}: ")
    return text.append({"fits": "it fits.", "tight": "no surer."}.get(fit.verdict, "it does not fit."))


def _help(result: PlanResult, advice: Advice, way: Way) -> Text:
    more, sure = "Cheapest way to more room: ", "Cheapest way to be sure: "
    is_sure = advice.replayed is not None and advice.replayed.verdict == "fits"
    lead = {"fits": more, "tight": more if is_sure else sure}
    suffices = way.fit.verdict == "fits"
    text = Text(lead.get(advice.fit.verdict, "Cheapest way to fit: ") if suffices else "What would help it most: ")
    for number, (change, cost) in enumerate(zip(way.changes, way.costs, strict=True)):
        text.append("" if not number else " and " if number == len(way.changes) - 1 else ", ")
        text.append(change, style="bold")
        text.append(f" ({cost})" if cost else "")
    verb = "takes" if len(way.changes) == 1 else "together take"
    text.append(f" {verb} {words.gib(way.saved_bytes)} GiB off")
    if suffices:
        batch, before = way.workload.batch, advice.fit
        known = (batch.sequence_length, batch.micro_batch_size)
        if before.verdict == "fits":
            known = (before.max_sequence_length, before.max_micro_batch_size)
        return text.append(f"; then {_room(way.fit, *known) or 'it fits, and nothing larger'}.")
    return text.append(
        f", which still leaves it {words.gib(-way.fit.headroom_bytes)} GiB above {_limit(result, advice)}."
    )


def _room(fit: Fit, sequence_length: int, micro_batch_size: int) -> str:
    """What fits beyond a sequence and a micro-batch that are known to fit; empty where nothing does."""
    longer, more = fit.max_sequence_length > sequence_length, fit.max_micro_batch_size > micro_batch_size
    tokens, batch = f"up to {tokens_of(fit.max_sequence_length)}", f"a micro-batch of {fit.max_micro_batch_size:,}"
    if longer and more:
        return f"{tokens}, or {batch}, fit"
    if longer:
        return f"{tokens} fit"
    return f"{batch} fits" if more else ""
