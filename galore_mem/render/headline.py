"""The first lines of a plan: the model, the card, and what all configurations share."""

from estimators.workload import Workload
from galore_mem.answers.plan import PlanResult
from galore_mem.answers.settings import Settings
from galore_mem.answers.sizes import tokens_of
from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.terminal import Terminal
from galore_mem.render.text import Text


def headline(result: PlanResult, screen: Terminal) -> list[Text]:
    """Model and card, then the step that all configurations share."""
    title = Text.assemble(
        (result.model.shape.name, "bold"), f", {words.parameters(result.parameters)} parameters", _card(result)
    )
    return [*flow(title, screen.width), *flow(Text(_step(result), style="dim"), screen.width), Text()]


def _card(result: PlanResult) -> Text:
    if not result.cards:
        return Text(", on no card in particular")
    if len(result.cards) > 1:
        return Text(f", on {len(result.cards)} cards")
    fit = result.plans[0].fits[0]
    text = Text.assemble(", on ", (fit.gpu.name, "bold"), f" with {words.gib(fit.usable_bytes)} GiB usable")
    if result.cards[0].other_use_bytes:
        text.append(f" beside {words.gib(result.cards[0].other_use_bytes)} GiB of others")
    return text


def _step(result: PlanResult) -> str:
    workload = result.plans[0].workload
    batch, default = workload.batch, Settings()
    of_the_paper = (batch.micro_batch_size, batch.sequence_length) == (default.batch, default.seq)
    checkpointing = "no checkpointing" if workload.checkpointing == "none" else "full checkpointing"
    kernels = ", ".join(dict.fromkeys(plan.attention_kernel for plan in result.plans))
    parts = [
        workload.precision,
        words.batch(workload) + (" (the GaLore paper's setting)" if of_the_paper else ""),
        checkpointing,
        f"{kernels} attention" + (" (auto)" if workload.attention == "auto" else ""),
        f"{workload.loss} loss",
        *switches(workload),
    ]
    return ", ".join(parts) + ". Sizes in GiB (1024^3 bytes)."


def switches(workload: Workload) -> list[str]:
    """What is not as usual in a step, a word or two each."""
    found = [
        ("outputs kept", workload.keep_outputs),
        ("clipped gradients", workload.clip),
        ("key-value cache", workload.use_cache),
        (f"dropout {workload.dropout}", workload.dropout is not None),
        ("padding", workload.padding),
        ("zero_grad at the end", workload.zero_grad == "end"),
        (_evaluation(workload), workload.eval_batch is not None),
        (f"resumed, checkpoint mapped to the {workload.resume}", workload.resume != "none"),
        (f"empty_cache every {workload.empty_cache}", workload.empty_cache != "none"),
        (_data_parallel(workload), workload.data_parallel > 1),
        (workload.allocator_settings, bool(workload.allocator_settings)),
    ]
    return [word for word, on in found if on]


def besides(workload: Workload) -> list[str]:
    """Beside batch, precision and attention: what of the usual step is changed."""
    found = [("full checkpointing", workload.checkpointing == "full"), ("chunked loss", workload.loss == "chunked")]
    return [*[word for word, on in found if on], *switches(workload)]


def _data_parallel(workload: Workload) -> str:
    batch, gpus = workload.batch, workload.data_parallel
    sequences = batch.micro_batch_size * batch.gradient_accumulation_steps * gpus
    views = ", gradients in its buckets" if workload.gradient_as_bucket_view else ""
    return f"DistributedDataParallel on {gpus} GPUs, {sequences:,} sequences a step{views}"


def _evaluation(workload: Workload) -> str:
    tokens = workload.eval_seq or workload.batch.sequence_length
    kept = f", logits of {workload.eval_keep} kept" if workload.eval_keep else ""
    return f"evaluation of {workload.eval_batch} x {tokens_of(tokens)}{kept}"
