"""Records one training step into a Tape: which storage lives from when to when, and why."""
