"""Phi-3 and Phi-4: LLaMA's layer with fused products, rotary positions for a part of each head, and dropouts.

The program follows transformers 5 line by line (models/phi3/modeling_phi3.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from estimators.analytic.families.family import Family
from estimators.analytic.families.llama import ATTENTION, MLP, Llama
from estimators.analytic.families.rotary import inverse_frequencies, turned_sizes
from estimators.analytic.shadow.ops import add, chunk, dropout, multiply, part, relayout, rotate_parts, silu
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.shadow.weights import Weight, head, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.analytic.tensors import Tensors
from estimators.workload import Workload
from profiles.families.phi3 import Phi3Shape
from profiles.shapes import ModelShape


@dataclass(frozen=True, slots=True)
class Traits:
    """What else decides which tensors exist."""

    turns_whole_heads: bool
    residual_dropout: float


def _shape(shape: ModelShape) -> Phi3Shape:
    assert isinstance(shape, Phi3Shape)
    return shape


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter that transformers builds, in the order of `named_parameters`."""
    found = [
        table("model.embed_tokens"),
        *linear(f"{ATTENTION}.o_proj", "h", "q"),
        *linear(f"{ATTENTION}.qkv_proj", "q+2k", "h"),
        *linear(f"{MLP}.gate_up_proj", "2f", "h"),
        *linear(f"{MLP}.down_proj", "h", "f"),
        *norm("model.layers.*.input_layernorm"),
        *norm("model.layers.*.post_attention_layernorm"),
        *norm("model.norm"),
    ]
    return (*found, *head(tied=shape.tie_word_embeddings))


def sizes(shape: ModelShape) -> Mapping[str, int]:
    """Symbols of its own: `p` is the part of a head that positions turn."""
    d = shape.head_dim
    return {
        "q+2k": (shape.num_attention_heads + 2 * shape.num_key_value_heads) * d,
        "2f": 2 * shape.intermediate_size,
        **turned_sizes(d, _shape(shape).rotary_dim),
    }


def buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """The rotary embedding's."""
    return inverse_frequencies("model.rotary_emb", _shape(shape).rotary_dim, "p")


def traits(workload: Workload) -> Traits:
    """What the program asks for besides the structure."""
    shape = _shape(workload.model)
    return Traits(shape.rotary_dim == shape.head_dim, shape.residual_dropout)


class Phi3(Llama):
    """The decoder."""

    @property
    def traits(self) -> Traits:
        """Its own."""
        found = self.structure.traits
        assert isinstance(found, Traits)
        return found

    @property
    def rotary(self) -> str:
        """The symbol of the elements of a head that positions turn."""
        return "d" if self.traits.turns_whole_heads else "p"

    def decoder(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]) -> Tensor:
        """One decoder layer."""
        residual, probability = hidden, self.traits.residual_dropout
        hidden = self.normalised(hidden, "model.layers.*.input_layernorm")
        with self.named("self_attn"):
            hidden, _ = self.attention(hidden, cos, sin, mask, cache)
        with self.named("residual"):
            hidden = add(residual, dropout(hidden, probability, "dropout"), "after attention")
        residual = hidden
        hidden = self.normalised(hidden, "model.layers.*.post_attention_layernorm")
        with self.named("mlp"):
            hidden = self.mlp(hidden)
        with self.named("residual"):
            return add(residual, dropout(hidden, probability, "dropout"), "after mlp")

    def attention(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Grouped-query attention; queries, keys and values are views of one product."""
        s = self.structure
        joined = self.linear(hidden, f"{ATTENTION}.qkv_proj")
        query, key, value = (part(joined, "b", "s", width) for width in "qkk")
        query, key = relayout(query, "b", "n", "s", "d"), self.key_heads(key)
        value = self.value_heads(value, mask)
        query, key = rotate_parts(query, key, cos, sin, self.rotary, "d-p", by_turns=True)
        if s.use_cache and not s.checkpointing:
            key, value = self.cached(key, "k cached"), self.cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        out, weights = self.attend(query, key, value, mask, foldable=True)
        return self.linear(out, f"{ATTENTION}.o_proj"), weights

    def mlp(self, x: Tensor) -> Tensor:
        """Gated MLP, gate and up from one product."""
        up = self.linear(x, f"{MLP}.gate_up_proj")
        gate, up = chunk(up, "b", "s", "f")
        up = multiply(up, silu(gate, "activation"), "gated")
        return self.linear(up, f"{MLP}.down_proj")


FAMILY = Family(
    weights=weights,
    program=Phi3,
    buffers=buffers,
    last_product=f"{MLP}.down_proj",
    chunked_loss=True,
    takes_stand_ins=True,
    sizes=sizes,
    traits=traits,
)
