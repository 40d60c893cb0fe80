"""Theory: how many bytes a training step holds, when, and why. Pure Python: value in, value out."""
