"""What `galore-mem report` draws, as plain data: computed from a Tape, a torch snapshot or an answer's JSON."""
