"""Will this training run fit on that GPU, why, and what would make it fit?"""

__version__ = "0.1.0"
