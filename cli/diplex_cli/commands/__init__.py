"""The commands, a file each: its help as docstring, `add_arguments(parser)`, and `run(args) -> exit code`."""
