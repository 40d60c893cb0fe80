"""Result objects drawn for a terminal, as JSON or as CSV."""

from galore_mem.neighbours import check_neighbours

check_neighbours()
