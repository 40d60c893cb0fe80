"""One function per question: orchestrates the other rooms and returns a result object."""
