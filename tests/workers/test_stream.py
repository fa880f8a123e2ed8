"""The sending end of a client's stream: when its writer wakes, and what it finds."""

import asyncio

from diplex.v1 import generation_pb2 as pb
from diplex_workers.stream import TokenStream


async def test_a_waiting_writer_wakes_once_and_finds_all_that_was_said_meanwhile():
    stream = TokenStream()
    writer = asyncio.ensure_future(stream.frame())
    await asyncio.sleep(0)
    for seq in (1, 2):
        stream.tokens(seq, 0, 0, 1, (5,), "a")
    stream.done(pb.Done(seq=1))
    frame = await writer
    assert frame is not None
    assert ([t.seq for t in frame.tokens], [d.seq for d in frame.done]) == ([1, 2], [1])
    assert stream.take() is None


async def test_after_half_close_a_stream_ends_with_its_last_sequence():
    stream = TokenStream()
    stream.sequences[1] = None  # type: ignore[assignment]
    writer = asyncio.ensure_future(stream.frame())
    stream.half_close()
    await asyncio.sleep(0)
    assert not writer.done()
    stream.done(pb.Done(seq=1))
    assert await writer is not None
    assert await stream.frame() is None


async def test_a_broken_stream_ends_with_what_was_said():
    stream = TokenStream()
    stream.sequences[1] = None  # type: ignore[assignment]
    stream.tokens(1, 0, 0, 1, (), "a")
    stream.break_off()
    assert await stream.frame() is not None
    assert await stream.frame() is None


async def test_a_writer_that_was_cancelled_leaves_the_next_one_everything():
    stream = TokenStream()
    writer = asyncio.ensure_future(stream.frame())
    await asyncio.sleep(0)
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
    stream.tokens(1, 0, 0, 1, (), "a")
    assert await stream.frame() is not None


def test_ids_are_as_many_as_tokens_or_none():
    stream = TokenStream()
    stream.tokens(1, 0, 0, 2, (5, 6), "ab")
    stream.tokens(1, 0, 2, 3, (), "cde")
    stream.tokens(1, 0, 5, 1, (7,), "f")
    frame = stream.take()
    assert frame is not None
    (tokens,) = frame.tokens
    assert (tokens.index, tokens.count, list(tokens.ids), tokens.text) == (0, 6, [], "abcdef")


def test_text_that_completes_no_token_is_said_too():
    stream = TokenStream()
    stream.tokens(1, 0, 0, 1, (5,), "a")
    stream.tokens(1, 0, 1, 0, (), "…")
    frame = stream.take()
    assert frame is not None
    (tokens,) = frame.tokens
    assert (tokens.count, list(tokens.ids), tokens.text) == (1, [5], "a…")
