"""What the programs of all families share: a step's order, checkpointing, masks, the attention call.

Dimensions: b micro-batch, s sequence, h hidden, f MLP intermediate, v vocabulary, n query heads, g key-value heads,
d head width, q = n*d, k = g*d, R adapter or factor rank. A single letter's size is a number of the batch or the model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast as typed

from estimators.analytic.shadow import attention as kernels
from estimators.analytic.shadow import loss as losses
from estimators.analytic.shadow.linears import Linears
from estimators.analytic.shadow.ops import cast, linear, repeat
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
from profiles.shapes import FULL, SLIDING

HIDDEN: Dims = ("b", "s", "h")


class Program(Linears, ABC):
    """The played model: a family's subclass is written like its modeling code, with the same local variables."""

    embedding_path = "model.embed_tokens"
    head_path = "lm_head"
    causal = True
    """Tokens see only those before them."""
    caps_scores = False
    """Its eager attention passes scores through a scaled tanh."""
    fp32_softmax = True
    """Its eager attention asks for a softmax in fp32, and casts the result back."""
    casts_weights = False
    """Its eager attention casts the result of softmax in any case."""

    def __init__(self, structure: Structure, tape: Tape) -> None:
        super().__init__(structure, tape)
        tape.splits_sums = structure.splits_sums
        tape.collapsed = structure.layers == MIDDLE + 2
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
        s, tape, square = self.structure, self.tape, ("b", "s", "s")
        if s.padding:
            allowed = self._allowed(kind)
            before = tape.empty(("s", "s"), 1, "allowed", "inputs")
            del allowed
            allowed = tape.empty(square, 1, "attention mask", "inputs")
            del before
            if s.kernel != "eager":
                return allowed
        elif s.kernel == "eager":
            allowed = self._allowed(kind)
        else:
            return None
        return tape.empty(square, s.itemsize, "attention mask", "inputs")

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
            return values, weights
        repeated = s.grouped and mask is not None
        grouped = s.grouped and not repeated
        if repeated:  # transformers repeats heads itself beside a mask (use_gqa_in_sdpa)
            k = repeat(k, kernels.HEADS, "k repeated", single=s.single_head)
            v = repeat(v, kernels.HEADS, "v repeated", single=s.single_head)
        out = self.torch_attention(q, k, v, mask, kernel, grouped=grouped, repeated=repeated, foldable=foldable)
        copies = kernel == "math" or (foldable and kernels.FUSED[kernel].follows_queries)
        return (kernels.contiguous(out) if copies else out), None

    def torch_attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        kernel: str,
        *,
        grouped: bool,
        repeated: bool,
        foldable: bool,
    ) -> Tensor:
        """Torch's own: what autocast casts is its alone."""
        s = self.structure
        if s.autocast:
            q, k, v = (cast(x, s.autocast, f"{name} cast") for x, name in zip((q, k, v), "qkv", strict=True))
        if kernel == "math":
            return kernels.math(
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
        fused, runs = kernels.FUSED[kernel], s.efficient if kernel == "efficient" else None
        return kernels.fused(
            q, k, v, fused, grouped=grouped, mask=mask, by_heads=foldable, efficient=runs, aligned=s.aligned
        )

    def joined(self, values: Tensor) -> Tensor:
        """`transpose(1, 2).contiguous()` of (b, n, s, d)."""
        return kernels.contiguous(values)

    def cached(self, x: Tensor, name: str) -> Tensor:
        """Keys or values as the cache joins them to what it holds: a copy."""
        return record(self.tape.empty(x.dims, x.itemsize, name), lambda gradient: [gradient.as_view()], [x])
