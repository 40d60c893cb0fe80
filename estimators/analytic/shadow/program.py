"""What the programs of all families share: parameters by their names, linear layers, checkpointing, the attention call.

Dimensions: b micro-batch, s sequence, h hidden, f MLP intermediate, v vocabulary, n query heads, g key-value heads,
d head width, q = n*d, k = g*d, R adapter or factor rank. A single letter's size is a number of the batch or the model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast as typed

from estimators.analytic.shadow import attention as kernels
from estimators.analytic.shadow import loss as losses
from estimators.analytic.shadow.norms import layer_norm
from estimators.analytic.shadow.ops import add, cast, dropout, linear, repeat, scale
from estimators.analytic.shadow.quantised import FourBit, clone, linear_4bit
from estimators.analytic.shadow.stand_in import stand_in
from estimators.analytic.shadow.structure import Structure
from estimators.analytic.shadow.tape import (
    MIDDLE,
    OUTSIDE,
    Dims,
    Made,
    Parameter,
    Tape,
    Tensor,
    checkpoint,
    record,
)
from estimators.analytic.shadow.weights import Weight, copy_name
from profiles.shapes import FULL, SLIDING

HIDDEN: Dims = ("b", "s", "h")


@dataclass(slots=True)
class Linear:
    """A linear layer with whatever the parameterisation hangs on it."""

    weight: Parameter
    bias: Parameter | None = None
    transposed: bool = False
    """It keeps (in, out), as transformers' Conv1D does."""
    lora_a: Parameter | None = None
    lora_b: Parameter | None = None
    packed: bool = False
    """Frozen in four bits."""
    factor: Parameter | None = None
    """The first of two factors; `weight` is the second."""


