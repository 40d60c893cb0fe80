"""Model, optimizer and the canonical step of a workload: one code path for fake, CPU and CUDA tensors."""
