"""Whether a workload makes sense, and what a person should know about it although it does."""

from estimators.analytic.bounds import between_steps_bytes
from estimators.analytic.families import family_of, takes_chunked_loss
from estimators.analytic.parameters import ParameterGroup, model_parameters, workload_parameters
from estimators.analytic.states import group_states
from estimators.analytic.windows import is_eager, window_is_reached
from estimators.workload import Workload
from profiles.errors import InputError
from profiles.gpus import GIB, Gpu
from profiles.shapes import SLIDING, ConfiguredShape, ModelShape, UncoveredShape


def check(workload: Workload, gpu: Gpu | None = None) -> tuple[str, ...]:
    """Refuse a workload that contradicts itself; otherwise return one sentence per thing worth knowing.

    Raises:
        InputError: options that exclude each other.
    """
    method, steps = workload.method, workload.batch.gradient_accumulation_steps
    if method.update == "per-layer" and steps > 1 and method.implementation == "galore-torch":
        raise InputError(
            f"--update per-layer with --grad-accumulation {steps} is impossible under galore-torch",
            "its hooks step on every micro-batch, and the Hugging Face Trainer refuses the combination",
            "use --grad-accumulation 1, or --implementation galore-mem",
        )
    if method.master_weights and workload.precision != "bf16":
        raise InputError(
            f"--master-weights means nothing with --precision {workload.precision}",
            "its weights are fp32 already",
            "leave it out, or use --precision bf16",
        )
    if method.master_weights and method.update == "per-layer":
        raise InputError(
            "--master-weights cannot run with --update per-layer",
            "gradients are cast to fp32 all together, before the step",
            "leave one of them out",
        )
    if workload.loss == "chunked" and not takes_chunked_loss(workload.model):
        raise InputError(
            "--loss chunked cannot run here",
            f"it is made for LLaMA's relatives, not for {workload.model.model_type}",
            "leave it out",
        )
    if workload.model.model_type == "t5" and method.parameterisation == "low-rank" and _factors_output(workload):
        raise InputError(
            "--method low-rank cannot replace wo, the last layer of T5's MLP",
            "transformers asks for its weight, and two factors have none",
            "name other layers: --target-modules q k v o wi",
        )
    if method.quantised:
        _refuse_unquantised(workload.model)
    if workload.autocast and workload.precision != "bf16":
        raise InputError(
            f"--autocast means nothing with --precision {workload.precision}",
            "it goes with bf16 weights, and amp-bf16 and amp-fp16 run under it already",
            "leave it out, or use --precision bf16",
        )
    if method.adapter_dtype == "bf16" and workload.precision != "bf16":
        raise InputError(
            f"--adapter-dtype bf16 cannot run with --precision {workload.precision}",
            "adapters beside fp32 weights are fp32",
            "leave one of them out",
        )
    if method.update == "per-layer" and method.states_on == "host":
        raise InputError(
            f"--update per-layer means nothing to {method.name}",
            "it copies gradients to the host and steps them all together there",
            "leave it out, or use --method adamw --update per-layer",
        )
    check_data_parallel(workload)
    if workload.allocator_settings:
        from estimators.allocator.parse import parse_settings

        if parse_settings(workload.allocator_settings).backend != "native":
            raise InputError(
                f"{workload.allocator_settings} is not planned", "its pool lives in the driver", "leave backend out"
            )
    notes = (
        _eager_only(workload),
        _window(workload),
        _rank(workload),
        _positions(workload),
        _half_precision(workload, gpu),
        _segments(workload, gpu),
        _clipping(workload),
        _elsewhere(workload),
        _routing(workload),
        _experts(workload),
        _no_evaluation(workload),
        _resuming(workload),
        _data_parallel(workload),
    )
    return tuple(note for note in notes if note)


def _refuse_unquantised(model: ModelShape) -> None:
    """Refuse four-bit weights where no plan covers them.

    Raises:
        InputError: says why.
    """
    covered = not isinstance(model, UncoveredShape)
    reason = family_of(model.model_type).not_quantised if covered else "no closed form covers the model"
    if reason:
        raise InputError(
            f"--method qlora cannot be planned for {model.name}", reason, "use --method lora, or another model"
        )


