"""BLOOM: slopes instead of positions, attention by matrix products of its own, a GELU computed again in backward.

The program follows transformers 5 line by line (models/bloom/modeling_bloom.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from estimators.analytic.families.family import Family
from estimators.analytic.shadow.attention import HEADS, SCORES
from estimators.analytic.shadow.ops import Gradients, add, cast, dropout, embedding, like, matmul, part, scale, softmax
from estimators.analytic.shadow.program import HIDDEN, Program
from estimators.analytic.shadow.tape import Tensor, record
from estimators.analytic.shadow.weights import Weight, head, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.analytic.tensors import Tensors
from estimators.workload import Workload
from profiles.families.bloom import BloomShape
from profiles.shapes import ModelShape

LAYER = "transformer.h.*"
ATTENTION, MLP = f"{LAYER}.self_attention", f"{LAYER}.mlp"


@dataclass(frozen=True, slots=True)
class Traits:
    """What else decides which tensors exist."""

    dropout: float
    normed_residual: bool


def _shape(shape: ModelShape) -> BloomShape:
    assert isinstance(shape, BloomShape)
    return shape


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter that transformers builds, in the order of `named_parameters`."""
    found = [
        table("transformer.word_embeddings"),
        *norm("transformer.word_embeddings_layernorm", bias=True),
        *norm(f"{LAYER}.input_layernorm", bias=True),
        *linear(f"{ATTENTION}.query_key_value", "3h", "h", bias=True),
        *linear(f"{ATTENTION}.dense", "h", "h", bias=True),
        *norm(f"{LAYER}.post_attention_layernorm", bias=True),
        *linear(f"{MLP}.dense_h_to_4h", "f", "h", bias=True),
        *linear(f"{MLP}.dense_4h_to_h", "h", "f", bias=True),
        *norm("transformer.ln_f", bias=True),
    ]
    return (*found, *head(tied=shape.tie_word_embeddings))


def sizes(shape: ModelShape) -> Mapping[str, int]:
    """Symbols of its own."""
    return {"3h": 3 * shape.hidden_size}


def buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """None: slopes are made anew in every step."""
    return ()


def traits(workload: Workload) -> Traits:
    """What the program asks for besides the structure."""
    shape = _shape(workload.model)
    return Traits(shape.hidden_dropout, shape.normed_residual)


def written_gelu(x: Tensor) -> Tensor:
    """`GeLUFunction`: its forward keeps nothing but the input, its backward computes tanh again."""
    half = like(x, "half of x")
    inner = _polynomial(x)
    inner = like(inner, "tanh")
    inner = like(inner, "one and tanh")
    out = like(x, "activation")
    del half, inner

    def apply(gradient: Tensor) -> Gradients:
        tanh = _tanh(gradient)
        factor = _slope(gradient)
        out = like(gradient, "gradient")
        del tanh, factor
        return [out]

    return record(out, apply, [x], [x])


def _tanh(x: Tensor) -> Tensor:
    inner = _polynomial(x)  # noqa: F841 alive until its tanh exists
    return like(x, "tanh")


def _polynomial(x: Tensor) -> Tensor:
    """`0.79788456 * x * (1 + 0.044715 * x * x)`."""
    scaled = like(x, "x scaled")  # noqa: F841
    squared = like(x, "x times a number")
    squared = like(x, "square of x")
    squared = like(x, "one and the square")  # noqa: F841
    return like(x, "x and its cube scaled")


def _slope(x: Tensor) -> Tensor:
    """`0.5 * x * ((1 - t * t) * (a + b * x * x)) + 0.5 * (1 + t)`."""
    first = _first_term(x)  # noqa: F841 alive until the sum exists
    second = like(x, "one and tanh")
    second = like(x, "half of one and tanh")  # noqa: F841
    return like(x, "slope")


def _first_term(x: Tensor) -> Tensor:
    half = like(x, "half of x")  # noqa: F841 alive until the product exists
    factor = _factor(x)  # noqa: F841
    return like(x, "first term")


def _factor(x: Tensor) -> Tensor:
    falling = like(x, "square of tanh")
    falling = like(x, "one less the square of tanh")  # noqa: F841
    rising = like(x, "x times a number")
    rising = like(x, "square of x")
    rising = like(x, "number and the square")  # noqa: F841
    return like(x, "factor")


def biased_scores(alibi: Tensor, q: Tensor, k: Tensor, name: str) -> Tensor:
    """`alibi.baddbmm(q, k)` with a factor on the product, which backward multiplies with once more."""
    shapes, wants = (q.dims, k.dims), (q.requires_grad, k.requires_grad)

    def apply(gradient: Tensor) -> Gradients:
        return [
            scale(gradient.tape.empty(dims, gradient.itemsize, "gradient product"), "gradient product scaled")
            if wanted
            else None
            for dims, wanted in zip(shapes, wants, strict=True)
        ]

    return record(q.tape.empty(SCORES, q.itemsize, name), apply, [q, k], [q, k])


