"""Another tool's file as constraints of a search: what the run is given stays, what a person could change is free."""

from dataclasses import fields, replace
from typing import Any

from galore_mem.answers.wishes import ONLY_NAMED, Wishes
from galore_mem.answers.written.keys import Meaning
from galore_mem.answers.written.read import read_run
from galore_mem.answers.written.run import WrittenRun
from galore_mem.errors import UsageError

_KEPT = ("--seq", "--precision", "--attention", "--padding", "full sequences")
_BATCH = ("--batch", "--grad-accumulation")


def constrained(path: str, model: str | None, wishes: Wishes) -> tuple[WrittenRun, str, Wishes]:
    """The file's run, its model, and the wishes with the file's sequence, sequences per step, precision and attention.

    Method, rank, checkpointing and loss stay free, and so does how a step is divided into micro-batches. What was
    wished for already takes the place of what the file says.

    Raises:
        UsageError: as `read_run`, or no model, or no length of sequences.
    """
    run = read_run(path)
    if model is None and run.model is None:
        raise UsageError(f"{path} names no model", "", f"type: galore-mem fit MODEL --from {path}")
    plain, found = Wishes(), run.settings
    wished = {field.name for field in fields(Wishes) if getattr(wishes, field.name) != getattr(plain, field.name)}
    facts: dict[str, Any] = {
        "global_batch": found.batch * found.grad_accumulation * wishes.data_parallel,
        "precision": found.precision,
        "attention": found.attention if found.attention != "auto" else None,
        "padding": found.padding,
    }
    if run.method in ONLY_NAMED:
        facts["methods"] = (*wishes.methods_asked, run.method)
    if run.has_sequence_length:
        facts["seq"] = found.seq
    elif not wishes.seq and wishes.objective != "sequence":
        raise UsageError(f"{path} does not say how long sequences are", "the data decides", "add --seq N")
    left_out = {*wished, *{"batch": ("global_batch",), "sequence": ("seq",)}.get(wishes.objective, ())}
    chosen = {name: value for name, value in facts.items() if name not in left_out}
    merged = replace(wishes, **chosen)
    meanings = tuple(_meaning(meaning, chosen) for meaning in run.meanings)
    return replace(run, meanings=meanings), model or run.model or "", merged


def _meaning(meaning: Meaning, chosen: dict[str, Any]) -> Meaning:
    """What a key means for a search."""
    effect = meaning.effect.replace("--precision bf16 --autocast", "--precision bf16")
    if effect.startswith(_BATCH):
        total = chosen.get("global_batch")
        effect = f"counted in --global-batch {total}" if total else f"{effect} (stated otherwise)"
    elif not effect.startswith(_KEPT):
        effect = f"{effect} (free here)"
    elif effect.startswith("--") and effect.split()[0][2:].rstrip(":") not in chosen:
        effect = f"{effect} (stated otherwise)"
    return replace(meaning, effect=effect)
