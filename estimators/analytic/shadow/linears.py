"""A program's parameters by their names, and its linear layers with whatever the parameterisation hangs on them."""

from dataclasses import dataclass

from estimators.analytic.shadow.norms import layer_norm
from estimators.analytic.shadow.ops import add, cast, dropout, linear, scale
from estimators.analytic.shadow.quantised import FourBit, clone, linear_4bit
from estimators.analytic.shadow.structure import Structure
from estimators.analytic.shadow.tape import OUTSIDE, Parameter, Tape, Tensor
from estimators.analytic.shadow.weights import Weight, copy_name


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


class Linears:
    """What a model is made of. A name with `*` means the parameter of the layer whose code runs now."""

    saved_modules: tuple[str, ...] = ()
    """Modules that peft copies and trains in full beside LoRA's adapters."""
    caches_casts = True
    """Its linear layers hand their weights to the product as they are, so that autocast keeps its copies."""

    def __init__(self, structure: Structure, tape: Tape) -> None:
        self.structure = structure
        self.tape = tape
        self._weights = {weight.name: weight for weight in structure.weights}
        self._parameters: dict[tuple[str, int], Parameter] = {}
        self._linears: dict[tuple[str, int], Linear] = {}

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

    def named(self, name: str) -> "Scope":
        """Names of tensors born inside begin with `name`."""
        return Scope(self.tape, name)


class Scope:
    """A part of the names of tensors that are born while it is entered."""

    def __init__(self, tape: Tape, name: str) -> None:
        self._tape = tape
        self._name = name

    def __enter__(self) -> None:
        self._tape.enter(self._name)

    def __exit__(self, *failure: object) -> None:
        self._tape.leave()
