"""Trains a small LLaMA on Python's own sources with several optimizers and seeds; what each reaches and captures.

Run from the repository's root: `python -m benchmarks.galore_quality`. Runs are added to `docs/galore/quality.json` one
by one, and those that are there are not repeated; `python -m benchmarks.galore_figures` then draws curves and table.
"""

import argparse
import json
import platform
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galore_mem.optim import GaLoreAdamW, galore_param_groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Model, data and schedule that every optimizer gets."""

    hidden_size: int = 128
    intermediate_size: int = 344
    layers: int = 4
    heads: int = 4
    sequence_length: int = 128
    batch_size: int = 8
    steps: int = 200
    warmup_steps: int = 20
    rank: int = 32
    update_proj_gap: int = 50
    scale: float = 1.0
    lr: float = 5e-3
    adamw_lr: float = 1e-3
    seed: int = 0
    """Of the first weights, and of the order of batches."""


@dataclass(slots=True, kw_only=True)
class Run:
    """One optimizer's training."""

    losses: list[float] = field(default_factory=list)
    """Training loss of every step."""
    validation_loss: float = 0.0
    """On text that no step saw, after the last step."""
    captured: list[float] = field(default_factory=list)
    """Per refresh: energy captured, over that captured by an exact SVD of the same rank."""
    seconds: float = 0.0


def standard_library_bytes(limit: int = 2_000_000) -> Tensor:
    """Sources of the standard library's top-level modules, in name order, as byte tokens."""
    text = b""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text += path.read_bytes()
        if len(text) >= limit:
            break
    return torch.frombuffer(bytearray(text[:limit]), dtype=torch.uint8).long()


def small_llama(setting: Setting) -> torch.nn.Module:
    """A LLaMA over bytes, from transformers' own class."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(setting.seed)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=setting.hidden_size,
        intermediate_size=setting.intermediate_size,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.heads,
        num_key_value_heads=setting.heads,
        max_position_embeddings=setting.sequence_length,
        use_cache=False,
    )
    model: torch.nn.Module = LlamaForCausalLM(config)
    return model


def batches(tokens: Tensor, setting: Setting, steps: int, seed: int) -> Iterator[Tensor]:
    """Random windows, the same for every optimizer."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        starts = torch.randint(len(tokens) - setting.sequence_length, (setting.batch_size,), generator=generator)
        yield torch.stack([tokens[start : start + setting.sequence_length] for start in starts.tolist()])


def train(
    setting: Setting,
    make_optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer],
) -> Run:
    """Train from the same start on the same batches, with a linear warm-up and cosine decay."""
    tokens = standard_library_bytes()
    split = len(tokens) * 9 // 10
    model, run, begin = small_llama(setting), Run(), time.perf_counter()
    optimizer = make_optimizer(model)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / setting.warmup_steps, total_iters=setting.warmup_steps)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, setting.steps - setting.warmup_steps)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, decay], [setting.warmup_steps])
    for batch in batches(tokens[:split], setting, setting.steps, 10 * setting.seed + 1):
        optimizer.zero_grad()
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        run.losses.append(loss.item())
    run.captured = getattr(optimizer, "captured", [])
    run.seconds = time.perf_counter() - begin
    with torch.no_grad():
        held_out = [
            model(input_ids=batch, labels=batch).loss.item()
            for batch in batches(tokens[split:], setting, 20, 10 * setting.seed + 2)
        ]
    run.validation_loss = sum(held_out) / len(held_out)
    return run


def ours(setting: Setting, **options: Any) -> Callable[[torch.nn.Module], torch.optim.Optimizer]:  # noqa: ANN401
    """Our GaLore around AdamW."""

    def make(model: torch.nn.Module) -> torch.optim.Optimizer:
        groups = galore_param_groups(
            model, rank=setting.rank, update_proj_gap=setting.update_proj_gap, scale=setting.scale
        )
        return Measured(groups, lr=setting.lr, weight_decay=0.0, **options)

    return make


def reference(setting: Setting) -> Callable[[torch.nn.Module], torch.optim.Optimizer]:
    """galore_torch's AdamW on the same groups."""

    def make(model: torch.nn.Module) -> torch.optim.Optimizer:
        from galore_torch import GaLoreAdamW as Reference

        groups = galore_param_groups(
            model, rank=setting.rank, update_proj_gap=setting.update_proj_gap, scale=setting.scale
        )
        plain, projected = ({name: value for name, value in group.items() if name != "params"} for group in groups)
        assert not plain.get("rank")
        settings = ("rank", "update_proj_gap", "scale", "proj_type")
        optimizer: torch.optim.Optimizer = Reference(
            [
                {"params": [parameter for _, parameter in groups[0]["params"]]},
                {
                    "params": [parameter for _, parameter in groups[1]["params"]],
                    **{name: projected[name] for name in settings},
                },
            ],
            lr=setting.lr,
            eps=1e-8,
            no_deprecation_warning=True,
        )
        return optimizer

    return make


