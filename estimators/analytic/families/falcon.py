"""Falcon: attention beside the MLP, keys and values that queries share, a mask in every step.

The program follows transformers 5 line by line (models/falcon/modeling_falcon.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from estimators.analytic.families.family import Family
from estimators.analytic.families.llama import Llama
from estimators.analytic.families.rotary import inverse_frequencies
from estimators.analytic.shadow import attention as kernels
from estimators.analytic.shadow.activations import activate
from estimators.analytic.shadow.ops import Gradients, add, cast, dropout, embedding, part, rotate
from estimators.analytic.shadow.program import HIDDEN
from estimators.analytic.shadow.tape import Dims, Tensor, record
from estimators.analytic.shadow.weights import Weight, head, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.analytic.tensors import Tensors
from estimators.workload import Workload
from profiles.families.falcon import FalconShape
from profiles.shapes import ModelShape

LAYER = "transformer.h.*"
ATTENTION, MLP = f"{LAYER}.self_attention", f"{LAYER}.mlp"
BY_TOKEN: Dims = ("b", "s", "n", "d")


@dataclass(frozen=True, slots=True)
class Traits:
    """What else decides which tensors exist."""

    activation: str
    dropout: float
    norms: int
    repeats_heads: bool


def _shape(shape: ModelShape) -> FalconShape:
    assert isinstance(shape, FalconShape)
    return shape


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter that transformers builds, in the order of `named_parameters`."""
    norms = ("input_layernorm",) if _shape(shape).norms == 1 else ("ln_attn", "ln_mlp")
    found = [
        table("transformer.word_embeddings"),
        *linear(f"{ATTENTION}.query_key_value", "fused", "h"),
        *linear(f"{ATTENTION}.dense", "h", "h"),
        *linear(f"{MLP}.dense_h_to_4h", "f", "h"),
        *linear(f"{MLP}.dense_4h_to_h", "h", "f"),
        *(weight for name in norms for weight in norm(f"{LAYER}.{name}", bias=True)),
        *norm("transformer.ln_f", bias=True),
    ]
    return (*found, *head(tied=shape.tie_word_embeddings))


def sizes(shape: ModelShape) -> Mapping[str, int]:
    """Symbols of its own: `G` is the number of key and value heads in the weights."""
    groups, d = _shape(shape).groups, shape.head_dim
    return {"fused": (shape.num_attention_heads + 2 * groups) * d, "G": groups}


def buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """The rotary embedding's."""
    return inverse_frequencies("transformer.rotary_emb", shape.head_dim)


def traits(workload: Workload) -> Traits:
    """What the program asks for besides the structure."""
    shape = _shape(workload.model)
    return Traits(shape.hidden_act, shape.hidden_dropout, shape.norms, shape.repeats_heads)


def picked(x: Tensor, dims: Dims, name: str) -> Tensor:
    """`x[..., [i], :]`: a copy, whose gradient comes back as zeros around it."""
    before = x.dims
    index = x.tape.empty(("1",), 8, "index of the head", "inputs")
    out = x.tape.empty(dims, x.itemsize, name)
    padded = "gradient padded"
    return record(out, lambda gradient: [gradient.tape.empty(before, gradient.itemsize, padded)], [x], [index])


def flattened(x: Tensor, name: str) -> Tensor:
    """Heads side by side: a copy of what does not lie so, in which shared heads are repeated."""
    before = x.dims
    shared = before != BY_TOKEN

    def apply(gradient: Tensor) -> Gradients:
        if not shared:
            return [gradient.detach()]
        return [gradient.tape.empty(before, gradient.itemsize, "gradient summed over query heads")]

    return record(x.tape.empty(BY_TOKEN, x.itemsize, name), apply, [x])


def added_in_place(x: Tensor, y: Tensor) -> Tensor:
    """`x += y`."""
    out = x.view(*x.dims)
    out.node = None
    return record(out, lambda gradient: [gradient.detach(), gradient.detach()], [x, y])


def joined(x: Tensor) -> Tensor:
    """Heads side by side again: a copy."""
    return record(
        x.tape.empty(("b", "s", "q"), x.itemsize, "attention output joined"), lambda gradient: [gradient.detach()], [x]
    )


