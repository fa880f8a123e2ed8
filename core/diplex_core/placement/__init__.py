"""Where a request may run: filter, score, pick. Every rule is a few lines with a name of its own."""
