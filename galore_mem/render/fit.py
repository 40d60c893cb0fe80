"""What would make it fit, in the terminal: the recommendation, its reasons, what else fits, and what does not."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from estimators.allocator.settings import EXPANDABLE
from galore_mem.answers.candidates import Option
from galore_mem.answers.command_line import command_line, fit_line
from galore_mem.answers.fit import CardResult, FitResult, Recommendation
from galore_mem.answers.limits import next_card
from galore_mem.answers.misses import is_near
from galore_mem.answers.reasons import describe, missing
from galore_mem.answers.sizes import size_text, tokens_of
from galore_mem.answers.wishes import DEFAULT_SEQUENCE
from galore_mem.render import words
from galore_mem.render.bars import bar, scale_for
from galore_mem.render.flow import flow
from galore_mem.render.plan_overview import VERDICTS, axis, legend
from galore_mem.render.terminal import Terminal, terminal
from galore_mem.render.text import Text

if TYPE_CHECKING:
    from galore_mem.answers.confirm import Confirmation

ROWS = 10
"""Of the front; `--json` has all of it."""


def print_fit(result: FitResult, confirmation: "Confirmation | None" = None, screen: Terminal | None = None) -> None:
    """Draw `result` on the terminal that stdout is connected to."""
    screen = screen or terminal()
    rows = shown(result.best)
    lines = [*_head(result, screen), Text(), *_answer(result, screen)]
    if confirmation is not None:
        lines += flow(_confirmed(confirmation), screen.width, indent=2)
    best = result.best
    if rows:
        lines += [Text(), *_front(result, rows, screen)]
    if best.near_misses:
        lines += [Text(), *_misses(best, screen)]
    if len(result.cards) > 1:
        lines += [Text(), *_cards(result, screen)]
    screen.show(lines)


def _confirmed(confirmation: "Confirmation") -> Text:
    traced, fit = confirmation.traced, confirmation.fit
    word, style = VERDICTS[fit.verdict]
    text = Text.assemble("Traced: ", (word, style), f", {words.gib(traced.process_bytes)} GiB for the process ")
    text.append(f"(live {words.gib(traced.peak_live_bytes)}, allocated {words.gib(traced.peak_allocated_bytes)}, ")
    text.append(f"reserved {words.gib(traced.peak_reserved_bytes)})")
    return text.append(", under the bound." if confirmation.holds else ", ABOVE the bound it was recommended by.")


def _head(result: FitResult, screen: Terminal) -> Iterator[Text]:
    best, wishes = result.best, result.wishes
    count = words.parameters(result.parameters)
    title = Text.assemble((result.model.shape.name, "bold"), f", {count} parameters, on ", (best.card.gpu.name, "bold"))
    title.append(f" with {words.gib(_usable(best))} GiB usable")
    yield from flow(title, screen.width)
    searched = wishes.objective == "sequence"
    length = "the longest sequence" if searched else f"{tokens_of(wishes.seq or DEFAULT_SEQUENCE)} a sequence"
    step = f", {wishes.global_batch:,} sequence{'s' * (wishes.global_batch > 1)} a step" if wishes.global_batch else ""
    step += f", DistributedDataParallel on {wishes.data_parallel:,} GPUs" if wishes.data_parallel > 1 else ""
    text = f"{wishes.precision}, {length}{step}; {best.looked_at:,} configurations looked at, "
    text += f"{_SOUGHT[wishes.objective]}. Sizes in GiB (1024^3 bytes)."
    yield from flow(Text(text, style="dim"), screen.width)


_SOUGHT = {
    "fidelity": "nearest to full-rank AdamW first",
    "batch": "largest batch first",
    "sequence": "longest sequence first",
    "rank": "highest rank first",
}
"""How an objective orders what is equally faithful."""


def _usable(found: CardResult) -> int:
    return found.card.gpu.usable_bytes - found.card.other_use_bytes


def _answer(result: FitResult, screen: Terminal) -> Iterator[Text]:
    best = result.best
    if best.recommended is None:
        least = best.near_misses[0] if best.near_misses else None
        text = Text.assemble(("Nothing fits.", VERDICTS["does-not-fit"][1]))
        if least is not None:
            which = "leanest" if least.is_replayed else "nearest"
            text.append(f" The {which}, {describe(least.workload)}, misses by {missing(least)}.")
            name = next_card(best.card, least.missing_bytes)
            text.append(f" The {words.SMALLEST_CARD} with room for it: --gpu {name}." if name else "")
        yield from flow(text, screen.width)
        if best.unasked is not None:
            what = f"{describe(best.unasked.workload)}, {_cost(best.unasked)}"
            hint = f"Adapters beside weights rounded to four bits would fit (--method qlora): {what}."
            yield from flow(Text(hint), screen.width)
        return
    yield from _recommended(result, best, best.recommended, screen)


def _recommended(result: FitResult, best: CardResult, found: Recommendation, screen: Terminal) -> Iterator[Text]:
    workload = found.option.workload
    yield from flow(Text.assemble("Take ", (describe(workload), "bold")), screen.width, indent=2)
    scale = scale_for([found.footprint], _usable(best), screen.width)
    yield Text(axis(scale), style="dim")
    yield bar(found.footprint, scale, unicode=screen.unicode)
    yield from legend([found.footprint], screen)
    takes, *reasons = found.why
    yield from flow(Text(f"{takes[0].upper()}{takes[1:]}."), screen.width)
    for reason in reasons:
        yield from flow(Text(f"- {reason}"), screen.width, indent=2)
    if best.runner_up is not None:
        text = f"- runner-up: {describe(best.runner_up.workload)}, {_cost(best.runner_up)}"
        yield from flow(Text(text), screen.width, indent=2)
    card, others = _gpu(best), size_text(best.card.other_use_bytes)
    write = fit_line(result.asked, result.wishes, card, other_use=others)
    confirm = command_line("trace", result.asked, workload, card, other_use=others)
    lines = [("Write it", f"{write} --emit python > train.py"), ("Confirm it", confirm)]
    if workload.data_parallel > 1:  # a script would have to start processes
        lines[0] = ("Write what transformers' Trainer can run of it", f"{write} --emit transformers")
    for label, line in lines:
        yield from flow(Text.assemble((f"{label}: ", "dim"), line), screen.width, indent=2)


def _gpu(best: CardResult) -> list[str]:
    return [next(iter(best.card.gpu.aliases), best.card.gpu.name)]


def _cost(option: Option) -> str:
    return f"at most {words.gib(option.reach.upper_bytes)} GiB, {option.relative_work:.2f}x the work"


def _front(result: FitResult, rows: Sequence[Option], screen: Terminal) -> Iterator[Text]:
    """Memory, coordinates and work of what nothing else beats, nearest to full-rank training first."""
    best, lengths = result.best, result.wishes.objective == "sequence"
    free = "tokens" if lengths else "batch"
    heading = "What fits, and is beaten by nothing in memory, fidelity and work at once:"
    yield from flow(Text(heading, style="dim"), screen.width)
    name = max(len(words.configuration(option.workload.method)) for option in rows)
    extras = max(MOST_EXTRAS, *(len(_extras(option)) for option in rows))
    sizes = [_size(option, lengths=lengths) for option in rows]
    width = max(7, *map(len, sizes))
    wide = screen.width >= name + extras + width + FIGURES
    if wide:
        figures = f"{free:>{width}} {'at most':>7} {'work':>6} {'moves':>6}"
        yield Text(f"{'configuration':<{name}} {'with':<{extras}} {figures}", style="dim")
    chosen = best.recommended.option if best.recommended else None
    for option, size in zip(rows, sizes, strict=True):
        method, style = words.configuration(option.workload.method), "bold" if option == chosen else ""
        if wide:
            yield Text(
                f"{method:<{name}} {_extras(option):<{extras}} {_figures(option, size.rjust(width))}", style=style
            )
        else:
            yield from flow(Text(method, style=style), screen.width, indent=2)
            _, upper, work, share = _figures(option, size).split()
            text = f"  {_extras(option)} {free} {size}, at most {upper}, work {work}, moves {share}"
            yield from flow(Text(text.replace("   ", "  ")), screen.width, indent=2)
    note = (
        "at most: replayed for what is recommended and for the runner-up, else by the closed form's bound; work: "
        "matrix products per token over plain full-rank training; moves: coordinates of one update over all"
    )
    used = {name for option in rows for name in _extras(option).split()}
    note += "".join(f"; {name}: {meaning}" for name, meaning in _MEANINGS.items() if name in used) + "."
    yield from flow(Text(note, style="dim"), screen.width)


_MEANINGS = {
    "ckpt": "checkpointing",
    "views": "gradients in DistributedDataParallel's buckets",
    "exp": "expandable segments",
}
MOST_EXTRAS, FIGURES, MOST_OVER = 12, 24, 28


def _figures(option: Option, size: str) -> str:
    upper = words.gib(option.reach.upper_bytes)
    return f"{size} {upper:>7} {option.relative_work:>5.2f}x {option.fidelity.share:>6.1%}"


def _size(option: Option, *, lengths: bool) -> str:
    """Of a batch: sequences, and micro-batches if there are several; or the length that was looked for.

    More sequences at once only where the model allows no longer ones: `4x2,048`.
    """
    batch = option.workload.batch
    if lengths:
        several = f"{batch.micro_batch_size}x" if batch.micro_batch_size > 1 else ""
        return f"{several}{batch.sequence_length:,}"
    steps = batch.gradient_accumulation_steps
    return f"{batch.micro_batch_size}x{steps}" if steps > 1 else str(batch.micro_batch_size)


def _extras(option: Option) -> str:
    workload = option.workload
    switches = {
        "ckpt": workload.checkpointing == "full",
        "chunked": workload.loss == "chunked",
        "fused": workload.method.optimizer_kernel == "fused",
        "views": workload.gradient_as_bucket_view,
        workload.attention: workload.attention != "auto",
        "exp": workload.allocator_settings == EXPANDABLE.text,
    }
    return " ".join(name for name, on in switches.items() if on)


def shown(best: CardResult) -> list[Option]:
    """Of each method, rank and update the front's row with the least work, nearest to full-rank training first."""
    found: dict[tuple[object, ...], Option] = {}
    for option in best.nearest_of_front(ROWS):
        known = found.get(option.form.group)
        if known is None or option.relative_work < known.relative_work:
            found[option.form.group] = option
    if best.recommended is not None:
        found[best.recommended.option.form.group] = best.recommended.option
    return sorted(found.values(), key=lambda option: (option.fidelity.key, option.reach.upper_bytes))[:ROWS]


