"""Why a configuration is recommended, in sentences with their numbers."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from estimators.footprint import Footprint
from estimators.workload import Workload
from galore_mem.answers.candidates import Option, option_of
from profiles.errors import InputError

GIB = 2**30


def reasons(best: Option, footprint: Footprint, misses: Sequence[Option], fitting: Sequence[Option]) -> tuple[str, ...]:
    """One sentence per reason.

    Args:
        best: what is recommended.
        footprint: of it.
        misses: the leanest forms of what does not fit.
        fitting: everything that fits, the best first.
    """
    return (
        _what_it_is(best),
        *_nearer_ones(best, misses),
        *_each_setting(best, fitting),
        f"the peak is the {footprint.peak.label.replace('_', ' ')}, {_gib(footprint.peak_live_bytes)} GiB of live "
        f"tensors; the process takes {_gib(footprint.process_bytes)} and at most {_gib(footprint.upper_bytes)} of "
        f"{_gib(best.usable_bytes)} GiB",
    )


def _what_it_is(best: Option) -> str:
    fidelity = best.fidelity
    if fidelity.share == 1.0:
        return f"it trains {fidelity.kind}"
    return f"it trains {fidelity.kind}: an update moves along {fidelity.share:.1%} of all coordinates"


def _nearer_ones(best: Option, misses: Sequence[Option]) -> Iterator[str]:
    nearer = [option for option in misses if option.fidelity.key[0] < best.fidelity.key[0]]
    if nearer:
        nearest = min(nearer, key=lambda option: option.missing_bytes)
        yield (
            f"nothing nearer to full-rank AdamW fits: {describe(nearest.workload)} is the leanest, and misses by "
            f"{_gib(nearest.missing_bytes)} GiB"
        )


def _each_setting(best: Option, fitting: Sequence[Option]) -> Iterator[str]:
    """What would change if one setting were the plain one."""
    workload = best.workload
    if workload.method.update == "per-layer":
        yield from _without(
            best, replace(workload, method=replace(workload.method, update="whole")), "per-layer updates"
        )
    if workload.loss == "chunked":
        yield from _without(best, replace(workload, loss="full"), "the chunked loss")
    if workload.checkpointing == "full":
        plain = [
            option
            for option in fitting
            if option.workload.method == workload.method and option.workload.checkpointing == "none"
        ]
        if plain:
            most = max(plain, key=lambda option: option.workload.batch.tokens)
            yield (
                "checkpointing computes the forward of the layers twice, and makes room for "
                f"{_tokens(workload)} at once where {_tokens(most.workload)} fit without: "
                f"{best.relative_work:.2f}x instead of {most.relative_work:.2f}x the arithmetic of plain full-rank "
                "training per token"
            )
        else:
            yield from _without(best, replace(workload, checkpointing="none"), "checkpointing")


def _without(best: Option, other: Workload, name: str) -> Iterator[str]:
    with suppress(InputError):
        plain = option_of(other, best.card)
        saved = plain.reach.upper_bytes - best.reach.upper_bytes
        if saved > 0:
            lead = f"without {name} it would take {_gib(saved)} GiB more"
            yield f"{lead}, and not fit" if plain.missing_bytes > 0 else lead


def describe(workload: Workload) -> str:
    """A configuration in a few words: `galore-adamw-8bit r1024 per-layer, checkpointing, batch 40 of 256 tokens`."""
    method = workload.method
    rank = f" r{method.rank}" if method.rank else ""
    update = " per-layer" if method.update == "per-layer" else ""
    parts = [f"{method.name}{rank}{update}"]
    if workload.checkpointing == "full":
        parts.append("checkpointing")
    if workload.loss == "chunked":
        parts.append("chunked loss")
    parts.append(f"batch {workload.batch.micro_batch_size}")
    if workload.batch.gradient_accumulation_steps > 1:
        parts[-1] += f" x {workload.batch.gradient_accumulation_steps}"
    parts[-1] += f" of {workload.batch.sequence_length:,} tokens"
    return ", ".join(parts)


def _tokens(workload: Workload) -> str:
    return f"{workload.batch.tokens:,} tokens"


def _gib(nbytes: int) -> str:
    return f"{nbytes / GIB:.2f}"
