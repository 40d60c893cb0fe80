"""OLMo 2: LLaMA's blocks with the norms behind them, and a norm over all queries and all keys.

The program follows transformers 5 line by line (models/olmo2/modeling_olmo2.py).
"""

from estimators.analytic.families.family import Family
from estimators.analytic.families.llama import ATTENTION, MLP, Llama, rotary_buffers
from estimators.analytic.shadow.norms import rms_norm_in_fp32
from estimators.analytic.shadow.ops import add, cast, relayout, rotate, scale
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.shadow.weights import Weight, head, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from profiles.shapes import ModelShape


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter that transformers builds, in the order of `named_parameters`."""
    found = [
        table("model.embed_tokens"),
        *linear(f"{ATTENTION}.q_proj", "q", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.k_proj", "k", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.v_proj", "k", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.o_proj", "h", "q", bias=shape.output_bias),
        *norm(f"{ATTENTION}.q_norm", "q"),
        *norm(f"{ATTENTION}.k_norm", "k"),
        *linear(f"{MLP}.gate_proj", "f", "h"),
        *linear(f"{MLP}.up_proj", "f", "h"),
        *linear(f"{MLP}.down_proj", "h", "f"),
        *norm("model.layers.*.post_attention_layernorm"),
        *norm("model.layers.*.post_feedforward_layernorm"),
        *norm("model.norm"),
    ]
    return (*found, *head(tied=shape.tie_word_embeddings))


class Olmo2(Llama):
    """The decoder."""

    def normalised(self, x: Tensor, path: str) -> Tensor:
        """RMSNorm, the product with its weight in fp32 too (`Olmo2RMSNorm`)."""
        with self.named(path.rpartition(".")[2]):
            return rms_norm_in_fp32(x, self.weight(path))

    def positions(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for every position, which stay in fp32."""
        tape, width = self.tape, ("s", "d")
        freqs = tape.empty(("s", "d/2"), 4, "rotary angles")  # noqa: F841
        angles = tape.empty(width, 4, "rotary angles twice")  # noqa: F841
        cos = scale(tape.empty(width, 4, "cos raw"), "cos")
        sin = scale(tape.empty(width, 4, "sin raw"), "sin")
        return cos, sin

    def decoder(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]) -> Tensor:
        """One decoder layer."""
        residual = hidden
        with self.named("self_attn"):
            hidden, _ = self.attention(hidden, cos, sin, mask, cache)
        hidden = self.normalised(hidden, "model.layers.*.post_attention_layernorm")
        with self.named("residual"):
            hidden = add(residual, hidden, "after attention")
        residual = hidden
        with self.named("mlp"):
            hidden = self.mlp(hidden)
        hidden = self.normalised(hidden, "model.layers.*.post_feedforward_layernorm")
        with self.named("residual"):
            return add(residual, hidden, "after mlp")

    def attention(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Grouped-query attention with rotary positions in fp32."""
        s = self.structure
        query = self.normalised(self.linear(hidden, f"{ATTENTION}.q_proj"), f"{ATTENTION}.q_norm")
        key = self.normalised(self.linear(hidden, f"{ATTENTION}.k_proj"), f"{ATTENTION}.k_norm")
        value = self.linear(hidden, f"{ATTENTION}.v_proj")
        query, key = relayout(query, "b", "n", "s", "d"), self.key_heads(key)
        value = self.value_heads(value, mask)
        query, key = self.turned(query, key, cos, sin)
        if s.use_cache and not s.checkpointing:
            key, value = self.cached(key, "k cached"), self.cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        out, weights = self.attend(query, key, value, mask)
        return self.linear(out, f"{ATTENTION}.o_proj"), weights

    def turned(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Both are turned in fp32 before either is cast back (`apply_rotary_pos_emb`)."""
        turned_query, turned_key = rotate(query, cos, sin, "q in fp32"), rotate(key, cos, sin, "k in fp32")
        return cast(turned_query, query.itemsize, "q"), cast(turned_key, key.itemsize, "k")


FAMILY = Family(
    weights=weights,
    program=Olmo2,
    buffers=rotary_buffers,
    last_product=f"{MLP}.down_proj",
    chunked_loss=True,
    takes_stand_ins=True,
)
