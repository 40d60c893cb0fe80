"""The numbers of a model's architecture that decide its memory."""

from dataclasses import dataclass

FULL, SLIDING = "full_attention", "sliding_attention"
"""Kinds of layers, as configurations name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder-only transformer whose layer is LLaMA's, with the variations its relatives use.

    The layer: RMSNorm, grouped-query attention with rotary positions, RMSNorm, gated MLP. Sizes are elements.
    """

    name: str
    """Catalogue name, or the path or Hub id it was read from."""
    model_type: str
    """The family as Hugging Face's `config.json` names it, for instance `llama` or `qwen3`."""
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    """Width of one head; not always `hidden_size / num_attention_heads` (Mistral Nemo, Qwen3)."""
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool = False
    """The output head shares the embedding's weight."""
    qkv_bias: bool = False
    output_bias: bool = False
    """The attention's output projection has a bias."""
    mlp_bias: bool = False
    qk_norm: bool = False
    """RMSNorm over each query and key head (Qwen3)."""
    attention_dropout: float = 0.0
    sliding_window: int | None = None
    """Tokens that sliding layers attend to; None where none slides."""
    layer_types: tuple[str, ...] = ()
    """`full_attention` or `sliding_attention` for each layer; empty where all are of one kind."""
    hidden_act: str = "silu"

    @property
    def layer_kinds(self) -> tuple[str, ...]:
        """Each layer's attention, `full_attention` or `sliding_attention`."""
        alike = FULL if self.sliding_window is None else SLIDING
        return self.layer_types or (alike,) * self.num_hidden_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredShape(ModelShape):
    """A model of another family, which transformers builds from its own `config.json`.

    The fields of `ModelShape` are what its own keys mean by them.
    """

    config: str
    """The whole `config.json` as JSON text."""
    head: str
    """What is trained on top: `causal-lm`, `seq2seq-lm`, or `classification` of whole sequences."""
    attention_code: str
    """`shared` where the model calls transformers' attention functions, `biased` where it gives them a learned bias as
    well, which only a mask can carry, `eager` where only transformers' eager one computes what it needs, `sdpa` where
    it calls torch's by itself, `own` where it multiplies matrices itself."""
    always_masked: bool = False
    """It makes a mask in every step, where others leave causal attention to the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UncoveredShape(ConfiguredShape):
    """A model that no closed form covers: transformers alone knows how to build it."""
