"""T5: an encoder, and a decoder that looks at it; relative positions as a learned bias that the layers of each share.

The program follows transformers 5 line by line (models/t5/modeling_t5.py). All layers are played: those of the encoder
and of the decoder differ, and what crosses from one to the other is not the same for each.
"""

from dataclasses import dataclass, replace

from estimators.analytic.families.family import Family
from estimators.analytic.families.t5_parameters import bias_path, sizes, t5_shape, weights
from estimators.analytic.shadow import attention as kernels
from estimators.analytic.shadow import biased
from estimators.analytic.shadow.activations import activate
from estimators.analytic.shadow.norms import t5_norm
from estimators.analytic.shadow.ops import add, cast, dropout, embedding, multiply, relayout, scale
from estimators.analytic.shadow.periods import Repeated
from estimators.analytic.shadow.pooling import classification_loss
from estimators.analytic.shadow.program import HIDDEN, Program
from estimators.analytic.shadow.structure import Structure
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.tensors import Tensors
from estimators.workload import Workload
from profiles.shapes import ModelShape

ALIGNMENT = 16
"""Elements that the memory-efficient kernel wants rows of a bias to be a multiple of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What decides which tensors exist, beside a structure's own fields."""

    encoder_layers: int
    decoder_layers: int
    dropout: float
    gated: bool
    activation: str
    scales_outputs: bool
    aligned: bool
    """The sequence is a multiple of what the kernel wants of a bias."""


def buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """None."""
    return ()


def traits(workload: Workload) -> Traits:
    """One dropout for everything, which `--dropout` sets."""
    shape = t5_shape(workload.model)
    return Traits(
        encoder_layers=shape.num_hidden_layers,
        decoder_layers=shape.num_decoder_layers,
        dropout=shape.dropout if workload.dropout is None else workload.dropout,
        gated=shape.gated,
        activation=shape.hidden_act,
        scales_outputs=shape.scales_outputs,
        aligned=workload.batch.sequence_length % ALIGNMENT == 0,
    )


def all_layers(workload: Workload) -> int:
    """Of encoder and decoder."""
    shape = t5_shape(workload.model)
    return shape.num_hidden_layers + shape.num_decoder_layers


def score_layers(shape: ModelShape) -> int:
    """The decoder's layers look at its own tokens and at the encoder's."""
    shape = t5_shape(shape)
    return shape.num_hidden_layers + 2 * shape.num_decoder_layers


