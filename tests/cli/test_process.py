"""Signals stop a part once and cancel it twice; a log record is one line."""

import asyncio
import logging
import os
import resource
import signal
import sys

import pytest

from diplex_cli import process


async def test_a_signal_sets_the_stop_event_and_the_part_ends_well():
    drained = False

    async def part(stop: asyncio.Event) -> None:
        nonlocal drained
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        drained = True

    assert await process.stoppable(part) == 0
    assert drained


async def test_a_second_signal_cancels_the_drain():
    cancelled = False

    async def part(stop: asyncio.Event) -> None:
        nonlocal cancelled
        os.kill(os.getpid(), signal.SIGINT)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    assert await asyncio.create_task(process.stoppable(part)) == 0
    assert cancelled


async def test_a_failing_part_fails():
    async def part(stop: asyncio.Event) -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError):
        await process.stoppable(part)


async def test_a_leashed_part_is_told_to_stop_when_the_leash_ends(monkeypatch: pytest.MonkeyPatch):
    reading, writing = os.pipe()
    monkeypatch.setenv(process.LEASH, "stdin")
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)

        async def part(stop: asyncio.Event) -> None:
            os.close(writing)
            await stop.wait()

        assert await asyncio.create_task(process.stoppable(part)) == 0


def test_a_record_with_a_traceback_is_one_line():
    formatter = process.OneLine("%(levelname)s %(message)s")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "it failed", None, sys.exc_info())
    text = formatter.format(record)
    assert "\n" not in text
    assert text.startswith("ERROR it failed ⏎ Traceback")


def test_a_server_may_open_as_many_connections_as_the_system_lets_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    said: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: said.append(limits))

    async def part(stop: asyncio.Event) -> None:
        return

    assert process.serve(part) == 0
    assert said == [(4096, 4096)]
    assert "4096 connections and files at most. Mend: ulimit -Hn 16384" in caplog.text
