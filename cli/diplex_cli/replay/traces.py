"""Public request traces: when each request came, and how long it was. Told apart by content, not by name.

| format | columns or fields | time | a hash id is |
| --- | --- | --- | --- |
| Azure | TIMESTAMP, ContextTokens, GeneratedTokens | wall clock | |
| Azure, packed | arrival_s, input_tokens, output_tokens | s | |
| ServeGen | the same, and reasoning_tokens: part of the output | s | |
| Mooncake | timestamp, input_length, output_length, hash_ids | ms | 512 tokens |
| Bailian | the same, and chat_id, parent_chat_id, type, turn | s | 16 tokens |

Block sizes are those of the traces' own descriptions: kvcache-ai/Mooncake, FAST25-release, and
alibaba-edu/qwen-bailian-usagetraces-anon, README. `hash_ids` name the prompt's blocks in order; equal ids are
equal blocks with equal blocks before them; the last block may be partly filled.
"""

import csv
import gzip
import heapq
import io
import json
import math
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final

from diplex_cli.failures import UsageError
from diplex_core.words import Seconds, Tokens

MOONCAKE_BLOCK: Final[Tokens] = 512
BAILIAN_BLOCK: Final[Tokens] = 16
STDIN: Final = "-"
_GZIP: Final = b"\x1f\x8b"
_KNOWN: Final = "CSV of Azure or ServeGen, or JSON lines of Mooncake or Bailian"


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a trace. `number` counts the file's requests from 0; `arrival` counts from its first."""

    number: int
    arrival: Seconds
    input_tokens: Tokens
    output_tokens: Tokens
    hash_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace, or the beginning of one, in the order of arrival.

    Attributes:
        block_tokens: tokens that one of `hash_ids` stands for; 0: there are none.
        total: requests in the whole file.
    """

    name: str
    format: str
    block_tokens: Tokens
    rows: tuple[Row, ...]
    total: int


def read(path: str, limit: int | None = None) -> Trace:
    """Read a trace, gzipped or not; "-" is standard input.

    Args:
        limit: keep only so many requests, those that arrived first.
    Raises:
        UsageError: it cannot be read; the message names file, line, reason and mend.
    """
    name = "stdin" if path == STDIN else Path(path).name
    place = "stdin" if path == STDIN else path
    try:
        with _opened(path) as lines:
            return _read(name, place, lines, limit)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{place}: {error}. Mend: fetch the file again") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{place} is not text in UTF-8. Mend: {_KNOWN}") from error
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror}. Mend: the path of a trace, or -") from error


@contextmanager
def _opened(path: str) -> Iterator[IO[str]]:
    """The text of the file, whether it is gzipped or not."""
    with sys.stdin.buffer if path == STDIN else Path(path).open("rb") as file:
        zipped = file.peek(2)[:2] == _GZIP  # type: ignore[union-attr]
        with (
            gzip.open(file, "rt", encoding="utf-8", newline="")
            if zipped
            else io.TextIOWrapper(file, encoding="utf-8", newline="") as text
        ):
            yield text


def _read(name: str, place: str, lines: IO[str], limit: int | None) -> Trace:
    line, first = next(((line, text) for line, text in enumerate(lines, 1) if text.strip()), (0, ""))
    if not first:
        raise UsageError(f"{place} is empty. Mend: {_KNOWN}")
    kind = _json_lines if first.lstrip().startswith("{") else _csv
    format, block_tokens, rows = kind(place, line, first, lines)
    counted = _Counted(rows)
    if limit is None:
        kept = sorted(counted, key=lambda row: row.arrival)
    else:
        kept = heapq.nsmallest(limit, counted, key=lambda row: row.arrival)
    if not kept:
        raise UsageError(f"{place} has no requests, only a heading. Mend: {_KNOWN}")
    begins = kept[0].arrival
    rows_from_0 = tuple(replace(row, arrival=row.arrival - begins) for row in kept)
    return Trace(name, format, block_tokens, rows_from_0, counted.count)


class _Counted:
    """Counts the rows that go by."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            yield row


