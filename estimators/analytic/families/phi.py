"""Phi-1 to Phi-2: one LayerNorm before attention and MLP, partly turned heads, biases everywhere, the head's included.

The program follows transformers 5 line by line (models/phi/modeling_phi.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from estimators.analytic.families.family import Family
from estimators.analytic.families.llama import ATTENTION, MLP, Llama
from estimators.analytic.families.rotary import inverse_frequencies, turned_sizes
from estimators.analytic.shadow.activations import activate
from estimators.analytic.shadow.ops import add, concatenate, dropout, embedding, part, relayout, rotate
from estimators.analytic.shadow.ops import linear as product
from estimators.analytic.shadow.program import HIDDEN
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.shadow.weights import Weight, head, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.analytic.tensors import Tensors
from estimators.workload import Workload
from profiles.families.phi import PhiShape
from profiles.shapes import ModelShape

LAYER = "model.layers.*"


@dataclass(frozen=True, slots=True)
class Traits:
    """What else decides which tensors exist."""

    activation: str
    embedding_dropout: float
    residual_dropout: float
    turns_whole_heads: bool


def _shape(shape: ModelShape) -> PhiShape:
    assert isinstance(shape, PhiShape)
    return shape


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter that transformers builds, in the order of `named_parameters`."""
    found = [
        table("model.embed_tokens"),
        *linear(f"{ATTENTION}.q_proj", "q", "h", bias=True),
        *linear(f"{ATTENTION}.k_proj", "k", "h", bias=True),
        *linear(f"{ATTENTION}.v_proj", "k", "h", bias=True),
        *linear(f"{ATTENTION}.dense", "h", "q", bias=True),
        *linear(f"{MLP}.fc1", "f", "h", bias=True),
        *linear(f"{MLP}.fc2", "h", "f", bias=True),
        *norm(f"{LAYER}.input_layernorm", bias=True),
        *norm("model.final_layernorm", bias=True),
    ]
    found += head(tied=shape.tie_word_embeddings)
    found.append(Weight(name="lm_head.bias", dims=("v",), role="bias"))
    return tuple(found)


def sizes(shape: ModelShape) -> Mapping[str, int]:
    """Symbols of its own: `p` is the part of a head that positions turn."""
    return turned_sizes(shape.head_dim, _shape(shape).rotary_dim)


def buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """The rotary embedding's."""
    return inverse_frequencies("model.rotary_emb", _shape(shape).rotary_dim, "p")


def traits(workload: Workload) -> Traits:
    """What the program asks for besides the structure."""
    shape = _shape(workload.model)
    whole = shape.rotary_dim == shape.head_dim
    return Traits(shape.hidden_act, shape.embedding_dropout, shape.residual_dropout, whole)


class Phi(Llama):
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

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Hidden states after the last norm, and the key-value cache."""
        embedded = self.entered(embedding(self.tape, self.weight("model.embed_tokens"), HIDDEN, "embed_tokens"))
        position_ids = self.tape.empty(("s",), 8, "position ids", "inputs")  # noqa: F841
        mask = self.causal_mask()
        embedded = dropout(embedded, self.traits.embedding_dropout, "dropout")
        hidden = embedded
        cos, sin = self.positions(hidden)
        cache: list[Tensor] = []
        for index in range(self.structure.layers):
            hidden = self.inside(index, self.decoder, hidden, cos, sin, mask, cache)
        self.outside()
        hidden = self.layer_norm(hidden, "model.final_layernorm")
        return hidden, cache

    def logits(self, hidden: Tensor) -> Tensor:
        """The output head, whose bias is its own even where its weight is the embedding's."""
        if self.has(self.head_path):
            return self.linear(hidden, self.head_path, "logits")
        weight, bias = self.weight(self.embedding_path), self.weight(self.head_path, "bias")
        return product(hidden, weight, bias, "logits", autocast=self.structure.autocast)

    def decoder(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]) -> Tensor:
        """One layer."""
        residual, probability = hidden, self.traits.residual_dropout
        hidden = self.layer_norm(hidden, f"{LAYER}.input_layernorm")
        with self.named("self_attn"):
            attended, _ = self.attention(hidden, cos, sin, mask, cache)
            attended = dropout(attended, probability, "dropout")
        with self.named("mlp"):
            fed = dropout(self.mlp(hidden), probability, "dropout")
        with self.named("residual"):
            return add(add(attended, fed, "attention and mlp"), residual, "after attention and mlp")

    def attention(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Self-attention with rotary positions for a part of each head."""
        s = self.structure
        strided, cached = s.kernel in ("math", "eager"), s.use_cache and not s.checkpointing
        query = relayout(self.linear(hidden, f"{ATTENTION}.q_proj"), "b", "n", "s", "d")
        key = relayout(self.linear(hidden, f"{ATTENTION}.k_proj"), "b", "g", "s", "d")
        value = self.linear(hidden, f"{ATTENTION}.v_proj")
        value = relayout(value, "b", "g", "s", "d") if strided or cached else value.view("b", "g", "s", "d")
        (query_rot, query_pass), (key_rot, key_pass) = (self.halves(x) for x in (query, key))
        query_rot, key_rot = rotate(query_rot, cos, sin, "q"), rotate(key_rot, cos, sin, "k")
        query = concatenate([query_rot, query_pass], query.dims, "q joined")
        key = concatenate([key_rot, key_pass], key.dims, "k joined")
        if cached:
            key, value = self.cached(key, "k cached"), self.cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        out, weights = self.attend(query, key, value, mask, foldable=True)
        return self.linear(out, f"{ATTENTION}.dense"), weights

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What of each head is turned, and what is not."""
        return part(x, *x.dims[:-1], self.rotary), part(x, *x.dims[:-1], "d-p")

    def mlp(self, x: Tensor) -> Tensor:
        """Two products with an activation between them."""
        x = self.linear(x, f"{MLP}.fc1")
        x = activate(x, self.traits.activation, autocast=self.structure.autocast)
        return self.linear(x, f"{MLP}.fc2")


FAMILY = Family(
    weights=weights,
    program=Phi,
    buffers=buffers,
    last_product=f"{MLP}.fc2",
    chunked_loss=True,
    sizes=sizes,
    traits=traits,
)
