"""Gemma, Gemma 2 and the text models of Gemma 3: scaled embeddings, norms whose weights count from one, capped scores.

The programs follow transformers 5 line by line (models/gemma/modeling_gemma.py, gemma2, gemma3).
"""

from dataclasses import dataclass, replace

from estimators.analytic.families.family import Family
from estimators.analytic.families.llama import ATTENTION, MLP, Llama, rotary_buffers
from estimators.analytic.shadow.norms import offset_rms_norm
from estimators.analytic.shadow.ops import add, relayout, scale, tanh
from estimators.analytic.shadow.program import Program
from estimators.analytic.shadow.structure import Structure
from estimators.analytic.shadow.tape import Tape, Tensor
from estimators.analytic.shadow.weights import Weight, head, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.analytic.tensors import Tensors
from estimators.analytic.windows import played_layers
from estimators.workload import Workload
from profiles.families.gemma import GemmaShape
from profiles.shapes import FULL, SLIDING, ModelShape

_LAYER = "model.layers.*"
_NORMS = {
    "gemma": ("input_layernorm", "post_attention_layernorm"),
    "gemma2": (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
}
_NORMS["gemma3_text"] = _NORMS["gemma2"]


@dataclass(frozen=True, slots=True)
class Traits:
    """What else decides which tensors exist."""

    caps_scores: bool
    caps_logits: bool
    has_two_tables: bool
    """Both kinds of layers are there, each with rotary positions of its own."""


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
        *linear(f"{MLP}.gate_proj", "f", "h"),
        *linear(f"{MLP}.up_proj", "f", "h"),
        *linear(f"{MLP}.down_proj", "h", "f"),
    ]
    for name in _NORMS[shape.model_type]:
        found += norm(f"{_LAYER}.{name}")
    found += norm("model.norm")
    return (*found, *head(tied=shape.tie_word_embeddings))


def buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """Inverse frequencies twice: in Gemma 3 for each kind of layer that it has."""
    tables = rotary_buffers(shape)
    if shape.model_type != "gemma3_text":
        return tables
    return tuple(
        replace(table, name=f"model.rotary_emb.{kind}_{table.name.rpartition('.')[2]}")
        for kind in sorted(set(shape.layer_kinds))
        for table in tables
    )


def embedding_scale(shape: ModelShape, itemsize: int) -> tuple[Tensors, ...]:
    """What embeddings are multiplied with: a number in the dtype that the model is built in."""
    name = "model.embed_tokens.embed_scale"
    return (Tensors(name=name, nbytes=itemsize, category="buffers", formula=f"{itemsize}"),)


def traits(workload: Workload) -> Traits:
    """What the program asks for besides the structure."""
    shape = workload.model
    assert isinstance(shape, GemmaShape)
    has_two_tables = shape.model_type == "gemma3_text" and len(set(shape.layer_kinds)) > 1
    return Traits(shape.caps_scores, shape.caps_logits, has_two_tables)


class Gemma(Llama):
    """The decoder of the first generation: LLaMA's layer, other norms."""

    def __init__(self, structure: Structure, tape: Tape) -> None:
        super().__init__(structure, tape)
        self.caps_scores = self.traits.caps_scores

    @property
    def traits(self) -> Traits:
        """Its own."""
        found = self.structure.traits
        assert isinstance(found, Traits)
        return found

    def embedded(self) -> Tensor:
        """The tokens' embeddings times the root of the hidden size."""
        return scale(super().embedded(), "embed_tokens scaled")

    def normalised(self, x: Tensor, path: str) -> Tensor:
        """RMSNorm in fp32 (`GemmaRMSNorm`)."""
        with self.named(path.rpartition(".")[2]):
            return offset_rms_norm(x, self.weight(path))

    def logits(self, hidden: Tensor) -> Tensor:
        """The output head, its result through a scaled tanh where the model caps it."""
        logits = super().logits(hidden)
        if self.traits.caps_logits:
            logits = scale(logits, "logits / cap")
            logits = tanh(logits, "tanh of logits")
            logits = scale(logits, "logits capped")
        return logits


class Gemma2(Gemma):
    """The decoders of the second and third generation: norms before and behind both blocks."""

    def tables(self, hidden: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Cosines and sines by kind of layer: one pair for all in Gemma 2, one for each kind in Gemma 3."""
        first = self.positions(hidden)
        return {FULL: first, SLIDING: self.positions(hidden) if self.traits.has_two_tables else first}

    def layer_type(self, index: int) -> str:
        """Which mask and which table a played layer takes.

        Where three stand for all, the last has the full one: both tables live on through forward, that of the first
        layer to the end of backward. In between the other lives a little longer than here, until the first full layer.
        """
        s = self.structure
        alike = not s.layer_types or (not s.checkpointing and (s.padding or s.kernel == "eager"))
        return (FULL if index == s.layers - 1 else SLIDING) if alike else super().layer_type(index)

    def projected(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values; queries and keys are normalised once all are there."""
        query = relayout(self.linear(hidden, f"{ATTENTION}.q_proj"), "b", "n", "s", "d")
        key = self.key_heads(self.linear(hidden, f"{ATTENTION}.k_proj"))
        value = self.value_heads(self.linear(hidden, f"{ATTENTION}.v_proj"), mask)
        query = self.head_norm(query, "q_norm")
        key = self.head_norm(key, "k_norm")
        return query, key, value

    def decoder(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]) -> Tensor:
        """One decoder layer."""
        residual = hidden
        hidden = self.normalised(hidden, f"{_LAYER}.input_layernorm")
        with self.named("self_attn"):
            hidden, _ = self.attention(hidden, cos, sin, mask, cache)
        hidden = self.normalised(hidden, f"{_LAYER}.post_attention_layernorm")
        with self.named("residual"):
            hidden = add(residual, hidden, "after attention")
        residual = hidden
        hidden = self.normalised(hidden, f"{_LAYER}.pre_feedforward_layernorm")
        with self.named("mlp"):
            hidden = self.mlp(hidden)
        hidden = self.normalised(hidden, f"{_LAYER}.post_feedforward_layernorm")
        with self.named("residual"):
            return add(residual, hidden, "after mlp")


def program(structure: Structure, tape: Tape) -> Program:
    """The generation's own."""
    return (Gemma if structure.family == "gemma" else Gemma2)(structure, tape)


def masks(shape: ModelShape) -> tuple[str, ...]:
    """The later generations make both in any case."""
    return (FULL,) if shape.model_type == "gemma" else (FULL, SLIDING)


FAMILY = Family(
    weights=weights,
    program=program,
    buffers=buffers,
    typed_buffers=embedding_scale,
    last_product=f"{MLP}.down_proj",
    chunked_loss=True,
    takes_stand_ins=True,
    traits=traits,
    played_layers=played_layers,
    masks=masks,
)