def check_data_parallel(workload: Workload) -> None:
    """Refuse what cannot train on several GPUs under DistributedDataParallel.

    Raises:
        InputError: names the option that cannot.
    """
    method, gpus = workload.method, workload.data_parallel
    if gpus == 1:
        return
    if method.update == "per-layer":
        raise InputError(
            f"--update per-layer cannot run with --data-parallel {gpus}",
            "it steps each parameter before its gradient is averaged over the GPUs; the Trainer refuses it too",
            "use --update whole; --gradient-as-bucket-view keeps gradients only once",
        )
    if method.states_on == "host":
        raise InputError(
            f"--method {method.name} cannot run with --data-parallel {gpus}",
            "it copies each gradient to the host before that is averaged over the GPUs",
            "use --method paged-adamw-8bit, or --data-parallel 1",
        )
    if method.master_weights:
        raise InputError(
            f"--master-weights with --data-parallel {gpus} is not planned",
            "Megatron-Core averages gradients in buffers of its own, not in those of DistributedDataParallel",
            "leave one of them out",
        )
    if workload.gradient_as_bucket_view and (method.implementation, method.name) == (
        "galore-torch",
        "galore-adamw-8bit",
    ):
        raise InputError(
            "--gradient-as-bucket-view with galore_torch's 8-bit AdamW is not planned",
            "it puts other tensors in the place of gradients, which then are no views any longer",
            "use --implementation galore-mem, or leave --gradient-as-bucket-view out",
        )


_UNTOUCHED = {
    "galore": "GaLore projects none of them, and {share:.0%} of the parameters keep full-size states",
    "lora": "LoRA adapts none of them, and {share:.0%} of the parameters stay as they are",
    "relora": "ReLoRA adapts none of them: {share:.0%} of the parameters are trained in full",
    "low-rank": "none of them is factored: {share:.0%} of the parameters are trained in full",
}


def _expert_share(workload: Workload) -> float:
    """Of all parameters, how many are experts'."""
    if isinstance(workload.model, UncoveredShape):
        return 0.0
    sizes = {True: 0, False: 0}
    for group in model_parameters(workload.model):
        sizes[group.kind == "expert"] += group.numel * group.count
    return sizes[True] / sum(sizes.values())


def _experts(workload: Workload) -> str:
    share, kind = _expert_share(workload), workload.method.parameterisation
    if not share or kind == "full":
        return ""
    name = workload.model.name
    return f"{name} keeps its experts as stacks of matrices: {_UNTOUCHED[kind].format(share=share)}"


def _routing(workload: Workload) -> str:
    if not _expert_share(workload):
        return ""
    return (
        f"{workload.model.name} runs all experts in one grouped product, transformers' default: memory is the same "
        "whichever experts tokens choose"
    )


def _factors_output(workload: Workload) -> bool:
    return any(group.name.endswith(".wo.A.weight") for group in workload_parameters(workload))


def _clipping(workload: Workload) -> str:
    if not workload.clip or workload.method.update != "per-layer":
        return ""
    return "with --update per-layer gradients never exist together, so --clip clips nothing and adds nothing"


def _resuming(workload: Workload) -> str:
    method = workload.method
    if workload.resume == "none":
        return ""
    if method.unpaged:
        return (
            f"bitsandbytes loads paged states as ordinary tensors: after resuming, {method.name} holds them on the card"
        )
    if workload.resume == "cpu" and method.parameterisation == "galore" and method.implementation == "galore-torch":
        return "galore_torch leaves its projectors where the checkpoint was mapped: after --resume cpu its step fails"
    return ""


def _data_parallel(workload: Workload) -> str:
    if workload.data_parallel == 1:
        unused = [
            option
            for option, given in (
                ("--gradient-as-bucket-view", workload.gradient_as_bucket_view),
                ("--bucket-cap-mb", workload.bucket_cap_mb is not None),
            )
            if given
        ]
        return f"{' and '.join(unused)} says nothing without --data-parallel: there are no buckets" if unused else ""
    return (
        f"--data-parallel {workload.data_parallel}: figures are those of each GPU; what NCCL holds outside of torch's "
        "allocator is unknown before it runs, and in the upper bound only"
    )


def _no_evaluation(workload: Workload) -> str:
    if workload.eval_batch is not None or (workload.eval_seq, workload.eval_keep) == (None, None):
        return ""
    given = "--eval-seq" if workload.eval_seq is not None else "--eval-keep"
    return f"{given} says nothing without --eval-batch: no evaluation runs"


def _elsewhere(workload: Workload) -> str:
    """States that torch's allocator never sees."""
    method = workload.method
    if method.states_on == "device" or isinstance(workload.model, UncoveredShape):
        return ""
    gib = host_bytes(workload) / GIB
    if method.states_on == "paged":
        return (
            f"{gib:.2f} GiB of paged states are in no figure: CUDA keeps them on the card while there is room, and "
            "moves them to the host otherwise, which steps then wait for"
        )
    return f"{gib:.2f} GiB of host memory hold copies of weights and gradients, and all states: the CPU steps them"


def host_bytes(workload: Workload) -> int:
    """What the optimizer keeps outside of torch's allocator."""
    groups = workload_parameters(workload)
    states = (state for group in groups for state in group_states(group, workload.method))
    return sum(state.exact_bytes for state in states if state.on_host)


