"""The shadow step against real steps on CPU tensors, recorded without any dispatch mode."""

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from estimators.analytic.course import course_of, whole_course_of
from estimators.analytic.ledger import layer_ledger
from estimators.analytic.shadow.play import play
from estimators.analytic.structure import structure_of, symbol_sizes
from estimators.workload import Batch, Method, Workload
from profiles.configs import shape_from_config

if TYPE_CHECKING:
    import torch

torch = pytest.importorskip("torch")

# peft 0.21 asks transformers for a property under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

ALIGNMENT_BYTES = 512
SCALARS_BYTES = 1536
"""A few one-element tensors (CPU kernels' scalars, the detection of packed sequences) are left out of the shadow."""
SMALL_BYTES = 4096
CPU_KERNELS = (
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::add",
    "aten::mul",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
)
"""What they allocate through other operators and free themselves is scratch that CUDA's kernels do not have."""
NUMBER_BYTES = 8
"""A Python number as an operand: a tensor on the host, whatever the device."""
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "max_position_embeddings": 512,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A small real run and its shadow."""

    family: str = "llama"
    layers: int = 2
    config: tuple[tuple[str, Any], ...] = ()
    kernel: str = "cpu"
    precision: str = "bf16"
    batch: int = 2
    steps: int = 1
    tokens: int = 96
    method: Method = field(default_factory=Method)
    checkpointing: bool = False
    keep_outputs: bool = False
    use_cache: bool = False

    def __str__(self) -> str:
        changed = [
            f"{name}={getattr(self, name)}" for name in self.__slots__ if getattr(self, name) != getattr(CASE, name)
        ]
        return " ".join(part for part in changed if "method" not in part) + f" {self.method.name} {self.method.update}"

    @property
    def raw_config(self) -> dict[str, Any]:
        return {"model_type": self.family, **SIZES, "num_hidden_layers": self.layers, **dict(self.config)}

    @property
    def workload(self) -> Workload:
        return Workload(
            model=shape_from_config(self.raw_config, "small"),
            method=self.method,
            precision=self.precision,  # type: ignore[arg-type]
            batch=Batch(
                micro_batch_size=self.batch, sequence_length=self.tokens, gradient_accumulation_steps=self.steps
            ),
            checkpointing="full" if self.checkpointing else "none",
            keep_outputs=self.keep_outputs,
            use_cache=self.use_cache,
        )


CASE = Case()
MIXTRAL = (("num_local_experts", 5), ("num_experts_per_tok", 2))
QWEN3_MOE = (("num_experts", 6), ("num_experts_per_tok", 3), ("moe_intermediate_size", 136), ("head_dim", 32))
LORA = Method(name="lora", rank=8)
PHI3 = (("pad_token_id", 0), ("eos_token_id", 1))
GEMMA = (("head_dim", 48), ("pad_token_id", 0))
CASES = [
    CASE,
    Case(layers=1),
    Case(layers=5),
    Case(layers=5, method=Method(update="per-layer")),
    Case(precision="fp32"),
    Case(precision="fp32", batch=1),
    Case(precision="amp-bf16"),
    Case(precision="amp-bf16", layers=5),
    Case(precision="amp-bf16", layers=4, checkpointing=True),
    Case(precision="amp-bf16", method=Method(update="per-layer")),
    Case(batch=1),
    Case(steps=2),
    Case(steps=2, layers=4),
    Case(kernel="math"),
    Case(kernel="math", batch=1, precision="fp32"),
    Case(kernel="math", config=(("num_key_value_heads", 4),)),
    Case(kernel="eager"),
    Case(kernel="eager", batch=1),
    Case(kernel="eager", precision="fp32", config=(("num_key_value_heads", 4),)),
    Case(family="qwen2", config=(("tie_word_embeddings", True),)),
    Case(family="qwen3", config=(("head_dim", 48),)),
    Case(family="mistral", layers=3),
    Case(config=(("attention_bias", True), ("mlp_bias", True))),
    Case(config=(("tie_word_embeddings", True),)),
    Case(config=(("tie_word_embeddings", True),), method=Method(update="per-layer")),
    Case(keep_outputs=True),
    Case(use_cache=True, keep_outputs=True, layers=4),
    Case(use_cache=True),
    Case(checkpointing=True),
    Case(checkpointing=True, layers=5),
    Case(checkpointing=True, kernel="eager", precision="fp32"),
    Case(method=LORA),
    Case(method=LORA, layers=4, checkpointing=True),
    Case(method=Method(name="lora", rank=8, target_modules=("q_proj", "v_proj"))),
    Case(method=LORA, precision="fp32"),
    Case(family="mixtral", config=MIXTRAL),
    Case(family="mixtral", config=MIXTRAL, precision="fp32", checkpointing=True),
    Case(family="qwen3_moe", config=(*QWEN3_MOE, ("norm_topk_prob", True)), layers=4),
    Case(family="phi3", config=PHI3),
    Case(family="phi3", config=(*PHI3, ("partial_rotary_factor", 0.5)), precision="fp32"),
    Case(family="olmo2"),
    Case(family="olmo2", checkpointing=True, layers=5),
    Case(family="gemma", config=GEMMA, precision="amp-bf16"),
    Case(family="gemma2", kernel="eager", config=GEMMA),
    Case(family="gemma2", kernel="eager", config=GEMMA, checkpointing=True, precision="fp32"),
    Case(family="gemma3_text", config=GEMMA),
    Case(family="gemma3_text", config=(*GEMMA, ("sliding_window", 64)), layers=5, kernel="eager"),
    Case(family="mistral", layers=3, config=(("sliding_window", 64),), kernel="eager"),
    Case(family="mistral", layers=3, config=(("sliding_window", 64),)),
    Case(family="gemma3_text", config=(*GEMMA, ("sliding_window", 64), ("sliding_window_pattern", 2)), layers=4),
]


def build(case: Case) -> "torch.nn.Module":
    transformers: Any = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(**case.raw_config)
    config._attn_implementation = "eager" if case.kernel == "eager" else "sdpa"
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    model.to(torch.bfloat16 if case.precision == "bf16" else torch.float32)
    if case.method.name == "lora":
        peft = pytest.importorskip("peft")
        targets = list(case.method.target_modules)
        rank = case.method.rank
        model = peft.get_peft_model(
            model, peft.LoraConfig(r=rank, target_modules=targets[0] if targets == ["all-linear"] else targets)
        )
    if case.checkpointing:
        # The saved state of the random number generator lives on the host, which is the device here.
        model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    if case.method.update == "per-layer":
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(drop_gradient)
    model.train()
    built: torch.nn.Module = model
    return built


def drop_gradient(parameter: "torch.Tensor") -> None:
    parameter.grad = None


def step(case: Case, model: "torch.nn.Module") -> list[Any]:
    """The canonical step without an optimizer; returns what outlives it."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kept: list[Any] = []
    for _ in range(case.steps):
        ids = torch.randint(0, SIZES["vocab_size"], (case.batch, case.tokens))
        labels = ids.clone()
        backend = [SDPBackend.MATH] if case.kernel == "math" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
        with sdpa_kernel(backend):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case.precision.startswith("amp")):
                outputs = model(input_ids=ids, labels=labels, use_cache=case.use_cache)
                loss = outputs.loss
            kept = [ids, labels, loss, outputs if case.keep_outputs else None]
            del outputs
            loss.backward()
    return kept


