"""The `diplex` program: a table of commands, each imported when it is asked for."""

import sys
from collections.abc import Sequence

# argparse and typing cost more than all of this: `--help` does without them.

COMMANDS = {
    "up": "serve on this machine: workers, router and REST shim, supervised",
    "router": "run the router alone",
    "worker": "run one worker alone",
    "rest": "run the REST shim alone",
    "chat": "ask one question and stream the answer",
    "explain": "say why a request went, or would go, where",
    "plan": "say how a model lies in memory, and what to expect of it",
    "recipe": "print the commands that deploy a model in a pattern",
    "doctor": "say whether a deployment is healthy, line by line",
    "replay": "replay a public trace against a running router, and report",
    "simulate": "simulate a load on a fleet of any size in virtual time, and report",
    "fetch": "bring the small model's weights into the user's cache",
    "config": "check a configuration file",
}
"""Every command and what it does. Its module has the same name in `diplex_cli.commands`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 fine, 1 what was asked for is not fine, 2 wrong usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in COMMANDS:
        return _no_command(words)
    name, *rest = words
    from diplex_cli.failures import told

    try:
        return _run(name, rest)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone, as in `| head`: nothing is left to say, and nobody to say it to.
        sys.stdout = None
        return 1
    except Exception as error:  # the outermost loop of a process
        failure = told(error, name)
        if failure is None:
            raise
        print(failure.text, file=sys.stderr)
        return failure.code


def _run(name: str, rest: Sequence[str]) -> int:
    from argparse import ArgumentParser, RawDescriptionHelpFormatter
    from importlib import import_module

    command = import_module(f"diplex_cli.commands.{name}")
    parser = ArgumentParser(
        prog=f"diplex {name}", description=command.__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    command.add_arguments(parser)
    code: int = command.run(parser.parse_args(rest))
    return code


def _no_command(words: Sequence[str]) -> int:
    match words:
        case ["--version", *_]:
            from importlib.metadata import version

            print(f"diplex {version('diplex')}")
            return 0
        case ["-h" | "--help", *_]:
            print(_help())
            return 0
        case []:
            print(_help(), file=sys.stderr)
        case [word, *_]:
            print(f"diplex: {_unknown(word)}", file=sys.stderr)
    return 2


def _help() -> str:
    rows = [f"  {name:9}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: diplex COMMAND …",
            "       diplex --help | --version",
            "",
            "Serves large language models on dual-die GPU packages.",
            "",
            "commands:",
            *rows,
            "",
            "`diplex COMMAND --help` says more, with an example. To begin: diplex up",
        ]
    )


def _unknown(word: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, n=1)
    mend = f"diplex {near[0]}" if near else f"one of {', '.join(COMMANDS)}"
    return f"'{word}' is not a command. Mend: {mend}"


if __name__ == "__main__":
    sys.exit(main())
