"""How near a method comes to full-rank AdamW: what kind of update it makes, and along how many coordinates.

There is no formula for a loss. What can be said without training is said in this order: whether every weight is
trained by Adam's rule, in which subspace, by another rule, or not at all. The order of the kinds is that of the
perplexities in table 2 of the GaLore paper (arXiv 2403.03507; 1B model: full rank 15.56, GaLore 15.64, ReLoRA 18.33,
LoRA 19.21, low-rank 142.53); 8-bit states count as the same kind (table 3, 7B: 14.65 beside 14.61). Plain SGD comes
late: it trains transformers far worse than adaptive methods do (arXiv 1912.03194). QLoRA is a kind of its own behind
LoRA: its frozen weights are those of another, rounded model, however close a fine-tuned one may come (table 4 of the
QLoRA paper, arXiv 2305.14314).
"""

from dataclasses import dataclass
from functools import lru_cache

from estimators.analytic.parameters import parameter_count, parameters_of
from estimators.analytic.projection import projection_of
from estimators.workload import Method
from profiles.shapes import ModelShape

KINDS = (
    "every weight by Adam's rule",
    "every weight by Adam's rule in a moving low-rank subspace",
    "every weight by Adafactor's rule",
    "adapters, merged now and then",
    "adapters beside frozen weights",
    "adapters beside frozen weights of four bits",
    "every weight by plain gradient descent",
    "factors in place of the matrices",
)
_KIND = {
    "adamw": 0,
    "adamw-8bit": 0,
    "paged-adamw-8bit": 0,
    "paged-adamw-32bit": 0,
    "offload-adamw": 0,
    "galore-adamw": 1,
    "galore-adamw-8bit": 1,
    "galore-adafactor": 2,
    "adafactor": 2,
    "relora": 3,
    "lora": 4,
    "qlora": 5,
    "sgd-momentum": 6,
    "sgd": 6,
    "low-rank": 7,
}
_STATES = ("adamw-32bit", "adamw", "adamw-8bit", "adafactor", "sgd-momentum", "sgd")
"""Inner optimizers from the most to the least that they remember of each weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """A method's distance from full-rank AdamW; the smaller `key` is the nearer one."""

    kind: str
    """One of `KINDS`."""
    share: float
    """Coordinates that one update can move along, over the parameters of the model; 0 to 1."""
    states: str
    """The inner optimizer, whose states may be coarser."""

    @property
    def key(self) -> tuple[int, float, int]:
        """Kind, then share, then states."""
        return KINDS.index(self.kind), -self.share, _STATES.index(self.states)


def kind_of(method: str) -> int:
    """Place of a method's kind of training among `KINDS`; the smaller it is the nearer to full-rank AdamW."""
    return _KIND[method]


@lru_cache(maxsize=4096)
def fidelity(model: ModelShape, method: Method) -> Fidelity:
    """Fidelity of a method on a model.

    Raises:
        InputError: `target_modules` matches no linear layer.
    """
    moved = 0
    for group in parameters_of(model, method, "bf16"):
        if group.projected:
            moved += group.count * projection_of(group, method).low_rank_numel
        elif group.trainable:
            moved += group.count * group.numel
    share = min(1.0, moved / parameter_count(model))
    return Fidelity(kind=KINDS[kind_of(method.name)], share=share, states=method.optimizer)