class T5(Program):
    """The encoder and the decoder."""

    embedding_path = "shared"

    @property
    def traits(self) -> Traits:
        """The family's own."""
        assert isinstance(self.structure.traits, Traits)
        return self.structure.traits

    def step(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Forward with labels: cross-entropy in the logits' own dtype."""
        hidden, (encoded, *held) = self.forward(inputs)
        with self.named("lm_head"):
            logits = self.logits(hidden)
        self.tape.mark("loss")
        with self.named("loss"):
            loss = classification_loss(logits, inputs[1], autocast=self.structure.autocast)
        self.keep_leaves()
        return loss, [encoded, *held[2:], logits.detach()]

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What the head takes; last hidden states of encoder and decoder, the decoder's input, and key-value cache."""
        cache: list[Tensor] = []
        with self.named("encoder"):
            encoded = self.stack("encoder", [], None, cache)
        shifted = self.tape.empty(("b", "s"), 8, "decoder input ids", "inputs")
        with self.named("decoder"):
            decoded = self.stack("decoder", [shifted], encoded, cache)
        hidden = scale(decoded, "output scaled") if self.traits.scales_outputs else decoded
        return hidden, [encoded.detach(), decoded.detach(), shifted, *cache]

    def stack(self, name: str, ids: list[Tensor], encoded: Tensor | None, cache: list[Tensor]) -> Tensor:
        """Encoder or decoder."""
        words = self.entered(embedding(self.tape, self.weight("shared"), HIDDEN, "words", ids))
        mask, cross_mask = self.stack_masks(encoded is not None)
        hidden = self.dropped(words)
        bias: Tensor | None = None
        cross_bias: Tensor | None = None
        first, last = self.layers_of(name)
        for index in range(first, last):
            made: list[Tensor] = []
            hidden = self.inside(
                index, self.block, hidden, name, bias, mask, encoded, cross_bias, cross_mask, cache, made
            )
            bias, cross_bias = made[0], made[1] if encoded is not None else None
            made.clear()  # checkpointing keeps the list, and not what it held
        self.outside()
        with self.named("final_layer_norm"):
            hidden = t5_norm(hidden, self.weight(f"{name}.final_layer_norm"))
        return self.dropped(hidden)

    def layers_of(self, name: str) -> tuple[int, int]:
        """Numbers of a stack's layers among all that are played; a ledger plays others, all of the encoder."""
        every, encoder = self.structure.layers, self.traits.encoder_layers
        border = encoder if every == encoder + self.traits.decoder_layers else every
        return (0, border) if name == "encoder" else (border, every)

    def stack_masks(self, decodes: bool) -> tuple[Tensor | None, Tensor | None]:
        """Of a stack's own tokens, and of the encoder's in the decoder."""
        s, tape = self.structure, self.tape
        is_eager = s.kernel == "eager"

        def padding() -> Tensor | None:
            if not s.padding:
                return None
            mask = tape.empty(("b", "s", "s"), 1, "attention mask", "inputs")
            return tape.empty(("b", "s", "s"), s.itemsize, "attention mask", "inputs") if is_eager else mask

        if not decodes:
            return padding(), None
        own = None
        if is_eager:
            allowed = tape.empty(("s", "s"), 1, "allowed", "inputs")
            own = tape.empty(("b", "s", "s"), s.itemsize, "attention mask", "inputs")
            del allowed
        return own, padding()

    def block(
        self,
        hidden: Tensor,
        stack: str,
        bias: Tensor | None,
        mask: Tensor | None,
        encoded: Tensor | None,
        cross_bias: Tensor | None,
        cross_mask: Tensor | None,
        cache: list[Tensor],
        made: list[Tensor],
    ) -> Tensor:
        """One layer: attention, in the decoder also to the encoder's output, and the MLP."""
        path = f"{stack}.block.*.layer"
        with self.named("SelfAttention"):
            hidden, bias, weights = self.self_attention(hidden, f"{path}.0", stack, bias, mask, cache)
        if encoded is not None:
            with self.named("EncDecAttention"):
                hidden, cross_bias, weights = self.cross_attention(
                    hidden, encoded, f"{path}.1", cross_bias, cross_mask, cache
                )
        with self.named("DenseReluDense"):
            hidden = self.mlp(hidden, f"{path}.{1 if encoded is None else 2}")
        del weights
        if self.tape.refilling is None:
            made += [bias] if cross_bias is None else [bias, cross_bias]
        return hidden

    def self_attention(
        self, hidden: Tensor, path: str, stack: str, bias: Tensor | None, mask: Tensor | None, cache: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Attention of a stack's tokens to each other."""
        normed = t5_norm(hidden, self.weight(f"{path}.layer_norm"))
        query, key, value = self.products(normed, normed, f"{path}.SelfAttention", cache)
        bias = self.relative_bias(stack) if bias is None else bias
        out, weights = self.attend_biased(query, key, value, bias, mask, causal=stack == "decoder", learned=True)
        out = self.linear(out, f"{path}.SelfAttention.o")
        del query, key, value
        out = add(hidden, self.dropped(out), "after attention")
        return out, bias, weights

    def cross_attention(
        self,
        hidden: Tensor,
        encoded: Tensor,
        path: str,
        bias: Tensor | None,
        mask: Tensor | None,
        cache: list[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Attention to the encoder's output; its bias is zeros."""
        normed = t5_norm(hidden, self.weight(f"{path}.layer_norm"))
        query, key, value = self.products(normed, encoded, f"{path}.EncDecAttention", cache)
        bias = self.zero_bias(query.itemsize) if bias is None else bias
        out, weights = self.attend_biased(query, key, value, bias, mask, causal=False, learned=False)
        out = self.linear(out, f"{path}.EncDecAttention.o")
        del query, key, value
        out = add(hidden, self.dropped(out), "after attention to the encoder")
        return out, bias, weights

    def products(self, hidden: Tensor, source: Tensor, path: str, cache: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of one sequence, keys and values of another, by heads."""
        s = self.structure

        def heads(x: Tensor) -> Tensor:
            fused = s.kernel in kernels.FUSED
            return x.view("b", "n", "s", "d") if fused else relayout(x, "b", "n", "s", "d")

        query = heads(self.linear(hidden, f"{path}.q"))
        key, value = heads(self.linear(source, f"{path}.k")), heads(self.linear(source, f"{path}.v"))
        if s.use_cache and not s.checkpointing and path.startswith("decoder"):
            key, value = self.cached(key, "k cached"), self.cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        return query, key, value

    def relative_bias(self, stack: str) -> Tensor:
        """A bias for every head and pair of tokens, by the bucket of their distance (`compute_bias`)."""
        tape, buckets = self.tape, None

        def pairs(name: str, itemsize: int = 8, category: str = "inputs") -> Tensor:
            return tape.empty(("s", "s"), itemsize, name, category)

        relative = pairs("relative positions")  # noqa: F841
        if stack == "encoder":
            ahead = pairs("later tokens", 1)
            ahead = pairs("later tokens as numbers")
            ahead = pairs("buckets of later tokens")
            buckets = pairs("buckets")
            del ahead
            distance = pairs("distances")
        else:
            distance = pairs("zeros")
            distance = pairs("distances before the sign")
            distance = pairs("distances")
        small = pairs("small distances", 1)
        for name in ("distances in fp32", "ratios", "logarithms", "shares", "large distances"):
            large = pairs(name, 4, "activations")
        large = pairs("whole distances")
        large = pairs("buckets of large distances")
        most = pairs("last bucket")
        large = pairs("buckets of large distances")
        del most
        picked = pairs("buckets of all distances")
        buckets = buckets or pairs("buckets")
        del distance, small, large, picked
        return embedding(tape, self.weight(bias_path(stack)), biased.BIAS, "position bias", [buckets])

    def zero_bias(self, itemsize: int) -> Tensor:
        """Zeros, which checkpointing lets require gradients."""
        zeros = self.tape.empty(biased.BIAS, itemsize, "position bias of zeros", "activations")
        return self.leaf(zeros, "position bias of zeros") if self.structure.checkpointing else zeros

    def attend_biased(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, *, causal: bool, learned: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attention with a bias on its scores; its weights where they are there."""
        s, batched = self.structure, self.structure.batched
        if s.kernel == "eager":
            return biased.eager(
                q, k, v, bias, mask, batched=batched, probability=self.traits.dropout, autocast=s.autocast
            )
        wide = biased.bias_mask(bias, mask, causal=causal, learned=learned, batched=batched)
        bias = cast(wide, q.itemsize, "bias cast")
        if s.kernel == "math":
            values = kernels.math(
                q,
                k,
                v,
                grouped=False,
                batched=batched,
                mask=None,
                causal=False,
                probability=self.traits.dropout,
                bias=bias,
            )
            return self.joined(values), None
        assert s.efficient is not None
        return biased.efficient(q, k, v, bias, s.efficient, batched=batched, aligned=self.traits.aligned), None

    def mlp(self, hidden: Tensor, path: str) -> Tensor:
        """MLP with or without a gate, its norm before it and the residual after it."""
        s, dense = self.structure, f"{path}.DenseReluDense"
        normed = t5_norm(hidden, self.weight(f"{path}.layer_norm"))
        inner = self.dense(normed, dense)
        inner = cast(inner, s.itemsize, "in the weight's dtype")
        inner = self.linear(inner, f"{dense}.wo")
        del normed
        return add(hidden, self.dropped(inner), "after mlp")

    def dense(self, x: Tensor, path: str) -> Tensor:
        """The activation, gated or not, dropped."""
        name, autocast = self.traits.activation, self.structure.autocast
        if not self.traits.gated:
            return self.dropped(activate(self.linear(x, f"{path}.wi"), name, autocast=autocast))
        gate = activate(self.linear(x, f"{path}.wi_0"), name, autocast=autocast)
        return self.dropped(multiply(gate, self.linear(x, f"{path}.wi_1"), "gated"))

    def dropped(self, x: Tensor) -> Tensor:
        """Dropout, where there is any."""
        return dropout(x, self.traits.dropout, "dropout")


def shortened(structure: Structure) -> tuple[Structure, tuple[Repeated, ...]]:
    """Layers of both stacks are alike but for two at either end, where gradients of biases and of the encoder meet."""
    traits = structure.traits
    assert isinstance(traits, Traits)
    if structure.layers != traits.encoder_layers + traits.decoder_layers:
        return structure, ()
    encoder = Repeated.of(0, traits.encoder_layers, 1, special=2)
    decoder = Repeated.of(traits.encoder_layers - encoder.more, traits.decoder_layers, 1, special=2)
    fewer = replace(
        traits, encoder_layers=traits.encoder_layers - encoder.more, decoder_layers=traits.decoder_layers - decoder.more
    )
    layers = fewer.encoder_layers + fewer.decoder_layers
    return replace(structure, layers=layers, traits=fewer), (encoder, decoder)


FAMILY = Family(
    weights=weights,
    program=T5,
    buffers=buffers,
    last_product="",
    sizes=sizes,
    traits=traits,
    played_layers=all_layers,
    shortened=shortened,
    score_layers=score_layers,
    not_quantised="its code asks for the dtype of a weight",
)
