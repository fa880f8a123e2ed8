"""Run a program so that it never outlives its owner: `python -m diplex_workers.launch.leash GRACE COMMAND …`.

The tie is stdin, as for every child here, and engines do not read theirs: so this small process holds it and
runs the engine in a group of its own. When stdin closes, by whatever end of the owner, the group is told
to end, and after GRACE seconds it is killed; a line on stdin kills it at once. When the program has ended by
itself, whatever is left of its group is killed too: a part of an engine that stays keeps the GPU's memory.

Exit code: the program's, 128 and the signal's number if one killed it, 127 if it cannot be started.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

CANNOT_START = 127


def main() -> int:
    grace, command = float(sys.argv[1]), sys.argv[2:]
    # When to go is the owner's to say: a Ctrl-C meant for the whole terminal must not cut one that drains.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_listens_again,
        )
    except OSError as error:
        print(f"{command[0]} cannot be started: {(error.strerror or str(error)).lower()}", file=sys.stderr)
        return CANNOT_START
    threading.Thread(target=_owned, args=(program, grace), daemon=True).start()
    code = program.wait()
    _end_group(program, signal.SIGKILL)
    return 128 - code if code < 0 else code


def _listens_again() -> None:
    """Signals that are ignored stay so in a child: the program is to hear them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _owned(program: subprocess.Popen[bytes], grace: float) -> None:
    """Returns once the owner is gone, or wants the program gone."""
    if os.read(sys.stdin.fileno(), 1):
        _end_group(program, signal.SIGKILL)
        return
    _end_group(program, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        program.wait(grace)
    _end_group(program, signal.SIGKILL)


def _end_group(program: subprocess.Popen[bytes], by: signal.Signals) -> None:
    # The group's number is the program's, which the system does not give away while the group has members.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, by)


if __name__ == "__main__":
    sys.exit(main())
