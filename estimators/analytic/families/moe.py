"""Mixtral and Qwen3-MoE: LLaMA's layer with a router and experts in the place of the MLP.

The program follows transformers 5 line by line (models/mixtral/modeling_mixtral.py, models/qwen3_moe/...).
"""

from dataclasses import dataclass

from estimators.analytic.families.family import Family
from estimators.analytic.families.llama import ATTENTION, MLP, Llama, rotary_buffers
from estimators.analytic.shadow.experts import grouped, route
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.shadow.weights import Weight, head, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from estimators.workload import Workload
from profiles.families.moe import MoeShape
from profiles.shapes import ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What else decides which tensors exist."""

    normalizes: bool
    narrows: bool
    """Routing weights are cast to the model's dtype (Qwen3-MoE)."""


def _shape(shape: ModelShape) -> MoeShape:
    assert isinstance(shape, MoeShape)
    return shape


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter that transformers builds, in the order of `named_parameters`."""
    gate = [Weight(name=f"{MLP}.gate.weight", dims=("E", "h"), role="router")]
    experts = [
        Weight(name=f"{MLP}.experts.gate_up_proj", dims=("E", "2m", "h"), role="expert"),
        Weight(name=f"{MLP}.experts.down_proj", dims=("E", "h", "m"), role="expert"),
    ]
    found = [
        table("model.embed_tokens"),
        *linear(f"{ATTENTION}.q_proj", "q", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.k_proj", "k", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.v_proj", "k", "h", bias=shape.qkv_bias),
        *linear(f"{ATTENTION}.o_proj", "h", "q", bias=shape.output_bias),
    ]
    if shape.qk_norm:
        found += [*norm(f"{ATTENTION}.q_norm", "d"), *norm(f"{ATTENTION}.k_norm", "d")]
    found += gate + experts if shape.model_type == "mixtral" else experts + gate
    found += norm("model.layers.*.input_layernorm")
    found += norm("model.layers.*.post_attention_layernorm")
    found += norm("model.norm")
    return (*found, *head(tied=shape.tie_word_embeddings))


def sizes(shape: ModelShape) -> dict[str, int]:
    """Experts, how many a token passes, and their width."""
    shape = _shape(shape)
    inner = shape.expert_intermediate_size
    return {"E": shape.num_experts, "K": shape.experts_per_token, "m": inner, "2m": 2 * inner}


def traits(workload: Workload) -> Traits:
    """How the router treats its weights."""
    shape = _shape(workload.model)
    return Traits(normalizes=shape.normalizes, narrows=shape.model_type == "qwen3_moe")


def passed(shape: ModelShape, weight: str) -> float:
    """Each token is multiplied with the experts that its router chose."""
    shape = _shape(shape)
    return shape.experts_per_token / shape.num_experts if ".experts." in weight else 1.0


class Moe(Llama):
    """The decoder."""

    def mlp(self, x: Tensor) -> Tensor:
        """The router, and the experts that it chose."""
        found, autocast = self.structure.traits, self.structure.autocast
        assert isinstance(found, Traits)
        with self.named("gate"):
            gate = self.weight(f"{MLP}.gate")
            _logits, chosen, index = route(
                x, gate, autocast=autocast, normalizes=found.normalizes, narrows=found.narrows
            )
        with self.named("experts"):
            path = f"{MLP}.experts"
            return grouped(x, chosen, index, self.weight(path, "gate_up_proj"), self.weight(path, "down_proj"))


FAMILY = Family(
    weights=weights,
    program=Moe,
    buffers=rotary_buffers,
    last_product="",
    chunked_loss=True,
    takes_stand_ins=True,
    sizes=sizes,
    traits=traits,
    passed=passed,
)
