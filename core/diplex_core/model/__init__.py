"""The performance model: what a package holds and how long its steps take, from data files with sources."""
