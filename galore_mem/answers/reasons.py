"""Why a configuration is recommended, in sentences with their numbers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from estimators.allocator.settings import EXPANDABLE
from estimators.footprint import Footprint
from estimators.workload import METHODS, Workload
from galore_mem.answers.candidates import Option, option_of
from galore_mem.answers.exact import is_compared
from galore_mem.answers.sizes import tokens_of
from profiles.errors import InputError

GIB = 2**30


def reasons(
    best: Option,
    footprint: Footprint,
    misses: Sequence[Option],
    fitting: Sequence[Option],
    refused: Sequence[Option] = (),
    plain: Option | None = None,
    replayed: Callable[[Option], Option] = lambda option: option,
    known: Callable[[Option], Option] = lambda option: option,
) -> tuple[str, ...]:
    """One sentence per reason.

    Args:
        best: what is recommended.
        footprint: of it.
        misses: the leanest forms of what does not fit.
        fitting: everything that fits by the closed form's bound, the best first.
        refused: other sizes of `best` that fit by that bound, and do not when replayed.
        plain: `best` under the allocator's default settings, where others were chosen.
        replayed: an option by its replay: kernels may change what lies between blocks, too.
        known: an option by its replay if that was made.
    """
    return (
        _what_it_takes(best, footprint),
        *_refused(refused),
        _what_it_is(best),
        *_nearer_ones(best, misses),
        *_settings(best, plain),
        *_each_kernel(best, replayed),
        *_each_setting(best, fitting, known),
    )


def _what_it_takes(best: Option, footprint: Footprint) -> str:
    how = "replayed through the allocator's replica" if best.is_replayed else "by the closed form's bound"
    if best.is_replayed and not is_compared(best.workload, best.card.gpu):
        how += "; its bound is the closed form's, which is wider, since no replay of this kind was held against a trace"
    return (
        f"it takes {_gib(footprint.process_bytes)} GiB, at most {_gib(footprint.upper_bytes)} of "
        f"{_gib(best.usable_bytes)}, {how}; the peak is the {footprint.peak.label.replace('_', ' ')}, "
        f"{_gib(footprint.peak_live_bytes)} GiB of tensors"
    )


def _refused(refused: Sequence[Option]) -> Iterator[str]:
    if refused:
        smallest = min(refused, key=lambda option: option.workload.batch.tokens)
        yield (
            f"{_size(smallest.workload)} would fit by the closed form's bound, but replayed it misses by "
            f"{_gib(smallest.missing_bytes)} GiB: its blocks leave more unused than those of runs seen before"
        )


def _what_it_is(best: Option) -> str:
    fidelity = best.fidelity
    if fidelity.share == 1.0 and METHODS[best.workload.method.name].parameterisation == "galore":
        return (
            f"it trains {fidelity.kind}, which at this rank is the whole space: {fidelity.states} updates along the "
            "same coordinates without projecting, and comes first without --for rank where it fits"
        )
    if fidelity.share == 1.0:
        return f"it trains {fidelity.kind}"
    return f"it trains {fidelity.kind}: an update moves along {fidelity.share:.1%} of all coordinates"


def _nearer_ones(best: Option, misses: Sequence[Option]) -> Iterator[str]:
    nearer = [option for option in misses if option.fidelity.key[0] < best.fidelity.key[0]]
    if nearer:
        nearest = min(nearer, key=lambda option: option.told_missing_bytes)
        yield (
            f"nothing nearer to full-rank AdamW fits: {describe(nearest.workload)} comes nearest, and misses by "
            f"{missing(nearest)}"
        )


def _settings(best: Option, plain: Option | None) -> Iterator[str]:
    """What the allocator's settings that were chosen do."""
    if plain is not None:
        name, more = best.workload.allocator_settings, plain.reach.reserved_bytes - best.reach.reserved_bytes
        yield (
            f"without expandable segments (PYTORCH_CUDA_ALLOC_CONF={name}; Linux has them) its blocks would leave "
            f"{_gib(more)} GiB more unused, and the run would not fit"
        )


