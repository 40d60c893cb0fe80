"""Held against a real device: what was predicted, what was measured, and how far they lie apart."""
