"""A replica of PyTorch's CUDA caching allocator."""
