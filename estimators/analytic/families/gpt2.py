"""GPT-2: learned positions, LayerNorm, fused queries, keys and values, dropouts, an MLP whose GELU is written out.

The program follows transformers 5 line by line (models/gpt2/modeling_gpt2.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from estimators.analytic.families.family import Family
from estimators.analytic.shadow.activations import activate
from estimators.analytic.shadow.ops import add, chunk, dropout, embedding, relayout
from estimators.analytic.shadow.program import HIDDEN, Program
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.shadow.weights import Weight, head, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.analytic.tensors import Tensors
from estimators.workload import Workload
from profiles.families.gpt2 import Gpt2Shape
from profiles.shapes import ModelShape

LAYER = "transformer.h.*"
ATTENTION, MLP = f"{LAYER}.attn", f"{LAYER}.mlp"


@dataclass(frozen=True, slots=True)
class Traits:
    """What else decides which tensors exist."""

    activation: str
    embedding_dropout: float
    residual_dropout: float


def _shape(shape: ModelShape) -> Gpt2Shape:
    assert isinstance(shape, Gpt2Shape)
    return shape


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter that transformers builds, in the order of `named_parameters`."""
    found = [
        table("transformer.wte"),
        table("transformer.wpe", rows="positions"),
        *norm(f"{LAYER}.ln_1", bias=True),
        *linear(f"{ATTENTION}.c_attn", "3h", "h", bias=True, transposed=True),
        *linear(f"{ATTENTION}.c_proj", "h", "h", bias=True, transposed=True),
        *norm(f"{LAYER}.ln_2", bias=True),
        *linear(f"{MLP}.c_fc", "f", "h", bias=True, transposed=True),
        *linear(f"{MLP}.c_proj", "h", "f", bias=True, transposed=True),
        *norm("transformer.ln_f", bias=True),
    ]
    return (*found, *head(tied=shape.tie_word_embeddings))


def sizes(shape: ModelShape) -> Mapping[str, int]:
    """Symbols of its own."""
    return {"3h": 3 * shape.hidden_size, "positions": shape.max_position_embeddings}


def buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """None: its causal mask is made anew in every step."""
    return ()


def traits(workload: Workload) -> Traits:
    """What the program asks for besides the structure."""
    shape = _shape(workload.model)
    return Traits(shape.hidden_act, shape.embedding_dropout, shape.residual_dropout)


class Gpt2(Program):
    """The decoder."""

    embedding_path = "transformer.wte"
    fp32_softmax = False
    casts_weights = True

    @property
    def traits(self) -> Traits:
        """Its own."""
        found = self.structure.traits
        assert isinstance(found, Traits)
        return found

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Hidden states after the last norm, and the key-value cache."""
        s, tape = self.structure, self.tape
        embedded = self.entered(embedding(tape, self.weight("transformer.wte"), HIDDEN, "wte"))
        position_ids = tape.empty(("s",), 8, "position ids", "inputs")
        width = HIDDEN if not s.batched else ("s", "h")
        placed = embedding(tape, self.weight("transformer.wpe"), width, "wpe", [position_ids])
        hidden = add(embedded, placed, "embeddings")
        mask = self.causal_mask()
        hidden = dropout(hidden, self.traits.embedding_dropout, "dropout")
        cache: list[Tensor] = []
        for index in range(s.layers):
            hidden = self.inside(index, self.block, hidden, mask, cache)
        self.outside()
        hidden = self.layer_norm(hidden, "transformer.ln_f")
        return hidden, cache

    def block(self, hidden: Tensor, mask: Tensor | None, cache: list[Tensor]) -> Tensor:
        """One layer."""
        residual = hidden
        hidden = self.layer_norm(hidden, f"{LAYER}.ln_1")
        with self.named("attn"):
            attended, _ = self.attention(hidden, mask, cache)
        with self.named("residual"):
            hidden = add(attended, residual, "after attention")
        residual = hidden
        hidden = self.layer_norm(hidden, f"{LAYER}.ln_2")
        with self.named("mlp"):
            fed = self.mlp(hidden)
        with self.named("residual"):
            return add(residual, fed, "after mlp")

    def attention(self, hidden: Tensor, mask: Tensor | None, cache: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Self-attention; queries, keys and values are views of one product."""
        s = self.structure
        pieces = chunk(self.linear(hidden, f"{ATTENTION}.c_attn"), "b", "s", "h", pieces=3)
        strided = s.kernel in ("math", "eager")
        cached = s.use_cache and not s.checkpointing
        query, key, value = (
            relayout(piece, "b", "n", "s", "d") if strided or (cached and kept) else piece.view("b", "n", "s", "d")
            for piece, kept in zip(pieces, (False, True, True), strict=True)
        )
        del pieces
        if cached:
            key, value = self.cached(key, "k cached"), self.cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        out, weights = self.attend(query, key, value, mask)
        out = self.linear(out, f"{ATTENTION}.c_proj")
        return dropout(out, self.traits.residual_dropout, "dropout"), weights

    def mlp(self, x: Tensor) -> Tensor:
        """Two products with an activation between them."""
        x = self.linear(x, f"{MLP}.c_fc")
        x = activate(x, self.traits.activation, autocast=self.structure.autocast)
        x = self.linear(x, f"{MLP}.c_proj")
        return dropout(x, self.traits.residual_dropout, "dropout")


FAMILY = Family(
    weights=weights,
    program=Gpt2,
    buffers=buffers,
    last_product=f"{MLP}.c_proj",
    chunked_loss=True,
    sizes=sizes,
    traits=traits,
    not_quantised="its layers are Conv1D, which transformers turns round as it quantises them",
)
