"""A training step in shadow: sizes instead of tensors, under autograd's own rules of life and death.

The program of a model (`llama`) is written like its modeling code, with the same local variables; CPython's reference
counting then frees a shadow storage exactly where it frees the real one, and `engine` frees gradients and saved tensors
where torch's engine does. What comes out is a list of births and deaths in *symbolic* sizes, built once per structure
and evaluated for any batch in microseconds.
"""
