"""Per-layer updates: the same training, with one full gradient alive at a time."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from galore_mem.errors import UsageError
from galore_mem.optim import GaLore, GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit, PerLayer


class Network(nn.Module):
    """Three linear layers with names that a type checker can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(90, 80), nn.Linear(80, 100), nn.Linear(100, 4)

    def hidden(self, data: Tensor) -> Tensor:
        """Everything but the last layer."""
        return self.second(self.first(data).tanh()).tanh()  # type: ignore[no-any-return]

    def forward(self, data: Tensor) -> Tensor:
        return self.third(self.hidden(data))  # type: ignore[no-any-return]


def make_model() -> Network:
    torch.manual_seed(0)
    return Network()


def make(cls: type[GaLore] = GaLoreAdamW, **options: Any) -> tuple[Network, GaLore]:  # noqa: ANN401
    model = make_model()
    return model, cls(model.named_parameters(), rank=60, lr=1e-2, **{"update_proj_gap": 3, **options})


def batch(seed: int) -> Tensor:
    return torch.randn(32, 90, generator=torch.Generator().manual_seed(seed))


def loss_of(model: nn.Module, seed: int, parts: int = 1) -> Tensor:
    loss: Tensor = model(batch(seed)).square().mean() / parts
    return loss


def distance(one: nn.Module, other: nn.Module) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("cls", [GaLoreAdamW, GaLoreAdamW8bit, GaLoreAdafactor])
def test_training_is_bit_for_bit_that_of_the_whole_model(cls: type[GaLore]) -> None:
    whole_model, whole = make(cls)
    model, optimizer = make(cls)
    layers = PerLayer(optimizer)
    for seed in range(7):
        whole.zero_grad()
        torch.autograd.backward(loss_of(whole_model, seed))
        whole.step()
        torch.autograd.backward(loss_of(model, seed))
        assert layers.step()
        layers.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())
    assert distance(model, whole_model) == 0.0


def test_gradients_die_as_they_are_born() -> None:
    """At every hook the gradients of all later layers are gone already."""
    model, optimizer = make()
    layers = PerLayer(optimizer)
    alive: list[int] = []

    def count(_: Tensor) -> None:
        alive.append(sum(parameter.grad is not None and parameter.dim() == 2 for parameter in model.parameters()))

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(count)  # type: ignore[no-untyped-call]
    torch.autograd.backward(loss_of(model, 0))
    layers.step()
    assert alive == [0] * 6


def test_accumulation_is_exact_between_refreshes() -> None:
    """fp64 leaves rounding out: the sum of projections is the projection of the sum."""
    whole_model, whole = make(update_proj_gap=1000)
    model, optimizer = make(update_proj_gap=1000)
    whole_model.double()
    model.double()
    layers = PerLayer(optimizer, accumulation_steps=3)

    def train(step: int) -> None:
        whole.zero_grad()
        for part in range(3):
            data = batch(3 * step + part).double()
            torch.autograd.backward(whole_model(data).square().mean() / 3)
            torch.autograd.backward(model(data).square().mean() / 3)
            assert layers.step() == (part == 2)
        whole.step()

    train(0)
    # The first step's projectors come from its first pass here, from the whole sum there: continue from one of them.
    layers.load_state_dict(whole.state_dict())
    model.load_state_dict(whole_model.state_dict())
    for step in range(1, 5):
        train(step)
    assert distance(model, whole_model) < 1e-9


def test_what_is_kept_between_passes_is_low_rank() -> None:
    model, optimizer = make()
    layers = PerLayer(optimizer, accumulation_steps=2)
    torch.autograd.backward(loss_of(model, 0, 2))
    layers.step()
    weight = model.second.weight
    assert weight.grad is None
    assert optimizer.state[weight]["accumulated_gradient"].shape == (100, 60)
    assert model.second.bias.grad is not None
    torch.autograd.backward(loss_of(model, 1, 2))
    layers.step()
    assert "accumulated_gradient" not in optimizer.state[weight]
    assert model.second.bias.grad is None


