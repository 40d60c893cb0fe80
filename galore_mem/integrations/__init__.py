"""galore-mem inside other people's training: transformers' `Trainer`, TRL's `SFTTrainer`, `accelerate launch`.

from galore_mem.integrations import GaLoreMem, trainer_optimizer

trainer = Trainer(
model,
args,
train_dataset=data,
callbacks=[GaLoreMem(report="out.html")],
optimizer_cls_and_kwargs=trainer_optimizer(model, args),
)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from galore_mem.integrations.callback import GaLoreMem
    from galore_mem.integrations.optimizers import trainer_optimizer

__all__ = ["GaLoreMem", "trainer_optimizer"]

_ROOMS = {
    "GaLoreMem": "galore_mem.integrations.callback",
    "trainer_optimizer": "galore_mem.integrations.optimizers",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_ROOMS[name]), name)
    globals()[name] = value
    return value
