"""What every family's tests need: a workload from a small config, and the trace as its judge."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from estimators.workload import Workload

AlikeTrace = Callable[[Workload], None]
MakeWorkload = Callable[..., Workload]
SCALAR_BYTES = 512
SCALARS = 8
"""One-element tensors that a trace shows and the closed form leaves out, at any one moment."""
STEADY_PCT = 0.2
"""Of the traced peak: how far a category may be where totals agree: two points may be nearly as high."""

GRID: tuple[dict[str, Any], ...] = (
    {},
    {"batch": 2, "dropout": 0.1},
    {"precision": "fp32", "attention": "efficient", "padding": True, "batch": 2},
    {"precision": "amp-bf16", "batch": 2},
    {"precision": "amp-bf16", "checkpointing": "full"},
    {"checkpointing": "full", "batch": 2},
    {"attention": "math"},
    {"attention": "math", "batch": 2, "precision": "fp32", "dropout": 0.1},
    {"attention": "eager", "batch": 2},
    {"attention": "eager", "precision": "amp-bf16", "dropout": 0.1},
    {"grad_accumulation": 3},
    {"keep_outputs": True, "use_cache": True, "batch": 2},
    {"method": "lora", "rank": 4},
    {"method": "lora", "rank": 4, "checkpointing": "full", "precision": "fp32"},
    {"method": "low-rank", "rank": 4},
    {"method": "galore-adamw", "rank": 8, "update": "per-layer"},
    {"method": "adamw-8bit", "batch": 2},
)
"""Ways to run a step, one of each: what a family's program must honour."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `run` runs for every entry of the grid, those of `likeness` for what a module names."""
    if "run" in metafunc.fixturenames:
        metafunc.parametrize("run", GRID, ids=_words)
    shared = metafunc.function.__module__.endswith("likeness")
    if shared and "way" in metafunc.fixturenames:
        metafunc.parametrize("way", metafunc.module.RUNS, ids=_words)
    if shared and "change" in metafunc.fixturenames:
        variants = metafunc.module.VARIANTS
        named = isinstance(variants, dict)
        metafunc.parametrize("change", variants.values() if named else variants, ids=variants if named else _words)


def _words(run: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in run.items())


@pytest.fixture
def workload_of() -> MakeWorkload:
    """`workload_of(config, method="sgd", **settings)`: a workload of a `config.json`'s content, 64 tokens long."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from benchmarks.ledger_diff import workload_of as make

    def made(config: dict[str, Any], method: str = "sgd", **settings: Any) -> Workload:  # noqa: ANN401
        return make(config, "small", method=method, **settings)

    return made


@pytest.fixture
def assert_like_trace() -> AlikeTrace:
    """Holds the closed form to the trace: what stays to the byte, every steady moment's categories but for scalars."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from benchmarks.ledger_diff import compare, printed

    def check(workload: Workload) -> None:
        found = compare(workload)
        told = "\n".join(printed(found))
        slack = SCALARS * SCALAR_BYTES
        assert not found.resident_apart_bytes, told
        assert abs(found.analytic.peak_live_bytes - found.traced_live_bytes) <= slack, told
        steady = [row for row in found.rows if row.moment.startswith("steady")]
        allowed = max(slack, STEADY_PCT / 100 * found.traced_live_bytes)
        assert all(abs(row.apart_bytes) <= (allowed if row.category else slack) for row in steady), told

    return check


SavedBytes = Callable[[Workload, str], int]


@pytest.fixture
def saved_by_hooks() -> SavedBytes:
    """Bytes of distinct storages that a real CPU model's forward saves for backward, parameters and inputs left out."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from galore_mem.training.attention import register
    from galore_mem.training.model import build_model
    from galore_mem.training.step import Batcher

    def saved(workload: Workload, kernel: str) -> int:
        register(kernel, nullcontext)
        backend = [SDPBackend.MATH] if kernel == "math" else [SDPBackend.FLASH_ATTENTION]
        model, batch = build_model(workload, None), Batcher(workload, "cpu")()
        known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *batch.values())}
        found: dict[int, int] = {}
        alive = []

        def pack(tensor: Any) -> Any:  # noqa: ANN401
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                found[storage.data_ptr()] = storage.nbytes()
                alive.append(storage)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), sdpa_kernel(backend):
            model(**batch, use_cache=False)
        return sum(found.values())

    return saved


@pytest.fixture(scope="session")
def assert_like_transformers() -> Callable[[dict[str, Any]], None]:
    """Holds a config's parameters, in name, order and number, and its buffers to the model that transformers builds."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from estimators.analytic.buffers import buffers
    from estimators.analytic.parameters import model_parameters, parameter_count
    from estimators.analytic.tensors import exact_bytes
    from profiles.configs import shape_from_config

    def check(config: dict[str, Any]) -> None:
        shape = shape_from_config(config, "drawn")
        with torch.device("meta"):
            real = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
        groups = model_parameters(shape)
        layer = next(group.name for group in groups if "*" in group.name).partition("*")[0]
        names = {name: tuple(weight.shape) for name, weight in real.named_parameters()}
        first = {name: size for name, size in names.items() if layer not in name or f"{layer}0." in name}
        assert list({group.name.replace("*", "0"): group.shape for group in groups}.items()) == list(first.items())
        assert parameter_count(shape) == sum(weight.numel() for weight in real.parameters())
        assert exact_bytes(buffers(shape)) == sum(buffer.nbytes for buffer in real.buffers())

    return check
