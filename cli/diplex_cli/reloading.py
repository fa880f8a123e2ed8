"""Configuration files that are read again when they change, and the rules that come of them.

A file has changed when its time, its size or its inode is another: editors write a new file and rename it,
Kubernetes turns a link to another folder. It is read once it has stayed as it is from one look to the next,
for whoever writes it may not be done. What is wrong then changes nothing.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from diplex_cli import reader
from diplex_core.config import Config, ConfigErrors, remarks
from diplex_core.config.changes import beside_rules, of_rules
from diplex_core.words import Rules

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at the files."""

log = logging.getLogger(__name__)

Stamp: TypeAlias = tuple[int, int, int, int] | None  # None: no such file


class Reloading:
    """A configuration as its files said it when they were last right.

    Args:
        names: the files that make it, in their order.
        environment: where those tenants' keys are that stand in no file.
    Raises:
        FileFault, ConfigErrors: they are wrong at the start.
    """

    def __init__(self, names: Sequence[str], environment: Mapping[str, str]) -> None:
        self._names = names
        self._environment = environment
        self._read_at = _stamps(Path(name) for name in names if name != reader.EMBEDDED)
        self.source, self.started_with = self._load()
        self._seen = self._read_at
        self._rules = self.started_with.rules
        self._remarks = set(remarks(self.started_with))
        self._beside = ""

    @property
    def watched(self) -> bool:
        """Whether there is a file to look at: the embedded configuration has none."""
        return bool(self._read_at)

    def look(self) -> Rules | None:
        """Read the files if they are others than when they were read, and the same as at the last look.

        `None`: nothing new, or nothing that could be taken.
        """
        now = _stamps(self._read_at)
        settled, self._seen = now == self._seen, now
        return self.read() if settled and now != self._read_at else None

    def read(self) -> Rules | None:
        """Read the files now, and say what is new in them, or wrong with them."""
        try:
            source, config = self._load()
        except (reader.FileFault, ConfigErrors) as error:
            log.error(
                "the configuration cannot be taken, the rules stay as they are: %s%s", error, _hint(error)
            )
            return None
        self._say_beside(beside_rules(self.started_with, config))
        self._say_remarks(source, config)
        changed = of_rules(self._rules, config.rules)
        if not changed:
            log.info("the configuration was read again: the rules are the same")
            return None
        self._rules = config.rules
        return config.rules

    def rules(self) -> AsyncIterator[Rules]:
        """New rules, one after the other. From this call on, SIGHUP has the files read at once.

        To be called on the loop that the router runs on, where `process.stoppable` had SIGHUP stop it.
        """
        hangup = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
        return self._changes(hangup)

    async def _changes(self, hangup: asyncio.Event) -> AsyncIterator[Rules]:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await hangup.wait()
            now = hangup.is_set()
            hangup.clear()
            # A large file takes a while to read, and a slow disk to answer: streams must not wait for either.
            new = await asyncio.to_thread(self.read if now else self.look)
            if new is not None:
                yield new

    def _load(self) -> tuple[reader.Source, Config]:
        """The files as they are; their stamps are of before, so that what is written meanwhile is seen."""
        self._read_at = _stamps(self._read_at)
        source = reader.read(self._names)
        files = {Path(name) for name in source.files if name != reader.EMBEDDED}
        self._read_at = {
            **{file: stamp for file, stamp in self._read_at.items() if file in files},
            **_stamps(source.key_files().values()),
        }
        return source, source.config(self._environment)

    def _say_beside(self, changed: str) -> None:
        if changed and changed != self._beside:
            log.warning("%s: takes effect at the next start", changed)
        self._beside = changed

    def _say_remarks(self, source: reader.Source, config: Config) -> None:
        """What has no effect, or a surprising one, and was not said before."""
        now = list(remarks(config))
        for remark in now:
            if remark not in self._remarks:
                log.warning("%s", "\n".join(source.lines([remark])))
        self._remarks = set(now)


def _hint(error: Exception) -> str:
    """What `export` cannot mend any more: variables are those of the start."""
    faults = error.faults if isinstance(error, ConfigErrors) else ()
    unset = any(fault.path[-1:] == ("api_key_env",) and fault.mend.startswith("export") for fault in faults)
    return "\n  mend:  api_key_file: …, for this process has the variables of its start" if unset else ""


def _stamps(files: Iterable[Path]) -> dict[Path, Stamp]:
    return {file: stamp_of(file) for file in files}


def stamp_of(file: Path) -> Stamp:
    """What tells that a file is another than it was; `None`: there is none."""
    try:
        found = file.stat()
    except (OSError, ValueError):  # the latter for a path that no file can have
        return None
    return found.st_mtime_ns, found.st_size, found.st_dev, found.st_ino
