"""The optimizer: one matrix at a time, project, let the inner optimizer step a proxy, land the update in place."""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.autograd.profiler import record_function
from torch.optim import Optimizer

from galore_mem.errors import UsageError
from galore_mem.optim import checkpoint, geometry, moments, options, projection, refresh, storage
from galore_mem.optim.geometry import Shape, Side
from galore_mem.optim.inner import Inner, InnerFactory

ACCUMULATED = "accumulated_gradient"
STEP = "projector_step"
POSTPONED = "projector_refresh_postponed"


def is_ours(name: str) -> bool:
    """Whether a key of `optimizer.state[p]` is GaLore's; all others are the inner optimizer's."""
    return name.startswith("projector_") or name == ACCUMULATED


class GaLore(Optimizer):
    """Gradient low-rank projection (Zhao et al. 2024, arXiv:2403.03507) around any inner optimizer.

    `state[p]` is a plain dict with everything resident for p: projectors (`projector_left`, `projector_right`), the
    counter of steps, and whatever the inner optimizer keeps for a parameter of the low-rank shape.

    Args:
        params: parameters, named parameters or groups; `galore_param_groups` makes groups from a model. A group with
            `rank` has its matrices projected; vectors, and groups with `rank=None`, are trained in full.
        inner: optimizer class or factory.
        rank: directions kept per matrix; more than the smaller dimension means all of them.
        update_proj_gap: steps between two refreshes of a projector.
        scale: factor of the projected update, the paper's alpha.
        proj_type: `std`, `reverse_std`, `left`, `right` or `full`.
        refresh: `subspace`, `randomized` or `svd`.
        projector_storage: `parameter` (its dtype), `float32`, `int8` or `int4`.
        moments: `keep`, `reset` or `reproject` the inner states at a refresh.
        stagger: spread the refreshes of different matrices over the gap.
        stochastic_rounding: round updates of bf16 weights stochastically.
        seed: of stochastic rounding and of random starts.
        inner_options: the inner optimizer's own arguments.

    Raises:
        UsageError: an option that cannot be meant, a parameter that cannot be projected, an unsuitable inner optimizer.
    """

    def __init__(
        self,
        params: Iterable[Any],
        inner: InnerFactory = torch.optim.AdamW,
        *,
        rank: int | None = None,
        update_proj_gap: int = 200,
        scale: float = 0.25,
        proj_type: options.ProjType = "std",
        refresh: options.RefreshKind = "subspace",
        projector_storage: options.ProjectorStorage = "parameter",
        moments: options.Moments = "keep",
        stagger: bool = False,
        stochastic_rounding: bool = False,
        seed: int = 0,
        **inner_options: Any,  # noqa: ANN401  (whatever the inner optimizer takes)
    ) -> None:
        self.inner = Inner(inner, inner_options)
        self.seed = seed
        self.per_layer: Any = None
        self._ordinals: dict[Tensor, tuple[int, str]] = {}
        ours = {
            "rank": rank,
            "update_proj_gap": update_proj_gap,
            "scale": scale,
            "proj_type": proj_type,
            "refresh": refresh,
            "projector_storage": projector_storage,
            "moments": moments,
            "stagger": stagger,
            "stochastic_rounding": stochastic_rounding,
        }
        super().__init__(params, {**self.inner.defaults, **ours})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; as torch's, with GaLore's options checked."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            options.check_group(group)
            names = group.get("param_names") or [f"parameter {index}" for index in range(len(group["params"]))]
            for parameter, name in zip(group["params"], names, strict=True):
                if geometry.is_projected(group, parameter):
                    geometry.check_projectable(parameter, name)
        except UsageError:
            self.param_groups.pop()
            raise
        for parameter, name in zip(group["params"], names, strict=True):
            self._ordinals[parameter] = (len(self._ordinals), name)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient, one at a time.

        Args:
            closure: reevaluates the model and returns the loss; called once, before the step.
        """
        loss = None
        if closure is not None:
            if self.per_layer is not None:
                raise UsageError(
                    "per-layer mode takes no closure", "parameters change inside backward", "call backward yourself"
                )
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.step_parameter(group, parameter)
        return loss

    @torch.no_grad()
    def step_parameter(self, group: dict[str, Any], parameter: Tensor) -> None:
        """Update one parameter from its gradient.

        Raises:
            UsageError: the gradient is sparse.
        """
        self._refuse_sparse(parameter)
        if not geometry.is_projected(group, parameter):
            self.inner.step(parameter, self.state[parameter], options.inner_options(group))
            return
        low = self.project_gradient(group, parameter)
        if low is not None:
            self.apply_low_rank(group, parameter, low)

    @torch.no_grad()
    def project_gradient(self, group: dict[str, Any], parameter: Tensor, *, may_refresh: bool = True) -> Tensor | None:
        """The parameter's gradient in the low-rank space, after a refresh of its projector if one is due.

        Args:
            group: its parameter group.
            parameter: one of the group's.
            may_refresh: False inside an accumulation, whose terms must share one basis.

        Returns:
            A new tensor; None where the refresh met a gradient that is not finite: such a gradient must not be used.
        """
        self._refuse_sparse(parameter)
        assert parameter.grad is not None
        gradient = geometry.as_matrix(parameter.grad)
        state = self.state[parameter]
        if may_refresh and self._refresh_is_due(group, parameter):
            with record_function("GaLore.refresh"):
                if not self._refresh(group, parameter, gradient):
                    return None
        shape = (gradient.shape[0], gradient.shape[1])
        return projection.project(gradient, self._bases(group, state, shape, gradient.dtype))

    @torch.no_grad()
    def apply_low_rank(self, group: dict[str, Any], parameter: Tensor, low: Tensor) -> None:
        """Let the inner optimizer step on a low-rank gradient, and land its update in the weight.

        Args:
            group: the parameter's group.
            parameter: changed in place.
            low: the low-rank gradient; taken over, its content is lost.
        """
        state, weight = self.state[parameter], geometry.as_matrix(parameter.data)
        bases = self._bases(group, state, (weight.shape[0], weight.shape[1]), parameter.dtype)
        inner_group = options.inner_options(group)
        decay = float(inner_group.get("weight_decay") or 0.0)
        if decay and self.inner.decay_is_coupled(inner_group):
            sign = -1.0 if inner_group.get("maximize") else 1.0
            projection.add_projected_(low, weight, bases, alpha=sign * decay)
        inner_state = {name: value for name, value in state.items() if not is_ours(name)}
        landing = self.inner.step_low_rank(low, inner_state, inner_group, weight)
        state.update(inner_state)
        state[STEP] = state.get(STEP, 0) + 1
        alpha = float(group["scale"]) * landing.factor
        if group["stochastic_rounding"] and parameter.dtype == torch.bfloat16:
            generator = torch.Generator(device=weight.device).manual_seed(self._seed_of(parameter, salt=1))
            projection.land_stochastic_(
                weight, landing.update, bases, alpha=alpha, keep=landing.keep, generator=generator
            )
        else:
            projection.land_(weight, landing.update, bases, alpha=alpha, keep=landing.keep)

    def name_of(self, parameter: Tensor) -> str:
        """The parameter's name where groups carry names, else its place."""
        return self._ordinals[parameter][1]

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with a `galore` record of what a loader must match; loads with `weights_only=True`."""
        return {**super().state_dict(), "galore": checkpoint.record(self)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, here or in per-layer mode, bit for bit.

        Raises:
            UsageError: it belongs to another inner optimizer, other shapes or other dtypes.
        """
        checkpoint.load(self, state_dict, super().load_state_dict)

    def _refuse_sparse(self, parameter: Tensor) -> None:
        if parameter.grad is not None and parameter.grad.is_sparse:
            raise UsageError(
                f"the gradient of {self.name_of(parameter)} is sparse",
                "projections and the usual inner optimizers need dense gradients",
                "build the embedding with sparse=False",
            )

    def _bases(
        self, group: dict[str, Any], state: dict[str, Any], shape: Shape, dtype: torch.dtype
    ) -> dict[Side, Tensor]:
        return {
            side: storage.load(
                state, side, group["projector_storage"], dtype, geometry.projector_shape(shape, side, group["rank"])
            )
            for side in geometry.sides(shape, group["proj_type"])
        }

    def _refresh_is_due(self, group: dict[str, Any], parameter: Tensor) -> bool:
        state, gap = self.state[parameter], group["update_proj_gap"]
        matrix = geometry.as_matrix(parameter)
        wanted = geometry.sides((matrix.shape[0], matrix.shape[1]), group["proj_type"])
        if state.get(POSTPONED) or any(storage.key(side) not in state for side in wanted):
            return True
        offset = self._ordinals[parameter][0] * gap // len(self._ordinals) if group["stagger"] else 0
        return bool(state[STEP] % gap == offset)

    def _refresh(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> bool:
        """Recompute the projectors; False where the gradient is unusable, and then nothing changed but the due date."""
        state, shape = self.state[parameter], (gradient.shape[0], gradient.shape[1])
        magnitude = geometry.scalar(torch.linalg.vector_norm(gradient, ord=torch.inf), 1.0)
        if not magnitude < torch.inf:
            state[POSTPONED] = True
            state.setdefault(STEP, 0)
            return False
        wanted = geometry.sides(shape, group["proj_type"])
        known = all(storage.key(side) in state for side in wanted)
        previous = self._bases(group, state, shape, gradient.dtype) if known else None
        if magnitude == 0.0 and previous is not None:
            state[POSTPONED] = True
            return True
        request = refresh.Request(
            rank=group["rank"],
            proj_type=group["proj_type"],
            kind=group["refresh"],
            seed=self._seed_of(parameter, salt=0),
            magnitude=magnitude or 1.0,
        )
        bases = refresh.new_bases(gradient, request, previous)
        self._carry_moments(group, state, previous, bases)
        for side, basis in bases.items():
            storage.save(state, side, basis, group["projector_storage"], parameter.dtype)
        state.setdefault(STEP, 0)
        state.pop(POSTPONED, None)
        if magnitude == 0.0:
            state[POSTPONED] = True
        return True

    def _carry_moments(
        self,
        group: dict[str, Any],
        state: dict[str, Any],
        previous: dict[Side, Tensor] | None,
        bases: dict[Side, Tensor],
    ) -> None:
        if previous is None or group["moments"] == "keep":
            return
        inner_state = {name: value for name, value in state.items() if not is_ours(name)}
        if group["moments"] == "reset":
            for name in inner_state:
                del state[name]
        else:
            moments.reproject_(inner_state, moments.change_of_basis(previous, bases))

    def _seed_of(self, parameter: Tensor, *, salt: int) -> int:
        """A seed that depends on the parameter's place and its step alone, so that a resumed run draws the same."""
        ordinal, step = self._ordinals[parameter][0], self.state[parameter].get(STEP, 0)
        return hash((self.seed, ordinal, step, salt)) & (2**63 - 1)
