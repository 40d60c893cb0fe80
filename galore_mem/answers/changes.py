"""Single changes of a run: what to type, what each costs the training, and in which order they are worth trying."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from estimators.analytic.estimate import reach
from estimators.analytic.families import takes_chunked_loss
from estimators.checks import check
from estimators.workload import METHODS, Workload
from galore_mem.answers.settings import default_rank, means_something
from profiles.errors import InputError
from profiles.gpus import Gpu

_HALF_THE_BITS = {"adamw": "adamw-8bit", "galore-adamw": "galore-adamw-8bit"}
_PROJECTED = {"adamw": "galore-adamw", "adamw-8bit": "galore-adamw-8bit", "adafactor": "galore-adafactor"}
COSTS: tuple[tuple[str, str], ...] = (
    ("no --keep-outputs", "costs nothing: drop the model's outputs before backward"),
    ("no --use-cache", "costs nothing: training has no use for the cache"),
    ("--zero-grad start", "costs nothing: zero_grad(set_to_none=True) before the forward"),
    ("--optimizer-kernel fused", "costs nothing: AdamW(fused=True)"),
    ("--implementation galore-mem", "costs nothing: the same algorithm with less scratch"),
    ("--gradient-as-bucket-view", "costs nothing: DistributedDataParallel(gradient_as_bucket_view=True)"),
    ("--resume cpu", 'costs nothing: torch.load(path, map_location="cpu")'),
    ("--attention auto", "costs nothing: the kernel that torch would choose"),
    ("no --eval-keep", "no metric over all logits: preprocess_logits_for_metrics, or batch_eval_metrics"),
    ("--eval-batch", "evaluation in smaller batches"),
    ("--attention efficient", "a slower kernel, which keeps attention's output once where flash's is copied"),
    ("--loss chunked", "head and loss are computed twice, the model once"),
    ("--update per-layer", "no gradient of the whole model to clip; each parameter steps alone"),
    ("--batch 1", "the same tokens a step in smaller products, which a GPU runs less well"),
    ("--checkpointing full", "one more forward: about a third more computing"),
    ("--method adamw-8bit", "optimizer states in 8 bits"),
    ("--method galore-adamw-8bit", "optimizer states in 8 bits, and low-rank where they were not"),
    ("--bnb-4bit-use-double-quant", "the scales of 4-bit weights in 8 bits"),
    ("--method qlora", "frozen weights in 4 bits"),
    ("no --master-weights", "small updates of bf16 weights are rounded away"),
    ("--precision bf16", "weights and states in bf16: small updates are rounded away"),
    ("--method galore-adamw", "states live in a low-rank subspace: another optimizer"),
    ("--method galore-adafactor", "states live in a low-rank subspace: another optimizer"),
    ("--rank", "a smaller subspace"),
    ("--seq", "shorter sequences: other data"),
)
"""Changes from the cheapest on, by what they begin with, and what each costs. A third: backward is two forwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One change, and how much the run may then take."""

    options: str
    """What to type."""
    workload: Workload
    upper_bytes: int


def offers(workload: Workload, gpu: Gpu | None, *, fits: bool) -> list[Offer]:
    """Every single change that the card can run. For `fits` see `alternatives`."""
    found: list[Offer] = []
    for options, other in alternatives(workload, fits=fits):
        with suppress(InputError):  # a change may lead to what the model or the card cannot run
            if other.method.quantised or other.data_parallel > 1:
                check(other, gpu)
            found.append(Offer(options=options, workload=other, upper_bytes=reach(other, gpu).upper_bytes))
    return found


def in_order(found: Iterable[Offer], enough_bytes: int) -> list[Offer]:
    """The order in which changes are advised everywhere: first those that are enough, from the cheapest on.

    Of equal cost, and of those that are not enough, the one that takes off most comes first.

    Args:
        found: changes of one run.
        enough_bytes: a bound that is low enough.
    """

    def rank(offer: Offer) -> tuple[bool, int, int]:
        is_enough = offer.upper_bytes <= enough_bytes
        return not is_enough, cost_of(offer.options)[0] if is_enough else 0, offer.upper_bytes

    return sorted(found, key=rank)


def cost_of(options: str) -> tuple[int, str]:
    """Rank and description of what a change costs; the longest beginning wins."""
    rows = [(rank, start, words) for rank, (start, words) in enumerate(COSTS) if options.startswith(start)]
    rank, _, words = max(rows, key=lambda row: len(row[1]), default=(len(COSTS), "", ""))
    return rank, words


def alternatives(workload: Workload, *, fits: bool) -> Iterator[tuple[str, Workload]]:
    """Single changes that may lower the peak, each as what to type and the workload that it gives.

    A shorter sequence is offered only where the one that was asked for does not fit.
    """
    method, batch = workload.method, workload.batch
    if workload.checkpointing == "none":
        yield "--checkpointing full", replace(workload, checkpointing="full")
    if workload.loss == "full" and takes_chunked_loss(workload.model):
        yield "--loss chunked", replace(workload, loss="chunked")
    may_step_apart = method.states_on != "host" and not method.master_weights and workload.data_parallel == 1
    may_step_apart &= METHODS[method.name].parameterisation != "lora"  # whose gradients are too small to matter
    if workload.data_parallel > 1 and not workload.gradient_as_bucket_view:
        yield "--gradient-as-bucket-view", replace(workload, gradient_as_bucket_view=True)
    if method.update == "whole" and batch.gradient_accumulation_steps == 1 and may_step_apart:
        yield "--update per-layer", replace(workload, method=replace(method, update="per-layer"))
    if method.name in _HALF_THE_BITS:
        name = _HALF_THE_BITS[method.name]
        yield f"--method {name}", replace(workload, method=replace(method, name=name, master_weights=False))
    if method.name in _PROJECTED:
        name = _PROJECTED[method.name]
        projected = replace(method, name=name, rank=default_rank(name, workload.model), master_weights=False)
        yield f"--method {name}", replace(workload, method=projected)
    if method.name == "lora":
        yield "--method qlora", replace(workload, method=replace(method, name="qlora"))
    if method.quantised and not method.bnb_4bit_use_double_quant:
        doubly = replace(method, bnb_4bit_use_double_quant=True)
        yield "--bnb-4bit-use-double-quant", replace(workload, method=doubly)
    if method.rank is not None and method.rank > 1:
        yield f"--rank {method.rank // 2}", replace(workload, method=replace(method, rank=method.rank // 2))
    if means_something("optimizer_kernel", method.name) and method.kernel == "foreach":
        yield "--optimizer-kernel fused", replace(workload, method=replace(method, optimizer_kernel="fused"))
    if method.master_weights:
        yield "no --master-weights", replace(workload, method=replace(method, master_weights=False))
    if method.implementation == "galore-torch":
        yield "--implementation galore-mem", replace(workload, method=replace(method, implementation="galore-mem"))
    if workload.precision != "bf16":
        yield "--precision bf16", replace(workload, precision="bf16")
    if workload.attention == "auto":
        yield "--attention efficient", replace(workload, attention="efficient")
    if workload.attention in ("math", "eager"):
        yield "--attention auto", replace(workload, attention="auto")
    if batch.micro_batch_size > 1 and method.update == "whole":
        steps = batch.gradient_accumulation_steps * batch.micro_batch_size
        smaller = replace(batch, micro_batch_size=1, gradient_accumulation_steps=steps)
        yield f"--batch 1 --grad-accumulation {steps}", replace(workload, batch=smaller)
    if batch.sequence_length > 1 and not fits:
        shorter = replace(batch, sequence_length=batch.sequence_length // 2)
        yield f"--seq {batch.sequence_length // 2}", replace(workload, batch=shorter)
    if workload.keep_outputs:
        yield "no --keep-outputs", replace(workload, keep_outputs=False)
    if workload.resume == "device":
        yield "--resume cpu", replace(workload, resume="cpu")
    if workload.eval_keep:
        yield "no --eval-keep", replace(workload, eval_keep=None)
    if workload.eval_batch is not None and workload.eval_batch > 1:
        yield f"--eval-batch {workload.eval_batch // 2}", replace(workload, eval_batch=workload.eval_batch // 2)
    if workload.use_cache:
        yield "no --use-cache", replace(workload, use_cache=False)
    if workload.zero_grad == "end":
        yield "--zero-grad start", replace(workload, zero_grad="start")
