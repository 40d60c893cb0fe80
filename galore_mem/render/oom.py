"""`galore-mem oom` for a terminal."""

from galore_mem.answers.limits import next_card
from galore_mem.answers.names import Card
from galore_mem.answers.oom import OomAnswer
from galore_mem.answers.oom_account import Account
from galore_mem.answers.oom_message import size_text
from galore_mem.answers.oom_place import Suspect
from galore_mem.answers.ways_out import Way
from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.terminal import Terminal, terminal
from galore_mem.render.text import Text

LABEL = 23
STAGES = {
    "loading": "while the weights were moved to the card",
    "forward": "in forward",
    "loss": "in the loss",
    "backward": "in backward",
    "refresh": "in a refresh of the projectors",
    "step": "in the optimizer's step",
    "evaluation": "in evaluation",
}


def print_oom(answer: OomAnswer, screen: Terminal | None = None) -> None:
    """What failed, who held what, why, which tensor it was, and what to do."""
    screen = screen or terminal()
    blocks = [_headline(answer), *_reasons(answer), *_tensor(answer), *_ways(answer)]
    lines = [line for text in blocks[:1] for line in flow(text, screen.width, indent=2)]
    sized = answer.account.holders and answer.message.wording != "unsized"
    lines += [Text(), *_account(answer.account, screen.width)] if sized else []
    for text in blocks[1:]:
        lines += [Text(), *flow(text, screen.width, indent=2)]
    screen.show(lines)


def _headline(answer: OomAnswer) -> Text:
    account, message = answer.account, answer.message
    if message.wording == "unsized":
        text = Text.assemble((message.text, "bold"), ": a message without sizes")
    else:
        where = f"GPU {message.device}" if message.device is not None else "The card"
        text = Text.assemble(where, " was asked for ", (size_text(account.requested_bytes or 0), "bold"))
        text.append(f" and had {size_text(account.free_bytes or 0)} left")
        text.append(f" of {size_text(account.total_bytes)}" if account.total_bytes is not None else "")
    if answer.cards:
        text.append(f" ({' or '.join(gpu.name for gpu in answer.cards[:4])})")
    if answer.stage is not None:
        text.append(f", {STAGES[answer.stage]}")
    text.append(".")
    if answer.messages > 1:
        text.append(f" This is the last of {answer.messages} such errors in the text.")
    return text


def _account(account: Account, width: int) -> list[Text]:
    lines = [Text(f"{'who held what':<{LABEL}}{'GiB':>8}", style="dim")]
    for holder in account.holders:
        line = Text(f"{holder.name:<{LABEL}}{words.gib(holder.nbytes):>8}")
        lines += flow(line.append(f"  {holder.meaning}", style="dim"), width, indent=LABEL + 10)
    return lines


def _reasons(answer: OomAnswer) -> list[Text]:
    account = answer.account
    texts = {
        "outside": "Memory ran out outside torch's allocator, in CUDA itself or in a library (a context, a cuBLAS "
        "handle, NCCL): the card was full before torch could ask. Look with nvidia-smi for other processes first; then "
        "leave the libraries room, with a smaller run or torch.cuda.set_per_process_memory_fraction.",
        "limit": f"The process may take {_gib(account.allowed_bytes)}, by set_per_process_memory_fraction; the card "
        "had more. Raise the fraction.",
        "others": f"Other processes hold {_gib(account.others_bytes)}; without them the request would have been met. "
        "nvidia-smi names them.",
        "fragmentation": _fragmentation(answer),
        "private-pools": f"{_gib(account.private_pools_bytes)} lie in private pools, which CUDA graphs keep: fewer or "
        "smaller graphs (torch.compile without mode='reduce-overhead') give them back.",
        "free-was-enough": "The driver reports more free memory than was asked for. Something gave memory back in "
        "between, or, on Windows and in containers, the driver may not let one process have it all.",
        "run": _run(account),
    }
    return [Text(texts[reason]) for reason in account.reasons]


def _fragmentation(answer: OomAnswer) -> str:
    account = answer.account
    pieces, requested = account.unallocated_bytes or 0, account.requested_bytes or 0
    enough = (
        "together enough, but no single piece was" if pieces >= requested else "in pieces too small for the request"
    )
    is_amd = answer.message.text.startswith("HIP") or any(gpu.vendor == "amd" for gpu in answer.cards)
    cost = "with torch 2.12 and ROCm 7 or later: others warn, and keep segments as they are" if is_amd else "at no cost"
    return (
        f"{_gib(pieces)} are reserved and hold no tensor: {enough}. torch had already given back every segment that "
        "was wholly free. PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True lets pieces grow together, "
        f"{cost}."
    )


def _run(account: Account) -> str:
    text = f"{size_text(account.short_bytes or 0)} were missing."
    if account.is_last_straw:
        kind = "up to 1 MiB" if account.requested_bytes == 2 << 20 else "of 1 to 10 MiB"
        text += (
            f" {size_text(account.requested_bytes or 0)} is the segment that any tensor {kind} asks for: the card was "
            "full, and the request was the last straw, not the cause."
        )
    return text


