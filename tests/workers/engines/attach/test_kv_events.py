"""KV events as vLLM and SGLang publish them, by a real ZeroMQ publisher that speaks their wire.

Source-derived: read in vLLM's distributed/kv_events.py (main, commit 0181ea3) and SGLang's
srt/disaggregation/kv_events.py (main, commit 006d053); see the README beside this file.
"""

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import msgspec
import pytest
import zmq
import zmq.asyncio

from diplex.wire.blocks import block_hashes
from diplex_core.words import salted
from diplex_workers.engines.kv_blocks import Blocks, Unreadable, salt_word
from diplex_workers.engines.kv_events import KvEvents
from diplex_workers.residency import BlockEvent, Residency

SIZE = 4
IDS = list(range(100, 116))  # four blocks
NAMES = block_hashes(IDS, SIZE, "m")


def stored(
    first: int, *, until: int | None = None, parent: object = None, **more: object
) -> dict[str, object]:
    """The blocks from one on, under hashes of the engine's own."""
    last = first + 1 if until is None else until
    return {
        "type": "BlockStored",
        "block_hashes": [f"h{i}".encode() for i in range(first, last)],
        "parent_block_hash": f"h{first - 1}".encode() if first else parent,
        "token_ids": IDS[first * SIZE : last * SIZE],
        "block_size": SIZE,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        **more,
    }


def removed(*which: int) -> dict[str, object]:
    return {"type": "BlockRemoved", "block_hashes": [f"h{i}".encode() for i in which], "medium": "GPU"}


CLEARED = {"type": "AllBlocksCleared"}


def batch(*events: object) -> dict[str, object]:
    return {"ts": 1.0, "events": list(events), "data_parallel_rank": 0}


def as_arrays(whole: dict[str, object]) -> list[object]:
    """The same as older vLLMs and SGLang write it."""
    return [whole["ts"], [list(event.values()) for event in whole["events"]]]


class TestNames:
    def test_blocks_are_named_as_clients_chain_them(self):
        (event,) = Blocks("m", SIZE, 0).take(0, batch(stored(0, until=3)))
        assert (event.number, event.stored) == (1, NAMES[:3])

    def test_a_child_goes_on_from_its_parents_name(self):
        blocks = Blocks("m", SIZE, 0)
        blocks.take(0, batch(stored(0, until=2)))
        assert blocks.take(1, batch(stored(2)))[0].stored == NAMES[2:3]

    def test_the_older_wire_says_the_same(self):
        whole = batch(stored(0, until=3), removed(2))
        assert Blocks("m", SIZE, 0).take(0, as_arrays(whole)) == Blocks("m", SIZE, 0).take(0, whole)

    def test_a_batch_is_one_event_with_the_last_word_on_each_block(self):
        (event,) = Blocks("m", SIZE, 0).take(0, batch(stored(0, until=2), removed(1)))
        assert (event.stored, event.removed) == (NAMES[:1], NAMES[1:2])

    @pytest.mark.parametrize(
        "other",
        [{"medium": "CPU"}, {"group_idx": 1}, {"lora_name": "pirate"}, {"extra_keys": [["image", 0]]}],
        ids=["not on the GPU", "another cache group", "an adapter", "more than tokens"],
    )
    def test_blocks_that_clients_have_no_name_for_are_not_told(self, other):
        blocks = Blocks("m", SIZE, 0)
        assert blocks.take(0, batch(stored(0, **other)))[0].stored == ()
        assert blocks.take(1, batch(stored(1)))[0].stored == (), "and so are their children"

    def test_a_tenants_salt_is_in_the_name_and_in_its_childrens(self):
        blocks = Blocks("m", SIZE, 0)
        first = blocks.take(0, batch(stored(0, extra_keys=[[salt_word(77)]])))[0]
        child = blocks.take(1, batch(stored(1, extra_keys=[None])))[0]
        assert first.stored + child.stored == tuple(salted(name, 77) for name in NAMES[:2])

    def test_another_block_size_is_passed_on_for_the_worker_to_see(self):
        (event,) = Blocks("m", 8, 0).take(0, batch(stored(0)))
        assert event.block_tokens == SIZE
        residency = Residency(8)
        residency.take(event)
        assert residency.problem == "its engine's blocks have 4 tokens, the pool's 8"

    def test_other_ranks_are_not_this_pools(self):
        whole = {**batch(stored(0)), "data_parallel_rank": 1}
        assert Blocks("m", SIZE, 0).take(0, whole)[0].stored == ()

    @pytest.mark.parametrize("nonsense", [7, None, [1.0], {"ts": 1.0}, [1.0, [[]]], {"events": [{}]}])
    def test_what_is_no_batch_is_said_so(self, nonsense):
        with pytest.raises((Unreadable, ValueError)):
            Blocks("m", SIZE, 0).take(0, nonsense)


