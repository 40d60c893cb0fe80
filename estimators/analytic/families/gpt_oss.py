"""GPT-OSS: experts with biases and a clamped gate, attention with a learned sink for each head.

The program follows transformers 5 line by line (models/gpt_oss/modeling_gpt_oss.py).
"""

from dataclasses import replace

from estimators.analytic.families import moe
from estimators.analytic.families.llama import ATTENTION, MLP, Llama
from estimators.analytic.shadow import attention as kernels
from estimators.analytic.shadow.clamped import clamped_gate
from estimators.analytic.shadow.experts import Biases, grouped, route_by_logits
from estimators.analytic.shadow.norms import rms_norm_in_fp32
from estimators.analytic.shadow.ops import add, cast, relayout, repeat, scale
from estimators.analytic.shadow.sinks import attend_with_sinks, rotate_halves
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.shadow.weights import Weight, head, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.analytic.windows import played_layers
from profiles.shapes import FULL, SLIDING, ModelShape


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter that transformers builds, in the order of `named_parameters`."""
    experts = f"{MLP}.experts"
    found = [
        table("model.embed_tokens"),
        Weight(name=f"{ATTENTION}.sinks", dims=("n",), role="bias"),
        *linear(f"{ATTENTION}.q_proj", "q", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.k_proj", "k", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.v_proj", "k", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.o_proj", "h", "q", bias=shape.output_bias),
        Weight(name=f"{MLP}.router.weight", dims=("E", "h"), role="router"),
        Weight(name=f"{MLP}.router.bias", dims=("E",), role="bias"),
        Weight(name=f"{experts}.gate_up_proj", dims=("E", "h", "2m"), role="expert"),
        Weight(name=f"{experts}.gate_up_proj_bias", dims=("E", "2m"), role="bias"),
        Weight(name=f"{experts}.down_proj", dims=("E", "m", "h"), role="expert"),
        Weight(name=f"{experts}.down_proj_bias", dims=("E", "h"), role="bias"),
        *norm("model.layers.*.input_layernorm"),
        *norm("model.layers.*.post_attention_layernorm"),
        *norm("model.norm"),
    ]
    return (*found, *head(tied=shape.tie_word_embeddings))


def masks(shape: ModelShape) -> tuple[str, ...]:
    """Both, whatever the layers take."""
    return FULL, SLIDING


class GptOss(Llama):
    """The decoder."""

    def normalised(self, x: Tensor, path: str) -> Tensor:
        """RMSNorm whose weight is applied in fp32."""
        with self.named(path.rpartition(".")[2]):
            return rms_norm_in_fp32(x, self.weight(path))

    def positions(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for every position, for one half of each head: the other half has the same."""
        tape, half = self.tape, ("s", "d/2")
        freqs = tape.empty(half, 4, "rotary angles")  # noqa: F841
        cos = scale(tape.empty(half, 4, "cos raw"), "cos scaled")
        sin = scale(tape.empty(half, 4, "sin raw"), "sin scaled")
        return cast(cos, hidden.itemsize, "cos"), cast(sin, hidden.itemsize, "sin")

    def decoder(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]) -> Tensor:
        """One decoder layer."""
        residual = hidden
        hidden = self.normalised(hidden, "model.layers.*.input_layernorm")
        with self.named("self_attn"):
            hidden, scores = self.attention(hidden, cos, sin, mask, cache)
        with self.named("residual"):
            hidden = add(residual, hidden, "after attention")
        residual = hidden
        hidden = self.normalised(hidden, "model.layers.*.post_attention_layernorm")
        with self.named("mlp"):
            hidden, scores = self.routed(hidden)
        with self.named("residual"):
            hidden = add(residual, hidden, "after mlp")
        del scores
        return hidden

    def attention(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Grouped-query attention with rotary positions and sinks."""
        s = self.structure
        query = relayout(self.linear(hidden, f"{ATTENTION}.q_proj"), "b", "n", "s", "d")
        key = relayout(self.linear(hidden, f"{ATTENTION}.k_proj"), "b", "g", "s", "d")
        value = relayout(self.linear(hidden, f"{ATTENTION}.v_proj"), "b", "g", "s", "d")
        query, key = rotate_halves(query, cos, sin, "q"), rotate_halves(key, cos, sin, "k")
        if s.use_cache and not s.checkpointing:
            key, value = self.cached(key, "k cached"), self.cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        assert mask is not None
        if s.grouped:
            keys = repeat(key, kernels.HEADS, "k repeated")
            values = repeat(value, kernels.HEADS, "v repeated")
        else:
            keys, values = key, value
        sinks = self.weight(ATTENTION, "sinks")
        out, weights = attend_with_sinks(
            query,
            keys,
            values,
            mask,
            sinks,
            batched=s.batched,
            foldable=s.grouped or len(cache) > 0,
            probability=s.dropout,
            autocast=s.autocast,
        )
        del keys, values
        return self.linear(out, f"{ATTENTION}.o_proj"), weights

    def routed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The router, and the experts that it chose; their weights are returned, too."""
        autocast, path = self.structure.autocast, f"{MLP}.experts"
        with self.named("router"):
            router = self.weight(f"{MLP}.router"), self.weight(f"{MLP}.router", "bias")
            _logits, chosen, index = route_by_logits(x, *router, autocast=autocast)
        with self.named("experts"):
            biases = Biases(self.weight(path, "gate_up_proj_bias"), self.weight(path, "down_proj_bias"), clamped_gate)
            out = grouped(x, chosen, index, self.weight(path, "gate_up_proj"), self.weight(path, "down_proj"), biases)
        return out, chosen


FAMILY = replace(
    moe.FAMILY, weights=weights, program=GptOss, traits=lambda workload: None, played_layers=played_layers, masks=masks
)
