"""The optimizer: one matrix at a time, project, let the inner optimizer step a proxy, land the update in place."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, overload

import torch
from torch import Tensor
from torch.autograd.profiler import record_function
from torch.optim import Optimizer

from galore_mem.errors import UsageError
from galore_mem.optim import checkpoint, geometry, options, projection, projectors
from galore_mem.optim.inner import Inner, InnerFactory

if TYPE_CHECKING:
    from galore_mem.optim.per_layer import PerLayer


def refuse_loss_scaling() -> NoReturn:
    """Per-layer mode and `GradScaler` exclude each other.

    Raises:
        UsageError: always.
    """
    raise UsageError(
        "per-layer mode cannot work with GradScaler",
        "a step is skipped when any gradient overflows, which is known only when other layers have changed already",
        "train in bf16 (no scaler needed), or update the whole model at once",
    )


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
        self.per_layer: PerLayer | None = None
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

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles; per-layer mode stays with the original."""
        ours = {"inner": self.inner, "seed": self.seed, "per_layer": None, "_ordinals": self._ordinals}
        return {**super().__getstate__(), **ours}

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
        if self.per_layer is not None and not self.per_layer.is_ending:
            raise UsageError(
                "the optimizer is in per-layer mode",
                "its parameters are updated inside backward",
                "call step() on the PerLayer object after each backward(); it takes no closure",
            )
        loss = None
        if closure is not None:
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
        checkpoint.follow_device(self.state[parameter], parameter)
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
        checkpoint.follow_device(state, parameter)
        if may_refresh and self.refresh_is_due(group, parameter):
            with record_function("GaLore.refresh"):
                if not self.refresh(group, parameter):
                    return None
        shape = (gradient.shape[0], gradient.shape[1])
        return projection.project(gradient, projectors.bases(group, state, shape, gradient.dtype))

    def refresh_is_due(self, group: dict[str, Any], parameter: Tensor) -> bool:
        """Whether the parameter's next step begins with a refresh of its projectors."""
        matrix = geometry.as_matrix(parameter)
        place = self._ordinals[parameter][0] / len(self._ordinals)
        return projectors.is_due(group, self.state[parameter], (matrix.shape[0], matrix.shape[1]), place)

    @torch.no_grad()
    def refresh(self, group: dict[str, Any], parameter: Tensor) -> bool:
        """Renew the parameter's projectors from its gradient; False, and nothing changed, where that is not finite."""
        assert parameter.grad is not None
        gradient = geometry.as_matrix(parameter.grad)
        return projectors.renew(group, self.state[parameter], gradient, self._seed_of(parameter, salt=0))

    @torch.no_grad()
    def apply_low_rank(self, group: dict[str, Any], parameter: Tensor, low: Tensor) -> None:
        """Let the inner optimizer step on a low-rank gradient, and land its update in the weight.

        Args:
            group: the parameter's group.
            parameter: changed in place.
            low: the low-rank gradient; taken over, its content is lost.
        """
        state, weight = self.state[parameter], geometry.as_matrix(parameter.data)
        bases = projectors.bases(group, state, (weight.shape[0], weight.shape[1]), parameter.dtype)
        inner_group = options.inner_options(group)
        decay = float(inner_group.get("weight_decay") or 0.0)
        if decay and self.inner.decay_is_coupled(inner_group):
            sign = -1.0 if inner_group.get("maximize") else 1.0
            projection.add_projected_(low, weight, bases, alpha=sign * decay)
        inner_state = projectors.inner_state(state)
        landing = self.inner.step_low_rank(low, inner_state, inner_group, weight)
        state.update(inner_state)
        state[projectors.STEP] = state.get(projectors.STEP, 0) + 1
        alpha = float(group["scale"]) * landing.factor
        if group["stochastic_rounding"] and parameter.dtype == torch.bfloat16:
            generator = torch.Generator(device=weight.device).manual_seed(self._seed_of(parameter, salt=1))
            projection.land_stochastic_(weight, landing.update, bases, alpha, landing.keep, generator)
        else:
            projection.land_(weight, landing.update, bases, alpha, landing.keep)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Asked by `torch.amp.GradScaler.step`: it unscales and skips by itself, but only the whole model at once."""
        if self.per_layer is not None:
            refuse_loss_scaling()
        return False

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

    def _seed_of(self, parameter: Tensor, *, salt: int) -> int:
        """A seed that depends on the parameter's place and its step alone, so that a resumed run draws the same."""
        seed = self.seed
        for number in (self._ordinals[parameter][0], self.state[parameter].get(projectors.STEP, 0), salt):
            seed = (seed * 1_000_003 + number) % 2**63
        return seed
