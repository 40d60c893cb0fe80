"""One small file per command: parse, answer, render."""

from galore_mem.neighbours import check_neighbours

check_neighbours()