class TestHoles:
    def test_behind_a_hole_nothing_is_believed_until_it_is_filled(self):
        blocks, residency = Blocks("m", SIZE, 0), Residency(SIZE)
        batches = [batch(stored(0)), batch(stored(1)), batch(stored(2))]
        for number in (0, 2):
            for event in blocks.take(number, batches[number]):
                residency.take(event)
        assert residency.problem == "1 of its engine's events are missing, from number 2 on"
        assert residency.kept == set(NAMES[:1])
        for event in blocks.take(1, batches[1]):
            residency.take(event)
        assert (residency.problem, residency.kept) == ("", set(NAMES[:3]))

    def test_a_cleared_cache_needs_no_past(self):
        blocks, residency = Blocks("m", SIZE, 0), Residency(SIZE)
        for event in blocks.take(40, batch(stored(3), CLEARED, stored(0))):
            residency.take(event)
        assert (residency.problem, residency.kept) == ("", set(NAMES[:1]))

    def test_a_repeat_is_passed_over(self):
        blocks = Blocks("m", SIZE, 0)
        blocks.take(0, batch(stored(0)))
        assert blocks.take(0, batch(stored(0))) == []


class Publisher:
    """vLLM's: PUB, and a ROUTER that sends again what it still has."""

    def __init__(self, endpoint: str = "tcp://127.0.0.1:*", replay: str = "tcp://127.0.0.1:*") -> None:
        self._context = zmq.asyncio.Context()
        self._pub, self._router = self._context.socket(zmq.XPUB), self._context.socket(zmq.ROUTER)
        for line, where in ((self._pub, endpoint), (self._router, replay)):
            line.setsockopt(zmq.LINGER, 0)
            line.bind(where)
        self.endpoint = self._pub.getsockopt_string(zmq.LAST_ENDPOINT)
        self.replay = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.buffer: list[tuple[int, bytes]] = []
        self.asked: list[int] = []
        self._numbers = count()
        self._serving = asyncio.create_task(self._serve())

    async def subscribed(self) -> None:
        assert (await self._pub.recv())[:1] == b"\x01"

    async def publish(self, whole: object, *, lose: bool = False) -> None:
        number, data = next(self._numbers), msgspec.msgpack.encode(whole)
        if not lose:
            await self._pub.send_multipart([b"kv", number.to_bytes(8, "big"), data])
        self.buffer.append((number, data))

    async def _serve(self) -> None:
        while True:
            who, _, start = await self._router.recv_multipart()
            first = int.from_bytes(start, "big")
            self.asked.append(first)
            for number, data in self.buffer:
                if number >= first:
                    await self._router.send_multipart([who, b"", number.to_bytes(8, "big"), data])
            await self._router.send_multipart([who, b"", (-1).to_bytes(8, "big", signed=True), b""])

    async def close(self) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        self._context.destroy(0)


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    publisher = Publisher()
    yield publisher
    await publisher.close()


