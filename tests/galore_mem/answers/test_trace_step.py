"""A person's own step, traced under a GPU's rules."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from galore_mem.errors import UsageError
from profiles.errors import InputError

torch = pytest.importorskip("torch")

Built = Callable[[], tuple[Any, Any, Callable[[], None]]]
BATCH, TOKENS, WIDTH, HEADS = 2, 64, 64, 4


def make(look: Callable[[Any], object] = lambda loss: None, device: str = "cpu") -> Built:
    def build() -> tuple[Any, Any, Callable[[], None]]:
        model = torch.nn.Sequential(torch.nn.Linear(4096, 4096), torch.nn.GELU(), torch.nn.Linear(4096, 10))
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)

        def step() -> None:
            loss = model(torch.randn(32, 4096, device=device)).square().mean()
            look(loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return model, optimizer, step

    return build


def categories(tape: Any) -> set[str]:  # noqa: ANN401
    events = tape.devices[0].events
    return {events.text("category", row) for row in range(len(events))}


def test_own_step_holds_weights_gradients_and_states() -> None:
    import galore_mem as gm

    result = gm.trace_step(make(), gpus=("4090", "h100"))
    weights = 4 * (4096 * 4096 + 4096 + 4096 * 10 + 10)
    assert result.footprint.peak_live_bytes == pytest.approx(5 * weights, rel=0.07)
    assert dict(result.footprint.resident_bytes)["weights"] == weights
    assert {"weights", "gradients", "optimizer_states", "activations", "temporaries"} <= categories(result.tape)
    assert result.footprint.peak.label == "steady step"
    content = json.loads(json.dumps(result.to_dict()))
    assert [(fit["gpu"], fit["verdict"]) for fit in content["fits"]] == [
        ("RTX 4090", "fits"),
        ("H100 80GB SXM", "fits"),
    ]
    assert content["allocator"]["what_ifs"][0]["peak_reserved_bytes"] == result.footprint.peak_reserved_bytes


def test_own_step_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    import galore_mem as gm
    from galore_mem.render.trace import print_trace

    print_trace(gm.trace_step(make(), gpus="4090"))
    out = capsys.readouterr().out
    assert "A step of your own" in out
    assert "RTX 4090: fits" in out


@pytest.mark.parametrize(
    "look",
    [lambda loss: loss.item(), lambda loss: bool(loss > 0), lambda loss: loss.nonzero(), lambda loss: loss.tolist()],
    ids=["item", "bool", "nonzero", "tolist"],
)
def test_needing_a_value_is_one_clear_line(look: Callable[[Any], object]) -> None:
    import galore_mem as gm

    with pytest.raises(UsageError, match=r"needs the values of a tensor \(aten\.") as caught:
        gm.trace_step(make(look))
    assert "\n" not in str(caught.value)


def test_values_may_be_given() -> None:
    import galore_mem as gm

    seen: list[float] = []
    gm.trace_step(make(lambda loss: seen.append(loss.item())), scalars=3.0)
    assert seen == [3.0, 3.0]


def test_asking_for_a_gpu_is_one_clear_line() -> None:
    import galore_mem as gm

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UsageError, match="leave devices at their default"):
        gm.trace_step(make(device="cuda"))


def test_make_must_return_three() -> None:
    import galore_mem as gm

    with pytest.raises(UsageError, match="must return"):
        gm.trace_step(lambda: (1, 2))  # type: ignore[arg-type, return-value]


def test_unknown_cards_and_settings_are_refused() -> None:
    import galore_mem as gm

    with pytest.raises(InputError):
        gm.trace_step(make(), gpus="4091x")
    with pytest.raises(InputError):
        gm.trace_step(make(), alloc_conf="no_such_setting:1")


class Block(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Attention by torch's own function, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(WIDTH, 3 * WIDTH)
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.drop = torch.nn.Dropout(0.1)

    def forward(self, x: Any) -> Any:  # noqa: ANN401
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.mix(self.norm(x)).chunk(3, -1))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.drop(out.transpose(1, 2).flatten(2))


def attending(dtype: Any, autocast: bool = False) -> Built:  # noqa: ANN401
    def build() -> tuple[Any, Any, Callable[[], None]]:
        model = Block().to(dtype)
        optimizer = torch.optim.SGD(model.parameters())

        def step() -> None:
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
                out = model(torch.randn(BATCH, TOKENS, WIDTH, dtype=dtype))
            out.float().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return model, optimizer, step

    return build


def made_by(tape: Any, operator: str) -> list[int]:  # noqa: ANN401
    events = tape.devices[0].events
    return [
        events.size[row]
        for row, action in enumerate(events.rows())
        if action[0] == "alloc" and events.text("operator", row) == operator
    ]


def test_attention_and_dropout_are_those_of_a_gpu() -> None:
    import galore_mem as gm

    tape = gm.trace_step(attending(torch.bfloat16)).tape
    out, sums, *seeds = made_by(tape, "fused_attention")[:4]
    assert out == 2 * BATCH * TOKENS * WIDTH
    assert sums == 4 * BATCH * TOKENS * HEADS
    assert seeds == [16, 8], "flash"
    assert BATCH * TOKENS * WIDTH in made_by(tape, "native_dropout"), "one byte for each element"
    assert made_by(gm.trace_step(attending(torch.float32)).tape, "fused_attention")[2:4] == [8, 8], "efficient"
    assert made_by(gm.trace_step(attending(torch.bfloat16), gpus="h100").tape, "fused_attention")[2:4] == [8, 8]


def test_autocast_for_cuda_is_not_lost() -> None:
    import galore_mem as gm

    tape = gm.trace_step(attending(torch.float32, autocast=True)).tape
    assert 2 * BATCH * TOKENS * 3 * WIDTH in made_by(tape, "addmm"), "bf16"
    assert 4 * BATCH * TOKENS * WIDTH in made_by(tape, "native_layer_norm"), "fp32"
    assert made_by(tape, "fused_attention")[2:4] == [16, 8], "flash, for bf16"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("method", ["adamw", "adamw-8bit", "galore-adamw"])
def test_canonical_step_of_ones_own_is_the_traced_one(method: str) -> None:
    transformers = pytest.importorskip("transformers")
    import galore_mem as gm
    from galore_mem.answers.settings import Settings, workloads
    from profiles.shapes import ModelShape

    shape = ModelShape(
        name="small",
        model_type="llama",
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        vocab_size=500,
        max_position_embeddings=128,
    )

    def build() -> tuple[Any, Any, Callable[[], None]]:
        config = transformers.LlamaConfig(
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=500,
            max_position_embeddings=128,
        )
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).train()
        optimizer = OPTIMIZERS[method](model)
        held: list[Any] = []

        def step() -> None:
            optimizer.zero_grad()
            ids = torch.randint(0, 500, (1, 64))
            held[:] = [{"input_ids": ids, "labels": ids.clone()}]
            held.append(model(**held[0], use_cache=False).loss)
            held[-1].backward()
            optimizer.step()
            held.clear()

        return model, optimizer, step

    (workload,) = workloads(shape, (method,), Settings(seq=64, rank=16 if method.startswith("galore") else None))
    own, usual = (
        gm.trace_step(build).footprint,
        gm.trace(workload).footprint,
    )
    assert own.resident_bytes == usual.resident_bytes
    peaks = {moment.label: moment.by_category for moment in usual.moments if moment.name not in ("step", "refresh")}
    for moment in own.moments:
        if moment.label in peaks:
            ours, theirs = moment.by_category, peaks[moment.label]
            assert sum(ours.values()) == sum(theirs.values()), moment.label
            # The gradient of the loss itself is made before torch says that backward runs.
            assert all(abs(ours.get(name, 0) - theirs[name]) <= 512 for name in theirs), moment.label
    assert "logits" in own.peak.by_category or "logits" in peaks["steady loss"]


def _adamw_8bit(model: Any) -> Any:  # noqa: ANN401
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(model.parameters())


def _galore(model: Any) -> Any:  # noqa: ANN401
    from galore_mem.optim import GaLoreAdamW
    from galore_mem.optim.groups import galore_param_groups

    return GaLoreAdamW(galore_param_groups(model, rank=16))


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), foreach=True),
    "adamw-8bit": _adamw_8bit,
    "galore-adamw": _galore,
}
