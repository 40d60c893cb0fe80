"""LLaMA and its relatives: RMSNorm, grouped-query attention with rotary positions, RMSNorm, gated MLP.

The program follows transformers 5 line by line (models/llama/modeling_llama.py).
"""

from estimators.analytic.families.family import Family
from estimators.analytic.shadow.norms import rms_norm
from estimators.analytic.shadow.ops import add, cast, embedding, multiply, relayout, rotate, scale, silu
from estimators.analytic.shadow.program import HIDDEN, Program
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.shadow.weights import Weight, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.analytic.tensors import Tensors
from profiles.shapes import ModelShape

ATTENTION, MLP = "model.layers.*.self_attn", "model.layers.*.mlp"
_FP32_BYTES = 4


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter that transformers builds, in the order of `named_parameters`."""
    found = [
        table("model.embed_tokens"),
        *linear(f"{ATTENTION}.q_proj", "q", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.k_proj", "k", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.v_proj", "k", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.o_proj", "h", "q", bias=shape.output_bias),
    ]
    if shape.qk_norm:
        found += [*norm(f"{ATTENTION}.q_norm", "d"), *norm(f"{ATTENTION}.k_norm", "d")]
    found += [
        *linear(f"{MLP}.gate_proj", "f", "h", bias=shape.mlp_bias),
        *linear(f"{MLP}.up_proj", "f", "h", bias=shape.mlp_bias),
        *linear(f"{MLP}.down_proj", "h", "f", bias=shape.mlp_bias),
        *norm("model.layers.*.input_layernorm"),
        *norm("model.layers.*.post_attention_layernorm"),
        *norm("model.norm"),
    ]
    if not shape.tie_word_embeddings:
        found.append(Weight(name="lm_head.weight", dims=("v", "h"), role="head"))
    return tuple(found)


def rotary_buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """The rotary embedding's inverse frequencies, twice, one pair for the whole model.

    Both have `head_dim / 2` elements for every `rope_type` (modeling_llama.py, `LlamaRotaryEmbedding`), are not
    persistent, and stay fp32 when a model is built or loaded in bf16. `model.to(torch.bfloat16)` casts them as well,
    which changes nothing on the device up to `head_dim` 256: the allocator rounds both sizes up to 512 B.
    """
    nbytes = shape.head_dim // 2 * _FP32_BYTES
    return tuple(
        Tensors(name=f"model.rotary_emb.{name}", nbytes=nbytes, category="buffers", formula="2d")
        for name in ("inv_freq", "original_inv_freq")
    )


class Llama(Program):
    """The decoder."""

    @property
    def rotary(self) -> str:
        """The symbol of the elements of a head that positions turn."""
        return "d"

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Hidden states after the last norm, and the key-value cache."""
        embedded = self.entered(embedding(self.tape, self.weight("model.embed_tokens"), HIDDEN, "embed_tokens"))
        position_ids = self.tape.empty(("s",), 8, "position ids", "inputs")  # noqa: F841
        mask = self.causal_mask()
        hidden = embedded
        cos, sin = self.positions(hidden)
        cache: list[Tensor] = []
        for index in range(self.structure.layers):
            hidden = self.inside(index, self.decoder, hidden, cos, sin, mask, cache)
        self.outside()
        hidden = self.last_norm(hidden)
        return hidden, cache

    def last_norm(self, hidden: Tensor) -> Tensor:
        """The norm behind all layers."""
        with self.named("norm"):
            return rms_norm(hidden, self.weight("model.norm"))

    def positions(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for every position, once for all layers."""
        tape, width = self.tape, ("s", self.rotary)
        freqs = tape.empty(("s", f"{self.rotary}/2"), 4, "rotary angles")  # noqa: F841
        angles = tape.empty(width, 4, "rotary angles twice")  # noqa: F841
        cos = scale(tape.empty(width, 4, "cos raw"), "cos scaled")
        sin = scale(tape.empty(width, 4, "sin raw"), "sin scaled")
        return cast(cos, hidden.itemsize, "cos"), cast(sin, hidden.itemsize, "sin")

    def decoder(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]) -> Tensor:
        """One decoder layer."""
        residual = hidden
        with self.named("input_layernorm"):
            hidden = rms_norm(hidden, self.weight("model.layers.*.input_layernorm"))
        with self.named("self_attn"):
            hidden, _ = self.attention(hidden, cos, sin, mask, cache)
        with self.named("residual"):
            hidden = add(residual, hidden, "after attention")
        residual = hidden
        with self.named("post_attention_layernorm"):
            hidden = rms_norm(hidden, self.weight("model.layers.*.post_attention_layernorm"))
        with self.named("mlp"):
            hidden = self.mlp(hidden)
        with self.named("residual"):
            return add(residual, hidden, "after mlp")

    def attention(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Grouped-query attention with rotary positions."""
        s = self.structure
        query = self.head_norm(relayout(self.linear(hidden, f"{ATTENTION}.q_proj"), "b", "n", "s", "d"), "q_norm")
        key = self.head_norm(relayout(self.linear(hidden, f"{ATTENTION}.k_proj"), "b", "g", "s", "d"), "k_norm")
        value = self.linear(hidden, f"{ATTENTION}.v_proj")
        value = relayout(value, "b", "g", "s", "d") if s.kernel in ("math", "eager") else value.view("b", "g", "s", "d")
        query, key = rotate(query, cos, sin, "q"), rotate(key, cos, sin, "k")
        if s.use_cache and not s.checkpointing:
            key, value = self.cached(key, "k cached"), self.cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        out, weights = self.attend(query, key, value, mask)
        return self.linear(out, f"{ATTENTION}.o_proj"), weights

    def head_norm(self, x: Tensor, name: str) -> Tensor:
        """RMSNorm over each head, where the model has it."""
        if not self.has(f"{ATTENTION}.{name}"):
            return x
        with self.named(name):
            return rms_norm(x, self.weight(f"{ATTENTION}.{name}"))

    def mlp(self, x: Tensor) -> Tensor:
        """Gated MLP."""
        gated = multiply(
            silu(self.linear(x, f"{MLP}.gate_proj"), "activation"), self.linear(x, f"{MLP}.up_proj"), "gated"
        )
        return self.linear(gated, f"{MLP}.down_proj")


FAMILY = Family(
    weights=weights, program=Llama, buffers=rotary_buffers, last_product=f"{MLP}.down_proj", chunked_loss=True
)
