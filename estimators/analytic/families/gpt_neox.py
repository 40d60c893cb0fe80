"""GPT-NeoX and Pythia: LayerNorm, fused queries, keys and values, partly turned heads, attention beside the MLP.

The program follows transformers 5 line by line (models/gpt_neox/modeling_gpt_neox.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from estimators.analytic.families.family import Family
from estimators.analytic.families.llama import Llama
from estimators.analytic.families.rotary import inverse_frequencies, turned_sizes
from estimators.analytic.shadow.activations import activate
from estimators.analytic.shadow.ops import add, chunk, dropout, embedding, relayout, rotate_parts
from estimators.analytic.shadow.program import HIDDEN
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.shadow.weights import Weight, head, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.analytic.tensors import Tensors
from estimators.workload import Workload
from profiles.families.gpt_neox import GptNeoxShape
from profiles.shapes import ModelShape

LAYER = "gpt_neox.layers.*"
ATTENTION, MLP = f"{LAYER}.attention", f"{LAYER}.mlp"


@dataclass(frozen=True, slots=True)
class Traits:
    """What else decides which tensors exist."""

    activation: str
    dropout: float
    parallel: bool
    turns_whole_heads: bool


def _shape(shape: ModelShape) -> GptNeoxShape:
    assert isinstance(shape, GptNeoxShape)
    return shape


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter that transformers builds, in the order of `named_parameters`."""
    found = [
        table("gpt_neox.embed_in"),
        *norm(f"{LAYER}.input_layernorm", bias=True),
        *norm(f"{LAYER}.post_attention_layernorm", bias=True),
        *linear(f"{ATTENTION}.query_key_value", "3h", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.dense", "h", "h", bias=shape.output_bias),
        *linear(f"{MLP}.dense_h_to_4h", "f", "h", bias=True),
        *linear(f"{MLP}.dense_4h_to_h", "h", "f", bias=True),
        *norm("gpt_neox.final_layer_norm", bias=True),
    ]
    return (*found, *head(tied=shape.tie_word_embeddings))


def sizes(shape: ModelShape) -> Mapping[str, int]:
    """Symbols of its own: `p` is the part of a head that positions turn."""
    d = shape.head_dim
    return {"3h": 3 * shape.hidden_size, "3d": 3 * d, **turned_sizes(d, _shape(shape).rotary_dim)}


def buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """The rotary embedding's."""
    return inverse_frequencies("gpt_neox.rotary_emb", _shape(shape).rotary_dim, "p")


def traits(workload: Workload) -> Traits:
    """What the program asks for besides the structure."""
    shape = _shape(workload.model)
    return Traits(shape.hidden_act, shape.hidden_dropout, shape.parallel, shape.rotary_dim == shape.head_dim)


class GptNeox(Llama):
    """The decoder."""

    embedding_path = "gpt_neox.embed_in"

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

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Hidden states after the last norm, and the key-value cache."""
        embedded = self.entered(embedding(self.tape, self.weight("gpt_neox.embed_in"), HIDDEN, "embed_in"))
        position_ids = self.tape.empty(("s",), 8, "position ids", "inputs")  # noqa: F841
        mask = self.causal_mask()
        hidden = dropout(embedded, self.traits.dropout, "dropout")
        cos, sin = self.positions(hidden)
        cache: list[Tensor] = []
        for index in range(self.structure.layers):
            hidden = self.inside(index, self.decoder, hidden, cos, sin, mask, cache)
        self.outside()
        hidden = self.layer_norm(hidden, "gpt_neox.final_layer_norm")
        return hidden, cache

    def decoder(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]) -> Tensor:
        """One layer."""
        normed = self.layer_norm(hidden, f"{LAYER}.input_layernorm")
        with self.named("attention"):
            attended, _ = self.attention(normed, cos, sin, mask, cache)
        del normed
        with self.named("attention"):
            attended = dropout(attended, self.traits.dropout, "dropout")
        if not self.traits.parallel:
            with self.named("residual"):
                attended = add(attended, hidden, "after attention")
        normed = self.layer_norm(hidden if self.traits.parallel else attended, f"{LAYER}.post_attention_layernorm")
        with self.named("mlp"):
            fed = self.mlp(normed)
        del normed
        with self.named("mlp"):
            fed = dropout(fed, self.traits.dropout, "dropout")
        with self.named("residual"):
            if self.traits.parallel:
                return add(add(fed, attended, "mlp and attention"), hidden, "after mlp and attention")
            return add(fed, attended, "after mlp")

    def attention(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Self-attention; queries, keys and values are views of one product, head by head."""
        s = self.structure
        joined = relayout(self.linear(hidden, f"{ATTENTION}.query_key_value"), "b", "n", "s", "3d")
        query, key, value = chunk(joined, "b", "n", "s", "d", pieces=3)
        del joined
        query, key = self.rotated(query, key, cos, sin)
        if s.use_cache and not s.checkpointing:
            key, value = self.cached(key, "k cached"), self.cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        out, weights = self.attend(query, key, value, mask, foldable=True)
        return self.linear(out, f"{ATTENTION}.dense"), weights

    def rotated(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary positions for a part of each head; both are turned before either is joined with its rest."""
        return rotate_parts(query, key, cos, sin, self.rotary, "d-p", by_turns=False)

    def mlp(self, x: Tensor) -> Tensor:
        """Two products with an activation between them."""
        x = self.linear(x, f"{MLP}.dense_h_to_4h")
        x = activate(x, self.traits.activation, autocast=self.structure.autocast)
        return self.linear(x, f"{MLP}.dense_4h_to_h")


FAMILY = Family(
    weights=weights,
    program=GptNeox,
    buffers=buffers,
    last_product=f"{MLP}.dense_4h_to_h",
    chunked_loss=True,
    sizes=sizes,
    traits=traits,
)
