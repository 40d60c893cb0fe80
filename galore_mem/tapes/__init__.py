"""Tapes: ordered allocation events, their file format, and snapshots of other tools read safely."""
