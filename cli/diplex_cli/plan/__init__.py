"""`diplex plan`: the core's page, written for a terminal, as JSON and as pictures."""