class Experts(nn.Module):
    """Routes whole batches: an expert may see no token in the last pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.experts = nn.ModuleList(nn.Linear(90, 80) for _ in range(2))

    def forward(self, data: Tensor, which: int) -> Tensor:
        routed: Tensor = self.experts[which](data)
        return routed


def test_parameters_without_a_gradient_in_the_last_pass_are_updated() -> None:
    def train(model: Experts, optimizer: GaLore, layers: PerLayer | None) -> None:
        for which in (0, 1):
            torch.autograd.backward(model(batch(which), which).square().mean() / 2)
            if layers is not None:
                layers.step()
        if layers is None:
            optimizer.step()

    models = [Experts(), Experts()]
    optimizers = [GaLoreAdamW(model.named_parameters(), rank=60) for model in models]
    train(models[0], optimizers[0], None)
    train(models[1], optimizers[1], PerLayer(optimizers[1], accumulation_steps=2))
    assert distance(*models) == 0.0


def test_schedulers_see_their_steps() -> None:
    model, optimizer = make(weight_decay=0.0)
    layers = PerLayer(optimizer, accumulation_steps=2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.0)
    for part in range(2):
        torch.autograd.backward(loss_of(model, part, 2))
        if layers.step():
            scheduler.step()  # a warning here, "before optimizer.step()", would be an error
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for part in range(2):
        torch.autograd.backward(loss_of(model, part, 2))
        layers.step()
    assert all(torch.equal(a, b.detach()) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_clipping_per_parameter(accumulation_steps: int) -> None:
    """SGD at scale 1 shows the clipped gradient itself."""
    model = make_model()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = GaLore(model.named_parameters(), torch.optim.SGD, rank=200, lr=1.0, scale=1.0)
    layers = PerLayer(optimizer, accumulation_steps=accumulation_steps, max_norm=0.01)
    for part in range(accumulation_steps):
        torch.autograd.backward(100 * loss_of(model, part))
        layers.step()
    moved = [float((a - b.detach()).norm()) for a, b in zip(before, model.parameters(), strict=True)]
    assert moved == pytest.approx([0.01] * len(moved), rel=1e-3)


def test_clipping_leaves_small_gradients_alone() -> None:
    clipped_model, clipped = make()
    model, optimizer = make()
    layers, plain = PerLayer(clipped, max_norm=1e6), PerLayer(optimizer)
    for seed in range(3):
        torch.autograd.backward(loss_of(clipped_model, seed))
        torch.autograd.backward(loss_of(model, seed))
        layers.step()
        plain.step()
    assert distance(clipped_model, model) == 0.0


def test_global_clipping_is_refused_with_its_reason() -> None:
    _, optimizer = make()
    with pytest.raises(UsageError, match="known only after backward"):
        PerLayer(optimizer, max_norm=1.0, norm_scope="global")
    layers = PerLayer(optimizer)
    with pytest.raises(UsageError, match=r"PerLayer\(\.\.\., max_norm=2\.0\)"):
        layers.clip_grad_norm_(2.0)


def test_loss_scaling_is_refused_with_its_reason() -> None:
    model, optimizer = make()
    layers = PerLayer(optimizer)
    scaler = torch.amp.GradScaler("cpu")
    for target in (optimizer, layers):
        torch.autograd.backward(scaler.scale(loss_of(model, 0)))
        with pytest.raises(UsageError, match="train in bf16"):
            scaler.step(target)  # type: ignore[arg-type]
        layers.step()


def test_closures_and_direct_steps_are_refused() -> None:
    _, optimizer = make()
    PerLayer(optimizer)
    with pytest.raises(UsageError, match="takes no closure"):
        optimizer.step(lambda: 0.0)
    with pytest.raises(UsageError, match="in per-layer mode"):
        optimizer.step()


def test_a_forgotten_step_is_noticed() -> None:
    model, optimizer = make()
    PerLayer(optimizer)
    torch.autograd.backward(loss_of(model, 0))
    with pytest.raises(UsageError, match="second gradient before step"):
        torch.autograd.backward(loss_of(model, 1))


def test_checkpointed_activations_work() -> None:
    whole_model, whole = make()
    model, optimizer = make()
    layers = PerLayer(optimizer)
    for seed in range(3):
        whole.zero_grad()
        torch.autograd.backward(loss_of(whole_model, seed))
        whole.step()
        hidden = checkpoint(model.hidden, batch(seed), use_reentrant=False)
        torch.autograd.backward(model.third(hidden).square().mean())
        layers.step()
    assert distance(model, whole_model) == 0.0


def test_detaching_returns_an_ordinary_optimizer() -> None:
    model, optimizer = make()
    layers = PerLayer(optimizer)
    torch.autograd.backward(loss_of(model, 0))
    layers.step()
    layers.detach()
    torch.autograd.backward(loss_of(model, 1))
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    layers.attach()
    optimizer.zero_grad()
    torch.autograd.backward(loss_of(model, 2))
    layers.step()
    assert optimizer.state[model.first.weight]["projector_step"] == 3


def test_two_attachments_and_unfinished_accumulations_are_refused() -> None:
    model, optimizer = make()
    layers = PerLayer(optimizer, accumulation_steps=2)
    with pytest.raises(UsageError, match="already"):
        PerLayer(optimizer)
    torch.autograd.backward(loss_of(model, 0))
    layers.step()
    for refused in (layers.detach, layers.state_dict):
        with pytest.raises(UsageError, match="under way"):
            refused()
    with pytest.raises(UsageError, match="needs a backward pass"):
        PerLayer(optimizer, accumulation_steps=0)


def test_a_bad_gradient_harms_nothing() -> None:
    model, optimizer = make(update_proj_gap=1)
    layers = PerLayer(optimizer, accumulation_steps=2)
    weight = model.first.weight
    for scale in (float("nan"), 1.0):
        torch.autograd.backward(scale * loss_of(model, 0))
        layers.step()
    assert weight.isfinite().all()
    assert optimizer.state[weight]["projector_step"] == 1
