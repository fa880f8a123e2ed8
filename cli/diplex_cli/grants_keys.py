"""The keys that sign grants: in an environment variable, or in a file that is read again when it changes.

Either holds `secret` or `id:secret,id:secret`, a file also one a line: the first signs, all verify. So a key
is changed in three steps, each of them everywhere before the next, and no request notices: the new one behind
the old one, the new one before the old one, the new one alone.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from diplex_cli.failures import UsageError
from diplex_cli.reader import Source
from diplex_cli.reloading import LOOK_EVERY, Stamp, stamp_of
from diplex_core.config import Config

if TYPE_CHECKING:
    from diplex.wire.grants import Keys

GRANTS_KEY: Final = "DIPLEX_GRANTS_KEY"
"""Environment variable with the key that signs grants, where the configuration names no other."""

log = logging.getLogger(__name__)


def key_file(source: Source) -> Path | None:
    """The file that holds the keys. A relative path starts where the file that names it is."""
    name: str | None = (source.tree.get("grants") or {}).get("key_file")
    return Path(source.place(("grants", "key_file")).file).parent / name if name else None


def variable(config: Config) -> str:
    """The environment variable that holds the keys, where no file does."""
    return config.grants_key_env or GRANTS_KEY


def grants_key(source: Source, config: Config) -> str | None:
    """The keys that routers sign with and workers verify with, as text; `None`: there are none.

    Raises:
        UsageError: the variable or the file that the configuration names is not there, or is empty.
    """
    if (file := key_file(source)) is not None:
        return _text(file)
    name = config.grants_key_env
    if name and not os.environ.get(name):
        raise UsageError(f"grants.key_env: the environment variable {name} is not set. Mend: export {name}=…")
    return os.environ.get(variable(config)) or None


@asynccontextmanager
async def followed(source: Source, keys: "Keys | None") -> AsyncIterator[None]:
    """Inside, keys that come from a file are those that the file holds. What it cannot be read for, or what
    is no key, changes nothing."""
    file = key_file(source)
    if file is None or keys is None:
        yield
        return
    following = asyncio.create_task(KeyFile(file, keys).follow(), name=f"keys in {file}")
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


class KeyFile:
    """One file of keys, and the keys that it keeps as it says."""

    def __init__(self, file: Path, keys: "Keys") -> None:
        self._file = file
        self._keys = keys
        self._read_at = self._seen = stamp_of(file)

    async def follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self.look()

    def look(self) -> None:
        """Read the file if it is another than when it was read, and the same as at the last look."""
        now: Stamp = stamp_of(self._file)
        settled, self._seen = now == self._seen, now
        if settled and now != self._read_at:
            self._read_at = now
            self._read()

    def _read(self) -> None:
        from diplex.wire.grants import Keys

        try:
            self._keys.become(Keys.of(_text(self._file)))
        except (UsageError, ValueError) as error:
            log.error("the keys of grants stay as they are: %s", error)
        else:
            log.info("keys of grants: %s signs; %s verify", self._keys.signs, ", ".join(self._keys.ids))


def _text(file: Path) -> str:
    write_it = f"printf %s KEY > {file}"
    try:
        entries = file.read_text(encoding="utf-8").replace("\n", ",").split(",")
    except OSError as error:
        raise UsageError(f"grants.key_file: {file}: {error.strerror}. Mend: {write_it}") from error
    except ValueError as error:
        raise UsageError(f"grants.key_file: {file} is not text in UTF-8. Mend: {write_it}") from error
    keys = [entry.strip() for entry in entries if entry.strip()]
    if not keys:
        raise UsageError(f"grants.key_file: {file} is empty. Mend: {write_it}")
    return ",".join(keys)
