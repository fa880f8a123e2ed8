"""An Outbox gathers while its reader is away, and wakes it once; tokens in it are joined."""

import asyncio
from typing import Any

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.wire.coalesce import Outbox, TokenOutbox


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


def tokens(index: int, ids: list[int], text: str, choice: int = 0, count: int = 0) -> pb.Tokens:
    return pb.Tokens(choice=choice, index=index, ids=ids, text=text, count=count or len(ids))


async def test_tokens_of_one_choice_that_gather_become_one_message():
    outbox: TokenOutbox[str] = TokenOutbox()
    for message in (tokens(5, [1], "a"), tokens(9, [7], "x", choice=1), tokens(6, [2, 3], "bc")):
        outbox.put_tokens(message)
    outbox.put("serving")
    outbox.put_tokens(tokens(8, [4], "d"))
    assert await outbox.gather() == [
        tokens(5, [1, 2, 3, 4], "abcd"),
        tokens(9, [7], "x", choice=1),
        "serving",
    ]


async def test_what_was_gathered_is_not_added_to():
    outbox: TokenOutbox[str] = TokenOutbox()
    outbox.put_tokens(tokens(0, [1], "a"))
    assert await outbox.gather() == [tokens(0, [1], "a")]
    outbox.put_tokens(tokens(1, [2], "b"))
    assert await outbox.gather() == [tokens(1, [2], "b")]


@pytest.mark.parametrize(("first", "second"), [(([1], 1), ([], 2)), (([], 2), ([1], 1)), (([], 1), ([], 2))])
async def test_where_only_some_ids_are_known_none_are_told(first: Any, second: Any):
    outbox: TokenOutbox[str] = TokenOutbox()
    outbox.put_tokens(tokens(0, first[0], "a", count=first[1]))
    outbox.put_tokens(tokens(first[1], second[0], "b", count=second[1]))
    assert await outbox.gather() == [tokens(0, [], "ab", count=3)]
