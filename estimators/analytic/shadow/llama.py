"""A LLaMA-type model in shadow, line by line as transformers 5 writes it (models/llama/modeling_llama.py).

Dimensions: b micro-batch, s sequence, h hidden, f MLP intermediate, v vocabulary, n query heads, g key-value heads,
d head width, q = n*d, k = g*d, R adapter or factor rank. A single letter's size is a number of the batch or the model.
"""

from dataclasses import dataclass, field

from estimators.analytic.shadow import attention as kernels
from estimators.analytic.shadow.ops import (
    add,
    cast,
    dropout,
    embedding,
    linear,
    mean,
    multiply,
    relayout,
    repeat,
    rotate,
    rsqrt,
    scale,
    shift,
    silu,
    square,
    weigh,
)
from estimators.analytic.shadow.structure import Structure
from estimators.analytic.shadow.tape import OUTSIDE, Dims, Parameter, Tape, Tensor, checkpoint, record

HIDDEN: Dims = ("b", "s", "h")


@dataclass(slots=True)
class Linear:
    """A linear layer with whatever the parameterisation hangs on it."""

    weight: Parameter
    bias: Parameter | None = None
    lora_a: Parameter | None = None
    lora_b: Parameter | None = None
    factor: Parameter | None = None
    """The first of two factors; `weight` is the second."""


@dataclass(slots=True)
class Layer:
    """One decoder layer's parameters."""

    linears: dict[str, Linear] = field(default_factory=dict)
    norms: dict[str, Parameter] = field(default_factory=dict)


