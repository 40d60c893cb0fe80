"""T5's parameters in symbols: `L` layers of the encoder, `D` of the decoder, `B` distances with a bias of their own."""

from dataclasses import replace

from estimators.analytic.shadow.weights import Weight, embedding, linear, norm
from profiles.families.t5 import T5Shape
from profiles.shapes import ModelShape


def t5_shape(shape: ModelShape) -> T5Shape:
    """The shape, known to be T5's."""
    assert isinstance(shape, T5Shape)
    return shape


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter that transformers builds, in the order of `named_parameters`."""
    gated = t5_shape(shape).gated
    found = [embedding("shared")]
    for stack, layers in (("encoder", "L"), ("decoder", "D")):
        block = f"{stack}.block.*.layer"
        found += _attention(f"{block}.0.SelfAttention", layers)
        found.append(Weight(name=bias_path(stack) + ".weight", dims=("B", "n"), role="embedding"))
        found += _norm(f"{block}.0.layer_norm", layers)
        if stack == "decoder":
            found += [*_attention(f"{block}.1.EncDecAttention", layers), *_norm(f"{block}.1.layer_norm", layers)]
        last = 2 if stack == "decoder" else 1
        mlp = f"{block}.{last}.DenseReluDense"
        for name in ("wi_0", "wi_1") if gated else ("wi",):
            found += _in(linear(f"{mlp}.{name}", "f", "h"), layers)
        found += _in(linear(f"{mlp}.wo", "h", "f"), layers)
        found += [*_norm(f"{block}.{last}.layer_norm", layers), *norm(f"{stack}.final_layer_norm")]
    return tuple(found)


def _in(found: tuple[Weight, ...], layers: str) -> list[Weight]:
    return [replace(weight, layers=layers) for weight in found]


def _norm(path: str, layers: str) -> list[Weight]:
    return _in(norm(path), layers)


def _attention(path: str, layers: str) -> list[Weight]:
    products = [*linear(f"{path}.q", "q", "h"), *linear(f"{path}.k", "q", "h"), *linear(f"{path}.v", "q", "h")]
    return _in((*products, *linear(f"{path}.o", "h", "q")), layers)


def bias_path(stack: str) -> str:
    """The first layer's, which the others share."""
    return f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"


def sizes(shape: ModelShape) -> dict[str, int]:
    """Distances with a bias, and the decoder's layers."""
    shape = t5_shape(shape)
    return {"B": shape.buckets, "D": shape.num_decoder_layers}
