"""One small file per command: parse, answer, render."""
