"""Result objects drawn for a terminal, as JSON or as CSV."""