def _each_setting(best: Option, fitting: Sequence[Option], known: Callable[[Option], Option]) -> Iterator[str]:
    """What would change if one setting were the plain one."""
    workload, others = best.workload, dict[str, Workload]()
    if workload.method.update == "per-layer":
        others["per-layer updates"] = replace(workload, method=replace(workload.method, update="whole"))
    if workload.gradient_as_bucket_view:
        beside = replace(workload, gradient_as_bucket_view=False)
        others["--gradient-as-bucket-view (gradients beside their buckets)"] = beside
    if workload.loss == "chunked":
        others["the chunked loss (never all logits at once)"] = replace(workload, loss="full")
    for name, other in others.items():
        yield from _without(best, other, name, known)
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
                f"{_tokens(workload)} at once where {_tokens(most.workload)} are sure to fit without: "
                f"{best.relative_work:.2f}x instead of {most.relative_work:.2f}x the arithmetic of plain full-rank "
                "training per token"
            )
        else:
            yield from _without(best, replace(workload, checkpointing="none"), "checkpointing", known)


def _each_kernel(best: Option, replayed: Callable[[Option], Option]) -> Iterator[str]:
    """What would change with the default kernels, by replays of the same batch."""
    workload, others = best.workload, dict[str, Workload]()
    if workload.method.optimizer_kernel == "fused":
        name = "the fused kernel (the default one needs scratch as large as the gradients)"
        others[name] = replace(workload, method=replace(workload.method, optimizer_kernel="foreach"))
    if workload.attention in _LEANER:
        others[f"--attention {_LEANER[workload.attention]}"] = replace(workload, attention="auto")
    for name, other in others.items():
        plain = replayed(option_of(other, best.card))
        more = plain.reach.process_bytes - best.reach.process_bytes
        if more > 0:
            end = ", and not fit" if plain.missing_bytes > 0 else ""
            yield f"without {name} it would take {_gib(more)} GiB more{end}"


_LEANER = {
    "efficient": "efficient (flash keeps attention's output twice where queries lie head after head)",
    "eager": "eager (torch's separate products leave more between blocks)",
}


def _without(best: Option, other: Workload, name: str, known: Callable[[Option], Option]) -> Iterator[str]:
    """By its replay if there is one; else by its tensors alone, of which a replay would say the same."""
    with suppress(InputError):
        plain = known(option_of(other, best.card))
        is_known = plain.is_replayed and best.is_replayed
        taken = "process_bytes" if is_known else "live_bytes"
        more = getattr(plain.reach, taken) - getattr(best.reach, taken)
        if more > 0:
            lead, end = f"without {name} it would take {_gib(more)} GiB more", ", and"
            if not is_known:
                lead, end = f"without {name} its tensors would take {_gib(more)} GiB more", ", and it would"
            if max(plain.surely_missing_bytes, best.reach.process_bytes + more - best.usable_bytes) > 0:
                yield f"{lead}{end} not fit"
            else:
                yield f"{lead}{end} not be sure to fit" if plain.missing_bytes > 0 else lead


def missing(option: Option) -> str:
    """By how much it does not fit, and how sure that is: `2.93 GiB or more`."""
    return f"{_gib(option.told_missing_bytes)} GiB {option.miss_is}".rstrip()


def describe(workload: Workload) -> str:
    """A configuration in a few words: `galore-adamw-8bit r1024 per-layer, checkpointing, batch 40 of 256 tokens`."""
    method = workload.method
    rank = f" r{method.rank}" if method.rank else ""
    update = " per-layer" if method.update == "per-layer" else ""
    kernel = " fused" if method.optimizer_kernel == "fused" else ""
    parts = [f"{method.name}{rank}{kernel}{update}"]
    if workload.checkpointing == "full":
        parts.append("checkpointing")
    if workload.loss == "chunked":
        parts.append("chunked loss")
    if workload.gradient_as_bucket_view:
        parts.append("bucket views")
    if workload.attention != "auto":
        parts.append(f"{workload.attention} attention")
    if workload.allocator_settings == EXPANDABLE.text:
        parts.append("expandable segments")
    return ", ".join([*parts, _size(workload)])


def _size(workload: Workload) -> str:
    batch = workload.batch
    steps = f" x {batch.gradient_accumulation_steps}" if batch.gradient_accumulation_steps > 1 else ""
    each = f" on each of {workload.data_parallel} GPUs" if workload.data_parallel > 1 else ""
    return f"batch {batch.micro_batch_size}{steps} of {tokens_of(batch.sequence_length)}{each}"


def _tokens(workload: Workload) -> str:
    return tokens_of(workload.batch.tokens)


def _gib(nbytes: int) -> str:
    return f"{nbytes / GIB:,.2f}"
