"""LLaMA and its relatives: RMSNorm, grouped-query attention with rotary positions, RMSNorm, gated MLP.

The program follows transformers 5 line by line (models/llama/modeling_llama.py).
"""

from estimators.analytic.families.family import Family
from estimators.analytic.families.rotary import inverse_frequencies
from estimators.analytic.shadow.norms import rms_norm
from estimators.analytic.shadow.ops import add, cast, embedding, multiply, relayout, rotate, scale, silu
from estimators.analytic.shadow.program import HIDDEN, Program
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.shadow.weights import Weight, head, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.analytic.tensors import Tensors
from estimators.analytic.windows import played_layers
from profiles.shapes import FULL, SLIDING, ModelShape

ATTENTION, MLP = "model.layers.*.self_attn", "model.layers.*.mlp"


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
    return (*found, *head(tied=shape.tie_word_embeddings))


def rotary_buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """The rotary embedding's."""
    return inverse_frequencies("model.rotary_emb", shape.head_dim)


class Llama(Program):
    """The decoder."""

    @property
    def rotary(self) -> str:
        """The symbol of the elements of a head that positions turn."""
        return "d"

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Hidden states after the last norm, and the key-value cache."""
        embedded = self.entered(self.embedded())
        position_ids = self.tape.empty(("s",), 8, "position ids", "inputs")
        masks = self.masks()
        hidden = embedded
        tables = self.tables(hidden)
        cache: list[Tensor] = []
        for index in range(self.structure.layers):
            kind = self.layer_type(index)
            hidden = self.inside(index, self.decoder, hidden, *tables[kind], masks[kind], cache, held=position_ids)
        self.outside()
        hidden = self.normalised(hidden, "model.norm")
        return hidden, cache

    def embedded(self) -> Tensor:
        """The tokens' embeddings."""
        return embedding(self.tape, self.weight("model.embed_tokens"), HIDDEN, "embed_tokens")

    def tables(self, hidden: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Cosines and sines by kind of layer: one pair for all."""
        return dict.fromkeys(self.structure.masks, self.positions(hidden))

    def normalised(self, x: Tensor, path: str) -> Tensor:
        """The family's norm; `path` names its weight."""
        with self.named(path.rpartition(".")[2]):
            return rms_norm(x, self.weight(path))

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
        hidden = self.normalised(hidden, "model.layers.*.input_layernorm")
        with self.named("self_attn"):
            hidden, _ = self.attention(hidden, cos, sin, mask, cache)
        with self.named("residual"):
            hidden = add(residual, hidden, "after attention")
        residual = hidden
        hidden = self.normalised(hidden, "model.layers.*.post_attention_layernorm")
        with self.named("mlp"):
            hidden = self.mlp(hidden)
        with self.named("residual"):
            return add(residual, hidden, "after mlp")

    def attention(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Grouped-query attention with rotary positions."""
        s = self.structure
        query, key, value = self.projected(hidden, mask)
        query, key = rotate(query, cos, sin, "q"), rotate(key, cos, sin, "k")
        if s.use_cache and not s.checkpointing:
            key, value = self.cached(key, "k cached"), self.cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        out, weights = self.attend(query, key, value, mask)
        return self.linear(out, f"{ATTENTION}.o_proj"), weights

    def projected(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values; queries and keys are normalised as they are made."""
        query = self.head_norm(relayout(self.linear(hidden, f"{ATTENTION}.q_proj"), "b", "n", "s", "d"), "q_norm")
        key = self.head_norm(self.key_heads(self.linear(hidden, f"{ATTENTION}.k_proj")), "k_norm")
        return query, key, self.value_heads(self.linear(hidden, f"{ATTENTION}.v_proj"), mask)

    def value_heads(self, value: Tensor, mask: Tensor | None) -> Tensor:
        """Values head by head: fused kernels' gradients come back in the linear layer's order, others are copied.

        So are those that were summed over query heads, where transformers repeated the values beside a mask, and those
        that flash and cuDNN lay out like values which a cache has copied (`empty_like`).
        """
        s, kernel = self.structure, self.kernel(mask)
        summed, cached = mask is not None and s.grouped, s.use_cache and not s.checkpointing
        if summed or kernel in ("math", "eager") or (cached and kernel in ("flash", "cudnn")):
            return self.key_heads(value)
        return value.view("b", "g", "s", "d")

    def key_heads(self, x: Tensor) -> Tensor:
        """Keys or values head by head, their gradient copied into the linear layer's order unless there is one head."""
        heads = ("b", "g", "s", "d")
        return x.view(*heads) if self.structure.single_head else relayout(x, *heads)

    def head_norm(self, x: Tensor, name: str) -> Tensor:
        """RMSNorm over each head, where the model has it."""
        return self.normalised(x, f"{ATTENTION}.{name}") if self.has(f"{ATTENTION}.{name}") else x

    def mlp(self, x: Tensor) -> Tensor:
        """Gated MLP."""
        gated = multiply(
            silu(self.linear(x, f"{MLP}.gate_proj"), "activation"), self.linear(x, f"{MLP}.up_proj"), "gated"
        )
        return self.linear(gated, f"{MLP}.down_proj")


def masks(shape: ModelShape) -> tuple[str, ...]:
    """Mistral makes the one that its layers take, Qwen a full one in any case and a sliding one where layers slide."""
    if shape.model_type == "mistral":
        return shape.layer_kinds[:1]
    return (FULL, SLIDING) if SLIDING in shape.layer_kinds else (FULL,)


FAMILY = Family(
    weights=weights,
    program=Llama,
    buffers=rotary_buffers,
    last_product=f"{MLP}.down_proj",
    chunked_loss=True,
    takes_stand_ins=True,
    played_layers=played_layers,
    masks=masks,
)