def recorded(run: Callable[[], list[Any]]) -> list[int]:
    """Bytes born (positive) and dead (negative) during `run`, in order, without an operator's own scratch."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    gc.collect()
    gc.disable()  # garbage of earlier tests must not die in the recording
    try:
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            kept = run()
    finally:
        gc.enable()
    moves: list[tuple[int, int, int, tuple[str, int] | None]] = []

    def walk(event: Any, operator: tuple[str, int] | None) -> None:  # noqa: ANN401 torch's event has no public type
        if event.name == "[memory]":
            moves.append((event.start_time_ns, event.extra_fields.alloc_size, event.extra_fields.ptr, operator))
        inside = (event.name, event.start_time_ns) if event.name.startswith("aten::") else operator
        inside = operator if operator and operator[0].startswith(CPU_KERNELS) else inside
        for child in event.children:
            walk(child, inside)

    for root in profile.profiler.kineto_results.experimental_event_tree():
        walk(root, None)
    assert kept
    moves.sort(key=lambda move: move[0])
    born: dict[int, tuple[int, tuple[str, int] | None]] = {}
    scratch: set[int] = set()
    for index, (_, nbytes, pointer, operator) in enumerate(moves):
        if nbytes > 0:
            born[pointer] = (index, operator)
        elif pointer in born:
            birth, maker = born.pop(pointer)
            if maker is not None and maker == operator:
                scratch |= {birth, index}
    return [
        nbytes for index, (_, nbytes, _, _) in enumerate(moves) if index not in scratch and abs(nbytes) > NUMBER_BYTES
    ]


def aligned(nbytes: int) -> int:
    size = -(-abs(nbytes) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return size if nbytes > 0 else -size


def peak(moves: list[int]) -> int:
    total = largest = 0
    for nbytes in moves:
        total += aligned(nbytes)
        largest = max(largest, total)
    return largest


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_shadow_step_lives_and_dies_like_a_real_one(case: Case) -> None:
    model = build(case)
    step(case, model)
    model.zero_grad()
    real = recorded(lambda: step(case, model))

    course = course_of(case.workload, case.kernel)
    largest = max(point.total_bytes for point in course.peaks.values())
    assert largest == pytest.approx(peak(real), abs=SCALARS_BYTES)
    if case.layers <= 3:
        whole = whole_course_of(case.workload, case.kernel)
        shadow = [whole.sizes[code - 1] for code in whole.layout.played.events if code > 0]
        born = Counter(size for size in map(aligned, real) if size > SMALL_BYTES)
        assert Counter(size for size in shadow if size > SMALL_BYTES) == born


def test_memory_does_not_depend_on_the_experts_that_tokens_choose() -> None:
    """All tokens to the same experts, as a router of zeros sends them, take what spread tokens take."""
    case = Case(family="mixtral", config=MIXTRAL)
    recordings = []
    for spread in (True, False):
        model = build(case)
        if not spread:
            for name, parameter in model.named_parameters():
                if name.endswith("mlp.gate.weight"):
                    parameter.data.zero_()
        step(case, model)
        model.zero_grad()
        recordings.append(recorded(partial(step, case, model)))
    assert peak(recordings[0]) == peak(recordings[1])
    births = [Counter(size for size in moves if size > 0) for moves in recordings]
    assert births[0] == births[1]


LEDGER_CASES = [
    CASE,
    Case(precision="fp32"),
    Case(precision="amp-bf16"),
    Case(precision="amp-bf16", batch=1, config=(("num_key_value_heads", 4),)),
    Case(kernel="math"),
    Case(kernel="math", precision="fp32", batch=1),
    Case(kernel="eager"),
    Case(kernel="eager", batch=1, config=(("num_key_value_heads", 4),)),
    Case(kernel="eager", precision="fp32"),
    Case(family="qwen2"),
    Case(family="qwen3", config=(("head_dim", 48),)),
    Case(method=LORA),
    Case(method=Method(name="lora", rank=8, target_modules=("q_proj", "v_proj"))),
    Case(family="mixtral", config=MIXTRAL),
    Case(family="qwen3_moe", config=QWEN3_MOE),
    Case(family="phi3", config=PHI3),
    Case(family="phi3", config=(*PHI3, ("partial_rotary_factor", 0.5)), precision="amp-bf16"),
    Case(family="olmo2"),
    Case(family="olmo2", kernel="math", batch=1, precision="fp32"),
    Case(family="gemma", config=GEMMA),
    Case(family="gemma2", kernel="eager", config=GEMMA),
    Case(family="gemma2", kernel="eager", config=GEMMA, batch=1, precision="amp-bf16"),
    Case(family="gemma3_text", config=GEMMA),
    Case(family="gemma3_text", config=GEMMA, kernel="math", precision="fp32"),
]


@pytest.mark.parametrize("case", LEDGER_CASES, ids=str)
def test_the_ledger_of_a_layer_is_what_saved_tensors_hooks_see(case: Case) -> None:
    """Storages saved by a model of four layers, less those of one of three: exactly one layer's."""
    deep, shallow = (saved_bytes(replaced(case, layers)) for layers in (4, 3))
    assert sum(entry.exact_bytes for entry in layer_ledger(case.workload, case.kernel)) == deep - shallow


