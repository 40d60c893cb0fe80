"""The GaLore optimizer."""

from galore_mem.optim.constructors import GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit
from galore_mem.optim.galore import GaLore
from galore_mem.optim.groups import GaLoreGroups, galore_param_groups
from galore_mem.optim.per_layer import PerLayer

__all__ = [
    "GaLore",
    "GaLoreAdafactor",
    "GaLoreAdamW",
    "GaLoreAdamW8bit",
    "GaLoreGroups",
    "PerLayer",
    "galore_param_groups",
]