class Bloom(Program):
    """The decoder."""

    embedding_path = "transformer.word_embeddings"

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
        hidden = self.layer_norm(embedded, "transformer.word_embeddings_layernorm")
        alibi = self.alibi(hidden.itemsize)
        mask = self.causal_mask()
        cache: list[Tensor] = []
        outputs: tuple[Tensor, Tensor] | None = None
        for index in range(self.structure.layers):
            outputs = self.inside(index, self.block, hidden, alibi, mask, cache)
            hidden = outputs[0]
        self.outside()
        hidden = self.layer_norm(hidden, "transformer.ln_f")
        del outputs
        return hidden, cache

    def alibi(self, itemsize: int) -> Tensor:
        """A slope for each head times each position, once for all layers."""
        tape = self.tape
        if self.structure.padding:
            counted = tape.empty(("b", "s"), 8, "positions", "inputs")  # noqa: F841
            wide = tape.empty(("b", "n", "s"), 4, "slopes times positions")
            return cast(wide, itemsize, "alibi")
        once = tape.empty(("n", "s"), 4, "slopes times positions")  # noqa: F841
        return cast(tape.empty(("b", "n", "s"), 4, "alibi of every sequence"), itemsize, "alibi")

    def block(self, hidden: Tensor, alibi: Tensor, mask: Tensor | None, cache: list[Tensor]) -> tuple[Tensor, Tensor]:
        """One layer: its output, and its attention weights, which the loop keeps until the next layer is done."""
        normed = self.layer_norm(hidden, f"{LAYER}.input_layernorm")
        residual = normed if self.traits.normed_residual else hidden
        with self.named("self_attention"):
            attended, weights = self.attention(normed, residual, alibi, mask, cache)
        normed = self.layer_norm(attended, f"{LAYER}.post_attention_layernorm")
        residual = normed if self.traits.normed_residual else attended
        with self.named("mlp"):
            output = self.mlp(normed, residual)
        return output, weights

    def attention(
        self, hidden: Tensor, residual: Tensor, alibi: Tensor, mask: Tensor | None, cache: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Self-attention; every tensor of it is a local variable until it ends."""
        s = self.structure
        fused = self.linear(hidden, f"{ATTENTION}.query_key_value")
        query, key, value = (part(fused, *HEADS) for _ in range(3))
        cached = s.use_cache and not s.checkpointing
        if cached:
            key, value = self.cached(key, "k cached"), self.cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        query = self.folded(query, "q")
        key, value = (x if cached else self.folded(x, name) for x, name in ((key, "k"), (value, "v")))
        slopes = cast(alibi, query.itemsize, "alibi cast")
        scores = biased_scores(slopes, query, key, "scores")
        del slopes
        weights = add(scores, mask, "scores masked") if mask is not None else scores
        probabilities = softmax(cast(weights, 4, "scores in fp32"), "attention probabilities")
        probabilities = cast(probabilities, query.itemsize, "weights")
        probabilities = dropout(probabilities, s.dropout, "attention dropout")
        context = matmul(probabilities, value, HEADS, "values")
        context = self.merged(context)
        output = self.linear(context, f"{ATTENTION}.dense")
        output = self.dropped_and_added(output, residual)
        return output, probabilities.detach()

    def folded(self, x: Tensor, name: str) -> Tensor:
        """Batch and heads as one dimension: a copy where there are several sequences."""
        if not self.structure.batched:
            return x
        return record(like(x, f"{name} folded"), lambda gradient: [gradient.detach()], [x])

    def merged(self, x: Tensor) -> Tensor:
        """Heads side by side again: a copy, and where there are several sequences another one back."""
        batched = self.structure.batched

        def apply(gradient: Tensor) -> Gradients:
            if not batched:
                return [gradient.view(*HEADS).as_view()]
            return [gradient.tape.empty(HEADS, gradient.itemsize, "gradient head by head")]

        return record(x.tape.empty(HIDDEN, x.itemsize, "attention output"), apply, [x])

    def dropped_and_added(self, x: Tensor, residual: Tensor) -> Tensor:
        """Dropout and the residual, both alive beside what they are made of until it returns."""
        out = dropout(x, self.traits.dropout, "dropout")
        return add(residual, out, "with residual")

    def mlp(self, x: Tensor, residual: Tensor) -> Tensor:
        """Two products with an activation between them."""
        x = written_gelu(self.linear(x, f"{MLP}.dense_h_to_4h"))
        output = self.linear(x, f"{MLP}.dense_4h_to_h")
        return self.dropped_and_added(output, residual)


FAMILY = Family(
    weights=weights,
    program=Bloom,
    buffers=buffers,
    last_product=f"{MLP}.dense_4h_to_h",
    chunked_loss=True,
    sizes=sizes,
    traits=traits,
)
