"""The `diplex` program: reads configuration, sets processes up, starts and supervises the parts."""
