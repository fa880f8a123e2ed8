"""An Outbox gathers while its reader is away, and wakes it once."""

import asyncio

import pytest

from diplex.wire.coalesce import Outbox


async def test_what_was_put_comes_out_in_order_and_once():
    outbox: Outbox[int] = Outbox()
    for number in range(3):
        outbox.put(number)
    assert len(outbox) == 3
    assert await outbox.gather() == [0, 1, 2]
    assert len(outbox) == 0


async def test_a_reader_that_waits_is_woken_once_for_all_that_came_meanwhile():
    outbox: Outbox[int] = Outbox()
    gathered: list[list[int]] = []

    async def read() -> None:
        while batch := await outbox.gather():
            gathered.append(batch)

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    for number in range(3):
        outbox.put(number)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    outbox.put(3)
    outbox.close()
    await reader
    assert gathered == [[0, 1, 2], [3]]


async def test_a_closed_outbox_gives_out_what_it_has_and_then_nothing():
    outbox: Outbox[int] = Outbox()
    outbox.put(1)
    outbox.close()
    outbox.put(2)
    assert outbox.closed
    assert await outbox.gather() == [1]
    assert await outbox.gather() == []


async def test_closing_wakes_a_reader_that_waits():
    outbox: Outbox[int] = Outbox()
    reader = asyncio.create_task(outbox.gather())
    await asyncio.sleep(0)
    outbox.close()
    assert await reader == []


async def test_a_reader_that_is_cancelled_loses_nothing():
    outbox: Outbox[int] = Outbox()
    reader = asyncio.create_task(outbox.gather())
    await asyncio.sleep(0)
    outbox.put(1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await outbox.gather() == [1]


async def test_a_second_reader_is_a_mistake():
    outbox: Outbox[int] = Outbox()
    reader = asyncio.create_task(outbox.gather())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one gatherer"):
        await outbox.gather()
    outbox.close()
    await reader