def adamw(setting: Setting) -> Callable[[torch.nn.Module], torch.optim.Optimizer]:
    """Full AdamW, with a learning rate of its own: GaLore's is multiplied by its scale."""
    return lambda model: torch.optim.AdamW(model.parameters(), lr=setting.adamw_lr, weight_decay=0.0)


class Measured(GaLoreAdamW):
    """Our optimizer, noting at each refresh what it captures of a gradient, against an exact SVD of the same rank."""

    captured: list[float]

    def refresh(self, group: dict[str, Any], parameter: Tensor) -> bool:
        """As ours."""
        done, gradient = super().refresh(group, parameter), parameter.grad
        assert gradient is not None
        low = self.project_gradient(group, parameter, may_refresh=False)
        assert low is not None
        exact = torch.linalg.svdvals(gradient)[: min(group["rank"], *gradient.shape)].square().sum()
        self.captured = [*getattr(self, "captured", []), float(low.square().sum() / exact)]
        return done


def adamw_8bit(setting: Setting) -> Callable[[torch.nn.Module], torch.optim.Optimizer]:
    """Our GaLore around bitsandbytes' AdamW8bit."""

    def make(model: torch.nn.Module) -> torch.optim.Optimizer:
        from galore_mem.optim import GaLoreAdamW8bit

        groups = galore_param_groups(
            model, rank=setting.rank, update_proj_gap=setting.update_proj_gap, scale=setting.scale
        )
        return GaLoreAdamW8bit(groups, lr=setting.lr, weight_decay=0.0)

    return make


def smoothed(losses: list[float], over: int = 20) -> list[float]:
    """Mean of the last `over` steps."""
    return [sum(losses[max(0, at - over) : at]) / (at - max(0, at - over)) for at in range(1, len(losses) + 1)]


CURVE_STEPS = 5
"""Steps between two points of a stored curve."""


def row_of(run: Run) -> dict[str, Any]:
    """What is kept of a run."""
    curve = smoothed(run.losses)
    return {
        "training_loss": round(curve[-1], 4),
        "validation_loss": round(run.validation_loss, 4),
        "least_captured": round(min(run.captured), 5) if run.captured else None,
        "mean_captured": round(sum(run.captured) / len(run.captured), 5) if run.captured else None,
        "refreshes": len(run.captured),
        "curve": [round(loss, 3) for loss in curve[CURVE_STEPS - 1 :: CURVE_STEPS]],
    }


def plans(setting: Setting) -> dict[str, Callable[[torch.nn.Module], torch.optim.Optimizer]]:
    """Optimizers by the name under which they are shown."""
    return {
        "galore_torch": reference(setting),
        "galore-mem": ours(setting),
        "galore-mem, 8-bit": adamw_8bit(setting),
        "AdamW in full": adamw(setting),
        "galore-mem, svd": ours(setting, refresh="svd"),
    }


ADAMW_RATES = (5e-4, 1e-3, 2e-3, 5e-3)
"""Tried on the first seed; the best is AdamW's in all runs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=Setting().steps)
    parser.add_argument("--only", nargs="*", help="names of optimizers")
    parser.add_argument("--into", type=Path, default=Path("docs/galore/quality.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    setting = Setting(steps=arguments.steps)
    record: dict[str, Any] = {
        "setting": asdict(setting),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "adamw_rates": {},
        "runs": {},
    }
    if arguments.into.exists():
        record = json.loads(arguments.into.read_text(encoding="utf-8"))

    def keep(place: dict[str, Any], key: str, one: Setting, make: Callable[..., torch.optim.Optimizer]) -> None:
        if key in place:
            return
        place[key] = row_of(train(one, make))
        print(key, {name: value for name, value in place[key].items() if name != "curve"}, flush=True)
        arguments.into.parent.mkdir(parents=True, exist_ok=True)
        arguments.into.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    for rate in ADAMW_RATES:
        one = replace(setting, adamw_lr=rate)
        keep(record["adamw_rates"], f"{rate:g}", one, adamw(one))
    best = min(record["adamw_rates"], key=lambda rate: float(record["adamw_rates"][rate]["validation_loss"]))
    setting = replace(setting, adamw_lr=float(best))
    record["setting"] = asdict(setting)
    for seed in range(arguments.seeds):
        one = replace(setting, seed=seed)
        for name, make in plans(one).items():
            if not arguments.only or name in arguments.only:
                keep(record["runs"].setdefault(name, {}), f"{seed}", one, make)


if __name__ == "__main__":
    main()
