"""Why a run ran out of memory: its error message, explained; with the run itself, the tensor and the way out."""

import os
import sys
from dataclasses import dataclass, replace
from typing import Any

from estimators.analytic.births import Stage, births_of
from estimators.verdict import Fit, judge
from estimators.workload import Workload
from galore_mem.answers.names import resolve_model
from galore_mem.answers.oom_account import Account, account_of, cards_of
from galore_mem.answers.oom_message import OomMessage, read_messages, says_out_of_memory
from galore_mem.answers.oom_place import Suspect, is_near, stage_of, suspects_of
from galore_mem.answers.settings import Settings, workloads
from galore_mem.answers.ways_out import Way, ways_out
from galore_mem.errors import UsageError
from profiles.gpus import Gpu, find_gpu

MOST_CHARACTERS = 64 << 20
"""The end of a longer log is read: that is where the error that stopped the run stands."""
MOST_SUSPECTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class OomAnswer:
    """One error explained."""

    message: OomMessage
    """The last one of the text, which ended the run."""
    messages: int
    """How many there were."""
    account: Account
    stage: Stage | None
    """By the traceback."""
    cards: tuple[Gpu, ...]
    """Cards that the total memory means; the first one is planned for."""
    workload: Workload | None
    fit: Fit | None
    """The run as planned, on that card with the total that the message gives and beside the processes it names."""
    suspects: tuple[Suspect, ...]
    """Tensors of the run that have the size asked for; empty without a run."""
    ways: tuple[Way, ...]
    notes: tuple[str, ...]

    @property
    def suspect(self) -> Suspect | None:
        """The tensor, where size and level agree with one."""
        level = self.account.allocated_bytes
        if not self.suspects or level is None or not is_near(self.suspects[0], level):
            return None
        return self.suspects[0]

    def to_dict(self) -> dict[str, Any]:
        """The OOM object of the JSON output."""
        account = self.account
        return {
            "schema": "galore-mem/oom/1",
            "message": {
                "wording": self.message.wording,
                "device": self.message.device,
                "text": self.message.text,
                "found": self.messages,
            },
            "requested_bytes": account.requested_bytes,
            "short_bytes": account.short_bytes,
            "total_bytes": account.total_bytes,
            "allowed_bytes": account.allowed_bytes,
            "private_pools_bytes": account.private_pools_bytes,
            "account": {
                "allocated_bytes": account.allocated_bytes,
                "reserved_unallocated_bytes": account.unallocated_bytes,
                "outside_torch_bytes": account.outside_bytes,
                "other_processes_bytes": account.others_bytes,
                "unnamed_bytes": account.rest_bytes,
                "free_bytes": account.free_bytes,
            },
            "reasons": list(account.reasons),
            "stage": self.stage,
            "cards": [gpu.name for gpu in self.cards],
            "workload": self.workload and self.workload.to_dict(),
            "fit": self.fit and self.fit.to_dict(),
            "suspect": self.suspect and self.suspect.to_dict(),
            "suspects": [suspect.to_dict() for suspect in self.suspects],
            "ways_out": [way.to_dict() for way in self.ways],
            "notes": list(self.notes),
        }


def explain_oom(
    text: str,
    *,
    name: str = "the text",
    model: str | None = None,
    method: str = "adamw",
    gpu: str | None = None,
    settings: Settings | None = None,
) -> OomAnswer:
    """Explain an out-of-memory error.

    Args:
        text: the error, or a log that holds it.
        name: what to call the text in errors.
        model: what was trained; without it only the message itself is explained.
        method: how it was trained.
        gpu: the card; found from the message unless given.
        settings: everything else about the run.

    Raises:
        UsageError: the text holds no such error.
        InputError: an unknown name, or options that contradict each other.
    """
    messages = read_messages(text, name)
    message = messages[-1]
    account = account_of(message)
    doubt = message.total.doubt_bytes if message.total and not message.exact_total_bytes else 0
    cards = (find_gpu(gpu),) if gpu else cards_of(account, doubt)
    notes: tuple[str, ...] = ()
    workload, fit, suspects, ways = None, None, (), ()  # type: tuple[Workload | None, Fit | None, Any, Any]
    if model is not None:
        named = resolve_model(model)
        (workload,) = workloads(named.shape, (method,), settings or Settings())
        notes = named.notes
        card = cards[0] if cards else None
        births = births_of(workload, card)
        suspects = suspects_of(message, births, account.allocated_bytes, stage_of(message.frames))[:MOST_SUSPECTS]
        if card is not None:
            here = replace(card, usable_bytes=account.total_bytes or card.usable_bytes)
            fit = judge(workload, here, other_use_bytes=account.others_bytes or 0)
            ways = ways_out(workload, here, other_use_bytes=account.others_bytes or 0) if fit.verdict != "fits" else ()
    return OomAnswer(
        message=message,
        messages=len(messages),
        account=account,
        stage=stage_of(message.frames),
        cards=cards,
        workload=workload,
        fit=fit,
        suspects=suspects,
        ways=ways,
        notes=notes,
    )


def read_text(source: str) -> tuple[str, str]:
    """The text that `source` means, and what to call it: a file, `-` for stdin, or the error itself.

    Raises:
        UsageError: no such file, or nothing in it.
    """
    if says_out_of_memory(source) and not os.path.exists(source):
        return source, "the text"
    if source == "-":
        text, name = sys.stdin.buffer.read().decode("utf-8", "replace"), "stdin"
    else:
        text, name = _read_file(source), source
    if not text.strip():
        raise UsageError(f"{name} is empty", "", "give the text of a CUDA out-of-memory error")
    return text, name


def _read_file(path: str) -> str:
    try:
        with open(os.path.expanduser(path), "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - MOST_CHARACTERS))
            return stream.read(MOST_CHARACTERS).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path[:200]!r}", reason, "name a log file, or - to read stdin") from None