def _csv(place: str, line: int, first: str, lines: IO[str]) -> tuple[str, Tokens, Iterator[Row]]:
    heading = next(csv.reader([first]))
    columns = [column.strip().lstrip("\ufeff") for column in heading]
    for format, time, wanted in _CSV:
        if set(wanted) <= set(columns):
            at = [columns.index(column) for column in wanted[:3]]
            return format, 0, _csv_rows(place, line, time, at, lines)
    raise UsageError(f"{place}:{line}: no trace begins with '{first.strip()[:60]}'. Mend: {_KNOWN}")


def _csv_rows(
    place: str, heading: int, time: Callable[[str], Seconds], at: list[int], lines: IO[str]
) -> Iterator[Row]:
    reader = csv.reader(lines)
    number = 0
    for fields in reader:
        if not fields:
            continue
        line = heading + reader.line_num
        try:
            arrival, given, made = (fields[index] for index in at)
            yield Row(number, time(arrival), _tokens(int(given)), _tokens(int(made)))
        except IndexError:
            raise _bad(place, line, f"{len(fields)} fields where {max(at) + 1} are needed") from None
        except ValueError as error:
            raise _bad(place, line, str(error)) from None
        number += 1


def _json_lines(place: str, line: int, first: str, lines: IO[str]) -> tuple[str, Tokens, Iterator[Row]]:
    bailian = "chat_id" in _object(place, line, first)
    format, unit, block = ("Bailian", 1.0, BAILIAN_BLOCK) if bailian else ("Mooncake", 0.001, MOONCAKE_BLOCK)
    return format, block, _json_rows(place, unit, chain([(line, first)], enumerate(lines, line + 1)))


def _json_rows(place: str, unit: Seconds, lines: Iterable[tuple[int, str]]) -> Iterator[Row]:
    number = 0
    for line, text in lines:
        if not text.strip():
            continue
        said = _object(place, line, text)
        try:
            arrival = _finite(float(said["timestamp"]) * unit)
            given, made = _tokens(said["input_length"]), _tokens(said["output_length"])
            yield Row(number, arrival, given, made, _hash_ids(said.get("hash_ids") or ()))
        except KeyError as error:
            raise _bad(place, line, f"{error.args[0]} is missing") from None
        except (TypeError, ValueError) as error:
            raise _bad(place, line, str(error)) from None
        number += 1


def _object(place: str, line: int, text: str) -> Any:
    try:
        said = json.loads(text)
    except ValueError as error:
        raise _bad(place, line, f"no JSON: {error}") from None
    if not isinstance(said, dict):
        raise _bad(place, line, "no JSON object")
    return said


def _bad(place: str, line: int, reason: str) -> UsageError:
    return UsageError(f"{place}:{line}: {reason}. Mend: correct the line, or take it out")


def _tokens(value: Any) -> Tokens:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no number of tokens")
    return value


def _hash_ids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, int) for one in value):
        raise ValueError("hash_ids is no list of whole numbers")
    return tuple(value)


def _finite(seconds: Seconds) -> Seconds:
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds} is no time")
    return seconds


def _wall_clock(text: str) -> Seconds:
    """As Azure writes it, such as 2023-11-16 18:17:03.9799600: the tenth of a microsecond is dropped."""
    return datetime.fromisoformat(text + "+00:00" if "+" not in text else text).timestamp()


_CSV: Final = (
    ("ServeGen", lambda text: _finite(float(text)),
     ("arrival_s", "input_tokens", "output_tokens", "reasoning_tokens")),
    ("Azure", lambda text: _finite(float(text)), ("arrival_s", "input_tokens", "output_tokens")),
    ("Azure", _wall_clock, ("TIMESTAMP", "ContextTokens", "GeneratedTokens")),
)  # fmt: skip
