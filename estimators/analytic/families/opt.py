"""OPT: learned positions of every sequence, norms before or behind the blocks, projections around narrow embeddings.

The program follows transformers 5 line by line (models/opt/modeling_opt.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from estimators.analytic.families.family import Family
from estimators.analytic.shadow.activations import activate
from estimators.analytic.shadow.ops import add, dropout, embedding, relayout, reshaped, scale
from estimators.analytic.shadow.program import HIDDEN, Program
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.shadow.weights import Weight, head, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.analytic.tensors import Tensors
from estimators.workload import Workload
from profiles.families.opt import POSITION_OFFSET, OptShape
from profiles.shapes import ModelShape

DECODER = "model.decoder"
LAYER = f"{DECODER}.layers.*"
ATTENTION = f"{LAYER}.self_attn"
IDS = ("b", "s")


@dataclass(frozen=True, slots=True)
class Traits:
    """What else decides which tensors exist."""

    activation: str
    dropout: float
    norms_first: bool
    last_norm: bool
    embedding_width: str
    """The symbol of the embedding's width."""


def _shape(shape: ModelShape) -> OptShape:
    assert isinstance(shape, OptShape)
    return shape


def _embedding_width(shape: OptShape) -> str:
    return "h" if shape.embedding_size == shape.hidden_size else "w"


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter that transformers builds, in the order of `named_parameters`."""
    shape = _shape(shape)
    width = _embedding_width(shape)
    found = [table(f"{DECODER}.embed_tokens", columns=width), table(f"{DECODER}.embed_positions", rows="positions")]
    if width != "h":
        found += [*linear(f"{DECODER}.project_out", width, "h"), *linear(f"{DECODER}.project_in", "h", width)]
    found += _norm(shape, f"{DECODER}.final_layer_norm") if shape.last_norm else []
    for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
        found += linear(f"{ATTENTION}.{name}", "h", "h", bias=shape.qkv_bias)
    found += _norm(shape, f"{LAYER}.self_attn_layer_norm")
    found += linear(f"{LAYER}.fc1", "f", "h", bias=shape.mlp_bias)
    found += linear(f"{LAYER}.fc2", "h", "f", bias=shape.mlp_bias)
    found += _norm(shape, f"{LAYER}.final_layer_norm")
    found += head(columns=width, tied=shape.tie_word_embeddings)
    return tuple(found)


def _norm(shape: OptShape, path: str) -> tuple[Weight, ...]:
    return norm(path, bias=True) if shape.norm_weights else ()


def sizes(shape: ModelShape) -> Mapping[str, int]:
    """Symbols of its own: `w` is the embedding's width."""
    return {"positions": shape.max_position_embeddings + POSITION_OFFSET, "w": _shape(shape).embedding_size}


def batch_sizes(workload: Workload) -> Mapping[str, int]:
    """The MLP sees all tokens of a batch as one sequence."""
    return {"bs": workload.batch.tokens}


def buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """None."""
    return ()


def traits(workload: Workload) -> Traits:
    """What the program asks for besides the structure."""
    shape = _shape(workload.model)
    return Traits(shape.hidden_act, shape.hidden_dropout, shape.norms_first, shape.last_norm, _embedding_width(shape))


