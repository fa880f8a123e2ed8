"""A claim that grows, over real connections: its sequence waits at the limit, and its neighbours do not."""

from typing import Any

from diplex.v1 import generation_pb2 as pb

CLAIM = pb.Claim(lease_id=1, attempt=1)
LIMIT = 2 * 32 - 2  # two blocks, less a prompt of two tokens


async def waits_at_its_limit(worker: Any, client: Any) -> None:
    """Start one that grows, and a neighbour that is served whole meanwhile."""
    grows = worker.grant(1, grows=True, blocks=2, max_tokens=200)
    whole = worker.grant(2, blocks=10, max_tokens=300)
    await client.send(starts=[worker.start(1, grant=grows), worker.start(2, grant=whole)])
    await client.until(lambda: 2 in client.done)
    assert client.done[2].usage.completion_tokens == 300


async def test_a_sequence_waits_at_its_limit_for_a_raise_and_goes_on(serve, said):
    async with serve() as worker:
        link, client = await worker.link(), worker.client()
        await waits_at_its_limit(worker, client)
        assert client.text(1) == said("prompt 1", LIMIT)
        (want,) = link.wants(1)[:1]
        assert want.blocks == 6
        await link.order(raises=[{"claim": CLAIM, "blocks": 6, "id": 9}])
        await link.until(lambda: any(held.answers_raise == 9 for held in link.held(1)))
        await link.until(lambda: link.wants(1)[-1].blocks == 7)
        await link.order(raises=[{"claim": CLAIM, "blocks": 7, "id": 10}])
        await client.until(lambda: 1 in client.done)
        assert client.text(1) == said("prompt 1", 200)
        assert [held.answers_raise for held in link.held(1) if held.answers_raise] == [9, 10]
        assert (await worker.info()).used_blocks == 0


async def test_what_waits_for_a_raise_goes_on_by_itself_once_its_routers_link_is_gone(serve, said):
    async with serve() as worker:
        link, client = await worker.link(), worker.client()
        await waits_at_its_limit(worker, client)
        assert client.text(1) == said("prompt 1", LIMIT)
        link._call.cancel()
        await client.until(lambda: 1 in client.done)
        assert client.text(1) == said("prompt 1", 200)


async def test_a_router_that_comes_back_is_told_what_still_waits(serve):
    async with serve(capacity_blocks=14) as worker:
        await worker.link()
        client = worker.client()
        await waits_at_its_limit(worker, client)
        again = await worker.link(epoch=6)
        (held,) = again.reports[0].held
        assert (held.grows, held.blocks) == (True, 2)
        assert [want.blocks for want in again.reports[0].wants] == [6]


async def test_a_waiting_sequence_can_be_stopped_and_has_said_all_that_it_produced(serve, said):
    async with serve() as worker:
        link, client = await worker.link(), worker.client()
        await waits_at_its_limit(worker, client)
        await link.order(stops=[{"claim": CLAIM, "reason": pb.END_REASON_PREEMPTED}])
        await client.until(lambda: 1 in client.done)
        assert client.done[1].reason == pb.END_REASON_PREEMPTED
        assert client.text(1) == said("prompt 1", LIMIT)
        await link.until(lambda: link.ended(1))
