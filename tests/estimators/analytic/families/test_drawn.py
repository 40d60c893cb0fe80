"""Models drawn at random from families with LayerNorm against their traces."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from estimators.workload import Workload

IDS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1}
HEADS = st.sampled_from([(3, 16), (5, 8), (2, 24)])
PLACES: dict[str, tuple[str, str, str]] = {
    "gpt2": ("n_embd", "n_head", "n_layer"),
    "bloom": ("hidden_size", "n_head", "n_layer"),
    "gpt_neox": ("hidden_size", "num_attention_heads", "num_hidden_layers"),
    "opt": ("hidden_size", "num_attention_heads", "num_hidden_layers"),
    "phi": ("hidden_size", "num_attention_heads", "num_hidden_layers"),
    "falcon": ("hidden_size", "num_attention_heads", "num_hidden_layers"),
}
SCALARS_BYTES = 8 * 512
"""One-element tensors that a trace shows and the closed form leaves out."""
DROPOUTS = {"gpt2": "resid_pdrop", "phi": "resid_pdrop", "opt": "dropout"}
"""What each calls the dropout before its sums; `hidden_dropout` elsewhere."""


@st.composite
def runs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    family = draw(st.sampled_from(sorted(PLACES)))
    (heads, width), (hidden, count, layers) = draw(HEADS), PLACES[family]
    config = IDS | {
        "model_type": family,
        hidden: heads * width,
        count: heads,
        layers: draw(st.integers(1, 5)),
        "vocab_size": draw(st.integers(700, 900)),
        "tie_word_embeddings": draw(st.booleans()),
        DROPOUTS.get(family, "hidden_dropout"): draw(st.sampled_from([0.0, 0.1])),
    }
    wide = {"gpt2": "n_inner", "opt": "ffn_dim", "falcon": "ffn_hidden_size"}.get(family, "intermediate_size")
    config |= {wide: draw(st.integers(150, 300))} if family != "bloom" else {}
    run = {
        "batch": draw(st.integers(1, 3)),
        "seq": draw(st.integers(40, 90)),
        "precision": draw(st.sampled_from(["bf16", "fp32", "amp-bf16"])),
        "checkpointing": draw(st.sampled_from(["none", "full"])) if family != "falcon" else "none",
    }
    return config, run


@settings(
    max_examples=6,
    derandomize=True,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(drawn=runs())
def test_peaks_of_drawn_models_are_those_of_their_traces(
    drawn: tuple[dict[str, Any], dict[str, Any]], workload_of: Callable[..., Workload]
) -> None:
    from benchmarks.ledger_diff import compare

    config, run = drawn
    found = compare(workload_of(config, **run))
    assert abs(found.analytic.peak_live_bytes - found.traced_live_bytes) <= SCALARS_BYTES
    assert not found.resident_apart_bytes
