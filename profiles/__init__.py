"""Facts: GPUs, models, published figures and recorded runs, each row with its source, and typed loaders for them."""