class Model:
    """The parameters of the played model, and its forward."""

    def __init__(self, structure: Structure, tape: Tape) -> None:
        self.structure = structure
        self.tape = tape
        trainable = structure.parameterisation != "lora"
        size = structure.itemsize
        self.embedding = Parameter("model.embed_tokens.weight", ("v", "h"), size, trainable=trainable)
        self.head = (
            Linear(self.embedding) if structure.tied else self._linear("lm_head", "lm_head", ("v", "h"), bias=False)
        )
        self.norm = Parameter("model.norm.weight", ("h",), size, trainable=trainable)
        self.layers = [self._layer(trainable) for _ in range(structure.layers)]

    def _layer(self, trainable: bool) -> Layer:
        s = self.structure
        shapes: dict[str, tuple[str, Dims, bool]] = {
            "q_proj": ("self_attn", ("q", "h"), s.qkv_bias),
            "k_proj": ("self_attn", ("k", "h"), s.qkv_bias),
            "v_proj": ("self_attn", ("k", "h"), s.qkv_bias),
            "o_proj": ("self_attn", ("h", "q"), s.output_bias),
            "gate_proj": ("mlp", ("f", "h"), s.mlp_bias),
            "up_proj": ("mlp", ("f", "h"), s.mlp_bias),
            "down_proj": ("mlp", ("h", "f"), s.mlp_bias),
        }
        layer = Layer()
        for name, (parent, dims, bias) in shapes.items():
            layer.linears[name] = self._linear(name, f"model.layers.*.{parent}.{name}", dims, bias=bias)
        norms: dict[str, Dims] = {"input_layernorm": ("h",), "post_attention_layernorm": ("h",)}
        if s.qk_norm:
            norms |= {"self_attn.q_norm": ("d",), "self_attn.k_norm": ("d",)}
        for name, width in norms.items():
            layer.norms[name] = Parameter(f"model.layers.*.{name}.weight", width, s.itemsize, trainable=trainable)
        return layer

    def _linear(self, name: str, path: str, dims: Dims, *, bias: bool) -> Linear:
        s = self.structure
        target, kind = name in s.targets, s.parameterisation
        trainable = kind != "lora" and not (target and kind == "relora")
        out = Linear(
            Parameter(f"{path}.weight", dims, s.itemsize, trainable=trainable),
            Parameter(f"{path}.bias", dims[:1], s.itemsize, trainable=kind != "lora") if bias else None,
        )
        if target and kind == "low-rank":
            out.factor = Parameter(f"{path}.A.weight", (f"R{name}", dims[1]), s.itemsize)
            out.weight = Parameter(f"{path}.B.weight", (dims[0], f"R{name}"), s.itemsize)
        elif target and kind in ("lora", "relora"):
            out.lora_a = Parameter(f"{path}.lora_A.weight", ("R", dims[1]), 4)
            out.lora_b = Parameter(f"{path}.lora_B.weight", (dims[0], "R"), 4)
        return out

    def forward(self) -> tuple[Tensor, list[Tensor]]:
        """Logits-producing hidden states, and what `outputs` holds besides them (the key-value cache)."""
        s, tape = self.structure, self.tape
        embedded = embedding(tape, self.embedding, HIDDEN, "embed_tokens")
        if s.checkpointing and not embedded.requires_grad:
            embedded = _leaf(embedded)
        position_ids = tape.empty(("s",), 8, "position ids", "inputs")  # noqa: F841
        mask = self._mask()
        hidden = embedded
        cos, sin = self._positions(hidden)
        cache: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            tape.layer = index
            tape.mark("forward of layer", str(index))
            tape.scope.append("layer")
            if s.checkpointing:
                hidden = self._checkpointed(layer, hidden, cos, sin, mask)
            else:
                hidden = self.decoder(layer, hidden, cos, sin, mask, cache)
            tape.scope.pop()
        tape.layer = OUTSIDE
        tape.mark("forward of layer", "end")
        tape.scope.append("norm")
        hidden = self.rms_norm(hidden, self.norm)
        tape.scope.pop()
        return hidden, cache

    def _checkpointed(self, layer: Layer, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        return checkpoint(self.tape, lambda: self.decoder(layer, hidden, cos, sin, mask, []))

    def _mask(self) -> Tensor | None:
        s, tape = self.structure, self.tape
        if s.kernel == "eager":
            allowed = tape.empty(("s", "s"), 1, "allowed", "inputs")  # noqa: F841
            return tape.empty(("b", "s", "s"), s.itemsize, "attention mask", "inputs")
        return tape.empty(("b", "s", "s"), 1, "attention mask", "inputs") if s.padding else None

    def _positions(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        tape, width = self.tape, ("s", "d")
        freqs = tape.empty(("s", "d/2"), 4, "rotary angles")  # noqa: F841
        angles = tape.empty(width, 4, "rotary angles twice")  # noqa: F841
        cos = scale(tape.empty(width, 4, "cos raw"), "cos scaled")
        sin = scale(tape.empty(width, 4, "sin raw"), "sin scaled")
        return cast(cos, hidden.itemsize, "cos"), cast(sin, hidden.itemsize, "sin")

    def decoder(
        self, layer: Layer, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]
    ) -> Tensor:
        """One decoder layer."""
        scope = self.tape.scope
        residual = hidden
        scope.append("input_layernorm")
        hidden = self.rms_norm(hidden, layer.norms["input_layernorm"])
        scope[-1] = "self_attn"
        hidden, _ = self.attention(layer, hidden, cos, sin, mask, cache)
        scope[-1] = "residual"
        hidden = add(residual, hidden, "after attention")
        residual = hidden
        scope[-1] = "post_attention_layernorm"
        hidden = self.rms_norm(hidden, layer.norms["post_attention_layernorm"])
        scope[-1] = "mlp"
        hidden = self.mlp(layer, hidden)
        scope[-1] = "residual"
        hidden = add(residual, hidden, "after mlp")
        scope.pop()
        return hidden

    def rms_norm(self, hidden: Tensor, weight: Parameter) -> Tensor:
        """RMSNorm in fp32, its result in the input's dtype."""
        source = hidden.itemsize
        hidden = cast(hidden, 4, "x in fp32")
        variance = mean(square(hidden, "squares"), "variance")
        hidden = multiply(hidden, rsqrt(shift(variance, "variance + eps"), "rsqrt"), "normalised in fp32")
        return weigh(cast(hidden, source, "normalised"), weight, "output")

    def linear(self, x: Tensor, layer: Linear, name: str) -> Tensor:
        """A linear layer, with peft's adapter or as two factors where the structure says so."""
        s = self.structure
        if layer.factor is not None:
            inner = linear(x, layer.factor, None, f"{name} A", autocast=s.autocast)
            return linear(inner, layer.weight, layer.bias, f"{name} B", autocast=s.autocast)
        out = linear(x, layer.weight, layer.bias, name, autocast=s.autocast)
        if layer.lora_a is None or layer.lora_b is None:
            return out
        result_size = out.itemsize
        x = cast(x, layer.lora_a.itemsize, f"{name} adapter input in fp32")
        inner = linear(
            dropout(x, s.adapter_dropout, f"{name} adapter dropout"),
            layer.lora_a,
            None,
            f"{name} A",
            autocast=s.autocast,
        )
        out = add(
            out,
            scale(linear(inner, layer.lora_b, None, f"{name} B", autocast=s.autocast), f"{name} adapter scaled"),
            f"{name} with adapter",
        )
        return cast(out, result_size, f"{name} with adapter cast")

    def attention(
        self, layer: Layer, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Grouped-query attention with rotary positions."""
        s, linears = self.structure, layer.linears
        query = relayout(self.linear(hidden, linears["q_proj"], "q_proj"), "b", "n", "s", "d")
        if s.qk_norm:
            query = self._head_norm(query, layer.norms["self_attn.q_norm"], "q_norm")
        key = relayout(self.linear(hidden, linears["k_proj"], "k_proj"), "b", "g", "s", "d")
        if s.qk_norm:
            key = self._head_norm(key, layer.norms["self_attn.k_norm"], "k_norm")
        value = self.linear(hidden, linears["v_proj"], "v_proj")
        value = relayout(value, "b", "g", "s", "d") if s.kernel in ("math", "eager") else value.view("b", "g", "s", "d")
        query, key = rotate(query, cos, sin, "q"), rotate(key, cos, sin, "k")
        if s.use_cache and not s.checkpointing:
            key, value = self._cached(key, "k cached"), self._cached(value, "v cached")
            cache += [key.detach(), value.detach()]
        out, weights = self._kernel(query, key, value, mask)
        return self.linear(out, linears["o_proj"], "o_proj"), weights

    def _cached(self, x: Tensor, name: str) -> Tensor:
        return record(self.tape.empty(x.dims, x.itemsize, name), lambda gradient: [gradient.as_view()], [x])

    def _head_norm(self, x: Tensor, weight: Parameter, name: str) -> Tensor:
        self.tape.scope.append(name)
        out = self.rms_norm(x, weight)
        self.tape.scope.pop()
        return out

    def _kernel(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        s = self.structure
        if s.kernel == "eager":
            assert mask is not None
            values, weights = kernels.eager(q, k, v, mask, grouped=s.grouped, batched=s.batched, probability=s.dropout)
            return _contiguous(values), weights
        if s.autocast:
            q, k, v = (cast(x, s.autocast, f"{name} cast") for x, name in zip((q, k, v), "qkv", strict=True))
        grouped = s.grouped
        if grouped and mask is not None:  # transformers repeats heads itself beside a mask (use_gqa_in_sdpa)
            k, v = repeat(k, kernels.HEADS, "k repeated"), repeat(v, kernels.HEADS, "v repeated")
            grouped = False
        if s.kernel == "math":
            return _contiguous(kernels.math(q, k, v, grouped=grouped, batched=s.batched, mask=mask)), None
        return kernels.fused(q, k, v, kernels.FUSED[s.kernel], grouped=grouped, mask=mask), None

    def mlp(self, layer: Layer, x: Tensor) -> Tensor:
        """Gated MLP."""
        linears = layer.linears
        gated = multiply(
            silu(self.linear(x, linears["gate_proj"], "gate_proj"), "activation"),
            self.linear(x, linears["up_proj"], "up_proj"),
            "gated",
        )
        return self.linear(gated, linears["down_proj"], "down_proj")


def _leaf(x: Tensor) -> Tensor:
    """Hidden states made to require gradients, as transformers does beside adapters for checkpointing's sake."""
    return record(x, lambda gradient: [None], [Parameter("inputs require grads", x.dims, x.itemsize)])


def _contiguous(x: Tensor) -> Tensor:
    """`transpose(1, 2).contiguous()` of (b, n, s, d)."""
    return record(
        x.tape.empty(("b", "s", "q"), x.itemsize, "attention output contiguous"),
        lambda gradient: [gradient.detach()],
        [x],
    )
