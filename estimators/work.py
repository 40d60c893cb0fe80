"""Arithmetic per trained token: what a configuration costs beside memory, against plain full-rank training.

Counted are matrix products, two operations per multiply-add, as in PaLM (arXiv 2204.02311, appendix B): the linear
layers, the attention scores (not halved for causality), what checkpointing and a chunked loss compute again, and
GaLore's projections, which are shared out among the tokens of an optimizer step. Element-wise work is left out. This is
work, not time: kernels, bandwidth and launch costs decide how fast it is done.
"""

from functools import lru_cache
from typing import NamedTuple

from estimators.analytic.families import family_of
from estimators.analytic.parameters import ParameterGroup, parameters_of
from estimators.analytic.projection import Projection, projection_of
from estimators.workload import Batch, Method, Workload
from profiles.shapes import ModelShape

GALORE_PASSES = 2
"""Products with B Bᵀ in a warm-started refresh of ours."""


class Work(NamedTuple):
    """Operations per token."""

    forward: float
    backward: float
    recomputed: float
    """What checkpointing and the chunked loss compute a second time."""
    projected: float
    """GaLore: projecting gradients, and projecting updates back."""
    refreshed: float
    """GaLore: recomputing projectors, shared out among the steps between two refreshes."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.forward + self.backward + self.recomputed + self.projected + self.refreshed

    @property
    def optimizer(self) -> float:
        """GaLore's own share."""
        return self.projected + self.refreshed


class _Products(NamedTuple):
    """What a token passes, whatever the batch: elements, and operations of projections."""

    layers: float
    head: float
    trained: float
    again: float
    """Of the layers, but for what ends each: recomputation stops before it."""
    projected: float
    refreshed: float
    plain: float
    """Of layers and head in plain full-rank training."""


@lru_cache(maxsize=1024)
def _products(model: ModelShape, method: Method) -> _Products:
    layers, head, trained = _linear(model, method)
    plain_layers, plain_head, _ = _linear(model, Method())
    return _Products(
        layers, head, trained, layers - _last(model, method), *_galore(model, method), plain_layers + plain_head
    )


def work_per_token(workload: Workload) -> Work:
    """Operations per token of one workload, in steady training."""
    return Working(workload).in_batch(workload.batch)


def relative_work(workload: Workload) -> float:
    """Work per token as a multiple of full-rank training of the same model and sequence, without recomputation."""
    return Working(workload).relative(workload.batch)


class Working:
    """Arithmetic of one configuration in batch after batch.

    Args:
        workload: the run, whose own batch does not matter.
    """

    def __init__(self, workload: Workload) -> None:
        model, method = workload.model, workload.method
        self._products = _products(model, method)
        self._update_proj_gap = method.update_proj_gap
        self._per_layer = method.update == "per-layer"
        self._checkpoints = workload.checkpointing == "full"
        self._chunks = workload.loss == "chunked"
        self._scores = (
            4.0 * family_of(model.model_type).score_layers(model) * model.num_attention_heads * model.head_dim
        )
        """Queries times keys, and their result times values, of every layer, for one token of the sequence."""

    def in_batch(self, batch: Batch) -> Work:
        """Operations per token."""
        layers, head, trained, again, projected, refreshed, _ = self._products
        scores = self._scores * batch.sequence_length
        # Per-layer updates project every micro-batch and map back once; whole ones do each once a step.
        projections = batch.gradient_accumulation_steps if self._per_layer else 1
        step_tokens = batch.tokens * batch.gradient_accumulation_steps
        return Work(
            2.0 * (layers + head) + scores,
            2.0 * (layers + head) + 2.0 * scores + 2.0 * trained,
            (2.0 * again + scores) * self._checkpoints + 2.0 * head * self._chunks,
            projected * (projections + 1) / 2 / step_tokens,
            refreshed / self._update_proj_gap / step_tokens,
        )

    def relative(self, batch: Batch) -> float:
        """The same over those of plain full-rank training."""
        scores = self._scores * batch.sequence_length
        return self.in_batch(batch).total / (6.0 * self._products.plain + 3.0 * scores)


@lru_cache(maxsize=1024)
def _linear(model: ModelShape, method: Method) -> tuple[float, float, float]:
    """Elements of linear layers a token passes: those in layers, the head, and the trained ones among both."""
    groups = parameters_of(model, method, "bf16")
    passed = family_of(model.model_type).passed
    products = [group for group in groups if group.kind in ("linear", "expert", "router", "adapter")]
    elements = {group.name: group.numel * group.count * passed(model, group.name) for group in products}
    has_head = model.tie_word_embeddings or any(group.kind == "head" for group in groups)
    head = model.vocab_size * model.hidden_size * has_head
    trained = sum(elements[group.name] for group in products if group.trainable)
    head_trained = all(group.trainable for group in groups if group.kind in ("head", "embedding"))
    return float(sum(elements.values())), float(head), float(trained + head * head_trained)


@lru_cache(maxsize=1024)
def _last(model: ModelShape, method: Method) -> float:
    """Elements of each layer's last product: recomputation stops where nothing more is saved for backward."""
    last = {"lora": "lora_B.weight", "relora": "lora_B.weight", "low-rank": "B.weight"}
    path = family_of(model.model_type).last_product
    names = [f"{path}.{kind}" for kind in (last.get(method.parameterisation, ""), "weight") if kind]
    groups = parameters_of(model, method, "bf16")
    found = [[group for group in groups if group.name == name] for name in names]
    return float(sum(group.numel * group.count for group in next(filter(None, found), [])))


@lru_cache(maxsize=1024)
def _galore(model: ModelShape, method: Method) -> tuple[float, float]:
    """Operations of projecting every gradient and update once, and of refreshing every projector once."""
    if method.parameterisation != "galore":
        return 0.0, 0.0
    projected = refreshed = 0.0
    for group in parameters_of(model, method, "bf16"):
        if group.projected:
            projection = projection_of(group, method)
            projected += group.count * 2 * _projection(group, projection)
            refreshed += group.count * _refresh(group, projection, method)
    return projected, refreshed


def _projection(group: ParameterGroup, projection: Projection) -> float:
    """One product with every projector: m n R, and for `full` the second one on what the first has made small."""
    work = 2.0 * group.numel * projection.rank
    if len(projection.sides) == 2:
        work += 2.0 * projection.rank * projection.rank * group.shape[1]
    return work


def _refresh(group: ParameterGroup, projection: Projection, method: Method) -> float:
    short, long = min(group.shape), max(group.shape)
    if method.implementation == "galore-torch":
        # A thin SVD: 6 M k² + 20 k³ (Golub and Van Loan, Matrix Computations, figure 8.6.1, R-SVD).
        return 6.0 * long * short**2 + 20.0 * short**3
    return GALORE_PASSES * 4.0 * group.numel * projection.rank