class Falcon(Llama):
    """The decoder."""

    embedding_path = "transformer.word_embeddings"
    caches_casts = False

    @property
    def traits(self) -> Traits:
        """Its own."""
        found = self.structure.traits
        assert isinstance(found, Traits)
        return found

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Hidden states after the last norm, and the key-value cache."""
        words = self.weight("transformer.word_embeddings")
        embedded = self.entered(embedding(self.tape, words, HIDDEN, "word_embeddings"))
        position_ids = self.tape.empty(("s",), 8, "position ids", "inputs")  # noqa: F841
        mask = self.causal_mask() or self.tape.empty(("s", "s"), 1, "attention mask", "inputs")
        hidden = embedded
        cos, sin = self.positions(hidden)
        cache: list[Tensor] = []
        for index in range(self.structure.layers):
            hidden = self.inside(index, self.decoder, hidden, cos, sin, mask, cache)
        self.outside()
        hidden = self.layer_norm(hidden, "transformer.ln_f")
        return hidden, cache

    def decoder(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]) -> Tensor:
        """One layer."""
        residual = hidden
        if self.traits.norms == 1:
            normed = for_mlp = self.layer_norm(hidden, f"{LAYER}.input_layernorm")
        else:
            normed = self.layer_norm(hidden, f"{LAYER}.ln_attn")
            for_mlp = self.layer_norm(hidden, f"{LAYER}.ln_mlp")
        with self.named("self_attention"):
            attended, _ = self.attention(normed, cos, sin, mask, cache)
        with self.named("mlp"):
            fed = self.mlp(for_mlp)
        with self.named("residual"):
            fed = added_in_place(fed, attended)
            return self.dropped_and_added(fed, residual)

    def dropped_and_added(self, x: Tensor, residual: Tensor) -> Tensor:
        """Dropout and the residual."""
        out = dropout(x, self.traits.dropout, "dropout")
        return add(residual, out, "after attention and mlp")

    def attention(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Self-attention through torch's SDPA, called by itself."""
        s = self.structure
        fused = self.linear(hidden, f"{ATTENTION}.query_key_value")
        query, key, value = self.split(fused)
        query, key = rotate(query, cos, sin, "q"), rotate(key, cos, sin, "k")
        if s.use_cache and not s.checkpointing:
            key, value = self.cached(key, "k cached"), self.cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        out = self.attended(query, key, value, mask)
        return self.linear(out, f"{ATTENTION}.dense"), None

    def attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """SDPA with heads as they are, beside a mask and without dropout."""
        values = self.torchs(q, k, v, mask)
        return joined(values) if self.structure.kernel == "math" else values

    def torchs(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """The last argument is cast first: in this order compilers evaluate autocast's wrapper (autocast_mode.h)."""
        s = self.structure
        if s.autocast:
            v, k, q = (cast(x, s.autocast, f"{name} cast") for x, name in zip((v, k, q), "vkq", strict=True))
        if s.kernel != "math":
            kernel = kernels.FUSED[s.kernel]
            return kernels.fused(q, k, v, kernel, grouped=False, mask=mask, efficient=s.efficient, aligned=s.aligned)
        one_head = not self.traits.repeats_heads
        return kernels.math(q, k, v, grouped=False, batched=s.batched, mask=mask, broadcast=one_head)

    def split(self, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries as a view, keys and values as copies, repeated for every query head in the larger models."""
        if not self.traits.repeats_heads:
            query = part(fused, "b", "n", "s", "d")
            return query, picked(fused, ("b", "g", "s", "d"), "k"), picked(fused, ("b", "g", "s", "d"), "v")
        shared = ("b", "s", "G", "d")
        query, key, value = part(fused, *BY_TOKEN), picked(fused, shared, "k"), picked(fused, shared, "v")
        heads = [flattened(x, f"{name} of all heads") for x, name in ((query, "q"), (key, "k"), (value, "v"))]
        query, key, value = (x.view("b", "n", "s", "d") for x in heads)
        return query, key, value

    def mlp(self, x: Tensor) -> Tensor:
        """Two products with an activation between them."""
        x = activate(self.linear(x, f"{MLP}.dense_h_to_4h"), self.traits.activation, autocast=self.structure.autocast)
        return self.linear(x, f"{MLP}.dense_4h_to_h")


FAMILY = Family(
    weights=weights,
    program=Falcon,
    buffers=buffers,
    last_product=f"{MLP}.dense_4h_to_h",
    chunked_loss=True,
    sizes=sizes,
    traits=traits,
    not_quantised="transformers quantises none of its layers, which have a class of their own",
)