def replaced(case: Case, layers: int) -> Case:
    return replace(case, layers=layers)


def saved_bytes(case: Case) -> int:
    """Bytes of distinct storages that the forward saves, parameters left out."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model = build(case)
    owned = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}
    alive = []

    def pack(tensor: "torch.Tensor") -> "torch.Tensor":
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    ids = torch.randint(0, SIZES["vocab_size"], (case.batch, case.tokens))
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=case.precision.startswith("amp"))
    backend = [SDPBackend.MATH] if case.kernel == "math" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), sdpa_kernel(backend), autocast:
        model(input_ids=ids, labels=ids.clone(), use_cache=False)
    if case.checkpointing:  # its own hooks come first, and keep the inputs of the layers
        return (
            sum(saved.values())
            + case.layers * case.batch * case.tokens * SIZES["hidden_size"] * case.workload.weight_itemsize
        )
    return sum(saved.values())


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_checkpointed_layer_keeps_its_input(precision: str) -> None:
    case = Case(checkpointing=True, precision=precision)
    entries = layer_ledger(case.workload, case.kernel)
    assert [entry.name for entry in entries] == ["residual.after mlp"]
    assert entries[0].nbytes == case.batch * case.tokens * SIZES["hidden_size"] * case.workload.weight_itemsize


def test_symbols_cover_every_dimension() -> None:
    for case in CASES:
        sizes = symbol_sizes(case.workload)
        for kind in play(structure_of(case.workload, case.kernel)).kinds:
            assert all(dim in sizes for dim in kind.size.dims)
