"""The GaLore optimizer."""

from galore_mem.optim.constructors import GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit
from galore_mem.optim.galore import GaLore

__all__ = ["GaLore", "GaLoreAdafactor", "GaLoreAdamW", "GaLoreAdamW8bit"]