def _name(option: Option) -> str:
    return describe(option.workload).replace("checkpointing", "ckpt").replace("chunked loss", "chunked")


def _misses(best: CardResult, screen: Terminal) -> Iterator[Text]:
    rows = best.near_misses
    name = max(len(_name(option)) for option in rows)
    near, far = [row for row in rows if is_near(row)], [row for row in rows if not is_near(row)]
    if near:
        yield from flow(Text("What just misses, in its leanest form:", style="dim"), screen.width)
    for option in near:
        over = f"{words.gib(option.told_missing_bytes):>7} GiB over"
        yield from _miss(option, over, f", {option.miss_is}" * bool(option.miss_is), screen, name)
    if far:
        yield from flow(Text("Far from fitting even in its leanest form, by at least:", style="dim"), screen.width)
    for option in far:
        yield from _miss(option, f"{words.gib(option.told_missing_bytes):>7} GiB", "", screen, name)


def _miss(option: Option, over: str, sure: str, screen: Terminal, name: int) -> Iterator[Text]:
    text = Text.assemble(f"{_name(option):<{name}}  ", (over, VERDICTS["does-not-fit"][1]), sure)
    if screen.width < name + MOST_OVER:
        text = Text.assemble(f"{_name(option)}: ", (over.lstrip(), VERDICTS["does-not-fit"][1]), sure)
    yield from flow(text, screen.width, indent=2)


def _cards(result: FitResult, screen: Terminal) -> Iterator[Text]:
    yield Text("Cards for this job, the best first:", style="dim")
    name = max(len(found.card.gpu.name) for found in result.cards)
    for found in result.cards:
        if found.option is not None:
            option = found.option
            text = Text.assemble(
                (f"{found.card.gpu.name:<{name}}  ", "bold"), f"{describe(option.workload)}, {_cost(option)}"
            )
        else:
            least = missing(found.near_misses[0]) if found.near_misses else "all"
            text = Text.assemble(
                (f"{found.card.gpu.name:<{name}}  ", "bold"),
                ("nothing fits", VERDICTS["does-not-fit"][1]),
                f": short by {least}",
            )
        yield from flow(text, screen.width, indent=2)
