"""One function per question: orchestrates the other rooms and returns a result object."""

from galore_mem.neighbours import check_neighbours

check_neighbours()