def _tensor(answer: OomAnswer) -> list[Text]:
    if answer.workload is None:
        hint = "Name the run, and the tensor and the cheapest way out are found: galore-mem oom FILE MODEL --seq ... "
        return [Text(hint + "with the options of galore-mem plan.", style="dim")]
    texts = []
    best = answer.suspect
    if best is not None:
        texts.append(_named(answer, best))
    elif answer.suspects:
        texts.append(_elsewhere(answer, answer.suspects[0]))
    elif answer.account.requested_bytes is not None:
        texts.append(
            Text(
                f"No tensor of {answer.workload.model.name} under these options asks for a segment of "
                f"{size_text(answer.account.requested_bytes)}: the run that failed has another batch, sequence, rank "
                "or model, or runs other code."
            )
        )
    return texts


def _named(answer: OomAnswer, suspect: Suspect) -> Text:
    text = Text.assemble("It was most likely ", (_tensor_words(suspect), "bold"))
    alike = [other for other in answer.suspects[1:] if other.distance_bytes <= suspect.distance_bytes]
    if alike:
        text.append(f", or one of {len(alike)} others of that size and place, such as {_tensor_words(alike[0])}")
    return text.append(
        f": by the plan {words.gib(_near(suspect, answer.account.allocated_bytes or 0))} GiB live when it is made, and "
        f"{words.gib(answer.account.allocated_bytes or 0)} GiB were allocated."
    )


def _elsewhere(answer: OomAnswer, suspect: Suspect) -> Text:
    text = Text(f"{_tensor_words(suspect)} has the size")
    if answer.account.allocated_bytes is None:
        return text.append(", but the message does not say how much was allocated.")
    low, high = sorted((suspect.birth.low_bytes, suspect.birth.high_bytes))
    level = words.gib(low) if high - low < 2**24 else f"{words.gib(low)} to {words.gib(high)}"
    return text.append(
        f", but by the plan {level} GiB live when it is made, not {words.gib(answer.account.allocated_bytes)}: the run "
        "that failed holds something that these options do not describe."
    )


def _tensor_words(suspect: Suspect) -> str:
    birth = suspect.birth
    name = birth.name
    if suspect.layer is not None:
        name = name.replace("layer.", f"layer {suspect.layer}: ", 1).replace("layers.*", f"layers.{suspect.layer}")
    if birth.category == "gradients":
        name = f"the gradient of {name}"
    elif name.startswith("gradient of "):
        name = f"the {name}"
    size = ("a part of " if birth.is_sum else "") + size_text(birth.nbytes)
    size += f" = {birth.formula}" if birth.formula else ""
    return f"{name} ({size}), {STAGES[birth.stage]} of the {birth.iteration} iteration"


def _near(suspect: Suspect, level: int) -> int:
    low, high = sorted((suspect.birth.low_bytes, suspect.birth.high_bytes))
    return min(max(level, low), high)


def _ways(answer: OomAnswer) -> list[Text]:
    if answer.workload is None:
        return []
    if answer.fit is None:
        return [Text("The message does not tell the card: name it with --gpu for a way out.", style="dim")]
    fit = answer.fit
    plan = f"Planned: {words.gib(fit.process_bytes)} GiB, at most {words.gib(fit.upper_bytes)}"
    if fit.verdict == "fits":
        return [
            Text(
                f"{plan}; {words.gib(fit.usable_bytes)} are there, so this run should have fitted. What failed is "
                "another run: compare batch, sequence, optimizer and precision with what really ran."
            )
        ]
    texts = [Text(f"{plan}; {words.gib(fit.usable_bytes)} are there.")]
    if not answer.ways:
        card = Card(gpu=fit.gpu, other_use_bytes=max(0, fit.gpu.usable_bytes - fit.usable_bytes))
        name = next_card(card, -fit.headroom_bytes)
        larger = f" The {words.SMALLEST_CARD} with room for this run: --gpu {name}." if name else ""
        return [*texts, Text(f"No single change nor all of them together make it fit this card.{larger}")]
    texts.append(Text.assemble("Cheapest way out: ", *_way_words(answer.ways[0])))
    if len(answer.ways) > 1:
        others = "; ".join(
            f"{' '.join(way.changes)} ({words.gib(way.fit.headroom_bytes)} GiB free)" for way in answer.ways[1:]
        )
        texts.append(Text(f"Each of these alone would do as well: {others}."))
    return texts


def _way_words(way: Way) -> list[str | tuple[str, str]]:
    parts: list[str | tuple[str, str]] = []
    for number, (change, cost) in enumerate(zip(way.changes, way.costs, strict=True)):
        parts += ["; then " if number else "", (change, "bold"), f" ({cost})" if cost else ""]
    return [*parts, f". {words.gib(way.fit.headroom_bytes)} GiB then stay free even at the upper bound."]


def _gib(nbytes: int | None) -> str:
    return f"{words.gib(nbytes or 0)} GiB"