class Opt(Program):
    """The decoder."""

    embedding_path = f"{DECODER}.embed_tokens"

    @property
    def traits(self) -> Traits:
        """Its own."""
        found = self.structure.traits
        assert isinstance(found, Traits)
        return found

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What the head takes, and the key-value cache."""
        width = ("b", "s", self.traits.embedding_width)
        embedded = self.entered(embedding(self.tape, self.weight(f"{DECODER}.embed_tokens"), width, "embed_tokens"))
        mask_of_tokens = inputs[2] if self.structure.padding else self.tape.empty(IDS, 4, "ones")
        position_ids = self.position_ids(mask_of_tokens)
        mask = self.causal_mask()
        rows = self.tape.empty(IDS, 8, "position ids plus offset", "inputs")
        placed = embedding(self.tape, self.weight(f"{DECODER}.embed_positions"), HIDDEN, "embed_positions", [rows])
        del rows
        if self.has(f"{DECODER}.project_in"):
            embedded = self.linear(embedded, f"{DECODER}.project_in")
        hidden = add(embedded, placed, "embeddings")
        cache: list[Tensor] = []
        for index in range(self.structure.layers):
            hidden = self.inside(index, self.decoder, hidden, mask, cache)
        self.outside()
        if self.traits.last_norm:
            hidden = self.layer_norm(hidden, f"{DECODER}.final_layer_norm")
        if self.has(f"{DECODER}.project_out"):
            hidden = self.linear(hidden, f"{DECODER}.project_out")
        del position_ids
        return hidden, cache

    def position_ids(self, mask_of_tokens: Tensor) -> Tensor:
        """Counted over the mask of tokens: sums, products, differences, whole numbers at last."""
        category, size = ("inputs", 8) if self.structure.padding else ("", mask_of_tokens.itemsize)
        sums = self.tape.empty(IDS, size, "sums of the mask", category)  # noqa: F841
        products = self.tape.empty(IDS, size, "sums times the mask", category)
        less = self.tape.empty(IDS, size, "positions", category)
        del products
        return less if self.structure.padding else self.tape.empty(IDS, 8, "position ids", "inputs")

    def decoder(self, hidden: Tensor, mask: Tensor | None, cache: list[Tensor]) -> Tensor:
        """One layer."""
        first, probability = self.traits.norms_first, self.traits.dropout
        residual = hidden
        if first:
            hidden = self.layer_norm(hidden, f"{LAYER}.self_attn_layer_norm")
        with self.named("self_attn"):
            hidden, _ = self.attention(hidden, mask, cache)
        with self.named("residual"):
            hidden = dropout(hidden, probability, "dropout")
            hidden = add(residual, hidden, "after attention")
        if not first:
            hidden = self.layer_norm(hidden, f"{LAYER}.self_attn_layer_norm")
        hidden = reshaped(hidden, "bs", "h")
        residual = hidden
        if first:
            hidden = self.layer_norm(hidden, f"{LAYER}.final_layer_norm")
        with self.named("mlp"):
            hidden = self.linear(hidden, f"{LAYER}.fc1")
            hidden = activate(hidden, self.traits.activation, autocast=self.structure.autocast)
            hidden = self.linear(hidden, f"{LAYER}.fc2")
        with self.named("residual"):
            hidden = dropout(hidden, probability, "dropout")
            hidden = reshaped(add(residual, hidden, "after mlp"), *HIDDEN)
        return hidden if first else self.layer_norm(hidden, f"{LAYER}.final_layer_norm")

    def attention(self, hidden: Tensor, mask: Tensor | None, cache: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Self-attention; queries are scaled before they are split into heads."""
        s = self.structure
        strided, cached = s.kernel in ("math", "eager"), s.use_cache and not s.checkpointing
        query = scale(self.linear(hidden, f"{ATTENTION}.q_proj"), "q scaled")
        query = relayout(query, "b", "n", "s", "d") if strided else query.view("b", "n", "s", "d")
        key, value = self.linear(hidden, f"{ATTENTION}.k_proj"), self.linear(hidden, f"{ATTENTION}.v_proj")
        key, value = (
            relayout(x, "b", "n", "s", "d") if strided or cached else x.view("b", "n", "s", "d") for x in (key, value)
        )
        if cached:
            key, value = self.cached(key, "k cached"), self.cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        out, weights = self.attend(query, key, value, mask)
        return self.linear(out, f"{ATTENTION}.out_proj"), weights


FAMILY = Family(
    weights=weights,
    program=Opt,
    buffers=buffers,
    last_product=f"{LAYER}.fc2",
    chunked_loss=True,
    sizes=sizes,
    batch_sizes=batch_sizes,
    traits=traits,
)