class Program(ABC):
    """The played model: a family's subclass is written like its modeling code, with the same local variables.

    A name with `*` means the parameter of the layer whose code runs now.
    """

    embedding_path = "model.embed_tokens"
    head_path = "lm_head"
    saved_modules: tuple[str, ...] = ()
    """Modules that peft copies and trains in full beside LoRA's adapters."""
    causal = True
    """Tokens see only those before them."""
    caps_scores = False
    """Its eager attention passes scores through a scaled tanh."""
    fp32_softmax = True
    """Its eager attention asks for a softmax in fp32, and casts the result back."""
    caches_casts = True
    """Its linear layers hand their weights to the product as they are, so that autocast keeps its copies."""
    casts_weights = False
    """Its eager attention casts the result of softmax in any case."""

    def __init__(self, structure: Structure, tape: Tape) -> None:
        self.structure = structure
        self.tape = tape
        tape.collapsed = structure.layers == MIDDLE + 2
        self._weights = {weight.name: weight for weight in structure.weights}
        self._parameters: dict[tuple[str, int], Parameter] = {}
        self._linears: dict[tuple[str, int], Linear] = {}
        self._entering: list[tuple[Parameter, Tensor]] = []
        self._entered: list[tuple[Parameter, Tensor]] = []
        """What the last loss keeps alive."""

    @abstractmethod
    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What the head takes, and what `outputs` holds besides the logits (a key-value cache)."""

    def inputs(self) -> list[Tensor]:
        """What the loop hands to the model: token ids, labels, and a mask of tokens beside padding."""
        names = ["input ids", "labels", *["attention mask of tokens"] * self.structure.padding]
        return [self.tape.empty(("b", "s"), 8, name, "inputs") for name in names]

    def step(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Forward with labels: the loss, and what `outputs` holds."""
        hidden, outputs = self.forward(inputs)
        if self.structure.loss_chunks:
            loss = losses.chunked(self, hidden)
            self.keep_leaves()
            return loss, outputs
        loss, logits = self.loss(hidden, inputs)
        self.keep_leaves()
        return loss, [*outputs, logits.detach()]

    def keep_leaves(self) -> None:
        """The loss of this forward keeps its leaves, and that of the one before is gone."""
        self._entered, self._entering = self._entering, []

    def loss(self, hidden: Tensor, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and logits: of the next token, all tokens at once."""
        return losses.full(self, hidden, inputs[1])

    def logits(self, hidden: Tensor) -> Tensor:
        """The output head, whose weight is the embedding's where the model has no other."""
        if self.has(self.head_path):
            return self.linear(hidden, self.head_path, "logits")
        return linear(hidden, self.weight(self.embedding_path), None, "logits", autocast=self.structure.autocast)

    def has(self, path: str, kind: str = "weight") -> bool:
        """Whether the model has such a parameter."""
        return f"{path}.{kind}" in self._weights

    def weight(self, path: str, kind: str = "weight") -> Parameter:
        """A parameter: `path` without its last part, which is `kind`."""
        trainable = self.structure.parameterisation != "lora"
        return self._parameter(self._weights[f"{path}.{kind}"], trainable)

    def layer(self, path: str) -> Linear:
        """A linear layer."""
        place = path, self.tape.layer if "*" in path else OUTSIDE
        found = self._linears.get(place)
        if found is None:
            found = self._linears[place] = self._linear(path)
        return found

    def _parameter(self, spec: Weight, trainable: bool) -> Parameter:
        place = spec.name, self.tape.layer if "*" in spec.name else OUTSIDE
        if place not in self._parameters:
            size, copy = self.structure.itemsize, ""
            if self.structure.parameterisation == "lora":
                copy = copy_name(spec.name, self.saved_modules)
            self._parameters[place] = Parameter(copy or spec.name, spec.dims, size, trainable=trainable or bool(copy))
        return self._parameters[place]

    def _linear(self, path: str) -> Linear:
        s, spec = self.structure, self._weights[f"{path}.weight"]
        target, kind = path in s.targets, s.parameterisation
        out_dim, in_dim = spec.dims[::-1] if spec.transposed else spec.dims
        frozen = kind == "lora" or (target and kind == "relora")
        bias = self._weights.get(f"{path}.bias")
        out = Linear(
            self._parameter(spec, trainable=not frozen),
            self._parameter(bias, trainable=kind != "lora") if bias is not None else None,
            spec.transposed,
            packed=s.four_bit is not None and spec.role == "linear",
        )
        if target and kind == "low-rank":
            out.factor = Parameter(f"{path}.A.weight", (f"R {path}", in_dim), s.itemsize)
            out.weight = Parameter(f"{path}.B.weight", (out_dim, f"R {path}"), s.itemsize)
            out.transposed = False
        elif target and kind in ("lora", "relora"):
            out.lora_a = Parameter(f"{path}.lora_A.weight", ("R", in_dim), s.adapter_itemsize)
            out.lora_b = Parameter(f"{path}.lora_B.weight", (out_dim, "R"), s.adapter_itemsize)
        return out

    def linear(self, x: Tensor, path: str, name: str = "") -> Tensor:
        """A linear layer, with peft's adapter or as two factors where the structure says so."""
        s, layer, name = self.structure, self.layer(path), name or path.rpartition(".")[2]
        if layer.factor is not None:
            inner = linear(x, layer.factor, None, f"{name} A", autocast=s.autocast)
            return linear(inner, layer.weight, layer.bias, f"{name} B", autocast=s.autocast)
        if layer.packed and s.four_bit is not None:
            return self._linear_4bit(x, layer, name, s.four_bit)
        out = linear(
            x,
            layer.weight,
            layer.bias,
            name,
            autocast=s.autocast,
            transposed=layer.transposed,
            caches=self.caches_casts,
        )
        if layer.lora_a is None or layer.lora_b is None:
            return out
        result_size = out.itemsize
        x = cast(x, layer.lora_a.itemsize, f"{name} adapter input in fp32")
        out = add(out, scale(self._adapted(x, layer, name), f"{name} adapter scaled"), f"{name} with adapter")
        return cast(out, result_size, f"{name} with adapter cast")

    def _adapted(self, x: Tensor, layer: Linear, name: str) -> Tensor:
        """`lora_B(lora_A(dropout(x)))`: no variable holds what lies between them."""
        s = self.structure
        assert layer.lora_a is not None
        assert layer.lora_b is not None
        return linear(
            linear(
                dropout(x, s.adapter_dropout, f"{name} adapter dropout"),
                layer.lora_a,
                None,
                f"{name} A",
                autocast=s.autocast,
            ),
            layer.lora_b,
            None,
            f"{name} B",
            autocast=s.autocast,
        )

    def _linear_4bit(self, x: Tensor, layer: Linear, name: str, kept: FourBit) -> Tensor:
        """Linear4bit, and peft's adapter around it, which under autocast casts nothing."""
        autocast = self.structure.autocast
        out = linear_4bit(x, layer.weight, name, kept)
        if layer.lora_a is None or layer.lora_b is None:
            return out
        out = clone(out, f"{name} cloned")
        size = out.itemsize
        if not autocast:
            x = cast(x, layer.lora_a.itemsize, f"{name} adapter input in fp32")
        dropped = dropout(x, self.structure.adapter_dropout, f"{name} adapter dropout")
        inner = linear(dropped, layer.lora_a, None, f"{name} A", autocast=autocast)
        del dropped
        outer = linear(inner, layer.lora_b, None, f"{name} B", autocast=autocast)
        del inner
        outer = scale(outer, f"{name} adapter scaled")
        if not autocast:
            outer = cast(outer, size, f"{name} adapter cast")
        return add(out, outer, f"{name} with adapter")

    def layer_norm(self, x: Tensor, path: str) -> Tensor:
        """A LayerNorm of the model, with the parameters that it has."""
        weight = self.weight(path) if self.has(path) else None
        bias = self.weight(path, "bias") if self.has(path, "bias") else None
        with self.named(path.rpartition(".")[2]):
            return layer_norm(x, weight, bias, autocast=self.structure.autocast)

    def inside(self, index: int, run: Callable[..., Made], *inputs: object, held: Tensor | None = None) -> Made:
        """Run one layer's code on its inputs, checkpointed where the structure says so.

        `held` is handed to the layer, too, which makes nothing of it: checkpointing keeps it for the second run.
        """

        def layer(_: Tensor | None = held) -> Made:
            return run(*inputs)

        tape = self.tape
        tape.layer = index
        tape.mark("forward of layer", str(index))
        if tape.held_by_layers is not None:
            taken = [x for x in (*inputs, held) if isinstance(x, Tensor)]
            return typed("Made", stand_in(tape, tape.held_by_layers, taken))
        tape.enter("layer")
        out = checkpoint(tape, layer) if self.structure.checkpointing else layer()
        tape.leave()
        return out

    def outside(self) -> None:
        """The layers are done."""
        self.tape.layer = OUTSIDE
        self.tape.mark("forward of layer", "end")

    def named(self, name: str) -> "Scope":
        """Names of tensors born inside begin with `name`."""
        return Scope(self.tape, name)

    def entered(self, embedded: Tensor) -> Tensor:
        """The embedding's output, made to require gradients where checkpointed layers are frozen beside adapters.

        It is a leaf then, which the graph keeps alive with its gradient for as long as the loss is.
        """
        if not self.structure.checkpointing or embedded.requires_grad:
            return embedded
        return self.leaf(embedded, "inputs require grads")

    def leaf(self, x: Tensor, name: str) -> Tensor:
        """A tensor that requires a gradient and is no parameter: both live as long as the loss."""
        if self.tape.refilling is not None:
            return x
        leaf = Parameter(name, x.dims, x.itemsize, optimized=False)
        self._entering.append((leaf, x.detach()))

        def keep(gradient: Tensor) -> list[Tensor | None]:
            gradient.storage.relabel("gradients")
            return [gradient]

        return record(x, keep, [leaf])

    def causal_mask(self, kind: str = FULL) -> Tensor | None:
        """The mask that transformers makes for the kernel, once for all layers."""
        s, tape = self.structure, self.tape
        if s.kernel == "eager":
            allowed = self._allowed(kind)  # noqa: F841
            return tape.empty(("b", "s", "s"), s.itemsize, "attention mask", "inputs")
        return tape.empty(("b", "s", "s"), 1, "attention mask", "inputs") if s.padding else None

    def masks(self) -> dict[str, Tensor | None]:
        """The masks that transformers makes, by the kind of layers that take them.

        A window's mask is one for all sequences where none is padded.
        """
        s, made = self.structure, dict[str, Tensor | None]()
        for kind in s.masks:
            made[kind] = self.causal_mask(kind)
            if made[kind] is None and kind == SLIDING and SLIDING in s.layer_types:
                made[kind] = self._allowed(kind)
        return made

    def _allowed(self, kind: str) -> Tensor:
        """Which positions see which: those before them, and of a window those in it (`and_masks`)."""
        square, tape = ("s", "s"), self.tape
        before = tape.empty(square, 1, "allowed", "inputs")
        if kind == FULL:
            return before
        within = tape.empty(square, 1, "allowed", "inputs")
        del before
        before = tape.empty(square, 1, "allowed", "inputs")
        allowed = tape.empty(square, 1, "sliding mask", "inputs")
        del before, within
        return allowed

    def layer_type(self, index: int) -> str:
        """Which of the masks a played layer takes."""
        s = self.structure
        return s.layer_types[index] if s.layer_types else s.masks[0]

    def kernel(self, mask: Tensor | None) -> str:
        """The kernel of a layer: some take no mask."""
        s = self.structure
        return s.kernel if mask is None or not s.layer_types else s.masked_kernel

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, foldable: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Transformers' attention function on `q` (b, n, s, d), `k`, `v` (b, g, s, d): (b, s, q), and its weights.

        `foldable`: queries and keys lie in memory head after head.
        """
        s, kernel = self.structure, self.kernel(mask)
        if kernel == "eager":
            values, weights = kernels.eager(
                q,
                k,
                v,
                mask,
                grouped=s.grouped,
                single_head=s.single_head,
                batched=s.batched,
                probability=s.dropout,
                softmax_itemsize=4 if self.fp32_softmax or s.autocast else q.itemsize,
                casts_back=self.fp32_softmax or self.casts_weights,
                autocast=s.autocast,
                foldable=foldable,
                capped=self.caps_scores,
            )
            return _contiguous(values), weights
        repeated = s.grouped and mask is not None
        grouped = s.grouped and not repeated
        if repeated:  # transformers repeats heads itself beside a mask (use_gqa_in_sdpa)
            k = repeat(k, kernels.HEADS, "k repeated", single=s.single_head)
            v = repeat(v, kernels.HEADS, "v repeated", single=s.single_head)
        if s.autocast:
            q, k, v = (cast(x, s.autocast, f"{name} cast") for x, name in zip((q, k, v), "qkv", strict=True))
        if kernel == "math":
            values = kernels.math(
                q,
                k,
                v,
                grouped=grouped,
                batched=s.batched,
                mask=mask,
                causal=self.causal,
                probability=s.dropout,
                foldable=foldable,
                repeated=repeated and not s.single_head,
            )
            return _contiguous(values), None
        fused = kernels.FUSED[kernel]
        runs = s.efficient if kernel == "efficient" else None
        out = kernels.fused(
            q, k, v, fused, grouped=grouped, mask=mask, by_heads=foldable, efficient=runs, aligned=s.aligned
        )
        return (_contiguous(out) if foldable and fused.follows_queries else out), None

    def joined(self, values: Tensor) -> Tensor:
        """`transpose(1, 2).contiguous()` of (b, n, s, d)."""
        return _contiguous(values)

    def cached(self, x: Tensor, name: str) -> Tensor:
        """Keys or values as the cache joins them to what it holds: a copy."""
        return record(self.tape.empty(x.dims, x.itemsize, name), lambda gradient: [gradient.as_view()], [x])


class Scope:
    """A part of the names of tensors that are born while it is entered."""

    def __init__(self, tape: Tape, name: str) -> None:
        self._tape = tape
        self._name = name

    def __enter__(self) -> None:
        self._tape.enter(self._name)

    def __exit__(self, *failure: object) -> None:
        self._tape.leave()


def _contiguous(x: Tensor) -> Tensor:
    """`transpose(1, 2).contiguous()` of (b, n, s, d)."""
    return record(
        x.tape.empty(("b", "s", "q"), x.itemsize, "attention output contiguous"),
        lambda gradient: [gradient.detach()],
        [x],
    )
