"""BERT with a head that classifies sequences: attention and MLP, each normed after its residual.

The program follows transformers 5 line by line (models/bert/modeling_bert.py).
"""

from dataclasses import dataclass

from estimators.analytic.families.family import Family
from estimators.analytic.shadow import attention as kernels
from estimators.analytic.shadow.norms import layer_norm
from estimators.analytic.shadow.ops import add, dropout, embedding, relayout, silu
from estimators.analytic.shadow.pooling import classification_loss, first_token, tanh
from estimators.analytic.shadow.program import HIDDEN, Program
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.shadow.weights import Weight, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.analytic.tensors import Tensors
from estimators.workload import Workload
from profiles.families.bert import BertShape
from profiles.shapes import ModelShape

SAVED_MODULES = ("classifier",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What decides which tensors exist, beside a structure's own fields."""

    hidden_dropout: float
    classifier_dropout: float


def _shape(shape: ModelShape) -> BertShape:
    assert isinstance(shape, BertShape)
    return shape


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter of `BertForSequenceClassification`, in the order of `named_parameters`."""
    embeddings = "bert.embeddings"
    return (
        table(f"{embeddings}.word_embeddings"),
        table(f"{embeddings}.position_embeddings", "P"),
        table(f"{embeddings}.token_type_embeddings", "T"),
        *norm(f"{embeddings}.LayerNorm", bias=True),
        *layer_weights("bert"),
        *linear("bert.pooler.dense", "h", "h", bias=True),
        *linear("classifier", "C", "h", bias=True),
    )


def layer_weights(root: str) -> list[Weight]:
    """A layer's, which BERT and RoBERTa share."""
    layer = f"{root}.encoder.layer.*"
    found: list[Weight] = []
    for name in ("query", "key", "value"):
        found += linear(f"{layer}.attention.self.{name}", "h", "h", bias=True)
    found += linear(f"{layer}.attention.output.dense", "h", "h", bias=True)
    found += norm(f"{layer}.attention.output.LayerNorm", bias=True)
    found += linear(f"{layer}.intermediate.dense", "f", "h", bias=True)
    found += linear(f"{layer}.output.dense", "h", "f", bias=True)
    found += norm(f"{layer}.output.LayerNorm", bias=True)
    return found


def sizes(shape: ModelShape) -> dict[str, int]:
    """Positions, kinds of segments, labels."""
    shape = _shape(shape)
    return {"P": shape.position_rows, "T": shape.type_vocab_size, "C": shape.num_labels}


def buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """Positions and segments of as many tokens as there are positions, 64 bits each."""
    return tuple(
        Tensors(
            name=f"{shape.model_type}.embeddings.{name}",
            nbytes=8 * _shape(shape).position_rows,
            category="buffers",
            formula="8P",
        )
        for name in ("position_ids", "token_type_ids")
    )


def traits(workload: Workload) -> Traits:
    """Dropouts beside attention's."""
    shape = _shape(workload.model)
    return Traits(hidden_dropout=shape.hidden_dropout, classifier_dropout=shape.classifier_dropout)


class Bert(Program):
    """The encoder and its classifier."""

    saved_modules = SAVED_MODULES
    causal = False
    fp32_softmax = False

    @property
    def root(self) -> str:
        """What the names of the encoder's parameters begin with."""
        return self.structure.family

    @property
    def traits(self) -> Traits:
        """The family's own."""
        assert isinstance(self.structure.traits, Traits)
        return self.structure.traits

    def inputs(self) -> list[Tensor]:
        """Token ids, one label for each sequence, and a mask of tokens beside padding."""
        names = {"input ids": ("b", "s"), "labels": ("b",)}
        if self.structure.padding:
            names["attention mask of tokens"] = ("b", "s")
        return [self.tape.empty(dims, 8, name, "inputs") for name, dims in names.items()]

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Hidden states after the last layer."""
        with self.named("embeddings"):
            embedded = self.embeddings()
        mask = self.mask()
        hidden = embedded
        for index in range(self.structure.layers):
            hidden = self.inside(index, self.layer_of_encoder, hidden, mask)
        self.outside()
        return hidden, []

    def embeddings(self) -> Tensor:
        """Words, segments and positions; their sum normed and dropped."""
        position_ids, rows = self.position_ids()
        picked = self.tape.empty((rows, "s"), 8, "token type ids", "inputs")
        root = f"{self.root}.embeddings"
        words = self.entered(embedding(self.tape, self.weight(f"{root}.word_embeddings"), HIDDEN, "words"))
        segments = embedding(self.tape, self.weight(f"{root}.token_type_embeddings"), HIDDEN, "segments", [picked])
        hidden = add(words, segments, "words and segments")
        saved = [] if position_ids is None else [position_ids]
        shape = HIDDEN if saved or not self.structure.batched else ("1", "s", "h")
        positions = embedding(self.tape, self.weight(f"{root}.position_embeddings"), shape, "positions", saved)
        hidden = add(hidden, positions, "sum")
        hidden = self.layer_norm(hidden, f"{root}.LayerNorm")
        return dropout(hidden, self.traits.hidden_dropout, "dropout")

    def position_ids(self) -> tuple[Tensor | None, str]:
        """Positions, where they are not a piece of the buffer, and how many sequences they are for."""
        return None, "1"

    def mask(self) -> Tensor | None:
        """Made only beside padding: all tokens see each other."""
        s, tape = self.structure, self.tape
        if not s.padding:
            return None
        mask = tape.empty(("b", "s", "s"), 1, "attention mask", "inputs")
        return tape.empty(("b", "s", "s"), s.itemsize, "attention mask", "inputs") if s.kernel == "eager" else mask

    def layer_of_encoder(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """One layer."""
        with self.named("attention"):
            hidden, _weights = self.attention(hidden, mask)
        with self.named("mlp"):
            return self.mlp(hidden)

    def attention(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Attention, its projection, dropout, the residual and the norm."""
        path = f"{self.root}.encoder.layer.*.attention"
        out, weights = self.self_attention(hidden, mask, path)
        out = self.residual(out, hidden, f"{path}.output")
        return out, weights

    def self_attention(self, hidden: Tensor, mask: Tensor | None, path: str) -> tuple[Tensor, Tensor | None]:
        """Attention of all tokens to all tokens."""
        query = self.heads(self.linear(hidden, f"{path}.self.query"))
        key = self.heads(self.linear(hidden, f"{path}.self.key"))
        value = self.heads(self.linear(hidden, f"{path}.self.value"))
        return self.attend(query, key, value, mask)

    def heads(self, x: Tensor) -> Tensor:
        """(b, s, h) as (b, n, s, d); fused kernels give gradients back in the first order."""
        fused = self.structure.kernel in kernels.FUSED
        return x.view("b", "n", "s", "d") if fused else relayout(x, "b", "n", "s", "d")

    def residual(self, hidden: Tensor, before: Tensor, path: str) -> Tensor:
        """Projection and dropout, added to what came in, and normed."""
        hidden = self.linear(hidden, f"{path}.dense")
        hidden = dropout(hidden, self.traits.hidden_dropout, "dropout")
        return self.layer_norm(add(hidden, before, "sum"), f"{path}.LayerNorm")

    def mlp(self, hidden: Tensor) -> Tensor:
        """MLP, its projection, dropout, the residual and the norm."""
        layer = f"{self.root}.encoder.layer.*"
        inner = self.linear(hidden, f"{layer}.intermediate.dense")
        inner = silu(inner, "activation")
        return self.residual(inner, hidden, f"{layer}.output")

    def layer_norm(self, x: Tensor, path: str) -> Tensor:
        """LayerNorm."""
        with self.named("norm"):
            return layer_norm(x, self.weight(path), self.weight(path, "bias"), autocast=self.structure.autocast)

    def loss(self, hidden: Tensor, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The head on each sequence's first token, and cross-entropy over labels."""
        with self.named("classifier"):
            logits, _held = self.head(hidden)
        self.tape.mark("loss")
        with self.named("loss"):
            return classification_loss(logits, inputs[1], autocast=self.structure.autocast), logits

    def head(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """The pooler, dropout, and the classifier; what the model's frame holds beside the logits."""
        pooled = tanh(self.linear(first_token(hidden), "bert.pooler.dense"), "pooled")
        pooled = dropout(pooled, self.traits.classifier_dropout, "dropout")
        return self.linear(pooled, "classifier"), pooled.detach()


def passed(shape: ModelShape, weight: str) -> float:
    """The head takes one token of each sequence, which counts as none."""
    return float(weight.startswith(f"{shape.model_type}.encoder"))


FAMILY = Family(
    weights=weights,
    program=Bert,
    buffers=buffers,
    last_product="bert.encoder.layer.*.output.dense",
    sizes=sizes,
    traits=traits,
    passed=passed,
    saved_modules=SAVED_MODULES,
    not_quantised="models that read are not planned with them",
)