class Listening:
    """A worker's residency that follows a publisher."""

    def __init__(self, publisher: Publisher, *, replay: bool = True) -> None:
        self.residency, self._heard = Residency(SIZE), asyncio.Event()
        again = publisher.replay if replay else ""
        self.events = KvEvents(
            publisher.endpoint, again, "kv", model="m", block_tokens=SIZE, epoch=0, told=self._told
        )

    def _told(self, event: BlockEvent) -> None:
        self.residency.take(event)
        self._heard.set()

    async def __aenter__(self) -> "Listening":
        self._task = asyncio.create_task(self.events.listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, kept: int, problem: str = "") -> None:
        async with asyncio.timeout(10):
            while not (len(self.residency.kept) == kept and problem in self.residency.problem) or (
                bool(problem) != bool(self.residency.problem)
            ):
                self._heard.clear()
                await self._heard.wait()


class TestTheLine:
    async def test_blocks_follow_the_publisher(self, publisher):
        async with Listening(publisher) as listening:
            await publisher.subscribed()
            await publisher.publish(batch(stored(0, until=4)))
            await listening.until(4)
            await publisher.publish(batch(removed(3)))
            await listening.until(3)
            assert listening.residency.kept == set(NAMES[:3])

    async def test_what_was_published_before_anybody_listened_is_asked_for(self, publisher):
        await publisher.publish(batch(stored(0)))
        await publisher.publish(batch(stored(1)))
        async with Listening(publisher) as listening:
            await listening.until(2)
        assert publisher.asked == [0]

    async def test_a_lost_batch_is_a_hole_that_a_replay_fills(self, publisher):
        async with Listening(publisher) as listening:
            await publisher.subscribed()
            await publisher.publish(batch(stored(0)))
            await listening.until(1)
            await publisher.publish(batch(stored(1)), lose=True)
            await publisher.publish(batch(stored(2)))
            await listening.until(3)
        assert publisher.asked == [0, 1]

    async def test_a_hole_that_cannot_be_filled_is_told_until_the_cache_is_cleared(self, publisher):
        async with Listening(publisher) as listening:
            await publisher.subscribed()
            await publisher.publish(batch(stored(0)))
            await listening.until(1)
            await publisher.publish(batch(stored(1)), lose=True)
            publisher.buffer.clear()
            await publisher.publish(batch(stored(2)))
            await listening.until(1, "1 of its engine's events are missing")
            await publisher.publish(batch(CLEARED))
            await listening.until(0)

    async def test_a_publisher_that_is_gone_is_told_and_a_new_one_counts_anew(self, publisher):
        async with Listening(publisher) as listening:
            await publisher.subscribed()
            for block in range(3):
                await publisher.publish(batch(stored(block)))
            await listening.until(3)
            await publisher.close()
            await listening.until(3, "nobody publishes its engine's KV events at tcp://")
            second = Publisher(publisher.endpoint, publisher.replay)
            try:
                await second.subscribed()
                await second.publish(batch(stored(0)))
                await listening.until(1)
                assert listening.events.epoch == 1
            finally:
                await second.close()


class TestAttached:
    async def test_an_attached_engine_tells_its_worker(self, publisher, server, attached):
        more = {"events": publisher.endpoint, "replay": publisher.replay, "block_tokens": SIZE}
        async with attached(api="vllm", **more) as stage:
            assert stage.host.facts[0].tells_prefixes
            await publisher.subscribed()
            await publisher.publish(batch(stored(0)))
            (event,) = await stage.host.until(lambda: stage.host.kept_events)
            assert event.stored == NAMES[:1]

    async def test_events_that_stop_while_answers_fill_blocks_are_told(
        self, publisher, server, attached, monkeypatch
    ):
        monkeypatch.setattr("diplex_workers.engines.attach._EVENTS_SILENT", 0.1)
        said = [{"choices": [{"index": 0, "text": "a", "token_ids": [i]}]} for i in range(8)]
        server.chunks = [*said, {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}]
        async with attached(api="vllm", events=publisher.endpoint, block_tokens=SIZE, every=0.02) as stage:
            for _ in range(3):
                await stage.done("x", 8)
            (event,) = await stage.host.until(lambda: stage.host.kept_events)
        assert "though 3 answers filled blocks" in event.lost

    async def test_a_tenants_salt_is_the_engines_too(self, server, attached):
        async with attached(api="vllm") as stage:
            await stage.done("x", salt=0xAB)
        assert server.asked[0]["cache_salt"] == "diplex-ab"