def closed_form_notes(workload: Workload, *, is_replayed: bool = False) -> tuple[str, ...]:
    """What the closed form leaves out of a workload, one sentence each; a replay follows the allocator's settings."""
    return tuple(note for note in (_settings(workload, is_replayed), _emptied(workload)) if note)


def _emptied(workload: Workload) -> str:
    if workload.empty_cache == "none":
        return ""
    left = between_steps_bytes(workload) / GIB
    where = f"between steps {left:.2f} GiB stay reserved, and " if workload.empty_cache == "step" else ""
    return (
        f"--empty-cache {workload.empty_cache} leaves the peak as it is: {where}every step asks the driver anew for "
        "the rest, and waits for the GPU each time; galore-mem trace shows what it changes of reserved memory"
    )


def _settings(workload: Workload, is_replayed: bool) -> str:
    if not workload.allocator_settings:
        return ""
    if is_replayed:
        return (
            f"what is replayed is replayed under {workload.allocator_settings}; what the closed form says besides, how "
            "far a run could go included, is for the allocator's default settings"
        )
    return (
        f"a plan is for the allocator's default settings: galore-mem trace shows what {workload.allocator_settings} "
        "changes of reserved memory"
    )


def _window(workload: Workload) -> str:
    """Why another kernel runs from so many tokens on."""
    model = workload.model
    if isinstance(model, UncoveredShape) or not window_is_reached(workload) or is_eager(workload):
        return ""
    sliding = model.layer_kinds.count(SLIDING)
    return (
        f"from {model.sliding_window:,} tokens on {sliding} of {model.num_hidden_layers} layers take a mask for their "
        "sliding window; flash attention takes none, and transformers repeats key and value heads beside it"
    )


def _eager_only(workload: Workload) -> str:
    """Soft caps and sinks: torch's SDPA has neither, and transformers' classes say so (`_supports_sdpa`)."""
    model = workload.model
    if not isinstance(model, ConfiguredShape) or model.attention_code != "eager":
        return ""
    lacks, other = ("cannot cap scores", "the flash-attn package can cap them")
    if model.model_type == "gpt_oss":
        lacks, other = ("has no sinks", "flash kernels from the Hub have them")
    return (
        f"transformers runs {model.model_type} with eager attention, for SDPA {lacks}: every layer keeps whole score "
        f"matrices; {other}, keep none, and are not counted here"
    )


def _rank(workload: Workload) -> str:
    """GaLore and low-rank factors cap the rank at the smaller side; peft's LoRA does not."""
    rank = workload.method.rank
    if (
        isinstance(workload.model, UncoveredShape)
        or rank is None
        or workload.method.parameterisation not in ("galore", "low-rank")
    ):
        return ""
    capped = _capped(workload, rank)
    if not capped:
        return ""
    widest = max(min(group.shape) for group in capped)
    matrices = sum(group.count for group in capped)
    targets = f"{matrices} target {'matrix' if matrices == 1 else 'matrices'}"
    return f"rank {rank} is above the smaller side of {targets} (at most {widest}) and is capped there"


def _capped(workload: Workload, rank: int) -> list[ParameterGroup]:
    if workload.method.parameterisation == "galore":
        return [group for group in workload_parameters(workload) if group.projected and min(group.shape) < rank]
    return [
        group for group in workload_parameters(workload) if group.name.endswith(".A.weight") and group.shape[0] < rank
    ]


def _positions(workload: Workload) -> str:
    tokens, limit = workload.batch.sequence_length, workload.model.max_position_embeddings
    if tokens <= limit:
        return ""
    return f"{tokens} tokens are more than the {limit} positions that {workload.model.name} was made for"


def _half_precision(workload: Workload, gpu: Gpu | None) -> str:
    if gpu is None or "bf16" not in workload.precision or not _before_ampere(gpu):
        return ""
    return f"{gpu.name} has no bf16 arithmetic (compute capability {gpu.compute_capability}): torch emulates it, slowly"


def _segments(workload: Workload, gpu: Gpu | None) -> str:
    """What torch does with expandable segments on AMD's cards (c10/cuda/CUDAAllocatorConfig.h of 2.11 and of 2.13)."""
    if gpu is None or gpu.vendor != "amd" or not workload.allocator_settings:
        return ""
    from estimators.allocator.parse import parse_settings

    if not parse_settings(workload.allocator_settings).expandable_segments:
        return ""
    return (
        f"on {gpu.name} expandable segments need torch 2.12 or later, built with ROCm 7 or later: others warn "
        "(expandable_segments not supported on this platform), and keep the default segments"
    )


def _before_ampere(gpu: Gpu) -> bool:
    return gpu.vendor == "nvidia" and float(gpu.compute_capability) < 8.0
