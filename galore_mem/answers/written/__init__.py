"""Runs that people have written down for another tool: read, understood, and planned as that tool runs them."""
